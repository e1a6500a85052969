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
    sites: Vec<String>,
    replaces: Vec<String>,
    bypasses: Vec<String>,
    has_effect: bool,
    correction: f64,
}

fn given(name: &str, gain: f64, ms: f64) -> Given {
    Given {
        name: Name::new(name).unwrap(),
        selector: selector(gain, &[]),
        ms,
        bytes: 1000,
        sites: vec![],
        replaces: vec![],
        bypasses: vec![],
        has_effect: true,
        correction: 0.0,
    }
}

fn candidates(given: &[Given]) -> Vec<Candidate<'_>> {
    given
        .iter()
        .map(|g| Candidate {
            name: &g.name,
            selector: &g.selector,
            has_effect: g.has_effect,
            fault: None,
            cost_ms: g.ms,
            cost_bytes: g.bytes,
            sites: &g.sites,
            replaces: &g.replaces,
            bypasses: &g.bypasses,
            correction: g.correction,
            meanings: Meanings::NONE,
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

/// One candidate for each reason, in the order in which the test expects them.
fn one_for_each_reason() -> [Given; 13] {
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
    let mut corrected = given("corrected", 0.5, 0.1);
    corrected.correction = -0.6;
    [
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
        given("dear", 0.02, 3.0),
        corrected,
    ]
}

#[test]
fn every_candidate_has_its_reason() {
    let limit = CostLimit { ms: Some(15.0), bytes: Some(10_000), gain_per_ms: Some(0.01) };
    use ReasonCode::*;
    let selection = check(
        &one_for_each_reason(),
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
            GainBelowCost,
            GainNotPositive,
        ],
    );
    assert_eq!(selection.decisions[0].reason, "image.noise (0.01, needs 0.05).");
    assert_eq!(
        selection.decisions[7].reason,
        "It takes 99 ms, and 5.00 ms are left of the limit of 15 ms after the primary; reduced to first."
    );
    assert_eq!(
        selection.decisions[10].reason,
        "Over the limit with the others: reduced to first, which gain more."
    );
    assert_eq!(
        selection.decisions[11].reason,
        "The expected gain of 0.02 is below its cost: 3.00 ms must gain 0.03."
    );
    assert_eq!(
        selection.decisions[12].reason,
        "The expected gain is -0.1 (your feedback took 0.6 off): it would not help this input."
    );
}

#[test]
fn ties_fall_the_same_way_everywhere() {
    use ReasonCode::*;
    let limit = CostLimit { ms: Some(11.0), bytes: None, gain_per_ms: None };
    check(&[given("a", 1.0, 1.0), given("b", 1.0, 1.0)], limit, &[Chosen, Outweighed]);
    check(&[given("a", 1.0, 1.0), given("b", 1.0, 0.5)], limit, &[Outweighed, Chosen]);
}

#[test]
fn a_primary_over_the_limit_still_answers_and_a_cheaper_path_may_help() {
    let limit = CostLimit { ms: Some(5.0), bytes: None, gain_per_ms: None };
    check(&[given("a", 1.0, 1.0)], limit, &[ReasonCode::OverLimit]);
    check(
        &[given("a", 1.0, 1.0), given("b", 1.0, -7.0)],
        limit,
        &[ReasonCode::Chosen, ReasonCode::Chosen],
    );
}

#[test]
fn a_shortcut_is_taken_where_time_is_short_or_dear() {
    use ReasonCode::*;
    let given = [given("shortcut", -0.03, -8.0), given("help", 0.2, 1.0)];
    let limit = |ms, gain_per_ms| CostLimit { ms, bytes: None, gain_per_ms };
    let free = check(&given, limit(None, None), &[NotNeeded, Chosen]);
    assert_eq!(
        free.decisions[0].reason,
        "It would save 8.00 ms and lose by it: the limit is kept without."
    );
    check(&given, limit(Some(11.0), None), &[NotNeeded, Chosen]);
    // The primary takes 10 ms.
    let short = check(&given, limit(Some(9.0), None), &[Chosen, Chosen]);
    assert_eq!(short.decisions[0].reason, "saves 8.00 ms for an expected gain of -0.03.");
    check(&given, limit(Some(2.0), None), &[Chosen, OverLimit]);
    // Nothing keeps this limit: the quickest.
    check(&given, limit(Some(1.0), None), &[Chosen, OverLimit]);
    // A millisecond is worth more than it loses.
    check(&given, limit(None, Some(0.01)), &[Chosen, Chosen]);
    // What needs a tensor that the shortcut bypasses brings its time back, so that the limit is not kept by both.
    let mut needy = [self::given("shortcut", -0.03, -8.0), self::given("help", 0.2, 0.1)];
    needy[0].bypasses = vec!["features".to_owned()];
    needy[1].sites = vec!["features".to_owned(), "logits".to_owned()];
    check(&needy, limit(Some(9.0), None), &[Chosen, OverLimit]);
    check(&needy, limit(Some(10.2), None), &[NotNeeded, Chosen]);
    check(&needy, limit(None, Some(0.01)), &[Conflict, Chosen]);
    // What replaces like by like is no shortcut.
    check(&[self::given("alike", -0.03, -0.5)], limit(Some(9.7), None), &[GainNotPositive]);
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

fn items(most: usize) -> impl Strategy<Value = Vec<search::Item>> {
    // Coarse numbers, so that ties and exact fits are common.
    let item = (-3i64..6, -2i64..8, 0u64..4, any::<u16>());
    prop::collection::vec(item, 0..most).prop_map(|raw| {
        let mut items: Vec<search::Item> = raw
            .iter()
            .enumerate()
            .map(|(index, (gain, ns, bytes, _))| search::Item {
                index,
                gain: *gain,
                ns: *ns,
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

/// The best of all sets, one after the other, by the order that the module promises; of those that keep the limit, if
/// any does, and else of the quickest.
fn brute_force(items: &[search::Item], left: search::Left) -> u32 {
    let key = |set: u32| {
        let members = || items.iter().filter(move |i| set & (1 << i.index) != 0);
        let (gain, ns) = (members().map(|i| i.gain).sum::<i64>(), members().map(|i| i.ns).sum());
        let allowed = members().all(|i| i.rivals & set == 0)
            && members().map(|i| i.bytes).sum::<u64>() <= left.bytes;
        let late: i64 = if ns <= left.ns { 0 } else { ns };
        let gain = if ns <= left.ns { gain } else { 0 };
        allowed.then_some((
            ns <= left.ns,
            -late,
            gain,
            -ns,
            -i64::from(set.count_ones()),
            set.reverse_bits(),
        ))
    };
    let best = (0..1u32 << items.len()).max_by_key(|set| key(*set));
    best.unwrap()
}

proptest! {
    #[test]
    fn the_search_finds_what_brute_force_finds(items in items(13), ns in -3i64..16, bytes in 0u64..14, open in 0u8..4) {
        let left = search::Left {
            ns: if open & 1 == 1 { i64::MAX / 2 } else { ns },
            bytes: if open & 2 == 2 { u64::MAX } else { bytes },
        };
        prop_assert_eq!(search::best(&items, left), brute_force(&items, left));
    }
}

#[test]
fn the_hardest_twenty_four_candidates_make_two_short_lists() {
    // Gain in proportion to time: a bound never cuts, and branching would visit millions of sets.
    let item = |index: usize| {
        let mut draws = crate::random::SplitMix::new(index as u64);
        let ns = search::nanoseconds(draws.uniform());
        search::Item { index, gain: ns, ns, bytes: 1 + index as u64, rivals: 0 }
    };
    let items: Vec<search::Item> = (0..MAX_CANDIDATES).map(item).collect();
    let half = items.iter().map(|i| i.ns).sum::<i64>() / 2;
    for bytes in [u64::MAX, 150] {
        let set = search::best(&items, search::Left { ns: half, bytes });
        let taken = |of: fn(&search::Item) -> i64| -> i64 {
            items.iter().filter(|i| set & (1 << i.index) != 0).map(of).sum()
        };
        // 2²⁴ sums within 12 ms: one is within nanoseconds of the limit.
        assert!(half - taken(|i| i.ns) < 10_000 && taken(|i| i.ns) <= half);
        assert!(taken(|i| i.bytes as i64) as u64 <= bytes);
    }
}

#[test]
fn people_read_what_a_feature_is_called_and_what_its_value_is_of() {
    let json = serde_json::json!({
        "format": 1, "library": "clothes", "title": "", "description": "", "modality": "image",
        "version": 1, "issued_at": 0, "expires_at": 1, "patches": [], "tasks": [], "experiments": [],
        "ledger": {"sequence": 0, "head": "", "spent": {}}, "samples": null,
        "primary": {
            "model": {"digest": format!("sha256:{}", "0".repeat(64)), "bytes": 1},
            "input": "x", "output": "y", "labels": [], "preprocessing": null,
            "probes": [{
                "name": "gains", "site": "x",
                "model": {"digest": format!("sha256:{}", "0".repeat(64)), "bytes": 1},
                "features": ["probe.sharpening", "probe.other"],
                "described": {"probe.sharpening":
                    {"label": "looks out of focus", "range": "-1 to 1", "about": "Gain."}}
            }]
        }
    });
    let meanings = Meanings::of(&serde_json::from_value(json).unwrap());
    let read = |feature: &str, value: f64, (least, most): (Option<f64>, Option<f64>)| {
        let given =
            Given { selector: selector(1.0, &[(feature, least, most)]), ..given("p", 1.0, 1.0) };
        let mut all = candidates(std::slice::from_ref(&given));
        all[0].meanings = &meanings;
        let features = FeatureVector(BTreeMap::from([(feature.to_owned(), value)]));
        let limit = CostLimit::default();
        let made = select(&features, &all, &limit, 1.0, &Choice::Auto).unwrap();
        made.decisions[0].reason.clone()
    };
    let unmet = read("probe.sharpening", 0.3151, (Some(0.5), None));
    assert_eq!(unmet, "Looks out of focus (0.315 of 1, needs 0.5).");
    let met = read("image.contrast", 0.25, (None, Some(0.3)));
    assert_eq!(
        met,
        "Contrast (0.25 of 0.5, needs 0.3 at most): an expected gain of 1 for 1.00 ms."
    );
    assert_eq!(read("probe.other", 2.0, (Some(3.0), None)), "probe.other (2, needs 3).");
    assert_eq!(read("image.noise", 0.1, (Some(0.2), Some(0.4))), "Noise (0.1, needs 0.2 to 0.4).");
}
