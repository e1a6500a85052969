//! `backstitch experiment`: experiments of a running server.

use backstitch_protocol::id::Name;
use backstitch_protocol::privacy::Epsilon;
use clap::Subcommand;

use super::admin::AdminArgs;
use super::print_json;
use crate::experiment::Proposal;
use crate::failure::{Failure, Result};

/// List, start and stop experiments.
#[derive(Debug, Subcommand)]
pub(super) enum ExperimentCommand {
    /// Show all experiments with what they say so far.
    #[command(after_help = "Example: backstitch experiment list")]
    List {
        #[command(flatten)]
        server: AdminArgs,
        /// Print as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Start comparing two versions of a patch.
    #[command(
        after_help = "Example: backstitch experiment start fashion style-2 --patch personal-style --challenger 2"
    )]
    Start {
        /// The library.
        library: String,
        /// The experiment's name; never used again.
        name: String,
        /// The patch.
        #[arg(long)]
        patch: String,
        /// The version to try; 0 leaves the patch away.
        #[arg(long)]
        challenger: u32,
        /// The version to compare with; the present champion where it is left out.
        #[arg(long)]
        champion: Option<u32>,
        /// The challenger's share of devices.
        #[arg(long, default_value_t = 0.5)]
        share: f64,
        /// ε of a device's randomised outcome.
        #[arg(long, default_value_t = 1.0)]
        epsilon: f64,
        /// Labelled inputs after which a device reports.
        #[arg(long, default_value_t = 32)]
        window: u32,
        /// Experiments of one layer exclude each other.
        #[arg(long, default_value = "main")]
        layer: String,
        #[command(flatten)]
        server: AdminArgs,
    },
    /// Stop an experiment.
    #[command(
        after_help = "Example: backstitch experiment stop fashion style-2 --reason \"the challenger won\""
    )]
    Stop {
        /// The library.
        library: String,
        /// The experiment.
        name: String,
        /// For the history.
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        server: AdminArgs,
    },
}

impl ExperimentCommand {
    pub(super) async fn run(self) -> Result<()> {
        match self {
            Self::List { server, json } => list(&server, json).await,
            Self::Start {
                library,
                name,
                patch,
                challenger,
                champion,
                share,
                epsilon,
                window,
                layer,
                server,
            } => {
                let proposal = Proposal {
                    name: Name::new(name)?,
                    layer,
                    patch: Name::new(patch)?,
                    champion,
                    challenger,
                    share,
                    epsilon: Epsilon::new(epsilon)?,
                    window,
                };
                let body = serde_json::to_value(proposal).while_doing("writing a proposal")?;
                server
                    .post(&format!("/admin/v1/libraries/{library}/experiments"), &body)
                    .await
                    .map(|_| ())
            }
            Self::Stop { library, name, reason, server } => {
                let path = format!("/admin/v1/libraries/{library}/experiments/{name}/stop");
                server.post(&path, &serde_json::json!({ "reason": reason })).await.map(|_| ())
            }
        }
    }
}

async fn list(server: &AdminArgs, json: bool) -> Result<()> {
    let state = server.state().await?;
    let none = Vec::new();
    let mut found = Vec::new();
    for library in state["libraries"].as_array().unwrap_or(&none) {
        for experiment in library["experiments"].as_array().unwrap_or(&none) {
            let text = |key: &str| experiment[key].as_str().unwrap_or("").to_owned();
            if !json {
                println!(
                    "{}.{}  {}  {}",
                    library["name"].as_str().unwrap_or(""),
                    text("name"),
                    text("state"),
                    text("reason")
                );
            }
            found.push(experiment.clone());
        }
    }
    if json { print_json(&found) } else { Ok(()) }
}
