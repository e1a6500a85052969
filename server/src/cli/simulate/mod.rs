//! `backstitch simulate`: a library's task, trained by simulated clients round after round, judged on held-out ones.

mod devices;
mod judge;
mod plain;
mod remote;
mod report;
mod setting;
mod stage;

use std::time::Instant;

use backstitch_protocol::Problem;
use backstitch_protocol::problem::Code;
use clap::Args;
use futures::executor::block_on;
use tokio::runtime::Handle;

use self::devices::Devices;
use self::judge::Judge;
use self::report::{Report, Round};
use self::setting::{Opened, Setting};
use self::stage::Stage;
use super::print_json;
use crate::failure::{Failure, Result};

/// Train a library's task by simulated clients, and judge every version on clients that never train.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  backstitch simulate motion --rounds 16
  backstitch simulate fashion --cohort 128 --seed 7 --json
  backstitch simulate fashion --http --rounds 3
  backstitch simulate sentiment --tuning
  backstitch simulate my-library --no-privacy --until 0.97 --rounds 200

The library's federated.json says who its clients are: who trains, who judges, and who is only for choosing settings
(--tuning), so that no choice looks at those who judge. In process the same seed gives the same figures: clients train,
clip and quantise as they do in a browser, and rounds, ledger, sums and releases are those of the server; only the noise
comes from the seed, which makes it useless for hiding anything. --http runs whole devices over real HTTP instead,
against a server of its own or the one that is named, with the system's randomness.

--no-privacy is federated averaging as published (McMahan et al. 2017): every example trains, nothing is clipped, noised
or kept back, and clients weigh as much as they have examples.")]
pub(super) struct Simulate {
    /// One of the sample libraries, or a folder with a library.json and a federated.json.
    #[arg(value_name = "LIBRARY")]
    library: String,
    /// Most rounds.
    #[arg(long, default_value_t = 16)]
    rounds: u64,
    /// Clients that train; all that the library describes, or as many as the rounds need.
    #[arg(long, value_name = "N")]
    clients: Option<usize>,
    /// Contributions that close a round; the task's goal where it is left out.
    #[arg(long, value_name = "N")]
    cohort: Option<u32>,
    /// Neither clip nor noise, to compare with.
    #[arg(long, conflicts_with = "http")]
    no_privacy: bool,
    /// Over HTTP, with a server of its own or at this address.
    #[arg(long, value_name = "URL", num_args = 0..=1, default_missing_value = "")]
    http: Option<String>,
    /// Judge on the clients for choosing settings, and leave the judging ones alone.
    #[arg(long)]
    tuning: bool,
    /// End where held-out accuracy reaches this share.
    #[arg(long, value_name = "ACCURACY")]
    until: Option<f64>,
    /// Decides clients, their data, cohorts, orders, and in process the noise.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

impl Simulate {
    pub(super) async fn run(self) -> Result<()> {
        let began = Instant::now();
        let json = self.json;
        let setting = Setting::read(&self)?;
        let runtime = Handle::current();
        // Training blocks; what it needs of the server, it waits for.
        let simulated = tokio::task::spawn_blocking(move || match &self.http {
            Some(url) => remote::run(&setting, &runtime, url),
            None if self.no_privacy => plain::run(&setting, &runtime),
            None => rehearse(&setting, &runtime),
        });
        let report = simulated.await.while_doing("simulating")??;
        match json {
            true => print_json(&report)?,
            false => println!("{} ({:.1} s)", report.summary(), began.elapsed().as_secs_f64()),
        }
        Ok(())
    }
}

/// Private rounds in this process: a whole server but for HTTP and tokens.
fn rehearse(setting: &Setting, runtime: &Handle) -> Result<Report> {
    let stage = Stage::open(setting, runtime)?;
    let onlooker = stage.onlooker(setting)?;
    let opened = Opened::of(&onlooker, setting)?;
    setting.check_cohort(opened.task.parameters)?;
    let judge = Judge::new(setting, &opened)?;
    let mut devices = Devices::new(setting);
    let mut report = Report::begin(setting, &opened, judge.examples());
    report.push(judge.round(Round::default(), &opened.weights)?);
    for _ in 0..setting.rounds {
        let opened = Opened::of(&onlooker, setting)?;
        let filled = match devices.fill(setting, &opened, &|frames| stage.contribute(frames)) {
            Err(problem) if problem.is(Code::NothingToContribute) => {
                report.end(problem.detail());
                break;
            }
            filled => filled?,
        };
        stage.await_round(opened.task.round + 1)?;
        block_on(onlooker.refresh())?;
        let after = Opened::of(&onlooker, setting)?;
        let spent = after.task.period_spent.epsilon(after.task.delta);
        let round = Round { number: opened.task.round, epsilon: Some(spent), ..filled };
        report.push(judge.round(round, &after.weights)?);
        if report.has_reached(setting.until) || !after.task.open {
            break;
        }
    }
    stage.close();
    Ok(report)
}

fn invalid(detail: impl Into<String>) -> Problem {
    Problem::new(Code::RequestInvalid, detail)
}

#[cfg(test)]
mod tests;
