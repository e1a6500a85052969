//! What the reports of experiments cost each device: one randomised outcome per experiment, ε-DP by itself, on the same
//! chain as the releases and held to a promise of the library's own.
//!
//! Arms have different devices, so an experiment costs a device what one report costs. A device may report to every
//! experiment that ran at any time within a period, so those are what a new one must fit beside.

use backstitch_protocol::Problem;
use backstitch_protocol::id::Name;
use backstitch_protocol::privacy::{Epsilon, ReportBudget, RhoQuanta};
use backstitch_protocol::problem::Code;
use serde::Serialize;
use sqlx::Row as _;

use super::ledger::{self, Entry, Kind};
use crate::failure::{Failure as _, Result};
use crate::registry::LibraryDescriptor;
use crate::store::Connection;
use crate::task::TaskId;

/// Where a library's reports stand.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ReportSpending {
    /// ε of a device that reported to every experiment of the period that ends now.
    pub spent_epsilon: f64,
    /// The limit on it.
    pub budget_epsilon: f64,
    /// Days of a period.
    pub period_days: u32,
    /// When the first of these experiments leaves the period, in seconds since 1970; none while nothing does by itself.
    pub frees_at: Option<u64>,
}

/// Where the reports of a library stand at `now`.
pub(crate) async fn report_spending(
    connection: &mut Connection,
    library: &Name,
    now: u64,
) -> Result<ReportSpending> {
    let budget = budget(&mut *connection, library).await?;
    let rows = sqlx::query(
        "SELECT epsilon, stopped_at FROM experiments WHERE library = ? AND (stopped_at IS NULL OR stopped_at + ? > ?)",
    )
    .bind(library.as_str())
    .bind(budget.period_s() as i64)
    .bind(now as i64)
    .fetch_all(connection)
    .await
    .while_doing("reading experiments")?;
    let mut costs = Vec::new();
    for row in &rows {
        costs.push(RhoQuanta::of_pure(Epsilon::new(row.get("epsilon"))?));
    }
    let stopped = rows.iter().filter_map(|row| row.get::<Option<i64>, _>("stopped_at"));
    Ok(ReportSpending {
        spent_epsilon: ReportBudget::spent(costs),
        budget_epsilon: budget.epsilon.value(),
        period_days: budget.period_days,
        frees_at: stopped.min().map(|at| at as u64 + budget.period_s()),
    })
}

/// Debits what an experiment asks of each of its devices, or refuses with the numbers.
pub(crate) async fn debit_reports(
    connection: &mut Connection,
    experiment: &TaskId,
    epsilon: Epsilon,
    now: u64,
) -> Result<()> {
    if is_task(&mut *connection, experiment).await? {
        return Err(Problem::new(
            Code::Conflict,
            format!("{experiment} is a task, and the ledger keeps one account for each name"),
        )
        .with_hint("choose another name for the experiment"));
    }
    let rho = RhoQuanta::of_pure(epsilon);
    let budget = budget(&mut *connection, &experiment.library).await?;
    let spending = report_spending(&mut *connection, &experiment.library, now).await?;
    if !budget.permits(spending.spent_epsilon + rho.pure_epsilon()) {
        return Err(refused(experiment, epsilon, &spending, now));
    }
    let entry = Entry {
        task: experiment,
        kind: Kind::Report,
        round: 0,
        rho,
        cumulative_rho: Some(rho),
        detail: serde_json::json!({
            "mechanism": "randomised response",
            "epsilon": epsilon,
            "reports": budget,
        }),
        now,
    };
    ledger::append(connection, entry).await.map(|_| ())
}

fn refused(experiment: &TaskId, epsilon: Epsilon, spending: &ReportSpending, now: u64) -> Problem {
    let ReportSpending { spent_epsilon, budget_epsilon, period_days, frees_at } = *spending;
    let left = (budget_epsilon - spent_epsilon).max(0.0);
    let wait = match frees_at {
        Some(at) => format!("wait {} days", at.saturating_sub(now).div_ceil(86_400)),
        None => "stop what runs and wait".to_owned(),
    };
    Problem::new(
        Code::BudgetExhausted,
        format!(
            "reports of {experiment} at ε = {} beside those of {spent_epsilon:.2} would break the promise of {}: ε = {budget_epsilon} in {period_days} days",
            epsilon.value(),
            experiment.library,
        ),
    )
    .with_hint(format!("choose ε up to {left:.2}, {wait}, or promise less in `reports` of library.json"))
}

/// What the library promises about reports.
async fn budget(connection: &mut Connection, library: &Name) -> Result<ReportBudget> {
    let descriptor: Option<String> =
        sqlx::query_scalar("SELECT descriptor FROM libraries WHERE library = ?")
            .bind(library.as_str())
            .fetch_optional(connection)
            .await
            .while_doing("reading a library")?;
    let descriptor =
        descriptor.ok_or_else(|| crate::failure::not_found(format!("library {library}")))?;
    let library: LibraryDescriptor =
        serde_json::from_str(&descriptor).while_doing("reading a library")?;
    Ok(library.reports)
}

async fn is_task(connection: &mut Connection, id: &TaskId) -> Result<bool> {
    sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM tasks WHERE library = ? AND task = ?)")
        .bind(id.library.as_str())
        .bind(id.name.as_str())
        .fetch_one(connection)
        .await
        .while_doing("reading tasks")
}
