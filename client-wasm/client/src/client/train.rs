//! Trains personal weights and decides whether runs use them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use backstitch_onnx::Digest;
use backstitch_onnx::patch::Patch;
use backstitch_protocol::Problem;
use backstitch_protocol::id::Name;
use backstitch_protocol::problem::Code;
use futures::lock::MutexGuard;
use serde::{Deserialize, Serialize};

use super::unlabelled::ENTROPY;
use super::{Adapted, Cancelled, Client, Slot, check_cancelled};
use crate::library::Version;
use crate::personal::Change;
use crate::port::Port;
use crate::report::{CurvePoint, InUse, JudgedOn, Split, TrainProgress, TrainReport};
use crate::training::{Activation, Course, Pace, Score, Trainer};

/// Passes over the examples where the caller does not say.
const EPOCHS: usize = 10;

/// Most passes that a caller may ask for.
const MAX_EPOCHS: usize = 1000;

/// Most bytes that the frozen part's results may take; what does not fit is not trained on.
const ACTIVATION_BYTES: usize = 128 << 20;

/// How long training works before it lets others go first.
const BREATH_MS: f64 = 8.0;

/// How to train.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainOptions {
    /// Passes over the examples; 10 where left out.
    pub epochs: Option<usize>,
    /// Trainable patches; where left out, those that no task trains, or else those of the tasks.
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

/// What shall be trained, from where, and how.
pub(super) struct Plan {
    pub(super) names: Vec<Name>,
    pub(super) shared: Vec<Arc<Version>>,
    pub(super) key: Digest,
    pub(super) trainer: Arc<Trainer>,
    /// The shared weights.
    pub(super) base: Vec<Vec<f32>>,
    /// The personal ones, where there are some.
    pub(super) start: Vec<Vec<f32>>,
    pub(super) pace: Pace,
}

/// A training under way.
pub(super) struct Lesson {
    pub(super) plan: Plan,
    pub(super) course: Course,
    judging: Vec<Arc<Activation>>,
    judged_on: JudgedOn,
    split: Split,
    /// Milliseconds of each step of this visit.
    times: Vec<f64>,
    /// Milliseconds of all steps.
    pub(super) worked_ms: f64,
}

impl Lesson {
    pub(super) fn new(plan: Plan, material: Material, course: Course, worked_ms: f64) -> Self {
        let Material { judging, judged_on, split, .. } = material;
        Self { plan, course, judging, judged_on, split, times: Vec::new(), worked_ms }
    }
}

impl Material {
    /// A training by this plan, from its beginning.
    pub(super) fn course(&self, plan: &Plan) -> Result<Course, Problem> {
        let (training, judging) = (self.training.clone(), self.judging.clone());
        Course::start(plan.trainer.clone(), training, judging, plan.start.clone(), plan.pace)
    }
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
        let _one_at_a_time = self.one_training()?;
        let plan = self.plan(options)?;
        let material = self.material(plan.key, &plan.trainer, cancelled).await?;
        let course = material.course(&plan)?;
        let mut lesson = Lesson::new(plan, material, course, 0.0);
        self.advance(&mut lesson, f64::INFINITY, progress, cancelled).await?;
        self.conclude(lesson).await
    }

    pub(super) fn one_training(&self) -> Result<MutexGuard<'_, ()>, Problem> {
        self.training.try_lock().ok_or_else(|| {
            Problem::new(Code::Conflict, "a training is already running")
                .with_hint("wait for it, or cancel it")
        })
    }

    pub(super) fn plan(&self, options: &TrainOptions) -> Result<Plan, Problem> {
        let live = self.live();
        let names = trainable(&live, options.patches.as_deref())?;
        let shared: Vec<Arc<Version>> =
            names.iter().filter_map(|n| live.slot(n)).map(|s| s.shared.clone()).collect();
        let patches: Vec<&Patch> = shared.iter().map(|v| &*v.patch).collect();
        let (key, trainer) = self.workshop.trainer(&live.library.session, &patches)?;
        let base = trainer.weights_of(&patches)?;
        let start = self.personal_start(&live, &names, &trainer, &base)?;
        let epochs = options.epochs.unwrap_or(EPOCHS).clamp(1, MAX_EPOCHS);
        let pace = Pace { epochs, seed: options.seed };
        Ok(Plan { names, shared, key, trainer, base, start, pace })
    }

    /// Takes steps, with pauses, for so many milliseconds or until all are taken, and says whether they are.
    pub(super) async fn advance(
        &self,
        lesson: &mut Lesson,
        slice_ms: f64,
        progress: &dyn Fn(&TrainProgress),
        cancelled: &Cancelled<'_>,
    ) -> Result<bool, Problem> {
        let steps = lesson.course.steps();
        let began = self.port.now_ms();
        let mut breath = began;
        while self.port.now_ms() - began < slice_ms {
            let before = self.port.now_ms();
            let Some(step) = lesson.course.step()? else { return Ok(true) };
            let ms = self.port.now_ms() - before;
            lesson.times.push(ms);
            lesson.worked_ms += ms;
            progress(&TrainProgress { step: step.step, steps, epoch: step.epoch, loss: step.loss });
            breath = self.breathe(breath, cancelled).await?;
        }
        Ok(lesson.course.losses().len() >= steps)
    }

    /// Decides whether runs use what was trained, and keeps it.
    pub(super) async fn conclude(&self, lesson: Lesson) -> Result<TrainReport, Problem> {
        let Lesson { plan, course, judging, judged_on, split, mut times, worked_ms } = lesson;
        let trained = course.weights();
        let (shared, personal) =
            (score(&plan.trainer, &judging, &plan.base)?, score(&plan.trainer, &judging, trained)?);
        let improved = personal.is_better_than(&shared);
        let mut changes = BTreeMap::new();
        for version in &plan.shared {
            let patch = plan.trainer.apply(&version.patch, trained)?;
            let change = Change::between(&version.patch, &patch, split.training, improved)?;
            changes.insert(version.name.clone(), change);
        }
        let mut kept = self.personal.lock().await;
        let stored = kept.keep(&self.port, changes).await;
        // A newer library may have come meanwhile; the difference goes on top of it.
        self.adapt(self.library(), &kept).await?;
        stored.map_err(in_memory_only)?;
        let losses = course.losses().iter().enumerate();
        let curve: Vec<CurvePoint> =
            losses.map(|(i, loss)| CurvePoint { step: i + 1, loss: *loss }).collect();
        times.sort_by(f64::total_cmp);
        Ok(TrainReport {
            patches: plan.names,
            steps: curve.len(),
            epochs: plan.pace.epochs,
            examples: split,
            curve,
            judged_on,
            shared,
            personal,
            improved,
            in_use: if improved { InUse::Personal } else { InUse::Shared },
            total_ms: worked_ms,
            step_ms: times.get(times.len() / 2).copied().unwrap_or_default(),
        })
    }

    /// This device's examples of what the trainer learns from, run through the frozen part of the model; each is run
    /// once and remembered. Where they would take more than [`ACTIVATION_BYTES`], the newest count.
    pub(super) async fn material(
        &self,
        key: Digest,
        trainer: &Trainer,
        cancelled: &Cancelled<'_>,
    ) -> Result<Material, Problem> {
        let mut all = {
            let mut examples = self.examples.lock().await;
            examples.refresh(&self.port).await?;
            self.drop_old_activations(&examples);
            let kept = examples.all().iter();
            kept.filter(|example| trainer.learns_from(&example.target)).cloned().collect::<Vec<_>>()
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
    fn make_room(&self, key: Digest) {
        let mut activations = self.activations.borrow_mut();
        let bytes: usize = activations.values().map(|activation| activation.bytes()).sum();
        if bytes > ACTIVATION_BYTES / 2 {
            activations.retain(|(trainer, _), _| *trainer == key);
        }
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

pub(super) fn in_memory_only(problem: Problem) -> Problem {
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

/// The named patches, or else this device's own: those that can be trained and that no task trains, where they can be
/// stitched together; else those of the tasks. In stitching order.
pub(super) fn trainable(live: &Adapted, named: Option<&[Name]>) -> Result<Vec<Name>, Problem> {
    let can = |slot: &Slot| {
        let manifest = slot.shared.patch.manifest();
        !manifest.trainable.is_empty() && manifest.training.is_some()
    };
    let known = |name: &Name| live.slot(name).is_some_and(can);
    if let Some(unable) = named.unwrap_or_default().iter().find(|name| !known(name)) {
        return Err(Problem::new(
            Code::PatchUnknown,
            format!("`{unable}` is no patch that can be trained here"),
        ));
    }
    let tasks = &live.library.catalog.tasks;
    let shared = |name: &Name| tasks.iter().any(|task| task.patches.contains(name));
    let all = || live.slots.iter().filter(|slot| can(slot)).map(|slot| &slot.shared);
    let chosen: Vec<&Arc<Version>> = match named {
        Some(named) => all().filter(|version| named.contains(&version.name)).collect(),
        None => {
            // What adapts without answers has nothing to learn from examples.
            let learns = |version: &Version| {
                version.patch.manifest().training.as_ref().is_some_and(|t| t.loss != ENTROPY)
            };
            let own = all().filter(|version| !shared(&version.name) && learns(version));
            let own: Vec<_> = own.collect();
            match own.is_empty() || exclude_each_other(&own) {
                true => all().filter(|version| shared(&version.name)).collect(),
                false => own,
            }
        }
    };
    match chosen.is_empty() {
        true => Err(Problem::new(
            Code::NothingToContribute,
            "this library has no patch that this device could train for itself",
        )
        .with_hint("name one in `patches`, where the library has some that exclude each other")),
        false => Ok(chosen.into_iter().map(|version| version.name.clone()).collect()),
    }
}

/// Whether two of them replace the same tensor.
fn exclude_each_other(versions: &[&Arc<Version>]) -> bool {
    let mut replaced = BTreeSet::new();
    !versions.iter().flat_map(|version| &version.replaces).all(|site| replaced.insert(site))
}
