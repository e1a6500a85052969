//! Answers an input: prepare, analyse, select, stitch and run.

use std::sync::Arc;

use backstitch_onnx::Value;
use backstitch_protocol::Problem;
use backstitch_protocol::id::VersionId;

use super::decide::{Offered, considered};
use super::estimate::{primary_ms, stage_of};
use super::ranking::{named_places, ranked};
use super::{Adapted, Cancelled, Client, check_cancelled};
use crate::analysis::{FeatureVector, analyse};
use crate::cost::Estimate;
use crate::input::Input;
use crate::library::Library;
use crate::overlap::beside;
use crate::port::Port;
use crate::preprocessing::Prepared;
use crate::report::{Considered, Lit, RunCost, RunResult, Used};
use crate::selection::{Choice, CostLimit};
use crate::session::{Compiled, Deadline, Plan, Ran, Reusable, Stage, Step, Stitched};

/// Primaries that take longer let others go first, before they start and between segments.
const LONG_MS: f64 = 50.0;

/// How to answer.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// Which patches.
    pub choice: Choice,
    /// Whether to run the primary alone too.
    pub compare: bool,
    /// Replaces the limit that the library was opened with.
    pub limit: Option<CostLimit>,
    /// Milliseconds within which the answer must come: patches that would make it late are left out on the way.
    pub deadline_ms: Option<f64>,
    /// Which weights of what was trained here.
    pub weights: WeightChoice,
}

/// Which weights a run takes of patches that were trained here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WeightChoice {
    /// Those that are better here.
    #[default]
    Best,
    /// Those of the catalog.
    Shared,
    /// Those trained here.
    Personal,
}

/// A run that has begun: the input is prepared, and the first segment has run where it reads nothing else.
pub struct Pending {
    live: Arc<Adapted>,
    began: f64,
    pub(super) prepared: Prepared,
    pub(super) input: Value,
    pub(super) started: Option<Reusable>,
    pub(super) features: Option<FeatureVector>,
    overlapped: bool,
    pub(super) stages: Vec<Stage>,
}

impl<P: Port> Client<P> {
    /// Measures an input, without running anything.
    pub fn analyse(&self, input: &Input) -> Result<FeatureVector, Problem> {
        self.check_open()?;
        Ok(analyse(&prepare(&self.library(), input)?.subject))
    }

    /// Answers an input. Long runs pause between segments, so that the caller may cancel.
    pub async fn run(
        &self,
        input: &Input,
        options: &RunOptions,
        cancelled: &Cancelled<'_>,
    ) -> Result<RunResult, Problem> {
        let live = self.open_run(cancelled)?;
        if primary_ms(&self.cost.borrow(), &live.library) > LONG_MS {
            self.port.pause().await;
            check_cancelled(cancelled)?;
        }
        let mut pending = self.prepare_run(live, input)?;
        self.measure(&mut pending, options.compare)?;
        check_cancelled(cancelled)?;
        self.complete(pending, options, cancelled).await
    }

    /// Prepares an input and runs the first segment, so that somebody else may analyse it meanwhile.
    pub fn begin(&self, input: &Input) -> Result<Pending, Problem> {
        let mut pending = self.prepare_run(self.open_run(&|| false)?, input)?;
        let clock = || self.port.now_ms();
        pending.started = Some(pending.live.library.session.start(&pending.input, &clock)?);
        Ok(pending)
    }

    /// Ends what [`Client::begin`] began, with features from elsewhere; analyses here where there are none.
    pub async fn finish(
        &self,
        mut pending: Pending,
        features: Option<FeatureVector>,
        options: &RunOptions,
        cancelled: &Cancelled<'_>,
    ) -> Result<RunResult, Problem> {
        self.check_open()?;
        pending.overlapped = features.is_some();
        pending.features = features;
        self.complete(pending, options, cancelled).await
    }

    /// Whether handing the analysis to somebody who answers after `handover_ms` is expected to save time.
    pub fn overlap_pays(&self, handover_ms: f64) -> bool {
        let cost = self.cost.borrow();
        self.overlap.get().pays_for(
            cost.estimate("analyse").ms,
            cost.estimate("segment:0").ms,
            handover_ms,
        )
    }

    pub(super) fn open_run(&self, cancelled: &Cancelled<'_>) -> Result<Arc<Adapted>, Problem> {
        self.check_open()?;
        check_cancelled(cancelled)?;
        Ok(self.live())
    }

    pub(super) fn prepare_run(
        &self,
        live: Arc<Adapted>,
        input: &Input,
    ) -> Result<Pending, Problem> {
        let began = self.port.now_ms();
        let prepared = prepare(&live.library, input)?;
        let input = live.library.session.feed(&prepared.shape, &prepared.values)?;
        let stages = vec![Stage { name: "prepare".to_owned(), ms: self.port.now_ms() - began }];
        Ok(Pending {
            live,
            began,
            prepared,
            input,
            started: None,
            features: None,
            overlapped: false,
            stages,
        })
    }

    /// Analyses; beside the first segment where that pays.
    fn measure(&self, pending: &mut Pending, compare: bool) -> Result<(), Problem> {
        let clock = || self.port.now_ms();
        let mut overlap = self.overlap.get();
        let pays = {
            let cost = self.cost.borrow();
            overlap.pays(cost.estimate("analyse").ms, cost.estimate("segment:0").ms, compare)
        };
        self.overlap.set(overlap);
        let began = clock();
        if pays {
            let (session, input) = (&pending.live.library.session, &pending.input);
            let both =
                beside(|| analyse(&pending.prepared.subject), || session.start(input, &clock));
            if let Some((features, started)) = both {
                let started = started?;
                let waited = (clock() - began - started.ms()).max(0.0);
                pending.stages.push(Stage { name: "analyse".to_owned(), ms: waited });
                (pending.features, pending.started, pending.overlapped) =
                    (Some(features), Some(started), true);
                return Ok(());
            }
        }
        pending.features = Some(self.analyse_here(&pending.prepared, &mut pending.stages));
        Ok(())
    }

    pub(super) fn analyse_here(
        &self,
        prepared: &Prepared,
        stages: &mut Vec<Stage>,
    ) -> FeatureVector {
        let began = self.port.now_ms();
        let features = analyse(&prepared.subject);
        let ms = self.port.now_ms() - began;
        self.cost.borrow_mut().observe("analyse", ms);
        stages.push(Stage { name: "analyse".to_owned(), ms });
        features
    }

    pub(super) async fn complete(
        &self,
        pending: Pending,
        options: &RunOptions,
        cancelled: &Cancelled<'_>,
    ) -> Result<RunResult, Problem> {
        let Pending { live, began, prepared, input, started, features, overlapped, mut stages } =
            pending;
        let clock = || self.port.now_ms();
        let mut features = features.unwrap_or_else(|| self.analyse_here(&prepared, &mut stages));
        let session = &live.library.session;
        let started = self.probe(&live.library, &input, started, &mut features, &mut stages)?;
        let limit = within(options.limit.unwrap_or(self.limit), options.deadline_ms);
        let offered: Vec<Offered<'_>> =
            live.slots.iter().map(|slot| Offered::of(slot, options.weights)).collect();
        let (mut selection, costs) =
            self.decide(&live, &offered, &features, &limit, &options.choice, &mut stages)?;
        let picked: Vec<usize> = selection.chosen().collect();
        let stitched: Vec<Stitched> =
            picked.iter().map(|i| offered[*i].version.stitched()).collect();
        let compiled: Vec<&Compiled> =
            picked.iter().map(|i| &*offered[*i].version.compiled).collect();
        let plan = Plan::of(session, &compiled)?;
        let base_began = clock();
        let (base, reusable) = match options.compare {
            true => session
                .base(&input, started, &clock)
                .map(|(ran, reusable)| (Some(ran), Some(reusable)))?,
            false => (None, started),
        };
        let base_ms = clock() - base_began;
        let due = options.deadline_ms.map(|ms| self.deadline(&live, began + ms, &picked, &costs));
        let mut running = session.walk(&plan, &stitched, &input, reusable.as_ref(), due);
        let long = primary_ms(&self.cost.borrow(), &live.library) > LONG_MS;
        let mut breath = clock();
        while running.step(&clock)? {
            if long {
                breath = self.breathe(breath, cancelled).await?;
            }
        }
        let ran = running.end()?;
        for dropped in &ran.dropped {
            selection.leave_out(picked[*dropped], options.deadline_ms.unwrap_or_default());
        }
        let chosen: Vec<&Offered<'_>> = selection.chosen().map(|index| &offered[index]).collect();
        self.observe(&live, &chosen, &ran, base.as_ref(), overlapped);
        stages.extend(ran.stages.iter().cloned());
        if !live.library.probes.is_empty() && base.is_none() {
            let again = reusable.as_ref().map_or(0.0, |r| r.ms_beyond(&ran.reused));
            if let Some(probe) = stages.iter_mut().find(|stage| stage.name == "probe") {
                probe.ms += again;
            }
        }
        let total_ms = stages.iter().map(|stage| stage.ms).sum();
        stages.extend(base.is_some().then(|| Stage { name: "base".to_owned(), ms: base_ms }));
        let cost = RunCost {
            total_ms,
            stages,
            limit_ms: limit.ms,
            limit_bytes: limit.bytes,
            bytes: chosen.iter().map(|o| o.version.weight_bytes).sum(),
            overlapped,
        };
        let graph = lit(&live.library, &plan, &chosen);
        let used = chosen.iter().map(|o| o.used()).collect();
        let version = live.version_id(chosen.iter().map(|o| &**o.version));
        let candidates = considered(&offered, selection, &costs);
        Answered { ran, base, features, used, version, candidates, cost, graph }.report(&live)
    }

    /// Asks the library's probes, where it has any.
    fn probe(
        &self,
        library: &Library,
        input: &Value,
        started: Option<Reusable>,
        features: &mut FeatureVector,
        stages: &mut Vec<Stage>,
    ) -> Result<Option<Reusable>, Problem> {
        if library.probes.is_empty() {
            return Ok(started);
        }
        let clock = || self.port.now_ms();
        let (began, before) = (clock(), started.as_ref().map_or(0.0, Reusable::ms));
        let reached = library.probes.read(&library.session, input, started, features, &clock)?;
        // What the primary itself took stands among its own stages, if it is of use there.
        let ms = clock() - began - (reached.ms() - before).max(0.0);
        stages.push(Stage { name: "probe".to_owned(), ms: ms.max(0.0) });
        Ok(Some(reached))
    }

    /// When the answer is due, and what this device has taken for each part so far.
    fn deadline(
        &self,
        live: &Adapted,
        at_ms: f64,
        picked: &[usize],
        costs: &[Estimate],
    ) -> Deadline {
        let cost = self.cost.borrow();
        let segments = live.library.session.segments().iter();
        Deadline {
            at_ms,
            segments_ms: segments.map(|segment| cost.estimate(&segment.name).ms).collect(),
            patches_ms: picked.iter().map(|index| costs[*index].ms).collect(),
        }
    }

    /// Learns from what the stages took.
    fn observe(
        &self,
        live: &Adapted,
        chosen: &[&Offered<'_>],
        ran: &Ran,
        base: Option<&Ran>,
        overlapped: bool,
    ) {
        let mut cost = self.cost.borrow_mut();
        for stage in &ran.stages {
            match chosen.iter().find(|o| stage.name == format!("patch:{}", o.version.name)) {
                Some(offered) => cost.observe(&stage_of(offered.version), stage.ms),
                None => cost.observe(&stage.name, stage.ms),
            }
        }
        // What was taken over from the run of the primary alone has been counted above.
        let counted = |name: &str| ran.stages.iter().any(|stage| stage.name == name);
        for stage in base.iter().flat_map(|ran| &ran.stages).filter(|stage| !counted(&stage.name)) {
            cost.observe(&stage.name, stage.ms);
        }
        if overlapped && base.is_none() && !live.library.session.segments().is_empty() {
            let mut overlap = self.overlap.get();
            overlap.observe(ran.reused.contains(&0));
            self.overlap.set(overlap);
        }
    }
}

/// Everything of a run but the words for it.
struct Answered {
    ran: Ran,
    base: Option<Ran>,
    features: FeatureVector,
    used: Vec<Used>,
    version: VersionId,
    candidates: Vec<Considered>,
    cost: RunCost,
    graph: Lit,
}

impl Answered {
    fn report(self, live: &Adapted) -> Result<RunResult, Problem> {
        let catalog = &live.library.catalog;
        let labels = &catalog.primary.labels;
        let output = self.ran.output.f32s()?.to_vec();
        let base_output =
            self.base.map(|ran| ran.output.f32s().map(<[f32]>::to_vec)).transpose()?;
        Ok(RunResult {
            top: ranked(named_places(labels, &output, !self.used.is_empty()), &output),
            base_top: base_output
                .as_ref()
                .map(|output| ranked(named_places(labels, output, false), output)),
            shape: self.ran.output.shape().to_vec(),
            output,
            base_output,
            features: self.features,
            patches: self.used,
            candidates: self.candidates,
            cost: self.cost,
            version: self.version,
            base_version: live.version_id([]),
            catalog_version: catalog.version,
            graph: self.graph,
        })
    }
}

/// A limit that also keeps a deadline, as far as estimates reach.
fn within(limit: CostLimit, deadline_ms: Option<f64>) -> CostLimit {
    let ms = match (limit.ms, deadline_ms) {
        (Some(limit), Some(deadline)) => Some(limit.min(deadline)),
        (limit, deadline) => limit.or(deadline),
    };
    CostLimit { ms, ..limit }
}

pub(super) fn prepare(library: &Library, input: &Input) -> Result<Prepared, Problem> {
    library.preparation.prepare(input, library.session.input().1)
}

fn lit(library: &Library, plan: &Plan<'_>, chosen: &[&Offered<'_>]) -> Lit {
    let session = &library.session;
    let mut active = vec!["input".to_owned(), "output".to_owned()];
    for step in &plan.steps {
        if let Step::Segment(index) = step {
            let segment = &session.segments()[*index];
            active.push(segment.name.clone());
            let sites = segment.outputs.iter().filter(|name| session.sites().contains(*name));
            active.extend(sites.map(|site| format!("site:{site}")));
        }
    }
    let input = session.input().0;
    active.extend(session.sites().contains(input).then(|| format!("site:{input}")));
    for offered in chosen {
        for (index, attachment) in offered.version.patch.manifest().attachments.iter().enumerate() {
            active.push(super::describe::patch_node(&offered.version.name, index));
            active.push(format!("site:{}", attachment.site()));
        }
    }
    active.sort_unstable();
    active.dedup();
    let skipped = plan.skipped(session).into_iter().map(|s| session.segments()[s].name.clone());
    Lit { active, skipped: skipped.collect() }
}
