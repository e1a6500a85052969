//! Against scipy, numpy and ruptures, and on series that are hardly any.

use serde::Deserialize;

use super::*;

#[derive(Deserialize)]
struct Case {
    name: String,
    rate_hz: f64,
    rows: Vec<Vec<Option<f32>>>,
    features: FeatureVector,
}

fn series(rate_hz: f64, rows: &[Vec<Option<f32>>]) -> Series {
    let values = rows.iter().flatten().map(|v| v.unwrap_or(f32::NAN)).collect();
    Series::new(rows.len(), rate_hz, values).unwrap()
}

#[test]
fn features_are_those_of_published_implementations() {
    let cases: Vec<Case> =
        serde_json::from_str(include_str!("../../../tests/golden/series.json")).unwrap();
    assert_eq!(cases.len(), 12);
    for case in cases {
        let found = features(&series(case.rate_hz, &case.rows));
        assert_eq!(found.0.len(), DESCRIPTIONS.len());
        for description in DESCRIPTIONS {
            let name = description.name;
            let (value, expected) =
                (found.value(name).unwrap(), case.features.value(name).unwrap());
            assert!(
                (value - expected).abs() <= 1e-6 + 1e-6 * expected.abs(),
                "{}: {name} is {value}, not {expected}",
                case.name
            );
        }
    }
}

#[test]
fn infinities_are_gaps_and_long_series_are_cut_to_their_end() {
    let with = |hole: f32| {
        let mut values: Vec<f32> = (0..64).map(|i| (i as f32 * 0.7).sin()).collect();
        values[10] = hole;
        features(&Series::new(1, 1.0, values).unwrap())
    };
    assert_eq!(with(f32::NAN), with(f32::INFINITY));
    assert_eq!(with(f32::NEG_INFINITY).value("series.missing_share"), Some(1.0 / 64.0));
    let long: Vec<f32> =
        (0..40_000).map(|i| if i < 20_000 { 9.0 } else { (i % 7) as f32 }).collect();
    let found = features(&Series::new(1, 1.0, long).unwrap());
    assert_eq!(found.value("series.length"), Some(40_000.0));
    assert!((found.value("series.level").unwrap() - 3.0).abs() < 1e-3);
    assert!(found.0.values().all(|v| v.is_finite()));
}

#[test]
fn channels_of_different_length_and_odd_rates_are_refused() {
    use backstitch_protocol::problem::Code;
    for (channels, rate_hz, n) in
        [(0, 1.0, 4), (3, 1.0, 4), (1, 1.0, 0), (1, 0.0, 4), (1, f64::NAN, 4)]
    {
        let refused = Series::new(channels, rate_hz, vec![0.0; n]).unwrap_err();
        assert!(refused.is(Code::InputInvalid));
    }
}

/// A walk with jumps, gaps and flat parts, far from 0.
fn walk(channels: usize, moments: usize, level: f32, seed: u64) -> Vec<f32> {
    let mut draws = crate::random::SplitMix::new(seed);
    let mut state: Vec<f32> = vec![level; channels];
    let mut gap = 0;
    let mut values = Vec::new();
    for moment in 0..moments {
        if gap == 0 && draws.uniform() < 0.03 {
            gap = draws.below(30);
        }
        gap = gap.saturating_sub(1);
        for (channel, state) in state.iter_mut().enumerate() {
            let quiet = (moment / 90 + channel) % 3 == 0;
            *state += if quiet { 0.0 } else { draws.uniform() as f32 - 0.5 };
            *state += if draws.uniform() < 0.005 { 40.0 } else { 0.0 };
            values.push(if gap > 0 && channel % 2 == 0 { f32::NAN } else { *state });
        }
    }
    values
}

fn batch(channels: usize, window: &[f32]) -> FeatureVector {
    let rows = (0..channels).flat_map(|c| window.iter().skip(c).step_by(channels).copied());
    features(&Series::new(channels, 50.0, rows.collect()).unwrap())
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(64))]

    /// Sums and medians at every hop, rhythm whenever it was just measured.
    #[test]
    fn a_sliding_window_says_what_the_whole_window_does(
        channels in 1usize..4,
        window in 3usize..200,
        hop in 1usize..40,
        level in proptest::sample::select(vec![0.0f32, -3.0, 1e4, 1e6]),
        seed in proptest::prelude::any::<u64>(),
    ) {
        let values = walk(channels, 4 * window + 700, level, seed);
        let mut sliding = Sliding::new(channels, 50.0, window).unwrap();
        let mut seen = 0;
        let mut measured = 0;
        for moments in values.chunks(hop * channels) {
            sliding.push(moments).unwrap();
            seen += moments.len() / channels;
            let Some(found) = sliding.features() else {
                proptest::prop_assert!(seen < window);
                continue;
            };
            let whole = batch(channels, &values[(seen - window) * channels..seen * channels]);
            let fresh = sliding.rhythm_due() == window.div_ceil(8);
            measured += usize::from(fresh);
            let rhythm = ["dominant_frequency", "spectral_entropy", "seasonality", "period", "change_points"];
            for (name, value) in &found.0 {
                if !fresh && rhythm.iter().any(|r| name.ends_with(r)) {
                    continue;
                }
                let expected = whole.value(name).unwrap();
                // Far from 0 both ways of summing lose the last digits of the level.
                let lost = f64::EPSILON * f64::from(level).abs();
                let close = (value - expected).abs() <= 1e-9 * expected.abs().max(1e-3) + lost;
                proptest::prop_assert!(close, "{name} is {value}, not {expected} at {seen}");
            }
        }
        proptest::prop_assert!(measured > 1);
    }
}

#[test]
fn a_jump_leaves_nothing_behind_and_a_bad_push_adds_nothing() {
    let mut sliding = Sliding::new(1, 50.0, 16).unwrap();
    let moments: Vec<f32> = (0..40).map(|i| if i < 20 { 1e30 } else { (i % 3) as f32 }).collect();
    sliding.push(&moments).unwrap();
    assert_eq!(sliding.features().unwrap(), batch(1, &moments[24..]));
    for bad in [[0.0, f32::INFINITY], [f32::NEG_INFINITY, 0.0]] {
        assert!(sliding.push(&bad).is_err());
    }
    assert_eq!(sliding.features().unwrap(), batch(1, &moments[24..]));
    assert!(Sliding::new(2, 1.0, 4).unwrap().push(&[0.0; 3]).is_err());
    for (channels, rate_hz, window) in [(0, 1.0, 4), (1, 0.0, 4), (1, 1.0, 0)] {
        assert!(Sliding::new(channels, rate_hz, window).is_err());
    }
    let mut empty = Sliding::new(1, 50.0, 8).unwrap();
    empty.push(&[f32::NAN; 8]).unwrap();
    assert_eq!(empty.features().unwrap(), batch(1, &[f32::NAN; 8]));
}
