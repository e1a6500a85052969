//! From one pinned root key to a catalog that a client may believe: root → release key → catalog.
//!
//! The roles are those of The Update Framework, reduced to what a library needs. The root signs short-lived release
//! keys and can stay offline; the release key signs catalogs; the catalog names every file by digest and length. A
//! client keeps what it saw last, so that an older, withheld, foreign or mixed state is refused. All signatures are
//! Ed25519 in its strict form, each under a label of its own.

use std::collections::BTreeMap;

use backstitch_onnx::Digest;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::catalog::{Catalog, ExperimentEntry, TaskEntry};
use crate::id::Name;
use crate::privacy::{ReportBudget, RhoQuanta};
use crate::problem::{Code, Problem};

/// Separates the signatures of a root key from all others.
const CERTIFICATE_LABEL: &[u8] = b"backstitch release key v1\0";

/// Separates the signatures of a release key from all others.
const CATALOG_LABEL: &[u8] = b"backstitch catalog v2\0";

/// What a root says of a release key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseKey {
    /// 1.
    pub format: u32,
    /// Hex of the Ed25519 public key.
    pub key: String,
    /// Grows with every rotation; a client that saw a higher one refuses this one.
    pub serial: u64,
    /// Seconds since 1970.
    pub issued_at: u64,
    /// Seconds since 1970; a client refuses whatever the key signed from here on.
    pub expires_at: u64,
}

/// A release key under its root's signature: the exact signed text, so that no canonical form is needed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// The JSON text of a [`ReleaseKey`].
    pub payload: String,
    /// Hex of the root's Ed25519 public key.
    pub root: String,
    /// Hex of the root's signature over the label and the payload.
    pub signature: String,
}

impl Certificate {
    /// Signs a release key.
    pub fn sign(release: &ReleaseKey, root: &SigningKey) -> Result<Self, Problem> {
        let payload = text(release)?;
        let signature = signed(CERTIFICATE_LABEL, &payload, root);
        Ok(Self { payload, root: public(root), signature })
    }

    /// The release key, if the stated root signed it. Whether that root is to be believed is the caller's question.
    pub fn verify(&self) -> Result<ReleaseKey, Problem> {
        check(CERTIFICATE_LABEL, &self.payload, &self.root, &self.signature, "release key")?;
        let release: ReleaseKey = parsed(&self.payload, "release key")?;
        match release.format {
            1 => Ok(release),
            other => Err(invalid(&format!("release key format {other} is not 1"))),
        }
    }
}

/// A catalog as it travels: the exact signed text, and the certificate of the key that signed it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedCatalog {
    /// The JSON text of a [`Catalog`].
    pub payload: String,
    /// Why the signer may be believed.
    pub certificate: Certificate,
    /// Hex of the release key's signature over the label and the payload.
    pub signature: String,
}

impl SignedCatalog {
    /// Signs a catalog by the release key of this certificate.
    pub fn sign(
        catalog: &Catalog,
        release: &SigningKey,
        certificate: Certificate,
    ) -> Result<Self, Problem> {
        let payload = text(catalog)?;
        let signature = signed(CATALOG_LABEL, &payload, release);
        Ok(Self { payload, certificate, signature })
    }
}

/// What a client remembers of the last good catalog.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trust {
    /// Hex of the pinned root key; the first one that is seen where nobody pinned one.
    pub root: Option<String>,
    /// The release key of the highest serial seen.
    pub release: Option<ReleaseKey>,
    /// The highest catalog version seen, and the digest of its text.
    pub version: u64,
    digest: Option<Digest>,
    /// The end of the longest ledger seen.
    pub ledger_sequence: u64,
    ledger_head: String,
    /// The highest ρ seen per task.
    pub spent: BTreeMap<Name, RhoQuanta>,
}

impl Trust {
    /// Believes nothing yet but that this root (hex) signs.
    pub fn pinned(root: &str) -> Self {
        Self { root: Some(root.to_ascii_lowercase()), ..Self::default() }
    }

    /// The catalog, if the pinned root stands behind it, it is no older than what was seen, and its own numbers keep
    /// the promise. Then it is remembered; a refused one changes nothing. `now` is seconds since 1970.
    pub fn accept(&mut self, signed: &SignedCatalog, now: u64) -> Result<Catalog, Problem> {
        let release = self.believe(&signed.certificate, now)?;
        check(CATALOG_LABEL, &signed.payload, &release.key, &signed.signature, "catalog")?;
        let catalog: Catalog = parsed(&signed.payload, "catalog")?;
        let digest = Digest::of(signed.payload.as_bytes());
        self.fresh(&catalog, &digest, now)?;
        self.continues(&catalog)?;
        catalog.tasks.iter().try_for_each(keeps_its_promise)?;
        reports_fit(&catalog)?;
        self.root = Some(signed.certificate.root.clone());
        self.release = Some(release);
        (self.version, self.digest) = (catalog.version, Some(digest));
        self.ledger_sequence = catalog.ledger.sequence;
        self.ledger_head.clone_from(&catalog.ledger.head);
        self.spent.clone_from(&catalog.ledger.spent);
        Ok(catalog)
    }

    /// The release key, if the pinned root vouches for it, it is in force, and no later one was seen.
    fn believe(&self, certificate: &Certificate, now: u64) -> Result<ReleaseKey, Problem> {
        if self.root.as_ref().is_some_and(|root| *root != certificate.root) {
            return Err(invalid("the catalog comes from another root key than the pinned one")
                .with_hint(
                    "if the operator announced a new root, clear the site's data to accept it",
                ));
        }
        let release = certificate.verify()?;
        if now >= release.expires_at {
            return Err(expired(
                &format!("release key {}", release.serial),
                release.expires_at,
                now,
            ));
        }
        let superseded = self.release.as_ref().is_some_and(|seen| {
            release.serial < seen.serial
                || (release.serial == seen.serial && release.key != seen.key)
        });
        if superseded {
            let seen = self.release.as_ref().map_or(0, |seen| seen.serial);
            let detail = format!("release key {} after {seen}", release.serial);
            return Err(Problem::new(Code::CatalogRollback, detail)
                .with_hint("the key was replaced; whoever still signs by it is not the operator"));
        }
        Ok(release)
    }

    /// Refuses a rollback, a freeze, and two catalogs of one number.
    fn fresh(&self, catalog: &Catalog, digest: &Digest, now: u64) -> Result<(), Problem> {
        if catalog.format != 1 {
            let detail = format!("catalog format {} is not 1", catalog.format);
            return Err(Problem::new(Code::CatalogInvalid, detail));
        }
        if now >= catalog.expires_at {
            return Err(expired("the catalog", catalog.expires_at, now));
        }
        if catalog.version < self.version {
            let detail = format!("catalog version {} after {}", catalog.version, self.version);
            return Err(Problem::new(Code::CatalogRollback, detail));
        }
        if catalog.version == self.version && self.digest.is_some_and(|seen| seen != *digest) {
            let detail = format!("version {} was another catalog before", catalog.version);
            return Err(Problem::new(Code::CatalogRollback, detail)
                .with_hint("somebody mixes the parts of several states, or runs two servers"));
        }
        Ok(())
    }

    /// Refuses a ledger that lost records, forgot a task, or spent less than it had.
    fn continues(&self, catalog: &Catalog) -> Result<(), Problem> {
        let ledger = &catalog.ledger;
        let regressed = |what: String| {
            Err(Problem::new(Code::LedgerRegression, what).with_hint(
                "the server was restored from a backup: what was spent since then is forgotten",
            ))
        };
        if ledger.sequence < self.ledger_sequence {
            return regressed(format!(
                "{} records after {}",
                ledger.sequence, self.ledger_sequence
            ));
        }
        if ledger.sequence == self.ledger_sequence
            && self.version > 0
            && ledger.head != self.ledger_head
        {
            return regressed(format!("record {} is another one than before", ledger.sequence));
        }
        for (task, seen) in &self.spent {
            let now = ledger.spent.get(task).copied().unwrap_or_default();
            if now < *seen {
                return regressed(format!(
                    "{task} had spent ρ = {:.4} and is at {:.4}",
                    seen.rho(),
                    now.rho()
                ));
            }
        }
        Ok(())
    }
}

/// A task must not take contributions when its promise is broken, or when its own terms would break it.
fn keeps_its_promise(task: &TaskEntry) -> Result<(), Problem> {
    let worst = task.cost().times(u64::from(task.max_participations)).max(task.period_spent);
    if !task.open || worst <= task.budget() {
        return Ok(());
    }
    Err(Problem::new(
        Code::LedgerOverspent,
        format!(
            "task {} takes contributions at ρ = {:.4} in a period; its promise is ρ = {:.4}",
            task.name,
            worst.rho(),
            task.budget().rho()
        ),
    ))
}

/// The experiments that run must fit into the library's promise for reports.
fn reports_fit(catalog: &Catalog) -> Result<(), Problem> {
    let spent = ReportBudget::spent(catalog.experiments.iter().map(ExperimentEntry::cost));
    if catalog.reports.permits(spent) {
        return Ok(());
    }
    Err(Problem::new(
        Code::LedgerOverspent,
        format!(
            "experiments ask each device for reports of ε = {spent:.2} in all; the promise is ε = {}",
            catalog.reports.epsilon.value()
        ),
    ))
}

fn public(key: &SigningKey) -> String {
    hex::encode(key.verifying_key().to_bytes())
}

fn signed(label: &[u8], payload: &str, key: &SigningKey) -> String {
    hex::encode(key.sign(&[label, payload.as_bytes()].concat()).to_bytes())
}

fn check(
    label: &[u8],
    payload: &str,
    key: &str,
    signature: &str,
    what: &str,
) -> Result<(), Problem> {
    let mut key_bytes = [0; 32];
    hex::decode_to_slice(key, &mut key_bytes)
        .map_err(|_| invalid(&format!("the key behind the {what} is not 64 hex digits")))?;
    let mut signature_bytes = [0; 64];
    hex::decode_to_slice(signature, &mut signature_bytes)
        .map_err(|_| invalid(&format!("the {what}'s signature is not 128 hex digits")))?;
    VerifyingKey::from_bytes(&key_bytes)
        .and_then(|key| {
            let message = [label, payload.as_bytes()].concat();
            key.verify_strict(&message, &Signature::from_bytes(&signature_bytes))
        })
        .map_err(|_| invalid(&format!("the {what}'s signature does not match")))
}

fn text(value: &impl Serialize) -> Result<String, Problem> {
    serde_json::to_string(value).map_err(|e| Problem::new(Code::Internal, format!("signing: {e}")))
}

fn parsed<T: DeserializeOwned>(text: &str, what: &str) -> Result<T, Problem> {
    serde_json::from_str(text)
        .map_err(|e| Problem::new(Code::CatalogInvalid, format!("the {what} cannot be read: {e}")))
}

fn invalid(what: &str) -> Problem {
    Problem::new(Code::SignatureInvalid, what)
}

fn expired(what: &str, at: u64, now: u64) -> Problem {
    Problem::new(Code::CatalogExpired, format!("{what} expired at {at}, now {now}"))
        .with_hint("check the clock of this device, or ask the operator")
}

#[cfg(test)]
mod tests;
