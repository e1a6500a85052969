//! What weights answer on examples, and how good that is. Many examples are answered a batch at a time.

use backstitch_onnx::autodiff::Loss;
use backstitch_onnx::{Program, Value};
use backstitch_protocol::Problem;
use backstitch_protocol::problem::Code;
use serde::Serialize;

use super::trainer::{Activation, Trainer, spread};
use crate::examples::Target;
use crate::residence::Resident;

/// A batch is answered together where it is more than one part in so many full. Below, filling it up costs more than a
/// run for each.
const LEAST_SHARE: usize = 2;

/// How good weights are on some examples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Score {
    /// The mean loss.
    pub loss: f64,
    /// The share of right answers; for targets that are no classes, 0.
    pub accuracy: f64,
    /// Examples.
    pub n: usize,
}

/// One example's loss, and whether its answer is right.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judged {
    /// Its loss.
    pub loss: f64,
    /// Whether the largest score is that of its class; for targets that are no classes, never.
    pub right: bool,
}

impl Score {
    pub(super) fn of(judged: &[Judged]) -> Self {
        let n = judged.len();
        let mean = |sum: f64| if n == 0 { 0.0 } else { sum / n as f64 };
        let right = judged.iter().filter(|j| j.right).count();
        Self { loss: mean(judged.iter().map(|j| j.loss).sum()), accuracy: mean(right as f64), n }
    }

    /// More right answers, or as many at a lower loss.
    pub fn is_better_than(&self, other: &Self) -> bool {
        self.accuracy > other.accuracy
            || (self.accuracy == other.accuracy && self.loss < other.loss)
    }
}

/// The part behind the border without its gradient. Inputs: border, weights. Output: the answer.
#[derive(Debug)]
pub(super) struct AnswerPrograms {
    pub(super) one_by_one: Resident<Program>,
    /// For a whole batch, compiled when first so many are to be answered; none where the primary takes one example at
    /// a time.
    pub(super) together: Option<Resident<Program>>,
}

impl Trainer {
    /// How good these weights are on these examples.
    pub fn score(&self, examples: &[&Activation], weights: &[Vec<f32>]) -> Result<Score, Problem> {
        Ok(Score::of(&self.judge(examples, weights)?))
    }

    /// The answer to each example as shares of the classes: its softmax.
    pub fn shares(
        &self,
        examples: &[&Activation],
        weights: &[Vec<f32>],
    ) -> Result<Vec<Vec<f64>>, Problem> {
        self.answers(examples, weights, |_, answer| softmax(answer))
    }

    /// The loss and the verdict of each example.
    pub fn judge(
        &self,
        examples: &[&Activation],
        weights: &[Vec<f32>],
    ) -> Result<Vec<Judged>, Problem> {
        self.answers(examples, weights, |target, answer| Judged {
            loss: loss_of(self.loss, answer, target),
            right: matches!(target, Target::Class(c) if argmax(answer) == Some(*c)),
        })
    }

    /// What `read` makes of each example's target and answer.
    fn answers<T>(
        &self,
        examples: &[&Activation],
        weights: &[Vec<f32>],
        read: impl Fn(&Target, &[f32]) -> T,
    ) -> Result<Vec<T>, Problem> {
        let weights = self.packed(weights)?;
        let mut read_all = Vec::with_capacity(examples.len());
        for some in examples.chunks(self.batch) {
            match &self.answer.together {
                Some(together) if some.len() * LEAST_SHARE > self.batch => {
                    let program = together.take()?;
                    let answers = run(&program, self.stacked(some)?, &weights)?;
                    let answers = answers.f32s()?;
                    let each = answers.chunks((answers.len() / self.batch).max(1));
                    read_all.extend(some.iter().zip(each).map(|(e, own)| read(&e.target, own)));
                }
                _ => {
                    let program = self.answer.one_by_one.take()?;
                    for example in some {
                        let fed = example.tensors.iter().map(Value::try_from);
                        let fed = fed.collect::<backstitch_onnx::Result<Vec<_>>>()?;
                        let answer = run(&program, fed, &weights)?;
                        read_all.push(read(&example.target, answer.f32s()?));
                    }
                }
            }
        }
        Ok(read_all)
    }
}

/// The first output for these inputs and weights.
fn run(program: &Program, mut fed: Vec<Value>, weights: &[Value]) -> Result<Value, Problem> {
    fed.extend(weights.iter().cloned());
    let answer = program.run_ordered(&fed)?.into_iter().next();
    answer.ok_or_else(|| Problem::new(Code::Internal, "the model has no answer"))
}

fn softmax(answer: &[f32]) -> Vec<f64> {
    let top = answer.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f64> = answer.iter().map(|v| f64::from(v - top).exp()).collect();
    let total: f64 = powers.iter().sum();
    powers.iter().map(|power| power / total).collect()
}

/// Index of the largest number; of the first where several are equal.
pub(crate) fn argmax(values: &[f32]) -> Option<usize> {
    values
        .iter()
        .enumerate()
        .fold(None, |best: Option<(usize, f32)>, (i, v)| match best {
            Some((_, top)) if *v <= top || v.is_nan() => best,
            _ => Some((i, *v)),
        })
        .map(|(i, _)| i)
}

/// The loss of one example, in f64; the same as the gradient graph's.
fn loss_of(loss: Loss, answer: &[f32], target: &Target) -> f64 {
    let numbers = || answer.iter().map(|v| f64::from(*v));
    let top = numbers().fold(f64::NEG_INFINITY, f64::max);
    let normaliser = top + numbers().map(|v| (v - top).exp()).sum::<f64>().ln();
    let count = answer.len().max(1) as f64;
    match (loss, target) {
        (Loss::SoftmaxCrossEntropy, Target::Class(class)) => {
            normaliser - answer.get(*class).map_or(f64::NAN, |v| f64::from(*v))
        }
        (Loss::Entropy, _) => {
            -numbers().map(|v| (v - normaliser).exp() * (v - normaliser)).sum::<f64>()
        }
        (Loss::SigmoidCrossEntropy, Target::Values(wanted)) => {
            let one = |(v, t): (f64, f32)| v.max(0.0) - v * f64::from(t) + (-v.abs()).exp().ln_1p();
            numbers().zip(spread(wanted, answer.len())).map(one).sum::<f64>() / count
        }
        (_, Target::Values(wanted)) => {
            let one = |(v, t): (f64, f32)| (v - f64::from(t)).powi(2);
            numbers().zip(spread(wanted, answer.len())).map(one).sum::<f64>() / count
        }
        _ => f64::NAN,
    }
}
