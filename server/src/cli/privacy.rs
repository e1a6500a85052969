//! `backstitch privacy`: what has been spent, and what a setting would mean.

use backstitch_protocol::privacy::{RhoQuanta, certainty};
use clap::Subcommand;
use serde::Serialize;

use super::forecast::Forecast;
use super::{ConfigArgs, print_json};
use crate::clock::Clock;
use crate::failure::Result;
use crate::privacy::{Ledger, Promise, Spending};
use crate::round;
use crate::store::Store;
use crate::task::TaskId;

/// Look at the privacy ledger, and plan.
#[derive(Debug, Subcommand)]
pub(super) enum PrivacyCommand {
    /// Show what each task's worst-placed device has spent, after checking the ledger's chain.
    #[command(after_help = "Example: backstitch privacy show --data backstitch-data")]
    Show {
        #[command(flatten)]
        config: ConfigArgs,
        /// Print as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print cohort against accuracy before anything is trained, and refuse what would be mostly noise.
    #[command(after_help = "Examples:
  backstitch privacy forecast --parameters 330 --epsilon 4 --participations 4 --goal 64
  backstitch privacy forecast --parameters 10000 --goal 500 --band 10 --releases 100")]
    Forecast(Forecast),
}

/// What one task's worst-placed device has spent, and what comes next.
#[derive(Serialize)]
struct TaskLine {
    task: String,
    round: u64,
    /// In the period that ends now.
    spent_rho: f64,
    spent_epsilon: f64,
    /// By the bound that budgets are held to.
    spent_epsilon_bound: f64,
    budget_rho: f64,
    epsilon: f64,
    delta: f64,
    certainty: f64,
    /// Since the first release.
    cumulative_rho: f64,
    cumulative_epsilon: f64,
    next_release: bool,
    next_release_rho: f64,
    next_release_epsilon: f64,
    refused_because: Option<String>,
}

/// What an experiment's reports cost each device.
#[derive(Serialize)]
struct ExperimentLine {
    experiment: String,
    rho: f64,
    epsilon: f64,
}

impl PrivacyCommand {
    pub(super) async fn run(self) -> Result<()> {
        match self {
            Self::Show { config, json } => show(&config, json).await,
            Self::Forecast(forecast) => forecast.run(),
        }
    }
}

async fn show(config: &ConfigArgs, json: bool) -> Result<()> {
    let store = Store::open_read_only(&config.load()?.store_path()?).await?;
    let ledger = Ledger::new(store.clone());
    let head = ledger.verify().await?;
    let now = Clock::system().now();
    let mut lines = Vec::new();
    for (task, round) in round::newest(&store).await? {
        let promise = round.terms.promise();
        let spending = ledger.spending(&task, &promise, round.number, now).await?;
        lines.push(line(&task, round.number, &promise, &spending));
    }
    let experiments: Vec<ExperimentLine> =
        ledger.experiments().await?.into_iter().map(experiment).collect();
    let reports = ledger.reports(now).await?;
    if json {
        return print_json(&serde_json::json!({
            "ledger": head, "tasks": lines, "experiments": experiments, "reports": reports,
        }));
    }
    println!("ledger: {} records, the chain holds, head {}", head.sequence, head.hash);
    lines.iter().for_each(print);
    for line in experiments {
        println!(
            "{}: one randomised report of each device, ε = {} (ρ = {:.4})",
            line.experiment, line.epsilon, line.rho
        );
    }
    for (library, reports) in reports {
        println!(
            "{library}: reports of experiments, ε = {:.2} of {} in {} days; the next experiment may ask for up to {:.2}",
            reports.spent_epsilon,
            reports.budget_epsilon,
            reports.period_days,
            (reports.budget_epsilon - reports.spent_epsilon).max(0.0)
        );
    }
    Ok(())
}

fn line(task: &TaskId, round: u64, promise: &Promise, spending: &Spending) -> TaskLine {
    let epsilon = |rho: RhoQuanta| rho.epsilon(promise.delta);
    let spent_epsilon = epsilon(spending.period);
    TaskLine {
        task: task.to_string(),
        round,
        spent_rho: spending.period.rho(),
        spent_epsilon,
        spent_epsilon_bound: spending.period.epsilon_bound(promise.delta),
        budget_rho: spending.budget.rho(),
        epsilon: promise.epsilon.value(),
        delta: promise.delta.value(),
        certainty: certainty(spent_epsilon),
        cumulative_rho: spending.lifetime.rho(),
        cumulative_epsilon: epsilon(spending.lifetime),
        next_release: spending.permits(),
        next_release_rho: promise.cost().rho(),
        next_release_epsilon: epsilon(spending.next),
        refused_because: spending.permit(task, promise).err().map(|p| p.detail().to_owned()),
    }
}

fn experiment((task, rho): (String, RhoQuanta)) -> ExperimentLine {
    // Randomised response is ε-DP, debited at ρ = ε²/2.
    let epsilon = ((2.0 * rho.rho()).sqrt() * 1000.0).round() / 1000.0;
    ExperimentLine { experiment: task, rho: rho.rho(), epsilon }
}

fn print(line: &TaskLine) {
    println!("{}, round {}, δ = {}", line.task, line.round, line.delta);
    println!(
        "  this period   ρ = {:.4} of {:.4}, ε = {:.2} exactly, {:.2} by the bound, of {}; certainty 50 % → {:.0} %",
        line.spent_rho,
        line.budget_rho,
        line.spent_epsilon,
        line.spent_epsilon_bound,
        line.epsilon,
        100.0 * line.certainty,
    );
    println!(
        "  since the start  at most ρ = {:.4}, ε = {:.2}",
        line.cumulative_rho, line.cumulative_epsilon
    );
    println!(
        "  next release  costs its devices ρ = {:.4}; the worst-placed is then at ε = {:.2}",
        line.next_release_rho, line.next_release_epsilon
    );
    match &line.refused_because {
        Some(reason) => println!("  refused       {reason}"),
        None => println!("  permitted"),
    }
}
