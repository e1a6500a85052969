//! Trains personal weights and decides whether runs use them.

use std::collections::BTreeMap;
use std::sync::Arc;

use backstitch_onnx::patch::Patch;
use backstitch_protocol::Problem;
use backstitch_protocol::id::Name;
use backstitch_protocol::problem::Code;

use super::{Adapted, Cancelled, Client, check_cancelled};
use crate::library::Version;
use crate::personal::Change;
use crate::port::Port;
use crate::report::{CurvePoint, InUse, JudgedOn, Split, TrainProgress, TrainReport};
use crate::training::{Activation, Descent, Pace, Score, Trainer};

/// Passes over the examples where the caller does not say.
const EPOCHS: usize = 10;

/// Most passes that a caller may ask for.
const MAX_EPOCHS: usize = 1000;

/// Most bytes that the frozen part's results may take; what does not fit is not trained on.
const ACTIVATION_BYTES: usize = 128 << 20;

/// How long training works before it lets others go first.
const BREATH_MS: f64 = 8.0;

/// How to train.
#[derive(Clone, Debug, Default)]
pub struct TrainOptions {
    /// Passes over the examples; 10 where left out.
    pub epochs: Option<usize>,
    /// Trainable patches; all that tasks name where left out.
    pub patches: Option<Vec<Name>>,
    /// Decides the order of the examples.
    pub seed: u64,
}

/// Examples as a trainer takes them.
pub(super) struct Material {
    pub(super) training: Vec<Arc<Activation>>,
    pub(super) judging: Vec<Arc<Activation>>,
    pub(super) judged_on: JudgedOn,
    pub(super) split: Split,
}

/// What came of a descent.
pub(super) struct Trained {
    pub(super) weights: Vec<Vec<f32>>,
    pub(super) curve: Vec<CurvePoint>,
    total_ms: f64,
    step_ms: f64,
}

impl<P: Port> Client<P> {
    /// Trains on this device's examples, from the personal weights where there are some. Runs go on meanwhile, and
    /// use the new weights if these are better on examples that were not trained on.
    pub async fn train(
        &self,
        options: &TrainOptions,
        progress: &dyn Fn(&TrainProgress),
        cancelled: &Cancelled<'_>,
    ) -> Result<TrainReport, Problem> {
        self.check_open()?;
        let _one_at_a_time = self.training.try_lock().ok_or_else(|| {
            Problem::new(Code::Conflict, "a training is already running")
                .with_hint("wait for it, or cancel it")
        })?;
        let live = self.live();
        let names = trainable(&live, options.patches.as_deref())?;
        let shared: Vec<&Version> =
            names.iter().filter_map(|n| live.slot(n)).map(|s| &*s.shared).collect();
        let patches: Vec<&Patch> = shared.iter().map(|v| &*v.patch).collect();
        let (key, trainer) = self.workshop.trainer(&live.library.session, &patches)?;
        let material = self.material(key, &trainer, cancelled).await?;
        let base = trainer.weights_of(&patches)?;
        let start = self.personal_start(&live, &names, &trainer, &base)?;
        let epochs = options.epochs.unwrap_or(EPOCHS).clamp(1, MAX_EPOCHS);
        let pace = Pace { epochs, seed: options.seed };
        let descent = Descent::start(trainer.clone(), material.training.clone(), start, pace)?;
        let trained =
            self.descend(descent, Some((&trainer, &material.judging)), progress, cancelled).await?;
        let (shared_score, personal_score) = (
            score(&trainer, &material.judging, &base)?,
            score(&trainer, &material.judging, &trained.weights)?,
        );
        let improved = personal_score.is_better_than(&shared_score);
        let mut changes = BTreeMap::new();
        for version in &shared {
            let patch = trainer.apply(&version.patch, &trained.weights)?;
            let change =
                Change::between(&version.patch, &patch, material.split.training, improved)?;
            changes.insert(version.name.clone(), change);
        }
        let mut personal = self.personal.lock().await;
        let kept = personal.keep(&self.port, changes).await;
        // A newer library may have come meanwhile; the difference goes on top of it.
        self.adapt(self.library(), &personal).await?;
        kept.map_err(in_memory_only)?;
        Ok(TrainReport {
            patches: names,
            steps: trained.curve.len(),
            epochs,
            examples: material.split,
            curve: trained.curve,
            judged_on: material.judged_on,
            shared: shared_score,
            personal: personal_score,
            improved,
            in_use: if improved { InUse::Personal } else { InUse::Shared },
            total_ms: trained.total_ms,
            step_ms: trained.step_ms,
        })
    }

    /// This device's examples, run through the frozen part of the model; each is run once and remembered. Where they
    /// would take more than [`ACTIVATION_BYTES`], the newest count.
    pub(super) async fn material(
        &self,
        key: backstitch_onnx::Digest,
        trainer: &Trainer,
        cancelled: &Cancelled<'_>,
    ) -> Result<Material, Problem> {
        let mut all = {
            let mut examples = self.examples.lock().await;
            examples.refresh(&self.port).await?;
            self.drop_old_activations(&examples);
            examples.all().to_vec()
        };
        let most = (ACTIVATION_BYTES / trainer.activation_bytes().max(1)).max(trainer.batch());
        all.drain(..all.len().saturating_sub(most));
        self.make_room(key);
        let (mut training, mut held_out) = (Vec::new(), Vec::new());
        let mut breath = self.port.now_ms();
        for example in &all {
            let known = self.activations.borrow().get(&(key, example.id)).cloned();
            let activation = match known {
                Some(activation) => activation,
                None => {
                    let made = Arc::new(trainer.activate(example)?);
                    self.activations.borrow_mut().insert((key, example.id), made.clone());
                    made
                }
            };
            match example.is_held_out() {
                true => held_out.push(activation),
                false => training.push(activation),
            }
            breath = self.breathe(breath, cancelled).await?;
        }
        let split = Split { training: training.len(), held_out: held_out.len() };
        let (judging, judged_on) = match held_out.is_empty() {
            true => (training.clone(), JudgedOn::Training),
            false => (held_out, JudgedOn::HeldOut),
        };
        Ok(Material { training, judging, judged_on, split })
    }

    /// Drops what other trainers left where all of it together takes too much.
    fn make_room(&self, key: backstitch_onnx::Digest) {
        let mut activations = self.activations.borrow_mut();
        let bytes: usize = activations.values().map(|activation| activation.bytes()).sum();
        if bytes > ACTIVATION_BYTES / 2 {
            activations.retain(|(trainer, _), _| *trainer == key);
        }
    }

    /// Takes all steps, with pauses. With judges, the weights of the epoch that they find best are kept: a few
    /// examples are soon learnt by heart (early stopping, Prechelt 1998).
    pub(super) async fn descend(
        &self,
        mut descent: Descent,
        judges: Option<(&Trainer, &[Arc<Activation>])>,
        progress: &dyn Fn(&TrainProgress),
        cancelled: &Cancelled<'_>,
    ) -> Result<Trained, Problem> {
        let steps = descent.steps();
        let (mut curve, mut times) = (Vec::new(), Vec::new());
        let mut best: Option<(Score, Vec<Vec<f32>>)> = None;
        let mut breath = self.port.now_ms();
        loop {
            let (epoch, began) = (descent.epoch(), self.port.now_ms());
            let Some(loss) = descent.step()? else { break };
            times.push(self.port.now_ms() - began);
            let step = descent.taken();
            curve.push(CurvePoint { step, loss });
            progress(&TrainProgress { step, steps, epoch, loss });
            if let Some((trainer, examples)) = judges.filter(|_| descent.is_between_epochs()) {
                let now = score(trainer, examples, descent.weights())?;
                if best.as_ref().is_none_or(|(score, _)| now.is_better_than(score)) {
                    best = Some((now, descent.weights().to_vec()));
                }
            }
            breath = self.breathe(breath, cancelled).await?;
        }
        let total_ms = times.iter().sum();
        times.sort_by(f64::total_cmp);
        let step_ms = times.get(times.len() / 2).copied().unwrap_or_default();
        let weights = best.map_or_else(|| descent.weights().to_vec(), |(_, weights)| weights);
        Ok(Trained { weights, curve, total_ms, step_ms })
    }

    /// Lets others go first where work has gone on for long enough; then the caller may have cancelled.
    pub(super) async fn breathe(
        &self,
        last: f64,
        cancelled: &Cancelled<'_>,
    ) -> Result<f64, Problem> {
        if self.port.now_ms() - last < BREATH_MS {
            return Ok(last);
        }
        self.port.pause().await;
        self.check_open()?;
        check_cancelled(cancelled)?;
        Ok(self.port.now_ms())
    }

    /// The personal weights of patches that were trained here before, the shared ones of others.
    fn personal_start(
        &self,
        live: &Adapted,
        names: &[Name],
        trainer: &Trainer,
        base: &[Vec<f32>],
    ) -> Result<Vec<Vec<f32>>, Problem> {
        let current = |name: &Name| {
            let slot = live.slot(name)?;
            Some(slot.personal.as_ref().map_or(&slot.shared, |trained| &trained.version))
        };
        let patches: Vec<&Patch> = names.iter().filter_map(current).map(|v| &*v.patch).collect();
        let start = trainer.weights_of(&patches)?;
        // A former training that went nowhere is not built upon.
        let finite = start.iter().flatten().all(|w| w.is_finite());
        Ok(if finite { start } else { base.to_vec() })
    }
}

fn in_memory_only(problem: Problem) -> Problem {
    problem.with_hint(
        "free some space on this device and train again; until this page is closed, the weights are used from memory",
    )
}

pub(super) fn score(
    trainer: &Trainer,
    examples: &[Arc<Activation>],
    weights: &[Vec<f32>],
) -> Result<Score, Problem> {
    let examples: Vec<&Activation> = examples.iter().map(|e| &**e).collect();
    trainer.score(&examples, weights)
}

/// The named patches, or all trainable ones that a task of the library names, in stitching order.
fn trainable(live: &Adapted, named: Option<&[Name]>) -> Result<Vec<Name>, Problem> {
    let can = |name: &Name| {
        live.slot(name).is_some_and(|slot| {
            let manifest = slot.shared.patch.manifest();
            !manifest.trainable.is_empty() && manifest.training.is_some()
        })
    };
    if let Some(unable) = named.unwrap_or_default().iter().find(|name| !can(name)) {
        return Err(Problem::new(
            Code::PatchUnknown,
            format!("`{unable}` is no patch that can be trained here"),
        ));
    }
    let tasks = &live.library.catalog.tasks;
    let wanted = |name: &Name| match named {
        Some(named) => named.contains(name),
        None => tasks.is_empty() || tasks.iter().any(|task| task.patches.contains(name)),
    };
    let names = live.slots.iter().map(|slot| &slot.shared.name);
    let names: Vec<Name> = names.filter(|name| wanted(name) && can(name)).cloned().collect();
    match names.is_empty() {
        true => Err(Problem::new(
            Code::NothingToContribute,
            "this library has no patch that can be trained",
        )),
        false => Ok(names),
    }
}
