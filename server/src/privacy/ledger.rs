//! The append-only privacy ledger: hash-chained records in one SQL table, one writer, refusing.
//!
//! | kind | when | ρ |
//! | --- | --- | --- |
//! | `reserve` | before noise is drawn; refused where the promise would not hold | the release's cost |
//! | `noise` | in the transaction that stores the noised result and erases the raw sum | 0 |
//! | `publish` | in the transaction that makes the new version | 0 |
//! | `lose` | at a restart that finds a reservation without a noised result; the debit stands | 0 |
//! | `report` | at the start of an experiment: each of its devices sends one randomised outcome | ε²/2 |

use std::collections::BTreeMap;

use backstitch_protocol::Problem;
use backstitch_protocol::catalog::LedgerHead;
use backstitch_protocol::id::Name;
use backstitch_protocol::privacy::RhoQuanta;
use backstitch_protocol::problem::Code;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::reports::ReportSpending;
use super::spending::{Debit, Promise, Spending};
use crate::failure::{Failure, Result};
use crate::store::{Connection, Store};
use crate::task::TaskId;

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The debit of a release to come.
    Reserve,
    /// The noised result is stored.
    Noise,
    /// The result is published.
    Publish,
    /// A reservation was lost in a crash.
    Lose,
    /// The debit of an experiment's reports.
    Report,
}

impl Kind {
    const ALL: [Self; 5] = [Self::Reserve, Self::Noise, Self::Publish, Self::Lose, Self::Report];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Reserve => "reserve",
            Self::Noise => "noise",
            Self::Publish => "publish",
            Self::Lose => "lose",
            Self::Report => "report",
        }
    }
}

/// How far a reservation has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Debited, no noise stored yet.
    Reserved,
    /// The noised result is stored and will be published as it is.
    Noised,
    /// Published.
    Published,
    /// Debited in vain.
    Lost,
}

/// One link of the chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Record {
    /// 1, 2, 3 …
    pub sequence: u64,
    /// Seconds since 1970; never before the last record's.
    pub at: u64,
    /// `library.task`.
    pub task: String,
    /// What happened.
    pub kind: Kind,
    /// The round that it happened to.
    pub round: u64,
    /// The debit.
    pub rho: RhoQuanta,
    /// Upper bound on what the task's worst-placed profile has spent in all, after this record.
    pub cumulative_rho: RhoQuanta,
    /// Parameters of the release, or the digest of the result, as JSON text.
    pub detail: String,
    /// Hex of the last record's hash; 64 zeros in the first.
    pub previous: String,
    /// Hex of this record's hash.
    pub hash: String,
}

impl Record {
    /// SHA-256 over a label and all fields but the hash itself, one a line. No field holds a line break.
    fn digest(&self) -> String {
        let text = format!(
            "backstitch ledger v1\n{}\n{}\n{}\n{}\n{}\n{}\n{}\n{}\n{}",
            self.sequence,
            self.at,
            self.task,
            self.kind.as_str(),
            self.round,
            self.rho.0,
            self.cumulative_rho.0,
            self.detail,
            self.previous,
        );
        hex::encode(Sha256::digest(text.as_bytes()))
    }
}

/// The end of the chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Head {
    /// The last record's number, 0 where there is none.
    pub sequence: u64,
    /// Its hash.
    pub hash: String,
    /// Its time.
    pub at: u64,
}

/// The ledger of all tasks. It lives in the store and has no state of its own that could differ from it.
#[derive(Clone)]
pub struct Ledger(Store);

impl Ledger {
    /// The ledger of this store.
    pub fn new(store: Store) -> Self {
        Self(store)
    }

    /// Recomputes the whole chain.
    pub async fn verify(&self) -> Result<Head> {
        let mut reading = self.0.read().await?;
        let mut head = Head { sequence: 0, hash: "0".repeat(64), at: 0 };
        for record in records(&mut reading, 0).await? {
            let broken = |what: &str| {
                Problem::new(Code::LedgerCorrupt, format!("ledger record {}: {what}", record.sequence))
                    .with_hint("the database was edited or damaged; restore it from a backup that is no older than the last signed catalog")
            };
            if record.sequence != head.sequence + 1
                || record.previous != head.hash
                || record.at < head.at
            {
                return Err(broken("it does not follow the one before"));
            }
            if record.digest() != record.hash {
                return Err(broken("its hash does not match its content"));
            }
            head = Head { sequence: record.sequence, hash: record.hash, at: record.at };
        }
        Ok(head)
    }

    /// Where the chain ends, unchecked.
    pub(crate) async fn head(&self) -> Result<Head> {
        head(&mut *self.0.read().await?).await
    }

    /// The hash of a record; `None` where there is no such record.
    pub(super) async fn hash_of(&self, sequence: u64) -> Result<Option<String>> {
        sqlx::query_scalar("SELECT hash FROM ledger WHERE sequence = ?")
            .bind(sequence as i64)
            .fetch_optional(&mut *self.0.read().await?)
            .await
            .while_doing("reading the ledger")
    }

    /// The newest records of a library with the state of each reservation, newest first.
    pub async fn newest(&self, library: &str, limit: u32) -> Result<Vec<(Record, State)>> {
        let mut reading = self.0.read().await?;
        let all = records(&mut reading, 0).await?;
        let states = states(&all);
        // A task and an experiment go by `library.name`.
        let own =
            |record: &Record| record.task.split_once('.').is_some_and(|(of, _)| of == library);
        let newest = all.into_iter().zip(states).rev().filter(|(record, _)| own(record));
        Ok(newest.take(limit as usize).collect())
    }

    /// What each experiment has cost each of its devices.
    pub async fn experiments(&self) -> Result<Vec<(String, RhoQuanta)>> {
        let mut reading = self.0.read().await?;
        let rows =
            sqlx::query("SELECT task, rho FROM ledger WHERE kind = 'report' ORDER BY sequence")
                .fetch_all(&mut *reading)
                .await
                .while_doing("reading the ledger")?;
        let line = |row: &SqliteRow| (row.get("task"), RhoQuanta(row.get::<i64, _>("rho") as u64));
        Ok(rows.iter().map(line).collect())
    }

    /// Where the reports of each library stand.
    pub async fn reports(&self, now: u64) -> Result<BTreeMap<Name, ReportSpending>> {
        let mut reading = self.0.read().await?;
        let mut found = BTreeMap::new();
        for library in crate::registry::libraries(&mut reading).await? {
            let spending = super::reports::report_spending(&mut reading, &library, now).await?;
            found.insert(library, spending);
        }
        Ok(found)
    }

    /// Where a task stands, and what a release of `round` would make of it.
    pub async fn spending(
        &self,
        task: &TaskId,
        promise: &Promise,
        round: u64,
        now: u64,
    ) -> Result<Spending> {
        let mut reading = self.0.read().await?;
        spending(&mut reading, task, promise, round, now).await
    }
}

/// [`Ledger::spending`] within a transaction.
pub(crate) async fn spending(
    connection: &mut Connection,
    task: &TaskId,
    promise: &Promise,
    round: u64,
    now: u64,
) -> Result<Spending> {
    let rows = sqlx::query(
        "SELECT at, round, rho FROM ledger WHERE task = ? AND kind = 'reserve' ORDER BY sequence",
    )
    .bind(task.to_string())
    .fetch_all(connection)
    .await
    .while_doing("reading the ledger")?;
    let debits: Vec<Debit> = rows
        .iter()
        .map(|row| Debit {
            at: row.get::<i64, _>("at") as u64,
            round: row.get::<i64, _>("round") as u64,
            rho: RhoQuanta(row.get::<i64, _>("rho") as u64),
        })
        .collect();
    Ok(Spending::after(&debits, promise, round, now))
}

/// The last record's number, hash and time.
pub(super) async fn head(connection: &mut Connection) -> Result<Head> {
    let row = sqlx::query("SELECT sequence, hash, at FROM ledger ORDER BY sequence DESC LIMIT 1")
        .fetch_optional(connection)
        .await
        .while_doing("reading the ledger")?;
    Ok(row.map_or_else(
        || Head { sequence: 0, hash: "0".repeat(64), at: 0 },
        |row| Head {
            sequence: row.get::<i64, _>("sequence") as u64,
            hash: row.get("hash"),
            at: row.get::<i64, _>("at") as u64,
        },
    ))
}

/// What the signed catalog says about the ledger. The spending is of this library's tasks.
pub(crate) async fn catalog_head(
    connection: &mut Connection,
    library: &Name,
) -> Result<LedgerHead> {
    let head = head(&mut *connection).await?;
    let rows = sqlx::query(
        "SELECT task, max(cumulative_rho) AS rho FROM ledger WHERE task GLOB ? GROUP BY task",
    )
    .bind(format!("{library}.*"))
    .fetch_all(connection)
    .await
    .while_doing("reading the ledger")?;
    let mut spent = BTreeMap::new();
    for row in rows {
        let task: TaskId = row.get::<String, _>("task").parse()?;
        spent.insert(task.name, RhoQuanta(row.get::<i64, _>("rho") as u64));
    }
    Ok(LedgerHead { sequence: head.sequence, head: head.hash, spent })
}

/// A record before it has its place in the chain.
pub(super) struct Entry<'a> {
    pub(super) task: &'a TaskId,
    pub(super) kind: Kind,
    pub(super) round: u64,
    pub(super) rho: RhoQuanta,
    /// `None` where it stays as it was.
    pub(super) cumulative_rho: Option<RhoQuanta>,
    pub(super) detail: serde_json::Value,
    pub(super) now: u64,
}

/// Appends; it holds once the surrounding transaction commits.
pub(super) async fn append(connection: &mut Connection, entry: Entry<'_>) -> Result<Record> {
    let head = head(&mut *connection).await?;
    let cumulative_rho = match entry.cumulative_rho {
        Some(rho) => rho,
        None => cumulative(&mut *connection, entry.task).await?,
    };
    let mut record = Record {
        sequence: head.sequence + 1,
        // A clock that went back must not shorten anybody's period.
        at: entry.now.max(head.at),
        task: entry.task.to_string(),
        kind: entry.kind,
        round: entry.round,
        rho: entry.rho,
        cumulative_rho,
        detail: entry.detail.to_string(),
        previous: head.hash,
        hash: String::new(),
    };
    record.hash = record.digest();
    sqlx::query("INSERT INTO ledger (sequence, at, task, kind, round, rho, cumulative_rho, detail, previous, hash) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
        .bind(record.sequence as i64)
        .bind(record.at as i64)
        .bind(&record.task)
        .bind(record.kind.as_str())
        .bind(record.round as i64)
        .bind(record.rho.0 as i64)
        .bind(record.cumulative_rho.0 as i64)
        .bind(&record.detail)
        .bind(&record.previous)
        .bind(&record.hash)
        .execute(connection)
        .await
        .while_doing("writing the ledger")?;
    Ok(record)
}

/// The upper bound on what the task's worst-placed profile has spent in all.
async fn cumulative(connection: &mut Connection, task: &TaskId) -> Result<RhoQuanta> {
    let rho: Option<i64> =
        sqlx::query_scalar("SELECT max(cumulative_rho) FROM ledger WHERE task = ?")
            .bind(task.to_string())
            .fetch_one(connection)
            .await
            .while_doing("reading the ledger")?;
    Ok(RhoQuanta(rho.unwrap_or(0) as u64))
}

/// The detail of the newest record of this kind for a round.
pub(super) async fn last_detail(
    connection: &mut Connection,
    task: &TaskId,
    round: u64,
    kind: Kind,
) -> Result<Option<serde_json::Value>> {
    let text: Option<String> = sqlx::query_scalar(
        "SELECT detail FROM ledger WHERE task = ? AND round = ? AND kind = ? ORDER BY sequence DESC LIMIT 1",
    )
    .bind(task.to_string())
    .bind(round as i64)
    .bind(kind.as_str())
    .fetch_optional(connection)
    .await
    .while_doing("reading the ledger")?;
    text.map(|text| serde_json::from_str(&text).while_doing("reading a ledger record")).transpose()
}

async fn records(connection: &mut Connection, after: u64) -> Result<Vec<Record>> {
    let rows = sqlx::query("SELECT * FROM ledger WHERE sequence > ? ORDER BY sequence")
        .bind(after as i64)
        .fetch_all(connection)
        .await
        .while_doing("reading the ledger")?;
    rows.iter().map(record).collect()
}

fn record(row: &SqliteRow) -> Result<Record> {
    let kind: String = row.get("kind");
    let unsigned = |column: &str| row.get::<i64, _>(column) as u64;
    Ok(Record {
        sequence: unsigned("sequence"),
        at: unsigned("at"),
        task: row.get("task"),
        kind: Kind::ALL.into_iter().find(|k| k.as_str() == kind).ok_or_else(|| {
            Problem::new(Code::LedgerCorrupt, format!("unknown ledger kind `{kind}`"))
        })?,
        round: unsigned("round"),
        rho: RhoQuanta(unsigned("rho")),
        cumulative_rho: RhoQuanta(unsigned("cumulative_rho")),
        detail: row.get("detail"),
        previous: row.get("previous"),
        hash: row.get("hash"),
    })
}

/// The present state of the release that each record belongs to. A round has one open reservation at most.
fn states(records: &[Record]) -> Vec<State> {
    let mut states = vec![State::Reserved; records.len()];
    let mut open: BTreeMap<(&str, u64), Vec<usize>> = BTreeMap::new();
    for (index, record) in records.iter().enumerate() {
        let release = open.entry((&record.task, record.round)).or_default();
        if record.kind == Kind::Reserve {
            release.clear();
        }
        release.push(index);
        let state = match record.kind {
            Kind::Reserve => State::Reserved,
            Kind::Noise => State::Noised,
            Kind::Publish => State::Published,
            Kind::Lose => State::Lost,
            // What devices randomise is published as it arrives.
            Kind::Report => State::Published,
        };
        release.iter().for_each(|i| states[*i] = state);
    }
    states
}
