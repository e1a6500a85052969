//! From a training to the bytes of a contribution, and what is kept so that a retry sends the very same bytes.
//!
//! The only way to bytes is Δ → clip → [`Contribution`]; examples and inputs have no encoder.

use backstitch_onnx::Digest;
use backstitch_protocol::Problem;
use backstitch_protocol::catalog::TaskEntry;
use backstitch_protocol::contribution::{Contribution, Nullifier};
use backstitch_protocol::delta::Delta;
use backstitch_protocol::problem::Code;
use serde::{Deserialize, Serialize};

/// Fewest training examples of a contribution: an update from fewer says too much about each and helps too little.
pub const MIN_EXAMPLES: usize = 4;

/// A contribution, ready to be shown and sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Prepared {
    /// What would be sent.
    pub contribution: Contribution,
    /// L2 norm before clipping.
    pub norm: f64,
    /// Whether clipping reduced it.
    pub clipped: bool,
}

/// Clips what the training changed and puts it into a frame. `base` and `trained` are the task's trainable tensors
/// in parameter order.
pub fn prepare(
    task: &TaskEntry,
    secret: &[u8; 32],
    base: &[Vec<f32>],
    trained: &[Vec<f32>],
) -> Result<Prepared, Problem> {
    let delta = Delta::between(&base.concat(), &trained.concat())?;
    let norm = delta.norm();
    if norm == 0.0 {
        return Err(Problem::new(Code::NothingToContribute, "the training changed nothing"));
    }
    let clipped_delta = delta.clip(task.clip_norm)?;
    if clipped_delta.values().len() != task.parameters as usize {
        return Err(Problem::new(
            Code::VersionStale,
            format!(
                "{} parameters here, {} in the task",
                clipped_delta.values().len(),
                task.parameters
            ),
        ));
    }
    let clipped = clipped_delta.was_clipped();
    let nullifier = Nullifier::derive(secret, &task.name, task.round);
    Ok(Prepared {
        contribution: Contribution::new(task.base, nullifier, clipped_delta),
        norm,
        clipped,
    })
}

/// The seed of a contribution's training: the same for the preview and for what is sent, another in every round.
pub fn seed(secret: &[u8; 32], task: &TaskEntry) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&Nullifier::derive(secret, &task.name, task.round).as_bytes()[..8]);
    u64::from_le_bytes(first)
}

/// A contribution that was begun: written down before it is sent, removed when the server has answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pending {
    /// The round that it is for.
    pub round: u64,
    /// The weights that it started from.
    pub base: Digest,
    /// Hex of the frame.
    frame: String,
}

impl Pending {
    /// Keeps these bytes for this round.
    pub fn new(task: &TaskEntry, frame: &[u8]) -> Self {
        Self { round: task.round, base: task.base, frame: hex::encode(frame) }
    }

    /// The frame's bytes; `None` where they are damaged.
    pub fn frame(&self) -> Option<Vec<u8>> {
        hex::decode(&self.frame).ok()
    }

    /// Whether it belongs to the task's open round and base.
    pub fn fits(&self, task: &TaskEntry) -> bool {
        self.round == task.round && self.base == task.base
    }
}

/// What the server's answer to a contribution means for this device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was certainly not added: it does not count against this device.
    NotAdded,
    /// Another one of this device was added in this round.
    AddedOther,
    /// Nobody knows: send the same bytes again.
    Unknown,
}

/// Reads a problem as a verdict.
pub fn verdict(problem: &Problem) -> Verdict {
    const NOT_ADDED: &[Code] = &[
        Code::VersionStale,
        Code::RoundClosed,
        Code::FrameLength,
        Code::FrameInvalid,
        Code::NormExceeded,
        Code::LengthRequired,
        Code::BodyTooLarge,
        Code::BudgetExhausted,
        Code::NotFound,
    ];
    if problem.is(Code::NullifierReused) {
        return Verdict::AddedOther;
    }
    match NOT_ADDED.iter().any(|code| problem.is(*code)) {
        true => Verdict::NotAdded,
        false => Verdict::Unknown,
    }
}
