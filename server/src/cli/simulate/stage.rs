//! A server without HTTP, tokens and real noise: store, ledger, rounds, releases and signed catalogs are the server's
//! own, in a temporary folder, at a time that stands still.

use std::time::{Duration, Instant};

use backstitch_client::client::{Client, Options};
use backstitch_client::memory::MemoryPort;
use backstitch_client::port::{Request, Response};
use backstitch_client::random::SplitMix;
use backstitch_edge::sampling::normal;
use backstitch_onnx::Digest;
use backstitch_protocol::Problem;
use backstitch_protocol::id::Name;
use futures::executor::block_on;
use futures::future::join_all;
use tempfile::TempDir;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::setting::Setting;
use crate::clock::Clock;
use crate::config::Config;
use crate::failure::{Failure, Result, internal, not_found};
use crate::privacy::NoiseSource;
use crate::registry;
use crate::round::Rounds;
use crate::server;
use crate::services::Services;
use crate::task::TaskId;

/// Seconds since 1970: when every simulation takes place. All its rounds fall into one period.
pub(super) const NOW: u64 = 1_800_000_000;

/// Where the onlooker finds the libraries.
const ADDRESS: &str = "http://simulation/v1/";

/// A release takes milliseconds; one that takes this long has failed.
const PATIENCE: Duration = Duration::from_secs(120);

/// The server.
pub(super) struct Stage {
    services: Services,
    rounds: Rounds,
    task: TaskId,
    runtime: Handle,
    _runners: JoinSet<()>,
    _folder: TempDir,
}

impl Stage {
    /// Imports the library and opens its first round, on the terms of the command line.
    pub(super) fn open(setting: &Setting, runtime: &Handle) -> Result<Self> {
        let folder = tempfile::tempdir().while_doing("creating a temporary folder")?;
        let config = Config::in_folder(folder.path());
        let task = setting.task();
        let mut runners = JoinSet::new();
        let (services, rounds) = runtime.block_on(async {
            let mut services = server::services(&config, Clock::of(|| NOW)).await?;
            services.noise = noise(setting.seed)?;
            let Services { store, blobs, .. } = &services;
            registry::import(store, blobs, &setting.source, NOW).await?;
            // There is no door here at which a token would be asked for.
            let terms = registry::TaskDescriptor { tokens: false, ..setting.terms.clone() };
            registry::set_terms(store, &task, &terms).await?;
            let rounds = Rounds::start(&services, &mut runners).await?;
            services.catalogs.issue_all().await?;
            Ok::<_, Problem>((services, rounds))
        })?;
        let (runtime, _folder, _runners) = (runtime.clone(), folder, runners);
        Ok(Self { services, rounds, task, runtime, _runners, _folder })
    }

    /// A client that reads the signed catalog and what it names.
    pub(super) fn onlooker(&self, setting: &Setting) -> Result<Client<MemoryPort>> {
        let (services, runtime) = (self.services.clone(), self.runtime.clone());
        let port = MemoryPort::new(setting.seed, move |request| {
            runtime.block_on(answer(&services, request))
        });
        port.unix_seconds.set(NOW);
        let options = Options { workshop: setting.workshop.clone(), ..Options::default() };
        let url = format!("{ADDRESS}libraries/{}", setting.library);
        block_on(Client::open(port, &url, options, &|_| {}, &|| false))
    }

    /// Posts frames.
    pub(super) fn contribute(&self, frames: Vec<Vec<u8>>) -> Result<()> {
        let posts = frames.iter().map(|frame| self.rounds.contribute(&self.task, frame, None));
        let accepted = self.runtime.block_on(join_all(posts));
        accepted.into_iter().try_for_each(|one| one.map(|_| ()))
    }

    /// Returns once the catalog offers this round.
    pub(super) fn await_round(&self, round: u64) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        let catalogs = &self.services.catalogs;
        let mut news = catalogs.subscribe();
        loop {
            let issued = catalogs.newest(&self.task.library)?;
            let task = issued.catalog.tasks.iter().find(|task| task.name == self.task.name);
            if task.is_some_and(|task| task.round >= round) {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(internal(format!("round {round} of {} does not open", self.task)));
            }
            let wait = tokio::time::timeout(Duration::from_secs(1), news.recv());
            drop(self.runtime.block_on(wait));
        }
    }

    /// Writes the store back and ends.
    pub(super) fn close(self) {
        self.runtime.block_on(self.services.store.close());
    }
}

/// Catalogs and blobs, as HTTP serves them.
async fn answer(services: &Services, request: &Request) -> Result<Response> {
    let path = request.url.strip_prefix(ADDRESS).unwrap_or_default();
    let body = match path.split('/').collect::<Vec<_>>()[..] {
        ["libraries", library, "catalog"] => {
            services.catalogs.newest(&Name::new(library)?)?.body.to_vec()
        }
        ["blobs", digest] => {
            let digest: Digest = format!("sha256:{digest}").parse()?;
            services.blobs.get(&digest).await?.to_vec()
        }
        _ => return Err(not_found(format!("address {}", request.url))),
    };
    Ok(Response { status: 200, body, ..Response::default() })
}

/// Noise that the seed decides: the continuous Gaussian, rounded. At these deviations, tens of thousands, nobody can
/// tell it from the discrete one. It hides nothing from whoever knows the seed.
fn noise(seed: u64) -> Result<NoiseSource> {
    let mut draws = SplitMix::new(!seed);
    NoiseSource::of(move |values, sigma| {
        values.into_iter().map(|v| v + (sigma * normal(&mut draws)).round() as i64).collect()
    })
}
