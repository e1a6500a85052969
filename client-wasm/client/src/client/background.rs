//! Trains in slices, and goes on in a later visit where a page was closed: the training's place, weights and momentum
//! are stored on the device after each slice.

use backstitch_onnx::Digest;
use backstitch_protocol::Problem;
use backstitch_protocol::problem::Code;

use super::train::{Lesson, Plan, TrainOptions};
use super::{Cancelled, Client};
use crate::examples::{Example, Target};
use crate::port::Port;
use crate::report::{TrainProgress, TrainReport, Unfinished};
use crate::training::{Course, Header};

const DOMAIN: &[u8] = b"backstitch training v1\0";

/// A training that waits for its next slice.
pub(super) struct Underway {
    identity: Digest,
    lesson: Lesson,
}

impl<P: Port> Client<P> {
    /// Goes on with the training that these options describe, for so many milliseconds, and returns its report when it
    /// is done. The first slice takes up what an earlier visit has left; where patches, examples or options are others
    /// now, that is discarded and the training begins anew. In the end it is the same as by [`Client::train`], bit by
    /// bit.
    pub async fn train_slice(
        &self,
        options: &TrainOptions,
        slice_ms: f64,
        progress: &dyn Fn(&TrainProgress),
        cancelled: &Cancelled<'_>,
    ) -> Result<Option<TrainReport>, Problem> {
        self.check_open()?;
        let _one_at_a_time = self.one_training()?;
        let mut underway = self.take_up(options, cancelled).await?;
        let done = self.advance(&mut underway.lesson, slice_ms, progress, cancelled).await;
        let done = match done {
            // A page that closes keeps its place; one that cancels, or diverges, gives it up.
            Err(problem) if !problem.is(Code::Closed) => {
                self.discard().await?;
                return Err(problem);
            }
            done => done?,
        };
        if done {
            let report = self.conclude(underway.lesson).await;
            self.discard().await?;
            return report.map(Some);
        }
        self.save(options, &underway).await?;
        self.underway.replace(Some(underway));
        Ok(None)
    }

    /// The training that an earlier visit, or an earlier slice, has left unfinished.
    pub async fn unfinished(&self) -> Result<Option<Unfinished>, Problem> {
        self.check_open()?;
        let stored = self.port.load(&self.checkpoint_key()).await?;
        let header = stored.and_then(|bytes| Header::read(&bytes));
        let unfinished = header.and_then(|header| {
            let options = serde_json::from_value(header.wanted).ok()?;
            Some(Unfinished { options, step: header.step, steps: header.steps })
        });
        Ok(unfinished)
    }

    /// Gives up a training in slices: nothing of it is left.
    pub async fn abandon(&self) -> Result<(), Problem> {
        let _no_slice = self.training.lock().await;
        self.discard().await
    }

    pub(super) async fn discard(&self) -> Result<(), Problem> {
        self.underway.replace(None);
        self.port.remove(&self.checkpoint_key()).await
    }

    /// What an earlier slice has left in memory, or an earlier visit in storage, or a fresh beginning.
    async fn take_up(
        &self,
        options: &TrainOptions,
        cancelled: &Cancelled<'_>,
    ) -> Result<Underway, Problem> {
        let plan = self.plan(options)?;
        let identity = self.identity(&plan).await?;
        let held = self.underway.take().filter(|underway| underway.identity == identity);
        if let Some(underway) = held {
            return Ok(underway);
        }
        let material = self.material(plan.key, &plan.trainer, cancelled).await?;
        let stored = self.port.load(&self.checkpoint_key()).await?;
        let (training, judging) = (material.training.clone(), material.judging.clone());
        let trainer = plan.trainer.clone();
        let resumed = stored
            .as_ref()
            .and_then(|bytes| Course::resume(trainer, training, judging, bytes, identity));
        let (course, worked_ms) = match resumed {
            Some((course, header)) => (course, header.worked_ms),
            None => {
                if stored.is_some() {
                    self.discard().await?;
                }
                (material.course(&plan)?, 0.0)
            }
        };
        let lesson = Lesson::new(plan, material, course, worked_ms);
        Ok(Underway { identity, lesson })
    }

    async fn save(&self, options: &TrainOptions, underway: &Underway) -> Result<(), Problem> {
        let wanted = serde_json::to_value(options)
            .map_err(|e| Problem::new(Code::Internal, format!("the options: {e}")))?;
        let Underway { identity, lesson, .. } = underway;
        let bytes = lesson.course.checkpoint(*identity, wanted, lesson.worked_ms)?;
        match self.port.store(&self.checkpoint_key(), &bytes).await {
            // On a full device the training goes on, and begins anew in the next visit.
            Err(problem) if problem.is(Code::StorageFull) => Ok(()),
            stored => stored,
        }
    }

    /// Names everything that the outcome of a training depends on.
    async fn identity(&self, plan: &Plan) -> Result<Digest, Problem> {
        let mut examples = self.examples.lock().await;
        examples.refresh(&self.port).await?;
        let mut bytes = DOMAIN.to_vec();
        bytes.extend_from_slice(plan.key.as_bytes());
        bytes.extend((plan.pace.epochs as u64).to_le_bytes());
        bytes.extend(plan.pace.seed.to_le_bytes());
        for number in plan.base.iter().chain(&plan.start).flatten() {
            bytes.extend(number.to_le_bytes());
        }
        // An id is given to one example only; its answer goes in all the same.
        examples.all().iter().for_each(|example| mark(&mut bytes, example));
        Ok(Digest::of(&bytes))
    }

    fn checkpoint_key(&self) -> String {
        self.scope.key("training")
    }
}

fn mark(bytes: &mut Vec<u8>, example: &Example) {
    bytes.extend(example.id.to_le_bytes());
    match &example.target {
        Target::Class(class) => bytes.extend((*class as u64).to_le_bytes()),
        Target::Values(values) => values.iter().for_each(|v| bytes.extend(v.to_le_bytes())),
    }
}
