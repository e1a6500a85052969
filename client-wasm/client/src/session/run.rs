//! Walks a plan over a map of live tensors.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use backstitch_onnx::Value;
use backstitch_onnx::patch::Mode;
use backstitch_protocol::Problem;

use super::{Compiled, Plan, Session, Step, Weights};

/// A patch as it takes part in a run: compiled once, with the weights of one version.
#[derive(Clone, Debug)]
pub struct Stitched {
    /// For the stage's name.
    pub name: String,
    /// Its programs.
    pub compiled: Arc<Compiled>,
    /// Its weights.
    pub weights: Arc<Weights>,
}

/// What one stage took.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Stage {
    /// `segment:0`, `patch:noise-reduction` …
    pub name: String,
    /// Milliseconds.
    pub ms: f64,
}

/// Tensors of the unpatched primary on the same input, and what they took: a run takes them over as long as no
/// patch has changed anything upstream.
#[derive(Clone, Debug, Default)]
pub struct Reusable {
    live: BTreeMap<String, Value>,
    ms: BTreeMap<usize, f64>,
}

impl Reusable {
    /// Milliseconds of the segments that have run.
    pub fn ms(&self) -> f64 {
        self.ms.values().sum()
    }

    /// Milliseconds of the segments that have run and are not among these.
    pub fn ms_beyond(&self, reused: &BTreeSet<usize>) -> f64 {
        let others = self.ms.iter().filter(|(index, _)| !reused.contains(index));
        others.map(|(_, ms)| ms).sum()
    }

    /// A tensor, where it has been computed.
    pub fn tensor(&self, name: &str) -> Option<&Value> {
        self.live.get(name)
    }
}

/// The outcome of a run.
#[derive(Clone, Debug)]
pub struct Ran {
    /// The answer.
    pub output: Value,
    /// What each stage took, in order; a patch with several attachments has one entry.
    pub stages: Vec<Stage>,
    /// Segments whose result came from a [`Reusable`].
    pub reused: BTreeSet<usize>,
    /// Patches that were left out on the way, because the answer would have come too late with them.
    pub dropped: BTreeSet<usize>,
    live: BTreeMap<String, Value>,
}

/// When an answer is due, and what the rest is expected to take.
#[derive(Clone, Debug)]
pub struct Deadline {
    /// On the run's clock.
    pub at_ms: f64,
    /// Of each segment of the session.
    pub segments_ms: Vec<f64>,
    /// Of each patch of the run.
    pub patches_ms: Vec<f64>,
}

impl Session {
    /// Runs the first segment of the unpatched primary, if it reads the input alone.
    pub fn start(&self, input: &Value, clock: &dyn Fn() -> f64) -> Result<Reusable, Problem> {
        let mut reusable = Reusable {
            live: BTreeMap::from([(self.input.clone(), input.clone())]),
            ms: BTreeMap::new(),
        };
        if let Some(segment) = self.segments.first().filter(|s| s.inputs == [self.input.clone()]) {
            let began = clock();
            let outputs = segment.program.take()?.run_ordered(std::slice::from_ref(input))?;
            reusable.live.extend(segment.outputs.iter().cloned().zip(outputs));
            reusable.ms.insert(0, clock() - began);
        }
        Ok(reusable)
    }

    /// Runs the primary alone, and keeps everything for a patched run on the same input.
    pub fn base(
        &self,
        input: &Value,
        started: Option<Reusable>,
        clock: &dyn Fn() -> f64,
    ) -> Result<(Ran, Reusable), Problem> {
        let plan = Plan::of(self, &[])?;
        let ran = self.run(&plan, &[], input, started.as_ref(), clock)?;
        let reusable = Reusable { live: ran.live.clone(), ms: times(&plan, &ran.stages) };
        Ok((ran, reusable))
    }

    /// Runs the unpatched primary as far as these tensors, and keeps everything for a patched run on the same input.
    pub fn reach(
        &self,
        tensors: &[&str],
        input: &Value,
        started: Option<Reusable>,
        clock: &dyn Fn() -> f64,
    ) -> Result<Reusable, Problem> {
        let plan = Plan::to(self, tensors)?;
        let mut running = self.walk(&plan, &[], input, started.as_ref(), None);
        while running.step(clock)? {}
        let Running { live, stages, .. } = running;
        Ok(Reusable { ms: times(&plan, &stages), live })
    }

    /// Runs a plan. `patches` are those that the plan was made of, in the same order.
    pub fn run(
        &self,
        plan: &Plan<'_>,
        patches: &[Stitched],
        input: &Value,
        reusable: Option<&Reusable>,
        clock: &dyn Fn() -> f64,
    ) -> Result<Ran, Problem> {
        let mut running = self.walk(plan, patches, input, reusable, None);
        while running.step(clock)? {}
        running.end()
    }

    /// Begins a run that the caller takes step by step, so that other work, a cancellation or a deadline may come
    /// between segments.
    pub fn walk<'a>(
        &'a self,
        plan: &'a Plan<'a>,
        patches: &'a [Stitched],
        input: &Value,
        reusable: Option<&'a Reusable>,
        deadline: Option<Deadline>,
    ) -> Running<'a> {
        Running {
            session: self,
            plan,
            patches,
            reusable,
            deadline,
            next: 0,
            live: BTreeMap::from([(self.input.clone(), input.clone())]),
            changed: BTreeSet::new(),
            stages: Vec::new(),
            reused: BTreeSet::new(),
            acted: BTreeSet::new(),
            dropped: BTreeSet::new(),
        }
    }
}

/// What each segment of an unpatched run took.
fn times(plan: &Plan<'_>, stages: &[Stage]) -> BTreeMap<usize, f64> {
    plan.steps
        .iter()
        .filter_map(|step| match step {
            Step::Segment(index) => Some(*index),
            Step::Site(_) => None,
        })
        .zip(stages.iter().map(|stage| stage.ms))
        .collect()
}

/// A run between two steps.
pub struct Running<'a> {
    session: &'a Session,
    plan: &'a Plan<'a>,
    patches: &'a [Stitched],
    reusable: Option<&'a Reusable>,
    deadline: Option<Deadline>,
    next: usize,
    live: BTreeMap<String, Value>,
    /// Tensors that differ, or may differ, from those of the unpatched primary.
    changed: BTreeSet<String>,
    stages: Vec<Stage>,
    reused: BTreeSet<usize>,
    /// Patches of which an attachment has run: all of them run.
    acted: BTreeSet<usize>,
    dropped: BTreeSet<usize>,
}

impl Running<'_> {
    /// Takes the next step; `false` where there is none.
    pub fn step(&mut self, clock: &dyn Fn() -> f64) -> Result<bool, Problem> {
        let plan = self.plan;
        let Some(step) = plan.steps.get(self.next) else { return Ok(false) };
        self.next += 1;
        match step {
            Step::Segment(index) => self.segment(*index, clock)?,
            Step::Site(site) => self.site(site, &plan.actions[site], clock)?,
        }
        Ok(true)
    }

    /// The outcome, once every step is taken.
    pub fn end(self) -> Result<Ran, Problem> {
        let output = self.value(&self.session.output)?.clone();
        let Self { stages, reused, dropped, live, .. } = self;
        Ok(Ran { output, stages, reused, dropped, live })
    }

    /// Whether a patch is left out: no attachment of it has run, and with it the answer would be late. One that
    /// replaces is kept, since what it replaces is not computed.
    fn is_late(&mut self, patch: usize, clock: &dyn Fn() -> f64) -> bool {
        let Some(deadline) = self.deadline.as_ref().filter(|_| !self.acted.contains(&patch)) else {
            return false;
        };
        let rest: f64 = self.plan.steps[self.next..]
            .iter()
            .filter_map(|step| match step {
                Step::Segment(index) => deadline.segments_ms.get(*index),
                Step::Site(_) => None,
            })
            .sum();
        let own = deadline.patches_ms.get(patch).copied().unwrap_or_default();
        let late = clock() + own + rest > deadline.at_ms
            && self.patches[patch].compiled.replaces().is_empty();
        if late {
            self.dropped.insert(patch)
        } else {
            self.acted.insert(patch)
        };
        late
    }

    fn segment(&mut self, index: usize, clock: &dyn Fn() -> f64) -> Result<(), Problem> {
        let reusable = self.reusable;
        let segment = &self.session.segments[index];
        let clean = segment.inputs.iter().all(|name| !self.changed.contains(name));
        if !clean {
            self.changed.extend(segment.outputs.iter().cloned());
        }
        if let Some((reusable, ms)) =
            reusable.filter(|_| clean).and_then(|r| Some((r, *r.ms.get(&index)?)))
        {
            let known = |name: &String| Some((name.clone(), reusable.live.get(name)?.clone()));
            self.live.extend(segment.outputs.iter().filter_map(known));
            self.reused.insert(index);
            self.stages.push(Stage { name: segment.name.clone(), ms });
            return Ok(());
        }
        let began = clock();
        let mut inputs = Vec::with_capacity(segment.inputs.len());
        for name in &segment.inputs {
            inputs.push(self.value(name)?.clone());
        }
        let outputs = segment.program.take()?.run_ordered(&inputs)?;
        self.live.extend(segment.outputs.iter().cloned().zip(outputs));
        self.stages.push(Stage { name: segment.name.clone(), ms: clock() - began });
        Ok(())
    }

    fn site(
        &mut self,
        site: &str,
        actions: &[(usize, usize)],
        clock: &dyn Fn() -> f64,
    ) -> Result<(), Problem> {
        let mut terms = Vec::new();
        let mut acts = Vec::with_capacity(actions.len());
        for at in actions {
            if !self.dropped.contains(&at.0) && !self.is_late(at.0, clock) {
                acts.push(at);
            }
        }
        if acts.is_empty() {
            return Ok(());
        }
        for (p, a) in acts {
            let patch = &self.patches[*p];
            let attached = &patch.compiled.attachments[*a];
            let began = clock();
            let made = attached.run(|name| self.live.get(name), &*patch.weights.values.take()?)?;
            match attached.mode {
                Mode::Parallel => terms.push((made, attached.factor)),
                Mode::Series | Mode::Replace => {
                    self.live.insert(site.to_owned(), made);
                }
            }
            self.took(&patch.name, clock() - began);
        }
        if !terms.is_empty() {
            let sum = add(self.value(site)?, &terms)?;
            self.live.insert(site.to_owned(), sum);
        }
        self.changed.insert(site.to_owned());
        Ok(())
    }

    fn took(&mut self, patch: &str, ms: f64) {
        let name = format!("patch:{patch}");
        match self.stages.iter_mut().find(|stage| stage.name == name) {
            Some(stage) => stage.ms += ms,
            None => self.stages.push(Stage { name, ms }),
        }
    }

    fn value(&self, name: &str) -> Result<&Value, Problem> {
        self.live.get(name).ok_or_else(|| {
            backstitch_onnx::Error::new(
                backstitch_onnx::Code::UnknownTensor,
                format!("`{name}` was not computed"),
            )
            .into()
        })
    }
}

/// T + Σ factor · term, in the order of the reference.
fn add(base: &Value, terms: &[(Value, f32)]) -> Result<Value, Problem> {
    let mut sum = base.f32s()?.to_vec();
    for (term, factor) in terms {
        for (total, value) in sum.iter_mut().zip(term.f32s()?) {
            *total += if *factor == 1.0 { *value } else { *value * *factor };
        }
    }
    Ok(Value::f32(base.shape(), &sum)?)
}
