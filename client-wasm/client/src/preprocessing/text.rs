//! From a text to token ids.

use backstitch_protocol::Problem;
use backstitch_protocol::preprocessing::Text;

use super::{Prepared, WordPiece};
use crate::analysis::Subject;
use crate::input::{Input, invalid};

/// A description with its vocabulary.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    max_tokens: usize,
    words: WordPiece,
}

impl Tokenizer {
    /// Fails where the vocabulary lacks what every text needs.
    pub fn new(text: Text, vocabulary: &[u8]) -> Result<Self, Problem> {
        Ok(Self { max_tokens: text.max_tokens, words: WordPiece::new(vocabulary)? })
    }

    /// The model's input of a text: `[1, max_tokens]` token ids.
    pub fn prepare(&self, input: &Input) -> Result<Prepared, Problem> {
        let text = given(input)?;
        // Ids are below 2²⁴, so that f32 holds them exactly.
        let mut values: Vec<f32> =
            self.words.encode(text, self.max_tokens).into_iter().map(|id| id as f32).collect();
        values.resize(self.max_tokens, 0.0);
        Ok(Prepared {
            shape: vec![1, self.max_tokens],
            values,
            subject: Subject::Text(text.to_owned()),
        })
    }
}

/// The text of an input.
pub(super) fn given(input: &Input) -> Result<&str, Problem> {
    match input {
        Input::Text(text) => Ok(text),
        _ => Err(invalid("this library takes text".to_owned()).with_hint("give a string")),
    }
}
