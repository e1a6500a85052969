//! A descent with its curve and the best weights so far, and the checkpoint from which it goes on in another visit.

use std::sync::Arc;

use backstitch_onnx::Digest;
use backstitch_protocol::Problem;
use backstitch_protocol::problem::Code;
use serde::{Deserialize, Serialize};

use super::descent::{Descent, Pace, Place};
use super::judging::Score;
use super::trainer::{Activation, Trainer};

/// Bytes of a digest, which a checkpoint begins with.
const DIGEST_BYTES: usize = 32;

/// A training in progress. With judges, the weights of the epoch that they find best are what comes of it: a few
/// examples are soon learnt by heart (early stopping, Prechelt 1998).
#[derive(Debug)]
pub struct Course {
    descent: Descent,
    trainer: Arc<Trainer>,
    judges: Vec<Arc<Activation>>,
    losses: Vec<f32>,
    best: Option<(Score, Vec<Vec<f32>>)>,
}

/// One step that was taken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// From 1.
    pub step: usize,
    /// From 0.
    pub epoch: usize,
    /// Of the batch, before the step.
    pub loss: f32,
}

/// The readable part of a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// Digest of all that the training depends on: what is another training must not be gone on with.
    pub identity: Digest,
    /// What the caller asked for, to ask for it again.
    pub wanted: serde_json::Value,
    /// Steps that were taken.
    pub step: usize,
    /// Steps in all.
    pub steps: usize,
    /// Milliseconds that they took.
    pub worked_ms: f64,
    best: Option<(f64, f64, usize)>,
    place: Place,
}

impl Course {
    /// Begins at these weights. Fails with `nothing_to_contribute` where there is no example.
    pub fn start(
        trainer: Arc<Trainer>,
        examples: Vec<Arc<Activation>>,
        judges: Vec<Arc<Activation>>,
        weights: Vec<Vec<f32>>,
        pace: Pace,
    ) -> Result<Self, Problem> {
        let descent = Descent::start(trainer.clone(), examples, weights, pace)?;
        Ok(Self { descent, trainer, judges, losses: Vec::new(), best: None })
    }

    /// Takes one step; `None` when all are taken.
    pub fn step(&mut self) -> Result<Option<Step>, Problem> {
        let epoch = self.descent.epoch();
        let Some(loss) = self.descent.step()? else { return Ok(None) };
        self.losses.push(loss);
        if self.descent.is_between_epochs() && !self.judges.is_empty() {
            let judges: Vec<&Activation> = self.judges.iter().map(|e| &**e).collect();
            let now = self.trainer.score(&judges, self.descent.weights())?;
            if self.best.as_ref().is_none_or(|(score, _)| now.is_better_than(score)) {
                self.best = Some((now, self.descent.weights().to_vec()));
            }
        }
        Ok(Some(Step { step: self.descent.taken(), epoch, loss }))
    }

    /// Steps in all.
    pub fn steps(&self) -> usize {
        self.descent.steps()
    }

    /// Whether an epoch has just ended.
    pub fn is_between_epochs(&self) -> bool {
        self.descent.is_between_epochs()
    }

    /// The loss of each step so far.
    pub fn losses(&self) -> &[f32] {
        &self.losses
    }

    /// What has come of it: the best weights where somebody judged, else the last ones.
    pub fn weights(&self) -> &[Vec<f32>] {
        self.best.as_ref().map_or_else(|| self.descent.weights(), |(_, weights)| weights)
    }

    /// What another visit needs to go on, as bytes: a digest of the rest, the header with its length before it, and
    /// f32 numbers, little-endian.
    pub fn checkpoint(
        &self,
        identity: Digest,
        wanted: serde_json::Value,
        worked_ms: f64,
    ) -> Result<Vec<u8>, Problem> {
        let state = self.descent.state();
        let header = Header {
            identity,
            wanted,
            step: self.descent.taken(),
            steps: self.steps(),
            worked_ms,
            best: self.best.as_ref().map(|(score, _)| (score.loss, score.accuracy, score.n)),
            place: state.place,
        };
        let header = serde_json::to_vec(&header)
            .map_err(|e| Problem::new(Code::StorageFailed, format!("the checkpoint: {e}")))?;
        let mut bytes = u32::try_from(header.len()).unwrap_or(u32::MAX).to_le_bytes().to_vec();
        bytes.extend(&header);
        let best = self.best.iter().flat_map(|(_, weights)| weights);
        for tensor in std::iter::once(&self.losses).chain(state.tensors).chain(best) {
            tensor.iter().for_each(|number| bytes.extend(number.to_le_bytes()));
        }
        Ok([Digest::of(&bytes).as_bytes().as_slice(), &bytes].concat())
    }

    /// Goes on from a checkpoint; `None` where it is damaged or of another training.
    pub fn resume(
        trainer: Arc<Trainer>,
        examples: Vec<Arc<Activation>>,
        judges: Vec<Arc<Activation>>,
        bytes: &[u8],
        identity: Digest,
    ) -> Option<(Self, Header)> {
        let (header, numbers) = read(bytes).filter(|(header, _)| header.identity == identity)?;
        let (losses, mut rest) = numbers.split_at_checked(header.step)?;
        let lengths: Vec<usize> =
            trainer.parameters.iter().map(|p| p.shape.iter().product()).collect();
        let mut tensors = Vec::new();
        while !rest.is_empty() {
            let length = *lengths.get(tensors.len() % lengths.len().max(1))?;
            let (tensor, after) = rest.split_at_checked(length)?;
            tensors.push(tensor.to_vec());
            // A tensor without numbers would never end this.
            rest = if length == 0 { return None } else { after };
        }
        let best = match header.best {
            None => None,
            Some((loss, accuracy, n)) => {
                let weights = tensors.split_off(tensors.len().checked_sub(lengths.len())?);
                Some((Score { loss, accuracy, n }, weights))
            }
        };
        let descent = Descent::resume(trainer.clone(), examples, header.place.clone(), tensors)?;
        let whole = descent.taken() == header.step && descent.steps() == header.steps;
        let course = Self { descent, trainer, judges, losses: losses.to_vec(), best };
        whole.then_some((course, header))
    }
}

impl Header {
    /// The header of a checkpoint; `None` where that is damaged.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        read(bytes).map(|(header, _)| header)
    }
}

fn read(bytes: &[u8]) -> Option<(Header, Vec<f32>)> {
    let (digest, bytes) = bytes.split_at_checked(DIGEST_BYTES)?;
    if Digest::of(bytes).as_bytes() != digest {
        return None;
    }
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (header, numbers) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    let header = serde_json::from_slice(header).ok()?;
    let whole = numbers.len().is_multiple_of(4);
    let numbers = numbers.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    let numbers: Vec<f32> = numbers.collect();
    (whole && numbers.iter().all(|n| n.is_finite())).then_some((header, numbers))
}
