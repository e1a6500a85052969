//! `GET /admin/v1/state`: one JSON with everything that the console shows.

use std::collections::BTreeMap;

use backstitch_protocol::catalog::Blob;
use backstitch_protocol::id::Name;
use backstitch_protocol::privacy::RhoQuanta;
use serde::Serialize;

use super::App;
use crate::experiment::{self, ArmResult, Difference};
use crate::failure::Result;
use crate::privacy::{self, Kind, Record, ReportSpending, State};
use crate::registry::Issued;
use crate::registry::alias::{self, Move};
use crate::registry::version;
use crate::round::Evaluation;
use crate::round::state as rounds;
use crate::store::Connection;
use crate::task::TaskId;

/// Rounds, ledger records and alias moves that are shown.
const SHOWN: u32 = 200;

/// The whole state.
#[derive(Serialize)]
pub(crate) struct ConsoleState {
    server: ServerState,
    libraries: Vec<LibraryState>,
}

#[derive(Serialize)]
struct ServerState {
    version: &'static str,
    public_key: String,
    started_at: u64,
    uptime_s: u64,
}

/// To all tasks of a library, in the rounds that are shown.
#[derive(Default, Serialize)]
struct Contributions {
    accepted: u64,
    rejected: BTreeMap<String, u64>,
}

#[derive(Serialize)]
struct LibraryState {
    name: Name,
    title: String,
    catalog_version: u64,
    expires_at: u64,
    primary: Blob,
    patches: Vec<PatchState>,
    tasks: Vec<TaskState>,
    contributions: Contributions,
    /// Its own records of the server's one ledger.
    ledger: Vec<LedgerLine>,
    experiments: Vec<ExperimentState>,
    reports: ReportSpending,
    moves: Vec<Move>,
}

#[derive(Serialize)]
struct PatchState {
    name: Name,
    versions: Vec<VersionState>,
}

#[derive(Serialize)]
struct VersionState {
    version: u32,
    aliases: Vec<String>,
    graph: String,
    weights_digest: String,
    created_at: u64,
    source: String,
    round: Option<u64>,
    cohort: Option<u32>,
    evaluation: Option<Evaluation>,
}

#[derive(Serialize)]
struct TaskState {
    name: Name,
    patches: Vec<Name>,
    parameters: u32,
    round: u64,
    received: u32,
    goal: u32,
    open: bool,
    closed_reason: Option<String>,
    clip_norm: f64,
    noise_multiplier: f64,
    max_participations: u32,
    period_days: u32,
    epsilon: f64,
    delta: f64,
    spent_rho: f64,
    spent_epsilon: f64,
    spent_epsilon_bound: f64,
    cumulative_rho: f64,
    cumulative_epsilon: f64,
    next_release_rho: f64,
    next_release_epsilon: f64,
    refused_because: Option<String>,
    min_separation: u32,
    noise_band: u32,
    budget_rho: f64,
    budget_epsilon: f64,
    rounds: Vec<RoundState>,
}

#[derive(Serialize)]
struct RoundState {
    round: u64,
    phase: rounds::Phase,
    opened_at: u64,
    released_at: Option<u64>,
    contributions: u32,
    accepted: u32,
    rejected: BTreeMap<String, u64>,
    version: Option<u32>,
    update_norm: Option<f64>,
    measured: Vec<rounds::Measured>,
}

#[derive(Serialize)]
struct ExperimentState {
    name: Name,
    state: &'static str,
    arms: Vec<ArmResult>,
    epsilon: f64,
    window: u32,
    started_at: u64,
    stopped_at: Option<u64>,
    difference: Difference,
    decision: &'static str,
    reason: String,
}

#[derive(Serialize)]
struct LedgerLine {
    sequence: u64,
    at: u64,
    task: String,
    kind: Kind,
    round: u64,
    rho: f64,
    cumulative_rho: f64,
    state: State,
    hash: String,
}

/// Reads it, from one state of the store per library.
pub(crate) async fn read(app: &App) -> Result<ConsoleState> {
    let mut libraries = Vec::new();
    for issued in app.services.catalogs.all() {
        libraries.push(library(app, &issued).await?);
    }
    let now = app.services.clock.now();
    Ok(ConsoleState {
        server: ServerState {
            version: env!("CARGO_PKG_VERSION"),
            public_key: app.services.catalogs.root_key()?,
            started_at: app.started_at,
            uptime_s: now.saturating_sub(app.started_at),
        },
        libraries,
    })
}

impl Contributions {
    fn of(tasks: &[TaskState]) -> Self {
        let mut all = Self::default();
        for round in tasks.iter().flat_map(|task| &task.rounds) {
            all.accepted += u64::from(round.accepted);
            for (code, count) in &round.rejected {
                *all.rejected.entry(code.clone()).or_default() += count;
            }
        }
        all
    }
}

async fn library(app: &App, issued: &Issued) -> Result<LibraryState> {
    let catalog = &issued.catalog;
    let ledger = app.services.ledger.newest(catalog.library.as_str(), SHOWN).await?;
    let mut reading = app.services.store.read().await?;
    let mut tasks = Vec::new();
    for entry in &catalog.tasks {
        let id = TaskId::new(catalog.library.clone(), entry.name.clone());
        tasks.push(task(app, &mut reading, &id).await?);
    }
    let mut experiments = Vec::new();
    for experiment in experiment::all(&mut reading, &catalog.library).await? {
        let outcome = experiment::outcome(&mut reading, &experiment).await?;
        experiments.push(ExperimentState {
            name: experiment.entry.name.clone(),
            state: if experiment.running { "running" } else { "stopped" },
            arms: outcome.arms,
            epsilon: experiment.entry.epsilon.value(),
            window: experiment.entry.window,
            started_at: experiment.started_at,
            stopped_at: experiment.stopped_at,
            difference: outcome.difference,
            decision: outcome.decision,
            reason: outcome.reason,
        });
    }
    Ok(LibraryState {
        name: catalog.library.clone(),
        title: catalog.title.clone(),
        catalog_version: catalog.version,
        expires_at: catalog.expires_at,
        primary: catalog.primary.model.clone(),
        patches: patches(&mut reading, &catalog.library).await?,
        contributions: Contributions::of(&tasks),
        ledger: ledger.into_iter().map(line).collect(),
        tasks,
        experiments,
        reports: privacy::report_spending(&mut reading, &catalog.library, app.services.clock.now())
            .await?,
        moves: alias::history(&mut reading, &catalog.library, SHOWN).await?,
    })
}

async fn patches(connection: &mut Connection, library: &Name) -> Result<Vec<PatchState>> {
    let aliases = alias::all(&mut *connection, library).await?;
    let mut patches: Vec<PatchState> = Vec::new();
    for version in version::all(connection, library).await? {
        let of_this =
            aliases.iter().filter(|((p, _), v)| *p == version.patch && **v == version.version);
        let state = VersionState {
            version: version.version,
            aliases: of_this.map(|((_, alias), _)| alias.clone()).collect(),
            graph: version.graph.digest.to_string(),
            weights_digest: version.identity.to_string(),
            created_at: version.created_at,
            source: version.source,
            round: version.round,
            cohort: version.cohort,
            evaluation: version.evaluation,
        };
        match patches.last_mut() {
            Some(patch) if patch.name == version.patch => patch.versions.push(state),
            _ => patches.push(PatchState { name: version.patch, versions: vec![state] }),
        }
    }
    Ok(patches)
}

async fn task(app: &App, connection: &mut Connection, id: &TaskId) -> Result<TaskState> {
    let mut history = rounds::history(&mut *connection, id, SHOWN).await?;
    // Refusals of the open round are counted in memory until its release.
    if let Some(open) = history.first_mut().filter(|round| round.phase < rounds::Phase::Published) {
        open.rejected = app.rounds.rejected(id);
    }
    let round =
        history.first().ok_or_else(|| crate::failure::not_found(format!("round of {id}")))?;
    let terms = round.terms.clone();
    let now = app.services.clock.now();
    let closed = rounds::closed(&mut *connection, id, round, now).await?;
    let promise = terms.promise();
    let spending = privacy::spending(connection, id, &promise, round.number, now).await?;
    let shown = |rho: RhoQuanta| rho.rho();
    Ok(TaskState {
        patches: terms.patches.clone(),
        parameters: round.parameters,
        round: round.number,
        received: round.contributions,
        goal: terms.goal,
        open: closed.is_none(),
        closed_reason: closed.map(|problem| problem.detail().to_owned()),
        clip_norm: terms.clip_norm.value(),
        noise_multiplier: terms.noise_multiplier.value(),
        max_participations: terms.max_participations,
        period_days: terms.period_days,
        epsilon: terms.epsilon.value(),
        delta: terms.delta.value(),
        spent_rho: shown(spending.period),
        spent_epsilon: spending.period.epsilon(terms.delta),
        spent_epsilon_bound: spending.period.epsilon_bound(terms.delta),
        cumulative_rho: shown(spending.lifetime),
        cumulative_epsilon: spending.lifetime.epsilon(terms.delta),
        next_release_epsilon: spending.next.epsilon(terms.delta),
        refused_because: spending.permit(id, &promise).err().map(|p| p.detail().to_owned()),
        min_separation: terms.min_separation,
        noise_band: terms.noise_band,
        next_release_rho: shown(promise.cost()),
        budget_rho: shown(spending.budget),
        budget_epsilon: terms.epsilon.value(),
        rounds: history.iter().map(round_state).collect(),
        name: terms.name,
    })
}

fn round_state(round: &rounds::Round) -> RoundState {
    RoundState {
        round: round.number,
        phase: round.phase,
        opened_at: round.opened_at,
        released_at: round.released_at,
        contributions: round.contributions,
        accepted: round.contributions,
        rejected: round.rejected.clone(),
        version: round.versions.as_ref().and_then(|versions| versions.first().copied()),
        update_norm: round.update_norm,
        measured: round.measured.clone(),
    }
}

fn line((record, state): (Record, State)) -> LedgerLine {
    LedgerLine {
        sequence: record.sequence,
        at: record.at,
        task: record.task,
        kind: record.kind,
        round: record.round,
        rho: record.rho.rho(),
        cumulative_rho: record.cumulative_rho.rho(),
        state,
        hash: record.hash,
    }
}
