//! Sentiment by a lexicon and four rules of its neighbourhood, as in VADER (Hutto & Gilbert 2014): degree words,
//! negation, emphasis by capitals, and "but".
//!
//! Left out are VADER's idioms, its special cases of `least`, `no` and `never so`, and its emphasis by punctuation;
//! how close the two are is tested on real sentences.

use super::lexicon::valence;

/// What a degree word adds to the next word with a valence.
const DEGREE: f64 = 0.293;
/// What capitals add where the rest is not in capitals.
const CAPITALS: f64 = 0.733;
/// What a negation makes of a valence.
const NEGATED: f64 = -0.74;
/// How much of its effect a word keeps at a distance of one, two and three words.
const NEARNESS: [f64; 3] = [1.0, 0.95, 0.9];
/// What is before and after a "but" counts as much.
const BEFORE_BUT: f64 = 0.5;
const AFTER_BUT: f64 = 1.5;
/// Approximates the highest expected sum.
const NORMALISER: f64 = 15.0;

const STRONGER: &[&str] = &[
    "absolutely",
    "amazingly",
    "awfully",
    "completely",
    "considerably",
    "decidedly",
    "deeply",
    "enormously",
    "entirely",
    "especially",
    "exceptionally",
    "extremely",
    "fabulously",
    "fully",
    "fucking",
    "greatly",
    "hella",
    "highly",
    "hugely",
    "incredibly",
    "intensely",
    "majorly",
    "more",
    "most",
    "particularly",
    "purely",
    "quite",
    "really",
    "remarkably",
    "so",
    "substantially",
    "thoroughly",
    "totally",
    "tremendously",
    "unbelievably",
    "unusually",
    "utterly",
    "very",
];

const WEAKER: &[&str] = &[
    "almost",
    "barely",
    "hardly",
    "kinda",
    "less",
    "little",
    "marginally",
    "occasionally",
    "partly",
    "scarcely",
    "slightly",
    "somewhat",
    "sorta",
];

const NEGATIONS: &[&str] = &[
    "aint", "arent", "cannot", "cant", "couldnt", "despite", "didnt", "doesnt", "dont", "hadnt",
    "hasnt", "havent", "isnt", "neither", "never", "none", "nope", "nor", "not", "nothing",
    "nowhere", "rarely", "seldom", "shouldnt", "wasnt", "werent", "without", "wont", "wouldnt",
];

/// Σ valence, brought to −1 (worst) … 1 by s / √(s² + 15); and the share of words that have a valence.
pub(super) fn sentiment(text: &str) -> (f64, f64) {
    let tokens: Vec<&str> = text.split_whitespace().map(bare).collect();
    let words: Vec<String> = tokens.iter().map(|token| token.to_lowercase()).collect();
    let capitals = tokens.iter().filter(|token| is_capitals(token)).count();
    let emphasis = 0 < capitals && capitals < tokens.len();
    let but = words.iter().position(|word| word == "but");
    let (mut sum, mut found) = (0.0, 0);
    for (at, word) in words.iter().enumerate() {
        let Some(own) = valence(word).filter(|_| degree(word) == 0.0) else { continue };
        found += 1;
        let mut value = own;
        if emphasis && is_capitals(tokens[at]) {
            value += CAPITALS * value.signum();
        }
        for (distance, nearness) in NEARNESS.iter().enumerate().take(at) {
            let before = at - distance - 1;
            // A word with a valence of its own says nothing about the next.
            if valence(&words[before]).is_some() {
                continue;
            }
            let mut shift = degree(&words[before]) * value.signum();
            if shift != 0.0 && emphasis && is_capitals(tokens[before]) {
                shift += CAPITALS * value.signum();
            }
            value += nearness * shift;
            if is_negation(&words[before]) {
                value *= NEGATED;
            }
        }
        sum += value
            * match but {
                Some(but) if at < but => BEFORE_BUT,
                Some(but) if at > but => AFTER_BUT,
                _ => 1.0,
            };
    }
    (sum / (sum * sum + NORMALISER).sqrt(), f64::from(found) / words.len().max(1) as f64)
}

/// Without outer punctuation, unless that leaves two characters or fewer: then it may be an emoticon.
fn bare(token: &str) -> &str {
    let inner = token.trim_matches(|c: char| c.is_ascii_punctuation());
    if inner.chars().nth(2).is_some() { inner } else { token }
}

fn is_capitals(token: &str) -> bool {
    token.chars().any(char::is_uppercase) && !token.chars().any(char::is_lowercase)
}

fn degree(word: &str) -> f64 {
    match (STRONGER.contains(&word), WEAKER.contains(&word)) {
        (true, _) => DEGREE,
        (_, true) => -DEGREE,
        _ => 0.0,
    }
}

fn is_negation(word: &str) -> bool {
    word.contains("n't") || NEGATIONS.contains(&word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, sum: f64) {
        let (found, _) = sentiment(text);
        let expected = sum / (sum * sum + NORMALISER).sqrt();
        assert!((found - expected).abs() < 1e-9, "{text}: {found}, not {expected}");
    }

    #[test]
    fn each_rule_moves_the_valence_as_published() {
        check("the film was great", 3.1);
        check("the film was very great", 3.1 + DEGREE);
        check("the film was slightly great", 3.1 - DEGREE);
        check("the film was not great", 3.1 * NEGATED);
        check("it wasn't that great", 3.1 * NEGATED);
        check("not so very great", (3.1 + DEGREE + 0.95 * DEGREE) * NEGATED);
        check("the film was GREAT", 3.1 + CAPITALS);
        check("THE FILM WAS GREAT", 3.1);
        check("terrible, but great!", 0.5 * -2.1 + 1.5 * 3.1);
        check("the table", 0.0);
        check("", 0.0);
        assert_eq!(sentiment("great tables here now").1, 0.25);
    }
}
