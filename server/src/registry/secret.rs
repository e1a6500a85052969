//! Secrets on the disk: files that only their owner reads.

use std::io::Write as _;
use std::path::Path;

use backstitch_protocol::Problem;
use backstitch_protocol::problem::Code;

use crate::failure::{Failure, Result};

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

/// Thirty-two bytes that stay the same, made at first use.
pub(crate) fn seed(path: &Path) -> Result<[u8; 32]> {
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
        Problem::new(Code::Internal, format!("{} does not hold 64 hex digits", path.display()))
            .with_hint("restore it from a backup")
    })?;
    Ok(seed)
}

/// 32 bytes from the operating system.
pub(crate) fn random_bytes() -> Result<[u8; 32]> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).while_doing("asking the system for random bytes")?;
    Ok(bytes)
}

/// Creates a folder that only its owner enters.
pub(crate) fn private_folder(path: &Path) -> Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt as _;
        builder.mode(0o700);
    }
    builder.create(path).while_doing(format!("creating {}", path.display()))
}

/// The file's text, `None` where it does not exist; refused where others can read it.
pub(crate) fn read_secret(path: &Path) -> Result<Option<String>> {
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
pub(crate) fn write_secret(path: &Path, text: &str) -> Result<()> {
    let doing = format!("writing {}", path.display());
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    // Only its owner may read a temporary file, and the name stays free for whoever comes first.
    let mut file = tempfile::NamedTempFile::new_in(folder.unwrap_or_else(|| Path::new(".")))
        .while_doing(&doing)?;
    file.write_all(text.as_bytes()).while_doing(&doing)?;
    file.as_file().sync_all().while_doing(&doing)?;
    match file.persist_noclobber(path).map_err(|failed| failed.error) {
        Err(cause) if cause.kind() == std::io::ErrorKind::AlreadyExists => Err(Problem::new(
            Code::Conflict,
            format!("{} exists, and no secret is overwritten", path.display()),
        )
        .with_hint("choose another file, or move the old one away")),
        done => done.map(|_| ()).while_doing(&doing),
    }
}

/// Puts bytes in the place of a file, all or nothing: written beside, synchronised, renamed.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let beside = path.with_extension("new");
    let write = || {
        let mut file = std::fs::File::create(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&beside, path)
    };
    write().while_doing(format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_made_once_and_must_stay_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("k");
        let secret = seed(&path).unwrap();
        assert_eq!(seed(&path).unwrap(), secret);
        assert!(write_secret(&path, "another").unwrap_err().is(Code::Conflict));
        assert_eq!(seed(&path).unwrap(), secret);
        assert_eq!(token(&folder.path().join("t")).unwrap().len(), 64);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
            assert!(seed(&path).unwrap_err().hint().unwrap().starts_with("chmod 600"));
        }
    }
}
