//! `backstitch privacy forecast`: cohort against accuracy, before anything is trained.
//!
//! The noise of a mean over n devices has the norm z·C·√d/n, the update at most C: they are equal at n = z√d. What
//! is kept of the update's direction is the cosine between the noised and the true mean, 1/√(1 + (z√d/n)²).

use backstitch_protocol::Problem;
use backstitch_protocol::privacy::{Delta, Epsilon, NoiseMultiplier, RhoQuanta, certainty};
use backstitch_protocol::problem::Code;
use clap::Args;
use serde::Serialize;

use super::print_json;
use crate::failure::Result;
use crate::privacy::Band;

/// A setting to think through.
#[derive(Debug, Args)]
pub(super) struct Forecast {
    /// Trainable parameters of the task.
    #[arg(long)]
    parameters: u32,
    /// ε of the promise.
    #[arg(long, default_value_t = 4.0)]
    epsilon: f64,
    /// δ of the promise.
    #[arg(long, default_value_t = 1e-6)]
    delta: f64,
    /// Rounds of a period that one device may be in.
    #[arg(long, default_value_t = 4)]
    participations: u32,
    /// Share of the frame that measures take.
    #[arg(long, default_value_t = 0.0, value_name = "SHARE")]
    measures: f64,
    /// Releases that share noise.
    #[arg(long, default_value_t = 1, value_name = "B")]
    band: u32,
    /// Releases after which the accumulated model is looked at.
    #[arg(long, default_value_t = 100, value_name = "T")]
    releases: u32,
    /// Contributions per round; too few are refused.
    #[arg(long)]
    goal: Option<u32>,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

/// What a promise asks for.
#[derive(Debug, Serialize)]
struct PromiseLine {
    epsilon: f64,
    noise_multiplier: f64,
    smallest_round: u64,
    certainty: f64,
}

/// What a cohort gives.
#[derive(Debug, Serialize)]
struct CohortLine {
    cohort: u64,
    /// Norm of one release's noise, in units of the clip norm.
    noise: f64,
    /// Cosine between the noised and the true mean, where all devices agree.
    direction_kept: f64,
    /// The same for the sum of all releases, with the task's band.
    direction_kept_accumulated: f64,
}

/// The smallest cohort that learns more than noise: z√d, raised by the share of the frame that measures take.
pub(super) fn smallest_round(z: NoiseMultiplier, parameters: u32, measures: f64) -> u64 {
    equal(z.value(), parameters, measures).ceil() as u64
}

/// The cohort at which noise and signal are equal.
fn equal(z: f64, parameters: u32, measures: f64) -> f64 {
    z * f64::from(parameters).sqrt() / (1.0 - measures).sqrt()
}

impl Forecast {
    /// Prints the tables; fails where the goal is too small.
    pub(super) fn run(&self) -> Result<()> {
        let delta = Delta::new(self.delta)?;
        if !(0.0..1.0).contains(&self.measures) || self.participations == 0 || self.releases == 0 {
            return Err(Problem::new(
                Code::RequestInvalid,
                "--measures must be in [0, 1), --participations and --releases at least 1",
            ));
        }
        let band = Band::new(self.band)?;
        let wanted = self.promise(Epsilon::new(self.epsilon)?, delta)?;
        let promises = [0.5, 1.0, 2.0, 4.0, 8.0]
            .into_iter()
            .map(|epsilon| self.promise(Epsilon::new(epsilon)?, delta))
            .collect::<Result<Vec<_>>>()?;
        let improvement = band.improvement(self.releases as usize);
        let cohorts: Vec<CohortLine> = self
            .cohorts(wanted.smallest_round)
            .into_iter()
            .map(|n| self.cohort(n, wanted.noise_multiplier, improvement))
            .collect();
        if self.json {
            print_json(&serde_json::json!({
                "wanted": wanted, "table": promises, "cohorts": cohorts,
                "band": self.band, "releases": self.releases, "improvement": improvement,
            }))?;
        } else {
            self.print(&wanted, &promises, &cohorts, improvement);
        }
        self.refuse_hopeless(&wanted)
    }

    fn print(
        &self,
        wanted: &PromiseLine,
        promises: &[PromiseLine],
        cohorts: &[CohortLine],
        improvement: f64,
    ) {
        let Self { parameters, participations, delta, band, releases, .. } = self;
        println!(
            "{parameters} parameters, {participations} participations in a period, δ = {delta}"
        );
        println!(
            "{:>8} {:>18} {:>16} {:>12}",
            "ε", "noise multiplier", "smallest round", "certainty"
        );
        for line in std::iter::once(wanted).chain(promises) {
            println!(
                "{:>8} {:>18.3} {:>16} {:>11.0}%",
                line.epsilon,
                line.noise_multiplier,
                line.smallest_round,
                100.0 * line.certainty
            );
        }
        println!();
        println!(
            "at ε = {}, band {band}: {improvement:.2} times less error in the sum of {releases} releases than plain noise",
            wanted.epsilon
        );
        println!(
            "{:>8} {:>14} {:>16} {:>22}",
            "cohort",
            "noise / clip",
            "direction kept",
            format!("after {releases} releases")
        );
        for line in cohorts {
            println!(
                "{:>8} {:>14.2} {:>15.0}% {:>21.0}%",
                line.cohort,
                line.noise,
                100.0 * line.direction_kept,
                100.0 * line.direction_kept_accumulated
            );
        }
    }

    /// Noise and signal are equal at n = z√d: below that, a round learns mostly noise.
    fn refuse_hopeless(&self, wanted: &PromiseLine) -> Result<()> {
        let Some(goal) = self.goal.filter(|goal| u64::from(*goal) < wanted.smallest_round) else {
            return Ok(());
        };
        let z = wanted.noise_multiplier / (1.0 - self.measures).sqrt();
        let fitting = (f64::from(goal) / z).powi(2).floor();
        let detail = format!(
            "a round of {goal} would be mostly noise: {} parameters at noise multiplier {:.2} need at least {}",
            self.parameters, wanted.noise_multiplier, wanted.smallest_round
        );
        Err(Problem::new(Code::PrivacyInvalid, detail).with_hint(format!(
            "raise the goal to {}, train at most {fitting} parameters, or allow fewer participations",
            wanted.smallest_round
        )))
    }

    fn promise(&self, epsilon: Epsilon, delta: Delta) -> Result<PromiseLine> {
        let z = NoiseMultiplier::within(RhoQuanta::within(epsilon, delta), self.participations)?;
        Ok(PromiseLine {
            epsilon: epsilon.value(),
            noise_multiplier: z.value(),
            smallest_round: smallest_round(z, self.parameters, self.measures),
            certainty: certainty(epsilon.value()),
        })
    }

    fn cohorts(&self, smallest: u64) -> Vec<u64> {
        let smallest = smallest.max(1);
        let mut cohorts = vec![smallest.div_ceil(4), smallest.div_ceil(2), smallest];
        cohorts.extend([2, 4, 10].map(|factor| smallest * factor));
        cohorts.extend(self.goal.map(u64::from));
        cohorts.sort_unstable();
        cohorts.dedup();
        cohorts
    }

    fn cohort(&self, n: u64, z: f64, improvement: f64) -> CohortLine {
        let noise = equal(z, self.parameters, self.measures) / n as f64;
        // The signal of T releases adds up to T, plain noise to √T.
        let accumulated = noise / improvement / f64::from(self.releases).sqrt();
        let kept = |noise: f64| 1.0 / (1.0 + noise * noise).sqrt();
        CohortLine {
            cohort: n,
            noise,
            direction_kept: kept(noise),
            direction_kept_accumulated: kept(accumulated),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forecast(parameters: u32, goal: Option<u32>) -> Forecast {
        Forecast {
            parameters,
            epsilon: 4.0,
            delta: 1e-6,
            participations: 4,
            measures: 0.0,
            band: 1,
            releases: 100,
            goal,
            json: false,
        }
    }

    #[test]
    fn the_table_is_that_of_the_privacy_page() {
        let (epsilon, delta) = (Epsilon::new(4.0).unwrap(), Delta::new(1e-6).unwrap());
        for (parameters, smallest) in [(330, 47), (10_000, 254), (50_000, 568), (200_000, 1135)] {
            let line = forecast(parameters, None).promise(epsilon, delta).unwrap();
            assert!((line.noise_multiplier - 2.54).abs() < 0.01, "{}", line.noise_multiplier);
            assert!(line.smallest_round.abs_diff(smallest) <= 2, "{parameters}: {line:?}");
        }
    }

    /// What is printed is what an operator copies into library.json, and what the ledger then holds the task to.
    #[test]
    fn what_is_forecast_is_what_the_ledger_permits() {
        use crate::privacy::Promise;
        let delta = Delta::new(1e-6).unwrap();
        for epsilon in [0.5, 1.0, 2.0, 3.3, 4.0, 8.0] {
            for participations in [1, 3, 4, 7, 12, 52] {
                let asked = Forecast { participations, ..forecast(330, None) };
                let epsilon = Epsilon::new(epsilon).unwrap();
                let printed =
                    format!("{:.3}", asked.promise(epsilon, delta).unwrap().noise_multiplier);
                let z: f64 = printed.parse().unwrap();
                let promise = |z| Promise {
                    noise_multiplier: NoiseMultiplier::new(z).unwrap(),
                    max_participations: participations,
                    period_days: 30,
                    epsilon,
                    delta,
                };
                promise(z).check().unwrap();
                let costs = promise(z).cost().times(participations.into());
                assert!(costs.epsilon(delta) <= costs.epsilon_bound(delta));
                assert!(costs.epsilon_bound(delta) <= epsilon.value(), "{costs:?}");
                // Two thousandths less are refused, so nothing is given away either.
                assert!(promise(z - 0.002).check().is_err(), "ε = {epsilon:?}, z = {z}");
            }
        }
    }

    #[test]
    fn hopeless_settings_are_refused_with_the_numbers() {
        forecast(330, Some(64)).run().unwrap();
        let refused = forecast(10_000, Some(64)).run().unwrap_err();
        assert!(refused.is(Code::PrivacyInvalid));
        assert!(refused.detail().contains("at least 254"), "{refused}");
        assert!(refused.hint().unwrap().contains("parameters"), "{refused}");
        let taken = Forecast { measures: 0.5, ..forecast(330, Some(64)) };
        assert!(taken.run().is_err(), "what measures take, the update lacks");
    }

    #[test]
    fn a_larger_cohort_and_a_wider_band_keep_more() {
        let plain = forecast(10_000, None);
        let line = |n, improvement| plain.cohort(n, 2.54, improvement);
        assert!((line(254, 1.0).direction_kept - 0.5f64.sqrt()).abs() < 1e-3);
        assert!(line(508, 1.0).direction_kept > line(254, 1.0).direction_kept);
        let band = Band::new(10).unwrap().improvement(100);
        let accumulated = |improvement| line(100, improvement).direction_kept_accumulated;
        assert!(accumulated(band) > accumulated(1.0));
    }
}
