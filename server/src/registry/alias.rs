//! Aliases: movable pointers such as `champion`, and the append-only history of every move.

use std::collections::BTreeMap;

use backstitch_protocol::Problem;
use backstitch_protocol::id::Name;
use backstitch_protocol::problem::Code;
use serde::Serialize;
use sqlx::Row as _;

use super::version;
use crate::failure::{Failure, Result};
use crate::store::Connection;

/// What everybody runs.
pub(crate) const CHAMPION: &str = "champion";
/// What an experiment compares with the champion.
pub(crate) const CHALLENGER: &str = "challenger";
/// The champion before this one: where a rollback goes.
pub(crate) const PREVIOUS: &str = "previous";
/// Imported later than the first version, and not yet promoted.
pub(crate) const CANDIDATE: &str = "candidate";

/// Who moves an alias, and why.
#[derive(Clone, Debug)]
pub(crate) struct Evidence<'a> {
    /// `operator`, `import`, `round 7`, `experiment x`.
    pub(crate) actor: &'a str,
    /// For people.
    pub(crate) reason: &'a str,
    /// Seconds since 1970.
    pub(crate) now: u64,
}

/// One move.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Move {
    /// 1, 2, 3 …, over all libraries.
    pub sequence: u64,
    /// The patch.
    pub patch: String,
    /// The alias.
    pub alias: String,
    /// Where it points now; `None`: nowhere.
    pub version: Option<u32>,
    /// Where it pointed before.
    pub previous: Option<u32>,
    /// Who moved it.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// Seconds since 1970.
    pub at: u64,
}

/// All aliases of a library: (patch, alias) → version.
pub(crate) async fn all(
    connection: &mut Connection,
    library: &Name,
) -> Result<BTreeMap<(Name, String), u32>> {
    let rows = sqlx::query("SELECT patch, alias, version FROM aliases WHERE library = ?")
        .bind(library.as_str())
        .fetch_all(connection)
        .await
        .while_doing("reading aliases")?;
    rows.iter()
        .map(|row| {
            Ok((
                (Name::new(row.get::<String, _>("patch"))?, row.get("alias")),
                row.get::<u32, _>("version"),
            ))
        })
        .collect()
}

/// Where an alias points.
pub(crate) async fn find(
    connection: &mut Connection,
    library: &Name,
    patch: &Name,
    alias: &str,
) -> Result<Option<u32>> {
    sqlx::query_scalar("SELECT version FROM aliases WHERE library = ? AND patch = ? AND alias = ?")
        .bind(library.as_str())
        .bind(patch.as_str())
        .bind(alias)
        .fetch_optional(connection)
        .await
        .while_doing("reading an alias")
}

/// The newest moves of a library, newest first.
pub(crate) async fn history(
    connection: &mut Connection,
    library: &Name,
    limit: u32,
) -> Result<Vec<Move>> {
    let rows =
        sqlx::query("SELECT * FROM alias_moves WHERE library = ? ORDER BY sequence DESC LIMIT ?")
            .bind(library.as_str())
            .bind(limit)
            .fetch_all(connection)
            .await
            .while_doing("reading alias moves")?;
    Ok(rows
        .iter()
        .map(|row| Move {
            sequence: row.get::<i64, _>("sequence") as u64,
            patch: row.get("patch"),
            alias: row.get("alias"),
            version: row.get("version"),
            previous: row.get("previous"),
            actor: row.get("actor"),
            reason: row.get("reason"),
            at: row.get::<i64, _>("at") as u64,
        })
        .collect())
}

/// When somebody last moved the champion of one of these patches for reasons of their own, and not a release; 0: never.
pub(crate) async fn last_decision(
    connection: &mut Connection,
    library: &Name,
    patches: &[Name],
) -> Result<u64> {
    let mut last = 0;
    for patch in patches {
        let at: Option<i64> = sqlx::query_scalar(
            "SELECT max(at) FROM alias_moves WHERE library = ? AND patch = ? AND alias = ? AND actor NOT GLOB 'round *'",
        )
        .bind(library.as_str())
        .bind(patch.as_str())
        .bind(CHAMPION)
        .fetch_one(&mut *connection)
        .await
        .while_doing("reading alias moves")?;
        last = last.max(at.unwrap_or(0) as u64);
    }
    Ok(last)
}

/// Points an alias elsewhere, or nowhere, and writes the history.
pub(crate) async fn set(
    connection: &mut Connection,
    library: &Name,
    patch: &Name,
    alias: &str,
    version: Option<u32>,
    evidence: &Evidence<'_>,
) -> Result<()> {
    let before = find(&mut *connection, library, patch, alias).await?;
    if before == version {
        return Ok(());
    }
    let change = match version {
        Some(_) => {
            "INSERT INTO aliases (library, patch, alias, version) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE SET version = excluded.version"
        }
        None => "DELETE FROM aliases WHERE library = ?1 AND patch = ?2 AND alias = ?3",
    };
    let query = sqlx::query(change).bind(library.as_str()).bind(patch.as_str()).bind(alias);
    match version {
        Some(version) => query.bind(version),
        None => query,
    }
    .execute(&mut *connection)
    .await
    .while_doing(format!("moving {alias} of {patch}"))?;
    sqlx::query("INSERT INTO alias_moves (library, patch, alias, version, previous, actor, reason, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)")
        .bind(library.as_str())
        .bind(patch.as_str())
        .bind(alias)
        .bind(version)
        .bind(before)
        .bind(evidence.actor)
        .bind(evidence.reason)
        .bind(evidence.now as i64)
        .execute(connection)
        .await
        .while_doing("writing the history of aliases")?;
    Ok(())
}

/// Makes a version the champion and the old one `previous`. With `expected`, only from that champion.
pub(crate) async fn promote(
    connection: &mut Connection,
    library: &Name,
    patch: &Name,
    to: u32,
    expected: Option<u32>,
    evidence: &Evidence<'_>,
) -> Result<()> {
    version::find(&mut *connection, library, patch, to).await?;
    let champion = find(&mut *connection, library, patch, CHAMPION).await?;
    if expected.is_some() && expected != champion {
        return Err(Problem::new(
            Code::Conflict,
            format!(
                "the champion of {patch} is version {}, not {}",
                champion.unwrap_or(0),
                expected.unwrap_or(0)
            ),
        )
        .with_hint("read the state again"));
    }
    if champion == Some(to) {
        return Ok(());
    }
    set(&mut *connection, library, patch, CHAMPION, Some(to), evidence).await?;
    set(&mut *connection, library, patch, PREVIOUS, champion, evidence).await?;
    if find(&mut *connection, library, patch, CANDIDATE).await? == Some(to) {
        set(connection, library, patch, CANDIDATE, None, evidence).await?;
    }
    Ok(())
}

/// Where a rollback of this patch goes.
pub(crate) async fn rollback_target(
    connection: &mut Connection,
    library: &Name,
    patch: &Name,
) -> Result<u32> {
    find(connection, library, patch, PREVIOUS).await?.ok_or_else(|| {
        Problem::new(
            Code::Conflict,
            format!("patch {patch} has no previous champion to go back to"),
        )
    })
}
