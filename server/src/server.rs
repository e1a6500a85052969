//! Starts and stops a whole server; `backstitch serve`, the demo and the tests all come through here.

use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use backstitch_protocol::Problem;
use backstitch_protocol::problem::Code;
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::admission::{Admission, Enrolment};
use crate::blob::Blobs;
use crate::clock::Clock;
use crate::config::Config;
use crate::failure::{Failure, Result};
use crate::http::listen::{self, Limits};
use crate::http::{self, App, tls};
use crate::privacy::{Ledger, NoiseSource, Witness};
use crate::registry::{self, Catalogs, Keys, Source};
use crate::round::Rounds;
use crate::services::Services;
use crate::store::Store;

/// How often catalogs are looked at for their age.
const TICK: Duration = Duration::from_secs(60);

/// Starts servers.
pub struct Server;

/// A server that runs until [`Running::shutdown`].
pub struct Running {
    /// Where everybody connects.
    pub public_addr: SocketAddr,
    /// Where operators connect.
    pub admin_addr: SocketAddr,
    /// The operators' bearer token.
    pub admin_token: String,
    /// Hex of the root key: what clients pin.
    pub public_key: String,
    tls: bool,
    services: Services,
    stopping: watch::Sender<bool>,
    tasks: JoinSet<()>,
    /// Keeps other processes off data folder and database.
    _lock: Lock,
}

impl Server {
    /// Starts a server; port 0 takes a free one.
    pub async fn start(config: Config) -> Result<Running> {
        start(config, Clock::system(), false).await
    }

    /// The same with a clock of one's own, so that tests can move through periods.
    pub async fn start_with_clock(config: Config, clock: Clock) -> Result<Running> {
        start(config, clock, false).await
    }

    /// The same where `/console` on the public port leads to the console with its token. Loopback only.
    pub async fn start_demo(config: Config) -> Result<Running> {
        start(config, Clock::system(), true).await
    }
}

impl Running {
    /// `http://host:port` of the public plane, `https` where it speaks TLS.
    pub fn public_url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}", self.public_addr)
    }

    /// The address of a library, as clients open it.
    pub fn library_url(&self, library: &str) -> String {
        format!("{}/v1/libraries/{library}", self.public_url())
    }

    /// `http://host:port` of the operator plane.
    pub fn admin_url(&self) -> String {
        format!("http://{}", self.admin_addr)
    }

    /// The console with its token in the fragment, which no server or log sees; it opens at `library`.
    pub fn console_url(&self, library: &str) -> String {
        console_url(self.admin_addr, &format!("?library={library}"), &self.admin_token)
    }

    /// The shared parts, for whoever embeds a server.
    pub fn services(&self) -> &Services {
        &self.services
    }

    /// Stops accepting, lets open requests finish, and closes the store.
    pub async fn shutdown(mut self) {
        self.stopping.send_replace(true);
        while self.tasks.join_next().await.is_some() {}
        self.services.store.close().await;
    }
}

fn console_url(admin: SocketAddr, query: &str, token: &str) -> String {
    format!("http://{admin}/console{query}#token={token}")
}

async fn start(config: Config, clock: Clock, demo: bool) -> Result<Running> {
    config.check()?;
    let lock = lock(&config)?;
    let services = services(&config, clock).await?;
    for source in &config.libraries {
        let source = Source::parse(source)?;
        let imported =
            registry::import(&services.store, &services.blobs, &source, services.clock.now())
                .await?;
        tracing::info!(library = %imported.library, new_versions = imported.versions.len(), %source, "imported");
        for change in &imported.changes {
            tracing::info!(library = %imported.library, %change, "the library was changed by an import");
        }
    }
    let mut tasks = JoinSet::new();
    let rounds = Rounds::start(&services, &mut tasks).await?;
    services.catalogs.issue_all().await?;

    let tls = tls::acceptor(&config.public.tls)?;
    let public = bind(config.public.listen, "public.listen").await?;
    let admin = bind(config.admin.listen, "admin.listen").await?;
    let (public_addr, admin_addr) = (address(&public)?, address(&admin)?);
    let admin_token = registry::token(&config.token_path())?;
    let (stopping, stops) = watch::channel(false);
    let app = App {
        services: services.clone(),
        rounds: Arc::new(rounds),
        token_digest: Sha256::digest(admin_token.as_bytes()).into(),
        started_at: services.clock.now(),
        stopping: stops.clone(),
        metrics: http::metrics_handle()?,
        console_url: (demo && public_addr.ip().is_loopback() && admin_addr.ip().is_loopback())
            .then(|| console_url(admin_addr, "", &admin_token)),
    };
    let (pages, console) = (http::public(&app, &config), http::admin(&app, &config));
    tasks.spawn(listen::serve(public, tls, pages, Limits::of(&config), stops.clone()));
    tasks.spawn(listen::serve(admin, None, console, Limits::of(&config), stops.clone()));
    tasks.spawn(keep_fresh(services.clone(), stops));
    let public_key = services.catalogs.root_key()?;
    tracing::info!(%public_addr, %admin_addr, %public_key, "serving");
    Ok(Running {
        public_addr,
        admin_addr,
        admin_token,
        public_key,
        tls: !config.public.tls.is_off(),
        services,
        stopping,
        tasks,
        _lock: lock,
    })
}

/// Opens what the data folder holds, after checking the ledger's chain.
pub(crate) async fn services(config: &Config, clock: Clock) -> Result<Services> {
    let store = Store::open(&config.store_path()?).await?;
    let ledger = Ledger::new(store.clone());
    let head = ledger.verify().await?;
    let witness = Witness::in_folder(&config.data);
    witness.check(&ledger).await?;
    tracing::info!(records = head.sequence, head = %head.hash, "privacy ledger verified");
    let keys = config.keys_folder();
    registry::private_folder(&keys)?;
    let seed = registry::seed(&keys.join("tokens.key"))?;
    let enrolment = Enrolment::of(&config.enrolment)?;
    let admission = Admission::new(&seed, enrolment, store.clone(), clock.clone())?;
    let (keys, times) = (Keys::in_folder(keys), config.catalog.clone());
    let catalogs = Catalogs::new(store.clone(), keys, admission.key(), times, clock.clone())?;
    Ok(Services {
        blobs: Blobs::in_folder(&config.blob_folder()?)?,
        ledger,
        witness,
        noise: NoiseSource::start()?,
        admission: Arc::new(admission),
        catalogs: Arc::new(catalogs),
        changes: watch::Sender::new(0),
        clock,
        store,
    })
}

/// Signs catalogs again before they get old, until the server stops.
async fn keep_fresh(services: Services, mut stopping: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(TICK) => {
                if let Err(problem) = services.catalogs.reissue_due().await {
                    tracing::error!(%problem, "catalogs could not be signed again");
                }
            }
            () = stopped(&mut stopping) => return,
        }
    }
}

/// Returns once the server is to stop, or is gone.
pub(crate) async fn stopped(stopping: &mut watch::Receiver<bool>) {
    drop(stopping.wait_for(|stopping| *stopping).await);
}

/// Keeps other processes off a data folder and a database until it is dropped.
pub(crate) struct Lock {
    _held: [File; 2],
}

/// Creates the data folder and keeps every other server off it and off its database, by whatever folder and name the
/// other one comes to that: the ledger has one writer.
pub(crate) fn lock(config: &Config) -> Result<Lock> {
    let (folder, store) = (&config.data, config.store_path()?);
    std::fs::create_dir_all(folder).while_doing(format!("creating {}", folder.display()))?;
    // Where a link leads; a database that is not there yet is made at its name.
    let store = store.canonicalize().unwrap_or(store);
    let held = [
        exclusive(&folder.join("lock"), folder)?,
        exclusive(&store.with_added_extension("lock"), &store)?,
    ];
    Ok(Lock { _held: held })
}

fn exclusive(path: &Path, what: &Path) -> Result<File> {
    let file = File::create(path).while_doing(format!("creating {}", path.display()))?;
    file.try_lock().map_err(|_| {
        Problem::new(Code::Conflict, format!("another process uses {}", what.display()))
            .with_hint("stop the server that runs on it first")
    })?;
    Ok(file)
}

async fn bind(wanted: SocketAddr, field: &str) -> Result<TcpListener> {
    TcpListener::bind(wanted).await.map_err(|cause| {
        Problem::new(Code::Unavailable, format!("{field}: {wanted} cannot be used: {cause}"))
            .with_hint("choose another port, or stop what listens there")
    })
}

fn address(listener: &TcpListener) -> Result<SocketAddr> {
    listener.local_addr().while_doing("asking for the address")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_server_writes_to_a_folder_and_to_a_database() {
        let folder = tempfile::tempdir().unwrap();
        let config = |data: &str| Config::in_folder(folder.path().join(data));
        let held = lock(&config("a")).unwrap();
        assert!(lock(&config("a")).is_err_and(|problem| problem.is(Code::Conflict)));
        drop(held);
        lock(&config("a")).unwrap();
        // Folders of their own, but one ledger.
        let shared = |data: &str| Config {
            store: format!("sqlite://{}", folder.path().join("shared.db").display()),
            ..config(data)
        };
        let held = lock(&shared("a")).unwrap();
        assert!(lock(&shared("b")).is_err_and(|problem| problem.is(Code::Conflict)));
        drop(held);
        // The database of the other's own folder.
        let _held = lock(&config("a")).unwrap();
        let theirs = Config {
            store: format!("sqlite://{}", folder.path().join("a/backstitch.db").display()),
            ..config("b")
        };
        assert!(lock(&theirs).is_err_and(|problem| problem.is(Code::Conflict)));
        lock(&config("b")).unwrap();
    }
}
