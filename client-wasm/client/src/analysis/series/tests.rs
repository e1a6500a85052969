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
