//! `backstitch doctor`: tries what the server needs, one line each.

use std::net::SocketAddr;

use backstitch_onnx::engine;
use backstitch_protocol::Problem;
use backstitch_protocol::privacy::{NoiseMultiplier, RhoQuanta};
use backstitch_protocol::problem::Code;
use clap::Args;
use serde::Serialize;

use super::{ConfigArgs, print_json};
use crate::blob::Blobs;
use crate::clock::Clock;
use crate::config::Config;
use crate::failure::{Failure, Result, internal};
use crate::privacy::{Ledger, NoiseSource, Witness};
use crate::registry;
use crate::server;
use crate::store::Store;

/// Say what is wrong before users do.
#[derive(Debug, Args)]
#[command(after_help = "Example: backstitch doctor --config backstitch.toml")]
pub(super) struct Doctor {
    #[command(flatten)]
    config: ConfigArgs,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Finding {
    check: &'static str,
    ok: bool,
    detail: String,
}

impl Doctor {
    pub(super) async fn run(self) -> Result<()> {
        let config = self.config.load()?;
        let mut findings = Vec::new();
        let mut note = |check, result: Result<String>| {
            let ok = result.is_ok();
            let detail = result.unwrap_or_else(|problem| problem.to_string());
            findings.push(Finding { check, ok, detail });
        };
        note("clock", clock());
        note(
            "engine",
            engine::self_test().map(|()| "kernels are registered".into()).map_err(Problem::from),
        );
        note("data folder", server::lock(&config).map(|_| config.data.display().to_string()));
        note("database and ledger", ledger(&config).await);
        note("blobs", blobs(&config).await);
        note("signing keys", signing(&config));
        note(
            "operators' token",
            registry::token(&config.token_path())
                .map(|_| config.token_path().display().to_string()),
        );
        note("noise", noise().await);
        note("public port", port(config.public.listen).await);
        note("operators' port", port(config.admin.listen).await);
        note("exposure", exposure(&config));
        self.print(&findings)
    }

    fn print(&self, findings: &[Finding]) -> Result<()> {
        if self.json {
            print_json(&findings)?;
        } else {
            for Finding { check, ok, detail } in findings {
                println!("{} {check:<20} {detail}", if *ok { "ok  " } else { "FAIL" });
            }
        }
        match findings.iter().filter(|finding| !finding.ok).count() {
            0 => Ok(()),
            failed => Err(Problem::new(
                Code::Unavailable,
                format!("{failed} of {} checks failed", findings.len()),
            )),
        }
    }
}

fn clock() -> Result<String> {
    let now = Clock::system().now();
    // Catalogs expire by the clock; 2024-01-01 is before this program was written.
    match now > 1_704_067_200 {
        true => Ok(format!("{now} s since 1970")),
        false => Err(internal("the clock is years behind; clients would refuse the catalogs")),
    }
}

fn signing(config: &Config) -> Result<String> {
    let keys = registry::Keys::in_folder(config.keys_folder());
    let now = Clock::system().now();
    let signer = keys.signer(now)?;
    let days = signer.release().expires_at.saturating_sub(now) / 86_400;
    let root = match keys.root()? {
        Some(_) => "the root is at hand and replaces it in time",
        None => "the root is offline: rotate before then",
    };
    Ok(format!("release key {} for {days} days; {root}", signer.release().serial))
}

async fn ledger(config: &Config) -> Result<String> {
    let store = Store::open(&config.store_path()?).await?;
    let ledger = Ledger::new(store.clone());
    let head = ledger.verify().await?;
    Witness::in_folder(&config.data).compare(&ledger).await?;
    store.close().await;
    Ok(format!("{} records, the chain holds", head.sequence))
}

async fn blobs(config: &Config) -> Result<String> {
    let folder = config.blob_folder()?;
    Blobs::in_folder(&folder)?.put(&b"backstitch doctor"[..]).await?;
    Ok(folder.display().to_string())
}

async fn noise() -> Result<String> {
    let z = NoiseMultiplier::new(1.0)?;
    let noised = NoiseSource::start()?
        .add(
            vec![0; 2000],
            crate::privacy::Band::new(1)?.sensitivity(),
            z,
            RhoQuanta::of_release(z),
        )
        .await?;
    let deviation = (noised.iter().map(|v| (*v as f64).powi(2)).sum::<f64>() / 2000.0).sqrt();
    let ratio = deviation / backstitch_protocol::delta::CLIP_INTEGER as f64;
    match (0.9..1.1).contains(&ratio) {
        true => Ok(format!("σ is {ratio:.3} of what is charged, from 2,000 draws")),
        false => Err(internal(format!("σ is {ratio:.3} of what is charged"))),
    }
}

async fn port(listen: SocketAddr) -> Result<String> {
    tokio::net::TcpListener::bind(listen).await.while_doing(format!("listening on {listen}"))?;
    Ok(listen.to_string())
}

fn exposure(config: &Config) -> Result<String> {
    match config.admin.listen.ip().is_loopback() {
        true => Ok("the operators' port is on the loopback".into()),
        false => {
            Ok(format!("{} is not the loopback: keep it off the internet", config.admin.listen))
        }
    }
}
