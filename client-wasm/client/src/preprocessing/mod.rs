//! From what a caller gives to the model's input tensor, and to what analysis looks at.
//!
//! A catalog describes it: [`backstitch_protocol::preprocessing`] says how.

mod picture;
mod series;
mod text;
mod wordpiece;

use backstitch_protocol::Problem;
use backstitch_protocol::catalog::Blob;
use backstitch_protocol::preprocessing::{self as described, Text};

pub use picture::{Picture, Plane};
pub use series::Series;
pub use text::Tokenizer;
pub use wordpiece::WordPiece;

use crate::analysis::Subject;
use crate::input::{Input, invalid, no_gaps};

/// An input ready for the model and for analysis.
#[derive(Clone, Debug, PartialEq)]
pub struct Prepared {
    /// The shape of the model's input, with a batch of one.
    pub shape: Vec<usize>,
    /// Its values, row-major; token ids are whole numbers.
    pub values: Vec<f32>,
    /// What the analysis looks at.
    pub subject: Subject,
}

/// A catalog's description of how raw input becomes the model's input.
#[derive(Clone, Debug, PartialEq)]
pub enum Preprocessing {
    /// Pictures.
    Picture(Picture),
    /// Texts; a tokenizer needs the vocabulary too.
    Text(Text),
    /// Series of one or several channels.
    Series(Series),
    /// Tensors of the model's own shape.
    Plain,
}

/// A description with everything that it names: it prepares inputs.
#[derive(Clone, Debug)]
pub enum Preparation {
    /// Pictures.
    Picture(Picture),
    /// Texts.
    Text(Tokenizer),
    /// Series of one or several channels.
    Series(Series),
    /// Tensors of the model's own shape.
    Plain,
}

impl Preprocessing {
    /// Reads and checks the catalog's description.
    pub fn from_json(value: &serde_json::Value) -> Result<Self, Problem> {
        Ok(match described::Preprocessing::from_json(value)? {
            described::Preprocessing::Picture(picture) => Self::Picture(Picture(picture)),
            described::Preprocessing::Text(text) => Self::Text(text),
            described::Preprocessing::Series(series) => Self::Series(Series(series)),
            described::Preprocessing::Plain => Self::Plain,
        })
    }

    /// The shape of the input that it makes; `None` for tensors of the model's own shape.
    pub fn shape(&self) -> Option<Vec<usize>> {
        match self {
            Self::Picture(picture) => Some(picture.shape()),
            Self::Text(text) => Some(text.shape()),
            Self::Series(series) => Some(series.shape()),
            Self::Plain => None,
        }
    }

    /// The file that [`Preprocessing::complete`] needs.
    pub fn vocabulary(&self) -> Option<&Blob> {
        match self {
            Self::Text(text) => Some(&text.vocabulary),
            _ => None,
        }
    }

    /// Adds the vocabulary; other kinds than text need none.
    pub fn complete(self, vocabulary: &[u8]) -> Result<Preparation, Problem> {
        Ok(match self {
            Self::Picture(picture) => Preparation::Picture(picture),
            Self::Text(text) => Preparation::Text(Tokenizer::new(text, vocabulary)?),
            Self::Series(series) => Preparation::Series(series),
            Self::Plain => Preparation::Plain,
        })
    }

    /// What analysis looks at, for whoever has no model and no vocabulary.
    pub fn subject(&self, input: &Input) -> Result<Subject, Problem> {
        match self {
            Self::Picture(picture) => Ok(picture.prepare(input)?.subject),
            Self::Text(_) => text::given(input).map(|text| Subject::Text(text.to_owned())),
            Self::Series(series) => Ok(series.prepare(input)?.subject),
            Self::Plain => Ok(Subject::Numbers),
        }
    }
}

impl Preparation {
    /// The model's input; `wanted` is its shape.
    pub fn prepare(&self, input: &Input, wanted: &[usize]) -> Result<Prepared, Problem> {
        match self {
            Self::Picture(picture) => picture.prepare(input),
            Self::Text(tokenizer) => tokenizer.prepare(input),
            Self::Series(series) => series.prepare(input),
            Self::Plain => plain(input, wanted),
        }
    }
}

/// A tensor of the model's shape, as it is.
fn plain(input: &Input, wanted: &[usize]) -> Result<Prepared, Problem> {
    let (shape, values) = match input {
        Input::Tensor { shape, values } => {
            no_gaps(values)?;
            (shape, values.clone())
        }
        Input::Bytes { shape, values } => (shape, values.iter().map(|b| f32::from(*b)).collect()),
        Input::Image { .. } | Input::Text(_) => {
            return Err(invalid("this library takes numbers alone".to_owned())
                .with_hint(format!("give numbers of shape {wanted:?}")));
        }
    };
    match shape == wanted {
        true => Ok(Prepared { shape: shape.clone(), values, subject: Subject::Numbers }),
        false => {
            Err(invalid(format!("the input has the shape {shape:?}, the model takes {wanted:?}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use backstitch_protocol::problem::Code;

    use super::*;

    #[test]
    fn each_kind_of_input_goes_to_its_own_kind_of_library() {
        let picture = Input::image(1, 1, vec![0; 4]).unwrap();
        let text = Input::text("fine".to_owned()).unwrap();
        let numbers = Input::tensor(vec![1, 2], vec![0.5, 1.5]).unwrap();
        let gap = Input::tensor(vec![1, 2], vec![0.5, f32::NAN]).unwrap();
        let check = |description: serde_json::Value, takes: [&Input; 1], refuses: &[&Input]| {
            let vocabulary = b"[PAD]\n[UNK]\n[CLS]\n[SEP]\nfine\n";
            let ready = Preprocessing::from_json(&description).unwrap().complete(vocabulary);
            let ready = ready.unwrap();
            let shape = Preprocessing::from_json(&description).unwrap().shape();
            let made = ready.prepare(takes[0], &[1, 2]).unwrap().shape;
            assert!(shape.is_none_or(|shape| shape == made), "{description} {made:?}");
            for input in refuses {
                let problem = ready.prepare(input, &[1, 2]).unwrap_err();
                assert!(problem.is(Code::InputInvalid), "{description} {input:?}: {problem}");
            }
        };
        let blob = serde_json::json!({"digest": format!("sha256:{}", "0".repeat(64)), "bytes": 1});
        let words = serde_json::json!({"max_tokens": 8, "vocabulary": blob});
        check(serde_json::json!({}), [&numbers], &[&picture, &text, &gap]);
        check(words, [&text], &[&picture, &numbers]);
        check(
            serde_json::json!({"width": 2, "height": 1, "channels": 1}),
            [&picture],
            &[&text, &gap],
        );
        check(serde_json::json!({"window": 1, "channels": 2}), [&numbers], &[&picture, &text]);
    }
}
