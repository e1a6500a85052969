//! What is simulated: the library, its task's terms as the command line changes them, and its clients.

use std::sync::Arc;

use backstitch_client::client::Client;
use backstitch_client::library::Library;
use backstitch_client::port::Port;
use backstitch_client::training::Trainer;
use backstitch_client::workshop::Workshop;
use backstitch_edge::population::{FILE, Part, Population};
use backstitch_onnx::patch::Patch;
use backstitch_protocol::Problem;
use backstitch_protocol::catalog::TaskEntry;
use backstitch_protocol::id::Name;
use backstitch_protocol::problem::Code;

use super::{Simulate, invalid};
use crate::cli::forecast::smallest_round;
use crate::failure::Result;
use crate::registry::{LibraryDescriptor, SAMPLES, Source, TaskDescriptor};
use crate::task::TaskId;

/// Clients that are drawn are so many more than the rounds would need: some keep their update to themselves.
const SPARE: f64 = 1.25;

/// Everything that the command line decides.
pub(super) struct Setting {
    pub(super) source: Source,
    pub(super) library: Name,
    /// The task as this simulation runs it.
    pub(super) terms: TaskDescriptor,
    pub(super) population: Population,
    /// Who judges.
    pub(super) part: Part,
    pub(super) clients: usize,
    pub(super) rounds: u64,
    pub(super) until: Option<f64>,
    pub(super) seed: u64,
    pub(super) private: bool,
    pub(super) workshop: Arc<Workshop>,
    /// Whether lines are printed as they come.
    pub(super) talks: bool,
}

impl Setting {
    pub(super) fn read(command: &Simulate) -> Result<Self> {
        let source = match SAMPLES.iter().find(|name| **name == command.library) {
            Some(name) => Source::Embedded(name),
            None => Source::parse(&command.library)?,
        };
        let descriptor = LibraryDescriptor::from_bytes(&source.read("library.json")?)?;
        let described = source.read_if_present(FILE)?.ok_or_else(|| {
            invalid(format!("{source} has no {FILE}, so nobody knows its clients"))
                .with_hint("docs/PATCHES.md shows how to describe clients")
        })?;
        let population = Population::read(&described, &|path| source.read(path))?;
        let named = |task: &&TaskDescriptor| task.name == *population.task();
        let mut terms = descriptor.tasks.iter().find(named).cloned().ok_or_else(|| {
            invalid(format!("{FILE} is for task {}, which {source} lacks", population.task()))
        })?;
        if command.rounds == 0 || command.cohort == Some(0) || command.clients == Some(0) {
            return Err(invalid("--rounds, --cohort and --clients must be at least 1"));
        }
        terms.goal = command.cohort.unwrap_or(terms.goal);
        let needed = command.rounds as f64 * f64::from(terms.goal);
        let turns = f64::from(terms.max_participations);
        let drawn = ((needed / turns * SPARE).ceil() as usize).max(2 * terms.goal as usize);
        let all = population.size();
        let clients = match command.clients {
            Some(wanted) if all.is_some_and(|all| wanted > all) => {
                let all = all.unwrap_or_default();
                return Err(invalid(format!("--clients {wanted}: the library has {all}")));
            }
            wanted => wanted.or(all).unwrap_or(drawn),
        };
        if clients < terms.goal as usize {
            let goal = terms.goal;
            return Err(invalid(format!("{clients} clients cannot fill rounds of {goal}"))
                .with_hint("lower --cohort or raise --clients"));
        }
        Ok(Self {
            source,
            library: descriptor.name,
            terms,
            population,
            part: if command.tuning { Part::Tuning } else { Part::Judging },
            clients,
            rounds: command.rounds,
            until: command.until,
            seed: command.seed,
            private: !command.no_privacy,
            workshop: Arc::default(),
            talks: !command.json,
        })
    }

    pub(super) fn task(&self) -> TaskId {
        TaskId::new(self.library.clone(), self.terms.name.clone())
    }

    /// Refuses a cohort whose rounds would be mostly noise, as `privacy forecast` does.
    pub(super) fn check_cohort(&self, parameters: u32) -> Result<()> {
        let measures: f64 = self.terms.measures.iter().map(|m| m.share).sum();
        let least = smallest_round(self.terms.noise_multiplier, parameters, measures);
        match u64::from(self.terms.goal) >= least {
            true => Ok(()),
            false => Err(Problem::new(
                Code::PrivacyInvalid,
                format!(
                    "a round of {} would be mostly noise: {parameters} parameters at noise multiplier {} need at least {least}",
                    self.terms.goal,
                    self.terms.noise_multiplier.value(),
                ),
            )
            .with_hint("raise --cohort; `backstitch privacy forecast` shows what a cohort keeps")),
        }
    }
}

/// What a round starts from, as a client that has just read the catalog knows it.
pub(super) struct Opened {
    pub(super) library: Arc<Library>,
    pub(super) task: TaskEntry,
    pub(super) trainer: Arc<Trainer>,
    /// Of the champions, in parameter order.
    pub(super) weights: Vec<Vec<f32>>,
}

impl Opened {
    /// The newest that this client has read.
    pub(super) fn of<P: Port>(client: &Client<P>, setting: &Setting) -> Result<Self> {
        let library = client.live().library.clone();
        let wanted = &setting.terms.name;
        let task = library.catalog.tasks.iter().find(|task| task.name == *wanted);
        let task = task.cloned().ok_or_else(|| {
            invalid(format!("the server's library {} has no task {wanted}", setting.library))
        })?;
        let bases = library.bases(&task)?;
        let patches: Vec<&Patch> = bases.iter().map(|version| &*version.patch).collect();
        let (_, trainer) = setting.workshop.trainer(&library.session, &patches)?;
        let weights = trainer.weights_of(&patches)?;
        Ok(Self { library, task, trainer, weights })
    }
}
