//! `backstitch library`: import libraries into the data folder, and look at what is there.

use backstitch_protocol::id::Name;
use clap::Subcommand;
use serde::Serialize;

use super::{ConfigArgs, print_json};
use crate::blob::Blobs;
use crate::clock::Clock;
use crate::failure::Result;
use crate::registry::{self, Source, alias, version};
use crate::server;
use crate::store::Store;

/// Import and list libraries.
#[derive(Debug, Subcommand)]
pub(super) enum LibraryCommand {
    /// Check a library and store it, and say what it changes of one that is there; a server that runs on the data folder
    /// must be stopped.
    #[command(
        after_help = "Example: backstitch library import onnx/models/fashion --data backstitch-data"
    )]
    Import {
        /// A folder with a library.json, or embedded:fashion, embedded:motion, embedded:anomalies, embedded:sentiment.
        source: String,
        #[command(flatten)]
        config: ConfigArgs,
        /// Print as JSON.
        #[arg(long)]
        json: bool,
    },
    /// List the libraries.
    #[command(after_help = "Example: backstitch library list --json")]
    List {
        #[command(flatten)]
        config: ConfigArgs,
        /// Print as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show the versions of a library's patches.
    #[command(after_help = "Example: backstitch library show fashion")]
    Show {
        /// The library.
        library: String,
        #[command(flatten)]
        config: ConfigArgs,
        /// Print as JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Serialize)]
struct VersionLine {
    patch: Name,
    version: u32,
    aliases: Vec<String>,
    source: String,
    cohort: Option<u32>,
    weights: String,
}

impl LibraryCommand {
    pub(super) async fn run(self) -> Result<()> {
        match self {
            Self::Import { source, config, json } => import(&source, &config, json).await,
            Self::List { config, json } => list(&config, json).await,
            Self::Show { library, config, json } => show(&Name::new(library)?, &config, json).await,
        }
    }
}

async fn import(source: &str, config: &ConfigArgs, json: bool) -> Result<()> {
    let config = config.load()?;
    let _lock = server::lock(&config)?;
    let store = Store::open(&config.store_path()?).await?;
    let blobs = Blobs::in_folder(&config.blob_folder()?)?;
    let imported =
        registry::import(&store, &blobs, &Source::parse(source)?, Clock::system().now()).await?;
    store.close().await;
    if json {
        return print_json(&imported);
    }
    let library = &imported.library;
    for (patch, version) in &imported.versions {
        println!("{library}: {patch} version {version}");
    }
    for change in &imported.changes {
        println!("{library}: {change}");
    }
    if imported.versions.is_empty() && imported.changes.is_empty() {
        println!("{library}: nothing new");
    }
    Ok(())
}

async fn list(config: &ConfigArgs, json: bool) -> Result<()> {
    let store = Store::open_read_only(&config.load()?.store_path()?).await?;
    let libraries = registry::libraries(&mut *store.read().await?).await?;
    if json {
        return print_json(&libraries);
    }
    libraries.iter().for_each(|library| println!("{library}"));
    Ok(())
}

async fn show(library: &Name, config: &ConfigArgs, json: bool) -> Result<()> {
    let store = Store::open_read_only(&config.load()?.store_path()?).await?;
    let mut reading = store.read().await?;
    let aliases = alias::all(&mut reading, library).await?;
    let of = |v: &version::PatchVersion| -> Vec<String> {
        let of_this = aliases.iter().filter(|((p, _), n)| *p == v.patch && **n == v.version);
        of_this.map(|((_, alias), _)| alias.clone()).collect()
    };
    let versions: Vec<VersionLine> = version::all(&mut reading, library)
        .await?
        .into_iter()
        .map(|v| VersionLine {
            aliases: of(&v),
            patch: v.patch,
            version: v.version,
            source: v.source,
            cohort: v.cohort,
            weights: v.identity.to_string(),
        })
        .collect();
    if versions.is_empty() {
        return Err(crate::failure::not_found(format!("library {library}")));
    }
    if json {
        return print_json(&versions);
    }
    for line in versions {
        println!(
            "{:<24} {:>4}  {:<10} {}",
            line.patch.to_string(),
            line.version,
            line.source,
            line.aliases.join(", ")
        );
    }
    Ok(())
}
