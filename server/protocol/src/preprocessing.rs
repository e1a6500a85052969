//! How raw input becomes the tensor that a primary takes, as a catalog describes it. The client prepares inputs by
//! it; a server refuses a description that does not fit its primary, before anybody's page stops working.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::catalog::Blob;
use crate::problem::{Code, Problem};

/// Largest side of a model's picture.
const MAX_SIDE: usize = 4096;

/// Largest window, in numbers.
const MAX_NUMBERS: usize = 1 << 22;

/// Most tokens of a model's input.
const MAX_TOKENS: usize = 4096;

/// A catalog's description of how raw input becomes the model's input. A `width` makes it a picture's, `max_tokens` a
/// text's, `window` a series'.
#[derive(Clone, Debug, PartialEq)]
pub enum Preprocessing {
    /// Pictures.
    Picture(Picture),
    /// Texts.
    Text(Text),
    /// Series of one or several channels.
    Series(Series),
    /// Tensors of the model's own shape.
    Plain,
}

/// How a library wants its pictures. Unknown keys are refused, because ignoring one would feed the model wrongly.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Picture {
    /// Pixels across.
    pub width: usize,
    /// Pixels down.
    pub height: usize,
    /// 1 for luminance, 3 for red, green and blue.
    pub channels: usize,
    /// Factor from a byte to the model's scale.
    #[serde(default = "unit_scale")]
    pub scale: f64,
    /// Subtracted per channel after scaling.
    #[serde(default)]
    pub mean: Vec<f64>,
    /// Divides per channel after the mean.
    #[serde(default)]
    pub std: Vec<f64>,
    /// `nchw` or `nhwc`.
    #[serde(default)]
    pub layout: Layout,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}

/// Where the channels of a picture stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// Batch, channels, rows, columns.
    #[default]
    Nchw,
    /// Batch, rows, columns, channels.
    Nhwc,
}

/// How a library wants its texts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Text {
    /// Tokens of the model's input, start and end included. A shorter text is filled up with zeros; of a longer one
    /// the model sees the beginning, while analysis sees all of it.
    pub max_tokens: usize,
    /// The uncased WordPiece vocabulary, one piece a line.
    pub vocabulary: Blob,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}

/// How a library wants its series.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Series {
    /// Moments that the model sees at once. A longer series is cut to its newest.
    pub window: usize,
    /// Numbers per moment.
    pub channels: usize,
    /// Moments per second; 1 where the clock does not matter.
    #[serde(default = "one")]
    pub rate_hz: f64,
    /// Subtracted per channel.
    #[serde(default)]
    pub mean: Vec<f64>,
    /// Divides per channel after the mean.
    #[serde(default)]
    pub std: Vec<f64>,
    /// Largest share of a channel that may be missing.
    #[serde(default = "half")]
    pub max_missing: f64,
    /// `nct` or `ntc`.
    #[serde(default)]
    pub layout: SeriesLayout,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}

/// Where the channels of a series stand in the model's input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SeriesLayout {
    /// Batch, channels, time.
    #[default]
    Nct,
    /// Batch, time, channels.
    Ntc,
}

fn unit_scale() -> f64 {
    1.0 / 255.0
}

fn one() -> f64 {
    1.0
}

fn half() -> f64 {
    0.5
}

impl Preprocessing {
    /// Reads and checks a description. Fails with `catalog_invalid`.
    pub fn from_json(value: &serde_json::Value) -> Result<Self, Problem> {
        let has = |key: &str| value.get(key).is_some();
        let (read, sound) = match (has("width"), has("max_tokens"), has("window")) {
            (true, _, _) => {
                let picture: Picture = read(value)?;
                let sound = picture.is_sound();
                (Self::Picture(picture), sound)
            }
            (_, true, _) => {
                let text: Text = read(value)?;
                let sound = (3..=MAX_TOKENS).contains(&text.max_tokens);
                (Self::Text(text), sound)
            }
            (_, _, true) => {
                let series: Series = read(value)?;
                let sound = series.is_sound();
                (Self::Series(series), sound)
            }
            _ => (Self::Plain, true),
        };
        match sound {
            true => Ok(read),
            false => Err(Problem::new(
                Code::CatalogInvalid,
                format!("preprocessing: {value} is out of range"),
            )),
        }
    }

    /// The shape of the input that it makes, with a batch of one; `None` for tensors of the model's own shape.
    pub fn shape(&self) -> Option<Vec<usize>> {
        match self {
            Self::Picture(picture) => Some(picture.shape()),
            Self::Text(text) => Some(text.shape()),
            Self::Series(series) => Some(series.shape()),
            Self::Plain => None,
        }
    }
}

impl Picture {
    /// The shape of the model's input.
    pub fn shape(&self) -> Vec<usize> {
        match self.layout {
            Layout::Nchw => vec![1, self.channels, self.height, self.width],
            Layout::Nhwc => vec![1, self.height, self.width, self.channels],
        }
    }

    fn is_sound(&self) -> bool {
        let sides = [self.width, self.height].iter().all(|side| (1..=MAX_SIDE).contains(side));
        sides
            && matches!(self.channels, 1 | 3)
            && self.scale.is_finite()
            && per_channel(&self.mean, &self.std, self.channels)
    }
}

impl Text {
    /// The shape of the model's input.
    pub fn shape(&self) -> Vec<usize> {
        vec![1, self.max_tokens]
    }
}

impl Series {
    /// The shape of the model's input.
    pub fn shape(&self) -> Vec<usize> {
        match self.layout {
            SeriesLayout::Nct => vec![1, self.channels, self.window],
            SeriesLayout::Ntc => vec![1, self.window, self.channels],
        }
    }

    fn is_sound(&self) -> bool {
        let numbers = self.window.checked_mul(self.channels);
        numbers.is_some_and(|n| (1..=MAX_NUMBERS).contains(&n))
            && self.rate_hz > 0.0
            && self.rate_hz.is_finite()
            && (0.0..1.0).contains(&self.max_missing)
            && per_channel(&self.mean, &self.std, self.channels)
    }
}

/// Whether there is a mean and a deviation for each channel or none, and one can divide by the deviations.
fn per_channel(mean: &[f64], std: &[f64], channels: usize) -> bool {
    let each = |values: &[f64]| values.is_empty() || values.len() == channels;
    (each(mean) && each(std))
        && mean.iter().all(|m| m.is_finite())
        && std.iter().all(|s| s.is_finite() && *s != 0.0)
}

/// Reads one kind's keys. Unknown ones are refused, because ignoring one would feed the model wrongly.
fn read<T: DeserializeOwned>(value: &serde_json::Value) -> Result<T, Problem> {
    serde_json::from_value(value.clone()).map_err(|e| {
        Problem::new(Code::CatalogInvalid, format!("preprocessing: {e}"))
            .with_hint("check the key's name; a newer client may be needed for this library")
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_description_tells_the_shape_that_it_makes() {
        let vocabulary = json!({"digest": format!("sha256:{}", "0".repeat(64)), "bytes": 1});
        for (description, shape) in [
            (json!({"width": 3, "height": 2, "channels": 1}), Some(vec![1, 1, 2, 3])),
            (
                json!({"width": 3, "height": 2, "channels": 3, "layout": "nhwc"}),
                Some(vec![1, 2, 3, 3]),
            ),
            (json!({"max_tokens": 8, "vocabulary": vocabulary}), Some(vec![1, 8])),
            (json!({"window": 9, "channels": 2}), Some(vec![1, 2, 9])),
            (json!({"window": 9, "channels": 2, "layout": "ntc"}), Some(vec![1, 9, 2])),
            (json!({}), None),
            (json!(null), None),
        ] {
            assert_eq!(Preprocessing::from_json(&description).unwrap().shape(), shape);
        }
    }

    #[test]
    fn unknown_keys_and_bad_numbers_are_refused() {
        for bad in [
            json!({"width": 0, "height": 1, "channels": 1}),
            json!({"width": 1, "height": 1, "channels": 2}),
            json!({"width": 1, "height": 1, "channels": 1, "rotate": true}),
            json!({"width": 1, "height": 1, "channels": 1, "std": [0.0]}),
            json!({"max_tokens": 8}),
            json!({"window": 0, "channels": 1}),
            json!({"window": 9, "channels": 0}),
            json!({"window": u64::MAX, "channels": 2}),
            json!({"window": 9, "channels": 2, "mean": [0.0]}),
            json!({"window": 9, "channels": 1, "std": [0.0]}),
            json!({"window": 9, "channels": 1, "max_missing": 1.0}),
            json!({"window": 9, "channels": 1, "detrend": true}),
        ] {
            let problem = Preprocessing::from_json(&bad).unwrap_err();
            assert!(problem.is(Code::CatalogInvalid), "{bad}: {problem}");
        }
    }
}
