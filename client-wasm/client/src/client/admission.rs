//! Draws the token that a contribution needs, once per round, and keeps it until it is redeemed or forgotten.

use backstitch_protocol::Problem;
use backstitch_protocol::catalog::TaskEntry;
use backstitch_protocol::problem::Code;
use backstitch_protocol::token::{Blinding, Profile, Token, TokenAnswer, TokenRequest, TokenScope};
use serde::{Deserialize, Serialize};

use super::Client;
use crate::catalog::success;
use crate::device::Device;
use crate::port::{Port, Request};

/// A token that waits for its contribution.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    round: u64,
    token: Token,
}

impl<P: Port> Client<P> {
    /// The token of the task's open round: the kept one, or a new one from the server, whose proof is checked
    /// against the key in the signed catalog. None where the task asks for none.
    pub(super) async fn token(
        &self,
        device: &Device,
        task: &TaskEntry,
    ) -> Result<Option<Token>, Problem> {
        let Some(key) = &task.token_key else { return Ok(None) };
        let place = self.token_place(task);
        let stored = self.port.load(&place).await?;
        // What cannot be read is drawn again: the same request gets the same token.
        let kept = stored.and_then(|bytes| serde_json::from_slice::<Kept>(&bytes).ok());
        if let Some(kept) = kept.filter(|kept| kept.round == task.round) {
            return Ok(Some(kept.token));
        }
        let library = self.library().catalog.library.clone();
        let blinding = Blinding::derive(device.secret(), &task.name, task.round)?;
        let request = TokenRequest {
            task: format!("{library}.{}", task.name),
            round: task.round,
            profile: Profile::derive(device.secret()),
            blinded: blinding.blinded().clone(),
            voucher: self.voucher.clone(),
        };
        let scope = TokenScope { library: &library, task: &task.name, round: task.round };
        let token = blinding.finish(&self.draw(&request).await?, key, &scope)?;
        let kept = Kept { round: task.round, token: token.clone() };
        let bytes = serde_json::to_vec(&kept)
            .map_err(|e| Problem::new(Code::StorageFailed, format!("the token: {e}")))?;
        self.port.store(&place, &bytes).await?;
        Ok(Some(token))
    }

    /// Forgets the token of a task, redeemed or not.
    pub(super) async fn drop_token(&self, task: &TaskEntry) -> Result<(), Problem> {
        self.port.remove(&self.token_place(task)).await
    }

    async fn draw(&self, request: &TokenRequest) -> Result<TokenAnswer, Problem> {
        let body = serde_json::to_vec(request)
            .map_err(|e| Problem::new(Code::Internal, format!("the request: {e}")))?;
        let post = Request::post(self.address.below("tokens"), "application/json", body);
        let answer = success(self.port.fetch(post).await?, "a token")?;
        serde_json::from_slice(&answer.body).map_err(|e| {
            Problem::new(Code::NetworkFailed, format!("the server's answer is no token: {e}"))
        })
    }

    fn token_place(&self, task: &TaskEntry) -> String {
        self.scope.key(&format!("token/{}", task.name))
    }
}

/// Whether the server's word on a token is a reason not to contribute now, rather than a failure.
pub(super) fn is_refusal(problem: &Problem) -> bool {
    const REFUSALS: &[Code] = &[
        Code::ParticipationLimit,
        Code::EnrolmentRefused,
        Code::RoundClosed,
        Code::BudgetExhausted,
        Code::TokenSpent,
    ];
    REFUSALS.iter().any(|code| problem.is(*code))
}
