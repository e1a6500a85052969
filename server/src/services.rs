//! What every part of a running server shares.

use std::sync::Arc;

use tokio::sync::watch;

use crate::admission::Admission;
use crate::blob::Blobs;
use crate::clock::Clock;
use crate::failure::Result;
use crate::privacy::{Ledger, NoiseSource, Witness};
use crate::registry::Catalogs;
use crate::store::Store;

/// Handles that are cheap to clone.
#[derive(Clone)]
pub struct Services {
    /// Rows.
    pub store: Store,
    /// Immutable bytes.
    pub blobs: Blobs,
    /// The time.
    pub clock: Clock,
    /// The privacy ledger.
    pub ledger: Ledger,
    /// Its note beside the database.
    pub witness: Witness,
    /// The noise thread.
    pub noise: NoiseSource,
    /// Tokens.
    pub admission: Arc<Admission>,
    /// Signed catalogs.
    pub catalogs: Arc<Catalogs>,
    /// Counts changes that the console shows.
    pub changes: watch::Sender<u64>,
}

impl Services {
    /// Notes the ledger's end outside of the database, after a debit.
    pub(crate) async fn note_debit(&self) -> Result<()> {
        self.witness.note(&self.ledger.head().await?)
    }

    /// Tells listening consoles that something changed.
    pub(crate) fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }
}
