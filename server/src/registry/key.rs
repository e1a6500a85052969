//! The keys that sign catalogs: a root that vouches for release keys, and the release keys, each in a file of its own.
//!
//! `root.key` may be taken away and kept offline: all that the server needs is the newest `release-N.key` with its
//! `release-N.json`, the certificate. Where the root is at hand, a release key is replaced by itself before it expires.

use std::path::{Path, PathBuf};

use backstitch_protocol::Problem;
use backstitch_protocol::catalog::Catalog;
use backstitch_protocol::problem::Code;
use backstitch_protocol::trust::{Certificate, ReleaseKey, SignedCatalog};
use ed25519_dalek::SigningKey;

use super::secret::{private_folder, random_bytes, read_secret, replace, write_secret};
use crate::failure::{Failure, Result, not_found};

/// How long a release key is vouched for unless said otherwise.
pub const RELEASE_DAYS: u32 = 90;

/// A root at hand replaces a release key that has fewer seconds left.
const RENEWED_BEFORE_S: u64 = 30 * DAY_S;

const DAY_S: u64 = 86_400;

/// Days that a root vouches for a release key at most.
const MOST_DAYS: u32 = 366;

/// The folder of the keys.
#[derive(Clone, Debug)]
pub struct Keys(PathBuf);

/// What signs catalogs now.
pub struct Signer {
    key: SigningKey,
    certificate: Certificate,
    release: ReleaseKey,
}

impl Signer {
    /// Signs a catalog.
    pub fn sign(&self, catalog: &Catalog) -> Result<SignedCatalog> {
        SignedCatalog::sign(catalog, &self.key, self.certificate.clone())
    }

    /// Hex of the root's public key: what clients pin.
    pub fn root(&self) -> &str {
        &self.certificate.root
    }

    /// The release key, as the root vouches for it.
    pub fn release(&self) -> &ReleaseKey {
        &self.release
    }
}

impl Keys {
    /// The keys in this folder.
    pub fn in_folder(folder: impl Into<PathBuf>) -> Self {
        Self(folder.into())
    }

    /// What signs now. Makes a root and a release key where there is nothing at all, and the next release key where
    /// the newest one is about to expire and the root is at hand.
    pub fn signer(&self, now: u64) -> Result<Signer> {
        if self.serials("json")?.is_empty() && self.serials("key")?.is_empty() {
            private_folder(&self.0)?;
            if self.root()?.is_none() {
                create_root(&self.root_path())?;
            }
        }
        let newest = self.newest()?;
        let ends = newest.as_ref().map_or(0, |signer| signer.release.expires_at);
        match (newest, self.root()?) {
            (Some(signer), _) if ends > now + RENEWED_BEFORE_S => Ok(signer),
            (_, Some(root)) => self.rotate(&root, RELEASE_DAYS, now),
            (Some(signer), None) if ends > now => Ok(signer),
            (newest, None) => {
                let detail = match newest {
                    Some(signer) => format!("release key {} has expired", signer.release.serial),
                    None => format!("{} has no release key with a certificate", self.0.display()),
                };
                Err(Problem::new(Code::CatalogExpired, detail).with_hint(
                    "run `backstitch keys prepare`, have the root sign, then `keys install`",
                ))
            }
        }
    }

    /// The newest release key that has a certificate.
    pub fn newest(&self) -> Result<Option<Signer>> {
        let Some(serial) = self.serials("json")?.into_iter().max() else { return Ok(None) };
        let path = self.path(serial, "json");
        let text = std::fs::read(&path).while_doing(format!("reading {}", path.display()))?;
        let certificate: Certificate =
            serde_json::from_slice(&text).when_reading(path.display())?;
        let release = certificate.verify()?;
        let key = self.release_key(serial)?;
        match release.serial == serial && release.key == public(&key) {
            true => Ok(Some(Signer { key, certificate, release })),
            false => Err(mismatch(&path)),
        }
    }

    /// The root, where it is in the folder.
    pub fn root(&self) -> Result<Option<SigningKey>> {
        let path = self.root_path();
        match path.exists() {
            true => read_root(&path).map(Some),
            false => Ok(None),
        }
    }

    /// Makes the next release key, or finds the one that waits for its certificate: its serial and public key.
    pub fn prepare(&self) -> Result<(u64, String)> {
        private_folder(&self.0)?;
        let certified = self.serials("json")?.into_iter().max().unwrap_or(0);
        let serial = certified + 1;
        let path = self.path(serial, "key");
        if !path.exists() {
            write_secret(&path, &hex::encode(random_bytes()?))?;
        }
        Ok((serial, public(&self.release_key(serial)?)))
    }

    /// Puts the certificate of the prepared release key into force and destroys the keys before it.
    pub fn install(&self, certificate: &Certificate, now: u64) -> Result<ReleaseKey> {
        let release = certificate.verify()?;
        let known = self.newest()?.map(|signer| signer.certificate.root);
        let own_root = self.root()?.map(|root| public(&root));
        if known.or(own_root).is_some_and(|root| root != certificate.root) {
            return Err(Problem::new(
                Code::SignatureInvalid,
                "the certificate is signed by another root than the one that clients have pinned",
            ));
        }
        let (serial, key) = self.prepare()?;
        if release.serial != serial || release.key != key {
            return Err(Problem::new(
                Code::SignatureInvalid,
                format!(
                    "the certificate is that of release key {}, the one that waits for one is {serial}, or another key",
                    release.serial
                ),
            )
            .with_hint("`backstitch keys prepare` prints what the root must sign"));
        }
        if now >= release.expires_at {
            return Err(Problem::new(Code::CatalogExpired, "the certificate has expired"));
        }
        let text = serde_json::to_vec(certificate).while_doing("writing a certificate")?;
        replace(&self.path(serial, "json"), &text)?;
        for old in self.serials("key")?.into_iter().filter(|old| *old < serial) {
            let path = self.path(old, "key");
            std::fs::remove_file(&path).while_doing(format!("removing {}", path.display()))?;
        }
        Ok(release)
    }

    /// Replaces the release key by a new one that this root vouches for.
    pub fn rotate(&self, root: &SigningKey, days: u32, now: u64) -> Result<Signer> {
        let (serial, key) = self.prepare()?;
        self.install(&certify(root, key, serial, days, now)?, now)?;
        self.newest()?.ok_or_else(|| not_found("release key"))
    }

    fn release_key(&self, serial: u64) -> Result<SigningKey> {
        let path = self.path(serial, "key");
        match read_secret(&path)? {
            Some(text) => seeded(&path, &text),
            None => Err(not_found(format!("release key in {}", path.display()))),
        }
    }

    fn root_path(&self) -> PathBuf {
        self.0.join("root.key")
    }

    fn path(&self, serial: u64, kind: &str) -> PathBuf {
        self.0.join(format!("release-{serial}.{kind}"))
    }

    /// The serials that have a file of this kind.
    fn serials(&self, kind: &str) -> Result<Vec<u64>> {
        let entries = match std::fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(e).while_doing(format!("reading {}", self.0.display())),
        };
        let serial = |name: &str| {
            name.strip_prefix("release-")?.strip_suffix(kind)?.strip_suffix('.')?.parse().ok()
        };
        Ok(entries.flatten().filter_map(|e| serial(&e.file_name().to_string_lossy())).collect())
    }
}

/// Makes a root key where there is no file yet, and returns it.
pub fn create_root(path: &Path) -> Result<SigningKey> {
    write_secret(path, &hex::encode(random_bytes()?))?;
    read_root(path)
}

/// Reads a root key.
pub fn read_root(path: &Path) -> Result<SigningKey> {
    let text =
        read_secret(path)?.ok_or_else(|| not_found(format!("root key in {}", path.display())))?;
    seeded(path, &text)
}

/// The root's word for a release key.
pub fn certify(
    root: &SigningKey,
    key: String,
    serial: u64,
    days: u32,
    now: u64,
) -> Result<Certificate> {
    let mut bytes = [0; 32];
    let readable = hex::decode_to_slice(&key, &mut bytes).is_ok();
    if !readable || ed25519_dalek::VerifyingKey::from_bytes(&bytes).is_err() || serial == 0 {
        return Err(Problem::new(
            Code::RequestInvalid,
            format!("`{}` with serial {serial} is no release key", key.escape_debug()),
        )
        .with_hint("`backstitch keys prepare` prints both"));
    }
    if !(1..=MOST_DAYS).contains(&days) {
        return Err(Problem::new(
            Code::RequestInvalid,
            format!("a release key for {days} days; it must be 1 to {MOST_DAYS}"),
        )
        .with_hint("a stolen key signs until it expires: 90 days is usual"));
    }
    let expires_at = now + u64::from(days) * DAY_S;
    Certificate::sign(&ReleaseKey { format: 1, key, serial, issued_at: now, expires_at }, root)
}

/// Hex of the public half.
pub fn public(key: &SigningKey) -> String {
    hex::encode(key.verifying_key().to_bytes())
}

fn seeded(path: &Path, text: &str) -> Result<SigningKey> {
    let mut seed = [0; 32];
    hex::decode_to_slice(text.trim(), &mut seed).map_err(|_| {
        Problem::new(
            Code::Internal,
            format!("{} does not hold a key of 64 hex digits", path.display()),
        )
        .with_hint("restore it from a backup")
    })?;
    Ok(SigningKey::from_bytes(&seed))
}

fn mismatch(path: &Path) -> Problem {
    Problem::new(
        Code::SignatureInvalid,
        format!("{} and its certificate do not belong together", path.display()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    #[test]
    fn a_server_without_keys_makes_them_and_renews_in_time() {
        let folder = tempfile::tempdir().unwrap();
        let keys = Keys::in_folder(folder.path().join("keys"));
        let first = keys.signer(NOW).unwrap();
        assert_eq!((first.release().serial, first.root().len()), (1, 64));
        assert_eq!(keys.signer(NOW + 59 * DAY_S).unwrap().release(), first.release());
        let second = keys.signer(NOW + 61 * DAY_S).unwrap();
        assert_eq!((second.release().serial, second.root()), (2, first.root()));
        assert!(keys.release_key(1).unwrap_err().is(Code::NotFound), "the old key is destroyed");
    }

    #[test]
    fn the_root_may_be_kept_offline() {
        let folder = tempfile::tempdir().unwrap();
        let keys = Keys::in_folder(folder.path().join("keys"));
        let root = create_root(&folder.path().join("offline.key")).unwrap();
        let (serial, key) = keys.prepare().unwrap();
        assert_eq!(keys.prepare().unwrap(), (serial, key.clone()), "preparing twice is one key");
        assert!(keys.signer(NOW).err().unwrap().hint().unwrap().contains("prepare"));
        let certificate = certify(&root, key, serial, 90, NOW).unwrap();
        keys.install(&certificate, NOW).unwrap();
        assert_eq!(keys.signer(NOW + 89 * DAY_S).unwrap().root(), public(&root));
        assert!(keys.signer(NOW + 90 * DAY_S).err().unwrap().is(Code::CatalogExpired));
        // Another root would be refused by every client, so it is refused here first.
        let (serial, key) = keys.prepare().unwrap();
        let stranger = create_root(&folder.path().join("stranger.key")).unwrap();
        let foreign = certify(&stranger, key.clone(), serial, 90, NOW).unwrap();
        assert!(keys.install(&foreign, NOW).unwrap_err().is(Code::SignatureInvalid));
        let skipped = certify(&root, key, serial + 1, 90, NOW).unwrap();
        assert!(keys.install(&skipped, NOW).unwrap_err().hint().unwrap().contains("prepare"));
        assert_eq!(keys.newest().unwrap().unwrap().release().serial, 1);
        // What was replaced once does not come back, and no key is for ever.
        let again = keys.install(&certificate, NOW).unwrap_err();
        assert!(again.detail().contains("that of release key 1"), "{again}");
        for days in [0, MOST_DAYS + 1] {
            let refused = certify(&root, certificate.verify().unwrap().key, 2, days, NOW);
            assert!(refused.unwrap_err().is(Code::RequestInvalid));
        }
    }
}
