//! From a picture of any size to the library's input tensor, and to the levels that are analysed.
//!
//! Shrinking averages areas exactly, enlarging is bilinear (pixel centres at half positions); both are separable,
//! so one table of weights per axis does it. A picture of another shape is fitted whole and centred, the rest is
//! black. Transparent pixels are laid over black.

use std::ops::Deref;

use backstitch_protocol::Problem;
use backstitch_protocol::preprocessing::{self as described, Layout};

use super::Prepared;
use crate::analysis::{Picture as Levels, Subject};
use crate::input::{Input, invalid, no_gaps};

/// ITU-R BT.601 luma weights of red, green and blue.
const LUMA: [f32; 3] = [0.299, 0.587, 0.114];

/// Prepares pictures as a library wants them.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture(pub(super) described::Picture);

impl Deref for Picture {
    type Target = described::Picture;

    fn deref(&self) -> &described::Picture {
        &self.0
    }
}

/// Luminance, 0 to 1, row by row.
#[derive(Clone, Debug, PartialEq)]
pub struct Plane {
    /// Pixels across.
    pub width: usize,
    /// Pixels down.
    pub height: usize,
    /// `width · height` values.
    pub pixels: Vec<f32>,
}

impl Picture {
    /// The model's input of this picture or tensor. A tensor must have the model's shape, with or without the
    /// leading dimensions of size 1.
    pub fn prepare(&self, input: &Input) -> Result<Prepared, Problem> {
        match input {
            Input::Image { width, height, rgba } => Ok(self.picture(*width, *height, rgba)),
            Input::Tensor { shape, values } => {
                no_gaps(values)?;
                self.tensor(shape, values)
            }
            Input::Text(_) => Err(invalid("this library takes pictures, not text".to_owned())
                .with_hint("give a picture, or numbers of the model's shape")),
            Input::Bytes { shape, values } => {
                let of = |i: usize| match self.layout {
                    Layout::Nchw => i / (self.width * self.height),
                    Layout::Nhwc => i % self.channels,
                };
                let scaled = values.iter().enumerate();
                let scaled =
                    scaled.map(|(i, b)| self.to_model(of(i), f64::from(*b) / 255.0) as f32);
                self.tensor(shape, &scaled.collect::<Vec<_>>())
            }
        }
    }

    /// Each channel of a model's input as levels, 0 to 1, row by row. `values` must have the model's size.
    pub fn levels(&self, values: &[f32]) -> Vec<Vec<f32>> {
        let level =
            |c: usize, i: usize| self.to_level(c, f64::from(values[self.index(c, i)])) as f32;
        (0..self.channels)
            .map(|c| (0..self.width * self.height).map(|i| level(c, i)).collect())
            .collect()
    }

    /// The model's input of levels, 0 to 1: one plane of `width · height` for each channel.
    pub fn values(&self, planes: &[Vec<f32>]) -> Vec<f32> {
        let mut values = vec![0.0; self.channels * self.width * self.height];
        for (c, plane) in planes.iter().enumerate() {
            for (i, level) in plane.iter().enumerate() {
                values[self.index(c, i)] = self.to_model(c, f64::from(*level)) as f32;
            }
        }
        values
    }

    fn picture(&self, width: usize, height: usize, rgba: &[u8]) -> Prepared {
        let planes: Vec<Vec<f32>> = if self.channels == 1 {
            vec![channel(rgba, |p| LUMA[0] * p[0] + LUMA[1] * p[1] + LUMA[2] * p[2])]
        } else {
            (0..3).map(|c| channel(rgba, |p| p[c])).collect()
        };
        let fitted: Vec<Vec<f32>> =
            planes.iter().map(|plane| fit(plane, width, height, self.width, self.height)).collect();
        let values = self.values(&fitted);
        Prepared { shape: self.shape(), values, subject: self.subject(fitted) }
    }

    fn tensor(&self, shape: &[usize], values: &[f32]) -> Result<Prepared, Problem> {
        let wanted = self.shape();
        let significant =
            |s: &[usize]| s.iter().copied().skip_while(|d| *d == 1).collect::<Vec<_>>();
        if significant(shape) != significant(&wanted) {
            return Err(invalid(format!(
                "the input has the shape {shape:?}, the model takes {wanted:?}"
            ))
            .with_hint("give a picture and let the client scale it, or reshape the numbers"));
        }
        let planes = self.levels(values);
        Ok(Prepared { shape: wanted, values: values.to_vec(), subject: self.subject(planes) })
    }

    /// What the analysis sees of channels that are levels from 0 to 1.
    fn subject(&self, planes: Vec<Vec<f32>>) -> Subject {
        let (width, height) = (self.width, self.height);
        let (pixels, colours) = match <[Vec<f32>; 3]>::try_from(planes) {
            Ok(colours) => (mix(&colours), Some(colours)),
            Err(grey) => (grey.into_iter().next().unwrap_or_default(), None),
        };
        Subject::Picture(Levels { luminance: Plane { width, height, pixels }, colours })
    }

    fn index(&self, channel: usize, pixel: usize) -> usize {
        match self.layout {
            Layout::Nchw => channel * self.width * self.height + pixel,
            Layout::Nhwc => pixel * self.channels + channel,
        }
    }

    fn to_model(&self, channel: usize, level: f64) -> f64 {
        let mean = self.mean.get(channel).copied().unwrap_or(0.0);
        let std = self.std.get(channel).copied().unwrap_or(1.0);
        (level * 255.0 * self.scale - mean) / std
    }

    fn to_level(&self, channel: usize, value: f64) -> f64 {
        let mean = self.mean.get(channel).copied().unwrap_or(0.0);
        let std = self.std.get(channel).copied().unwrap_or(1.0);
        (value * std + mean) / (255.0 * self.scale)
    }
}

/// One channel of the pixels, 0 to 1, laid over black.
fn channel(rgba: &[u8], pick: impl Fn([f32; 3]) -> f32) -> Vec<f32> {
    rgba.chunks_exact(4)
        .map(|p| {
            let opacity = f32::from(p[3]) / (255.0 * 255.0);
            pick([f32::from(p[0]), f32::from(p[1]), f32::from(p[2])]) * opacity
        })
        .collect()
}

fn mix(colours: &[Vec<f32>; 3]) -> Vec<f32> {
    (0..colours[0].len()).map(|i| (0..3).map(|c| LUMA[c] * colours[c][i]).sum()).collect()
}

/// Scales a plane to fit whole and centred.
fn fit(plane: &[f32], width: usize, height: usize, to_width: usize, to_height: usize) -> Vec<f32> {
    let scale = (to_width as f64 / width as f64).min(to_height as f64 / height as f64);
    let side = |from: usize, to: usize| ((from as f64 * scale).round() as usize).clamp(1, to);
    let (inner_width, inner_height) = (side(width, to_width), side(height, to_height));
    let across = weights(width, inner_width);
    let down = weights(height, inner_height);
    // Rows first: the intermediate has the source's height and the target's width.
    let mut narrow = vec![0.0f32; height * inner_width];
    for y in 0..height {
        let row = &plane[y * width..][..width];
        for (x, (first, taps)) in across.iter().enumerate() {
            narrow[y * inner_width + x] = taps.iter().zip(&row[*first..]).map(|(w, p)| w * p).sum();
        }
    }
    let mut out = vec![0.0f32; to_width * to_height];
    let (left, top) = ((to_width - inner_width) / 2, (to_height - inner_height) / 2);
    for (y, (first, taps)) in down.iter().enumerate() {
        for x in 0..inner_width {
            let column =
                taps.iter().enumerate().map(|(k, w)| w * narrow[(first + k) * inner_width + x]);
            out[(top + y) * to_width + left + x] = column.sum::<f32>().clamp(0.0, 1.0);
        }
    }
    out
}

/// For each target pixel of one axis: the first source pixel and the weights from there, summing to 1.
fn weights(from: usize, to: usize) -> Vec<(usize, Vec<f32>)> {
    let ratio = from as f64 / to as f64;
    (0..to)
        .map(|i| {
            if to >= from {
                let centre = ((i as f64 + 0.5) * ratio - 0.5).clamp(0.0, (from - 1) as f64);
                let first = (centre.floor() as usize).min(from.saturating_sub(2));
                let share = (centre - first as f64) as f32;
                return (first, if from == 1 { vec![1.0] } else { vec![1.0 - share, share] });
            }
            let (start, end) = (i as f64 * ratio, (i + 1) as f64 * ratio);
            let first = start.floor() as usize;
            let last = (end.ceil() as usize).min(from);
            let covered = |p: usize| (end.min((p + 1) as f64) - start.max(p as f64)).max(0.0);
            (first, (first..last).map(|p| (covered(p) / ratio) as f32).collect())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use backstitch_protocol::problem::Code;

    use super::super::Preprocessing;
    use super::*;

    fn picture(json: &serde_json::Value) -> Picture {
        match Preprocessing::from_json(json).unwrap() {
            Preprocessing::Picture(picture) => picture,
            other => panic!("no picture: {other:?}"),
        }
    }

    fn fashion() -> Picture {
        picture(&serde_json::json!({"width": 28, "height": 28, "channels": 1}))
    }

    fn grey(width: u32, height: u32, f: impl Fn(u32, u32) -> u8) -> Input {
        let pixels = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
        let rgba = pixels.flat_map(|(x, y)| [f(x, y), f(x, y), f(x, y), 255]).collect();
        Input::image(width, height, rgba).unwrap()
    }

    #[test]
    fn a_picture_of_the_models_size_keeps_its_pixels() {
        let prepared = fashion().prepare(&grey(28, 28, |x, y| (x * 9 + y % 3) as u8)).unwrap();
        assert_eq!(prepared.shape, [1, 1, 28, 28]);
        for (i, value) in prepared.values.iter().enumerate() {
            let byte = (i % 28) * 9 + (i / 28) % 3;
            assert!((value * 255.0 - byte as f32).abs() < 1e-3, "{i}");
        }
    }

    #[test]
    fn shrinking_keeps_the_mean_and_enlarging_a_flat_picture() {
        let prepared =
            fashion().prepare(&grey(57, 57, |x, y| ((x * 31 + y * 17) % 251) as u8)).unwrap();
        let mean = prepared.values.iter().sum::<f32>() / 784.0;
        let expected =
            (0..57u32 * 57).map(|i| ((i % 57) * 31 + (i / 57) * 17) % 251).sum::<u32>() as f32;
        assert!((mean - expected / (57.0 * 57.0 * 255.0)).abs() < 1e-5);
        let flat = fashion().prepare(&grey(3, 3, |_, _| 51)).unwrap();
        assert!(flat.values.iter().all(|v| (v - 0.2).abs() < 1e-6));
    }

    #[test]
    fn another_aspect_is_centred_on_black() {
        let wide = fashion().prepare(&grey(56, 28, |_, _| 255)).unwrap();
        let lit = wide.values.iter().filter(|v| **v > 0.5).count();
        assert_eq!(lit, 28 * 14);
        assert!(wide.values[..28 * 7].iter().all(|v| *v == 0.0));
        assert!(fashion().prepare(&grey(1, 2000, |_, _| 255)).is_ok());
    }

    #[test]
    fn colours_are_weighted_and_transparency_is_black() {
        let red = Input::image(1, 1, vec![255, 0, 0, 255]).unwrap();
        assert!((fashion().prepare(&red).unwrap().values[400] - 0.299).abs() < 1e-6);
        let glass = Input::image(1, 1, vec![255, 255, 255, 0]).unwrap();
        assert_eq!(fashion().prepare(&glass).unwrap().values[400], 0.0);
    }

    #[test]
    fn tensors_need_the_models_shape() {
        let values = vec![0.5; 784];
        for shape in [vec![28, 28], vec![1, 28, 28], vec![1, 1, 28, 28]] {
            let input = Input::tensor(shape, values.clone()).unwrap();
            assert_eq!(fashion().prepare(&input).unwrap().shape, [1, 1, 28, 28]);
        }
        let bytes = Input::bytes(vec![28, 28], vec![51; 784]).unwrap();
        assert!(fashion().prepare(&bytes).unwrap().values.iter().all(|v| (v - 0.2).abs() < 1e-6));
        let flat = Input::tensor(vec![784], values).unwrap();
        assert!(fashion().prepare(&flat).unwrap_err().is(Code::InputInvalid));
    }

    #[test]
    fn normalised_channels_are_undone_for_analysis() {
        let json = serde_json::json!({"width": 4, "height": 4, "channels": 3, "layout": "nhwc",
            "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]});
        let preprocessing = picture(&json);
        let prepared = preprocessing.prepare(&grey(4, 4, |_, _| 51)).unwrap();
        assert!((prepared.values[0] + 0.6).abs() < 1e-6);
        let again = Input::tensor(prepared.shape.clone(), prepared.values.clone()).unwrap();
        for subject in [prepared.subject, preprocessing.prepare(&again).unwrap().subject] {
            let Subject::Picture(Levels { luminance, colours: Some(colours) }) = subject else {
                panic!("no picture in colour: {subject:?}");
            };
            let levels = colours.iter().flatten().chain(&luminance.pixels);
            assert_eq!(levels.filter(|p| (*p - 0.2).abs() < 1e-6).count(), 64);
        }
    }
}
