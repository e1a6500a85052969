//! reserve → noise → persist: the one way from a raw sum to a result that may be published.
//!
//! The debit comes before the noise and is never refunded. The noised result is stored, and the raw sum erased,
//! in one transaction before anything else sees it; from then on the same bytes are published, however often
//! the server restarts. A reservation whose noise was not stored is lost: the round needs a new one.

use backstitch_onnx::Digest;
use backstitch_protocol::Problem;
use backstitch_protocol::delta::CLIP_INTEGER;
use backstitch_protocol::measure::{self, Measure};
use backstitch_protocol::privacy::{ClipNorm, RhoQuanta};
use backstitch_protocol::problem::Code;

use super::band::{Block, Terms};
use super::ledger::{self, Entry, Kind};
use super::noise::NoiseSource;
use super::spending::Promise;
use crate::aggregate::Aggregate;
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
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Release {
    /// The task.
    pub(crate) task: TaskId,
    /// The round, counted from 1.
    pub(crate) round: u64,
    /// Contributions that it needs, and the divisor of the mean.
    pub(crate) goal: u32,
    /// Releases that share noise.
    pub(crate) noise_band: u32,
    /// C.
    pub(crate) clip_norm: ClipNorm,
    /// What stands behind the update in the sum.
    pub(crate) measures: Vec<Measure>,
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
            "noise_band": release.noise_band,
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

/// Adds the noise. Only a sum that has reached its goal is taken; the reservation and the block are used up, and the
/// next release continues the block that comes back.
pub(crate) async fn release(
    aggregate: Aggregate,
    reservation: Reservation,
    block: Block,
    noise: &NoiseSource,
) -> Result<(NoisyAggregate, Block)> {
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
    let terms = Terms {
        round: release.round,
        noise_band: release.noise_band,
        noise_multiplier: promise.noise_multiplier,
        clip_norm: release.clip_norm,
        values: aggregate.values(),
    };
    let weighed = block.weigh(terms, aggregate.into_sum())?;
    let (position, sensitivity) = (weighed.position(), weighed.sensitivity());
    let noised = noise
        .add(weighed.combined()?, sensitivity, promise.noise_multiplier, promise.cost())
        .await?;
    let (estimate, block) = weighed.estimate(&noised);
    Ok((NoisyAggregate { estimate, position, release }, block))
}

/// Enters the noised result in the ledger and gives the bytes to store, in the caller's transaction.
pub(crate) async fn persist(
    connection: &mut Connection,
    noisy: &NoisyAggregate,
    now: u64,
) -> Result<Vec<u8>> {
    let bytes = noisy.to_bytes();
    let detail =
        serde_json::json!({ "result": Digest::of(&bytes), "block_position": noisy.position });
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
    let field = |name: &str| detail.as_ref().and_then(|d| d.get(name));
    let stated = field("result").and_then(|d| d.as_str());
    if stated != Some(Digest::of(bytes).to_string().as_str()) {
        return Err(Problem::new(
            Code::LedgerCorrupt,
            format!(
                "the stored result of round {} of {} is not the one in the ledger",
                release.round, release.task
            ),
        ));
    }
    let estimate = bytes.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)).collect();
    let position = field("block_position").and_then(|p| p.as_u64()).unwrap_or(0);
    Ok(NoisyAggregate { estimate, position, release: release.clone() })
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
#[derive(Debug, PartialEq)]
pub struct NoisyAggregate {
    /// Of the sum: integers with plain noise, what a band recovers with correlated noise.
    estimate: Vec<f64>,
    /// Releases of its block before it.
    position: u64,
    release: Release,
}

impl NoisyAggregate {
    /// The mean update: sum / goal · C / 32767, over the update's share of the frame. The divisor is the public
    /// goal, never the true count.
    pub fn mean(&self) -> Vec<f32> {
        let Release { goal, clip_norm, ref measures, .. } = self.release;
        let unit = CLIP_INTEGER as f64 * measure::update_share(measures).sqrt();
        let scale = clip_norm.value() / unit / f64::from(goal);
        self.update().iter().map(|v| (*v * scale) as f32).collect()
    }

    /// What each measure of the task came to, in [−1, 1].
    pub fn measured(&self) -> Vec<(Measure, f64)> {
        let sums = &self.estimate[self.update().len()..];
        let measures = self.release.measures.iter().zip(sums);
        measures.map(|(measure, sum)| (*measure, measure.mean(*sum, self.release.goal))).collect()
    }

    fn update(&self) -> &[f64] {
        &self.estimate[..self.estimate.len().saturating_sub(self.release.measures.len())]
    }

    /// The stored form: f64 little-endian.
    fn to_bytes(&self) -> Vec<u8> {
        self.estimate.iter().flat_map(|v| v.to_le_bytes()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noisy(estimate: Vec<f64>, goal: u32, measures: Vec<Measure>) -> NoisyAggregate {
        let release = Release {
            task: "toy.style".parse().unwrap(),
            round: 1,
            goal,
            noise_band: 1,
            clip_norm: ClipNorm::new(0.5).unwrap(),
            measures,
        };
        NoisyAggregate { estimate, position: 0, release }
    }

    #[test]
    fn the_divisor_is_the_public_goal() {
        // Three devices at the clip norm, one after another along the same axis, and a goal of four.
        let mean = noisy(vec![3.0 * 32_767.0, 0.0], 4, vec![]).mean();
        assert!((mean[0] - 0.5 * 3.0 / 4.0).abs() < 1e-6, "{mean:?}");
    }

    #[test]
    fn measures_are_split_off_and_the_update_gets_its_scale_back() {
        let measure = Measure { kind: measure::Kind::WithinClip, share: 0.19 };
        let update = 2.0 * 32_767.0 * 0.81f64.sqrt();
        let within = 2.0 * measure.amplitude() as f64 * 0.5;
        let noisy = noisy(vec![update, within], 2, vec![measure]);
        assert_eq!(noisy.mean().len(), 1);
        assert!((noisy.mean()[0] - 0.5).abs() < 1e-6, "{:?}", noisy.mean());
        assert!((noisy.measured()[0].1 - 0.5).abs() < 1e-9);
    }
}
