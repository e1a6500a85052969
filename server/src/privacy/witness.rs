//! A note of the ledger's end beside the database, written after each debit and before its noise is drawn.
//!
//! The chain cannot tell an older copy of the database from the newest one. An older copy forgets debits, and holds raw
//! sums that may have been released since; to release them again is a second release for one debit. So a server does not
//! start on a ledger that lacks what was noted. Whoever puts back database and note together is refused by the clients
//! instead, which remember the ledger of the signed catalog.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use backstitch_protocol::Problem;
use backstitch_protocol::problem::Code;
use serde::{Deserialize, Serialize};

use super::ledger::{Head, Ledger};
use crate::failure::{Failure, Result, internal};

/// The file in the data folder.
const FILE: &str = "ledger.head";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Note {
    sequence: u64,
    hash: String,
}

/// Where the ledger's end is noted.
#[derive(Clone, Debug)]
pub struct Witness {
    folder: PathBuf,
    /// The number of the last noted record. One writes at a time.
    noted: Arc<Mutex<u64>>,
}

impl Witness {
    /// The note of this data folder.
    pub(crate) fn in_folder(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), noted: Arc::default() }
    }

    /// Refuses a ledger that does not hold what was noted; notes its end otherwise.
    pub(crate) async fn check(&self, ledger: &Ledger) -> Result<()> {
        self.note(&self.compare(ledger).await?)
    }

    /// The ledger's end, if it holds what was noted.
    pub(crate) async fn compare(&self, ledger: &Ledger) -> Result<Head> {
        let head = ledger.head().await?;
        let path = self.folder.join(FILE);
        let noted = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|_| {
                Problem::new(Code::LedgerCorrupt, format!("{} cannot be read", path.display()))
                    .with_hint("restore it together with the newest backup of the database")
            })?,
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {
                Note { sequence: 0, hash: String::new() }
            }
            Err(cause) => return Err(cause).when_reading(path.display()),
        };
        if noted.sequence > 0 && ledger.hash_of(noted.sequence).await?.as_ref() != Some(&noted.hash)
        {
            return Err(Problem::new(
                Code::LedgerRegression,
                format!(
                    "the ledger ends with record {}, but record {} was debited in this folder: the database is an older copy, or another one",
                    head.sequence, noted.sequence
                ),
            )
            .with_hint("its open sums may have been released since; restore the newest copy, or start a new library under a new name in an empty folder"));
        }
        Ok(head)
    }

    /// Notes where the ledger ends; on the disk when this returns.
    pub(crate) fn note(&self, head: &Head) -> Result<()> {
        let mut noted = self.noted.lock().map_err(|_| internal("the ledger's note is poisoned"))?;
        if head.sequence > *noted {
            let note = Note { sequence: head.sequence, hash: head.hash.clone() };
            let text = serde_json::to_vec(&note).while_doing("noting the ledger's end")?;
            let path = self.folder.join(FILE);
            replace(&path, &text).while_doing(format!("writing {}", path.display()))?;
            *noted = head.sequence;
        }
        Ok(())
    }
}

/// Whole or not at all, whenever the power fails.
fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let new = path.with_extension("new");
    let mut file = std::fs::File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    #[cfg(unix)]
    if let Some(folder) = path.parent() {
        std::fs::File::open(folder)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::round::Rounds;
    use crate::tests::{Hands, config, frame};

    /// A server with these files, which releases one round if it is given devices.
    async fn serve(folder: &Path, devices: u64) -> Result<()> {
        let config = config(folder, 2);
        std::fs::create_dir_all(&config.data).unwrap();
        let services = crate::server::services(&config, Hands::default().clock()).await?;
        let source = crate::registry::Source::parse(&config.libraries[0])?;
        let now = services.clock.now();
        crate::registry::import(&services.store, &services.blobs, &source, now).await?;
        let mut runners = Default::default();
        let rounds = Rounds::start(&services, &mut runners).await?;
        services.catalogs.issue_all().await?;
        let catalog = services.catalogs.all().remove(0);
        let task = &catalog.catalog.tasks[0];
        for device in 0..devices {
            let frame = frame(task.base, device, task.round, &[0.1; 8]);
            rounds.contribute(&"toy.style".parse()?, &frame, None).await?;
        }
        drop(rounds);
        while runners.join_next().await.is_some() {}
        services.store.close().await;
        Ok(())
    }

    #[tokio::test]
    async fn an_older_copy_of_the_database_is_not_released_again() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join("data").join(name);
        serve(folder.path(), 1).await.unwrap();
        std::fs::copy(file("backstitch.db"), file("copy.db")).unwrap();
        serve(folder.path(), 2).await.unwrap();
        std::fs::copy(file("backstitch.db"), file("newest.db")).unwrap();
        // The older copy has one contribution in its raw sum, and no debit.
        std::fs::copy(file("copy.db"), file("backstitch.db")).unwrap();
        let refused = serve(folder.path(), 0).await.unwrap_err();
        assert!(refused.is(Code::LedgerRegression), "{refused}");
        assert!(refused.detail().contains("ends with record 0"), "{refused}");
        // The newest one goes on, and so does a folder of before there was a note.
        std::fs::copy(file("newest.db"), file("backstitch.db")).unwrap();
        serve(folder.path(), 0).await.unwrap();
        std::fs::remove_file(file(FILE)).unwrap();
        serve(folder.path(), 0).await.unwrap();
        std::fs::write(file(FILE), b"{").unwrap();
        assert!(serve(folder.path(), 0).await.unwrap_err().is(Code::LedgerCorrupt));
    }
}
