//! Small state by key: in memory for a simulated device, in a folder for a real one.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use backstitch_onnx::Digest;
use backstitch_protocol::Problem;
use backstitch_protocol::problem::Code;

/// Where a node keeps its state.
pub(crate) enum Storage {
    Memory(Mutex<BTreeMap<String, Vec<u8>>>),
    Folder(PathBuf),
}

impl Storage {
    /// A folder, made if it does not exist; readable by its owner alone where the system knows owners.
    pub(crate) fn folder(path: &Path) -> Result<Self, Problem> {
        fs::create_dir_all(path).map_err(|e| failed(path, &e))?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            fs::set_permissions(path, fs::Permissions::from_mode(0o700))
                .map_err(|e| failed(path, &e))?;
        }
        Ok(Self::Folder(path.to_owned()))
    }

    pub(crate) fn load(&self, key: &str) -> Result<Option<Vec<u8>>, Problem> {
        match self {
            Self::Memory(map) => {
                Ok(map.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned())
            }
            Self::Folder(folder) => {
                let path = file_of(folder, key);
                match fs::read(&path) {
                    Ok(bytes) => Ok(Some(bytes)),
                    Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
                    Err(e) => Err(failed(&path, &e)),
                }
            }
        }
    }

    /// Durable when it returns: written beside, synchronised, then renamed.
    pub(crate) fn store(&self, key: &str, bytes: &[u8]) -> Result<(), Problem> {
        match self {
            Self::Memory(map) => {
                map.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(key.to_owned(), bytes.to_vec());
                Ok(())
            }
            Self::Folder(folder) => {
                let _alone = locked(folder)?;
                write(folder, key, bytes)
            }
        }
    }

    /// Stores what shall be if what was there is still there; no other process comes in between.
    pub(crate) fn swap(&self, key: &str, from: Option<&[u8]>, to: &[u8]) -> Result<bool, Problem> {
        match self {
            Self::Memory(map) => {
                let mut map = map.lock().unwrap_or_else(PoisonError::into_inner);
                let same = map.get(key).map(Vec::as_slice) == from;
                if same {
                    map.insert(key.to_owned(), to.to_vec());
                }
                Ok(same)
            }
            Self::Folder(folder) => {
                let _alone = locked(folder)?;
                if self.load(key)?.as_deref() != from {
                    return Ok(false);
                }
                write(folder, key, to).map(|()| true)
            }
        }
    }

    pub(crate) fn remove(&self, key: &str) -> Result<(), Problem> {
        match self {
            Self::Memory(map) => {
                map.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
                Ok(())
            }
            Self::Folder(folder) => {
                let _alone = locked(folder)?;
                let path = file_of(folder, key);
                match fs::remove_file(&path) {
                    Err(e) if e.kind() != ErrorKind::NotFound => Err(failed(&path, &e)),
                    _ => Ok(()),
                }
            }
        }
    }
}

/// The folder's lock, held until it is dropped; a process that ends lets go of it.
fn locked(folder: &Path) -> Result<File, Problem> {
    let path = folder.join("lock");
    let lock = || {
        let file = File::create(&path)?;
        file.lock()?;
        Ok(file)
    };
    lock().map_err(|e| failed(&path, &e))
}

fn write(folder: &Path, key: &str, bytes: &[u8]) -> Result<(), Problem> {
    let path = file_of(folder, key);
    let beside = path.with_extension("new");
    let write = || {
        let mut file = File::create(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, &path)?;
        File::open(folder)?.sync_all()
    };
    write().map_err(|e| {
        // Half of a file is of no use, and takes the room that there is not.
        let _absent = fs::remove_file(&beside);
        failed(&path, &e)
    })
}

/// Keys hold slashes and names from outside: the file's name is a hash.
fn file_of(folder: &Path, key: &str) -> PathBuf {
    folder.join(&Digest::of(key.as_bytes()).hex()[..40])
}

fn failed(path: &Path, error: &std::io::Error) -> Problem {
    let detail = format!("{}: {error}", path.display());
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            Problem::new(Code::StorageFull, detail)
                .with_hint("free some space on this device, or move the folder to a larger disk")
        }
        _ => Problem::new(Code::StorageFailed, detail)
            .with_hint("check that the folder exists and may be written"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `/dev/full` refuses every write as a full disk does.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_has_a_code_of_its_own() {
        let error = File::create("/dev/full").and_then(|mut full| full.write_all(b"1"));
        let problem = failed(Path::new("/dev/full"), &error.unwrap_err());
        assert!(problem.is(Code::StorageFull) && problem.hint().is_some());
    }

    #[test]
    fn both_kinds_keep_replace_and_remove() {
        let folder = tempfile::tempdir().unwrap();
        let kinds = [
            Storage::Memory(Mutex::default()),
            Storage::folder(&folder.path().join("node")).unwrap(),
        ];
        for storage in kinds {
            assert_eq!(storage.load("a/../b").unwrap(), None);
            storage.store("a/../b", b"1").unwrap();
            storage.store("a/../b", b"22").unwrap();
            assert_eq!(storage.load("a/../b").unwrap().unwrap(), b"22");
            storage.remove("a/../b").unwrap();
            storage.remove("a/../b").unwrap();
            assert_eq!(storage.load("a/../b").unwrap(), None);
        }
    }
}
