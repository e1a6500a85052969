//! Against VADER's own implementation, Python's `emoji` and plain counts, on real sentences.

use serde::Deserialize;

use super::*;

#[derive(Deserialize)]
struct Case {
    text: String,
    features: FeatureVector,
}

fn cases() -> Vec<Case> {
    serde_json::from_str(include_str!("../../../tests/golden/text.json")).unwrap()
}

#[test]
fn counts_are_those_of_independent_implementations() {
    let cases = cases();
    assert!(cases.len() > 80);
    for Case { text, features: expected } in cases {
        let found = features(&text);
        assert_eq!(found.0.len(), DESCRIPTIONS.len());
        for (name, expected) in expected.0.iter().filter(|(name, _)| *name != "text.sentiment") {
            let value = found.value(name).unwrap();
            assert!((value - expected).abs() < 1e-6, "{text:?}: {name} is {value}, not {expected}");
        }
    }
}

#[test]
fn the_mood_is_close_to_vader_on_real_sentences() {
    let distances: Vec<f64> = cases()
        .iter()
        .map(|case| {
            let expected = case.features.value("text.sentiment").unwrap();
            (features(&case.text).value("text.sentiment").unwrap() - expected).abs()
        })
        .collect();
    let n = distances.len() as f64;
    let same = distances.iter().filter(|d| **d < 1e-3).count() as f64 / n;
    let mean = distances.iter().sum::<f64>() / n;
    assert!(same > 0.75 && mean < 0.03, "{same} are the same, {mean} apart in the mean");
}

#[test]
fn domains_and_languages_are_told_apart() {
    let value = |text: &str, name: &str| features(text).value(name).unwrap();
    let camera =
        "The battery of this camera lasts and the zoom takes sharp pictures; buy the card too.";
    let film =
        "A charming comedy whose characters and narrative never feel boring, despite a thin plot.";
    let most = |text: &str, prefix: &str| {
        let found = features(text).0.into_iter().filter(|(name, _)| name.starts_with(prefix));
        found.max_by(|a, b| a.1.total_cmp(&b.1)).unwrap().0
    };
    assert_eq!(most(camera, "text.domain_"), "text.domain_product");
    assert_eq!(most(film, "text.domain_"), "text.domain_film");
    for (text, name) in [
        ("the dog is in the house and the cat is not", "text.language_en"),
        ("der Hund ist im Haus und die Katze nicht", "text.language_de"),
        ("le chien est dans la maison et le chat ne dort pas", "text.language_fr"),
        ("el perro no está en la casa pero los gatos sí", "text.language_es"),
    ] {
        assert_eq!(most(text, "text.language_"), name);
    }
    assert_eq!(value("the and of", "text.rare_share"), 0.0);
    assert_eq!(value("the quokka", "text.rare_share"), 0.5);
}

#[test]
fn ten_megabytes_cost_no_more_than_a_page_and_any_text_has_finite_features() {
    let long = "wörd! ".repeat(2_000_000);
    let found = features(&long);
    assert_eq!(found.value("text.length"), Some(12_000_000.0));
    assert_eq!(found.value("text.exclamations"), Some((MAX_CHARACTERS / 6) as f64));
    for odd in ["", "\u{0}", "\u{200d}\u{200d}😀", "'''", "\u{feff}\u{202e}", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢"]
    {
        assert!(features(odd).0.values().all(|v| v.is_finite()), "{odd:?}");
    }
}
