//! A/B experiments: arms in the signed catalog, randomised reports that count once, and honest intervals.

mod statistics;

use std::collections::BTreeMap;

use backstitch_protocol::Problem;
use backstitch_protocol::catalog::{ArmEntry, ExperimentEntry};
use backstitch_protocol::experiment::{BUCKETS, Report};
use backstitch_protocol::id::Name;
use backstitch_protocol::privacy::Epsilon;
use backstitch_protocol::problem::Code;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

pub use statistics::{ArmResult, Difference, Outcome};

use crate::failure::{Failure, Result, not_found};
use crate::privacy;
use crate::registry::alias::{self, CHALLENGER, CHAMPION, Evidence};
use crate::registry::version;
use crate::store::{Connection, Store, commit};
use crate::task::TaskId;

/// What an operator states before the start; none of it changes afterwards.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Proposal {
    /// The experiment's name; never used again in this library.
    #[schema(value_type = String)]
    pub name: Name,
    /// Experiments of one layer share a salt, so that their arms exclude each other. A stitch site's name fits.
    pub layer: String,
    /// The patch that is compared.
    #[schema(value_type = String)]
    pub patch: Name,
    /// The version of the one arm; without it, the present champion.
    #[serde(default)]
    pub champion: Option<u32>,
    /// The version of the other arm; 0 leaves the patch away.
    pub challenger: u32,
    /// The challenger's share of devices, in (0, 1).
    pub share: f64,
    /// ε of a device's randomised outcome.
    #[schema(value_type = f64)]
    pub epsilon: Epsilon,
    /// Labelled inputs after which a device reports.
    pub window: u32,
}

/// An experiment as it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Experiment {
    /// What the catalog says.
    pub entry: ExperimentEntry,
    /// Whether it takes reports.
    pub running: bool,
    /// Why it was stopped.
    pub reason: String,
    /// Frozen at the start: the mixture parameter of the confidence sequence.
    pub mixture: f64,
    /// Seconds since 1970.
    pub started_at: u64,
    /// Seconds since 1970.
    pub stopped_at: Option<u64>,
}

/// The answer to a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Reported {
    /// Always true.
    pub accepted: bool,
    /// Whether it had been counted before.
    pub duplicate: bool,
}

/// Starts an experiment; one at a time in a library. What its reports cost is debited before the first can come.
pub async fn start(store: &Store, library: &Name, proposal: &Proposal, now: u64) -> Result<()> {
    let mut writing = store.write().await?;
    let id = TaskId::new(library.clone(), proposal.name.clone());
    let arms = arms(&mut writing, library, proposal).await?;
    privacy::debit_reports(&mut writing, &id, proposal.epsilon, now).await?;
    let insert = sqlx::query("INSERT INTO experiments (library, experiment, layer, patch, salt, arms, epsilon, window, mixture, state, started_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 'running', ?)")
        .bind(library.as_str())
        .bind(proposal.name.as_str())
        .bind(&proposal.layer)
        .bind(proposal.patch.as_str())
        .bind(salt(library, &proposal.layer))
        .bind(serde_json::to_string(&arms).while_doing("writing an experiment")?)
        .bind(proposal.epsilon.value())
        .bind(proposal.window)
        .bind(statistics::mixture(proposal.share))
        .bind(now as i64)
        .execute(&mut *writing)
        .await;
    match insert {
        Ok(_) => {}
        Err(sqlx::Error::Database(cause)) if cause.is_unique_violation() => {
            return Err(Problem::new(
                Code::Conflict,
                format!(
                    "{library} already runs an experiment, or has had one named {}",
                    proposal.name
                ),
            )
            .with_hint("stop the running one, or choose another name"));
        }
        Err(cause) => return Err(cause).while_doing("writing an experiment"),
    }
    if proposal.challenger > 0 {
        let actor = format!("experiment {}", proposal.name);
        let evidence = Evidence { actor: &actor, reason: "the experiment started", now };
        alias::set(
            &mut writing,
            library,
            &proposal.patch,
            CHALLENGER,
            Some(proposal.challenger),
            &evidence,
        )
        .await?;
    }
    commit(writing).await
}

/// Ends an experiment; its reports stay.
pub async fn stop(
    store: &Store,
    library: &Name,
    name: &Name,
    reason: &str,
    now: u64,
) -> Result<()> {
    let mut writing = store.write().await?;
    let row = sqlx::query("UPDATE experiments SET state = 'stopped', reason = ?, stopped_at = ? WHERE library = ? AND experiment = ? AND state = 'running' RETURNING patch")
        .bind(reason)
        .bind(now as i64)
        .bind(library.as_str())
        .bind(name.as_str())
        .fetch_optional(&mut *writing)
        .await
        .while_doing("stopping an experiment")?;
    let row = row.ok_or_else(|| not_found(format!("running experiment {name} in {library}")))?;
    let patch = Name::new(row.get::<String, _>("patch"))?;
    let actor = format!("experiment {name}");
    alias::set(
        &mut writing,
        library,
        &patch,
        CHALLENGER,
        None,
        &Evidence { actor: &actor, reason, now },
    )
    .await?;
    commit(writing).await
}

/// Counts a device's report, once.
pub async fn report(store: &Store, id: &TaskId, report: &Report) -> Result<Reported> {
    let nullifier = report.nullifier()?;
    let mut writing = store.write().await?;
    let row = sqlx::query(
        "SELECT seed, state, arms FROM experiments WHERE library = ? AND experiment = ?",
    )
    .bind(id.library.as_str())
    .bind(id.name.as_str())
    .fetch_optional(&mut *writing)
    .await
    .while_doing("reading an experiment")?
    .ok_or_else(|| not_found(format!("experiment {id}")))?;
    let seed: i64 = row.get("seed");
    let known = sqlx::query("SELECT arm, outcome FROM reports WHERE seed = ? AND nullifier = ?")
        .bind(seed)
        .bind(nullifier.as_slice())
        .fetch_optional(&mut *writing)
        .await
        .while_doing("reading reports")?;
    if let Some(known) = known {
        let same = known.get::<String, _>("arm") == report.arm.as_str()
            && known.get::<bool, _>("outcome") == report.outcome;
        return match same {
            true => Ok(Reported { accepted: true, duplicate: true }),
            false => Err(Problem::new(
                Code::NullifierReused,
                "this device already reported something else",
            )),
        };
    }
    if row.get::<String, _>("state") != "running" {
        return Err(Problem::new(Code::RoundClosed, format!("experiment {id} has ended")));
    }
    let arms: Vec<ArmEntry> =
        serde_json::from_str(&row.get::<String, _>("arms")).while_doing("reading arms")?;
    if !arms.iter().any(|arm| arm.name == report.arm) {
        return Err(not_found(format!("arm {} in experiment {id}", report.arm)));
    }
    sqlx::query("INSERT INTO reports (seed, arm, outcome, nullifier) VALUES (?, ?, ?, ?)")
        .bind(seed)
        .bind(report.arm.as_str())
        .bind(report.outcome)
        .bind(nullifier.as_slice())
        .execute(&mut *writing)
        .await
        .while_doing("storing a report")?;
    commit(writing).await?;
    metrics::counter!("backstitch_reports_total", "experiment" => id.to_string()).increment(1);
    Ok(Reported { accepted: true, duplicate: false })
}

/// The running experiments as the catalog states them.
pub(crate) async fn entries(
    connection: &mut Connection,
    library: &Name,
) -> Result<Vec<ExperimentEntry>> {
    Ok(all(connection, library).await?.into_iter().filter(|e| e.running).map(|e| e.entry).collect())
}

/// All experiments of a library, newest first.
pub(crate) async fn all(connection: &mut Connection, library: &Name) -> Result<Vec<Experiment>> {
    let rows = sqlx::query("SELECT * FROM experiments WHERE library = ? ORDER BY seed DESC")
        .bind(library.as_str())
        .fetch_all(connection)
        .await
        .while_doing("reading experiments")?;
    rows.iter().map(read).collect()
}

/// What the reports of an experiment say so far.
pub(crate) async fn outcome(
    connection: &mut Connection,
    experiment: &Experiment,
) -> Result<Outcome> {
    let mut bits = BTreeMap::new();
    for arm in &experiment.entry.arms {
        let outcomes: Vec<bool> = sqlx::query_scalar(
            "SELECT outcome FROM reports WHERE seed = ? AND arm = ? ORDER BY sequence",
        )
        .bind(experiment.entry.seed as i64)
        .bind(arm.name.as_str())
        .fetch_all(&mut *connection)
        .await
        .while_doing("reading reports")?;
        bits.insert(arm.name.clone(), outcomes);
    }
    Ok(statistics::outcome(experiment, &bits))
}

fn read(row: &SqliteRow) -> Result<Experiment> {
    let entry = ExperimentEntry {
        name: Name::new(row.get::<String, _>("experiment"))?,
        salt: row.get("salt"),
        seed: row.get::<i64, _>("seed") as u64,
        arms: serde_json::from_str(&row.get::<String, _>("arms")).while_doing("reading arms")?,
        window: row.get("window"),
        epsilon: Epsilon::new(row.get("epsilon"))?,
    };
    Ok(Experiment {
        entry,
        running: row.get::<String, _>("state") == "running",
        reason: row.get("reason"),
        mixture: row.get("mixture"),
        started_at: row.get::<i64, _>("started_at") as u64,
        stopped_at: row.get::<Option<i64>, _>("stopped_at").map(|at| at as u64),
    })
}

/// The two arms, whose versions must exist and differ.
async fn arms(
    connection: &mut Connection,
    library: &Name,
    proposal: &Proposal,
) -> Result<[ArmEntry; 2]> {
    let invalid = |what: String| Problem::new(Code::RequestInvalid, what);
    if !(proposal.share > 0.0 && proposal.share < 1.0) {
        return Err(invalid(format!("share {} is not in (0, 1)", proposal.share)));
    }
    if proposal.window == 0 || proposal.epsilon.value() <= 0.0 || proposal.epsilon.value() > 8.0 {
        return Err(invalid("window must be at least 1 and epsilon in (0, 8]".into()));
    }
    let champion = match proposal.champion {
        Some(version) => version,
        None => {
            alias::find(&mut *connection, library, &proposal.patch, CHAMPION).await?.ok_or_else(
                || not_found(format!("champion of patch {} in {library}", proposal.patch)),
            )?
        }
    };
    if champion == proposal.challenger {
        return Err(invalid(format!("both arms run version {champion}")));
    }
    for number in [champion, proposal.challenger].into_iter().filter(|v| *v > 0) {
        version::find(&mut *connection, library, &proposal.patch, number).await?;
    }
    let weight = ((proposal.share * f64::from(BUCKETS)).round() as u32).clamp(1, BUCKETS - 1);
    let arm = |name: &str, weight: u32, number: u32| -> Result<ArmEntry> {
        Ok(ArmEntry {
            name: Name::new(name)?,
            weight,
            versions: [(proposal.patch.clone(), number)].into(),
        })
    };
    Ok([arm(CHAMPION, BUCKETS - weight, champion)?, arm(CHALLENGER, weight, proposal.challenger)?])
}

/// Public, and the same for all experiments of a layer.
fn salt(library: &Name, layer: &str) -> String {
    let digest = Sha256::digest(format!("backstitch layer v1\0{library}\0{layer}"));
    hex::encode(&digest[..16])
}
