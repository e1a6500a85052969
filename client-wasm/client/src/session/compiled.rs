//! A patch, compiled once, when it is first needed. Its trainable weights are inputs of the programs, so that new weights
//! compile nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use backstitch_onnx::cost::cost;
use backstitch_onnx::engine::infer;
use backstitch_onnx::patch::{Mode, Patch};
use backstitch_onnx::{DType, Digest, Dims, Program, Tensor, Value};
use backstitch_protocol::Problem;

use super::{Session, require_float};
use crate::random::SplitMix;
use crate::residence::Resident;

/// The programs of a patch's attachments.
#[derive(Debug)]
pub struct Compiled {
    pub(super) attachments: Vec<Attached>,
    /// Multiply-accumulates of one run of all attachments.
    pub macs: u64,
    /// Why it cannot be compiled here, once that was tried and failed.
    fault: OnceLock<Problem>,
}

#[derive(Debug)]
pub(super) struct Attached {
    pub(super) mode: Mode,
    pub(super) factor: f32,
    /// What it changes.
    pub(super) site: String,
    /// What it reads of the primary.
    pub(super) reads: BTreeSet<String>,
    pub(super) feeds: Vec<Feed>,
    pub(super) program: Resident<Program>,
}

/// Where an input of a program comes from.
#[derive(Debug)]
pub(super) enum Feed {
    Site(String),
    Weight(String),
}

/// One version's trainable weights, as the engine takes them, and what is known of them.
#[derive(Debug)]
pub struct Weights {
    /// By name.
    pub values: Resident<BTreeMap<String, Value>>,
    /// The digest of all float weights of the patch, once somebody has asked: hashing takes longer than taking them in.
    digest: OnceLock<Digest>,
    /// Whether the patch changes anything with them, once somebody has asked and it had to be tried.
    effect: OnceLock<bool>,
}

impl Weights {
    /// The digest of all float weights of the patch that these are of.
    pub fn digest(&self, patch: &Patch) -> Digest {
        *self.digest.get_or_init(|| patch.weights_digest())
    }

    /// Whether nobody knows yet if the patch changes anything with them.
    pub fn is_untried(&self) -> bool {
        self.effect.get().is_none()
    }
}

impl Compiled {
    /// Works out what every attachment reads and costs, for the shapes of its sites. It is compiled when it first runs, or by
    /// [`Compiled::ready`]: a library opens faster, and most inputs need few of its patches.
    pub fn new(session: &Session, patch: &Patch) -> Result<Self, Problem> {
        let mut attachments = Vec::new();
        let mut macs = 0;
        for (index, attachment) in patch.manifest().attachments.iter().enumerate() {
            let model = patch.attachment_model(index)?;
            let mut dims = Dims::new();
            for (input, site) in &attachment.inputs {
                dims.insert(input.clone(), session.shape(site).to_vec());
            }
            for (name, tensor) in patch.weights() {
                if model.graph.input(&name).is_some() {
                    dims.insert(name, tensor.shape().to_vec());
                }
            }
            if attachment.mode == Mode::Parallel {
                require_float(session.shapes(), attachment.site())?;
            }
            macs += cost(&model, &infer(&model, &dims)?)?.total.macs;
            let feed = |name: &str| match attachment.inputs.get(name) {
                Some(site) => Feed::Site(site.clone()),
                None => Feed::Weight(name.to_owned()),
            };
            attachments.push(Attached {
                mode: attachment.mode,
                factor: attachment.factor(),
                site: attachment.site().to_owned(),
                reads: attachment.inputs.values().cloned().collect(),
                feeds: model.graph.inputs.iter().map(|info| feed(&info.name)).collect(),
                program: session.residence().program_when_needed(model, dims),
            });
        }
        Ok(Self { attachments, macs, fault: OnceLock::new() })
    }

    /// Compiles what is not compiled. What fails once is not tried again.
    pub fn ready(&self) -> Result<(), Problem> {
        if let Some(fault) = self.fault.get() {
            return Err(fault.clone());
        }
        for attached in &self.attachments {
            attached.program.take().map_err(|fault| self.fault.get_or_init(|| fault).clone())?;
        }
        Ok(())
    }

    /// Whether it is compiled now, so that getting it ready takes no time.
    pub fn is_ready(&self) -> bool {
        self.fault.get().is_none() && self.attachments.iter().all(|one| one.program.is_made())
    }

    /// Why it cannot be compiled here, where that is known.
    pub fn fault(&self) -> Option<&Problem> {
        self.fault.get()
    }

    /// The same patch where the engine fails at it.
    #[cfg(test)]
    pub(crate) fn failing(
        &self,
        residence: &std::sync::Arc<crate::residence::Residence>,
        fault: Problem,
    ) -> Self {
        let attachments = self.attachments.iter().map(|attached| {
            let fault = fault.clone();
            Attached {
                mode: attached.mode,
                factor: attached.factor,
                site: attached.site.clone(),
                reads: attached.reads.clone(),
                feeds: Vec::new(),
                program: residence.resident(move || Err(fault.clone())),
            }
        });
        Self { attachments: attachments.collect(), macs: self.macs, fault: OnceLock::new() }
    }

    /// What distinguishes compiled patches: the primary with its input's shape and its answer, the graph, the
    /// attachments, and the weights that are built in because they are not trainable.
    pub fn key(session: &Session, patch: &Patch) -> Digest {
        let manifest = patch.manifest();
        let mut bytes = [*session.digest().as_bytes(), *patch.graph_digest().as_bytes()].concat();
        let said =
            (session.input(), session.output().0, &manifest.attachments, &manifest.trainable);
        bytes.extend(serde_json::to_vec(&said).unwrap_or_default());
        let frozen = patch.model().graph.initializers.iter();
        for (name, tensor) in frozen.filter(|(name, _)| !manifest.trainable.contains(name)) {
            bytes.extend(name.as_bytes());
            bytes.extend(tensor.bytes());
        }
        Digest::of(&bytes)
    }

    /// Takes a version's weights into the engine.
    pub fn weights(&self, session: &Session, patch: &Patch) -> Result<Weights, Problem> {
        let weights = patch.weights();
        let effect = OnceLock::new();
        if !may_be_idle(&weights) {
            effect.get_or_init(|| true);
        }
        let values = session.residence().resident(move || engine_values(&weights));
        values.take()?;
        Ok(Weights { values, digest: OnceLock::new(), effect })
    }

    /// Whether the patch changes anything with these weights. Where that has to be tried, it takes as long as a run of the
    /// patch, once.
    pub fn has_effect(&self, session: &Session, weights: &Weights) -> Result<bool, Problem> {
        if let Some(known) = weights.effect.get() {
            return Ok(*known);
        }
        self.ready()?;
        let changes = self.changes_something(session, &*weights.values.take()?)?;
        Ok(*weights.effect.get_or_init(|| changes))
    }

    /// Tries the patch on pseudo-random tensors: a fresh adapter adds zeros, and is then not worth running.
    fn changes_something(
        &self,
        session: &Session,
        weights: &BTreeMap<String, Value>,
    ) -> Result<bool, Problem> {
        let mut probes: BTreeMap<&str, Value> = BTreeMap::new();
        let mut draws = SplitMix::new(1);
        for attached in &self.attachments {
            for site in &attached.reads {
                let shape = session.shape(site);
                if !matches!(session.shapes().get(site), Some((DType::F32, _))) {
                    return Ok(true);
                }
                let values: Vec<f32> =
                    (0..shape.iter().product()).map(|_| draws.uniform() as f32 - 0.5).collect();
                probes.insert(site, Value::f32(shape, &values)?);
            }
        }
        for attached in &self.attachments {
            let made = attached.run(|site| probes.get(site), weights)?;
            let changed = match attached.mode {
                Mode::Replace => true,
                Mode::Parallel => made.f32s()?.iter().any(|v| v * attached.factor != 0.0),
                Mode::Series => {
                    probes.get(attached.site.as_str()).map(Value::f32s).transpose()?
                        != Some(made.f32s()?)
                }
            };
            if changed {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Sites that it replaces.
    pub fn replaces(&self) -> Vec<String> {
        self.attachments
            .iter()
            .filter(|a| a.mode == Mode::Replace)
            .map(|a| a.site.clone())
            .collect()
    }
}

impl Attached {
    /// Runs the attachment; a site that it reads must be among the live tensors.
    pub(super) fn run<'a>(
        &self,
        live: impl Fn(&str) -> Option<&'a Value>,
        weights: &BTreeMap<String, Value>,
    ) -> Result<Value, Problem> {
        let missing = |name: &str| {
            Problem::from(backstitch_onnx::Error::new(
                backstitch_onnx::Code::UnknownTensor,
                format!("the patch reads `{name}`, which was not computed"),
            ))
        };
        let mut fed = Vec::with_capacity(self.feeds.len());
        for feed in &self.feeds {
            fed.push(match feed {
                Feed::Site(site) => live(site).cloned().ok_or_else(|| missing(site))?,
                Feed::Weight(name) => weights.get(name).cloned().ok_or_else(|| missing(name))?,
            });
        }
        let outputs = self.program.take()?.run_ordered(&fed)?;
        outputs.into_iter().next().ok_or_else(|| missing(&self.site))
    }
}

/// Whether some trainable tensor is all zeros, as in a fresh adapter, scale or kernel. Without one a patch changes
/// something, and need not be tried: that would take as long as a run of it.
fn may_be_idle(weights: &BTreeMap<String, Tensor>) -> bool {
    weights.values().any(|tensor| tensor.bytes().iter().all(|byte| *byte == 0))
}

/// Plain tensors as the engine's own.
pub(crate) fn engine_values(
    tensors: &BTreeMap<String, Tensor>,
) -> Result<BTreeMap<String, Value>, Problem> {
    tensors.iter().map(|(name, tensor)| Ok((name.clone(), Value::try_from(tensor)?))).collect()
}
