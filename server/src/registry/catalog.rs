//! The signed catalog: built from one state of the store, signed, kept in memory, announced.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, RwLock, RwLockReadGuard};

use axum::body::Bytes;
use backstitch_onnx::Digest;
use backstitch_protocol::catalog::{
    Blob, Catalog, PatchEntry, PrimaryEntry, ProbeEntry, TaskEntry,
};
use backstitch_protocol::id::Name;
use backstitch_protocol::privacy::RhoQuanta;
use backstitch_protocol::token::TokenKey;
use sqlx::Row as _;
use tokio::sync::broadcast;

use super::alias;
use super::descriptor::{LibraryDescriptor, ProbeDescriptor};
use super::key::{Keys, Signer};
use super::version::{self, PatchVersion};
use crate::clock::Clock;
use crate::config::CatalogTimes;
use crate::experiment;
use crate::failure::{Failure, Result, internal, not_found};
use crate::privacy;
use crate::round::state as rounds;
use crate::store::{Connection, Store, commit};
use crate::task::TaskId;

/// News that a slow listener may be behind before it misses some; it then reads the catalogs again.
const BACKLOG: usize = 256;

/// A library's catalog has changed.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct News {
    /// The library.
    pub library: Name,
    /// Its catalog's new version.
    pub version: u64,
}

/// One signed catalog as it is served.
#[derive(Clone, Debug)]
pub struct Issued {
    /// What it says.
    pub catalog: Catalog,
    /// The JSON of the signed catalog.
    pub body: Bytes,
}

/// The newest catalog of each library.
pub struct Catalogs {
    store: Store,
    keys: Keys,
    signer: RwLock<Signer>,
    token_key: TokenKey,
    times: CatalogTimes,
    clock: Clock,
    current: RwLock<BTreeMap<Name, Arc<Issued>>>,
    /// Makes build, sign and announce one step, so that versions are announced in their order.
    issuing: tokio::sync::Mutex<()>,
    news: broadcast::Sender<News>,
}

impl Catalogs {
    /// No catalogs yet; [`Catalogs::issue_all`] makes them.
    pub fn new(
        store: Store,
        keys: Keys,
        token_key: TokenKey,
        times: CatalogTimes,
        clock: Clock,
    ) -> Result<Self> {
        let signer = RwLock::new(keys.signer(clock.now())?);
        let (current, issuing) = Default::default();
        let (news, _) = broadcast::channel(BACKLOG);
        Ok(Self { store, keys, signer, token_key, times, clock, current, issuing, news })
    }

    /// Signs a new catalog of a library and announces it. The version grows even if nothing else changed.
    pub async fn issue(&self, library: &Name) -> Result<Arc<Issued>> {
        let _one_at_a_time = self.issuing.lock().await;
        let now = self.clock.now();
        let mut writing = self.store.write().await?;
        let version = next_version(&mut writing, library).await?;
        let mut catalog = build(&mut writing, library, &self.token_key, now).await?;
        commit(writing).await?;
        catalog.version = version;
        catalog.issued_at = now;
        catalog.expires_at = now + self.times.expires_after_s;
        let signed = self.signer()?.sign(&catalog)?;
        let body = serde_json::to_vec(&signed).while_doing("writing the catalog")?.into();
        let issued = Arc::new(Issued { catalog, body });
        if let Ok(mut current) = self.current.write() {
            current.insert(library.clone(), Arc::clone(&issued));
        }
        metrics::gauge!("backstitch_catalog_version", "library" => library.to_string())
            .set(version as f64);
        tracing::info!(%library, version, "catalog issued");
        // Nobody may be listening.
        drop(self.news.send(News { library: library.clone(), version }));
        Ok(issued)
    }

    /// Issues the catalogs of all libraries.
    pub async fn issue_all(&self) -> Result<()> {
        let mut reading = self.store.read().await?;
        let libraries = libraries(&mut reading).await?;
        drop(reading);
        for library in libraries {
            self.issue(&library).await?;
        }
        Ok(())
    }

    /// Signs again what is older than `reissue_after_s`, and what says of a task that it is closed, or open,
    /// when that is no longer so: debits leave the period without anything else happening.
    pub async fn reissue_due(&self) -> Result<()> {
        let now = self.clock.now();
        if self.follow_keys(now)? {
            return self.issue_all().await;
        }
        for issued in self.all() {
            let catalog = &issued.catalog;
            let aged = now >= catalog.issued_at + self.times.reissue_after_s;
            if aged || self.has_turned(catalog, now).await? {
                self.issue(&catalog.library).await?;
            }
        }
        Ok(())
    }

    /// Takes up a release key that was installed or has become due; whether there was one.
    fn follow_keys(&self, now: u64) -> Result<bool> {
        let newest = self.keys.signer(now)?;
        if newest.release() == self.signer()?.release() {
            return Ok(false);
        }
        tracing::info!(serial = newest.release().serial, "a new release key signs from now on");
        *self.signer.write().map_err(|_| internal("the signer is poisoned"))? = newest;
        Ok(true)
    }

    async fn has_turned(&self, catalog: &Catalog, now: u64) -> Result<bool> {
        let mut reading = self.store.read().await?;
        for task in &catalog.tasks {
            let id = TaskId::new(catalog.library.clone(), task.name.clone());
            if let Some(round) = rounds::newest(&mut reading, &id).await? {
                let open = rounds::closed(&mut reading, &id, &round, now).await?.is_none();
                if open != task.open {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// The newest catalog of a library.
    pub fn newest(&self, library: &Name) -> Result<Arc<Issued>> {
        let current = self.current.read().map_err(|_| internal("the catalogs are poisoned"))?;
        current.get(library).cloned().ok_or_else(|| not_found(format!("library {library}")))
    }

    /// The newest catalogs of all libraries.
    pub fn all(&self) -> Vec<Arc<Issued>> {
        self.current.read().map(|current| current.values().cloned().collect()).unwrap_or_default()
    }

    /// Every change from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<News> {
        self.news.subscribe()
    }

    /// Hex of the root's public key: what clients pin.
    pub fn root_key(&self) -> Result<String> {
        Ok(self.signer()?.root().to_owned())
    }

    fn signer(&self) -> Result<RwLockReadGuard<'_, Signer>> {
        self.signer.read().map_err(|_| internal("the signer is poisoned"))
    }
}

/// The names of all libraries.
pub(crate) async fn libraries(connection: &mut Connection) -> Result<Vec<Name>> {
    let names: Vec<String> = sqlx::query_scalar("SELECT library FROM libraries ORDER BY library")
        .fetch_all(connection)
        .await
        .while_doing("reading libraries")?;
    names.into_iter().map(Name::new).collect()
}

async fn next_version(connection: &mut Connection, library: &Name) -> Result<u64> {
    let version: Option<i64> = sqlx::query_scalar(
        "UPDATE libraries SET catalog_version = catalog_version + 1 WHERE library = ? RETURNING catalog_version",
    )
    .bind(library.as_str())
    .fetch_optional(connection)
    .await
    .while_doing("counting catalogs")?;
    version.map(|v| v as u64).ok_or_else(|| not_found(format!("library {library}")))
}

/// Everything but version and times.
async fn build(
    connection: &mut Connection,
    library: &Name,
    token_key: &TokenKey,
    now: u64,
) -> Result<Catalog> {
    let row = sqlx::query("SELECT * FROM libraries WHERE library = ?")
        .bind(library.as_str())
        .fetch_one(&mut *connection)
        .await
        .while_doing("reading a library")?;
    let descriptor: LibraryDescriptor = serde_json::from_str(&row.get::<String, _>("descriptor"))
        .while_doing("reading a library")?;
    let blob = |digest: String, bytes: Option<i64>| -> Result<Blob> {
        Ok(Blob { digest: digest.parse::<Digest>()?, bytes: bytes.unwrap_or(0) as u64 })
    };
    let samples: Option<String> = row.get("samples_digest");
    let experiments = experiment::entries(&mut *connection, library).await?;
    let pinned =
        experiments.iter().flat_map(|e| &e.arms).flat_map(|arm| arm.versions.clone()).collect();
    Ok(Catalog {
        format: 1,
        library: library.clone(),
        title: descriptor.title.clone(),
        description: descriptor.description.clone(),
        modality: descriptor.modality.clone(),
        version: 0,
        issued_at: 0,
        expires_at: 0,
        primary: PrimaryEntry {
            model: blob(row.get("primary_digest"), Some(row.get("primary_bytes")))?,
            input: descriptor.primary.input.clone(),
            output: descriptor.primary.output.clone(),
            labels: descriptor.primary.labels.clone(),
            preprocessing: descriptor.primary.preprocessing.clone(),
            probes: descriptor.primary.probes.iter().filter_map(probe_entry).collect(),
        },
        patches: patches(&mut *connection, &descriptor, &pinned).await?,
        tasks: tasks(&mut *connection, &descriptor, token_key, now).await?,
        experiments,
        reports: descriptor.reports,
        ledger: privacy::catalog_head(&mut *connection, library).await?,
        samples: samples.map(|digest| blob(digest, row.get("samples_bytes"))).transpose()?,
    })
}

fn probe_entry(probe: &ProbeDescriptor) -> Option<ProbeEntry> {
    Some(ProbeEntry {
        name: probe.name.clone(),
        site: probe.site.clone(),
        model: probe.stored.clone()?,
        features: probe.features.clone(),
        described: probe.described.clone(),
    })
}

/// The versions that an alias or an experiment's arm points to, in stitching order.
async fn patches(
    connection: &mut Connection,
    descriptor: &LibraryDescriptor,
    pinned: &BTreeSet<(Name, u32)>,
) -> Result<Vec<PatchEntry>> {
    let aliases = alias::all(&mut *connection, &descriptor.name).await?;
    let versions = version::all(connection, &descriptor.name).await?;
    let entry = |v: &PatchVersion| {
        let of_this = aliases
            .iter()
            .filter(|((patch, _), version)| *patch == v.patch && **version == v.version);
        let aliases: Vec<String> = of_this.map(|((_, alias), _)| alias.clone()).collect();
        let needed = !aliases.is_empty() || pinned.contains(&(v.patch.clone(), v.version));
        needed.then(|| PatchEntry {
            name: v.patch.clone(),
            version: v.version,
            aliases,
            manifest: v.manifest.clone(),
            graph: v.graph.clone(),
            weights: v.weights.clone(),
        })
    };
    let in_order = descriptor
        .patches
        .iter()
        .flat_map(|name| versions.iter().filter(move |v| v.patch == *name));
    Ok(in_order.filter_map(entry).collect())
}

async fn tasks(
    connection: &mut Connection,
    descriptor: &LibraryDescriptor,
    token_key: &TokenKey,
    now: u64,
) -> Result<Vec<TaskEntry>> {
    let mut entries = Vec::new();
    for task in &descriptor.tasks {
        let id = TaskId::new(descriptor.name.clone(), task.name.clone());
        // A task without a round has not been opened yet.
        if let Some(round) = rounds::newest(&mut *connection, &id).await? {
            let closed = rounds::closed(&mut *connection, &id, &round, now).await?;
            let promise = round.terms.promise();
            let spending =
                privacy::spending(&mut *connection, &id, &promise, round.number, now).await?;
            let reason = closed.map(|problem| problem.detail().to_owned());
            entries.push(entry(round, spending.period, token_key, reason));
        }
    }
    Ok(entries)
}

/// The open round's own terms count, not a newer descriptor's.
fn entry(
    round: rounds::Round,
    period_spent: RhoQuanta,
    token_key: &TokenKey,
    closed_reason: Option<String>,
) -> TaskEntry {
    let terms = round.terms;
    TaskEntry {
        name: terms.name,
        patches: terms.patches,
        base_versions: round.base_versions,
        base: round.base,
        parameters: round.parameters,
        round: round.number,
        goal: terms.goal,
        clip_norm: terms.clip_norm,
        noise_multiplier: terms.noise_multiplier,
        max_participations: terms.max_participations,
        period_days: terms.period_days,
        min_separation: terms.min_separation,
        noise_band: terms.noise_band,
        measures: terms.measures,
        epsilon: terms.epsilon,
        delta: terms.delta,
        period_spent,
        token_key: terms.tokens.then(|| token_key.clone()),
        open: closed_reason.is_none(),
        closed_reason,
    }
}
