//! The manifest of a patch, `patch.json`: unknown keys are refused, what is optional stays optional.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::error::{Code, Error, Result};
use crate::model::Digest;

/// Bytes of one manifest.
const MANIFEST_BYTES: usize = 1 << 20;
/// Characters of a patch's name.
const NAME_CHARS: usize = 64;
/// Attachments of one patch, and trainable tensors.
const ENTRIES: usize = 1024;

/// What a patch is for, where it is stitched in, what it costs, and when it helps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The version of this format: 1.
    pub format: u32,
    /// Lower-case letters, digits and hyphens; unique in its library.
    pub name: String,
    /// What the patch does, in one sentence.
    pub function: String,
    /// The digest of the primary's file.
    pub primary: Digest,
    /// Where it is stitched in; all of them or none.
    pub attachments: Vec<Attachment>,
    /// Names of the initializers that training changes; empty for a fixed patch.
    #[serde(default)]
    pub trainable: Vec<String>,
    /// How to train it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub training: Option<Training>,
    /// When it helps, and by how much.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<Selector>,
    /// Formats of what goes in and out, for people and tools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io: Option<Io>,
    /// Measured performance, with and without the patch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub performance: Vec<PerformanceRow>,
    /// What it costs to load and run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<Cost>,
    /// An SPDX expression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
    /// Where weights and data come from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provenance: Option<Json>,
}

/// How an attachment changes the tensor T at its output site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// T := patch(T, …)
    Series,
    /// T := T + scale · patch(…)
    Parallel,
    /// T := patch(…), without T.
    Replace,
}

/// One place where a patch is stitched in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attachment {
    /// How the output changes its site.
    pub mode: Mode,
    /// Inputs of the patch's graph, and the primary's tensors that feed them.
    pub inputs: BTreeMap<String, String>,
    /// The output of the patch's graph, and the primary's tensor that it changes: one entry.
    pub output: BTreeMap<String, String>,
    /// Factor of a parallel attachment; 1 where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<f32>,
}

/// How a patch is trained, locally and in rounds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Training {
    /// A loss of the contract, such as `softmax_cross_entropy`.
    pub loss: String,
    /// Step size.
    pub learning_rate: f32,
    /// Examples per step.
    pub batch: usize,
    /// Passes over the local examples.
    pub epochs: usize,
    /// Largest L2 norm of a contribution.
    pub clip_norm: f32,
    /// `sgd` (where it is left out) or `adam`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optimizer: Option<String>,
    /// Momentum of the optimizer; none where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub momentum: Option<f32>,
    /// μ of the FedProx term μ/2·‖w − start‖², which holds local weights near the shared ones; 0 where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proximal: Option<f32>,
    /// The tensor of the primary that the loss reads, such as the error of a forecast; the model's output where it is
    /// left out. A target of one number then stands for all of its numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// It learns from examples of the first so many classes only, of all where left out: places that a primary keeps
    /// for what its user teaches come after them, and nobody else's weights should follow those.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<usize>,
}

/// When a patch helps, from the features of the input.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Selector {
    /// All must hold for the patch to be a candidate.
    #[serde(default)]
    pub requires: Vec<Requirement>,
    /// The expected gain in the primary's metric.
    #[serde(default)]
    pub gain: Gain,
}

/// A bound on one feature.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Requirement {
    /// Name of the feature, such as `image.noise`.
    pub feature: String,
    /// Lower bound, inclusive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_least: Option<f64>,
    /// Upper bound, inclusive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_most: Option<f64>,
}

/// A linear estimate over features.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gain {
    /// The estimate where all features are 0.
    #[serde(default)]
    pub intercept: f64,
    /// Change of the estimate per unit of a feature.
    #[serde(default)]
    pub weights: BTreeMap<String, f64>,
}

/// Formats of what goes in and out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Io {
    /// By input of the patch's graph.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<Json>,
    /// By output of the patch's graph.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outputs: Option<Json>,
    /// What was done to the data before it reached the primary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preprocessing: Option<Json>,
}

/// One paired measurement with and without the patch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PerformanceRow {
    /// The data set.
    pub data: String,
    /// The part of it, such as `noise 0.3`.
    pub slice: String,
    /// What was measured.
    pub metric: String,
    /// The primary alone.
    pub base: f64,
    /// With the patch.
    pub patched: f64,
    /// Examples.
    pub n: u64,
    /// 95 % confidence interval of the paired difference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ci95: Option<[f64; 2]>,
}

/// What a patch costs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cost {
    /// Multiply-accumulate operations of one run.
    pub macs: u64,
    /// Bytes of all weights.
    pub parameter_bytes: u64,
    /// Bytes of graph and weights as they are downloaded.
    pub download_bytes: u64,
    /// Measured run times.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub measured_ms: Vec<MeasuredMs>,
}

/// Run times on one device, in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeasuredMs {
    /// Which device and engine.
    pub device: String,
    /// Median.
    pub p50: f64,
    /// 95th percentile.
    pub p95: f64,
}

impl Attachment {
    /// The output of the patch's graph and its site; a checked manifest has exactly one.
    pub fn output(&self) -> (&str, &str) {
        self.output.first_key_value().map_or(("", ""), |(output, site)| (output, site))
    }

    /// The tensor of the primary that this attachment changes.
    pub fn site(&self) -> &str {
        self.output().1
    }

    /// The factor of a parallel attachment.
    pub fn factor(&self) -> f32 {
        self.scale.unwrap_or(1.0)
    }
}

impl Manifest {
    /// Reads and checks `patch.json`: unknown keys, another format, odd names and impossible numbers are refused.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > MANIFEST_BYTES {
            return Err(invalid(format!(
                "the manifest has {} bytes, the limit is {MANIFEST_BYTES}",
                bytes.len()
            )));
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(|e| {
            invalid(format!("the manifest is not valid: {e}"))
                .with_hint("`backstitch patch new` writes one to compare with")
        })?;
        manifest.check()?;
        Ok(manifest)
    }

    /// As pretty JSON with a final line break; the same value gives the same bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// Checks what the manifest says of itself, without graph or primary.
    pub fn check(&self) -> Result<()> {
        if self.format != 1 {
            return Err(invalid(format!("format {} is not known", self.format))
                .with_hint("this version reads format 1"));
        }
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if self.name.is_empty() || self.name.len() > NAME_CHARS || !self.name.chars().all(allowed) {
            return Err(invalid(format!("`{}` is no patch name", self.name)).with_hint(format!(
                "use 1 to {NAME_CHARS} lower-case letters, digits and hyphens"
            )));
        }
        if self.attachments.is_empty()
            || self.attachments.len() > ENTRIES
            || self.trainable.len() > ENTRIES
        {
            return Err(invalid(format!(
                "patch `{}` has {} attachments and {} trainable tensors; 1 to {ENTRIES} and 0 to {ENTRIES} are allowed",
                self.name,
                self.attachments.len(),
                self.trainable.len()
            )));
        }
        for (index, attachment) in self.attachments.iter().enumerate() {
            attachment
                .check()
                .map_err(|e| e.context(format!("patch `{}`, attachment {index}", self.name)))?;
        }
        if self.trainable.iter().collect::<BTreeSet<_>>().len() != self.trainable.len() {
            return Err(invalid(format!("patch `{}` lists a trainable tensor twice", self.name)));
        }
        if let Some(training) = &self.training {
            training.check().map_err(|e| e.context(format!("patch `{}`", self.name)))?;
        }
        if let Some(selector) = &self.selector {
            selector.check().map_err(|e| e.context(format!("patch `{}`", self.name)))?;
        }
        Ok(())
    }
}

impl Attachment {
    fn check(&self) -> Result<()> {
        if self.output.len() != 1 {
            return Err(invalid(format!("it has {} outputs", self.output.len()))
                .with_hint("an attachment has one output; give each output its own attachment"));
        }
        let reads_site = self.inputs.values().any(|site| site == self.site());
        match self.mode {
            Mode::Series if !reads_site => {
                Err(invalid(format!("a series at `{}` must read it", self.site()))
                    .with_hint("add it to the inputs, or use replace"))
            }
            Mode::Replace if reads_site => {
                Err(invalid(format!("a replace of `{}` cannot read it", self.site()))
                    .with_hint("use series to change a tensor"))
            }
            Mode::Series | Mode::Replace if self.scale.is_some() => {
                Err(invalid("only a parallel attachment has a scale".to_owned()))
            }
            _ if !self.factor().is_finite() => Err(invalid("the scale is not finite".to_owned())),
            _ => Ok(()),
        }
    }
}

impl Training {
    fn check(&self) -> Result<()> {
        let positive = |value: f32| value.is_finite() && value > 0.0;
        if !positive(self.learning_rate)
            || !positive(self.clip_norm)
            || self.batch == 0
            || self.epochs == 0
        {
            return Err(invalid(
                "learning_rate and clip_norm must be positive and finite, batch and epochs at least 1".to_owned(),
            ));
        }
        if let Some(other) =
            self.optimizer.as_deref().filter(|name| !["sgd", "adam"].contains(name))
        {
            return Err(invalid(format!("the optimizer `{other}` is not known"))
                .with_hint("use sgd or adam"));
        }
        if self.classes == Some(0) {
            return Err(invalid("training on no class at all".to_owned())
                .with_hint("leave classes out to train on all of them"));
        }
        if let Some(pull) = self.proximal.filter(|pull| !(pull.is_finite() && *pull >= 0.0)) {
            return Err(invalid(format!("the proximal factor {pull} is no number from 0 up")));
        }
        match self.momentum {
            Some(momentum) if !(0.0..1.0).contains(&momentum) => {
                Err(invalid(format!("the momentum {momentum} is outside 0..1")))
            }
            _ => Ok(()),
        }
    }
}

impl Selector {
    fn check(&self) -> Result<()> {
        let bounds = self.requires.iter().flat_map(|r| [r.at_least, r.at_most]).flatten();
        let numbers =
            bounds.chain(self.gain.weights.values().copied()).chain([self.gain.intercept]);
        if numbers.into_iter().any(|number| !number.is_finite()) {
            return Err(invalid("the selector holds a number that is not finite".to_owned()));
        }
        match self.requires.iter().find(|r| r.at_least.is_none() && r.at_most.is_none()) {
            Some(requirement) => {
                Err(invalid(format!("the requirement on `{}` has no bound", requirement.feature))
                    .with_hint("give at_least, at_most or both"))
            }
            None => Ok(()),
        }
    }
}

fn invalid(message: String) -> Error {
    Error::new(Code::ManifestInvalid, message)
}
