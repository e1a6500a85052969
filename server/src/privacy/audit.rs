//! What an attacker can tell from one release: estimates of ε from the scores of canaries that were in it or not.
//!
//! A canary is a contribution of norm C along a direction of its own. Its score is what the release moved along
//! that direction, in units of C: N(1, z²) if it was in, N(0, z²) if zeros were sent in its place.

use backstitch_protocol::privacy::{Delta, epsilon_of};
use serde::Serialize;

/// A canary after the release.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Canary {
    /// Whether it was in.
    pub included: bool,
    /// How far the release moved its way.
    pub score: f64,
}

/// One-sided quantile of the normal distribution at 99.9 %.
const SURE: f64 = 3.090;

/// Confidence of the one-run bound.
const CONFIDENCE: f64 = 0.95;

/// Guesses of the one-run bound as a share of the canaries, half of them "in" and half "out". Fixed before any score
/// is seen, as the bound needs.
const GUESSED: f64 = 0.1;

/// What the scores say.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// Canaries.
    pub canaries: usize,
    /// Deviation of the scores in units of C: z, if the noise is as stated.
    pub noise_multiplier: f64,
    /// ε by fitting two Gaussians of one variance to the scores (Andrew et al. 2023, arXiv 2302.03098).
    pub gaussian_fit_epsilon: f64,
    /// The same at the lower end of a one-sided 99.9 % interval of the fit.
    pub gaussian_fit_lower: f64,
    /// A lower bound on ε at 95 % confidence, without any assumption on the mechanism (Steinke, Nasr, Jagielski
    /// 2023, Theorem 5.2).
    pub one_run_lower: f64,
    /// Area under the curve of the membership attack: ½ is blind.
    pub auc: f64,
    /// Its 95 % interval.
    pub auc_ci95: [f64; 2],
    /// Canaries found at one false alarm in a hundred.
    pub true_positives_at_1_percent: f64,
}

impl Finding {
    /// Evaluates the scores. There must be at least two canaries on each side.
    pub fn of(canaries: &[Canary], delta: Delta) -> Self {
        let side = |wanted: bool| -> Vec<f64> {
            canaries.iter().filter(|c| c.included == wanted).map(|c| c.score).collect()
        };
        let (inside, outside) = (side(true), side(false));
        let (distance, deviation) = fit(&inside, &outside);
        let mu = (distance / deviation).max(0.0);
        let n = canaries.len() as f64;
        let error =
            (1.0 / inside.len() as f64 + 1.0 / outside.len() as f64 + mu * mu / (2.0 * n)).sqrt();
        let epsilon = |mu: f64| epsilon_of(mu * mu / 2.0, delta);
        let auc = auc(&inside, &outside);
        let half = 1.96 * auc_error(auc, inside.len() as f64, outside.len() as f64);
        Self {
            canaries: canaries.len(),
            noise_multiplier: deviation,
            gaussian_fit_epsilon: epsilon(mu),
            gaussian_fit_lower: epsilon((mu - SURE * error).max(0.0)),
            one_run_lower: one_run(canaries, delta.value()),
            auc,
            auc_ci95: [(auc - half).max(0.0), (auc + half).min(1.0)],
            true_positives_at_1_percent: true_positives(&inside, &outside),
        }
    }

    /// The larger of the lower bounds.
    pub fn lower_bound(&self) -> f64 {
        self.gaussian_fit_lower.max(self.one_run_lower)
    }
}

/// Distance of the means, and the pooled deviation.
fn fit(inside: &[f64], outside: &[f64]) -> (f64, f64) {
    let mean = |scores: &[f64]| scores.iter().sum::<f64>() / scores.len() as f64;
    let squares = |scores: &[f64]| {
        let mean = mean(scores);
        scores.iter().map(|s| (s - mean).powi(2)).sum::<f64>()
    };
    let freedom = (inside.len() + outside.len()).saturating_sub(2).max(1) as f64;
    (mean(inside) - mean(outside), ((squares(inside) + squares(outside)) / freedom).sqrt())
}

/// Guesses "in" for the highest scores and "out" for the lowest, and asks which ε explains that many right ones.
fn one_run(canaries: &[Canary], delta: f64) -> f64 {
    let mut sorted = canaries.to_vec();
    sorted.sort_by(|a, b| a.score.total_cmp(&b.score));
    let each = (canaries.len() as f64 * GUESSED / 2.0).ceil() as usize;
    let low = sorted.iter().take(each).filter(|c| !c.included).count();
    let high = sorted.iter().rev().take(each).filter(|c| c.included).count();
    let p_value = |epsilon| p_value(canaries.len(), 2 * each, low + high, epsilon, delta);
    let (mut bound, mut above) = (0.0, 1.0);
    while p_value(above) < 1.0 - CONFIDENCE && above < 64.0 {
        above *= 2.0;
    }
    for _ in 0..40 {
        let middle = 0.5 * (bound + above);
        match p_value(middle) < 1.0 - CONFIDENCE {
            true => bound = middle,
            false => above = middle,
        }
    }
    bound
}

/// The probability that an (ε, δ)-DP mechanism lets `right` or more of `guesses` guesses about `canaries` canaries be
/// right (Theorem 5.2): P[B ≥ v] + 2mδ·max_i P[v > B ≥ v − i]/i, with B binomial of accuracy e^ε/(1 + e^ε).
fn p_value(canaries: usize, guesses: usize, right: usize, epsilon: f64, delta: f64) -> f64 {
    let q = 1.0 / (1.0 + (-epsilon).exp());
    let probabilities = binomial(guesses, q);
    let beta: f64 = probabilities[right..].iter().sum();
    let (mut alpha, mut sum) = (0.0f64, 0.0);
    for i in 1..=right {
        sum += probabilities[right - i];
        alpha = alpha.max(sum / i as f64);
    }
    (beta + alpha * delta * 2.0 * canaries as f64).min(1.0)
}

/// P[B = 0], P[B = 1], … of n trials.
fn binomial(n: usize, q: f64) -> Vec<f64> {
    let mut factorial = vec![0.0f64];
    for i in 1..=n {
        factorial.push(factorial[i - 1] + (i as f64).ln());
    }
    let log = |k: usize| {
        factorial[n] - factorial[k] - factorial[n - k]
            + k as f64 * q.ln()
            + (n - k) as f64 * (-q).ln_1p()
    };
    (0..=n).map(|k| log(k).exp()).collect()
}

/// The share of pairs in which the canary that was in scores higher (Mann, Whitney 1947).
fn auc(inside: &[f64], outside: &[f64]) -> f64 {
    let mut sorted = outside.to_vec();
    sorted.sort_by(f64::total_cmp);
    let below = |score: &f64| {
        let less = sorted.partition_point(|o| o < score);
        let equal = sorted[less..].partition_point(|o| o <= score);
        less as f64 + 0.5 * equal as f64
    };
    inside.iter().map(below).sum::<f64>() / (inside.len() * outside.len()) as f64
}

/// Its standard error (Hanley, McNeil 1982).
fn auc_error(auc: f64, inside: f64, outside: f64) -> f64 {
    let (q1, q2) = (auc / (2.0 - auc), 2.0 * auc * auc / (1.0 + auc));
    let square = auc * auc;
    let variance =
        (auc * (1.0 - auc) + (inside - 1.0) * (q1 - square) + (outside - 1.0) * (q2 - square))
            / (inside * outside);
    variance.max(0.0).sqrt()
}

fn true_positives(inside: &[f64], outside: &[f64]) -> f64 {
    let mut sorted = outside.to_vec();
    sorted.sort_by(|a, b| b.total_cmp(a));
    let threshold = sorted[sorted.len() / 100];
    inside.iter().filter(|score| **score > threshold).count() as f64 / inside.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::privacy::noise::tests::draw_at;

    fn delta() -> Delta {
        Delta::new(1e-6).unwrap()
    }

    /// Scores under the real noise of this multiplier.
    fn canaries(z: f64, count: usize) -> Vec<Canary> {
        let noise = draw_at(z, 32_767.0, count);
        let canary = |(i, noise): (usize, i64)| {
            // Every third pair the other way round, so that order tells nothing.
            let included = (i / 3 + i) % 2 == 0;
            Canary { included, score: f64::from(u8::from(included)) + noise as f64 / 32_767.0 }
        };
        noise.into_iter().enumerate().map(canary).collect()
    }

    #[test]
    fn the_fit_finds_the_epsilon_that_is_there() {
        for (z, epsilon) in [(1.0, 4.89), (0.5, 11.0)] {
            let finding = Finding::of(&canaries(z, 4000), delta());
            assert!((finding.gaussian_fit_epsilon / epsilon - 1.0).abs() < 0.25, "{finding:?}");
            assert!(finding.gaussian_fit_lower < epsilon && finding.one_run_lower < epsilon);
            assert!(finding.one_run_lower > 0.8, "{finding:?}");
            assert!((finding.noise_multiplier / z - 1.0).abs() < 0.06, "{finding:?}");
        }
    }

    #[test]
    fn halved_noise_is_above_the_claim() {
        let claim = epsilon_of(0.5, delta());
        let finding = Finding::of(&canaries(0.5, 4000), delta());
        assert!(finding.lower_bound() > claim, "{finding:?}");
        let honest = Finding::of(&canaries(1.0, 4000), delta());
        assert!(honest.lower_bound() <= claim, "{honest:?}");
    }

    #[test]
    fn the_attack_is_as_good_as_the_noise_lets_it_be() {
        // Φ(1/(z√2)): 0.76 at z = 1, 0.61 at z = 2.54.
        for (z, expected) in [(1.0, 0.760), (2.54, 0.610)] {
            let finding = Finding::of(&canaries(z, 4000), delta());
            assert!((finding.auc - expected).abs() < 0.05, "{z}: {finding:?}");
            assert!(finding.auc_ci95[0] < finding.auc && finding.auc < finding.auc_ci95[1]);
        }
        assert_eq!(auc(&[2.0, 3.0], &[0.0, 1.0]), 1.0);
        assert_eq!(auc(&[1.0], &[1.0]), 0.5);
    }

    /// Computed with the reference implementation in the paper's appendix.
    #[test]
    fn the_one_run_bound_is_that_of_the_paper() {
        for (m, r, v, epsilon, delta, expected) in [
            (1000, 100, 80, 1.0, 1e-6, 0.071_701_533_719),
            (1000, 100, 95, 2.0, 1e-5, 0.017_824_634_643),
            (100, 100, 75, 0.5, 0.0, 0.004_804_739_485),
        ] {
            let found = p_value(m, r, v, epsilon, delta);
            assert!((found - expected).abs() < 1e-9, "{m} {r} {v} {epsilon}: {found}");
        }
    }
}
