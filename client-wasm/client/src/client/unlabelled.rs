//! Adapts patches to inputs whose right answers nobody knows: by making the model's answers more certain (entropy
//! minimisation, *Tent*: Wang et al. 2021). The manifest of a patch allows it by naming `entropy` as its loss, which
//! suits patches of few numbers, such as a gain and a bias per channel.

use std::collections::BTreeMap;
use std::sync::Arc;

use backstitch_protocol::Problem;
use backstitch_protocol::id::Name;
use backstitch_protocol::problem::Code;

use super::run::prepare;
use super::train::{TrainOptions, in_memory_only};
use super::{Cancelled, Client};
use crate::examples::{Example, Target};
use crate::input::{Input, invalid};
use crate::personal::Change;
use crate::port::Port;
use crate::report::{AdaptReport, Certainty};
use crate::training::{Activation, Course, Trainer};

/// The loss by which a manifest allows it.
pub(super) const ENTROPY: &str = "entropy";

/// Fewest inputs: the answers to fewer do not say whether they still differ.
const MIN_INPUTS: usize = 8;

/// Most inputs.
const MAX_INPUTS: usize = 1000;

/// The share of their former variety that the answers must keep. Whoever always says the same is certain too.
const VARIETY: f64 = 0.95;

impl<P: Port> Client<P> {
    /// Adapts the patches that allow it to these inputs, from their shared weights, so that errors of former
    /// adaptations do not add up. Runs use the weights of the epoch with the most certain answers, as long as these
    /// keep their variety; where none are better, the shared ones. The outcome stays on this device, as what is trained does; the shared weights stay as they are.
    pub async fn adapt_to(
        &self,
        inputs: &[Input],
        options: &TrainOptions,
        cancelled: &Cancelled<'_>,
    ) -> Result<AdaptReport, Problem> {
        self.check_open()?;
        if !(MIN_INPUTS..=MAX_INPUTS).contains(&inputs.len()) {
            let detail =
                format!("{} inputs, {MIN_INPUTS} to {MAX_INPUTS} are needed", inputs.len());
            return Err(invalid(detail).with_hint("give inputs as they come now, of all kinds"));
        }
        let _one_at_a_time = self.one_training()?;
        let names = self.adaptable(options.patches.as_deref())?;
        let options = TrainOptions { patches: Some(names), ..options.clone() };
        let plan = self.plan(&options)?;
        let epochs = options.epochs.unwrap_or(plan.trainer.training().epochs);
        let pace = crate::training::Pace { epochs: epochs.clamp(1, 1000), ..plan.pace };
        let activations = self.activated(inputs, &plan.trainer, cancelled).await?;
        let (trainer, from) = (plan.trainer.clone(), plan.base.clone());
        let mut course = Course::start(trainer, activations.clone(), Vec::new(), from, pace)?;
        let before = certainty(&plan.trainer, &activations, &plan.base)?;
        let mut best: Option<(Certainty, Vec<Vec<f32>>)> = None;
        let mut breath = self.port.now_ms();
        while course.step()?.is_some() {
            if course.is_between_epochs() {
                let now = certainty(&plan.trainer, &activations, course.weights())?;
                // From here on it would make itself certain by saying always the same.
                if now.variety < VARIETY * before.variety {
                    break;
                }
                if now.entropy < best.as_ref().map_or(before.entropy, |(best, _)| best.entropy) {
                    best = Some((now, course.weights().to_vec()));
                }
            }
            breath = self.breathe(breath, cancelled).await?;
        }
        let in_use = best.is_some();
        let (after, weights) = best.unwrap_or((before, plan.base.clone()));
        let mut changes = BTreeMap::new();
        for version in &plan.shared {
            let patch = plan.trainer.apply(&version.patch, &weights)?;
            let change = Change::between(&version.patch, &patch, inputs.len(), in_use)?;
            changes.insert(version.name.clone(), change);
        }
        let mut personal = self.personal.lock().await;
        let stored = personal.keep(&self.port, changes).await;
        self.adapt(self.library(), &personal).await?;
        stored.map_err(in_memory_only)?;
        Ok(AdaptReport {
            patches: plan.names,
            inputs: inputs.len(),
            steps: course.losses().len(),
            before,
            after,
            in_use,
        })
    }

    /// The named patches, or all whose manifest allows it.
    fn adaptable(&self, named: Option<&[Name]>) -> Result<Vec<Name>, Problem> {
        let live = self.live();
        let allows = |name: &Name| {
            let slot = live.slot(name);
            let training = slot.and_then(|slot| slot.shared.patch.manifest().training.as_ref());
            training.is_some_and(|training| training.loss == ENTROPY)
        };
        if let Some(unable) = named.unwrap_or_default().iter().find(|name| !allows(name)) {
            let detail = format!("`{unable}` is no patch that adapts without answers");
            return Err(Problem::new(Code::PatchUnknown, detail)
                .with_hint("its manifest must name `entropy` as the loss of its training"));
        }
        let names = live.slots.iter().map(|slot| slot.shared.name.clone());
        let wanted = |name: &Name| named.is_none_or(|named| named.contains(name)) && allows(name);
        let names: Vec<Name> = names.filter(wanted).collect();
        match names.is_empty() {
            true => Err(Problem::new(
                Code::NothingToContribute,
                "this library has no patch that adapts without answers",
            )),
            false => Ok(names),
        }
    }

    async fn activated(
        &self,
        inputs: &[Input],
        trainer: &Trainer,
        cancelled: &Cancelled<'_>,
    ) -> Result<Vec<Arc<Activation>>, Problem> {
        let library = self.library();
        let mut activations = Vec::with_capacity(inputs.len());
        let mut breath = self.port.now_ms();
        for (id, input) in (0..).zip(inputs) {
            let prepared = prepare(&library, input)?;
            // The loss looks at no target.
            let target = Target::Class(0);
            let example = Example { id, shape: prepared.shape, values: prepared.values, target };
            activations.push(Arc::new(trainer.activate(&example)?));
            breath = self.breathe(breath, cancelled).await?;
        }
        Ok(activations)
    }
}

/// How certain the answers are, and how much they vary: the mean of their entropies and the entropy of their mean.
fn certainty(
    trainer: &Trainer,
    activations: &[Arc<Activation>],
    weights: &[Vec<f32>],
) -> Result<Certainty, Problem> {
    let activations: Vec<&Activation> = activations.iter().map(|a| &**a).collect();
    let answers = trainer.shares(&activations, weights)?;
    let count = answers.len().max(1) as f64;
    let mut mean = vec![0.0; answers.first().map_or(0, Vec::len)];
    for (sum, share) in answers.iter().flat_map(|answer| answer.iter().enumerate()) {
        mean[sum] += share / count;
    }
    let entropy = answers.iter().map(|answer| nats(answer)).sum::<f64>() / count;
    Ok(Certainty { entropy, variety: nats(&mean) })
}

/// −Σ p ln p.
fn nats(shares: &[f64]) -> f64 {
    -shares.iter().filter(|p| **p > 0.0).map(|p| p * p.ln()).sum::<f64>()
}
