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
    live: BTreeMap<String, Value>,
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
            let outputs = segment.program.run_ordered(std::slice::from_ref(input))?;
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
        let segments = plan.steps.iter().filter_map(|step| match step {
            Step::Segment(index) => Some(*index),
            Step::Site(_) => None,
        });
        let ms = segments.zip(&ran.stages).map(|(index, stage)| (index, stage.ms)).collect();
        let reusable = Reusable { live: ran.live.clone(), ms };
        Ok((ran, reusable))
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
        let mut walk = Walk {
            session: self,
            patches,
            live: BTreeMap::from([(self.input.clone(), input.clone())]),
            changed: BTreeSet::new(),
            stages: Vec::new(),
            reused: BTreeSet::new(),
        };
        for step in &plan.steps {
            match step {
                Step::Segment(index) => walk.segment(*index, reusable, clock)?,
                Step::Site(site) => walk.site(site, &plan.actions[site], clock)?,
            }
        }
        let output = walk.value(&self.output)?.clone();
        Ok(Ran { output, stages: walk.stages, reused: walk.reused, live: walk.live })
    }
}

struct Walk<'a> {
    session: &'a Session,
    patches: &'a [Stitched],
    live: BTreeMap<String, Value>,
    /// Tensors that differ, or may differ, from those of the unpatched primary.
    changed: BTreeSet<String>,
    stages: Vec<Stage>,
    reused: BTreeSet<usize>,
}

impl Walk<'_> {
    fn segment(
        &mut self,
        index: usize,
        reusable: Option<&Reusable>,
        clock: &dyn Fn() -> f64,
    ) -> Result<(), Problem> {
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
        let outputs = segment.program.run_ordered(&inputs)?;
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
        for (p, a) in actions {
            let patch = &self.patches[*p];
            let attached = &patch.compiled.attachments[*a];
            let began = clock();
            let made = attached.run(|name| self.live.get(name), &patch.weights.values)?;
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
