//! `backstitch audit`: canaries contribute to a real server through HTTP, and the published weights are asked who was
//! in. What they tell must not exceed what is promised.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::http::{Request, header};
use backstitch_client::random::SplitMix;
use backstitch_onnx::patch::{Kind, Patch, Template, template};
use backstitch_onnx::{DType, Digest, Dim, Graph, Model, Node, Tensor, ValueInfo};
use backstitch_protocol::Problem;
use backstitch_protocol::catalog::{Blob, Catalog, TaskEntry};
use backstitch_protocol::contribution::{Contribution, MEDIA_TYPE, Nullifier};
use backstitch_protocol::delta::Delta as Update;
use backstitch_protocol::privacy::{Delta, NoiseMultiplier, RhoQuanta};
use backstitch_protocol::problem::Code;
use backstitch_protocol::trust::{SignedCatalog, Trust};
use clap::Args;
use serde::Serialize;

use super::admin::send;
use super::print_json;
use crate::clock::Clock;
use crate::config::Config;
use crate::failure::{Failure, Result, internal};
use crate::privacy::audit::{Canary, Finding};
use crate::registry::{LibraryDescriptor, Source};
use crate::server::Server;

/// Contributions that are on their way at a time.
const IN_FLIGHT: usize = 8;

/// Times that a canary's bytes are sent to a server that is not available.
const ATTEMPTS: u32 = 10;

/// How long the release may take after the last contribution.
const PATIENCE: Duration = Duration::from_secs(120);

/// Attack a release of a server of its own through HTTP, and hold what it tells to what is promised.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  backstitch audit                                   the settings of the sample library's task
  backstitch audit --library my-library --json
  backstitch audit --noise-multiplier 0.5 --claim 2  fails: the release tells more than ε = 2

One release is attacked, so k = 1. Exit code 1 where a lower bound on ε is above the claim.")]
pub(super) struct Audit {
    /// Library whose first task gives noise multiplier and δ: embedded:fashion, or a folder.
    #[arg(long, default_value = "embedded:fashion")]
    library: String,
    /// σ / C, instead of the task's.
    #[arg(long, value_name = "Z")]
    noise_multiplier: Option<f64>,
    /// δ, instead of the task's.
    #[arg(long)]
    delta: Option<f64>,
    /// The ε to hold the results to, instead of what the settings promise.
    #[arg(long, value_name = "EPSILON")]
    claim: Option<f64>,
    /// Canaries, which is also the number of parameters; each is in with probability ½.
    #[arg(long, default_value_t = 2000)]
    canaries: u32,
    /// Decides who is in.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

/// What was claimed, what was found.
#[derive(Debug, Serialize)]
struct Report {
    noise_multiplier: f64,
    delta: f64,
    rho: f64,
    claimed_epsilon: f64,
    found: Finding,
    lower_bound: f64,
    holds: bool,
}

impl Audit {
    pub(super) async fn run(self) -> Result<()> {
        let (z, delta) = self.settings()?;
        if self.canaries < 100 || self.canaries % 2 == 1 {
            return Err(Problem::new(
                Code::RequestInvalid,
                format!("--canaries {} must be even and at least 100", self.canaries),
            ));
        }
        let canaries = attack(z, delta, self.canaries, self.seed).await?;
        let rho = RhoQuanta::of_release(z);
        let found = Finding::of(&canaries, delta);
        let claimed_epsilon = self.claim.unwrap_or_else(|| rho.epsilon(delta));
        let lower_bound = found.lower_bound();
        let report = Report {
            noise_multiplier: z.value(),
            delta: delta.value(),
            rho: rho.rho(),
            claimed_epsilon,
            found,
            lower_bound,
            holds: lower_bound <= claimed_epsilon,
        };
        match self.json {
            true => print_json(&report)?,
            false => print(&report),
        }
        match report.holds {
            true => Ok(()),
            false => Err(Problem::new(
                Code::PrivacyInvalid,
                format!(
                    "the release tells more than is claimed: ε is at least {lower_bound:.2}, the claim is {claimed_epsilon:.2}"
                ),
            )
            .with_hint("stop releasing, and find what the noise, the clip or the debit lacks")),
        }
    }

    fn settings(&self) -> Result<(NoiseMultiplier, Delta)> {
        let source = Source::parse(&self.library)?;
        let library = LibraryDescriptor::from_bytes(&source.read("library.json")?)?;
        let task = library.tasks.first();
        let z = match (self.noise_multiplier, task) {
            (Some(z), _) => NoiseMultiplier::new(z)?,
            (None, Some(task)) => task.noise_multiplier,
            (None, None) => {
                return Err(Problem::new(Code::RequestInvalid, format!("{source} has no task"))
                    .with_hint("give --noise-multiplier"));
            }
        };
        let delta = match (self.delta, task) {
            (Some(delta), _) => Delta::new(delta)?,
            (None, Some(task)) => task.delta,
            (None, None) => Delta::new(1e-6)?,
        };
        Ok((z, delta))
    }
}

fn print(report: &Report) {
    let Finding { auc, auc_ci95: [low, high], .. } = report.found;
    let found = &report.found;
    println!(
        "one release, z = {}, δ = {}, {} canaries through HTTP",
        report.noise_multiplier, report.delta, found.canaries
    );
    println!("  claimed          ε = {:.2}  (ρ = {:.4})", report.claimed_epsilon, report.rho);
    println!(
        "  Gaussian fit     ε = {:.2}, at least {:.2} (99.9 %); σ / C = {:.3}",
        found.gaussian_fit_epsilon, found.gaussian_fit_lower, found.noise_multiplier
    );
    println!("  one-run bound    ε ≥ {:.2} (95 %)", found.one_run_lower);
    println!(
        "  membership       AUC {auc:.3} (95 %: {low:.3} to {high:.3}), {:.1} % found at 1 % false alarms",
        100.0 * found.true_positives_at_1_percent
    );
    println!("  {}", if report.holds { "the claim holds" } else { "THE CLAIM DOES NOT HOLD" });
}

/// Runs a server, lets every canary contribute, and scores the published weights.
async fn attack(z: NoiseMultiplier, delta: Delta, canaries: u32, seed: u64) -> Result<Vec<Canary>> {
    let folder = tempfile::tempdir().while_doing("creating a temporary folder")?;
    let library = folder.path().join("library");
    write_library(&library, z, delta, canaries)?;
    let mut config = Config::in_folder(folder.path().join("data"));
    config.libraries = vec![library.display().to_string()];
    let running = Server::start(config).await?;
    let server = running.public_addr;
    let before = catalog(server).await?;
    let mut draws = SplitMix::new(seed);
    let included: Vec<bool> = (0..canaries).map(|_| draws.uniform() < 0.5).collect();
    contribute(server, &before.tasks[0], &included).await?;
    let started = Instant::now();
    let after = loop {
        let newest = catalog(server).await?;
        if newest.tasks[0].round > 1 {
            break newest;
        }
        if started.elapsed() > PATIENCE {
            return Err(internal("the release does not come"));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let (old, new) = (weights(server, &before).await?, weights(server, &after).await?);
    running.shutdown().await;
    let moved = old.iter().zip(&new).map(|(o, n)| f64::from(*n) - f64::from(*o));
    let scores = moved.map(|m| m * f64::from(canaries));
    Ok(included
        .into_iter()
        .zip(scores)
        .map(|(included, score)| Canary { included, score })
        .collect())
}

/// A library with one affine patch of as many parameters as there are canaries.
fn write_library(folder: &Path, z: NoiseMultiplier, delta: Delta, canaries: u32) -> Result<()> {
    let width = canaries as usize / 2;
    let rows = |name: &str, last: usize| ValueInfo {
        name: name.into(),
        dtype: DType::F32,
        shape: Some(vec![Dim::Symbol("N".into()), Dim::Fixed(last)]),
    };
    let head = Tensor::new(vec![width, 2], &vec![0.01f32; 2 * width])?;
    let graph = Graph {
        name: "audit".into(),
        nodes: vec![Node::new("Relu", &["x"], &["h"]), Node::new("MatMul", &["h", "w"], &["y"])],
        initializers: [("w".to_owned(), head)].into(),
        inputs: vec![rows("x", width)],
        outputs: vec![rows("y", 2)],
    };
    let primary = Model { opset: 17, graph };
    let bytes = primary.to_bytes();
    let settings =
        Template { kind: Kind::Affine, name: "canary", sites: &["h"], rank: 1, classes: None };
    let patch = template(&primary, Digest::of(&bytes), &settings)?;
    let epsilon = RhoQuanta::of_release(z).epsilon_bound(delta) * 1.01;
    let descriptor = serde_json::json!({
        "format": 1, "name": "audit", "title": "Audit", "description": "Canaries.", "modality": "series",
        "primary": { "file": "primary.onnx", "input": "x", "output": "y" },
        "patches": ["canary"],
        "tasks": [{
            "name": "canary", "patches": ["canary"], "goal": canaries, "clip_norm": 1.0,
            "noise_multiplier": z, "max_participations": 1, "period_days": 1, "min_separation": 1,
            "epsilon": epsilon, "delta": delta, "server_learning_rate": 1.0, "server_momentum": 0.0,
            // Who may contribute is not the question here.
            "tokens": false
        }]
    });
    let write = |path: &str, bytes: &[u8]| -> Result<()> {
        let path = folder.join(path);
        std::fs::create_dir_all(path.parent().unwrap_or(folder))
            .while_doing("creating a folder")?;
        std::fs::write(&path, bytes).while_doing(format!("writing {}", path.display()))
    };
    write("primary.onnx", &bytes)?;
    write("patches/canary/patch.onnx", &patch.model().to_bytes())?;
    write("patches/canary/patch.json", &patch.manifest().to_bytes())?;
    write("library.json", descriptor.to_string().as_bytes())
}

/// Every canary posts once: its own coordinate at the clip norm, or zeros.
async fn contribute(server: SocketAddr, task: &TaskEntry, included: &[bool]) -> Result<()> {
    let task = Arc::new(task.clone());
    let included: Arc<[bool]> = included.into();
    let mut workers = tokio::task::JoinSet::new();
    for first in 0..IN_FLIGHT {
        let (task, included) = (Arc::clone(&task), Arc::clone(&included));
        workers.spawn(async move {
            for canary in (first..included.len()).step_by(IN_FLIGHT) {
                post(server, &task, canary, included[canary]).await?;
            }
            Ok::<_, Problem>(())
        });
    }
    while let Some(done) = workers.join_next().await {
        done.while_doing("posting canaries")??;
    }
    Ok(())
}

async fn post(server: SocketAddr, task: &TaskEntry, canary: usize, included: bool) -> Result<()> {
    let zeros = vec![0.0; task.parameters as usize];
    let mut trained = zeros.clone();
    if included {
        trained[canary] = task.clip_norm.value() as f32;
    }
    let clipped = Update::between(&zeros, &trained)?.clip(task.clip_norm)?;
    let mut secret = [0; 32];
    secret[..8].copy_from_slice(&(canary as u64).to_le_bytes());
    let nullifier = Nullifier::derive(&secret, &task.name, task.round);
    let frame = Contribution::new(task.base, nullifier, clipped).encode();
    let frame = Bytes::from(frame);
    for attempt in 1.. {
        let request = Request::post(format!("/v1/tasks/audit.{}/contributions", task.name))
            .header(header::HOST, server.to_string())
            .header(header::CONTENT_TYPE, MEDIA_TYPE)
            .header(header::CONTENT_LENGTH, frame.len())
            .body(Body::from(frame.clone()))
            .while_doing("making a request")?;
        match answer(server, request).await? {
            (200, _) => break,
            // A machine under load: the same bytes count once, however often they are sent.
            (503, _) if attempt < ATTEMPTS => tokio::time::sleep(Duration::from_secs(1)).await,
            (status, text) => {
                let text = String::from_utf8_lossy(&text);
                return Err(internal(format!("canary {canary}: {status}: {text}")));
            }
        }
    }
    Ok(())
}

async fn catalog(server: SocketAddr) -> Result<Catalog> {
    let body = get(server, "/v1/libraries/audit/catalog").await?;
    let signed: SignedCatalog = serde_json::from_slice(&body).when_reading("the catalog")?;
    Trust::default().accept(&signed, Clock::system().now())
}

/// The champion's parameters in a contribution's order.
async fn weights(server: SocketAddr, catalog: &Catalog) -> Result<Vec<f32>> {
    let champion = catalog
        .patches
        .iter()
        .find(|patch| patch.version == catalog.tasks[0].base_versions[0])
        .ok_or_else(|| internal("the catalog lacks its champion"))?;
    let blob = async |blob: &Blob| get(server, &format!("/v1/blobs/{}", blob.digest.hex())).await;
    let (manifest, graph) = (blob(&champion.manifest).await?, blob(&champion.graph).await?);
    let own = match &champion.weights {
        Some(weights) => Some(blob(weights).await?),
        None => None,
    };
    let patch = Patch::from_parts(&manifest, &graph, own.as_deref())?;
    let mut values = Vec::new();
    for tensor in patch.weights().into_values() {
        values.extend(tensor.values::<f32>()?);
    }
    Ok(values)
}

async fn get(server: SocketAddr, path: &str) -> Result<Bytes> {
    let request = Request::get(path)
        .header(header::HOST, server.to_string())
        .body(Body::empty())
        .while_doing("making a request")?;
    match answer(server, request).await? {
        (200, body) => Ok(body),
        (status, _) => Err(internal(format!("{path}: {status}"))),
    }
}

async fn answer(server: SocketAddr, request: Request<Body>) -> Result<(u16, Bytes)> {
    let (status, body) = send(server, request)
        .await
        .map_err(|cause| Problem::new(Code::NetworkFailed, format!("{server}: {cause}")))?;
    Ok((status.as_u16(), body))
}
