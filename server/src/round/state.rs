//! A round as it stands in the store: every change of phase is one committed row.

use std::collections::BTreeMap;

use backstitch_onnx::Digest;
use backstitch_protocol::Problem;
use backstitch_protocol::measure;
use backstitch_protocol::problem::Code;
use serde::{Deserialize, Serialize};
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use crate::failure::{Failure, Result, internal};
use crate::privacy::{self, Release};
use crate::registry::TaskDescriptor;
use crate::store::Connection;
use crate::task::TaskId;

/// Where a round stands. Each phase is left by one transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Takes contributions.
    Open,
    /// Has its goal and waits for the ledger.
    Full,
    /// Debited; the noise is being drawn.
    Reserved,
    /// The noised result is stored and the raw sum erased.
    Noised,
    /// A new version has come of it.
    Published,
}

impl Phase {
    const ALL: [Self; 5] = [Self::Open, Self::Full, Self::Reserved, Self::Noised, Self::Published];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Full => "full",
            Self::Reserved => "reserved",
            Self::Noised => "noised",
            Self::Published => "published",
        }
    }
}

/// A noised mean over the devices of a round.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Of what.
    pub kind: measure::Kind,
    /// In [−1, 1].
    pub value: f64,
    /// The standard deviation that the noise gives it; more than 1 says that the value says nothing.
    pub deviation: f64,
}

/// One round of one task.
#[derive(Clone, Debug, PartialEq)]
pub struct Round {
    /// Counted from 1.
    pub number: u64,
    /// Where it stands.
    pub phase: Phase,
    /// Identifies the weights that devices train from.
    pub base: Digest,
    /// The version of each of the task's patches that these are.
    pub base_versions: Vec<u32>,
    /// Trainable parameters.
    pub parameters: u32,
    /// The task's descriptor when the round was opened.
    pub terms: TaskDescriptor,
    /// Contributions that are in the sum.
    pub contributions: u32,
    /// Refused contributions by code.
    pub rejected: BTreeMap<String, u64>,
    /// The versions that came of it.
    pub versions: Option<Vec<u32>>,
    /// L2 norm of the noised mean update.
    pub update_norm: Option<f64>,
    /// What the release measured.
    pub measured: Vec<Measured>,
    /// Seconds since 1970.
    pub opened_at: u64,
    /// Seconds since 1970.
    pub released_at: Option<u64>,
}

impl Round {
    /// What the ledger calls its release.
    pub(crate) fn release(&self, task: &TaskId) -> Release {
        Release {
            task: task.clone(),
            round: self.number,
            goal: self.terms.goal,
            noise_band: self.terms.noise_band,
            clip_norm: self.terms.clip_norm,
            measures: self.terms.measures.clone(),
        }
    }

    /// Values of a frame of this round.
    pub fn frame_values(&self) -> u32 {
        self.terms.frame_values(self.parameters)
    }
}

/// Everything but sum and noised result, which are large.
const COLUMNS: &str = "SELECT round, phase, base, base_versions, parameters, terms, contributions, rejected, versions, update_norm, measured, opened_at, released_at FROM rounds WHERE library = ? AND task = ? ORDER BY round DESC LIMIT ?";

/// The newest rounds, newest first.
pub(crate) async fn history(
    connection: &mut Connection,
    task: &TaskId,
    limit: u32,
) -> Result<Vec<Round>> {
    let rows = sqlx::query(COLUMNS)
        .bind(task.library.as_str())
        .bind(task.name.as_str())
        .bind(limit)
        .fetch_all(connection)
        .await
        .while_doing("reading rounds")?;
    rows.iter().map(read).collect()
}

/// The newest round.
pub(crate) async fn newest(connection: &mut Connection, task: &TaskId) -> Result<Option<Round>> {
    Ok(history(connection, task, 1).await?.pop())
}

/// Why a round takes no contributions, if so: it has its goal, or the ledger would refuse its release.
pub(crate) async fn closed(
    connection: &mut Connection,
    task: &TaskId,
    round: &Round,
    now: u64,
) -> Result<Option<Problem>> {
    let promise = round.terms.promise();
    // Once it is reserved, its release is paid for; whether the next one fits is asked when that opens.
    if round.phase <= Phase::Full {
        let spending = privacy::spending(connection, task, &promise, round.number, now).await?;
        if let Err(refused) = spending.permit(task, &promise) {
            return Ok(Some(refused));
        }
    }
    if round.phase == Phase::Open {
        return Ok(None);
    }
    let full = Problem::new(
        Code::RoundClosed,
        format!(
            "round {} has its {} contributions and is being released",
            round.number, round.terms.goal
        ),
    )
    .with_hint("read the catalog again in a moment and train from the new version");
    Ok(Some(full))
}

/// Adds a new open round with an empty sum.
pub(crate) async fn insert(
    connection: &mut Connection,
    task: &TaskId,
    round: &Round,
    sum: Vec<u8>,
) -> Result<()> {
    sqlx::query("INSERT INTO rounds (library, task, round, phase, base, base_versions, parameters, terms, sum, opened_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
        .bind(task.library.as_str())
        .bind(task.name.as_str())
        .bind(round.number as i64)
        .bind(round.phase.as_str())
        .bind(round.base.to_string())
        .bind(json(&round.base_versions)?)
        .bind(round.parameters)
        .bind(json(&round.terms)?)
        .bind(sum)
        .bind(round.opened_at as i64)
        .execute(connection)
        .await
        .while_doing("opening a round")?;
    Ok(())
}

/// Moves a round's row from the phase that it must be in to what `round` says.
pub(crate) async fn update(
    connection: &mut Connection,
    task: &TaskId,
    from: Phase,
    round: &Round,
) -> Result<()> {
    let done = sqlx::query("UPDATE rounds SET phase = ?, base = ?, base_versions = ?, parameters = ?, contributions = ?, rejected = ?, versions = ?, update_norm = ?, measured = ?, released_at = ? WHERE library = ? AND task = ? AND round = ? AND phase = ?")
        .bind(round.phase.as_str())
        .bind(round.base.to_string())
        .bind(json(&round.base_versions)?)
        .bind(round.parameters)
        .bind(round.contributions)
        .bind(json(&round.rejected)?)
        .bind(round.versions.as_ref().map(json).transpose()?)
        .bind(round.update_norm)
        .bind(json(&round.measured)?)
        .bind(round.released_at.map(|at| at as i64))
        .bind(task.library.as_str())
        .bind(task.name.as_str())
        .bind(round.number as i64)
        .bind(from.as_str())
        .execute(connection)
        .await
        .while_doing("changing a round")?;
    match done.rows_affected() {
        1 => Ok(()),
        _ => Err(Problem::new(
            Code::Conflict,
            format!("round {} of {task} is no longer {}", round.number, from.as_str()),
        )),
    }
}

/// Replaces the sum, and with `noised` sets the noised result in its place.
pub(crate) async fn store_vectors(
    connection: &mut Connection,
    task: &TaskId,
    round: u64,
    sum: Option<Vec<u8>>,
    noised: Option<Vec<u8>>,
) -> Result<()> {
    sqlx::query(
        "UPDATE rounds SET sum = ?, noised = ? WHERE library = ? AND task = ? AND round = ?",
    )
    .bind(sum)
    .bind(noised)
    .bind(task.library.as_str())
    .bind(task.name.as_str())
    .bind(round as i64)
    .execute(connection)
    .await
    .while_doing("storing a sum")?;
    Ok(())
}

/// Gives an empty round the next number: the tokens drawn for the old one are for nothing, and count for nothing.
pub(crate) async fn renumber(connection: &mut Connection, task: &TaskId, round: u64) -> Result<()> {
    sqlx::query("DELETE FROM draws WHERE library = ? AND task = ? AND round = ?")
        .bind(task.library.as_str())
        .bind(task.name.as_str())
        .bind(round as i64)
        .execute(&mut *connection)
        .await
        .while_doing("forgetting draws")?;
    sqlx::query("UPDATE rounds SET round = round + 1 WHERE library = ? AND task = ? AND round = ? AND contributions = 0")
        .bind(task.library.as_str())
        .bind(task.name.as_str())
        .bind(round as i64)
        .execute(connection)
        .await
        .while_doing("counting a round on")?;
    Ok(())
}

/// Gives an empty round the newest terms.
pub(crate) async fn set_terms(
    connection: &mut Connection,
    task: &TaskId,
    round: &Round,
) -> Result<()> {
    sqlx::query("UPDATE rounds SET terms = ? WHERE library = ? AND task = ? AND round = ? AND contributions = 0")
        .bind(json(&round.terms)?)
        .bind(task.library.as_str())
        .bind(task.name.as_str())
        .bind(round.number as i64)
        .execute(connection)
        .await
        .while_doing("changing a round")?;
    Ok(())
}

/// The stored sum and noised result.
pub(crate) async fn vectors(
    connection: &mut Connection,
    task: &TaskId,
    round: u64,
) -> Result<(Option<Vec<u8>>, Option<Vec<u8>>)> {
    let row =
        sqlx::query("SELECT sum, noised FROM rounds WHERE library = ? AND task = ? AND round = ?")
            .bind(task.library.as_str())
            .bind(task.name.as_str())
            .bind(round as i64)
            .fetch_one(connection)
            .await
            .while_doing("reading a sum")?;
    Ok((row.get("sum"), row.get("noised")))
}

/// The round and digest that a nullifier was counted with.
pub(crate) async fn counted(
    connection: &mut Connection,
    task: &TaskId,
    nullifier: &[u8; 32],
) -> Result<Option<(u64, Vec<u8>)>> {
    let row = sqlx::query(
        "SELECT round, digest FROM nullifiers WHERE library = ? AND task = ? AND nullifier = ?",
    )
    .bind(task.library.as_str())
    .bind(task.name.as_str())
    .bind(nullifier.as_slice())
    .fetch_optional(connection)
    .await
    .while_doing("reading nullifiers")?;
    Ok(row.map(|row| (row.get::<i64, _>("round") as u64, row.get("digest"))))
}

/// Remembers that a nullifier was counted.
pub(crate) async fn count(
    connection: &mut Connection,
    task: &TaskId,
    nullifier: &[u8; 32],
    digest: &Digest,
    round: u64,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO nullifiers (library, task, nullifier, digest, round) VALUES (?, ?, ?, ?, ?)",
    )
    .bind(task.library.as_str())
    .bind(task.name.as_str())
    .bind(nullifier.as_slice())
    .bind(digest.as_bytes().as_slice())
    .bind(round as i64)
    .execute(connection)
    .await
    .while_doing("storing a nullifier")?;
    Ok(())
}

fn json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).while_doing("writing a round")
}

fn read(row: &SqliteRow) -> Result<Round> {
    let phase: String = row.get("phase");
    let text = |column: &str| row.get::<String, _>(column);
    let versions: Option<String> = row.get("versions");
    Ok(Round {
        number: row.get::<i64, _>("round") as u64,
        phase: Phase::ALL
            .into_iter()
            .find(|p| p.as_str() == phase)
            .ok_or_else(|| internal(format!("unknown phase `{phase}`")))?,
        base: text("base").parse::<Digest>()?,
        base_versions: serde_json::from_str(&text("base_versions"))
            .while_doing("reading a round")?,
        parameters: row.get("parameters"),
        terms: serde_json::from_str(&text("terms")).while_doing("reading a round")?,
        contributions: row.get("contributions"),
        rejected: serde_json::from_str(&text("rejected")).while_doing("reading a round")?,
        versions: versions
            .map(|v| serde_json::from_str(&v))
            .transpose()
            .while_doing("reading a round")?,
        update_norm: row.get("update_norm"),
        measured: row
            .get::<Option<String>, _>("measured")
            .map(|m| serde_json::from_str(&m))
            .transpose()
            .while_doing("reading a round")?
            .unwrap_or_default(),
        opened_at: row.get::<i64, _>("opened_at") as u64,
        released_at: row.get::<Option<i64>, _>("released_at").map(|at| at as u64),
    })
}
