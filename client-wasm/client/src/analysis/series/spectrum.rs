//! The rhythm of a series: periodogram and autocorrelation, both by the fast Fourier transform.

use rustfft::FftPlanner;
use rustfft::num_complex::Complex;

/// A peak counts as the first of the series where it reaches this share of the highest.
const FIRST_PEAK: f64 = 0.9;

/// What the two say.
pub(super) struct Rhythm {
    pub(super) dominant_hz: f64,
    pub(super) entropy: f64,
    pub(super) seasonality: f64,
    pub(super) period_s: f64,
}

/// The rhythm of channels without their lines. All have one length.
pub(super) fn rhythm(channels: &[&[f64]], rate_hz: f64) -> Rhythm {
    let steps = channels[0].len();
    let mut planner = FftPlanner::new();
    let mut power = vec![0.0; steps / 2 + 1];
    let mut correlation = vec![0.0; steps];
    for channel in channels {
        // A channel that counts in volts must not drown one in millivolts.
        let energy: f64 = channel.iter().map(|v| v * v).sum();
        if energy <= f64::MIN_POSITIVE {
            continue;
        }
        add_periodogram(&mut power, channel, energy, &mut planner);
        add_autocorrelation(&mut correlation, channel, energy, &mut planner);
    }
    let (seasonality, lag) = peak(&correlation, channels.len() as f64);
    Rhythm {
        dominant_hz: dominant(&power) * rate_hz / steps as f64,
        entropy: entropy(&power),
        seasonality,
        period_s: lag as f64 / rate_hz,
    }
}

/// One-sided power of the channel under a periodic Hann window.
fn add_periodogram(power: &mut [f64], channel: &[f64], energy: f64, planner: &mut FftPlanner<f64>) {
    let n = channel.len();
    let window = |i: usize| 0.5 - 0.5 * (std::f64::consts::TAU * i as f64 / n as f64).cos();
    let mut buffer: Vec<Complex<f64>> =
        channel.iter().enumerate().map(|(i, v)| Complex::new(v * window(i), 0.0)).collect();
    planner.plan_fft_forward(n).process(&mut buffer);
    for (k, (sum, value)) in power.iter_mut().zip(&buffer).enumerate() {
        // Every bin but the first and, of an even length, the last stands for two.
        let sides = if k == 0 || 2 * k == n { 1.0 } else { 2.0 };
        *sum += sides * value.norm_sqr() / energy;
    }
}

/// r(lag)/r(0), each sum divided by its number of terms (Wiener–Khinchin; zeros keep the ends apart).
fn add_autocorrelation(
    correlation: &mut [f64],
    channel: &[f64],
    energy: f64,
    planner: &mut FftPlanner<f64>,
) {
    let n = channel.len();
    let padded = (2 * n).next_power_of_two();
    let mut buffer: Vec<Complex<f64>> = channel.iter().map(|v| Complex::new(*v, 0.0)).collect();
    buffer.resize(padded, Complex::default());
    planner.plan_fft_forward(padded).process(&mut buffer);
    buffer.iter_mut().for_each(|value| *value = Complex::new(value.norm_sqr(), 0.0));
    planner.plan_fft_inverse(padded).process(&mut buffer);
    for (lag, (sum, value)) in correlation.iter_mut().zip(&buffer).enumerate() {
        *sum += value.re / padded as f64 / energy * n as f64 / (n - lag) as f64;
    }
}

/// The place of the highest bin but the first, in bins; a parabola through its neighbours says where between.
fn dominant(power: &[f64]) -> f64 {
    let Some(top) = (1..power.len()).max_by(|a, b| power[*a].total_cmp(&power[*b]).then(b.cmp(a)))
    else {
        return 0.0;
    };
    if power[top] <= 0.0 {
        return 0.0;
    }
    let at = |k: usize| power.get(k).copied().unwrap_or(0.0);
    let (left, right) = (at(top - 1), at(top + 1));
    let curve = left - 2.0 * power[top] + right;
    let shift = if curve < 0.0 { 0.5 * (left - right) / curve } else { 0.0 };
    (top as f64 + shift.clamp(-0.5, 0.5)).min((power.len() - 1) as f64)
}

/// −Σ p ln p / ln K over the K bins but the first.
fn entropy(power: &[f64]) -> f64 {
    let bins = power.get(1..).unwrap_or_default();
    let total: f64 = bins.iter().sum();
    if bins.len() < 2 || total <= 0.0 {
        return 0.0;
    }
    let shares = bins.iter().map(|p| p / total).filter(|p| *p > 0.0);
    (-shares.map(|p| p * p.ln()).sum::<f64>() / (bins.len() as f64).ln()).clamp(0.0, 1.0)
}

/// The first local maximum after a negative value that reaches 0.9 of the highest one, up to half the length, and
/// its lag: the highest itself is often a multiple of the period.
fn peak(correlation: &[f64], channels: f64) -> (f64, usize) {
    let half = correlation.len() / 2;
    let Some(crossing) = correlation.iter().take(half + 1).position(|r| *r < 0.0) else {
        return (0.0, 0);
    };
    let is_peak = |lag: &usize| {
        correlation[*lag] >= correlation[lag - 1]
            && correlation.get(lag + 1).is_none_or(|next| correlation[*lag] >= *next)
    };
    let peaks = || (crossing + 1..=half).filter(is_peak);
    let highest = peaks().map(|lag| correlation[lag]).fold(0.0, f64::max);
    match peaks().find(|lag| highest > 0.0 && correlation[*lag] >= FIRST_PEAK * highest) {
        Some(lag) => ((correlation[lag] / channels).min(1.0), lag),
        None => (0.0, 0),
    }
}
