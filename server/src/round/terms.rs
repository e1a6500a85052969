//! What a round starts from: the task's descriptor, the champions and their weights, the optimiser's velocity.

use backstitch_onnx::Digest;
use backstitch_onnx::patch::Patch;
use backstitch_protocol::Problem;
use backstitch_protocol::catalog;
use backstitch_protocol::contribution::MAX_PARAMETERS;
use backstitch_protocol::measure;
use backstitch_protocol::privacy::ClipNorm;
use backstitch_protocol::problem::Code;

use sqlx::Row as _;

use super::optimiser::Optimiser;
use super::state::Measured;
use crate::blob::Blobs;
use crate::failure::{Failure, Result, internal, not_found};
use crate::registry::TaskDescriptor;
use crate::registry::alias::{self, CHAMPION};
use crate::registry::version::{self, PatchVersion};
use crate::store::Connection;
use crate::task::TaskId;

/// The task's newest descriptor.
pub(crate) async fn descriptor(
    connection: &mut Connection,
    task: &TaskId,
) -> Result<TaskDescriptor> {
    let row = sqlx::query("SELECT descriptor, clip_norm FROM tasks WHERE library = ? AND task = ?")
        .bind(task.library.as_str())
        .bind(task.name.as_str())
        .fetch_optional(connection)
        .await
        .while_doing("reading a task")?
        .ok_or_else(|| not_found(format!("task {task}")))?;
    let mut terms: TaskDescriptor =
        serde_json::from_str(&row.get::<String, _>("descriptor")).while_doing("reading a task")?;
    let found: Option<f64> = row.get("clip_norm");
    if let Some(found) = found.filter(|_| terms.clip_quantile.is_some()) {
        terms.clip_norm = ClipNorm::new(found)?;
    }
    Ok(terms)
}

/// By how much one release moves the clip norm at most: e^±0.2 (Andrew et al. 2021, section 2).
const CLIP_RATE: f64 = 0.2;

/// The clip norm after a release that measured this, `None` where it stays: C ← C·exp(−η(b̄ − γ)), with b̄ the noised
/// share of devices within C and γ the wanted one.
pub(crate) fn next_clip_norm(
    terms: &TaskDescriptor,
    measured: &[Measured],
) -> Result<Option<ClipNorm>> {
    let within = measured.iter().find(|m| m.kind == measure::Kind::WithinClip);
    let (Some(quantile), Some(within)) = (terms.clip_quantile, within) else { return Ok(None) };
    let share = (within.value + 1.0) / 2.0;
    let factor = (-CLIP_RATE * (share - quantile)).exp();
    Ok(Some(ClipNorm::new(terms.clip_norm.value() * factor)?))
}

/// Keeps the clip norm for the rounds to come.
pub(crate) async fn set_clip_norm(
    connection: &mut Connection,
    task: &TaskId,
    clip_norm: ClipNorm,
) -> Result<()> {
    sqlx::query("UPDATE tasks SET clip_norm = ? WHERE library = ? AND task = ?")
        .bind(clip_norm.value())
        .bind(task.library.as_str())
        .bind(task.name.as_str())
        .execute(connection)
        .await
        .while_doing("writing the clip norm")?;
    Ok(())
}

/// The champion of each of the task's patches, with its number.
pub(crate) async fn champions(
    connection: &mut Connection,
    blobs: &Blobs,
    task: &TaskId,
    terms: &TaskDescriptor,
) -> Result<Vec<(u32, Patch)>> {
    let mut champions = Vec::new();
    for name in &terms.patches {
        let number = alias::find(&mut *connection, &task.library, name, CHAMPION)
            .await?
            .ok_or_else(|| not_found(format!("champion of patch {name}")))?;
        let version = version::find(&mut *connection, &task.library, name, number).await?;
        champions.push((number, load(blobs, &version).await?));
    }
    Ok(champions)
}

/// A patch from its blobs.
pub(crate) async fn load(blobs: &Blobs, version: &PatchVersion) -> Result<Patch> {
    let manifest = blobs.get(&version.manifest.digest).await?;
    let graph = blobs.get(&version.graph.digest).await?;
    let weights = match &version.weights {
        Some(blob) => Some(blobs.get(&blob.digest).await?),
        None => None,
    };
    let patch = Patch::from_parts(&manifest, &graph, weights.as_deref())?;
    match patch.weights_digest() == version.identity {
        true => Ok(patch),
        false => Err(internal(format!(
            "version {} of {} has other weights than recorded",
            version.version, version.patch
        ))),
    }
}

/// Identifies the champions' weights in a round.
pub(crate) fn base(round: u64, champions: &[(u32, Patch)]) -> Digest {
    catalog::base(round, champions.iter().map(|(_, patch)| patch.weights_digest()))
}

/// Trainable parameters of all of them.
pub(crate) fn count(champions: &[(u32, Patch)]) -> Result<u32> {
    let count: usize = champions
        .iter()
        .flat_map(|(_, patch)| patch.weights().into_values())
        .map(|t| t.len())
        .sum();
    match u32::try_from(count) {
        Ok(count) if (1..=MAX_PARAMETERS).contains(&count) => Ok(count),
        _ => Err(Problem::new(
            Code::RequestInvalid,
            format!("{count} trainable parameters are not 1 to {MAX_PARAMETERS}"),
        )),
    }
}

/// The optimiser's velocity; empty before the first release.
pub(crate) async fn velocity(connection: &mut Connection, task: &TaskId) -> Result<Vec<f32>> {
    let bytes: Vec<u8> =
        sqlx::query_scalar("SELECT momentum FROM tasks WHERE library = ? AND task = ?")
            .bind(task.library.as_str())
            .bind(task.name.as_str())
            .fetch_one(connection)
            .await
            .while_doing("reading the optimiser's state")?;
    Ok(Optimiser::velocity_from(&bytes))
}

/// Keeps the optimiser's velocity.
pub(crate) async fn set_velocity(
    connection: &mut Connection,
    task: &TaskId,
    bytes: Vec<u8>,
) -> Result<()> {
    sqlx::query("UPDATE tasks SET momentum = ? WHERE library = ? AND task = ?")
        .bind(bytes)
        .bind(task.library.as_str())
        .bind(task.name.as_str())
        .execute(connection)
        .await
        .while_doing("writing the optimiser's state")?;
    Ok(())
}
