//! Word lists, sorted by their bytes and searched where they lie: nothing is built at start-up.
//!
//! `lexicon/make.py` derives them from the sentences and the valences of VADER (Hutto & Gilbert 2014).

use std::cmp::Ordering;

static SENTIMENT: &str = include_str!("../../../lexicon/sentiment.txt");
static FREQUENT: &str = include_str!("../../../lexicon/frequent.txt");
static DOMAINS: &str = include_str!("../../../lexicon/domains.txt");

/// The valence of a lower-case word or emoticon, −3.9 (worst) to 3.9.
pub(super) fn valence(token: &str) -> Option<f64> {
    find(SENTIMENT, token)?.parse::<f64>().ok().map(|tenths| tenths / 10.0)
}

/// Whether a lower-case word is among the 2,000 most frequent of English.
pub(super) fn is_frequent(word: &str) -> bool {
    find(FREQUENT, word).is_some()
}

/// The domain that a lower-case word marks: `film`, `news`, `product` or `social`.
pub(super) fn domain(word: &str) -> Option<&'static str> {
    find(DOMAINS, word)
}

/// What stands behind the tab on the line that begins with this key; empty on lines without a tab.
fn find(table: &'static str, key: &str) -> Option<&'static str> {
    let (mut low, mut high) = (0, table.len());
    while low < high {
        let middle = low + (high - low) / 2;
        let start = table[..middle].rfind('\n').map_or(0, |at| at + 1);
        let end = table[start..].find('\n').map_or(table.len(), |length| start + length);
        let (found, value) = table[start..end].split_once('\t').unwrap_or((&table[start..end], ""));
        match found.as_bytes().cmp(key.as_bytes()) {
            Ordering::Equal => return Some(value),
            Ordering::Less => low = end + 1,
            Ordering::Greater => high = start,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_found_by_its_key_and_nothing_else_is() {
        for table in [SENTIMENT, FREQUENT, DOMAINS] {
            assert!(table.is_ascii() && table.ends_with('\n'));
            for line in table.lines() {
                let (key, value) = line.split_once('\t').unwrap_or((line, ""));
                assert_eq!(find(table, key), Some(value), "{key}");
            }
            for absent in ["", "\n", "zzzz", "~", "a\n", "goodness gracious"] {
                assert_eq!(find(table, absent), None, "{absent:?}");
            }
        }
        assert_eq!((valence("great"), valence("table")), (Some(3.1), None));
        assert_eq!((domain("film"), domain("batteries")), (Some("film"), Some("product")));
    }
}
