//! From a training to the bytes of a contribution, and what is kept so that a retry sends the very same bytes.
//!
//! The only way to bytes is Δ → clip → [`Contribution`]; examples and inputs have no encoder.

use backstitch_onnx::Digest;
use backstitch_protocol::Problem;
use backstitch_protocol::catalog::TaskEntry;
use backstitch_protocol::contribution::{Contribution, Nullifier};
use backstitch_protocol::delta::Delta;
use backstitch_protocol::measure::{self, Measure};
use backstitch_protocol::privacy::ClipNorm;
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

/// Clips what the training changed, over all trainable tensors of the task's patches together, and puts it into a
/// frame with what the task measures. `base` and `trained` are these tensors in parameter order; `accuracy` is that
/// of both on the device's judging examples.
pub fn prepare(
    task: &TaskEntry,
    secret: &[u8; 32],
    base: &[Vec<f32>],
    trained: &[Vec<f32>],
    accuracy: (f64, f64),
) -> Result<Prepared, Problem> {
    let delta = Delta::between(&base.concat(), &trained.concat())?;
    let norm = delta.norm();
    if norm == 0.0 {
        return Err(Problem::new(Code::NothingToContribute, "the training changed nothing"));
    }
    let measured = |measure: &Measure| {
        let value = match measure.kind {
            measure::Kind::WithinClip if norm <= task.clip_norm.value() => 1.0,
            measure::Kind::WithinClip => -1.0,
            measure::Kind::AccuracyBefore => 2.0 * accuracy.0 - 1.0,
            measure::Kind::AccuracyAfter => 2.0 * accuracy.1 - 1.0,
        };
        (*measure, value)
    };
    let measured: Vec<(Measure, f64)> = task.measures.iter().map(measured).collect();
    let clipped_delta = delta.clip_with(task.clip_norm, &measured)?;
    if clipped_delta.values().len() != task.frame_values() as usize {
        return Err(Problem::new(
            Code::VersionStale,
            format!(
                "{} values here, {} in the task",
                clipped_delta.values().len(),
                task.frame_values()
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

/// The weights with the update that would leave the device: the change of all tensors together, shortened to the clip
/// norm. This is what must not be worse for its maker, not the longer step of the training.
pub fn within_clip(
    clip: ClipNorm,
    base: &[Vec<f32>],
    trained: &[Vec<f32>],
) -> Result<Vec<Vec<f32>>, Problem> {
    let norm = Delta::between(&base.concat(), &trained.concat())?.norm();
    let share = (clip.value() / norm).min(1.0) as f32;
    let shorten = |(from, to): (&Vec<f32>, &Vec<f32>)| {
        from.iter().zip(to).map(|(from, to)| from + (to - from) * share).collect()
    };
    Ok(base.iter().zip(trained).map(shorten).collect())
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

    /// The frame's bytes; `None` where it is not one for the task's open round, or is damaged. What the device's storage
    /// holds is not believed: only what is within the clip norm may leave, also the second time.
    pub fn frame(&self, task: &TaskEntry) -> Option<Vec<u8>> {
        let bytes = hex::decode(&self.frame).ok()?;
        let contribution = Contribution::decode(&bytes, task.frame_values()).ok()?;
        let fits = self.round == task.round && self.base == task.base;
        (fits && contribution.base() == task.base).then_some(bytes)
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
        Code::TokenInvalid,
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

#[cfg(test)]
mod tests {
    use backstitch_protocol::contribution::HEADER_BYTES;
    use backstitch_protocol::delta::CLIP_INTEGER;
    use backstitch_protocol::id::Name;
    use backstitch_protocol::privacy::{ClipNorm, Delta as Failing, Epsilon, NoiseMultiplier};

    use super::*;

    fn task(measures: Vec<Measure>) -> TaskEntry {
        TaskEntry {
            name: Name::new("style").unwrap(),
            patches: vec![Name::new("a").unwrap(), Name::new("b").unwrap()],
            base_versions: vec![1, 1],
            base: Digest::of(b""),
            parameters: 3,
            round: 1,
            goal: 8,
            clip_norm: ClipNorm::new(1.0).unwrap(),
            noise_multiplier: NoiseMultiplier::new(2.54).unwrap(),
            max_participations: 4,
            period_days: 30,
            min_separation: 1,
            noise_band: 1,
            measures,
            epsilon: Epsilon::new(4.0).unwrap(),
            delta: Failing::new(1e-6).unwrap(),
            period_spent: Default::default(),
            token_key: None,
            open: true,
            closed_reason: None,
        }
    }

    /// Two patches with one tensor each: the changes have the norms 3 and 4.
    fn prepared(measures: Vec<Measure>) -> Prepared {
        let base = [vec![0.0], vec![0.0, 0.0]];
        let trained = [vec![3.0], vec![4.0, 0.0]];
        prepare(&task(measures), &[1; 32], &base, &trained, (0.5, 1.0)).unwrap()
    }

    #[test]
    fn all_patches_of_a_task_are_clipped_together() {
        let prepared = prepared(vec![]);
        assert_eq!((prepared.norm, prepared.clipped), (5.0, true));
        // 3/5 and 4/5 of the one bound, not the bound once for each patch.
        let share = |value: i16| f64::from(value) / CLIP_INTEGER as f64;
        let values = prepared.contribution.values();
        assert!((share(values[0]) - 0.6).abs() < 1e-4 && (share(values[1]) - 0.8).abs() < 1e-4);
    }

    #[test]
    fn what_was_begun_is_sent_again_only_as_a_frame_of_this_round_within_the_norm() {
        let (task, prepared) = (task(Vec::new()), prepared(Vec::new()));
        let frame = prepared.contribution.encode();
        let stored = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = frame.clone();
            change(&mut bytes);
            Pending::new(&task, &bytes).frame(&task)
        };
        assert_eq!(stored(&|_| ()), Some(frame.clone()));
        assert_eq!(stored(&|bytes| bytes[HEADER_BYTES..].fill(0x7f)), None, "above the norm");
        assert_eq!(stored(&|bytes| bytes.truncate(HEADER_BYTES + 2)), None);
        assert_eq!(stored(&|bytes| bytes[5] ^= 1), None, "another base");
        let next = TaskEntry { round: 2, ..task.clone() };
        assert_eq!(Pending::new(&task, &frame).frame(&next), None, "another round");
    }

    #[test]
    fn what_is_judged_is_no_longer_than_what_is_sent() {
        let base = [vec![1.0], vec![0.0, 0.0]];
        let near = |trained: &[Vec<f32>], expected: [f32; 3]| {
            let found = within_clip(ClipNorm::new(0.5).unwrap(), &base, trained).unwrap().concat();
            found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-6)
        };
        assert!(near(&[vec![4.0], vec![4.0, 0.0]], [1.3, 0.4, 0.0]));
        assert!(near(&[vec![1.1], vec![0.0, 0.2]], [1.1, 0.0, 0.2]));
        assert!(near(&base.clone(), [1.0, 0.0, 0.0]));
    }

    #[test]
    fn measures_stand_behind_the_update_within_the_same_bound() {
        let kinds = [
            measure::Kind::WithinClip,
            measure::Kind::AccuracyBefore,
            measure::Kind::AccuracyAfter,
        ];
        let measures: Vec<Measure> =
            kinds.iter().map(|kind| Measure { kind: *kind, share: 0.1 }).collect();
        let prepared = prepared(measures.clone());
        let values = prepared.contribution.values();
        let amplitude = measures[0].amplitude() as i16;
        assert_eq!(values[3..], [-amplitude, 0, amplitude], "clipped, one half, all right");
        let squares: i64 = values.iter().map(|v| i64::from(*v).pow(2)).sum();
        assert!(squares <= CLIP_INTEGER * CLIP_INTEGER);
    }
}
