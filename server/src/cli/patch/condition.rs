//! Conditions that pictures can be in: turned, out of focus, flat, noisy; in this order, as in a camera.

use std::fmt;
use std::str::FromStr;

use backstitch_client::preprocessing::Picture;
use backstitch_client::random::SplitMix;
use backstitch_edge::style::{blurred, noisy, tilted};

use super::data::Examples;
use crate::cli::files::Outcome;

/// What is done to each picture; nothing by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, clap::Args)]
pub(super) struct Condition {
    /// Pictures: turn by degrees, anticlockwise, before anything else.
    #[arg(long, value_name = "DEGREES", allow_negative_numbers = true)]
    tilt: Option<f64>,
    /// Pictures: Gaussian blur of this deviation in pixels, before the contrast is lost.
    #[arg(long, value_name = "PIXELS", value_parser = amount)]
    blur: Option<f64>,
    /// Pictures: the part of their contrast that is kept, before noise.
    #[arg(long, value_name = "SHARE", value_parser = amount)]
    contrast: Option<f64>,
    /// Pictures: add Gaussian noise of this deviation (pixels are 0 to 1), then clip.
    #[arg(long, value_name = "SIGMA", value_parser = amount)]
    noise: Option<f64>,
}

impl Condition {
    /// Whether pictures stay as they are.
    pub(super) fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// The examples in this condition. Refused for examples that are no pictures.
    pub(super) fn apply(&self, examples: &Examples, seed: u64) -> Outcome<Examples> {
        if self.is_none() {
            return Ok(examples.clone());
        }
        let picture = examples.picture.as_ref().ok_or(
            "--tilt, --blur, --contrast, --noise and --slice need pictures; these examples are none",
        )?;
        let mut draws = SplitMix::new(seed);
        let mut changed = examples.clone();
        for input in &mut changed.inputs {
            *input = self.change(input, picture, &mut draws);
        }
        Ok(changed)
    }

    fn change(&self, input: &[f32], picture: &Picture, draws: &mut SplitMix) -> Vec<f32> {
        let (width, height) = (picture.width, picture.height);
        let mut planes = picture.levels(input);
        for plane in &mut planes {
            if let Some(degrees) = self.tilt {
                *plane = tilted(plane, width, height, degrees);
            }
            if let Some(sigma) = self.blur {
                *plane = blurred(plane, width, height, sigma);
            }
        }
        if let Some(share) = self.contrast {
            let count = (planes.len() * width * height) as f64;
            let mean = planes.iter().flatten().map(|p| f64::from(*p)).sum::<f64>() / count;
            for p in planes.iter_mut().flatten() {
                *p = (mean + share * (f64::from(*p) - mean)) as f32;
            }
        }
        if let Some(sigma) = self.noise {
            planes.iter_mut().for_each(|plane| *plane = noisy(plane, sigma, draws));
        }
        picture.values(&planes)
    }

    fn parts(&self) -> impl Iterator<Item = (&'static str, f64)> {
        [
            ("tilt", self.tilt),
            ("blur", self.blur),
            ("contrast", self.contrast),
            ("noise", self.noise),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
    }
}

/// A number that is not below 0.
fn amount(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|v| (0.0..f64::INFINITY).contains(v))
        .ok_or_else(|| "give a number, at least 0".to_owned())
}

/// `tilt 25, noise 0.1`; `as they are` for none.
impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> =
            self.parts().map(|(name, value)| format!("{name} {value}")).collect();
        match parts.is_empty() {
            true => f.write_str("as they are"),
            false => f.write_str(&parts.join(", ")),
        }
    }
}

/// `tilt=25,noise=0.1`; `none`.
impl FromStr for Condition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut condition = Self::default();
        for part in text.split(',').filter(|part| *part != "none") {
            let expected = || {
                format!(
                    "`{part}` is no condition; use none, tilt=25, blur=1.5, contrast=0.3 or noise=0.3"
                )
            };
            let (name, value) = part.split_once('=').ok_or_else(expected)?;
            let value: f64 = value.parse().map_err(|_| expected())?;
            let place = match name.trim() {
                "tilt" => &mut condition.tilt,
                "blur" => &mut condition.blur,
                "contrast" => &mut condition.contrast,
                "noise" => &mut condition.noise,
                _ => return Err(expected()),
            };
            if !value.is_finite() || (name != "tilt" && value < 0.0) {
                return Err(format!("`{part}`: {value} is out of range"));
            }
            *place = Some(value);
        }
        Ok(condition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_read_and_written() {
        let read = |text: &str| text.parse::<Condition>().map(|c| c.to_string());
        assert_eq!(read("none").unwrap(), "as they are");
        assert_eq!(read("noise=0.1,contrast=0.3").unwrap(), "contrast 0.3, noise 0.1");
        for bad in ["", "noise", "noise=x", "noise=-1", "fog=1", "tilt=inf"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
