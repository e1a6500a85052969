//! Fits a selector: from what the client's analysis sees in an input, how much the patch will win there.
//!
//! A ridge regression of the paired gains on standardised features (Hoerl, Kennard 1970), then as much taken from the
//! intercept as makes the best choices: a gain that is right on average must not spoil inputs that are fine as they are.

use backstitch_client::analysis::FeatureVector;
use backstitch_onnx::patch::{Gain, Selector};

use super::statistics::mean;

/// Added to the diagonal of the standardised normal equations.
const RIDGE: f64 = 1e-3;

/// What a patch must bring, in the metric, to be worth being stitched.
const STITCH_COST: f64 = 0.005;

/// What choosing the patch may cost on inputs as they are.
const PLAIN_LOSS: f64 = 0.001;

/// Weights below this share of the largest, both standardised, are left out.
const SMALLEST_SHARE: f64 = 0.02;

/// One condition of the data: features and gain of each example.
pub(super) struct Slice {
    /// Whether nothing was done to the inputs.
    pub(super) is_plain: bool,
    pub(super) features: Vec<FeatureVector>,
    /// Patched minus base, more is better.
    pub(super) gains: Vec<f64>,
}

/// The selector that these slices, all of one weight, suggest.
pub(super) fn fit(slices: &[Slice]) -> Selector {
    let names = names(slices);
    let scales: Vec<(f64, f64)> = names.iter().map(|name| scale(name, slices)).collect();
    let row = |features: &FeatureVector| -> Vec<f64> {
        let standard = names.iter().zip(&scales);
        let standard = standard
            .map(|(n, (mean, spread))| (features.value(n).unwrap_or(*mean) - mean) / spread);
        standard.chain([1.0]).collect()
    };
    let width = names.len() + 1;
    let (mut normal, mut right) = (vec![vec![0.0; width]; width], vec![0.0; width]);
    for slice in slices {
        let weight = 1.0 / slice.gains.len().max(1) as f64;
        for (features, gain) in slice.features.iter().zip(&slice.gains) {
            let row = row(features);
            for i in 0..width {
                right[i] += weight * row[i] * gain;
                for j in 0..width {
                    normal[i][j] += weight * row[i] * row[j];
                }
            }
        }
    }
    for (index, line) in normal.iter_mut().enumerate().take(names.len()) {
        line[index] += RIDGE;
    }
    let mut solution = solve(normal, right);
    let intercept = solution.pop().unwrap_or_default();
    let largest = solution.iter().fold(0.0f64, |top, w| top.max(w.abs()));
    let mut gain = Gain { intercept, ..Gain::default() };
    for ((name, (mean, spread)), weight) in names.into_iter().zip(scales).zip(solution) {
        if weight.abs() > SMALLEST_SHARE * largest {
            gain.intercept -= weight * mean / spread;
            gain.weights.insert(name, rounded(weight / spread));
        }
    }
    gain.intercept = rounded(gain.intercept - caution(&gain, slices));
    Selector { requires: Vec::new(), gain }
}

/// Features that every example has and that are not the same for all.
fn names(slices: &[Slice]) -> Vec<String> {
    let all = || slices.iter().flat_map(|s| &s.features);
    let Some(first) = all().next() else { return Vec::new() };
    let varies = |name: &&String| {
        all().all(|f| f.value(name).is_some()) && all().any(|f| f.value(name) != first.value(name))
    };
    first.0.keys().filter(varies).cloned().collect()
}

/// Mean and standard deviation of a feature over all examples.
fn scale(name: &str, slices: &[Slice]) -> (f64, f64) {
    let values: Vec<f64> =
        slices.iter().flat_map(|s| &s.features).filter_map(|f| f.value(name)).collect();
    let centre = mean(&values);
    let squares: Vec<f64> = values.iter().map(|v| (v - centre).powi(2)).collect();
    (centre, mean(&squares).sqrt().max(1e-12))
}

/// What to take from the intercept so that the choices on these slices win most; nothing, where that wins as much.
fn caution(gain: &Gain, slices: &[Slice]) -> f64 {
    let predicted: Vec<Vec<f64>> =
        slices.iter().map(|s| s.features.iter().map(|f| predict(gain, f)).collect()).collect();
    let worth = |less: f64| -> f64 {
        let of = |(slice, predicted): (&Slice, &Vec<f64>)| {
            let chosen = predicted.iter().map(|p| f64::from(u8::from(*p > less)));
            let won: Vec<f64> = chosen.clone().zip(&slice.gains).map(|(c, g)| c * g).collect();
            let share = mean(&chosen.collect::<Vec<_>>());
            let loss = if slice.is_plain { (-mean(&won) - PLAIN_LOSS).max(0.0) } else { 0.0 };
            mean(&won) - STITCH_COST * share - 1e3 * loss
        };
        slices.iter().zip(&predicted).map(of).sum()
    };
    let mut best = (worth(0.0), 0.0);
    // From never to always, in steps of the predictions themselves.
    let mut steps: Vec<f64> = predicted.iter().flatten().copied().collect();
    steps.sort_by(f64::total_cmp);
    let stride = (steps.len() / 200).max(1);
    let ends = [
        steps.last().copied().unwrap_or_default(),
        steps.first().copied().unwrap_or_default() - 1e-4,
    ];
    for less in steps.into_iter().step_by(stride).chain(ends) {
        let worth = worth(less);
        if worth > best.0 {
            best = (worth, less);
        }
    }
    best.1
}

fn predict(gain: &Gain, features: &FeatureVector) -> f64 {
    let of = |(name, weight): (&String, &f64)| weight * features.value(name).unwrap_or_default();
    gain.intercept + gain.weights.iter().map(of).sum::<f64>()
}

fn rounded(value: f64) -> f64 {
    (value * 1e5).round() / 1e5
}

/// Gaussian elimination with pivoting. Of equations that depend on others, the unknown is 0.
fn solve(mut matrix: Vec<Vec<f64>>, mut right: Vec<f64>) -> Vec<f64> {
    let n = right.len();
    for column in 0..n {
        let pivot = (column..n)
            .max_by(|a, b| matrix[*a][column].abs().total_cmp(&matrix[*b][column].abs()))
            .unwrap_or(column);
        matrix.swap(column, pivot);
        right.swap(column, pivot);
        if matrix[column][column].abs() < 1e-12 {
            continue;
        }
        for row in (0..n).filter(|row| *row != column) {
            let factor = matrix[row][column] / matrix[column][column];
            let pivot_row = matrix[column].clone();
            for (value, above) in matrix[row].iter_mut().zip(pivot_row) {
                *value -= factor * above;
            }
            right[row] -= factor * right[column];
        }
    }
    let unknown = |i: usize| if matrix[i][i].abs() < 1e-12 { 0.0 } else { right[i] / matrix[i][i] };
    (0..n).map(unknown).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn features(noise: f64, other: f64) -> FeatureVector {
        FeatureVector(BTreeMap::from([
            ("image.noise".to_owned(), noise),
            ("image.other".to_owned(), other),
        ]))
    }

    /// Noisy inputs win three times of four, plain ones lose one time of five.
    fn slices() -> Vec<Slice> {
        let slice = |is_plain: bool, noise: f64, gain: fn(usize) -> f64| Slice {
            is_plain,
            features: (0..200)
                .map(|i| features(noise + 0.001 * (i % 7) as f64, (i % 5) as f64))
                .collect(),
            gains: (0..200).map(gain).collect(),
        };
        let wins = |i: usize| if i.is_multiple_of(4) { 0.0 } else { 1.0 };
        let loses = |i: usize| if i.is_multiple_of(5) { -1.0 } else { 0.0 };
        vec![slice(true, 0.01, loses), slice(false, 0.3, wins)]
    }

    #[test]
    fn noisy_inputs_are_chosen_and_plain_ones_left_alone() {
        let slices = slices();
        let selector = fit(&slices);
        for slice in &slices {
            let chosen = slice.features.iter().filter(|f| predict(&selector.gain, f) > 0.0).count();
            assert_eq!(chosen, if slice.is_plain { 0 } else { 200 }, "{selector:?}");
        }
        assert!(selector.gain.weights["image.noise"] > 0.0);
    }

    #[test]
    fn without_features_a_patch_that_wins_is_always_chosen() {
        let none = |gains: Vec<f64>| {
            let features = vec![FeatureVector::default(); gains.len()];
            fit(&[Slice { is_plain: true, features, gains }]).gain
        };
        // As much as it wins: nothing is taken from a gain that chooses right.
        assert!((none(vec![1.0, 0.0, 1.0]).intercept - 2.0 / 3.0).abs() < 1e-3);
        assert!(none(vec![-1.0, 0.0, -1.0]).intercept <= 0.0);
    }

    #[test]
    fn equations_are_solved() {
        let found = solve(vec![vec![0.0, 2.0], vec![1.0, 1.0]], vec![4.0, 5.0]);
        assert!((found[0] - 3.0).abs() < 1e-12 && (found[1] - 2.0).abs() < 1e-12);
        assert_eq!(solve(vec![vec![0.0]], vec![1.0]), [0.0]);
    }
}
