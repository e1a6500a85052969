//! reserve → noise → persist: the one way from a raw sum to a result that may be published.
//!
//! The debit comes before the noise and is never refunded. The noised result is stored, and the raw sum erased,
//! in one transaction before anything else sees it; from then on the same bytes are published, however often
//! the server restarts. A reservation whose noise was not stored is lost: the round needs a new one.

use backstitch_onnx::Digest;
use backstitch_protocol::Problem;
use backstitch_protocol::delta::CLIP_INTEGER;
use backstitch_protocol::privacy::{ClipNorm, RhoQuanta};
use backstitch_protocol::problem::Code;

use super::ledger::{self, Entry, Kind};
use super::noise::NoiseSource;
use super::spending::Promise;
use crate::aggregate::{Aggregate, integers_from_bytes, integers_to_bytes};
use crate::failure::{Result, internal};
use crate::store::Connection;
use crate::task::TaskId;

/// A debit that stands in the ledger and has not been used. It cannot be copied: one debit, one noise.
#[derive(Debug)]
pub struct Reservation {
    release: Release,
    promise: Promise,
}

/// Which release of which task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Release {
    /// The task.
    pub(crate) task: TaskId,
    /// The round, counted from 1.
    pub(crate) round: u64,
    /// Contributions that it needs, and the divisor of the mean.
    pub(crate) goal: u32,
}

/// Debits a release of a full round, or refuses with the numbers.
pub(crate) async fn reserve(
    connection: &mut Connection,
    release: &Release,
    promise: &Promise,
    now: u64,
) -> Result<Reservation> {
    let spending =
        ledger::spending(&mut *connection, &release.task, promise, release.round, now).await?;
    spending.permit(&release.task, promise)?;
    let entry = Entry {
        task: &release.task,
        kind: Kind::Reserve,
        round: release.round,
        rho: promise.cost(),
        cumulative_rho: Some(spending.lifetime_next),
        detail: serde_json::json!({
            "mechanism": "discrete gaussian",
            "sensitivity": CLIP_INTEGER,
            "noise_multiplier": promise.noise_multiplier,
            "goal": release.goal,
            "max_participations": promise.max_participations,
            "period_days": promise.period_days,
            "epsilon": promise.epsilon,
            "delta": promise.delta,
        }),
        now,
    };
    ledger::append(connection, entry).await?;
    Ok(Reservation { release: release.clone(), promise: *promise })
}

/// Adds the noise. Only a sum that has reached its goal is taken, and the reservation is used up.
pub(crate) async fn release(
    aggregate: Aggregate,
    reservation: Reservation,
    noise: &NoiseSource,
) -> Result<NoisyAggregate> {
    let Reservation { release, promise } = reservation;
    if aggregate.contributions() < release.goal {
        return Err(internal(format!(
            "round {} of {} has {} of {} contributions and is not released",
            release.round,
            release.task,
            aggregate.contributions(),
            release.goal
        )));
    }
    let values = noise.add(aggregate.into_sum(), promise.noise_multiplier, promise.cost()).await?;
    Ok(NoisyAggregate { values, release })
}

/// Enters the noised result in the ledger and gives the bytes to store, in the caller's transaction.
pub(crate) async fn persist(
    connection: &mut Connection,
    noisy: &NoisyAggregate,
    now: u64,
) -> Result<Vec<u8>> {
    let bytes = integers_to_bytes(&noisy.values);
    let detail = serde_json::json!({ "result": Digest::of(&bytes) });
    note(connection, &noisy.release, Kind::Noise, detail, now).await?;
    Ok(bytes)
}

/// Reads a stored result back to publish it; it must be the one that the ledger names.
pub(crate) async fn persisted(
    connection: &mut Connection,
    release: &Release,
    bytes: &[u8],
) -> Result<NoisyAggregate> {
    let detail = ledger::last_detail(connection, &release.task, release.round, Kind::Noise).await?;
    let stated = detail.as_ref().and_then(|d| d.get("result")).and_then(|d| d.as_str());
    if stated != Some(Digest::of(bytes).to_string().as_str()) {
        return Err(Problem::new(
            Code::LedgerCorrupt,
            format!(
                "the stored result of round {} of {} is not the one in the ledger",
                release.round, release.task
            ),
        ));
    }
    Ok(NoisyAggregate { values: integers_from_bytes(bytes)?, release: release.clone() })
}

/// Appends a record without a debit: what became of a reservation.
pub(crate) async fn note(
    connection: &mut Connection,
    release: &Release,
    kind: Kind,
    detail: serde_json::Value,
    now: u64,
) -> Result<()> {
    let (task, round) = (&release.task, release.round);
    let entry = Entry { task, kind, round, rho: RhoQuanta(0), cumulative_rho: None, detail, now };
    ledger::append(connection, entry).await.map(|_| ())
}

/// A noised sum: the only thing that publishes. Built by [`release()`], or read back from where that was stored.
#[derive(Debug, PartialEq, Eq)]
pub struct NoisyAggregate {
    values: Vec<i64>,
    release: Release,
}

impl NoisyAggregate {
    /// The mean update: sum / goal · C / 32767. The divisor is the public goal, never the true count.
    pub fn mean(&self, clip: ClipNorm) -> Vec<f32> {
        let scale = clip.value() / CLIP_INTEGER as f64 / f64::from(self.release.goal);
        self.values.iter().map(|v| (*v as f64 * scale) as f32).collect()
    }
}
