//! Import: a library folder becomes blobs, immutable versions and tasks. The same content again changes nothing.

use std::collections::BTreeMap;

use backstitch_onnx::patch::{self, Patch};
use backstitch_onnx::{Digest, Model, engine, probe};
use backstitch_protocol::Problem;
use backstitch_protocol::catalog::Blob;
use backstitch_protocol::contribution::MAX_PARAMETERS;
use backstitch_protocol::id::Name;
use backstitch_protocol::problem::Code;
use serde_json::Value;
use sqlx::Row as _;

use super::alias::{self, CANDIDATE, CHAMPION, Evidence};
use super::descriptor::{HeldOut, LibraryDescriptor, TaskDescriptor};
use super::source::Source;
use super::version::{self, PatchVersion};
use crate::blob::Blobs;
use crate::failure::{Failure, Result};
use crate::round::Examples;
use crate::store::{Connection, Store, commit};
use crate::task::TaskId;

/// What an import did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// The library's name.
    pub library: Name,
    /// New versions: patch and number.
    pub versions: Vec<(Name, u32)>,
}

/// A library that has been read and checked.
struct Checked {
    descriptor: LibraryDescriptor,
    primary: Blob,
    samples: Option<Blob>,
    patches: Vec<PatchVersion>,
    /// By task: the blobs of its held-out inputs and targets.
    evaluations: BTreeMap<Name, [Digest; 2]>,
}

/// Reads, checks and stores a library. The work before the one transaction is repeatable.
pub async fn import(store: &Store, blobs: &Blobs, source: &Source, now: u64) -> Result<Imported> {
    let checked = read(blobs, source, now).await?;
    let mut writing = store.write().await?;
    let versions = enter(&mut writing, checked, now).await?;
    commit(writing).await?;
    Ok(versions)
}

/// Replaces the terms of an imported task, before its first round: a simulation tries others than its library says.
pub(crate) async fn set_terms(store: &Store, task: &TaskId, terms: &TaskDescriptor) -> Result<()> {
    let mut writing = store.write().await?;
    sqlx::query("UPDATE tasks SET descriptor = ? WHERE library = ? AND task = ?")
        .bind(serde_json::to_string(terms).while_doing("writing a task")?)
        .bind(task.library.as_str())
        .bind(task.name.as_str())
        .execute(&mut *writing)
        .await
        .while_doing("writing a task")?;
    commit(writing).await
}

async fn read(blobs: &Blobs, source: &Source, now: u64) -> Result<Checked> {
    let mut descriptor = LibraryDescriptor::from_bytes(&source.read("library.json")?)?;
    let bytes = source.read(&descriptor.primary.file)?;
    let model = Model::from_bytes(&bytes).map_err(|e| e.context(&descriptor.primary.file))?;
    let digest = Digest::of(&bytes);
    // Patches are checked against the tensors' shapes at the smallest size at which the primary runs.
    let (dims, shapes) =
        engine::smallest(&model).map_err(|e| e.context(&descriptor.primary.file))?;
    let primary = put(blobs, bytes.into_owned()).await?;
    let mut patches = Vec::new();
    let mut parameters = BTreeMap::new();
    for name in &descriptor.patches {
        let (version, count) = read_patch(blobs, source, name, now, |patch| {
            patch::check(patch, &model, digest, &shapes)?;
            patch::check_training(patch, &model, &dims, Some(&descriptor.primary.output))
        })
        .await?;
        patches.push(version);
        parameters.insert(name, count);
    }
    for task in &descriptor.tasks {
        let count: usize = task.patches.iter().filter_map(|p| parameters.get(p)).sum();
        if count == 0 || count > MAX_PARAMETERS as usize {
            return Err(Problem::new(
                Code::RequestInvalid,
                format!(
                    "task {} trains {count} parameters; it must be 1 to {MAX_PARAMETERS}",
                    task.name
                ),
            ));
        }
    }
    let mut evaluations = BTreeMap::new();
    for task in &descriptor.tasks {
        if let Some(files) = &task.evaluation {
            evaluations.insert(task.name.clone(), read_held_out(blobs, source, files).await?);
        }
    }
    put_files(blobs, source, &mut descriptor.primary.preprocessing).await?;
    for entry in &mut descriptor.primary.probes {
        let bytes = source.read(&entry.file)?.into_owned();
        let site = shapes.get(&entry.site).map(|(_, shape)| shape.as_slice());
        probe::check(&bytes, site, entry.features.len())
            .map_err(|e| e.context(format!("probe {} at `{}`", entry.name, entry.site)))?;
        entry.stored = Some(put(blobs, bytes).await?);
    }
    let samples = match &descriptor.samples {
        Some(path) => Some(put(blobs, source.read(path)?.into_owned()).await?),
        None => None,
    };
    Ok(Checked { descriptor, primary, samples, patches, evaluations })
}

/// Checks that a task's held-out examples can be read, and stores them.
async fn read_held_out(blobs: &Blobs, source: &Source, files: &HeldOut) -> Result<[Digest; 2]> {
    let (inputs, targets) = (source.read(&files.inputs)?, source.read(&files.targets)?);
    Examples::read(&inputs, &targets)?;
    Ok([blobs.put(inputs.into_owned()).await?, blobs.put(targets.into_owned()).await?])
}

/// The version that a patch's folder makes, and how many parameters it trains.
async fn read_patch(
    blobs: &Blobs,
    source: &Source,
    name: &Name,
    now: u64,
    check: impl Fn(&Patch) -> backstitch_onnx::Result<()>,
) -> Result<(PatchVersion, usize)> {
    let path = |file: &str| format!("patches/{name}/{file}");
    let manifest = source.read(&path("patch.json"))?;
    let graph = source.read(&path("patch.onnx"))?;
    let weights = source.read_if_present(&path("weights.safetensors"))?;
    let patch = Patch::from_parts(&manifest, &graph, weights.as_deref())
        .and_then(|patch| check(&patch).map(|()| patch))
        .map_err(|e| e.context(format!("patch {name}")))?;
    if patch.manifest().name != name.as_str() {
        return Err(Problem::new(
            Code::RequestInvalid,
            format!(
                "the manifest in patches/{name} is of a patch named `{}`",
                patch.manifest().name
            ),
        ));
    }
    let count = patch.weights().values().map(|t| t.len()).sum();
    let version = PatchVersion {
        patch: name.clone(),
        version: 0,
        manifest: put(blobs, manifest.into_owned()).await?,
        graph: put(blobs, graph.into_owned()).await?,
        weights: match weights {
            Some(bytes) => Some(put(blobs, bytes.into_owned()).await?),
            None => None,
        },
        identity: patch.weights_digest(),
        source: "import".into(),
        round: None,
        cohort: None,
        created_at: now,
        evaluation: None,
    };
    Ok((version, count))
}

/// Each `{"file": path}` of the preprocessing, such as a vocabulary, becomes the blob that a catalog vouches for.
async fn put_files(blobs: &Blobs, source: &Source, preprocessing: &mut Value) -> Result<()> {
    for value in preprocessing.as_object_mut().into_iter().flat_map(|keys| keys.values_mut()) {
        let Some(file) = value.get("file").and_then(Value::as_str) else { continue };
        let blob = put(blobs, source.read(file)?.into_owned()).await?;
        *value = serde_json::to_value(blob).while_doing("naming a blob")?;
    }
    Ok(())
}

async fn put(blobs: &Blobs, bytes: Vec<u8>) -> Result<Blob> {
    let length = bytes.len() as u64;
    Ok(Blob { digest: blobs.put(bytes).await?, bytes: length })
}

async fn enter(connection: &mut Connection, checked: Checked, now: u64) -> Result<Imported> {
    let library = checked.descriptor.name.clone();
    enter_library(&mut *connection, &checked, now).await?;
    let known = version::all(&mut *connection, &library).await?;
    let mut versions = Vec::new();
    for mut new in checked.patches {
        let same = |v: &&PatchVersion| {
            (v.patch == new.patch && v.manifest == new.manifest && v.graph == new.graph)
                && (v.weights == new.weights && v.source == new.source)
        };
        if known.iter().any(|v| same(&v)) {
            continue;
        }
        new.version = version::next(&mut *connection, &library, &new.patch).await?;
        version::insert(&mut *connection, &library, &new).await?;
        // A later import never changes by itself what everybody runs.
        let alias = if new.version == 1 { CHAMPION } else { CANDIDATE };
        let evidence = Evidence { actor: "import", reason: "imported", now };
        alias::set(&mut *connection, &library, &new.patch, alias, Some(new.version), &evidence)
            .await?;
        versions.push((new.patch, new.version));
    }
    for task in &checked.descriptor.tasks {
        let descriptor = serde_json::to_string(task).while_doing("writing a task")?;
        let evaluation = checked
            .evaluations
            .get(&task.name)
            .map(serde_json::to_string)
            .transpose()
            .while_doing("writing a task")?;
        sqlx::query("INSERT INTO tasks (library, task, descriptor, momentum, evaluation) VALUES (?, ?, ?, x'', ?) ON CONFLICT DO UPDATE SET evaluation = excluded.evaluation, clip_norm = CASE WHEN json_extract(descriptor, '$.clip_norm') = json_extract(excluded.descriptor, '$.clip_norm') THEN clip_norm END, descriptor = excluded.descriptor")
            .bind(library.as_str())
            .bind(task.name.as_str())
            .bind(descriptor)
            .bind(evaluation)
            .execute(&mut *connection)
            .await
            .while_doing("writing a task")?;
    }
    Ok(Imported { library, versions })
}

async fn enter_library(connection: &mut Connection, checked: &Checked, now: u64) -> Result<()> {
    let name = checked.descriptor.name.as_str();
    let primary = checked.primary.digest.to_string();
    let known = sqlx::query("SELECT primary_digest FROM libraries WHERE library = ?")
        .bind(name)
        .fetch_optional(&mut *connection)
        .await
        .while_doing("reading libraries")?;
    if known.is_some_and(|row| row.get::<String, _>("primary_digest") != primary) {
        return Err(Problem::new(
            Code::Conflict,
            format!("library {name} already has another primary model"),
        )
        .with_hint("patches are bound to their primary: import a new primary as a new library"));
    }
    sqlx::query("INSERT INTO libraries (library, descriptor, primary_digest, primary_bytes, samples_digest, samples_bytes, imported_at) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET descriptor = excluded.descriptor, samples_digest = excluded.samples_digest, samples_bytes = excluded.samples_bytes")
        .bind(name)
        .bind(serde_json::to_string(&checked.descriptor).while_doing("writing a library")?)
        .bind(primary)
        .bind(checked.primary.bytes as i64)
        .bind(checked.samples.as_ref().map(|s| s.digest.to_string()))
        .bind(checked.samples.as_ref().map(|s| s.bytes as i64))
        .bind(now as i64)
        .execute(connection)
        .await
        .while_doing("writing a library")?;
    Ok(())
}
