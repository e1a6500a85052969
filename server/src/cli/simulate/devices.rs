//! Simulated clients in this process: each with its own examples, secret and ledger, trained by the client's own code.

use std::sync::Arc;
use std::thread;

use backstitch_client::contribution::{MIN_EXAMPLES, Prepared, prepare, seed, within_clip};
use backstitch_client::examples::Example;
use backstitch_client::ledger::{Kind, Ledger};
use backstitch_client::random::SplitMix;
use backstitch_client::training::{Activation, Comparison, Descent, Pace, Trainer};
use backstitch_edge::person::Person;
use backstitch_protocol::Problem;
use backstitch_protocol::problem::Code;
use sha2::{Digest as _, Sha256};

use super::report::Round;
use super::setting::{Opened, Setting};
use super::stage::NOW;
use crate::failure::Result;

/// Examples after the frozen part of the model, as a device keeps them.
#[derive(Clone, Default)]
pub(super) struct Material {
    pub(super) training: Vec<Arc<Activation>>,
    /// Every fifth example, which only judges; all of them where there are too few.
    pub(super) judging: Vec<Arc<Activation>>,
}

impl Material {
    /// Prepares a person's examples and runs the frozen part on them.
    pub(super) fn of(person: &Person, opened: &Opened) -> Result<Self> {
        let (library, mut material) = (&opened.library, Self::default());
        for (id, labelled) in person.examples().iter().enumerate() {
            let wanted = library.session.input().1;
            let prepared = library.preparation.prepare(&labelled.input, wanted)?;
            let example = Example {
                id: id as u64,
                shape: prepared.shape,
                values: prepared.values,
                target: labelled.target.clone(),
            };
            let activation = Arc::new(opened.trainer.activate(&example)?);
            let judges = example.is_held_out();
            if judges { &mut material.judging } else { &mut material.training }.push(activation);
        }
        if material.judging.is_empty() {
            material.judging = material.training.clone();
        }
        Ok(material)
    }

    /// Those that train and those that judge together, each once.
    pub(super) fn all(&self) -> Vec<Arc<Activation>> {
        let apart = |example: &&Arc<Activation>| {
            !self.training.iter().any(|training| Arc::ptr_eq(training, example))
        };
        self.training.iter().chain(self.judging.iter().filter(apart)).cloned().collect()
    }
}

/// One client.
struct Device {
    number: usize,
    secret: [u8; 32],
    ledger: Ledger,
    material: Option<Material>,
}

/// All clients that train.
pub(super) struct Devices(Vec<Device>);

impl Devices {
    pub(super) fn new(setting: &Setting) -> Self {
        let device = |number: usize| Device {
            number,
            secret: secret(setting.seed, number),
            ledger: Ledger::default(),
            material: None,
        };
        Self((0..setting.clients).map(device).collect())
    }

    /// Asks devices in random order until the round has its goal. Each obeys its own ledger and keeps an update to
    /// itself that is plainly worse for its own held-out examples. Fails with `nothing_to_contribute` where there
    /// are not enough.
    pub(super) fn fill(
        &mut self,
        setting: &Setting,
        opened: &Opened,
        contribute: &dyn Fn(Vec<Vec<u8>>) -> Result<()>,
    ) -> Result<Round> {
        let task = &opened.task;
        let mut waiting: Vec<usize> = self.0.iter().map(|device| device.number).collect();
        SplitMix::new(setting.seed ^ task.round.rotate_left(32)).shuffle(&mut waiting);
        waiting.retain(|number| self.0[*number].ledger.permit(task, NOW).is_ok());
        let mut round = Round { goal: task.goal, ..Round::default() };
        while round.contributed < task.goal {
            let missing = (task.goal - round.contributed) as usize;
            let asked: Vec<usize> = waiting.drain(..missing.min(waiting.len())).collect();
            if asked.is_empty() {
                return Err(Problem::new(
                    Code::NothingToContribute,
                    format!(
                        "round {}: {} of {} contributions; no other client may take part or has an update that helps",
                        task.round, round.contributed, task.goal
                    ),
                ));
            }
            let mut chosen: Vec<&mut Device> =
                self.0.iter_mut().filter(|device| asked.contains(&device.number)).collect();
            let updates = in_parallel(&mut chosen, |device| device.update(setting, opened));
            let mut frames = Vec::new();
            for (device, update) in chosen.into_iter().zip(updates) {
                let Some(prepared) = update? else {
                    round.kept_back += 1;
                    continue;
                };
                round.contributed += 1;
                round.clipped += u32::from(prepared.clipped);
                frames.push(prepared.contribution.encode());
                let name = task.name.clone();
                device.ledger.append(Kind::Contribution, name, task.round, NOW, task.cost());
            }
            contribute(frames)?;
        }
        Ok(round)
    }
}

impl Device {
    /// What it would send; `None` where it has its own reasons not to.
    fn update(&mut self, setting: &Setting, opened: &Opened) -> Result<Option<Prepared>> {
        if self.material.is_none() {
            let person = setting.population.client(self.number, setting.seed)?;
            self.material = Some(Material::of(&person, opened)?);
        }
        let material = self.material.clone().unwrap_or_default();
        if material.training.len() < MIN_EXAMPLES {
            return Ok(None);
        }
        match draft(&material, opened, &self.secret) {
            Err(problem)
                if problem.is(Code::TrainingDiverged) || problem.is(Code::NothingToContribute) =>
            {
                Ok(None)
            }
            drafted => drafted,
        }
    }
}

/// Trains as the task says, from the weights that its round starts from.
fn draft(material: &Material, opened: &Opened, secret: &[u8; 32]) -> Result<Option<Prepared>> {
    let Opened { task, trainer, weights, .. } = opened;
    let trained = trained(trainer, material.training.clone(), weights, seed(secret, task))?;
    let sent = within_clip(task.clip_norm, weights, &trained)?;
    let comparison = Comparison::of(trainer, &material.judging, weights, &sent)?;
    if comparison.is_plainly_worse() {
        return Ok(None);
    }
    let accuracy = (comparison.before.accuracy, comparison.after.accuracy);
    prepare(task, secret, weights, &trained, accuracy).map(Some)
}

/// The weights after as many passes as the manifest says.
pub(super) fn trained(
    trainer: &Arc<Trainer>,
    examples: Vec<Arc<Activation>>,
    weights: &[Vec<f32>],
    seed: u64,
) -> Result<Vec<Vec<f32>>> {
    let pace = Pace { epochs: trainer.training().epochs, seed };
    let mut descent = Descent::start(trainer.clone(), examples, weights.to_vec(), pace)?;
    while descent.step()?.is_some() {}
    Ok(descent.weights().to_vec())
}

fn secret(seed: u64, number: usize) -> [u8; 32] {
    let text = format!("backstitch simulated device {seed} {number}");
    Sha256::digest(text.as_bytes()).into()
}

/// Does the work on all items, on as many threads as there are cores; results in the order of the items.
pub(super) fn in_parallel<T: Send, R: Send>(
    items: &mut [T],
    work: impl Fn(&mut T) -> R + Sync,
) -> Vec<R> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let share = items.len().div_ceil(cores).max(1);
    let work = &work;
    thread::scope(|scope| {
        let parts = items.chunks_mut(share);
        let threads: Vec<_> = parts
            .map(|part| scope.spawn(move || part.iter_mut().map(work).collect::<Vec<R>>()))
            .collect();
        let results = threads.into_iter().map(|thread| match thread.join() {
            Ok(results) => results,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        results.flatten().collect()
    })
}
