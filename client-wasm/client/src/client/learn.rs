//! Takes examples from the user. They stay on this device; what an experiment asks of them is one randomised bit.

use std::collections::{BTreeMap, BTreeSet};

use backstitch_protocol::Problem;
use backstitch_protocol::catalog::{ArmEntry, ExperimentEntry};
use backstitch_protocol::experiment::Report;
use backstitch_protocol::id::Name;
use backstitch_protocol::problem::Code;

use super::adapt::arms;
use super::run::prepare;
use super::train::trainable;
use super::{Adapted, Client, RunOptions};
use crate::catalog::success;
use crate::device::Device;
use crate::examples::{Examples, Target, capacity};
use crate::experiment::Window;
use crate::feedback::Feedback;
use crate::input::{Input, invalid};
use crate::ledger::{Kind, Ledger};
use crate::library::Library;
use crate::port::{Port, Request, update};
use crate::report::{ExampleCounts, LearnResult, Ranked, RunResult, label_counts};

/// What the user says is right.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// One of the library's labels.
    Label(String),
    /// The index of a class.
    Class(usize),
    /// Numbers in the shape of the output.
    Values(Vec<f32>),
}

impl<P: Port> Client<P> {
    /// Keeps an example on this device and says what the model answered before. Where a running experiment has
    /// gathered its last outcome by it, and the user consents, its one report is sent.
    pub async fn learn(&self, input: &Input, answer: &Answer) -> Result<LearnResult, Problem> {
        let (ran, target, right) = self.answer(input, answer).await?;
        let (id, examples) = self.keep(input, answer).await?;
        // The example is kept; gains that cannot be corrected just now are no reason to say otherwise.
        let _later = self.credit(input, &target, &ran).await;
        Ok(LearnResult { id, examples, answered: ran.top.first().cloned(), right })
    }

    /// Answers an input whose right answer is known, for running experiments; keeps nothing. Returns the best label
    /// and whether it is right.
    pub async fn assess(
        &self,
        input: &Input,
        answer: &Answer,
    ) -> Result<(Option<Ranked>, bool), Problem> {
        let (ran, _, right) = self.answer(input, answer).await?;
        Ok((ran.top.first().cloned(), right))
    }

    /// What the model says, what it should say, and whether that is the same; running experiments hear of it.
    async fn answer(
        &self,
        input: &Input,
        answer: &Answer,
    ) -> Result<(RunResult, Target, bool), Problem> {
        self.check_open()?;
        let live = self.live();
        let target = target_of(&live.library, answer)?;
        let ran = self.run(input, &RunOptions::default(), &|| false).await?;
        let right =
            matches!((ran.top.first(), &target), (Some(a), Target::Class(c)) if a.index == *c);
        if matches!(target, Target::Class(_)) {
            // An experiment that cannot be served just now is no reason to refuse an example.
            let _later = self.observe_outcome(&live, right).await;
        }
        Ok((ran, target, right))
    }

    /// Keeps an example on this device, without answering it. Returns its id and what is kept now.
    pub async fn keep(
        &self,
        input: &Input,
        answer: &Answer,
    ) -> Result<(u64, ExampleCounts), Problem> {
        self.check_open()?;
        let live = self.live();
        let target = target_of(&live.library, answer)?;
        let prepared = prepare(&live.library, input)?;
        let mut examples = self.examples.lock().await;
        let id = examples.add(&self.port, prepared.shape, prepared.values, target).await;
        self.drop_old_activations(&examples);
        Ok((id?, counts(&live, &examples)))
    }

    /// The examples on this device.
    pub async fn examples(&self) -> Result<ExampleCounts, Problem> {
        self.check_open()?;
        let mut examples = self.examples.lock().await;
        examples.refresh(&self.port).await?;
        Ok(counts(&self.live(), &examples))
    }

    /// Deletes what this device has learnt: examples, personal weights, contributions not yet sent with their tokens,
    /// and gathered outcomes. The ledger and the secret stay: forgetting must not renew the privacy budget.
    pub async fn forget(&self) -> Result<(), Problem> {
        self.check_open()?;
        let _no_training = self.training.lock().await;
        self.discard().await?;
        self.examples.lock().await.clear(&self.port).await?;
        let mut personal = self.personal.lock().await;
        personal.clear(&self.port).await?;
        self.activations.borrow_mut().clear();
        self.feedback.replace(Feedback::forget(&self.port, self.scope.clone()).await?);
        let mut windows = self.windows.lock().await;
        *windows = self.change_windows(|windows| windows.retain(|_, w| w.sent)).await?;
        for task in &self.library().catalog.tasks {
            self.port.remove(&self.scope.key(&format!("pending/{}", task.name))).await?;
            self.drop_token(task).await?;
        }
        self.adapt(self.library(), &personal).await
    }

    pub(super) fn drop_old_activations(&self, examples: &Examples) {
        let kept: BTreeSet<u64> = examples.all().iter().map(|e| e.id).collect();
        self.activations.borrow_mut().retain(|(_, id), _| kept.contains(id));
    }

    /// Adds the outcome to every experiment that this device is in, and sends what has become due.
    async fn observe_outcome(&self, live: &Adapted, right: bool) -> Result<(), Problem> {
        let device = self.device.lock().await;
        let Ok(device) = device.as_ref() else { return Ok(()) };
        let mut windows = self.windows.lock().await;
        for (experiment, arm) in arms(&live.library, device.secret())? {
            let uniform = self.uniform()?;
            let observe = |windows: &mut BTreeMap<Name, Window>| {
                let window = windows.entry(experiment.name.clone()).or_default();
                if window.seed != experiment.seed {
                    *window = Window::new(experiment);
                }
                window.observe(experiment, right, uniform);
            };
            *windows = self.change_windows(observe).await?;
            let full = windows.get(&experiment.name).filter(|w| w.is_full(experiment) && !w.sent);
            if let Some(window) = full
                && device.consent(&self.port).await
            {
                let fresh = window.report.is_none();
                // A report that may not leave now is no reason to stop: what was gathered is written down.
                if let Ok(kept) = self.report(device, experiment, arm, fresh).await {
                    *windows = kept;
                }
            }
        }
        Ok(())
    }

    /// Sends the report of a full window: it is written into the ledger, which may refuse it, and fixed before it
    /// leaves, so that whatever ends this page, the same report is sent again, and no other.
    async fn report(
        &self,
        device: &Device,
        experiment: &ExperimentEntry,
        arm: &ArmEntry,
        fresh: bool,
    ) -> Result<BTreeMap<Name, Window>, Problem> {
        if fresh {
            let now = self.port.unix_seconds();
            let budget = self.library().catalog.reports;
            let append = |ledger: &mut Ledger| {
                ledger.permit_report(&budget, experiment, now)?;
                ledger.append(Kind::Report, experiment.name.clone(), 0, now, experiment.cost());
                Ok(())
            };
            device.change_ledger(&self.port, append).await?;
        }
        let uniform = self.uniform()?;
        let fix = |windows: &mut BTreeMap<Name, Window>| {
            let window = windows.get_mut(&experiment.name);
            // One that another page has begun anew since is not full, and has no report.
            window.and_then(|w| w.report(experiment, arm, device.secret(), uniform).ok().cloned());
        };
        let windows = self.change_windows(fix).await?;
        let report = windows.get(&experiment.name).and_then(|window| window.report.as_ref());
        let Some(report) = report else { return Ok(windows) };
        match self.post_report(experiment, report).await? {
            true => {
                let sent = |windows: &mut BTreeMap<Name, Window>| {
                    windows.entry(experiment.name.clone()).and_modify(Window::close);
                };
                self.change_windows(sent).await
            }
            false => Ok(windows),
        }
    }

    /// Whether the report need not be sent again.
    async fn post_report(
        &self,
        experiment: &ExperimentEntry,
        report: &Report,
    ) -> Result<bool, Problem> {
        let body = serde_json::to_vec(&report).map_err(|e| {
            Problem::new(Code::Internal, format!("the report does not serialise: {e}"))
        })?;
        let library = &self.library().catalog.library;
        let url = self.address.below(&format!("experiments/{library}.{}/reports", experiment.name));
        let answer = self.port.fetch(Request::post(url, "application/json", body)).await;
        Ok(match answer.and_then(|response| success(response, "the report")) {
            Ok(_) => true,
            // The experiment is over or has the report in other words; sending again would not help.
            Err(problem) => problem.status() < 500 && !problem.is(Code::RateLimited),
        })
    }

    /// Changes the experiments' windows as they are stored now, and returns them.
    async fn change_windows(
        &self,
        change: impl Fn(&mut BTreeMap<Name, Window>),
    ) -> Result<BTreeMap<Name, Window>, Problem> {
        let changed = |stored: Option<&[u8]>| {
            let mut windows = read_windows(stored);
            change(&mut windows);
            let bytes = serde_json::to_vec(&windows).map_err(|e| {
                Problem::new(Code::StorageFailed, format!("the experiments' outcomes: {e}"))
            })?;
            Ok((bytes, windows))
        };
        update(&self.port, &self.scope.key("windows"), changed).await
    }

    /// A fresh draw from [0, 1) with 53 random bits.
    fn uniform(&self) -> Result<f64, Problem> {
        let mut bytes = [0; 8];
        self.port.random(&mut bytes)?;
        Ok((u64::from_le_bytes(bytes) >> 11) as f64 / (1u64 << 53) as f64)
    }
}

/// What is damaged starts again, as its report was not sent twice: the server drops a second one of the same device.
pub(super) fn read_windows(stored: Option<&[u8]>) -> BTreeMap<Name, Window> {
    stored.and_then(|bytes| serde_json::from_slice(bytes).ok()).unwrap_or_default()
}

fn target_of(library: &Library, answer: &Answer) -> Result<Target, Problem> {
    let labels = &library.catalog.primary.labels;
    let known = || invalid(format!("{answer:?} is none of the answers"));
    match answer {
        Answer::Label(text) => labels
            .iter()
            .position(|label| label == text)
            .map(Target::Class)
            .ok_or_else(|| known().with_hint(format!("the labels are {}", labels.join(", ")))),
        Answer::Class(class) if *class < labels.len() => Ok(Target::Class(*class)),
        Answer::Class(_) => {
            Err(known().with_hint(format!("classes are 0 to {}", labels.len().saturating_sub(1))))
        }
        Answer::Values(values) => {
            let wanted: usize = library.session.output().1.iter().product();
            match values.len() == wanted && values.iter().all(|v| v.is_finite()) {
                true => Ok(Target::Values(values.clone())),
                false => Err(invalid(format!("the answer needs {wanted} finite numbers"))),
            }
        }
    }
}

fn counts(live: &Adapted, examples: &Examples) -> ExampleCounts {
    let all = examples.all();
    let values: usize = live.library.session.input().1.iter().product();
    let held_out = all.iter().filter(|e| e.is_held_out()).count();
    ExampleCounts {
        total: all.len(),
        training: all.len() - held_out,
        held_out,
        unsaved: examples.unsaved(),
        bytes: examples.bytes(),
        limit: capacity(values),
        per_label: label_counts(&live.library.catalog.primary.labels, &examples.per_class()),
        trains: trainable(live, None).unwrap_or_default(),
    }
}
