//! WordPiece tokens of the uncased BERT family, as its reference tokenizer makes them.
//!
//! Normalise (drop control characters, set Chinese characters apart, strip accents, lower case), split at white space
//! and punctuation, then take the longest piece of the vocabulary, again and again (Schuster, Nakajima 2012; Devlin et al.
//! 2019). Special tokens that are written out in a text are ordinary characters here.

use std::collections::HashMap;

use backstitch_protocol::Problem;
use backstitch_protocol::problem::Code;
use unicode_normalization::UnicodeNormalization as _;
use unicode_properties::{GeneralCategory, GeneralCategoryGroup, UnicodeGeneralCategory as _};

/// Longer words are unknown without a search.
const MAX_WORD_CHARACTERS: usize = 100;

/// A vocabulary, one piece a line; a piece that continues a word begins with `##`.
#[derive(Clone, Debug)]
pub struct WordPiece {
    ids: HashMap<String, u32>,
    unknown: u32,
    start: u32,
    end: u32,
}

impl WordPiece {
    /// Reads a vocabulary. Fails where it is no UTF-8 or lacks `[UNK]`, `[CLS]` or `[SEP]`, or where padding is not
    /// its first line: zeros end a text.
    pub fn new(vocabulary: &[u8]) -> Result<Self, Problem> {
        let wrong =
            |what: String| Problem::new(Code::CatalogInvalid, format!("vocabulary: {what}"));
        let text = std::str::from_utf8(vocabulary).map_err(|e| wrong(e.to_string()))?;
        let ids: HashMap<String, u32> =
            text.lines().zip(0..).map(|(piece, id)| (piece.to_owned(), id)).collect();
        let special = |name: &str| {
            ids.get(name).copied().ok_or_else(|| wrong(format!("the line `{name}` is missing")))
        };
        if special("[PAD]")? != 0 {
            return Err(wrong("`[PAD]` is not its first line".to_owned()));
        }
        let (unknown, start, end) = (special("[UNK]")?, special("[CLS]")?, special("[SEP]")?);
        Ok(Self { ids, unknown, start, end })
    }

    /// At most `limit` ids: start, the text's first pieces, end. What comes after them is not read.
    pub fn encode(&self, text: &str, limit: usize) -> Vec<u32> {
        let room = limit.saturating_sub(1);
        let mut ids = vec![self.start];
        let mut word = String::new();
        for character in normalised(text) {
            if ids.len() >= room {
                break;
            }
            let alone = is_punctuation(character);
            if alone || character.is_whitespace() {
                self.split(&std::mem::take(&mut word), &mut ids);
            }
            match alone {
                true => self.split(character.encode_utf8(&mut [0; 4]), &mut ids),
                false if character.is_whitespace() => {}
                false => word.push(character),
            }
        }
        self.split(&word, &mut ids);
        ids.truncate(room);
        ids.push(self.end);
        ids
    }

    /// The longest pieces of one word; one unknown where any part of it is in no piece.
    fn split(&self, word: &str, ids: &mut Vec<u32>) {
        if word.is_empty() {
            return;
        }
        let before = ids.len();
        let ends: Vec<usize> = word.char_indices().map(|(at, c)| at + c.len_utf8()).collect();
        let mut start = 0;
        while start < word.len() && ends.len() <= MAX_WORD_CHARACTERS {
            let longest = ends.iter().rev().take_while(|end| **end > start).find_map(|end| {
                let piece = &word[start..*end];
                let id = match start {
                    0 => self.ids.get(piece),
                    _ => self.ids.get(&format!("##{piece}")),
                };
                id.map(|id| (*id, *end))
            });
            let Some((id, end)) = longest else { break };
            ids.push(id);
            start = end;
        }
        if start < word.len() {
            ids.truncate(before);
            ids.push(self.unknown);
        }
    }
}

/// The text as the model knows it, lazily.
fn normalised(text: &str) -> impl Iterator<Item = char> + '_ {
    let kept = text.chars().filter(|c| !is_control(*c)).flat_map(|c| {
        let apart = is_chinese(c).then_some(' ');
        let own = if c.is_whitespace() { ' ' } else { c };
        apart.into_iter().chain([own]).chain(apart)
    });
    kept.nfd()
        .filter(|c| c.general_category() != GeneralCategory::NonspacingMark)
        .flat_map(char::to_lowercase)
}

fn is_control(c: char) -> bool {
    let spacing = matches!(c, '\t' | '\n' | '\r');
    let other = matches!(
        c.general_category(),
        GeneralCategory::Control | GeneralCategory::Format | GeneralCategory::PrivateUse
    );
    c == '\u{fffd}' || (other && !spacing)
}

fn is_punctuation(c: char) -> bool {
    c.is_ascii_punctuation() || c.general_category_group() == GeneralCategoryGroup::Punctuation
}

/// The CJK blocks of BERT's tokenizer.
fn is_chinese(c: char) -> bool {
    matches!(
        u32::from(c),
        0x4e00..=0x9fff
            | 0x3400..=0x4dbf
            | 0x20000..=0x2a6df
            | 0x2a700..=0x2b73f
            | 0x2b740..=0x2b81f
            | 0x2b920..=0x2ceaf
            | 0xf900..=0xfaff
            | 0x2f800..=0x2fa1f
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words() -> WordPiece {
        WordPiece::new(b"[PAD]\n[UNK]\n[CLS]\n[SEP]\nun\n##aff\n##able\n!\ncafe\nab\n##b\n")
            .unwrap()
    }

    fn check(text: &str, limit: usize, expected: &[u32]) {
        assert_eq!(words().encode(text, limit), expected, "{text:?}");
    }

    #[test]
    fn the_longest_pieces_are_taken() {
        check("unaffable!", 8, &[2, 4, 5, 6, 7, 3]);
        check("  Caf\u{e9}\tABB ", 8, &[2, 8, 9, 10, 3]);
        check("unaffablex un", 8, &[2, 1, 4, 3]);
        check(&"b".repeat(101), 8, &[2, 1, 3]);
        check("\u{0}\u{200b}un\u{4e2d}un", 8, &[2, 4, 1, 4, 3]);
    }

    #[test]
    fn a_long_text_is_cut_and_still_ends() {
        check("un un un un un un un un", 4, &[2, 4, 4, 3]);
        check("unaffable", 4, &[2, 4, 5, 3]);
        check("", 4, &[2, 3]);
        check(&"un ".repeat(3 << 20), 4, &[2, 4, 4, 3]);
    }

    #[test]
    fn a_vocabulary_needs_its_special_lines() {
        for bad in [&b"\xff"[..], b"", b"[UNK]\n[PAD]\n[CLS]\n[SEP]", b"[PAD]\n[UNK]\n[CLS]"] {
            assert!(WordPiece::new(bad).unwrap_err().is(Code::CatalogInvalid));
        }
    }
}
