//! Import: a library folder becomes blobs, immutable versions and tasks. The same content again changes nothing.

use std::collections::BTreeMap;

use backstitch_onnx::patch::{self, Patch};
use backstitch_onnx::{Digest, Model, probe};
use backstitch_protocol::Problem;
use backstitch_protocol::catalog::Blob;
use backstitch_protocol::contribution::MAX_PARAMETERS;
use backstitch_protocol::id::Name;
use backstitch_protocol::problem::Code;
use serde::Serialize;
use serde_json::Value;
use sqlx::Row as _;

use super::alias::{self, CANDIDATE, CHAMPION, Evidence};
use super::changes::Change;
use super::descriptor::{HeldOut, LibraryDescriptor, TaskDescriptor};
use super::primary::Fed;
use super::source::Source;
use super::version::{self, PatchVersion};
use crate::blob::Blobs;
use crate::failure::{Failure, Result};
use crate::round::Examples;
use crate::store::{Connection, Store, commit};
use crate::task::TaskId;

/// What an import did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Imported {
    /// The library's name.
    pub library: Name,
    /// New versions: patch and number.
    pub versions: Vec<(Name, u32)>,
    /// What the library says otherwise than before; nothing where it is new.
    pub changes: Vec<Change>,
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
    put_files(blobs, source, &mut descriptor.primary.preprocessing).await?;
    let Fed { model, dims, shapes } = descriptor.primary.feed(model)?;
    let primary = put(blobs, bytes.into_owned()).await?;
    let (mut versions, mut patches) = (Vec::new(), Vec::new());
    for name in &descriptor.patches {
        let (version, patch) = read_patch(blobs, source, name, now, |patch| {
            patch::check(patch, &model, digest, &shapes)?;
            patch::check_training(patch, &model, &dims, Some(&descriptor.primary.output))
        })
        .await?;
        versions.push(version);
        patches.push(patch);
    }
    descriptor.primary.check_labels(&shapes, &patches)?;
    for task in &descriptor.tasks {
        let trained = patches
            .iter()
            .filter(|p| task.patches.iter().any(|n| *n.as_str() == p.manifest().name));
        let count: usize = trained.flat_map(|p| p.weights().into_values()).map(|t| t.len()).sum();
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
    Ok(Checked { descriptor, primary, samples, patches: versions, evaluations })
}

/// Checks that a task's held-out examples can be read, and stores them.
async fn read_held_out(blobs: &Blobs, source: &Source, files: &HeldOut) -> Result<[Digest; 2]> {
    let (inputs, targets) = (source.read(&files.inputs)?, source.read(&files.targets)?);
    Examples::read(&inputs, &targets)?;
    Ok([blobs.put(inputs.into_owned()).await?, blobs.put(targets.into_owned()).await?])
}

/// The patch in a folder, and the version that it makes.
async fn read_patch(
    blobs: &Blobs,
    source: &Source,
    name: &Name,
    now: u64,
    check: impl Fn(&Patch) -> backstitch_onnx::Result<()>,
) -> Result<(PatchVersion, Patch)> {
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
    Ok((version, patch))
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
    let changes = enter_library(&mut *connection, &checked, now).await?;
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
    Ok(Imported { library, versions, changes })
}

/// Returns what the library says otherwise than before.
async fn enter_library(
    connection: &mut Connection,
    checked: &Checked,
    now: u64,
) -> Result<Vec<Change>> {
    let name = checked.descriptor.name.as_str();
    let primary = checked.primary.digest.to_string();
    let known = sqlx::query(
        "SELECT primary_digest, samples_digest, descriptor FROM libraries WHERE library = ?",
    )
    .bind(name)
    .fetch_optional(&mut *connection)
    .await
    .while_doing("reading libraries")?;
    if known.as_ref().is_some_and(|row| row.get::<String, _>("primary_digest") != primary) {
        return Err(Problem::new(
            Code::Conflict,
            format!("library {name} already has another primary model"),
        )
        .with_hint("patches are bound to their primary: import a new primary as a new library"));
    }
    let samples = checked.samples.as_ref().map(|s| s.digest.to_string());
    let mut changes = Vec::new();
    if let Some(row) = known {
        let before: LibraryDescriptor = serde_json::from_str(&row.get::<String, _>("descriptor"))
            .while_doing("reading a library")?;
        changes = Change::all(&before, &checked.descriptor);
        let before = row.get::<Option<String>, _>("samples_digest");
        if before != samples {
            let digest = |digest: &Option<String>| digest.clone().map(Value::from);
            let (before, after) = (digest(&before), digest(&samples));
            changes.push(Change { what: "the file of the samples".into(), before, after });
        }
    }
    sqlx::query("INSERT INTO libraries (library, descriptor, primary_digest, primary_bytes, samples_digest, samples_bytes, imported_at) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET descriptor = excluded.descriptor, samples_digest = excluded.samples_digest, samples_bytes = excluded.samples_bytes")
        .bind(name)
        .bind(serde_json::to_string(&checked.descriptor).while_doing("writing a library")?)
        .bind(primary)
        .bind(checked.primary.bytes as i64)
        .bind(samples)
        .bind(checked.samples.as_ref().map(|s| s.bytes as i64))
        .bind(now as i64)
        .execute(connection)
        .await
        .while_doing("writing a library")?;
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tests::{Hands, config, write_library};

    #[tokio::test]
    async fn an_import_tells_what_it_changes_and_refuses_what_cannot_answer() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path(), 2);
        std::fs::create_dir_all(&config.data).unwrap();
        let services = crate::server::services(&config, Hands::default().clock()).await.unwrap();
        let source = Source::parse(&config.libraries[0]).unwrap();
        let library = folder.path().join("library");
        let imported = async |edit: &dyn Fn(&mut Value)| {
            write_library(&library, 2, edit);
            import(&services.store, &services.blobs, &source, 1).await
        };
        let stored = async || -> String {
            sqlx::query_scalar("SELECT descriptor FROM libraries")
                .fetch_one(&mut *services.store.read().await.unwrap())
                .await
                .unwrap()
        };
        assert_eq!(imported(&|_| {}).await.unwrap().changes, [], "nothing was there before");
        let named = |library: &mut Value| {
            library["title"] = "Other".into();
            library["primary"]["labels"] = json!(["a", "b", "c"]);
        };
        let changes = imported(&named).await.unwrap().changes;
        let told: Vec<String> = changes.iter().map(Change::to_string).collect();
        let labels = r#"labels changed from [] to ["a","b","c"]"#;
        assert_eq!(told, [labels, r#"title changed from "Toy" to "Other""#]);

        let live = stored().await;
        assert!(live.contains("Other"), "{live}");
        for (key, value, code, why) in [
            ("labels", json!(["a", "b"]), "request_invalid", "2 classes, `y` has 3 places"),
            ("labels", json!(["a", "b", "c", "d"]), "request_invalid", "4 classes"),
            (
                "preprocessing",
                json!({"window": 4, "channels": 1}),
                "input_mismatch",
                "takes [N, 4]",
            ),
            ("preprocessing", json!({"window": 4, "chanels": 1}), "catalog_invalid", "chanels"),
            ("output", json!("z"), "unknown_tensor", "primary.output"),
            ("input", json!("z"), "request_invalid", "primary.input is `z`"),
        ] {
            let refused = imported(&|library| library["primary"][key] = value.clone()).await;
            let refused = refused.unwrap_err();
            assert_eq!(refused.code(), code, "{key}: {refused}");
            assert!(refused.detail().contains(why) && refused.hint().is_some(), "{key}: {refused}");
            assert_eq!(stored().await, live, "{key}: the live library stays as it was");
        }
        // A tensor inside may answer, too.
        imported(&|library| library["primary"]["output"] = "h".into()).await.unwrap();
    }
}
