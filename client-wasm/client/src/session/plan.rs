//! The order in which segments and sites are computed for one set of patches, and what need not be computed at all.

use std::collections::{BTreeMap, BTreeSet};

use backstitch_onnx::patch::Mode;
use backstitch_protocol::Problem;

use super::{Compiled, Session};

/// One step of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// Runs the segment of this index.
    Segment(usize),
    /// Lets the patches of this site act.
    Site(&'a str),
}

/// The steps of a run, in order. Segments that a replacing patch makes needless are not among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan<'a> {
    /// In order.
    pub steps: Vec<Step<'a>>,
    /// Attachments per site as (patch, attachment), in the order in which they act.
    pub(super) actions: BTreeMap<&'a str, Vec<(usize, usize)>>,
}

impl<'a> Plan<'a> {
    /// Plans a run of these patches, given in stitching order. Fails with `patch_mismatch` where they close a cycle
    /// or two of them replace one site.
    pub fn of(session: &'a Session, patches: &[&'a Compiled]) -> Result<Self, Problem> {
        let mut actions: BTreeMap<&str, Vec<(usize, usize)>> = BTreeMap::new();
        for (p, patch) in patches.iter().enumerate() {
            for (a, attached) in patch.attachments.iter().enumerate() {
                actions.entry(&attached.site).or_default().push((p, a));
            }
        }
        let mode = |(p, a): &(usize, usize)| patches[*p].attachments[*a].mode;
        for (site, attached) in &mut actions {
            attached.sort_by_key(|at| match mode(at) {
                Mode::Replace => 0,
                Mode::Series => 1,
                Mode::Parallel => 2,
            });
            if attached.iter().filter(|at| mode(at) == Mode::Replace).count() > 1 {
                return Err(mismatch(format!("two patches replace `{site}`")));
            }
        }
        let mut walk = Walk::new(session, patches, &actions);
        walk.tensor(&session.output)?;
        let steps = walk.steps;
        Ok(Self { steps, actions })
    }

    /// Plans a run of the unpatched primary as far as these tensors. Fails with `unknown_tensor` where one is neither
    /// the input nor made by a segment.
    pub fn to(session: &'a Session, tensors: &[&str]) -> Result<Self, Problem> {
        let actions = BTreeMap::new();
        let mut walk = Walk::new(session, &[], &actions);
        for tensor in tensors.iter().filter(|tensor| **tensor != session.input) {
            let made = walk.makers.get_key_value(*tensor).map(|(name, _)| *name);
            walk.tensor(made.ok_or_else(|| {
                let detail = format!("no segment of the primary makes `{tensor}`");
                let code = backstitch_onnx::Code::UnknownTensor;
                Problem::from(backstitch_onnx::Error::new(code, detail))
            })?)?;
        }
        let steps = walk.steps;
        Ok(Self { steps, actions: BTreeMap::new() })
    }

    /// The segments that run.
    pub fn segments(&self) -> BTreeSet<usize> {
        let index = |step: &Step<'_>| match step {
            Step::Segment(index) => Some(*index),
            Step::Site(_) => None,
        };
        self.steps.iter().filter_map(index).collect()
    }

    /// Segments that read something that a patch changes, directly or through other segments.
    pub fn changed(&self, session: &Session) -> BTreeSet<usize> {
        let (mut tensors, mut changed) = (BTreeSet::new(), BTreeSet::new());
        for step in &self.steps {
            match step {
                Step::Site(site) => drop(tensors.insert(*site)),
                Step::Segment(index) => {
                    let segment = &session.segments[*index];
                    if segment.inputs.iter().any(|name| tensors.contains(name.as_str())) {
                        tensors.extend(segment.outputs.iter().map(String::as_str));
                        changed.insert(*index);
                    }
                }
            }
        }
        changed
    }

    /// Tensors between segments that are not computed, but for those that a patch makes instead.
    pub fn bypassed(&self, session: &Session) -> Vec<String> {
        let skipped = self.skipped(session);
        let made = |index: usize| session.segments[index].outputs.iter();
        let bypassed = skipped.into_iter().flat_map(made);
        bypassed.filter(|name| !self.steps.contains(&Step::Site(name))).cloned().collect()
    }

    /// Segments that do not run.
    pub fn skipped(&self, session: &Session) -> BTreeSet<usize> {
        (0..session.segments.len()).filter(|s| !self.steps.contains(&Step::Segment(*s))).collect()
    }
}

/// Collects steps depth first, each after what it needs.
struct Walk<'a, 'b> {
    session: &'a Session,
    patches: &'b [&'a Compiled],
    actions: &'b BTreeMap<&'a str, Vec<(usize, usize)>>,
    makers: BTreeMap<&'a str, usize>,
    /// `false` while a step is being collected, so that a cycle is seen.
    done: BTreeMap<(bool, &'a str), bool>,
    steps: Vec<Step<'a>>,
}

impl<'a, 'b> Walk<'a, 'b> {
    fn new(
        session: &'a Session,
        patches: &'b [&'a Compiled],
        actions: &'b BTreeMap<&'a str, Vec<(usize, usize)>>,
    ) -> Self {
        let mut makers = BTreeMap::new();
        for (index, segment) in session.segments.iter().enumerate() {
            makers.extend(segment.outputs.iter().map(|name| (name.as_str(), index)));
        }
        Self { session, patches, actions, makers, done: BTreeMap::new(), steps: Vec::new() }
    }

    /// The final value of a tensor.
    fn tensor(&mut self, name: &'a str) -> Result<(), Problem> {
        let Some(attached) = self.actions.get(name) else { return self.unpatched(name) };
        if !self.enter((true, name))? {
            return Ok(());
        }
        let (session, patches) = (self.session, self.patches);
        let replaced =
            attached.iter().any(|(p, a)| patches[*p].attachments[*a].mode == Mode::Replace);
        if !replaced {
            self.unpatched(name)?;
        }
        for (p, a) in attached {
            let reads = &patches[*p].attachments[*a].reads;
            for read in reads.iter().filter(|read| *read != name) {
                let known = session
                    .sites
                    .get(read.as_str())
                    .ok_or_else(|| mismatch(format!("`{read}` is no site")))?;
                self.tensor(known)?;
            }
        }
        self.steps.push(Step::Site(name));
        self.done.insert((true, name), true);
        Ok(())
    }

    /// The value that the primary itself gives a tensor.
    fn unpatched(&mut self, name: &'a str) -> Result<(), Problem> {
        let Some(index) = self.makers.get(name).copied() else { return Ok(()) };
        let segment = &self.session.segments[index];
        if !self.enter((false, &segment.name))? {
            return Ok(());
        }
        for input in &segment.inputs {
            self.tensor(input)?;
        }
        self.steps.push(Step::Segment(index));
        self.done.insert((false, &segment.name), true);
        Ok(())
    }

    fn enter(&mut self, key: (bool, &'a str)) -> Result<bool, Problem> {
        match self.done.get(&key) {
            Some(true) => Ok(false),
            Some(false) => Err(mismatch(format!("the patches close a cycle at `{}`", key.1))),
            None => {
                self.done.insert(key, false);
                Ok(true)
            }
        }
    }
}

fn mismatch(message: String) -> Problem {
    backstitch_onnx::Error::new(backstitch_onnx::Code::PatchMismatch, message).into()
}
