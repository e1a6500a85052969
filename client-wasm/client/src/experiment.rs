//! Which arm of a running experiment this device is in, and the one randomised report it makes of it.

use backstitch_protocol::Problem;
use backstitch_protocol::catalog::{ArmEntry, ExperimentEntry};
use backstitch_protocol::experiment::{Report, arm_of, bucket, randomise};
use backstitch_protocol::problem::Code;
use serde::{Deserialize, Serialize};

/// The arm of a device; `None` outside of the experiment's coverage. A pure function of public parameters and the
/// device's secret, so it is the same on every visit and says nothing about the user's data.
pub fn assign<'a>(
    experiment: &'a ExperimentEntry,
    secret: &[u8; 32],
) -> Result<Option<&'a ArmEntry>, Problem> {
    let bucket = bucket(&experiment.salt_bytes()?, &experiment.name, experiment.seed, secret);
    let weights: Vec<u32> = experiment.arms.iter().map(|arm| arm.weight).collect();
    Ok(arm_of(bucket, &weights).map(|index| &experiment.arms[index]))
}

/// The outcomes that this device has gathered for one experiment, kept between visits.
///
/// The report is the outcome of one input of the window, drawn at random, so that its expectation over devices is
/// the share of right answers; then randomised.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// The experiment's seed: another one is another experiment.
    pub seed: u64,
    /// Labelled inputs so far, at most the window.
    pub seen: u32,
    /// The outcome of the drawn input, once it came by.
    picked: bool,
    /// What was or will be sent; a retry sends the same.
    pub report: Option<Report>,
    /// Whether the server has it.
    pub sent: bool,
}

impl Window {
    /// A new window of this experiment.
    pub fn new(experiment: &ExperimentEntry) -> Self {
        Self { seed: experiment.seed, ..Self::default() }
    }

    /// Adds a labelled input. `uniform` is a fresh draw from [0, 1). Reservoir sampling (Vitter 1985, algorithm R)
    /// keeps one outcome of all seen with equal probability.
    pub fn observe(&mut self, experiment: &ExperimentEntry, right: bool, uniform: f64) {
        if self.is_full(experiment) {
            return;
        }
        self.seen += 1;
        if uniform * f64::from(self.seen) < 1.0 {
            self.picked = right;
        }
    }

    /// The report is delivered, or never will be: the outcome behind it is forgotten, so that only what was randomised
    /// is left.
    pub fn close(&mut self) {
        (self.sent, self.picked) = (true, false);
    }

    /// Whether the window has all its inputs.
    pub fn is_full(&self, experiment: &ExperimentEntry) -> bool {
        self.seen >= experiment.window
    }

    /// The report of a full window, randomised once and then fixed. `uniform` is a fresh draw from [0, 1).
    pub fn report(
        &mut self,
        experiment: &ExperimentEntry,
        arm: &ArmEntry,
        secret: &[u8; 32],
        uniform: f64,
    ) -> Result<&Report, Problem> {
        if !self.is_full(experiment) {
            return Err(Problem::new(
                Code::NothingToContribute,
                format!("{} of {} labelled inputs", self.seen, experiment.window),
            ));
        }
        let (picked, epsilon) = (self.picked, experiment.epsilon);
        Ok(self.report.get_or_insert_with(|| Report {
            arm: arm.name.clone(),
            outcome: randomise(picked, epsilon, uniform),
            nullifier: Report::derive_nullifier(secret, &experiment.name),
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use backstitch_protocol::id::Name;
    use backstitch_protocol::privacy::Epsilon;

    use super::*;

    fn experiment(window: u32) -> ExperimentEntry {
        let arm = |name: &str| ArmEntry {
            name: Name::new(name).unwrap(),
            weight: 30_000,
            versions: BTreeMap::new(),
        };
        ExperimentEntry {
            name: Name::new("e").unwrap(),
            salt: "00".repeat(16),
            seed: 1,
            arms: vec![arm("champion"), arm("challenger")],
            window,
            epsilon: Epsilon::new(1.0).unwrap(),
        }
    }

    #[test]
    fn assignment_is_stable_and_follows_the_weights() {
        let experiment = experiment(1);
        let mut counts = BTreeMap::new();
        for i in 0..2000u32 {
            let mut secret = [0; 32];
            secret[..4].copy_from_slice(&i.to_le_bytes());
            let arm = assign(&experiment, &secret).unwrap();
            assert_eq!(arm, assign(&experiment, &secret).unwrap());
            *counts.entry(arm.map(|a| a.name.to_string())).or_insert(0) += 1;
        }
        assert!(
            counts[&Some("champion".to_owned())] > 830
                && counts[&Some("challenger".to_owned())] > 830
        );
        assert!((100..250).contains(&counts[&None]));
    }

    #[test]
    fn one_report_that_a_retry_repeats() {
        let experiment = experiment(3);
        let mut window = Window::new(&experiment);
        assert!(window.report(&experiment, &experiment.arms[0], &[1; 32], 0.0).is_err());
        (0..9).for_each(|_| window.observe(&experiment, true, 0.9));
        assert_eq!(window.seen, 3);
        let first =
            window.report(&experiment, &experiment.arms[0], &[1; 32], 0.99).unwrap().clone();
        assert!(!first.outcome, "0.99 is above the probability of the truth");
        assert_eq!(*window.report(&experiment, &experiment.arms[0], &[1; 32], 0.0).unwrap(), first);
        assert!(window.picked);
        window.close();
        assert!(window.sent && !window.picked, "the true outcome is not kept");
    }

    #[test]
    fn the_picked_outcome_is_uniform_over_the_window() {
        let experiment = experiment(4);
        let mut draws = crate::random::SplitMix::new(2);
        let picked = (0..20_000).filter(|_| {
            let mut window = Window::new(&experiment);
            (0..4).for_each(|i| window.observe(&experiment, i == 0, draws.uniform()));
            window.picked
        });
        let rate = picked.count() as f64 / 20_000.0;
        assert!((rate - 0.25).abs() < 0.015, "{rate}");
    }
}
