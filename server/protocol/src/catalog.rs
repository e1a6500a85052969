//! The catalog: everything that a client trusts about a library, in one small document. [`crate::trust`] signs it and
//! decides whether to believe it.

use std::collections::BTreeMap;

use backstitch_onnx::Digest;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::id::Name;
use crate::measure::Measure;
use crate::privacy::{ClipNorm, Delta, Epsilon, NoiseMultiplier, ReportBudget, RhoQuanta};
use crate::problem::{Code, Problem};
use crate::token::TokenKey;

/// Identifies what a contribution starts from: SHA-256 over a label, the round, and the digests of the weights of the
/// task's patches in order.
///
/// The round belongs to it: a release that promotes nothing leaves the weights as they were, and what was made for one
/// round must not count in the next, where the same device may be once more.
pub fn base(round: u64, weights: impl IntoIterator<Item = Digest>) -> Digest {
    let mut hash = Sha256::new();
    hash.update(b"backstitch base v1\0");
    hash.update(round.to_le_bytes());
    weights.into_iter().for_each(|digest| hash.update(digest.as_bytes()));
    Digest::from_bytes(hash.finalize().into())
}

/// A blob that the catalog vouches for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blob {
    /// Where it is fetched and what its bytes must hash to.
    pub digest: Digest,
    /// Its exact length.
    pub bytes: u64,
}

/// The primary model and how to feed and read it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrimaryEntry {
    /// The ONNX file.
    pub model: Blob,
    /// The graph input that takes the user's data.
    pub input: String,
    /// The tensor of the graph that answers.
    pub output: String,
    /// Names of the classes, in order; empty where there are none.
    pub labels: Vec<String>,
    /// How raw input becomes the tensor, such as `{"width":28,"height":28,"channels":1,"scale":0.00392}`.
    pub preprocessing: serde_json::Value,
    /// Small models that read the primary's own activations and add features before patches are chosen.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub probes: Vec<ProbeEntry>,
}

/// A learned probe: features from an activation of the unpatched primary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbeEntry {
    /// The probe's name.
    pub name: Name,
    /// The tensor of the primary that it reads.
    pub site: String,
    /// The ONNX file: one input of the site's shape, one float32 output with a number for each feature.
    pub model: Blob,
    /// Names of the features, in the output's order; each begins with `probe.`.
    pub features: Vec<String>,
    /// What people read of them; a feature that is not described goes by its name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub described: BTreeMap<String, FeatureText>,
}

/// What people read of a probe's feature. Anything else than short plain text is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "GivenText")]
pub struct FeatureText {
    label: String,
    range: String,
    about: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GivenText {
    label: String,
    range: String,
    about: String,
}

impl FeatureText {
    /// Most characters of a label.
    pub const LABEL: usize = 40;
    /// Most characters of a range.
    pub const RANGE: usize = 24;
    /// Most characters of an explanation.
    pub const ABOUT: usize = 200;

    /// Checks each text. Fails with `catalog_invalid`.
    pub fn new(label: String, range: String, about: String) -> Result<Self, Problem> {
        let texts = [("label", &label, Self::LABEL), ("range", &range, Self::RANGE)];
        for (part, text, most) in texts.into_iter().chain([("about", &about, Self::ABOUT)]) {
            let length = text.chars().count();
            if length > most || text.trim().is_empty() || text.chars().any(char::is_control) {
                let detail = format!(
                    "the {part} of a feature has {length} characters: \"{}\"",
                    text.chars().take(most).collect::<String>().escape_debug()
                );
                return Err(Problem::new(Code::CatalogInvalid, detail)
                    .with_hint(format!("write 1 to {most} characters on one line")));
            }
        }
        Ok(Self { label, range, about })
    }

    /// Some words with which a sentence can begin, such as `looks out of focus`.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The values that it can take, such as `0 to 1`.
    pub fn range(&self) -> &str {
        &self.range
    }

    /// What it measures.
    pub fn about(&self) -> &str {
        &self.about
    }
}

impl TryFrom<GivenText> for FeatureText {
    type Error = Problem;

    fn try_from(given: GivenText) -> Result<Self, Problem> {
        Self::new(given.label, given.range, given.about)
    }
}

/// One version of one patch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PatchEntry {
    /// The patch's name.
    pub name: Name,
    /// 1, 2, 3 … within its name.
    pub version: u32,
    /// Aliases that point here, such as `champion`, `challenger`, `previous`.
    pub aliases: Vec<String>,
    /// `patch.json`.
    pub manifest: Blob,
    /// `patch.onnx`.
    pub graph: Blob,
    /// `weights.safetensors`, where this version has its own.
    pub weights: Option<Blob>,
}

/// What a device needs to know before it trains and contributes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskEntry {
    /// The task's name.
    pub name: Name,
    /// The patches trained together, in parameter order.
    pub patches: Vec<Name>,
    /// The version of each patch that the round starts from.
    pub base_versions: Vec<u32>,
    /// Identifies the round and the weights to train from: [`base`].
    pub base: Digest,
    /// Trainable parameters in all.
    pub parameters: u32,
    /// Counts releases from 1; the open round.
    pub round: u64,
    /// Contributions that close the round, and the fixed divisor of the mean.
    pub goal: u32,
    /// L2 bound on one device's update.
    pub clip_norm: ClipNorm,
    /// σ / C of a release.
    pub noise_multiplier: NoiseMultiplier,
    /// k: most releases that one device may touch in a period.
    pub max_participations: u32,
    /// Length of the period.
    pub period_days: u32,
    /// Fewest releases between two contributions of one device.
    pub min_separation: u32,
    /// Releases in a row that a contribution goes into, at most `min_separation`; 1 where each has noise of its own.
    #[serde(default = "alone", skip_serializing_if = "is_alone")]
    pub noise_band: u32,
    /// Numbers that travel beside the update in the same frame.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub measures: Vec<Measure>,
    /// The promise for one device and period, at `delta`.
    pub epsilon: Epsilon,
    /// δ of the promise.
    pub delta: Delta,
    /// What the worst-placed device has spent within the period that ends now, by the ledger.
    pub period_spent: RhoQuanta,
    /// The key of the tokens that contributions need; none where the task takes them without.
    pub token_key: Option<TokenKey>,
    /// Whether the round takes contributions.
    pub open: bool,
    /// Why not, when it does not.
    pub closed_reason: Option<String>,
}

fn alone() -> u32 {
    1
}

fn is_alone(band: &u32) -> bool {
    *band == 1
}

impl TaskEntry {
    /// Values of a frame: the update's, then one per measure.
    pub fn frame_values(&self) -> u32 {
        self.parameters.saturating_add(self.measures.len() as u32)
    }

    /// What one participation costs a device.
    pub fn cost(&self) -> RhoQuanta {
        RhoQuanta::of_release(self.noise_multiplier)
    }

    /// The most that a device may spend in a period.
    pub fn budget(&self) -> RhoQuanta {
        RhoQuanta::within(self.epsilon, self.delta)
    }
}

/// One arm of an experiment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArmEntry {
    /// The arm's name, such as `champion`.
    pub name: Name,
    /// Buckets of 65,536 that fall to this arm.
    pub weight: u32,
    /// Versions that this arm runs instead of the champions; 0 removes the patch.
    pub versions: BTreeMap<Name, u32>,
}

/// A running experiment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExperimentEntry {
    /// The experiment's name.
    pub name: Name,
    /// 32 hex digits, one salt per layer.
    pub salt: String,
    /// Changes only for a new experiment.
    pub seed: u64,
    /// Exclusive arms.
    pub arms: Vec<ArmEntry>,
    /// Labelled inputs after which a device reports.
    pub window: u32,
    /// ε of the randomised outcome.
    pub epsilon: Epsilon,
}

impl ExperimentEntry {
    /// What a report costs: ε-DP implies ε²/2-zCDP (Bun, Steinke 2016, Proposition 1.4).
    pub fn cost(&self) -> RhoQuanta {
        RhoQuanta::of_pure(self.epsilon)
    }

    /// The salt's bytes.
    pub fn salt_bytes(&self) -> Result<[u8; 16], Problem> {
        let mut bytes = [0; 16];
        hex::decode_to_slice(&self.salt, &mut bytes).map_err(|_| {
            Problem::new(Code::CatalogInvalid, format!("salt of experiment {}", self.name))
        })?;
        Ok(bytes)
    }
}

/// The privacy ledger as the catalog vouches for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LedgerHead {
    /// Records so far.
    pub sequence: u64,
    /// Hex of the last record's hash.
    pub head: String,
    /// Cumulative ρ per task, in quanta: what its worst-placed device may have spent.
    pub spent: BTreeMap<Name, RhoQuanta>,
}

/// The whole document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalog {
    /// 1.
    pub format: u32,
    /// The library's name.
    pub library: Name,
    /// For people.
    pub title: String,
    /// For people.
    pub description: String,
    /// `image`, `text` or `series`.
    pub modality: String,
    /// Grows with every change; a client refuses a lower one.
    pub version: u64,
    /// Seconds since 1970.
    pub issued_at: u64,
    /// Seconds since 1970; a client refuses a catalog from here on.
    pub expires_at: u64,
    /// The primary model.
    pub primary: PrimaryEntry,
    /// Every version that an alias or an arm needs.
    pub patches: Vec<PatchEntry>,
    /// Federated tasks.
    pub tasks: Vec<TaskEntry>,
    /// Running experiments.
    pub experiments: Vec<ExperimentEntry>,
    /// What their reports, and those of earlier ones, may tell about one device.
    #[serde(default)]
    pub reports: ReportBudget,
    /// The privacy ledger.
    pub ledger: LedgerHead,
    /// Built-in samples for a first try, if the library has some.
    pub samples: Option<Blob>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_read_of_a_feature_is_short_plain_text() {
        let read = |label: &str| {
            let json = serde_json::json!({"label": label, "range": "0 to 1", "about": "Blur."});
            serde_json::from_value::<FeatureText>(json)
        };
        assert_eq!(read("looks out of focus").unwrap().label(), "looks out of focus");
        let long = "é".repeat(FeatureText::LABEL + 1);
        for bad in ["", "  ", "two\nlines", &long] {
            assert!(read(bad).unwrap_err().to_string().contains("label"), "{bad:?}");
        }
        assert!(read(&long[2..]).is_ok(), "characters count, not bytes");
        let more = serde_json::json!({"label": "a", "range": "b", "about": "c", "html": "d"});
        assert!(serde_json::from_value::<FeatureText>(more).is_err());
    }
}
