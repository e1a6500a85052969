//! `backstitch keys`: the key that signs catalogs.

use clap::Subcommand;

use super::{ConfigArgs, print_json};
use crate::failure::{Result, not_found};
use crate::registry;

/// The key that signs catalogs.
#[derive(Debug, Subcommand)]
pub(super) enum KeysCommand {
    /// Print the public key, for clients that pin it.
    #[command(after_help = "Example: backstitch keys show --data backstitch-data")]
    Show {
        #[command(flatten)]
        config: ConfigArgs,
        /// Print as JSON.
        #[arg(long)]
        json: bool,
    },
}

impl KeysCommand {
    pub(super) fn run(self) -> Result<()> {
        let Self::Show { config, json } = self;
        let path = config.load()?.key_path();
        if !path.is_file() {
            return Err(not_found(format!("key in {}", path.display()))
                .with_hint("it is made when the server starts for the first time"));
        }
        let public_key = hex::encode(registry::signing_key(&path)?.verifying_key().to_bytes());
        match json {
            true => print_json(&serde_json::json!({ "public_key": public_key })),
            false => {
                println!("{public_key}");
                Ok(())
            }
        }
    }
}
