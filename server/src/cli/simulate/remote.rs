//! The same over real HTTP: whole devices with tokens of their own, against a server of its own or another one.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use backstitch_edge::fleet::FleetEvent;
use backstitch_edge::{FleetOptions, Node, NodeOptions, port::Network};
use futures::executor::block_on;
use tempfile::TempDir;
use tokio::runtime::Handle;

use super::judge::Judge;
use super::report::{Report, Round};
use super::setting::{Opened, Setting};
use crate::clock::Clock;
use crate::config::Config;
use crate::failure::{Failure, Result};
use crate::registry;
use crate::server::{self, Running, Server};

/// Between two looks at the catalog.
const LOOK: Duration = Duration::from_millis(100);

/// What the devices have said since the last round.
#[derive(Default)]
struct Told {
    contributed: AtomicU32,
    kept_back: AtomicU32,
    /// Codes of refusals that were printed.
    refusals: Mutex<BTreeSet<String>>,
}

/// Runs the fleet until the rounds are done or nobody may contribute any more.
pub(super) fn run(setting: &Setting, runtime: &Handle, url: &str) -> Result<Report> {
    if !url.is_empty() {
        return follow(setting, url);
    }
    let (running, _folder) = runtime.block_on(start(setting))?;
    let report = follow(setting, &running.public_url());
    runtime.block_on(running.shutdown());
    report
}

/// A server of its own, on the terms of the command line.
async fn start(setting: &Setting) -> Result<(Running, TempDir)> {
    let folder = tempfile::tempdir().while_doing("creating a temporary folder")?;
    let mut config = Config::in_folder(folder.path());
    config.libraries.clear();
    let clock = Clock::system();
    let services = server::services(&config, clock.clone()).await?;
    registry::import(&services.store, &services.blobs, &setting.source, clock.now()).await?;
    registry::set_terms(&services.store, &setting.task(), &setting.terms).await?;
    services.store.close().await;
    Ok((Server::start(config).await?, folder))
}

fn follow(setting: &Setting, url: &str) -> Result<Report> {
    let node = NodeOptions {
        server_url: url.to_owned(),
        library: setting.library.to_string(),
        network: Network::default(),
        workshop: setting.workshop.clone(),
        ..NodeOptions::default()
    };
    let onlooker = Node::open(&node)?;
    let opened = Opened::of(onlooker.client(), setting)?;
    setting.check_cohort(opened.task.parameters)?;
    let judge = Judge::new(setting, &opened)?;
    let mut report = Report::begin(setting, &opened, judge.examples());
    report.push(judge.round(Round::default(), &opened.weights)?);
    let (told, ended, left) = (Told::default(), AtomicBool::new(false), AtomicBool::new(false));
    let options = FleetOptions {
        node,
        clients: setting.clients,
        parallelism: thread::available_parallelism().map_or(1, usize::from),
        seed: setting.seed,
        renew: false,
        rounds: Some(setting.rounds),
        ..FleetOptions::default()
    };
    thread::scope(|scope| {
        let fleet = scope.spawn(|| {
            let outcome = backstitch_edge::run(
                &options,
                &setting.population,
                &|event| told.hear(event),
                &ended,
            );
            left.store(true, Ordering::Release);
            outcome
        });
        let watched = watch(setting, &onlooker, &judge, &mut report, (&told, &left));
        ended.store(true, Ordering::Relaxed);
        match fleet.join() {
            Ok(outcome) => outcome.and(watched),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })?;
    Ok(report)
}

/// Judges every version that the server publishes.
fn watch(
    setting: &Setting,
    onlooker: &Node,
    judge: &Judge,
    report: &mut Report,
    (told, left): (&Told, &AtomicBool),
) -> Result<()> {
    let mut before = Opened::of(onlooker.client(), setting)?.task.round;
    let first = before;
    while before < first + setting.rounds && !report.has_reached(setting.until) {
        let last_look = left.load(Ordering::Acquire);
        block_on(onlooker.client().refresh())?;
        let now = Opened::of(onlooker.client(), setting)?;
        if now.task.round > before {
            let goal = now.task.goal;
            let round = Round {
                number: now.task.round - first,
                goal,
                epsilon: Some(now.task.period_spent.epsilon(now.task.delta)),
                contributed: told.contributed.swap(0, Ordering::Relaxed),
                kept_back: told.kept_back.swap(0, Ordering::Relaxed),
                ..Round::default()
            };
            report.push(judge.round(round, &now.weights)?);
            before = now.task.round;
        } else if last_look {
            report.end("no client may contribute any more");
            return Ok(());
        } else {
            thread::sleep(LOOK);
        }
    }
    Ok(())
}

impl Told {
    fn hear(&self, event: &FleetEvent) {
        match event {
            FleetEvent::Contributed { .. } => {
                self.contributed.fetch_add(1, Ordering::Relaxed);
            }
            FleetEvent::Skipped { .. } => {
                self.kept_back.fetch_add(1, Ordering::Relaxed);
            }
            FleetEvent::Waiting { code, message, retry_s, .. } => {
                self.wait(code, message, &format!("trying again in {retry_s} s"));
            }
            FleetEvent::Failed { code, message, .. } => self.wait(code, message, "trying again"),
            FleetEvent::Joined { .. } | FleetEvent::Retired { .. } => {}
        }
    }

    /// Says once what all devices wait for.
    fn wait(&self, code: &str, message: &str, until: &str) {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        if refusals.insert(code.to_owned()) {
            eprintln!("waiting for the server: {code}: {message}; {until}");
        }
    }
}
