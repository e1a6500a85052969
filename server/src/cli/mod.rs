//! The command line of `backstitch`. Exit code 0: done; 1: it failed, one line on stderr says why; 2: usage.

mod admin;
mod audit;
mod bench;
mod cost;
mod demo;
mod doctor;
mod edge;
mod examples;
mod experiment;
mod files;
mod forecast;
mod keys;
mod library;
mod npy;
pub mod onnx;
mod patch;
mod privacy;
mod serve;
mod simulate;

use std::error::Error as StdError;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{Config, Log, LogFormat};
use crate::failure::Result;

/// Stitches small, versioned patches into ONNX models while they run, and learns better ones from many browsers.
#[derive(Debug, Parser)]
#[command(name = "backstitch", version, after_help = "Example: backstitch demo --open")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server.
    Serve(serve::Serve),
    /// Run everything at once, without configuration, to look at it.
    Demo(demo::Demo),
    /// Say what is wrong before users do.
    Doctor(doctor::Doctor),
    /// Import and list libraries.
    #[command(subcommand)]
    Library(library::LibraryCommand),
    /// List, start and stop experiments.
    #[command(subcommand)]
    Experiment(experiment::ExperimentCommand),
    /// Look at the privacy ledger, and plan.
    #[command(subcommand)]
    Privacy(privacy::PrivacyCommand),
    /// Attack a release of a server of its own through HTTP, and hold what it tells to what is promised.
    Audit(audit::Audit),
    /// Train a library's task by simulated clients, and judge every version on clients that never train.
    Simulate(simulate::Simulate),
    /// Join a library with this machine's own examples, train, and contribute to its rounds.
    Edge(edge::Edge),
    /// The key that signs catalogs.
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// Look at, run, cut, stitch, differentiate and measure ONNX models.
    #[command(subcommand)]
    Onnx(onnx::OnnxCommand),
    /// Make, check, train, measure and pack patches.
    #[command(subcommand)]
    Patch(patch::PatchCommand),
}

impl Command {
    /// Whether others talk to it while it runs; then nobody's hanging up may end it.
    fn serves(&self) -> bool {
        matches!(self, Self::Serve(_) | Self::Demo(_) | Self::Simulate(_) | Self::Edge(_))
    }
}

/// Where the configuration comes from.
#[derive(Debug, Clone, Args)]
struct ConfigArgs {
    /// The configuration; backstitch.toml in this folder, if there is one.
    #[arg(long, env = "BACKSTITCH_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// The data folder, instead of the configured one.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

impl ConfigArgs {
    fn load(&self) -> Result<Config> {
        let here = Path::new("backstitch.toml");
        let file = self.config.as_deref().or_else(|| here.is_file().then_some(here));
        let mut config = Config::load(file)?;
        if let Some(data) = &self.data {
            config.data.clone_from(data);
        }
        Ok(config)
    }
}

/// Parses the arguments and runs the command.
pub fn main() -> ExitCode {
    let command = Cli::parse().command;
    if !command.serves() {
        // Whoever reads our output has enough of it: `backstitch … | head`.
        sigpipe::reset();
    }
    match run(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_broken_pipe(error.as_ref()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("backstitch: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> std::result::Result<(), Box<dyn StdError>> {
    match command {
        Command::Serve(serve) => in_runtime(serve.run()),
        Command::Demo(demo) => in_runtime(demo.run()),
        Command::Doctor(doctor) => in_runtime(doctor.run()),
        Command::Library(library) => in_runtime(library.run()),
        Command::Experiment(experiment) => in_runtime(experiment.run()),
        Command::Privacy(privacy) => in_runtime(privacy.run()),
        Command::Audit(audit) => in_runtime(audit.run()),
        Command::Simulate(simulate) => in_runtime(simulate.run()),
        Command::Edge(edge) => in_runtime(edge.run()),
        Command::Keys(keys) => Ok(keys.run()?),
        Command::Onnx(onnx) => onnx::run(onnx),
        Command::Patch(patch) => patch::run(patch),
    }
}

fn in_runtime(
    work: impl Future<Output = Result<()>>,
) -> std::result::Result<(), Box<dyn StdError>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    Ok(runtime.block_on(work)?)
}

fn is_broken_pipe(error: &(dyn StdError + 'static)) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}

/// Sends the log to standard error.
fn start_log(log: &Log) {
    use tracing_subscriber::EnvFilter;
    // What the operator asks for comes last, so it may ask for the engine's warnings too.
    let directives = |filter: &str| format!("{},{filter}", backstitch_onnx::engine::LOG_DIRECTIVE);
    let filter = EnvFilter::try_new(directives(&log.filter))
        .unwrap_or_else(|_| EnvFilter::new(directives("info")));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    // A second start in one process keeps the first log.
    drop(match log.format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    });
}

/// Prints JSON, for machines.
fn print_json(value: &impl serde::Serialize) -> Result<()> {
    use crate::failure::Failure as _;
    let text = serde_json::to_string_pretty(value).while_doing("writing JSON")?;
    println!("{text}");
    Ok(())
}

/// Resolves on Ctrl-C and on SIGTERM.
async fn asked_to_stop() {
    let interrupt = tokio::signal::ctrl_c();
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = interrupt => {}
                _ = terminate.recv() => {}
            }
            return;
        }
    }
    drop(interrupt.await);
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn every_command_has_help_with_an_example() {
        fn check(command: &clap::Command) {
            if command.get_subcommands().next().is_none() {
                let example = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(example.starts_with("Example"), "{}", command.get_name());
                assert!(command.get_about().is_some(), "{}", command.get_name());
            }
            command.get_subcommands().for_each(check);
        }
        let command = Cli::command();
        command.clone().debug_assert();
        check(&command);
    }
}
