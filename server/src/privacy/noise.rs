//! The discrete Gaussian of OpenDP on whole integer vectors, on one thread of its own.
//!
//! OpenDP's measurements are neither `Send` nor `Sync`, so they are built where they run and never cross an
//! await. Sampling time depends on what is sampled; nothing here reports how long it took.

use std::sync::mpsc;
use std::thread;

use backstitch_protocol::delta::CLIP_INTEGER;
use backstitch_protocol::privacy::{NoiseMultiplier, RhoQuanta};
use opendp::core::Measurement;
use opendp::domains::{AtomDomain, VectorDomain};
use opendp::measurements::make_gaussian;
use opendp::measures::ZeroConcentratedDivergence;
use opendp::metrics::L2Distance;
use tokio::sync::oneshot;

use crate::failure::{Failure, Result, internal};

struct Order {
    sum: Vec<i64>,
    noise_multiplier: NoiseMultiplier,
    charged: RhoQuanta,
    reply: oneshot::Sender<Result<Vec<i64>>>,
}

/// The way to the noise thread. Cloning shares it; it ends with the last clone.
#[derive(Clone)]
pub struct NoiseSource(mpsc::Sender<Order>);

impl NoiseSource {
    /// Starts the thread.
    pub fn start() -> Result<Self> {
        let (sender, orders) = mpsc::channel::<Order>();
        thread::Builder::new()
            .name("backstitch-noise".into())
            .spawn(move || {
                for order in orders {
                    let noised = gaussian(order.sum, order.noise_multiplier, order.charged);
                    // A dropped receiver means that the round was given up; the noise must not be reused.
                    drop(order.reply.send(noised));
                }
            })
            .while_doing("starting the noise thread")?;
        Ok(Self(sender))
    }

    /// Adds noise of σ = z · 32767 to each coordinate, if OpenDP agrees that this costs no more than `charged`.
    pub(crate) async fn add(
        &self,
        sum: Vec<i64>,
        noise_multiplier: NoiseMultiplier,
        charged: RhoQuanta,
    ) -> Result<Vec<i64>> {
        let (reply, noised) = oneshot::channel();
        self.0
            .send(Order { sum, noise_multiplier, charged, reply })
            .map_err(|_| internal("the noise thread has ended"))?;
        noised.await.map_err(|_| internal("the noise thread has failed"))?
    }
}

type Gaussian = Measurement<
    VectorDomain<AtomDomain<i64>>,
    L2Distance<f64>,
    ZeroConcentratedDivergence,
    Vec<i64>,
>;

fn gaussian(sum: Vec<i64>, z: NoiseMultiplier, charged: RhoQuanta) -> Result<Vec<i64>> {
    let sensitivity = CLIP_INTEGER as f64;
    // One step up, so that rounding the product cannot make the noise smaller than what is charged.
    let sigma = (z.value() * sensitivity).next_up();
    let measurement: Gaussian = make_gaussian(
        VectorDomain::new(AtomDomain::<i64>::default()).with_size(sum.len()),
        L2Distance::<f64>::default(),
        sigma,
        None,
    )
    .while_doing("building the Gaussian mechanism")?;
    let cost = measurement.map(&sensitivity).while_doing("computing the cost of the noise")?;
    if cost > charged.rho() {
        return Err(internal(format!(
            "the noise costs ρ = {cost}, but only {} is charged",
            charged.rho()
        )));
    }
    measurement.invoke(&sum).while_doing("drawing the noise")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn multiplier(z: f64) -> NoiseMultiplier {
        NoiseMultiplier::new(z).unwrap()
    }

    fn draw(z: f64, count: usize) -> Vec<i64> {
        gaussian(vec![0; count], multiplier(z), RhoQuanta::of_release(multiplier(z))).unwrap()
    }

    #[test]
    fn the_deviation_is_within_three_percent_and_the_signs_are_even() {
        let n = 10_000;
        for z in [0.5, 2.39] {
            let noise = draw(z, n);
            let variance = noise.iter().map(|v| (*v as f64).powi(2)).sum::<f64>() / n as f64;
            let ratio = variance.sqrt() / (z * CLIP_INTEGER as f64);
            // 1/√(2n) = 0.7 %: three percent is more than four standard errors.
            assert!((ratio - 1.0).abs() < 0.03, "{ratio}");
            let positive = noise.iter().filter(|v| **v > 0).count() as f64;
            assert!(
                (positive - n as f64 / 2.0).abs() < 5.0 * (n as f64 / 4.0).sqrt(),
                "{positive}"
            );
            let mean = noise.iter().sum::<i64>() as f64 / n as f64;
            assert!(mean.abs() < 5.0 * z * CLIP_INTEGER as f64 / (n as f64).sqrt(), "{mean}");
        }
    }

    #[test]
    fn neighbouring_coordinates_and_draws_are_independent() {
        let (a, b) = (draw(1.0, 4000), draw(1.0, 4000));
        assert_ne!(a, b);
        let scale = (CLIP_INTEGER as f64).powi(2) * 4000.0;
        let correlation = |x: &[i64], y: &[i64]| {
            x.iter().zip(y).map(|(x, y)| *x as f64 * *y as f64).sum::<f64>() / scale
        };
        assert!(correlation(&a, &b).abs() < 5.0 / 4000f64.sqrt());
        assert!(correlation(&a[1..], &a[..3999]).abs() < 5.0 / 4000f64.sqrt());
    }

    #[test]
    fn every_multiplier_costs_at_most_what_the_ledger_charges() {
        for z in [0.1, 0.5, std::f64::consts::FRAC_1_SQRT_2, 1.0, 1.0 / 3.0, 2.0, 2.39, 8.45, 100.0]
        {
            assert_eq!(draw(z, 1).len(), 1, "{z}");
        }
        let half = RhoQuanta(RhoQuanta::of_release(multiplier(1.0)).0 / 2);
        assert!(gaussian(vec![0], multiplier(1.0), half).unwrap_err().detail().contains("only"));
    }
}
