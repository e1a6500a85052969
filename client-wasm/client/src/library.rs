//! A library as this device runs it: the catalog, the primary cut and compiled, and every patch version in reach.
//!
//! A [`Library`] never changes. A refresh makes another one, which takes over whatever is the same; a run in flight
//! keeps the one that it started with.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use backstitch_onnx::patch::{Manifest, Patch, Selector, check};
use backstitch_onnx::{Digest, Model, Tensor};
use backstitch_protocol::Problem;
use backstitch_protocol::catalog::{Catalog, PatchEntry, TaskEntry};
use backstitch_protocol::id::{Name, Part};
use backstitch_protocol::problem::Code;

use crate::catalog::Address;
use crate::files::{Files, Loading};
use crate::port::Port;
use crate::preprocessing::{Preparation, Preprocessing};
use crate::probe::Probes;
use crate::selection::{Candidate, Meanings};
use crate::session::{Compiled, Plan, Session, Stitched, Weights};
use crate::workshop::Workshop;

/// One version of one patch, ready to run.
#[derive(Clone)]
pub struct Version {
    /// The patch's name.
    pub name: Name,
    /// 1, 2, 3 …; of a personal version that of its base.
    pub number: u32,
    /// Manifest, graph and weights.
    pub patch: Arc<Patch>,
    /// Its programs.
    pub compiled: Arc<Compiled>,
    /// Its weights in the engine.
    pub weights: Arc<Weights>,
    /// Bytes of all its weights.
    pub weight_bytes: u64,
    /// Tensors of the primary that it reads or changes.
    pub sites: Vec<String>,
    /// Sites that it replaces.
    pub replaces: Vec<String>,
    /// Tensors of the primary that are not computed where it replaces what would be made of them.
    pub bypasses: Vec<String>,
    /// When to stitch it; without a selector it is never chosen, only named.
    pub selector: Selector,
}

impl Version {
    /// A version from its parts, for this primary.
    pub fn new(
        session: &Session,
        name: Name,
        number: u32,
        patch: Arc<Patch>,
        compiled: Arc<Compiled>,
        weights: Arc<Weights>,
    ) -> Result<Self, Problem> {
        let mut sites = Vec::new();
        for attachment in &patch.manifest().attachments {
            for site in attachment.inputs.values().map(String::as_str).chain([attachment.site()]) {
                if !sites.iter().any(|known| known == site) {
                    sites.push(site.to_owned());
                }
            }
        }
        let weight_bytes =
            patch.model().graph.initializers.values().map(|t| t.bytes().len() as u64).sum();
        let selector = patch.manifest().selector.clone().unwrap_or_default();
        let replaces = compiled.replaces();
        let bypasses = Plan::of(session, &[&compiled])?.bypassed(session);
        Ok(Self {
            name,
            number,
            patch,
            compiled,
            weights,
            weight_bytes,
            sites,
            replaces,
            bypasses,
            selector,
        })
    }

    /// How it stands in a version id.
    pub fn part(&self) -> Part {
        Part { graph: self.patch.graph_digest(), weights: self.weights_digest(), scale: 1.0 }
    }

    /// The identity of its weights.
    pub fn weights_digest(&self) -> Digest {
        self.weights.digest(&self.patch)
    }

    /// Whether it must be run once to tell if it changes anything, and may be.
    pub fn is_untried(&self) -> bool {
        self.weights.is_untried() && self.compiled.fault().is_none()
    }

    /// Whether it changes anything.
    pub fn has_effect(&self, session: &Session) -> Result<bool, Problem> {
        self.compiled.has_effect(session, &self.weights)
    }

    /// How it stands for selection, at this cost in milliseconds: with an effect, without feedback, and with features
    /// that nobody has described.
    pub fn candidate(&self, cost_ms: f64) -> Candidate<'_> {
        Candidate {
            name: &self.name,
            selector: &self.selector,
            has_effect: true,
            fault: None,
            cost_ms,
            cost_bytes: self.weight_bytes,
            sites: &self.sites,
            replaces: &self.replaces,
            bypasses: &self.bypasses,
            correction: 0.0,
            meanings: Meanings::NONE,
        }
    }

    /// How it takes part in a run.
    pub fn stitched(&self) -> Stitched {
        Stitched {
            name: self.name.to_string(),
            compiled: self.compiled.clone(),
            weights: self.weights.clone(),
        }
    }

    /// The same patch with other trainable tensors.
    pub fn with_weights(
        &self,
        session: &Session,
        tensors: BTreeMap<String, Tensor>,
    ) -> Result<Self, Problem> {
        let patch = self.patch.with_weights(tensors)?;
        let weights = Arc::new(self.compiled.weights(session, &patch)?);
        Ok(Self { patch: Arc::new(patch), weights, ..self.clone() })
    }
}

/// A version that the catalog offers and this device cannot use.
#[derive(Clone, Debug)]
pub struct Broken {
    /// The patch.
    pub name: Name,
    /// Its version.
    pub number: u32,
    /// Why.
    pub problem: Problem,
}

/// Everything of one catalog, loaded and compiled.
pub struct Library {
    /// The catalog.
    pub catalog: Catalog,
    /// How what a caller gives becomes the model's input.
    pub preparation: Preparation,
    /// The primary.
    pub session: Arc<Session>,
    /// What is asked of the primary's own activations before patches are chosen.
    pub probes: Probes,
    /// What its features are called.
    pub meanings: Meanings,
    /// All versions in reach.
    pub versions: BTreeMap<(Name, u32), Arc<Version>>,
    /// Versions that do not fit; the library works without them.
    pub broken: Vec<Broken>,
}

impl Library {
    /// Loads what a catalog names. Files come from the device's cache where it has them; each is checked against
    /// its digest. A patch that does not fit the primary is left out and listed as broken.
    pub async fn load<P: Port>(
        port: &P,
        address: &Address,
        workshop: &Workshop,
        catalog: Catalog,
        before: Option<&Library>,
        loading: &Loading<'_>,
    ) -> Result<Self, Problem> {
        let preprocessing = Preprocessing::from_json(&catalog.primary.preprocessing)?;
        let shape = preprocessing.shape();
        let vocabulary = preprocessing.vocabulary().cloned();
        let files = Files::fetch(port, address, &catalog, vocabulary.as_ref(), loading).await?;
        let file = files.of(&catalog.primary.model);
        let preparation =
            preprocessing.complete(vocabulary.as_ref().map_or(&[], |blob| files.of(blob)))?;
        let probes = catalog.primary.probes.iter();
        let probes: Vec<_> = probes.map(|e| (e.clone(), files.of(&e.model).to_vec())).collect();
        let mut parts = Vec::new();
        let mut broken = Vec::new();
        for entry in &catalog.patches {
            match Parts::read(entry, &files) {
                Ok(read) => parts.push(read),
                Err(problem) => {
                    broken.push(Broken { name: entry.name.clone(), number: entry.version, problem })
                }
            }
        }
        loading("compile", catalog.library.as_str(), files.bytes, files.bytes);
        let primary = &catalog.primary;
        let probed = primary.probes.iter().map(|probe| probe.site.as_str());
        let sites = fitting_sites(file, probed, &parts, &mut broken, before)?;
        let input = (primary.input.as_str(), shape.as_deref());
        let session = workshop.session(file, input, &primary.output, &sites)?;
        let probes = Probes::compile(&session, &probes)?;
        let mut versions = BTreeMap::new();
        for part in parts {
            let (name, number) = (part.name.clone(), part.number);
            if broken.iter().any(|b| b.name == name && b.number == number) {
                continue;
            }
            match part.version(&session, workshop) {
                Ok(version) => drop(versions.insert((name, number), Arc::new(version))),
                Err(problem) => broken.push(Broken { name, number, problem }),
            }
        }
        let meanings = Meanings::of(&catalog);
        Ok(Self { catalog, preparation, session, probes, meanings, versions, broken })
    }

    /// Names of the patches, in stitching order.
    pub fn names(&self) -> Vec<&Name> {
        let mut names: Vec<&Name> = Vec::new();
        for entry in &self.catalog.patches {
            if !names.contains(&&entry.name) {
                names.push(&entry.name);
            }
        }
        names
    }

    /// The version that an alias of a patch points to.
    pub fn alias(&self, name: &Name, alias: &str) -> Option<&Arc<Version>> {
        let entry = self
            .catalog
            .patches
            .iter()
            .find(|e| e.name == *name && e.aliases.iter().any(|a| a == alias))?;
        self.versions.get(&(name.clone(), entry.version))
    }

    /// The versions that a task's round starts from; checked against the task's own digest of their weights.
    pub fn bases(&self, task: &TaskEntry) -> Result<Vec<&Arc<Version>>, Problem> {
        let mut bases: Vec<&Arc<Version>> = Vec::new();
        for (name, number) in task.patches.iter().zip(&task.base_versions) {
            let version = self.versions.get(&(name.clone(), *number)).ok_or_else(|| {
                let broken = self.broken.iter().find(|b| b.name == *name && b.number == *number);
                broken.map(|b| b.problem.clone()).unwrap_or_else(|| {
                    Problem::new(
                        Code::VersionStale,
                        format!("the catalog lacks version {number} of {name}"),
                    )
                })
            })?;
            bases.push(version);
        }
        let weights = bases.iter().map(|version| version.weights_digest());
        match backstitch_protocol::catalog::base(task.round, weights) == task.base {
            true => Ok(bases),
            false => Err(Problem::new(
                Code::VersionStale,
                format!(
                    "the weights of task {} are not those that its round starts from",
                    task.name
                ),
            )
            .with_hint("read the catalog again")),
        }
    }
}

/// A patch version, read but not yet compiled.
struct Parts {
    name: Name,
    number: u32,
    key: Digest,
    patch: Patch,
}

impl Parts {
    fn read(entry: &PatchEntry, files: &Files) -> Result<Self, Problem> {
        let weights = entry.weights.as_ref().map(|weights| files.of(weights));
        let patch = Patch::from_parts(files.of(&entry.manifest), files.of(&entry.graph), weights)?;
        if patch.manifest().name != entry.name.as_str() {
            let Manifest { name, .. } = patch.manifest();
            return Err(Problem::new(
                Code::CatalogInvalid,
                format!("the manifest of {} is that of {name}", entry.name),
            ));
        }
        let digests = [Some(&entry.manifest), Some(&entry.graph), entry.weights.as_ref()];
        let key = digests.into_iter().flatten().flat_map(|blob| *blob.digest.as_bytes());
        let key = Digest::of(&key.collect::<Vec<u8>>());
        Ok(Self { name: entry.name.clone(), number: entry.version, key, patch })
    }

    fn sites(&self) -> impl Iterator<Item = &str> {
        let attachments = self.patch.manifest().attachments.iter();
        attachments.flat_map(|a| a.inputs.values().map(String::as_str).chain([a.site()]))
    }

    fn version(self, session: &Session, workshop: &Workshop) -> Result<Version, Problem> {
        let compiled = workshop.compiled(session, &self.patch)?;
        // Another cut of the same primary leaves weights as they are.
        let made = workshop.version(self.key, || {
            check(&self.patch, session.model(), session.digest(), session.shapes())?;
            let weights = compiled.weights(session, &self.patch)?;
            Ok((Arc::new(self.patch), Arc::new(weights)))
        })?;
        let (patch, weights) = (*made).clone();
        Version::new(session, self.name, self.number, patch, compiled, weights)
    }
}

/// Where to cut: at every tensor that a patch or a probe of this library uses. Patches that name a tensor which the primary
/// does not have are broken and cut nothing. The cut stays as it was while it covers all sites, so that an
/// experiment's end compiles nothing.
fn fitting_sites<'a>(
    file: &[u8],
    probed: impl Iterator<Item = &'a str>,
    parts: &[Parts],
    broken: &mut Vec<Broken>,
    before: Option<&Library>,
) -> Result<BTreeSet<String>, Problem> {
    let digest = Digest::of(file);
    let known = before.map(|b| &b.session).filter(|s| s.digest() == digest);
    let decoded;
    let primary = match known {
        Some(session) => session.model(),
        None => {
            decoded = Model::from_bytes(file)?;
            &decoded
        }
    };
    let mut sites: BTreeSet<String> = probed.map(str::to_owned).collect();
    for part in parts {
        match part.sites().find(|site| !primary.graph.has_tensor(site)) {
            None => sites.extend(part.sites().map(str::to_owned)),
            Some(site) => {
                let detail = format!(
                    "the patch {} uses `{site}`, which the primary does not have",
                    part.name
                );
                let problem =
                    backstitch_onnx::Error::new(backstitch_onnx::Code::PatchMismatch, detail)
                        .into();
                broken.push(Broken { name: part.name.clone(), number: part.number, problem });
            }
        }
    }
    Ok(match known.map(|session| session.sites()) {
        Some(cut) if cut.is_superset(&sites) => cut.clone(),
        _ => sites,
    })
}
