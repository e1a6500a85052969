//! A device that speaks the protocol by itself, so that it can also break it.

use backstitch_protocol::catalog::TaskEntry;
use backstitch_protocol::contribution::{Contribution, HEADER_BYTES, MEDIA_TYPE, Nullifier};
use backstitch_protocol::delta::{CLIP_INTEGER, Delta};
use backstitch_protocol::id::Name;
use backstitch_protocol::token::{Blinding, Profile, TokenAnswer, TokenRequest, TokenScope};

use super::wire::{Network, Reply};

/// Trainable numbers of `personal-style`.
pub(super) const PARAMETERS: usize = 330;

pub(super) struct Device {
    secret: [u8; 32],
    network: Network,
}

impl Device {
    pub(super) fn new(number: u64, network: Network) -> Self {
        let mut secret = [7; 32];
        secret[..8].copy_from_slice(&number.to_le_bytes());
        Self { secret, network }
    }

    /// The token of the open round, or the server's refusal.
    pub(super) async fn draw(&self, task: &TaskEntry) -> Result<String, Reply> {
        let library = Name::new("fashion").unwrap();
        let blinding = Blinding::derive(&self.secret, &task.name, task.round).unwrap();
        let request = TokenRequest {
            task: format!("{library}.{}", task.name),
            round: task.round,
            profile: Profile::derive(&self.secret),
            blinded: blinding.blinded().clone(),
            voucher: None,
        };
        let body = serde_json::to_vec(&request).unwrap();
        let reply = self.network.post("/v1/tokens", "application/json", &body, "").await;
        let Ok(answer) = serde_json::from_slice::<TokenAnswer>(&reply.body) else {
            return Err(reply);
        };
        let scope = TokenScope { library: &library, task: &task.name, round: task.round };
        Ok(blinding.finish(&answer, task.token_key.as_ref().unwrap(), &scope).unwrap().hex())
    }

    /// The frame of this update, clipped as every client clips.
    pub(super) fn frame(&self, task: &TaskEntry, value: impl Fn(usize) -> f32) -> Vec<u8> {
        assert_eq!(task.parameters as usize, PARAMETERS);
        let update: Vec<f32> = (0..PARAMETERS).map(value).collect();
        let delta = Delta::between(&[0.0; PARAMETERS], &update).unwrap();
        let nullifier = Nullifier::derive(&self.secret, &task.name, task.round);
        Contribution::new(task.base, nullifier, delta.clip(task.clip_norm).unwrap()).encode()
    }

    pub(super) async fn post(&self, frame: &[u8], token: Option<&str>) -> Reply {
        let bearer = token.map(|t| format!("authorization: Bearer {t}\r\n")).unwrap_or_default();
        let path = "/v1/tasks/fashion.personal-style/contributions";
        self.network.post(path, MEDIA_TYPE, frame, &bearer).await
    }
}

/// Adds what a frame says, in units of the weights.
pub(super) fn add(sum: &mut [f64], frame: &[u8], task: &TaskEntry) {
    let step = task.clip_norm.value() / CLIP_INTEGER as f64;
    for (total, value) in sum.iter_mut().zip(frame[HEADER_BYTES..].chunks_exact(2)) {
        *total += f64::from(i16::from_le_bytes([value[0], value[1]])) * step;
    }
}
