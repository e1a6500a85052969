//! Features of a series: level, noise, trend, rhythm, gaps, changes.
//!
//! What is not finite is missing and filled by a straight line between its neighbours. Several channels share one
//! clock: their features are averaged, their spectra summed. Only the newest [`MAX_STEPS`] samples are looked at.

mod changes;
mod sliding;
mod spectrum;

use backstitch_protocol::Problem;

use super::{Description, FeatureVector, describe};
use crate::input::invalid;

pub use sliding::Sliding;

/// Samples of a channel that are looked at.
const MAX_STEPS: usize = 1 << 14;

/// The standard deviation of a normal distribution in units of its median absolute deviation.
const NORMAL_MAD: f64 = 0.674_489_750_196_081_7;

/// Samples on a common clock, NaN where missing.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    channels: usize,
    rate_hz: f64,
    values: Vec<f32>,
}

impl Series {
    /// A series of `channels` rows one after the other, each from the oldest to the newest sample. Refuses rows of
    /// different length and a rate that is not a positive number.
    pub fn new(channels: usize, rate_hz: f64, values: Vec<f32>) -> Result<Self, Problem> {
        if channels == 0 || values.is_empty() || !values.len().is_multiple_of(channels) {
            return Err(invalid(format!(
                "{} samples do not make {channels} channels of one length",
                values.len()
            )));
        }
        if !(rate_hz.is_finite() && rate_hz > 0.0) {
            return Err(invalid(format!("the sampling rate is {rate_hz} Hz"))
                .with_hint("give samples per second; 1 where the clock does not matter"));
        }
        Ok(Self { channels, rate_hz, values })
    }

    /// Samples of each channel.
    pub fn steps(&self) -> usize {
        self.values.len() / self.channels
    }

    fn rows(&self) -> impl Iterator<Item = &[f32]> {
        let newest = self.steps().saturating_sub(MAX_STEPS);
        self.values.chunks_exact(self.steps()).map(move |row| &row[newest..])
    }
}

/// What each feature of a series means.
pub(super) const DESCRIPTIONS: &[Description] = &[
    describe("series.length", "length", "samples", "≥ 1", "Samples of each channel.", "count"),
    describe(
        "series.missing_share",
        "gaps",
        "share of samples",
        "0 to 1",
        "Samples that are not finite.",
        "count",
    ),
    describe("series.level", "level", "unit of the series", "any", "The mean.", "arithmetic mean"),
    describe(
        "series.spread",
        "spread",
        "unit of the series",
        "≥ 0",
        "The population standard deviation.",
        "root mean square",
    ),
    describe(
        "series.noise",
        "noise",
        "unit of the series",
        "≥ 0",
        "Standard deviation of the noise, from the median distance of a sample to the middle of its neighbours.",
        "Gasser, Sroka, Jennen-Steinmetz 1986, Residual variance and residual pattern; with a median: Hampel 1974",
    ),
    describe(
        "series.noise_share",
        "noise beside the spread",
        "share of the spread",
        "0 to 1",
        "The noise in units of the spread.",
        "quotient",
    ),
    describe(
        "series.trend",
        "trend",
        "unit of the series",
        "any",
        "How much the least-squares line rises from the first to the last sample.",
        "ordinary least squares",
    ),
    describe(
        "series.trend_strength",
        "steadiness of the trend",
        "share of variance",
        "0 to 1",
        "R² of the line.",
        "ordinary least squares",
    ),
    describe(
        "series.dominant_frequency",
        "main frequency",
        "Hz",
        "0 to rate/2",
        "The peak of the periodogram (line removed, Hann window), refined by a parabola; 0 for a flat series.",
        "periodogram: Schuster 1898; window and peak: Harris 1978",
    ),
    describe(
        "series.spectral_entropy",
        "irregularity",
        "share of the maximum",
        "0 to 1",
        "Entropy of the normalised periodogram: 0 for a pure tone, 1 for white noise; 0 for a flat series.",
        "Inouye et al. 1991, Quantification of EEG irregularity by use of the entropy of the power spectrum",
    ),
    describe(
        "series.seasonality",
        "repeats itself",
        "correlation",
        "0 to 1",
        "The autocorrelation (line removed) at the first peak after a negative value that reaches 0.9 of the highest.",
        "McLeod, Wyvill 2005, A smarter way to find pitch",
    ),
    describe(
        "series.period",
        "length of what repeats",
        "seconds",
        "≥ 0",
        "The lag of that peak; 0 where there is none.",
        "McLeod, Wyvill 2005",
    ),
    describe(
        "series.change_points",
        "jumps of the level",
        "changes",
        "≥ 0",
        "Shifts of the level: the exact minimum of squared error and 3·ln(n) per shift, on standardised values.",
        "PELT: Killick, Fearnhead, Eckley 2012; penalty: Yao 1988",
    ),
];

/// The features of a series.
pub(super) fn features(series: &Series) -> FeatureVector {
    let rows: Vec<Channel> = series.rows().map(Channel::of).collect();
    let lines: Vec<Line> = rows.iter().map(|row| row.line).collect();
    feature_vector(series.steps(), &lines, rhythm_of(&rows, series.rate_hz))
}

/// What takes a whole window: the spectra's and the level's features.
fn rhythm_of(rows: &[Channel], rate_hz: f64) -> [(&'static str, f64); 5] {
    let flats: Vec<&[f64]> = rows.iter().map(|row| row.detrended.as_slice()).collect();
    let rhythm = spectrum::rhythm(&flats, rate_hz);
    let standard: Vec<Vec<f64>> = rows.iter().map(Channel::standardised).collect();
    [
        ("series.dominant_frequency", rhythm.dominant_hz),
        ("series.spectral_entropy", rhythm.entropy),
        ("series.seasonality", rhythm.seasonality),
        ("series.period", rhythm.period_s),
        ("series.change_points", changes::count(&standard) as f64),
    ]
}

fn feature_vector(steps: usize, lines: &[Line], rhythm: [(&'static str, f64); 5]) -> FeatureVector {
    let mean = |of: &dyn Fn(&Line) -> f64| lines.iter().map(of).sum::<f64>() / lines.len() as f64;
    let values = [
        ("series.length", steps as f64),
        ("series.missing_share", mean(&|c| c.missing)),
        ("series.level", mean(&|c| c.level)),
        ("series.spread", mean(&|c| c.spread)),
        ("series.noise", mean(&|c| c.noise)),
        ("series.noise_share", mean(&Line::noise_share)),
        ("series.trend", mean(&|c| c.trend)),
        ("series.trend_strength", mean(&|c| c.strength)),
    ];
    let all = values.into_iter().chain(rhythm);
    FeatureVector(all.map(|(name, value)| (name.to_owned(), value)).collect())
}

/// Level, line and noise of one channel.
#[derive(Clone, Copy, Debug)]
struct Line {
    missing: f64,
    level: f64,
    spread: f64,
    noise: f64,
    slope: f64,
    trend: f64,
    strength: f64,
    /// Rounding leaves a flat channel a deviation that means nothing.
    flat: bool,
}

impl Line {
    /// `squares` is Σ(v − level)², `across` Σ(i − middle)(v − level).
    fn of(steps: usize, level: f64, squares: f64, across: f64, missing: f64, noise: f64) -> Self {
        let n = steps as f64;
        // Σ(i − (n−1)/2)² = n(n² − 1)/12.
        let along = n * (n * n - 1.0) / 12.0;
        let slope = if along > 0.0 { across / along } else { 0.0 };
        let spread = (squares / n).sqrt();
        let flat = spread <= 1e-9 * level.abs();
        let strength =
            if squares > 0.0 && !flat { (slope * across / squares).clamp(0.0, 1.0) } else { 0.0 };
        Self { missing, level, spread, noise, slope, trend: slope * (n - 1.0), strength, flat }
    }

    fn noise_share(&self) -> f64 {
        if self.spread > 0.0 { (self.noise / self.spread).min(1.0) } else { 0.0 }
    }
}

/// What is measured on one channel.
struct Channel {
    line: Line,
    filled: Vec<f64>,
    /// Without the least-squares line.
    detrended: Vec<f64>,
}

impl Channel {
    fn of(row: &[f32]) -> Self {
        let filled = fill(row);
        let n = filled.len() as f64;
        let level = filled.iter().sum::<f64>() / n;
        let squares: f64 = filled.iter().map(|v| (v - level).powi(2)).sum();
        let middle = (n - 1.0) / 2.0;
        let across: f64 =
            filled.iter().enumerate().map(|(i, v)| (i as f64 - middle) * (v - level)).sum();
        let missing = row.iter().filter(|v| !v.is_finite()).count() as f64 / n;
        let line = Line::of(row.len(), level, squares, across, missing, noise(row));
        let rest = |(i, v): (usize, &f64)| match line.flat {
            true => 0.0,
            false => v - level - line.slope * (i as f64 - middle),
        };
        let detrended = filled.iter().enumerate().map(rest).collect();
        Self { line, detrended, filled }
    }

    /// Mean 0 and deviation 1; all 0 for a flat channel.
    fn standardised(&self) -> Vec<f64> {
        let Line { level, spread, flat, .. } = self.line;
        let scale = if flat { 0.0 } else { 1.0 / spread };
        self.filled.iter().map(|v| (v - level) * scale).collect()
    }
}

/// Straight lines across gaps, and the nearest value before the first and after the last; 0 where all is missing.
fn fill(row: &[f32]) -> Vec<f64> {
    let mut filled: Vec<f64> = row.iter().map(|v| f64::from(*v)).collect();
    let mut known = None;
    for at in 0..row.len() {
        if !row[at].is_finite() {
            continue;
        }
        let value = filled[at];
        match known {
            None => filled[..at].fill(value),
            Some(before) => {
                let (start, span): (f64, f64) = (filled[before], (at - before) as f64);
                for (step, gap) in filled[before + 1..at].iter_mut().enumerate() {
                    *gap = start + (value - start) * (step + 1) as f64 / span;
                }
            }
        }
        known = Some(at);
    }
    match known {
        Some(last) => {
            let value = filled[last];
            filled[last..].fill(value);
        }
        None => filled.fill(0.0),
    }
    filled
}

/// σ = √(2/3) · median |½xᵢ₋₁ − xᵢ + ½xᵢ₊₁| / 0.6745; triples with a missing sample are left out.
fn noise(row: &[f32]) -> f64 {
    let triples = row.array_windows::<3>().filter(|triple| triple.iter().all(|v| v.is_finite()));
    let mut residuals: Vec<f64> = triples.map(residual).collect();
    (2.0f64 / 3.0).sqrt() * median(&mut residuals) / NORMAL_MAD
}

fn residual([a, b, c]: &[f32; 3]) -> f64 {
    (0.5 * (f64::from(*a) + f64::from(*c)) - f64::from(*b)).abs()
}

/// The mean of the two middle values of an even number; 0 of none.
fn median(values: &mut [f64]) -> f64 {
    let middle = values.len() / 2;
    if values.is_empty() {
        return 0.0;
    }
    let even = values.len().is_multiple_of(2);
    let (below, upper, _) = values.select_nth_unstable_by(middle, f64::total_cmp);
    match even {
        true => (below.iter().copied().fold(f64::NEG_INFINITY, f64::max) + *upper) / 2.0,
        false => *upper,
    }
}

#[cfg(test)]
mod tests;
