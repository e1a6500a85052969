//! The draws as they stand in the store.

use backstitch_onnx::Digest;
use sqlx::Row as _;

use crate::failure::{Failure, Result};
use crate::round::state::Round;
use crate::store::Connection;
use crate::task::TaskId;

/// What a profile drew before.
pub(super) struct History {
    /// Draws that still count: those of unreleased rounds, and of rounds released within the period that ends now.
    /// The ledger's debit lies before the release, so whoever keeps to k here keeps to k debits in every period.
    pub(super) counting: u32,
    /// The newest round that was drawn for; none for a profile that is not enrolled.
    pub(super) last: Option<u64>,
}

/// The digest of the element that a profile drew with for a round.
pub(super) async fn drawn(
    connection: &mut Connection,
    task: &TaskId,
    profile: &Digest,
    round: u64,
) -> Result<Option<Digest>> {
    let bytes: Option<Vec<u8>> = sqlx::query_scalar(
        "SELECT blinded FROM draws WHERE library = ? AND task = ? AND profile = ? AND round = ?",
    )
    .bind(task.library.as_str())
    .bind(task.name.as_str())
    .bind(profile.as_bytes().as_slice())
    .bind(round as i64)
    .fetch_optional(connection)
    .await
    .while_doing("reading draws")?;
    Ok(bytes.and_then(|bytes| bytes.try_into().ok()).map(Digest::from_bytes))
}

/// What a profile drew before, under the terms of the open round.
pub(super) async fn history(
    connection: &mut Connection,
    task: &TaskId,
    profile: &Digest,
    round: &Round,
    now: u64,
) -> Result<History> {
    let row = sqlx::query(
        "SELECT count(*) FILTER (WHERE r.released_at IS NULL OR r.released_at + ? > ?) AS counting, max(d.round) AS last
         FROM draws d JOIN rounds r USING (library, task, round) WHERE d.library = ? AND d.task = ? AND d.profile = ?",
    )
    .bind(round.terms.promise().period_s() as i64)
    .bind(now as i64)
    .bind(task.library.as_str())
    .bind(task.name.as_str())
    .bind(profile.as_bytes().as_slice())
    .fetch_one(connection)
    .await
    .while_doing("reading draws")?;
    Ok(History {
        counting: row.get("counting"),
        last: row.get::<Option<i64>, _>("last").map(|round| round as u64),
    })
}

/// Remembers a draw.
pub(super) async fn draw(
    connection: &mut Connection,
    task: &TaskId,
    profile: &Digest,
    round: u64,
    blinded: &Digest,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO draws (library, task, profile, round, blinded) VALUES (?, ?, ?, ?, ?)",
    )
    .bind(task.library.as_str())
    .bind(task.name.as_str())
    .bind(profile.as_bytes().as_slice())
    .bind(round as i64)
    .bind(blinded.as_bytes().as_slice())
    .execute(connection)
    .await
    .while_doing("storing a draw")?;
    Ok(())
}

/// Deletes the draws that neither count nor separate any more; with its last one a profile is forgotten.
pub(super) async fn forget(
    connection: &mut Connection,
    task: &TaskId,
    round: &Round,
    now: u64,
) -> Result<()> {
    let oldest = round.number.saturating_sub(u64::from(round.terms.min_separation));
    sqlx::query(
        "DELETE FROM draws WHERE library = ? AND task = ? AND round IN
         (SELECT round FROM rounds WHERE library = ? AND task = ? AND round <= ? AND released_at + ? <= ?)",
    )
    .bind(task.library.as_str())
    .bind(task.name.as_str())
    .bind(task.library.as_str())
    .bind(task.name.as_str())
    .bind(oldest as i64)
    .bind(round.terms.promise().period_s() as i64)
    .bind(now as i64)
    .execute(connection)
    .await
    .while_doing("forgetting draws")?;
    Ok(())
}
