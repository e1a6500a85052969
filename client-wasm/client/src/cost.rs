//! What each stage takes on this device: multiply-accumulates first, measured milliseconds as soon as there are some.

use std::collections::{BTreeMap, VecDeque};

/// First measurements of a stage, which are thrown away: caches are cold and code is not yet optimised.
const WARM_UP: u32 = 2;

/// Measurements that count: old ones leave, so that a device that slows down is noticed.
const WINDOW: usize = 15;

/// Before anything is measured: 2·10⁹ multiply-accumulates a second, a slow phone.
const NANOSECONDS_PER_MAC: f64 = 0.5;

/// Measurements nearer to each other than this many milliseconds are the same one but for rounding.
const SAME_MS: f64 = 1e-3;

/// No browser's clock has longer steps, in milliseconds.
const COARSEST_CLOCK_MS: f64 = 1.0;

/// What a run costs beyond arithmetic, per stage.
const OVERHEAD_MS: f64 = 0.005;

/// Estimates per stage. A stage is known by name, such as `segment:0` or `patch:noise-reduction`.
#[derive(Clone, Debug, Default)]
pub struct CostModel {
    stages: BTreeMap<String, Stage>,
}

#[derive(Clone, Debug, Default)]
struct Stage {
    macs: u64,
    seen: u32,
    recent: VecDeque<f64>,
}

/// An estimate and where it comes from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// Milliseconds.
    pub ms: f64,
    /// Whether it rests on measurements on this device.
    pub measured: bool,
}

impl CostModel {
    /// States a stage's multiply-accumulates; what was measured stays.
    pub fn declare(&mut self, stage: &str, macs: u64) {
        self.stages.entry(stage.to_owned()).or_default().macs = macs;
    }

    /// Adds a measurement; the first ones of a stage are thrown away.
    pub fn observe(&mut self, stage: &str, ms: f64) {
        let stage = self.stages.entry(stage.to_owned()).or_default();
        stage.seen += 1;
        if stage.seen <= WARM_UP || !ms.is_finite() || ms < 0.0 {
            return;
        }
        if stage.recent.len() == WINDOW {
            stage.recent.pop_front();
        }
        stage.recent.push_back(ms);
    }

    /// What recent measurements say, or an estimate from the stage's multiply-accumulates at the speed that this device
    /// has shown on other stages.
    pub fn estimate(&self, stage: &str) -> Estimate {
        let stage = self.stages.get(stage);
        if let Some(ms) = stage.and_then(Stage::typical) {
            return Estimate { ms, measured: true };
        }
        let macs = stage.map_or(0, |s| s.macs) as f64;
        Estimate { ms: macs * self.milliseconds_per_mac() + OVERHEAD_MS, measured: false }
    }

    fn milliseconds_per_mac(&self) -> f64 {
        let measured = self.stages.values().filter_map(|s| s.typical().map(|ms| (s.macs, ms)));
        let (macs, ms) = measured
            .filter(|(macs, _)| *macs > 0)
            .fold((0.0, 0.0), |(macs, ms), (m, t)| (macs + m as f64, ms + t));
        if macs > 0.0 { ms / macs } else { NANOSECONDS_PER_MAC * 1e-6 }
    }
}

impl Stage {
    /// The median, moved by the mean deviation from it, of which no measurement gives more than one step of the clock
    /// (Winsor's mean). Browsers' clocks step by 0.1 ms or 1 ms: the median of a stage that takes 0.03 ms is 0 there, the
    /// mean is not. Where the clock is fine, so are the steps, and this is the median.
    fn typical(&self) -> Option<f64> {
        let mut sorted: Vec<f64> = self.recent.iter().copied().collect();
        sorted.sort_by(f64::total_cmp);
        let median = *sorted.get(sorted.len() / 2)?;
        let gaps = sorted.windows(2).map(|pair| pair[1] - pair[0]);
        let steps = gaps.filter(|gap| (SAME_MS..=COARSEST_CLOCK_MS + SAME_MS).contains(gap));
        let step = steps.reduce(f64::min).unwrap_or(0.0);
        let moved: f64 = sorted.iter().map(|ms| (ms - median).clamp(-step, step)).sum();
        Some(median + moved / sorted.len() as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_first_then_robust_measurements() {
        let mut model = CostModel::default();
        model.declare("segment:0", 2_000_000);
        let first = model.estimate("segment:0");
        assert!(!first.measured && (first.ms - 1.005).abs() < 1e-9);
        // Warm-up and one outlier do not move the estimate.
        for ms in [50.0, 40.0, 2.0, 2.0, 90.0, 2.0, 2.0] {
            model.observe("segment:0", ms);
        }
        assert_eq!(model.estimate("segment:0"), Estimate { ms: 2.0, measured: true });
        // Another stage is estimated at the speed seen: 1 ms per million.
        model.declare("patch:a", 500_000);
        assert!((model.estimate("patch:a").ms - 0.505).abs() < 1e-9);
    }

    #[test]
    fn a_device_that_slows_down_is_noticed() {
        let mut model = CostModel::default();
        (0..20).for_each(|_| model.observe("s", 1.0));
        (0..8).for_each(|_| model.observe("s", 3.0));
        assert_eq!(model.estimate("s").ms, 3.0);
    }

    #[test]
    fn a_stage_below_the_steps_of_the_clock_is_not_free() {
        let (mut model, mut clock) = (CostModel::default(), 0.0f64);
        // 0.03 ms each, read off a clock that steps by 0.1 ms.
        for _ in 0..WARM_UP as usize + WINDOW {
            let read = |ms: f64| (ms * 10.0).floor() / 10.0;
            model.observe("s", read(clock + 0.03) - read(clock));
            clock += 0.17;
        }
        let ms = model.estimate("s").ms;
        assert!((0.01..0.06).contains(&ms), "{ms}");
    }
}
