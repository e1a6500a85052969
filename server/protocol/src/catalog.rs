//! The signed catalog: everything that a client trusts about a library, in one small document.

use std::collections::BTreeMap;

use backstitch_onnx::Digest;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

use crate::id::Name;
use crate::measure::Measure;
use crate::privacy::{ClipNorm, Delta, Epsilon, NoiseMultiplier, RhoQuanta};
use crate::problem::{Code, Problem};

/// Separates catalog signatures from all others by the same key.
const DOMAIN: &[u8] = b"backstitch catalog v1\0";

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
    /// The graph output that is shown.
    pub output: String,
    /// Names of the classes, in order; empty where there are none.
    pub labels: Vec<String>,
    /// How raw input becomes the tensor, such as `{"width":28,"height":28,"channels":1,"scale":0.00392}`.
    pub preprocessing: serde_json::Value,
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
    /// Identifies the weights to train from: SHA-256 over the weights digests of the patches in order.
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
    /// Seconds since 1970; a client refuses a catalog past this.
    pub expires_at: u64,
    /// The primary model.
    pub primary: PrimaryEntry,
    /// Every version that an alias or an arm needs.
    pub patches: Vec<PatchEntry>,
    /// Federated tasks.
    pub tasks: Vec<TaskEntry>,
    /// Running experiments.
    pub experiments: Vec<ExperimentEntry>,
    /// The privacy ledger.
    pub ledger: LedgerHead,
    /// Built-in samples for a first try, if the library has some.
    pub samples: Option<Blob>,
}

/// A catalog as it travels: the exact signed text, so that no canonical form is needed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedCatalog {
    /// The JSON text of a [`Catalog`].
    pub payload: String,
    /// Hex of the signer's Ed25519 public key.
    pub key: String,
    /// Hex of the signature over the domain label and the payload.
    pub signature: String,
}

impl SignedCatalog {
    /// Signs a catalog.
    pub fn sign(catalog: &Catalog, key: &SigningKey) -> Result<Self, Problem> {
        let payload = serde_json::to_string(catalog).map_err(|e| {
            Problem::new(Code::Internal, format!("catalog does not serialise: {e}"))
        })?;
        let signature = key.sign(&[DOMAIN, payload.as_bytes()].concat());
        Ok(Self {
            payload,
            key: hex::encode(key.verifying_key().to_bytes()),
            signature: hex::encode(signature.to_bytes()),
        })
    }

    /// The catalog, if the signature is good under `pinned` (hex), or under the stated key where none is pinned.
    pub fn verify(&self, pinned: Option<&str>) -> Result<Catalog, Problem> {
        let invalid = |what: &str| Problem::new(Code::SignatureInvalid, what.to_owned());
        if pinned.is_some_and(|p| p != self.key) {
            return Err(invalid("the catalog is signed by another key than the pinned one")
                .with_hint(
                    "if the operator announced a new key, clear the site's data to accept it",
                ));
        }
        let mut key = [0; 32];
        hex::decode_to_slice(&self.key, &mut key)
            .map_err(|_| invalid("the key is not 64 hex digits"))?;
        let mut signature = [0; 64];
        hex::decode_to_slice(&self.signature, &mut signature)
            .map_err(|_| invalid("the signature is not 128 hex digits"))?;
        VerifyingKey::from_bytes(&key)
            .and_then(|k| {
                k.verify_strict(
                    &[DOMAIN, self.payload.as_bytes()].concat(),
                    &Signature::from_bytes(&signature),
                )
            })
            .map_err(|_| invalid("the catalog's signature does not match"))?;
        serde_json::from_str(&self.payload).map_err(|e| {
            Problem::new(Code::CatalogInvalid, format!("the catalog cannot be read: {e}"))
        })
    }
}

/// What a client remembers of the last good catalog, so that an older one is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trust {
    /// Hex of the pinned key.
    pub key: Option<String>,
    /// The highest catalog version seen.
    pub version: u64,
    /// The highest ledger sequence seen.
    pub ledger_sequence: u64,
    /// The highest ρ seen per task.
    pub spent: BTreeMap<Name, RhoQuanta>,
}

impl Trust {
    /// Verifies a catalog against what was seen before and remembers it. `now` is seconds since 1970.
    pub fn accept(&mut self, signed: &SignedCatalog, now: u64) -> Result<Catalog, Problem> {
        let catalog = signed.verify(self.key.as_deref())?;
        if catalog.format != 1 {
            return Err(Problem::new(
                Code::CatalogInvalid,
                format!("catalog format {} is not 1", catalog.format),
            ));
        }
        if now >= catalog.expires_at {
            return Err(Problem::new(
                Code::CatalogExpired,
                format!("expired at {}, now {now}", catalog.expires_at),
            )
            .with_hint("check the clock of this device, or ask the operator"));
        }
        if catalog.version < self.version {
            return Err(Problem::new(
                Code::CatalogRollback,
                format!("catalog version {} after {}", catalog.version, self.version),
            ));
        }
        let regressed = self
            .spent
            .iter()
            .any(|(task, seen)| catalog.ledger.spent.get(task).is_some_and(|s| s < seen));
        if catalog.ledger.sequence < self.ledger_sequence || regressed {
            return Err(Problem::new(
                Code::LedgerRegression,
                format!(
                    "ledger sequence {} after {}",
                    catalog.ledger.sequence, self.ledger_sequence
                ),
            ));
        }
        self.key = Some(signed.key.clone());
        self.version = catalog.version;
        self.ledger_sequence = catalog.ledger.sequence;
        self.spent.extend(catalog.ledger.spent.clone());
        Ok(catalog)
    }
}
