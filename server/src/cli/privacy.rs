//! `backstitch privacy`: what has been spent, and what a setting would mean.

use backstitch_protocol::Problem;
use backstitch_protocol::privacy::{Delta, Epsilon, NoiseMultiplier, RhoQuanta, certainty};
use backstitch_protocol::problem::Code;
use clap::{Args, Subcommand};
use serde::Serialize;

use super::{ConfigArgs, print_json};
use crate::clock::Clock;
use crate::failure::Result;
use crate::privacy::Ledger;
use crate::round;
use crate::store::Store;

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
    /// Print how many contributions a round needs, before anything is trained.
    #[command(
        after_help = "Example: backstitch privacy forecast --parameters 330 --epsilon 4 --participations 4 --goal 64"
    )]
    Forecast(Forecast),
}

/// A setting to think through.
#[derive(Debug, Args)]
pub(super) struct Forecast {
    /// Trainable parameters of the task.
    #[arg(long)]
    parameters: u32,
    /// ε of the promise.
    #[arg(long, default_value_t = 4.0)]
    epsilon: f64,
    /// δ of the promise.
    #[arg(long, default_value_t = 1e-6)]
    delta: f64,
    /// Rounds of a period that one device may be in.
    #[arg(long, default_value_t = 4)]
    participations: u32,
    /// Contributions per round; too few are refused.
    #[arg(long)]
    goal: Option<u32>,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct TaskLine {
    task: String,
    round: u64,
    spent_rho: f64,
    spent_epsilon: f64,
    budget_rho: f64,
    epsilon: f64,
    delta: f64,
    certainty: f64,
    next_release: bool,
}

#[derive(Serialize)]
struct ForecastLine {
    epsilon: f64,
    noise_multiplier: f64,
    smallest_round: u64,
    certainty: f64,
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
        let spent_epsilon = spending.period.epsilon(promise.delta);
        lines.push(TaskLine {
            task: task.to_string(),
            round: round.number,
            spent_rho: spending.period.rho(),
            spent_epsilon,
            budget_rho: spending.budget.rho(),
            epsilon: promise.epsilon.value(),
            delta: promise.delta.value(),
            certainty: certainty(spent_epsilon),
            next_release: spending.permits(),
        });
    }
    if json {
        return print_json(&serde_json::json!({ "ledger": head, "tasks": lines }));
    }
    println!("ledger: {} records, the chain holds, head {}", head.sequence, head.hash);
    for line in lines {
        println!(
            "{}: the worst-placed device has spent ε = {:.2} of {} at δ = {} in this period; the next release is {}",
            line.task,
            line.spent_epsilon,
            line.epsilon,
            line.delta,
            if line.next_release { "permitted" } else { "refused" },
        );
    }
    Ok(())
}

impl Forecast {
    /// Noise and signal are equal at n = z√d: below that, a round learns mostly noise.
    fn run(&self) -> Result<()> {
        let delta = Delta::new(self.delta)?;
        let wanted = self.line(Epsilon::new(self.epsilon)?, delta)?;
        let mut lines = Vec::new();
        for epsilon in [0.5, 1.0, 2.0, 4.0, 8.0] {
            lines.push(self.line(Epsilon::new(epsilon)?, delta)?);
        }
        if self.json {
            print_json(&serde_json::json!({ "wanted": wanted, "table": lines }))?;
        } else {
            println!(
                "{} parameters, {} participations in a period, δ = {}",
                self.parameters, self.participations, self.delta
            );
            println!(
                "{:>8} {:>18} {:>20} {:>12}",
                "ε", "noise multiplier", "smallest round", "certainty"
            );
            for line in std::iter::once(&wanted).chain(&lines) {
                println!(
                    "{:>8} {:>18.3} {:>20} {:>11.0}%",
                    line.epsilon,
                    line.noise_multiplier,
                    line.smallest_round,
                    100.0 * line.certainty
                );
            }
        }
        match self.goal {
            Some(goal) if u64::from(goal) < wanted.smallest_round => Err(Problem::new(
                Code::PrivacyInvalid,
                format!(
                    "a round of {goal} would be mostly noise: {} parameters at noise multiplier {:.2} need at least {}",
                    self.parameters, wanted.noise_multiplier, wanted.smallest_round
                ),
            )
            .with_hint("raise the goal, train fewer parameters, or allow fewer participations")),
            _ => Ok(()),
        }
    }

    fn line(&self, epsilon: Epsilon, delta: Delta) -> Result<ForecastLine> {
        let rho = RhoQuanta::within(epsilon, delta).rho() / f64::from(self.participations.max(1));
        let z = NoiseMultiplier::new((1.0 / (2.0 * rho)).sqrt())?;
        Ok(ForecastLine {
            epsilon: epsilon.value(),
            noise_multiplier: z.value(),
            smallest_round: (z.value() * f64::from(self.parameters).sqrt()).ceil() as u64,
            certainty: certainty(epsilon.value()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_that_of_the_privacy_page() {
        let forecast = |parameters, goal| Forecast {
            parameters,
            epsilon: 4.0,
            delta: 1e-6,
            participations: 4,
            goal,
            json: false,
        };
        let line = forecast(10_000, None)
            .line(Epsilon::new(4.0).unwrap(), Delta::new(1e-6).unwrap())
            .unwrap();
        assert!((line.noise_multiplier - 2.39).abs() < 0.01, "{}", line.noise_multiplier);
        assert_eq!(line.smallest_round, 239);
        assert!(forecast(330, Some(64)).run().is_ok());
        assert!(forecast(10_000, Some(64)).run().unwrap_err().is(Code::PrivacyInvalid));
    }
}
