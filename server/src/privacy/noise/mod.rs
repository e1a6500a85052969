//! The discrete Gaussian of OpenDP on whole integer vectors, on one thread of its own.
//!
//! OpenDP's measurements are neither `Send` nor `Sync`, so they are built where they run and never cross an
//! await. Sampling time depends on what is sampled; nothing here reports how long it took.

use std::sync::mpsc;
use std::thread;

use backstitch_protocol::privacy::{NoiseMultiplier, RhoQuanta};
use opendp::core::Measurement;
use opendp::domains::{AtomDomain, VectorDomain};
use opendp::measurements::make_gaussian;
use opendp::measures::ZeroConcentratedDivergence;
use opendp::metrics::L2Distance;
use tokio::sync::oneshot;

use crate::failure::{Failure, Result, internal};

struct Order {
    values: Vec<i64>,
    sensitivity: f64,
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
        Self::on_a_thread(gaussian)
    }

    /// Noise by a function of values and σ, for simulations that must come out the same again: whoever can repeat
    /// noise can take it away, so nothing that leaves the machine may be made with it.
    pub(crate) fn of(
        mut draw: impl FnMut(Vec<i64>, f64) -> Vec<i64> + Send + 'static,
    ) -> Result<Self> {
        Self::on_a_thread(move |values, sensitivity, z, _| {
            Ok(draw(values, z.value() * sensitivity))
        })
    }

    fn on_a_thread(
        mut draw: impl FnMut(Vec<i64>, f64, NoiseMultiplier, RhoQuanta) -> Result<Vec<i64>>
        + Send
        + 'static,
    ) -> Result<Self> {
        let (sender, orders) = mpsc::channel::<Order>();
        thread::Builder::new()
            .name("backstitch-noise".into())
            .spawn(move || {
                for order in orders {
                    let Order { values, sensitivity, noise_multiplier, charged, reply } = order;
                    let noised = draw(values, sensitivity, noise_multiplier, charged);
                    // A dropped receiver means that the round was given up; the noise must not be reused.
                    drop(reply.send(noised));
                }
            })
            .while_doing("starting the noise thread")?;
        Ok(Self(sender))
    }

    /// Adds noise of σ = z · `sensitivity` to each value, if OpenDP agrees that this costs no more than `charged`.
    pub(crate) async fn add(
        &self,
        values: Vec<i64>,
        sensitivity: f64,
        noise_multiplier: NoiseMultiplier,
        charged: RhoQuanta,
    ) -> Result<Vec<i64>> {
        let (reply, noised) = oneshot::channel();
        self.0
            .send(Order { values, sensitivity, noise_multiplier, charged, reply })
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

fn gaussian(
    values: Vec<i64>,
    sensitivity: f64,
    z: NoiseMultiplier,
    charged: RhoQuanta,
) -> Result<Vec<i64>> {
    let measurement = mechanism(values.len(), sensitivity, z)?;
    let cost = measurement.map(&sensitivity).while_doing("computing the cost of the noise")?;
    if cost > charged.rho() {
        return Err(internal(format!(
            "the noise costs ρ = {cost}, but only {} is charged",
            charged.rho()
        )));
    }
    measurement.invoke(&values).while_doing("drawing the noise")
}

fn mechanism(size: usize, sensitivity: f64, z: NoiseMultiplier) -> Result<Gaussian> {
    // One step up, so that rounding the product cannot make the noise smaller than what is charged.
    let sigma = (z.value() * sensitivity).next_up();
    make_gaussian(
        VectorDomain::new(AtomDomain::<i64>::default()).with_size(size),
        L2Distance::<f64>::default(),
        sigma,
        None,
    )
    .while_doing("building the Gaussian mechanism")
}

#[cfg(test)]
pub(super) mod tests;
