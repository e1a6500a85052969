//! Paired statistics of what a patch changes: the same examples, base and patched.

use backstitch_client::random::SplitMix;

/// Resamples of the bootstrap.
const RESAMPLES: usize = 2000;

/// The mean; 0 of nothing.
pub(super) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// The 95 % percentile interval of the mean by the paired bootstrap (Efron, Tibshirani 1993, chapter 13).
pub(super) fn interval(changes: &[f64], seed: u64) -> [f64; 2] {
    let mut draws = SplitMix::new(seed);
    let n = changes.len();
    let mut means: Vec<f64> = (0..RESAMPLES)
        .map(|_| (0..n).map(|_| changes[draws.below(n)]).sum::<f64>() / n as f64)
        .collect();
    means.sort_by(f64::total_cmp);
    [means[RESAMPLES / 40], means[RESAMPLES - 1 - RESAMPLES / 40]]
}

/// The value below which this share of the sorted values lies.
pub(super) fn quantile(sorted: &[f64], share: f64) -> f64 {
    let index = ((sorted.len() as f64 - 1.0) * share).round() as usize;
    sorted.get(index).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_holds_the_mean_and_narrows() {
        let changes =
            |n: usize| -> Vec<f64> { (0..n).map(|i| f64::from(i8::from(i % 10 == 0))).collect() };
        let [low, high] = interval(&changes(200), 1);
        assert!(low < 0.1 && 0.1 < high && high - low < 0.1, "{low} {high}");
        let [narrow_low, narrow_high] = interval(&changes(20_000), 1);
        assert!(narrow_high - narrow_low < 0.2 * (high - low));
        assert_eq!(interval(&[0.0; 50], 1), [0.0, 0.0]);
    }

    #[test]
    fn quantiles_are_members() {
        let sorted = [1.0, 2.0, 3.0, 4.0, 5.0];
        assert_eq!(
            (quantile(&sorted, 0.5), quantile(&sorted, 0.95), quantile(&[], 0.5)),
            (3.0, 5.0, 0.0)
        );
    }
}
