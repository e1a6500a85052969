//! `backstitch demo`: everything in one process, without configuration, in a folder that goes away.

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use backstitch_edge::population::{FILE, Population};
use backstitch_edge::{FleetOptions, NodeOptions};
use backstitch_protocol::Problem;
use backstitch_protocol::problem::Code;
use clap::Args;

use super::{asked_to_stop, start_log};
use crate::config::{Config, Log, LogFormat};
use crate::failure::{Failure, Result};
use crate::registry::{Catalogs, SAMPLES, Source};
use crate::server::{Running, Server};

/// Between two contributions to the first library, so that a round takes some ten seconds and an onlooker can follow.
const PACE: Duration = Duration::from_millis(150);

/// The same for the other libraries. Their models are larger, and the page needs the cores more: each works for a third
/// of one at most, with a round's devices and some to spare, since every device keeps what its examples became.
const SLOW_PACE: Duration = Duration::from_millis(600);
const SLOW_SHARE: f64 = 1.0 / 3.0;
const FEW: usize = 72;

/// Between the first devices of one library and those of the next.
const START: Duration = Duration::from_secs(5);

/// Run everything at once, without configuration, to look at it.
#[derive(Debug, Args)]
#[command(after_help = "Example: backstitch demo --port 8080 --open")]
pub(super) struct Demo {
    /// Port of the page; the operators' port is the next one.
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// Open the page in the browser.
    #[arg(long)]
    open: bool,
    /// Simulated devices that contribute; 0 for none.
    #[arg(long, default_value_t = 256, value_name = "N")]
    clients: usize,
    /// Keep the data here; otherwise it is gone when the demo ends.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// What to log to standard error.
    #[arg(long, default_value = "warn", value_name = "FILTER")]
    log: String,
}

impl Demo {
    pub(super) async fn run(self) -> Result<()> {
        start_log(&Log { format: LogFormat::Text, filter: self.log.clone() });
        let temporary = tempfile::tempdir().while_doing("creating a temporary folder")?;
        let data = self.data.clone().unwrap_or_else(|| temporary.path().to_owned());
        let running = self.start(data).await?;
        println!("page      {}/", running.public_url());
        println!("console   {}", running.console_url("fashion"));
        println!("Ctrl-C ends the demo.");
        if self.open {
            open(&running.public_url());
        }
        let told = tokio::spawn(tell_versions(running.services().catalogs.clone()));
        let ended = Arc::new(AtomicBool::new(false));
        let node = NodeOptions {
            server_url: running.public_url(),
            public_key: Some(running.public_key.clone()),
            ..NodeOptions::default()
        };
        let until = Arc::clone(&ended);
        let devices =
            tokio::task::spawn_blocking(move || contribute_to_all(&node, self.clients, &until));
        asked_to_stop().await;
        told.abort();
        ended.store(true, Ordering::Relaxed);
        devices.await.while_doing("ending the simulated devices")?;
        running.shutdown().await;
        Ok(())
    }

    /// On the wanted ports, or on free ones if something else listens there.
    async fn start(&self, data: PathBuf) -> Result<Running> {
        let libraries = SAMPLES.iter().map(|name| format!("embedded:{name}")).collect();
        let mut config = Config { data, libraries, ..Config::default() };
        config.lift_network_limits();
        let next = self.port.checked_add(1).ok_or_else(|| {
            Problem::new(Code::RequestInvalid, "port 65535 leaves none for the operators")
        })?;
        config.public.listen = SocketAddr::from(([127, 0, 0, 1], self.port));
        config.admin.listen = SocketAddr::from(([127, 0, 0, 1], next));
        match Server::start_demo(config.clone()).await {
            Err(problem) if problem.is(Code::Unavailable) => {
                eprintln!("port {} or {next} is taken, so free ones are used", self.port);
                config.public.listen.set_port(0);
                config.admin.listen.set_port(0);
                Server::start_demo(config).await
            }
            result => result,
        }
    }
}

/// Simulated devices for every library that says who its clients are, until the demo ends. Each device keeps to its own
/// ledger; when one has contributed as often as it may, a new one takes its place.
fn contribute_to_all(node: &NodeOptions, clients: usize, ended: &AtomicBool) {
    let described = |library: &&'static str| {
        Source::Embedded(library).read_if_present(FILE).is_ok_and(|file| file.is_some())
    };
    let libraries: Vec<&str> = SAMPLES.iter().copied().filter(described).collect();
    thread::scope(|scope| {
        for (place, library) in libraries.iter().enumerate() {
            let node = NodeOptions { library: (*library).to_owned(), ..node.clone() };
            let fleet = fleet(node, place == 0, clients);
            scope.spawn(move || {
                // One after the other: the page that opens now needs the cores more.
                wait(START * place as u32, ended);
                if let Err(problem) = contribute(&fleet, ended) {
                    tracing::warn!(%problem, library, "there are no simulated devices");
                }
            });
        }
    });
}

/// The devices of a library, on one thread.
fn fleet(node: NodeOptions, first: bool, clients: usize) -> FleetOptions {
    let fleet = FleetOptions { node, parallelism: 1, ..FleetOptions::default() };
    match first {
        true => FleetOptions { clients, pace: PACE, ..fleet },
        false => {
            let clients = clients.min(FEW);
            FleetOptions { clients, pace: SLOW_PACE, share: SLOW_SHARE, ..fleet }
        }
    }
}

/// On real data that the primary was not trained on.
fn contribute(fleet: &FleetOptions, ended: &AtomicBool) -> Result<()> {
    if fleet.clients == 0 || ended.load(Ordering::Relaxed) {
        return Ok(());
    }
    let source = Source::parse(&format!("embedded:{}", fleet.node.library))?;
    let population = Population::read(&source.read(FILE)?, &|path| source.read(path))?;
    // Late devices and such are on the fleet's own log.
    backstitch_edge::run(fleet, &population, &|_| {}, ended).map(|_| ())
}

/// Sleeps in short naps, so that the end is quick.
fn wait(time: Duration, ended: &AtomicBool) {
    let until = Instant::now() + time;
    while Instant::now() < until && !ended.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(50));
    }
}

/// On a terminal, a line whenever a new version is published.
async fn tell_versions(catalogs: Arc<Catalogs>) {
    if !std::io::stderr().is_terminal() {
        return;
    }
    let mut news = catalogs.subscribe();
    while let Ok(news) = news.recv().await {
        let Ok(issued) = catalogs.newest(&news.library) else { continue };
        for task in &issued.catalog.tasks {
            let versions: Vec<String> = task
                .patches
                .iter()
                .zip(&task.base_versions)
                .map(|(patch, version)| format!("{patch} v{version}"))
                .collect();
            eprintln!("{}: round {} starts from {}", news.library, task.round, versions.join(", "));
        }
    }
}

fn open(url: &str) {
    let program = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    if std::process::Command::new(program).arg(url).spawn().is_err() {
        eprintln!("no browser could be opened; go to {url}");
    }
}
