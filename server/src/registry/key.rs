//! The catalog's signing key: made at first start, kept in one file that only its owner reads.

use std::io::Write as _;
use std::path::Path;

use backstitch_protocol::Problem;
use backstitch_protocol::problem::Code;
use ed25519_dalek::SigningKey;

use crate::failure::{Failure, Result};

/// Reads the key, or makes one where there is none.
pub fn signing_key(path: &Path) -> Result<SigningKey> {
    let text = match read_secret(path)? {
        Some(text) => text,
        None => {
            let text = hex::encode(random_bytes()?);
            write_secret(path, &text)?;
            text
        }
    };
    let mut seed = [0; 32];
    hex::decode_to_slice(text.trim(), &mut seed).map_err(|_| {
        Problem::new(
            Code::Internal,
            format!("{} does not hold a key of 64 hex digits", path.display()),
        )
        .with_hint("restore it from a backup; clients that have pinned it refuse any other")
    })?;
    Ok(SigningKey::from_bytes(&seed))
}

/// The operators' token, made at first start.
pub(crate) fn token(path: &Path) -> Result<String> {
    match read_secret(path)? {
        Some(text) if text.trim().len() >= 16 => Ok(text.trim().to_owned()),
        Some(_) => Err(Problem::new(
            Code::RequestInvalid,
            format!("the token in {} is shorter than 16 characters", path.display()),
        )
        .with_hint("delete the file to have a new one made")),
        None => {
            let text = hex::encode(random_bytes()?);
            write_secret(path, &text)?;
            Ok(text)
        }
    }
}

/// 32 bytes from the operating system.
pub(crate) fn random_bytes() -> Result<[u8; 32]> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).while_doing("asking the system for random bytes")?;
    Ok(bytes)
}

/// The file's text, `None` where it does not exist; refused where others can read it.
fn read_secret(path: &Path) -> Result<Option<String>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(cause).while_doing(format!("reading {}", path.display())),
    };
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(path)
            .while_doing(format!("reading {}", path.display()))?
            .permissions()
            .mode();
        if mode & 0o077 != 0 {
            return Err(Problem::new(
                Code::RequestInvalid,
                format!(
                    "{} has mode {:o}: others can read the secret",
                    path.display(),
                    mode & 0o777
                ),
            )
            .with_hint(format!("chmod 600 {}", path.display())));
        }
    }
    Ok(Some(text))
}

/// Writes the whole file or none: a process that dies here leaves nothing that the next start would take for a secret.
fn write_secret(path: &Path, text: &str) -> Result<()> {
    let doing = format!("writing {}", path.display());
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    // Only its owner may read a temporary file, and the name stays free for whoever comes first.
    let mut file = tempfile::NamedTempFile::new_in(folder.unwrap_or_else(|| Path::new(".")))
        .while_doing(&doing)?;
    file.write_all(text.as_bytes()).while_doing(&doing)?;
    file.as_file().sync_all().while_doing(&doing)?;
    file.persist_noclobber(path).map_err(|failed| failed.error).while_doing(&doing)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_must_stay_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("k");
        let key = signing_key(&path).unwrap();
        assert_eq!(signing_key(&path).unwrap().to_bytes(), key.to_bytes());
        assert_eq!(token(&folder.path().join("t")).unwrap().len(), 64);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
            assert!(signing_key(&path).unwrap_err().hint().unwrap().starts_with("chmod 600"));
        }
    }
}
