//! The search against brute force, and a reason for every kind of decision.

use std::collections::BTreeMap;

use backstitch_onnx::patch::{Gain, Requirement, Selector};
use proptest::prelude::*;

use super::*;

fn selector(intercept: f64, requires: &[(&str, Option<f64>, Option<f64>)]) -> Selector {
    Selector {
        requires: requires
            .iter()
            .map(|(feature, at_least, at_most)| Requirement {
                feature: (*feature).to_owned(),
                at_least: *at_least,
                at_most: *at_most,
            })
            .collect(),
        gain: Gain { intercept, weights: BTreeMap::new() },
    }
}

fn features() -> FeatureVector {
    FeatureVector(BTreeMap::from([("image.noise".to_owned(), 0.01)]))
}

struct Given {
    name: Name,
    selector: Selector,
    ms: f64,
    bytes: u64,
    replaces: Vec<String>,
    has_effect: bool,
}

fn given(name: &str, gain: f64, ms: f64) -> Given {
    Given {
        name: Name::new(name).unwrap(),
        selector: selector(gain, &[]),
        ms,
        bytes: 1000,
        replaces: vec![],
        has_effect: true,
    }
}

fn candidates(given: &[Given]) -> Vec<Candidate<'_>> {
    given
        .iter()
        .map(|g| Candidate {
            name: &g.name,
            selector: &g.selector,
            has_effect: g.has_effect,
            cost_ms: g.ms,
            cost_bytes: g.bytes,
            replaces: &g.replaces,
        })
        .collect()
}

fn check(given: &[Given], limit: CostLimit, expected: &[ReasonCode]) -> Selection {
    let selection = select(&features(), &candidates(given), &limit, 10.0, &Choice::Auto).unwrap();
    let codes: Vec<ReasonCode> = selection.decisions.iter().map(|d| d.reason_code).collect();
    assert_eq!(codes, expected, "{:?}", selection.decisions);
    for decision in &selection.decisions {
        assert!(decision.reason.ends_with('.'), "{}", decision.reason);
        assert_eq!(decision.chosen, decision.reason_code == ReasonCode::Chosen);
    }
    selection
}

#[test]
fn every_candidate_has_its_reason() {
    let mut unmet = given("unmet", 1.0, 1.0);
    unmet.selector = selector(1.0, &[("image.noise", Some(0.05), None)]);
    let mut upper = given("upper", 1.0, 1.0);
    upper.selector = selector(1.0, &[("image.noise", None, Some(0.001))]);
    let mut missing = given("missing", 1.0, 1.0);
    missing.selector = selector(1.0, &[("text.tone", Some(0.0), None)]);
    let mut weightless = given("weightless", 1.0, 1.0);
    weightless.selector.gain.weights.insert("text.tone".to_owned(), 1.0);
    let mut untrained = given("untrained", 1.0, 1.0);
    untrained.has_effect = false;
    let mut heavy = given("heavy", 1.0, 0.1);
    heavy.bytes = 1 << 30;
    let useless = given("useless", -0.1, 0.1);
    let mut first = given("first", 0.5, 1.0);
    first.replaces = vec!["block2".to_owned()];
    let mut second = given("second", 0.4, 1.0);
    second.replaces = vec!["block2".to_owned()];
    let given = [
        unmet,
        upper,
        missing,
        weightless,
        untrained,
        heavy,
        useless,
        given("slow", 9.0, 99.0),
        first,
        second,
        given("extra", 0.1, 4.5),
    ];
    let limit = CostLimit { ms: Some(15.0), bytes: Some(10_000) };
    use ReasonCode::*;
    let selection = check(
        &given,
        limit,
        &[
            RequirementNotMet,
            RequirementNotMet,
            FeatureMissing,
            FeatureMissing,
            NotTrained,
            OverLimit,
            GainNotPositive,
            OverLimit,
            Chosen,
            Conflict,
            Outweighed,
        ],
    );
    assert_eq!(selection.decisions[0].reason, "image.noise is 0.01; it helps from 0.05 up.");
    assert_eq!(
        selection.decisions[7].reason,
        "It takes 99 ms, and 5.00 ms are left of the limit of 15 ms after the primary."
    );
}

#[test]
fn ties_fall_the_same_way_everywhere() {
    use ReasonCode::*;
    let limit = CostLimit { ms: Some(11.0), bytes: None };
    check(&[given("a", 1.0, 1.0), given("b", 1.0, 1.0)], limit, &[Chosen, Outweighed]);
    check(&[given("a", 1.0, 1.0), given("b", 1.0, 0.5)], limit, &[Outweighed, Chosen]);
}

#[test]
fn a_primary_over_the_limit_still_answers_and_a_cheaper_path_may_help() {
    let limit = CostLimit { ms: Some(5.0), bytes: None };
    check(&[given("a", 1.0, 1.0)], limit, &[ReasonCode::OverLimit]);
    check(
        &[given("a", 1.0, 1.0), given("b", 1.0, -7.0)],
        limit,
        &[ReasonCode::Chosen, ReasonCode::Chosen],
    );
}

#[test]
fn named_patches_are_taken_as_they_are() {
    let mut given = [given("a", -1.0, 99.0), given("b", 1.0, 1.0), given("c", 1.0, 1.0)];
    let run = |given: &[Given], names: &[&str]| {
        let names = names.iter().map(|n| Name::new(*n).unwrap()).collect();
        select(&features(), &candidates(given), &CostLimit::default(), 1.0, &Choice::Named(names))
    };
    assert_eq!(run(&given, &["c", "a"]).unwrap().chosen().collect::<Vec<_>>(), [0, 2]);
    assert!(run(&given, &["d"]).unwrap_err().is(Code::PatchUnknown));
    given[0].replaces = vec!["x".to_owned()];
    given[1].replaces = vec!["x".to_owned()];
    assert!(run(&given, &["a", "b"]).unwrap_err().is(Code::InputInvalid));
}

fn items() -> impl Strategy<Value = Vec<search::Item>> {
    // Coarse numbers, so that ties and exact fits are common.
    let item = (1u32..6, -2i32..8, 0u64..4, any::<u16>());
    prop::collection::vec(item, 0..11).prop_map(|raw| {
        let mut items: Vec<search::Item> = raw
            .iter()
            .enumerate()
            .map(|(index, (gain, ms, bytes, _))| search::Item {
                index,
                gain: f64::from(*gain) * 0.1,
                ms: f64::from(*ms) * 0.5,
                bytes: *bytes,
                rivals: 0,
            })
            .collect();
        for (a, (.., mask)) in raw.iter().enumerate() {
            for b in 0..a {
                // About one pair in eight excludes one another.
                if mask >> b & 1 == 1 && (a * 7 + b * 3) % 4 == 0 {
                    items[a].rivals |= 1 << b;
                    items[b].rivals |= 1 << a;
                }
            }
        }
        items
    })
}

proptest! {
    #[test]
    fn the_search_finds_what_brute_force_finds(items in items(), ms in -2i32..12, bytes in 0u64..12, open in 0u8..3) {
        let left = search::Left {
            ms: if open == 0 { f64::INFINITY } else { f64::from(ms) * 0.5 },
            bytes: if open == 1 { u64::MAX } else { bytes },
        };
        let mut expected = search::Found::default();
        for set in 0..1u32 << items.len() {
            if let Some(found) = search::Found::of(&items, set, left)
                && found.better(&expected)
            {
                expected = found;
            }
        }
        prop_assert_eq!(search::best(&items, left), expected.set);
    }
}

#[test]
fn twenty_four_candidates_are_searched_quickly() {
    let items: Vec<search::Item> = (0..MAX_CANDIDATES)
        .map(|index| {
            let mut draws = crate::random::SplitMix::new(index as u64);
            search::Item { index, gain: draws.uniform(), ms: draws.uniform(), bytes: 1, rivals: 0 }
        })
        .collect();
    let set = search::best(&items, search::Left { ms: 5.0, bytes: u64::MAX });
    assert!(set.count_ones() >= 10);
}
