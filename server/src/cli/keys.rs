//! `backstitch keys`: the root that clients pin, and the release keys that it vouches for.

use std::path::{Path, PathBuf};

use backstitch_protocol::trust::Certificate;
use clap::{Args, Subcommand};
use serde_json::json;

use super::{ConfigArgs, print_json};
use crate::clock::Clock;
use crate::failure::{Failure, Result, not_found};
use crate::registry::{self, Keys, RELEASE_DAYS, Signer};

/// The root that clients pin, and the release keys that it vouches for.
#[derive(Debug, Subcommand)]
pub(super) enum KeysCommand {
    /// Print the root's public key, for clients that pin it, and what signs catalogs now.
    #[command(after_help = "Example: backstitch keys show --data backstitch-data")]
    Show {
        #[command(flatten)]
        output: Output,
    },
    /// Make a root key, on a machine that stays offline.
    #[command(after_help = "Example: backstitch keys root --out root.key")]
    Root {
        /// The file; it must not exist.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// On the server: make the next release key, and print what the root must sign.
    #[command(after_help = "Example: backstitch keys prepare --data backstitch-data")]
    Prepare {
        #[command(flatten)]
        output: Output,
    },
    /// Where the root is: sign a release key.
    #[command(
        after_help = "Example: backstitch keys issue --root root.key --serial 2 --key 3b6a… --out release-2.json"
    )]
    Issue(Issue),
    /// On the server: put a certificate into force. A running server takes it up within a minute.
    #[command(
        after_help = "Example: backstitch keys install release-2.json --data backstitch-data"
    )]
    Install {
        /// The certificate.
        certificate: PathBuf,
        #[command(flatten)]
        output: Output,
    },
    /// Prepare, issue and install in one step, where server and root are on one machine.
    #[command(
        after_help = "Example: backstitch keys rotate --root /media/usb/root.key --data backstitch-data"
    )]
    Rotate {
        /// The root key; by default the one in the data folder.
        #[arg(long, value_name = "FILE")]
        root: Option<PathBuf>,
        /// Days until the release key expires.
        #[arg(long, default_value_t = RELEASE_DAYS)]
        days: u32,
        #[command(flatten)]
        output: Output,
    },
}

/// Which server's keys, and how to print.
#[derive(Debug, Args)]
pub(super) struct Output {
    #[command(flatten)]
    config: ConfigArgs,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

/// A release key to vouch for.
#[derive(Debug, Args)]
pub(super) struct Issue {
    /// The root key.
    #[arg(long, value_name = "FILE")]
    root: PathBuf,
    /// The release key's public half, as `prepare` printed it.
    #[arg(long, value_name = "HEX")]
    key: String,
    /// Its serial, as `prepare` printed it.
    #[arg(long)]
    serial: u64,
    /// Days until it expires.
    #[arg(long, default_value_t = RELEASE_DAYS)]
    days: u32,
    /// Where the certificate goes.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

impl KeysCommand {
    pub(super) fn run(self) -> Result<()> {
        let now = Clock::system().now();
        match self {
            Self::Show { output } => {
                let keys = output.keys()?;
                let signer = keys.newest()?.ok_or_else(|| {
                    not_found("release key with a certificate").with_hint(
                        "the server makes both at its first start, or use `keys prepare`",
                    )
                })?;
                output.print(&keys, &signer)
            }
            Self::Root { out } => {
                println!("{}", registry::public(&registry::create_root(&out)?));
                Ok(())
            }
            Self::Prepare { output } => {
                let (serial, key) = output.keys()?.prepare()?;
                match output.json {
                    true => print_json(&json!({ "serial": serial, "key": key })),
                    false => {
                        println!("--serial {serial} --key {key}");
                        Ok(())
                    }
                }
            }
            Self::Issue(issue) => issue.run(now),
            Self::Install { certificate, output } => {
                let keys = output.keys()?;
                keys.install(&read(&certificate)?, now)?;
                output.print(&keys, &keys.signer(now)?)
            }
            Self::Rotate { root, days, output } => {
                let keys = output.keys()?;
                let root = match root {
                    Some(path) => registry::read_root(&path)?,
                    None => keys.root()?.ok_or_else(|| {
                        not_found("root key in the data folder").with_hint("name it with --root")
                    })?,
                };
                let signer = keys.rotate(&root, days, now)?;
                output.print(&keys, &signer)
            }
        }
    }
}

impl Issue {
    fn run(self, now: u64) -> Result<()> {
        let root = registry::read_root(&self.root)?;
        let certificate = registry::certify(&root, self.key, self.serial, self.days, now)?;
        let text = serde_json::to_vec(&certificate).while_doing("writing a certificate")?;
        registry::replace(&self.out, &text)?;
        println!("{}", self.out.display());
        Ok(())
    }
}

impl Output {
    fn keys(&self) -> Result<Keys> {
        Ok(Keys::in_folder(self.config.load()?.keys_folder()))
    }

    fn print(&self, keys: &Keys, signer: &Signer) -> Result<()> {
        let release = signer.release();
        let root_at_hand = keys.root()?.is_some();
        if self.json {
            return print_json(&json!({
                "public_key": signer.root(),
                "root_at_hand": root_at_hand,
                "release": release,
            }));
        }
        println!("{}", signer.root());
        let place = if root_at_hand { "in the data folder" } else { "offline" };
        println!("root      {place}");
        println!("release   {} (serial {})", release.key, release.serial);
        let left = release.expires_at.saturating_sub(Clock::system().now());
        println!("expires   in {} days ({} s since 1970)", left / 86_400, release.expires_at);
        Ok(())
    }
}

fn read(path: &Path) -> Result<Certificate> {
    let text = std::fs::read(path).when_reading(path.display())?;
    serde_json::from_slice(&text).when_reading(path.display())
}
