//! What the client says about a library: its primary, its patches, and the picture of its graph.

use std::collections::BTreeMap;

use backstitch_onnx::patch::{Mode, PerformanceRow, Requirement};
use backstitch_protocol::catalog::{FeatureText, ProbeEntry};
use backstitch_protocol::id::Name;
use serde::Serialize;

use super::{LabelCount, Reason};
use crate::analysis::Description;

/// How often an operator is applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "name and count")]
pub struct OperatorCount {
    pub op: String,
    pub count: usize,
}

/// A node of the picture of the graph.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GraphNode {
    /// Unique.
    pub id: String,
    /// `input`, `segment`, `site`, `patch` or `output`.
    pub kind: &'static str,
    /// For people.
    pub label: String,
    /// The patch of a patch node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patch: Option<Name>,
    /// How it is attached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Operators of a segment or patch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ops: Option<Vec<OperatorCount>>,
    /// Multiply-accumulates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub macs: Option<u64>,
    /// Shape of a tensor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shape: Option<Vec<usize>>,
}

/// Data flows from one node to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "ids")]
pub struct GraphEdge {
    pub from: String,
    pub to: String,
}

/// The primary as it is cut, with every patch that could be stitched.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[allow(missing_docs, reason = "a graph")]
pub struct Graph {
    pub nodes: Vec<GraphNode>,
    pub edges: Vec<GraphEdge>,
}

/// A tensor of the primary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "name and shape with a batch of one")]
pub struct TensorInfo {
    pub name: String,
    pub shape: Vec<usize>,
}

/// The primary model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "units are in the names")]
pub struct PrimaryInfo {
    pub digest: String,
    pub bytes: u64,
    pub macs: u64,
    pub parameter_bytes: u64,
}

/// A version in the catalog.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "number and aliases")]
pub struct VersionInfo {
    pub version: u32,
    pub aliases: Vec<String>,
}

/// What was trained here of one patch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "see Change")]
pub struct PersonalInfo {
    pub in_use: bool,
    pub examples: usize,
}

/// A patch of the library.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PatchInfo {
    /// Its name.
    pub name: Name,
    /// What it does.
    pub function: String,
    /// The version that runs here.
    pub version: u32,
    /// All versions in the catalog.
    pub versions: Vec<VersionInfo>,
    /// Whether it can be trained.
    pub trainable: bool,
    /// Trainable numbers.
    pub parameters: usize,
    /// Multiply-accumulates of one run.
    pub macs: u64,
    /// Bytes of all its weights.
    pub bytes: u64,
    /// Tensors that it reads or changes.
    pub sites: Vec<String>,
    /// How each attachment changes its site.
    pub modes: Vec<Mode>,
    /// When it is considered.
    pub requires: Vec<Requirement>,
    /// Measured with and without it.
    pub performance: Vec<PerformanceRow>,
    /// An SPDX expression.
    pub licence: String,
    /// What was trained here.
    pub personal: Option<PersonalInfo>,
}

/// A version that this device cannot use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "a version and why")]
pub struct BrokenInfo {
    pub name: Name,
    pub version: u32,
    pub problem: Reason,
}

/// What a feature means, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FeatureInfo {
    /// The name that selectors use.
    pub name: String,
    /// Some words with which a sentence can begin, such as `looks out of focus`.
    pub label: String,
    /// The unit of its values; empty where there is none.
    pub unit: String,
    /// The values that it can take.
    pub range: String,
    /// What it measures.
    pub about: String,
    /// Where the formula comes from.
    pub source: String,
}

impl From<&Description> for FeatureInfo {
    fn from(d: &Description) -> Self {
        let [name, label, unit, range, about, source] =
            [d.name, d.label, d.unit, d.range, d.about, d.source].map(str::to_owned);
        Self { name, label, unit, range, about, source }
    }
}

impl FeatureInfo {
    /// Of a feature of a probe; without a description it goes by its name.
    pub(crate) fn of_probe(probe: &ProbeEntry, name: &str) -> Self {
        let text = probe.described.get(name);
        let told = |part: fn(&FeatureText) -> &str| text.map_or("", part).to_owned();
        Self {
            name: name.to_owned(),
            label: text.map_or(name, FeatureText::label).to_owned(),
            unit: String::new(),
            range: told(FeatureText::range),
            about: told(FeatureText::about),
            source: format!("the library's probe {} at {}", probe.name, probe.site),
        }
    }
}

/// Everything about the library that an interface shows.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "named as in Catalog; the others are documented")]
pub struct LibraryInfo {
    pub name: Name,
    pub title: String,
    pub description: String,
    pub modality: String,
    pub labels: Vec<String>,
    pub input: TensorInfo,
    pub output: TensorInfo,
    pub preprocessing: serde_json::Value,
    pub catalog_version: u64,
    pub primary: PrimaryInfo,
    pub patches: Vec<PatchInfo>,
    /// Versions in the catalog that do not work here.
    pub broken: Vec<BrokenInfo>,
    pub tasks: Vec<Name>,
    /// What each feature means.
    pub features: Vec<FeatureInfo>,
    /// Hex of the key that signs the catalog.
    pub key: String,
}

/// Examples per class index, as label counts in the order of the labels.
pub(crate) fn label_counts(labels: &[String], counts: &BTreeMap<usize, usize>) -> Vec<LabelCount> {
    let of = |index: usize| counts.get(&index).copied().unwrap_or(0);
    let named =
        |(index, label): (usize, &String)| LabelCount { label: label.clone(), count: of(index) };
    labels.iter().enumerate().map(named).collect()
}
