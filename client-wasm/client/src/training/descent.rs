//! Stochastic gradient descent over a device's examples, one step at a time, so that other work may go between.

use std::sync::Arc;

use backstitch_protocol::Problem;
use backstitch_protocol::problem::Code;
use serde::{Deserialize, Serialize};

use super::rule::Rule;
use super::trainer::{Activation, Trainer};
use crate::random::SplitMix;

/// How long to train.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Passes over the examples.
    pub epochs: usize,
    /// Decides the order of the examples.
    pub seed: u64,
}

/// Where a descent stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Place {
    epochs: usize,
    taken: usize,
    draws: u64,
    order: Vec<usize>,
    adam_steps: i32,
}

/// A place with the numbers there: weights, anchor, and what the rule remembers.
pub(super) struct State<'a> {
    pub(super) place: Place,
    pub(super) tensors: Vec<&'a Vec<f32>>,
}

/// A training in progress, by the rule and the numbers of the manifest.
#[derive(Debug)]
pub struct Descent {
    trainer: Arc<Trainer>,
    examples: Vec<Arc<Activation>>,
    weights: Vec<Vec<f32>>,
    /// What the weights are held near to.
    anchor: Vec<Vec<f32>>,
    rule: Rule,
    order: Vec<usize>,
    draws: SplitMix,
    epochs: usize,
    taken: usize,
}

impl Descent {
    /// Starts from these weights. Fails with `nothing_to_contribute` where there is no example.
    pub fn start(
        trainer: Arc<Trainer>,
        examples: Vec<Arc<Activation>>,
        weights: Vec<Vec<f32>>,
        pace: Pace,
    ) -> Result<Self, Problem> {
        if examples.is_empty() {
            return Err(Problem::new(Code::NothingToContribute, "there is no example to train on")
                .with_hint("teach a few examples first"));
        }
        let rule = Rule::of(&trainer.training, &weights);
        let order = (0..examples.len()).collect();
        let draws = SplitMix::new(pace.seed);
        Ok(Self {
            trainer,
            examples,
            anchor: weights.clone(),
            weights,
            rule,
            order,
            draws,
            epochs: pace.epochs,
            taken: 0,
        })
    }

    /// Everything that the next steps depend on, besides trainer and examples.
    pub(super) fn state(&self) -> State<'_> {
        let (memory, adam_steps) = self.rule.memory();
        let place = Place {
            epochs: self.epochs,
            taken: self.taken,
            draws: self.draws.state(),
            order: self.order.clone(),
            adam_steps,
        };
        let tensors = self.weights.iter().chain(&self.anchor).chain(memory).collect();
        State { place, tensors }
    }

    /// Goes on where [`Descent::state`] was taken; `None` where that is no state of this trainer and these examples.
    pub(super) fn resume(
        trainer: Arc<Trainer>,
        examples: Vec<Arc<Activation>>,
        place: Place,
        mut tensors: Vec<Vec<f32>>,
    ) -> Option<Self> {
        let count = trainer.parameters.len();
        let mut all: Vec<usize> = place.order.clone();
        all.sort_unstable();
        let fits = all.iter().copied().eq(0..examples.len()) && !examples.is_empty();
        if !fits || tensors.len() < 2 * count {
            return None;
        }
        let memory = tensors.split_off(2 * count);
        let anchor = tensors.split_off(count);
        let mut rule = Rule::of(&trainer.training, &tensors);
        if rule.memory().0.len() != memory.len() {
            return None;
        }
        rule.remember(memory, place.adam_steps);
        Some(Self {
            trainer,
            examples,
            weights: tensors,
            anchor,
            rule,
            order: place.order,
            draws: SplitMix::new(place.draws),
            epochs: place.epochs,
            taken: place.taken,
        })
    }

    /// Steps in all.
    pub fn steps(&self) -> usize {
        self.epochs * self.steps_per_epoch()
    }

    /// Steps that were taken.
    pub fn taken(&self) -> usize {
        self.taken
    }

    /// The epoch of the next step, from 0.
    pub fn epoch(&self) -> usize {
        self.taken / self.steps_per_epoch()
    }

    /// Takes one step and returns its loss; `None` when all are taken. Fails with `training_diverged` where a loss
    /// or a weight is not finite.
    pub fn step(&mut self) -> Result<Option<f32>, Problem> {
        if self.taken >= self.steps() {
            return Ok(None);
        }
        let place = self.taken % self.steps_per_epoch();
        if place == 0 {
            self.draws.shuffle(&mut self.order);
        }
        let start = place * self.batch();
        let end = (start + self.batch()).min(self.order.len());
        let loss = self.learn(start, end)?;
        self.taken += 1;
        let finite = loss.is_finite() && self.weights.iter().flatten().all(|w| w.is_finite());
        match finite {
            true => Ok(Some(loss)),
            false => Err(Problem::new(
                Code::TrainingDiverged,
                format!("step {} has the loss {loss}", self.taken),
            )
            .with_hint("remove odd examples; the patch keeps its weights")),
        }
    }

    /// Whether an epoch has just ended.
    pub fn is_between_epochs(&self) -> bool {
        self.taken.is_multiple_of(self.steps_per_epoch())
    }

    /// The weights so far.
    pub fn weights(&self) -> &[Vec<f32>] {
        &self.weights
    }

    fn batch(&self) -> usize {
        self.trainer.training.batch.max(1)
    }

    fn steps_per_epoch(&self) -> usize {
        self.order.len().div_ceil(self.batch())
    }

    /// One step on the examples `start..end` of the order; in several runs where the program takes fewer at once.
    fn learn(&mut self, start: usize, end: usize) -> Result<f32, Problem> {
        let mut loss = 0.0;
        let mut sums: Vec<Vec<f32>> = self.weights.iter().map(|w| vec![0.0; w.len()]).collect();
        let count = (end - start) as f32;
        for part in self.order[start..end].chunks(self.trainer.batch) {
            let examples: Vec<&Activation> = part.iter().map(|i| &*self.examples[*i]).collect();
            let (mean, gradients) = self.trainer.gradient(&examples, &self.weights)?;
            let share = part.len() as f32 / count;
            loss += mean * share;
            for (sum, gradient) in sums.iter_mut().zip(&gradients) {
                for (total, value) in sum.iter_mut().zip(gradient.f32s()?) {
                    *total += share * value;
                }
            }
        }
        // The gradient of μ/2·‖w − start‖² (FedProx: Li et al. 2020, eq. 2).
        if let Some(pull) = self.trainer.training.proximal {
            let pairs = self.weights.iter().zip(&self.anchor);
            for (sum, (weights, anchor)) in sums.iter_mut().zip(pairs) {
                for (slope, (weight, start)) in sum.iter_mut().zip(weights.iter().zip(anchor)) {
                    *slope += pull * (weight - start);
                }
            }
        }
        self.rule.update(&mut self.weights, &sums, self.trainer.training.learning_rate);
        Ok(loss)
    }
}
