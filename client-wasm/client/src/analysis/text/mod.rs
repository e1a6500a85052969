//! Features of a text: how long, how rare its words, what mood, which domain, which language.
//!
//! A word is a run of letters and digits, with apostrophes inside. Shares of an empty text are 0. Everything but the
//! length rests on the first [`MAX_CHARACTERS`] characters, so that a book costs no more than a page.

mod lexicon;
mod sentiment;

use super::{Description, FeatureVector, describe};

/// Characters that are looked at.
const MAX_CHARACTERS: usize = 1 << 16;

/// What each feature of a text means.
pub(super) const DESCRIPTIONS: &[Description] = &[
    describe(
        "text.length",
        "length",
        "characters",
        "≥ 0",
        "Unicode scalar values, spaces included.",
        "count",
    ),
    describe(
        "text.words",
        "words",
        "words",
        "≥ 0",
        "Runs of letters and digits, with apostrophes inside.",
        "count",
    ),
    describe(
        "text.word_length",
        "length of the words",
        "characters",
        "≥ 0",
        "The mean length of the words.",
        "arithmetic mean",
    ),
    describe(
        "text.rare_share",
        "rare words",
        "share of words",
        "0 to 1",
        "Words that are not among the 2,000 most frequent of English in tweets, reviews and editorials.",
        "lexical frequency profile: Laufer, Nation 1995; frequencies counted in the sentences of Hutto, Gilbert 2014",
    ),
    describe(
        "text.sentiment",
        "mood",
        "score",
        "-1 to 1",
        "Mood of English by a lexicon of valences with degree words, negation, capitals and \"but\"; 0 is neutral.",
        "VADER: Hutto, Gilbert 2014, simplified",
    ),
    describe(
        "text.emotive_share",
        "words of feeling",
        "share of words",
        "0 to 1",
        "Words and emoticons that have a valence.",
        "lexicon of Hutto, Gilbert 2014",
    ),
    describe(
        "text.punctuation_share",
        "punctuation",
        "share of characters",
        "0 to 1",
        "ASCII punctuation among the characters that are no white space.",
        "count",
    ),
    describe(
        "text.exclamations",
        "exclamation marks",
        "marks",
        "≥ 0",
        "Exclamation marks.",
        "count",
    ),
    describe("text.questions", "question marks", "marks", "≥ 0", "Question marks.", "count"),
    describe(
        "text.emoji",
        "emoji",
        "emoji",
        "≥ 0",
        "Pictographs; one with modifiers counts once.",
        "Unicode TR 51, Extended_Pictographic",
    ),
    describe(
        "text.uppercase_share",
        "capital letters",
        "share of letters",
        "0 to 1",
        "Upper-case letters among all letters.",
        "count",
    ),
    describe(
        "text.digit_share",
        "digits",
        "share of characters",
        "0 to 1",
        "Digits among the characters that are no white space.",
        "count",
    ),
    describe(
        "text.mentions",
        "mentions and links",
        "tokens",
        "≥ 0",
        "Tokens that begin with @, # or http.",
        "count",
    ),
    describe(
        "text.domain_film",
        "words of film reviews",
        "share of words",
        "0 to 1",
        "Words that mark film reviews.",
        MARKERS,
    ),
    describe(
        "text.domain_news",
        "words of editorials",
        "share of words",
        "0 to 1",
        "Words that mark editorials.",
        MARKERS,
    ),
    describe(
        "text.domain_product",
        "words of product reviews",
        "share of words",
        "0 to 1",
        "Words that mark product reviews.",
        MARKERS,
    ),
    describe(
        "text.domain_social",
        "words of short messages",
        "share of words",
        "0 to 1",
        "Words that mark short messages.",
        MARKERS,
    ),
    describe(
        "text.language_en",
        "English words",
        "share of words",
        "0 to 1",
        "Frequent short words of English.",
        SHORT_WORDS,
    ),
    describe(
        "text.language_de",
        "German words",
        "share of words",
        "0 to 1",
        "Frequent short words of German.",
        SHORT_WORDS,
    ),
    describe(
        "text.language_fr",
        "French words",
        "share of words",
        "0 to 1",
        "Frequent short words of French.",
        SHORT_WORDS,
    ),
    describe(
        "text.language_es",
        "Spanish words",
        "share of words",
        "0 to 1",
        "Frequent short words of Spanish.",
        SHORT_WORDS,
    ),
];

const MARKERS: &str = "log-odds ratio with an informative Dirichlet prior: Monroe, Colaresi, Quinn 2008; sentences of Hutto, Gilbert 2014";
const SHORT_WORDS: &str =
    "small-word technique: Grefenstette 1995, Comparing two language identification schemes";

/// Frequent short words, by feature; what two languages share counts for both.
const LANGUAGES: &[(&str, &[&str])] = &[
    (
        "text.language_en",
        &[
            "the", "of", "and", "to", "a", "in", "is", "it", "that", "i", "for", "you", "was",
            "with", "on", "as", "are", "this", "be", "at", "but", "my", "not", "have", "they",
            "we", "from", "or", "so", "an",
        ],
    ),
    (
        "text.language_de",
        &[
            "der", "die", "und", "in", "den", "von", "zu", "das", "mit", "sich", "des", "auf",
            "für", "ist", "im", "dem", "nicht", "ein", "eine", "als", "auch", "es", "an", "ich",
            "er", "sie", "wir", "war", "aber", "so",
        ],
    ),
    (
        "text.language_fr",
        &[
            "de", "la", "le", "et", "les", "des", "en", "un", "du", "une", "que", "est", "pour",
            "qui", "dans", "a", "par", "plus", "pas", "au", "sur", "ne", "se", "ce", "il", "je",
            "nous", "mais", "avec", "sont",
        ],
    ),
    (
        "text.language_es",
        &[
            "de", "la", "que", "el", "en", "y", "a", "los", "se", "del", "las", "un", "por", "con",
            "no", "una", "su", "para", "es", "al", "lo", "como", "más", "pero", "sus", "le", "ya",
            "yo", "muy", "está",
        ],
    ),
];

/// The features of a text.
pub(super) fn features(text: &str) -> FeatureVector {
    let length = text.chars().count();
    let end = text.char_indices().nth(MAX_CHARACTERS).map_or(text.len(), |(at, _)| at);
    let text = &text[..end];
    let mut features = FeatureVector::default();
    let mut set = |name: &str, value: f64| {
        features.0.insert(name.to_owned(), value);
    };
    set("text.length", length as f64);
    let (mood, emotive) = sentiment::sentiment(text);
    set("text.sentiment", mood);
    set("text.emotive_share", emotive);
    let mentions =
        text.split_whitespace().filter(|t| t.starts_with(['@', '#']) || t.starts_with("http"));
    set("text.mentions", mentions.count() as f64);
    characters(text, &mut set);
    words(text, &mut set);
    features
}

fn characters(text: &str, set: &mut impl FnMut(&str, f64)) {
    let count = |is: &dyn Fn(char) -> bool| text.chars().filter(|c| is(*c)).count() as f64;
    let share = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
    let visible = count(&|c| !c.is_whitespace());
    set("text.punctuation_share", share(count(&|c| c.is_ascii_punctuation()), visible));
    set("text.digit_share", share(count(&|c| c.is_numeric()), visible));
    set("text.uppercase_share", share(count(&char::is_uppercase), count(&char::is_alphabetic)));
    set("text.exclamations", count(&|c| c == '!'));
    set("text.questions", count(&|c| c == '?'));
    let mut joined = false;
    let emoji = text.chars().filter(|c| {
        let starts = is_pictograph(*c) && !joined;
        // U+200D joins two pictographs into one.
        joined = *c == '\u{200d}';
        starts
    });
    let emoji = emoji.count() as f64;
    set("text.emoji", emoji);
}

/// Extended_Pictographic of Unicode 15, but for ©, ®, ‼, ⁉, ™ and ℹ, which stand in ordinary texts; the coarse blocks
/// include code points that are kept free for future emoji, and leave out the modifiers of skin tone.
fn is_pictograph(c: char) -> bool {
    matches!(u32::from(c),
        0x2194..=0x2199 | 0x21a9..=0x21aa | 0x231a..=0x231b | 0x2328 | 0x23cf | 0x23e9..=0x23f3 | 0x23f8..=0x23fa
        | 0x24c2 | 0x25aa..=0x25ab | 0x25b6 | 0x25c0 | 0x25fb..=0x25fe | 0x2600..=0x2605 | 0x2607..=0x2612
        | 0x2614..=0x2685 | 0x2690..=0x2705 | 0x2708..=0x2712 | 0x2714 | 0x2716 | 0x271d | 0x2721 | 0x2728
        | 0x2733..=0x2734 | 0x2744 | 0x2747 | 0x274c | 0x274e | 0x2753..=0x2755 | 0x2757 | 0x2763..=0x2767
        | 0x2795..=0x2797 | 0x27a1 | 0x27b0 | 0x27bf | 0x2934..=0x2935 | 0x2b05..=0x2b07 | 0x2b1b..=0x2b1c | 0x2b50
        | 0x2b55 | 0x3030 | 0x303d | 0x3297 | 0x3299 | 0x1f000..=0x1f0ff | 0x1f10d..=0x1f10f | 0x1f12f
        | 0x1f16c..=0x1f171 | 0x1f17e..=0x1f17f | 0x1f18e | 0x1f191..=0x1f19a | 0x1f201..=0x1f20f | 0x1f21a | 0x1f22f
        | 0x1f232..=0x1f23a | 0x1f23c..=0x1f23f | 0x1f249..=0x1f3fa | 0x1f400..=0x1f53d | 0x1f546..=0x1f64f
        | 0x1f680..=0x1f6ff | 0x1f774..=0x1f77f | 0x1f7d5..=0x1f7ff | 0x1f80c..=0x1f80f | 0x1f848..=0x1f84f
        | 0x1f85a..=0x1f85f | 0x1f888..=0x1f88f | 0x1f8ae..=0x1f8ff | 0x1f90c..=0x1f93a | 0x1f93c..=0x1f945
        | 0x1f947..=0x1faff | 0x1fc00..=0x1fffd)
}

fn words(text: &str, set: &mut impl FnMut(&str, f64)) {
    let text = text.to_lowercase().replace('\u{2019}', "'");
    let words = text
        .split(|c: char| !c.is_alphanumeric() && c != '\'')
        .map(|word| word.trim_matches('\''))
        .filter(|word| !word.is_empty());
    let (mut count, mut letters, mut rare) = (0u32, 0usize, 0u32);
    let mut domains = [("film", 0u32), ("news", 0), ("product", 0), ("social", 0)];
    let mut languages = vec![0u32; LANGUAGES.len()];
    for word in words {
        count += 1;
        letters += word.chars().count();
        rare += u32::from(!lexicon::is_frequent(word));
        if let Some(marked) = lexicon::domain(word)
            && let Some((_, n)) = domains.iter_mut().find(|(domain, _)| *domain == marked)
        {
            *n += 1;
        }
        for (n, (_, short)) in languages.iter_mut().zip(LANGUAGES) {
            *n += u32::from(short.contains(&word));
        }
    }
    let of = f64::from(count.max(1));
    set("text.words", f64::from(count));
    set("text.word_length", letters as f64 / of);
    set("text.rare_share", f64::from(rare) / of);
    for (domain, n) in domains {
        set(&format!("text.domain_{domain}"), f64::from(n) / of);
    }
    for ((name, _), n) in LANGUAGES.iter().zip(languages) {
        set(name, f64::from(n) / of);
    }
}

#[cfg(test)]
mod tests;
