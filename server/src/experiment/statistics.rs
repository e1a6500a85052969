//! Anytime-valid statistics on randomised bits: an operator may look after every report and stop whenever.
//!
//! Reports of the two arms are taken in blocks, in their order of arrival: one of the rarer arm and r of the
//! other, so that each block holds one unbiased difference D, sub-Gaussian with variance at most
//! 1/4 + 1/(4r). The normal mixture (Robbins 1970; Howard et al. 2021, §3) bounds the sum of n such blocks at
//! all n at once, with probability 1 − α: |Σ(D − E D)| ≤ √((V + ρ) ln((V + ρ)/(ρ α²))), V = n (1/4 + 1/(4r)).
//! The randomised bits are bounded, so this needs no approximation; de-biasing is a fixed factor.

use std::collections::BTreeMap;

use backstitch_protocol::experiment::debias;
use backstitch_protocol::id::Name;
use serde::Serialize;

use super::Experiment;

/// The chance of ever being wrong, over all looks.
const ALPHA: f64 = 0.05;

/// The number of blocks at which the interval is tightest.
const TUNED_FOR_BLOCKS: f64 = 2_000.0;

/// What one arm's reports say.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ArmResult {
    /// The arm.
    pub name: Name,
    /// Its buckets.
    pub weight: u32,
    /// What it runs.
    pub versions: BTreeMap<Name, u32>,
    /// Reports.
    pub reports: u64,
    /// Reports of a randomised 1.
    pub ones: u64,
    /// The de-biased rate.
    pub rate: f64,
    /// Lower end of its confidence sequence, within [0, 1].
    pub ci_low: f64,
    /// Upper end.
    pub ci_high: f64,
}

/// Challenger minus champion.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// De-biased, from complete blocks.
    pub estimate: f64,
    /// Lower end of the confidence sequence.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// The whole result.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// In the experiment's order.
    pub arms: Vec<ArmResult>,
    /// Challenger minus champion.
    pub difference: Difference,
    /// `promote`, `keep`, `not yet` or `stopped`.
    pub decision: &'static str,
    /// In a sentence.
    pub reason: String,
}

/// ρ of the mixture, fixed before the first report: optimal at [`TUNED_FOR_BLOCKS`] blocks
/// (Howard et al. 2021, equation 25, to first order).
pub(super) fn mixture(share: f64) -> f64 {
    let variance = block_variance(share_ratio(share.min(1.0 - share)));
    let log = 2.0 * (1.0 / ALPHA).ln();
    TUNED_FOR_BLOCKS * variance / (log + (1.0 + log).ln())
}

/// The boundary for a sum with variance process V.
fn boundary(variance: f64, mixture: f64) -> f64 {
    let total = variance + mixture;
    (total * (total / (mixture * ALPHA * ALPHA)).ln()).sqrt()
}

/// Reports of the commoner arm per report of the rarer one.
fn share_ratio(rarer_share: f64) -> usize {
    (((1.0 - rarer_share) / rarer_share).round() as usize).max(1)
}

fn block_variance(ratio: usize) -> f64 {
    0.25 + 0.25 / ratio as f64
}

/// The result of these reports, in order of arrival per arm.
pub(super) fn outcome(experiment: &Experiment, bits: &BTreeMap<Name, Vec<bool>>) -> Outcome {
    let entry = &experiment.entry;
    let none = Vec::new();
    let of =
        |index: usize| entry.arms.get(index).and_then(|arm| bits.get(&arm.name)).unwrap_or(&none);
    let arms: Vec<ArmResult> =
        entry.arms.iter().enumerate().map(|(i, _)| arm(experiment, i, of(i))).collect();
    let weights: Vec<u32> = entry.arms.iter().map(|arm| arm.weight).collect();
    let (difference, blocks) = difference(experiment, of(0), of(1), &weights);
    let (decision, reason) = decide(experiment, &difference, blocks);
    Outcome { arms, difference, decision, reason }
}

fn arm(experiment: &Experiment, index: usize, bits: &[bool]) -> ArmResult {
    let arm = &experiment.entry.arms[index];
    let (n, ones) = (bits.len() as f64, bits.iter().filter(|b| **b).count());
    let observed = if bits.is_empty() { 0.5 } else { ones as f64 / n };
    let (rate, factor) = debias(observed, experiment.entry.epsilon);
    let half =
        if bits.is_empty() { 1.0 } else { factor * boundary(n * 0.25, experiment.mixture) / n };
    ArmResult {
        name: arm.name.clone(),
        weight: arm.weight,
        versions: arm.versions.clone(),
        reports: bits.len() as u64,
        ones: ones as u64,
        rate,
        ci_low: (rate - half).clamp(0.0, 1.0),
        ci_high: (rate + half).clamp(0.0, 1.0),
    }
}

/// The difference over complete blocks, and their number.
fn difference(
    experiment: &Experiment,
    champion: &[bool],
    challenger: &[bool],
    weights: &[u32],
) -> (Difference, usize) {
    let (a, b) = (f64::from(weights[0]), f64::from(weights[1]));
    let ratio = share_ratio(a.min(b) / (a + b));
    let challenger_is_rarer = b <= a;
    let (rarer, commoner) =
        if challenger_is_rarer { (challenger, champion) } else { (champion, challenger) };
    let blocks = rarer.len().min(commoner.len() / ratio);
    if blocks == 0 {
        return (Difference { estimate: 0.0, low: -1.0, high: 1.0 }, 0);
    }
    let mean = |bits: &[bool]| bits.iter().filter(|b| **b).count() as f64 / bits.len() as f64;
    let raw = mean(&rarer[..blocks]) - mean(&commoner[..blocks * ratio]);
    let (_, factor) = debias(0.5, experiment.entry.epsilon);
    let estimate = factor * if challenger_is_rarer { raw } else { -raw };
    let n = blocks as f64;
    let half = factor * boundary(n * block_variance(ratio), experiment.mixture) / n;
    (
        Difference { estimate, low: (estimate - half).max(-1.0), high: (estimate + half).min(1.0) },
        blocks,
    )
}

fn decide(
    experiment: &Experiment,
    difference: &Difference,
    blocks: usize,
) -> (&'static str, String) {
    let points = |x: f64| format!("{:+.1}", 100.0 * x);
    let between = format!("{} to {} points", points(difference.low), points(difference.high));
    if !experiment.running {
        return (
            "stopped",
            format!("stopped: {}; the difference was {between}", experiment.reason),
        );
    }
    if difference.low > 0.0 {
        return (
            "promote",
            format!("the challenger is better by {between}; it is safe to look at any time"),
        );
    }
    if difference.high < 0.0 {
        return ("keep", format!("the challenger is worse: {between}"));
    }
    if blocks == 0 {
        return ("not yet", "not yet: there are no reports of both arms".into());
    }
    // The half width falls as 1/√n; the estimate must outgrow it.
    let half = (difference.high - difference.low) / 2.0;
    let needed = blocks as f64 * (half / difference.estimate.abs().max(1e-3)).powi(2);
    let more = (needed - blocks as f64).max(1.0);
    (
        "not yet",
        format!(
            "not yet: {between} include zero; if the difference stays {}, about {more:.0} more reports of the rarer arm decide",
            points(difference.estimate)
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use backstitch_protocol::catalog::{ArmEntry, ExperimentEntry};
    use backstitch_protocol::experiment::randomise;
    use backstitch_protocol::privacy::Epsilon;

    fn experiment(share: f64, epsilon: f64) -> Experiment {
        let challenger = (share * 65_536.0) as u32;
        let arm = |name: &str, weight| ArmEntry {
            name: Name::new(name).unwrap(),
            weight,
            versions: BTreeMap::new(),
        };
        Experiment {
            entry: ExperimentEntry {
                name: Name::new("e").unwrap(),
                salt: "00".repeat(16),
                seed: 1,
                arms: vec![arm("champion", 65_536 - challenger), arm("challenger", challenger)],
                window: 1,
                epsilon: Epsilon::new(epsilon).unwrap(),
            },
            running: true,
            reason: String::new(),
            mixture: mixture(share),
            started_at: 0,
            stopped_at: None,
        }
    }

    /// A small generator of one's own (Steele, Lea, Flood 2014), so that the test is the same everywhere.
    struct Random(u64);
    impl Random {
        fn uniform(&mut self) -> f64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
        }
    }

    fn bits(random: &mut Random, epsilon: f64, rate: f64, n: usize) -> Vec<bool> {
        let epsilon = Epsilon::new(epsilon).unwrap();
        (0..n)
            .map(|_| {
                let truth = random.uniform() < rate;
                randomise(truth, epsilon, random.uniform())
            })
            .collect()
    }

    #[test]
    fn an_a_a_test_looked_at_after_every_report_is_rarely_wrong() {
        let experiment = experiment(0.5, 2.0);
        let mut random = Random(7);
        let runs = 200;
        let wrong = (0..runs)
            .filter(|_| {
                let (a, b) = (bits(&mut random, 2.0, 0.6, 2000), bits(&mut random, 2.0, 0.6, 2000));
                (50..2000).step_by(50).any(|n| {
                    let (d, _) = difference(&experiment, &a[..n], &b[..n], &[32_768, 32_768]);
                    d.low > 0.0 || d.high < 0.0
                })
            })
            .count();
        assert!(wrong * 20 <= runs, "{wrong} of {runs}");
    }

    #[test]
    fn a_real_difference_is_found_and_covered() {
        for share in [0.5, 0.2] {
            let experiment = experiment(share, 2.0);
            let mut random = Random(11);
            let champion = bits(&mut random, 2.0, 0.5, 40_000);
            let challenger = bits(&mut random, 2.0, 0.6, 10_000);
            let all = [("champion", champion), ("challenger", challenger)];
            let all =
                all.into_iter().map(|(name, bits)| (Name::new(name).unwrap(), bits)).collect();
            let outcome = outcome(&experiment, &all);
            assert_eq!(outcome.decision, "promote", "{share}: {}", outcome.reason);
            assert!(outcome.difference.low < 0.1 && outcome.difference.high > 0.1);
            assert!(outcome.arms[1].ci_low < 0.6 && outcome.arms[1].ci_high > 0.6);
        }
    }

    #[test]
    fn without_reports_nothing_is_decided() {
        let outcome = outcome(&experiment(0.5, 1.0), &BTreeMap::new());
        assert_eq!(outcome.decision, "not yet");
        assert_eq!((outcome.difference.low, outcome.difference.high), (-1.0, 1.0));
    }
}
