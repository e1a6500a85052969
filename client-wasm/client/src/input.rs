//! What a caller gives: a picture of any size, a text, a series, or numbers in the model's own scale. Bad input stops here.

use backstitch_protocol::Problem;
use backstitch_protocol::problem::Code;

/// Most pixels of a picture: 64 megapixels.
pub const MAX_PIXELS: u64 = 64 << 20;

/// Most numbers of a tensor.
pub const MAX_ELEMENTS: usize = 64 << 20;

/// Most bytes of a text: 1 MiB, several times a long novel's chapter.
pub const MAX_TEXT_BYTES: usize = 1 << 20;

/// One input, checked: sizes agree and no number is infinite.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// Red, green, blue, alpha of each pixel, row by row, not premultiplied, as a canvas yields them.
    Image {
        /// Pixels across.
        width: usize,
        /// Pixels down.
        height: usize,
        /// `4 · width · height` bytes.
        rgba: Vec<u8>,
    },
    /// A text with at least one visible character.
    Text(String),
    /// Numbers in the scale of the model's input, or a series in its own units. NaN marks what is missing, which only
    /// series may have.
    Tensor {
        /// Dimensions, outermost first.
        shape: Vec<usize>,
        /// Row-major.
        values: Vec<f32>,
    },
    /// Bytes that the library's preprocessing scales as it scales pixels.
    Bytes {
        /// Dimensions, outermost first.
        shape: Vec<usize>,
        /// Row-major, 0 to 255.
        values: Vec<u8>,
    },
}

impl Input {
    /// A picture. Refuses one without pixels, one above [`MAX_PIXELS`], and bytes that do not fit its size.
    pub fn image(width: u32, height: u32, rgba: Vec<u8>) -> Result<Self, Problem> {
        let pixels = u64::from(width) * u64::from(height);
        if pixels == 0 {
            return Err(invalid(format!("the picture is {width} × {height} pixels"))
                .with_hint("wait until the picture is loaded, then read its pixels"));
        }
        if pixels > MAX_PIXELS {
            return Err(invalid(format!(
                "the picture has {pixels} pixels, the limit is {MAX_PIXELS}"
            ))
            .with_hint("scale it down first"));
        }
        if rgba.len() as u64 != 4 * pixels {
            return Err(invalid(format!(
                "{width} × {height} pixels need {} bytes of RGBA, not {}",
                4 * pixels,
                rgba.len()
            )));
        }
        Ok(Self::Image { width: width as usize, height: height as usize, rgba })
    }

    /// A text. Refuses one without a visible character and one above [`MAX_TEXT_BYTES`].
    pub fn text(text: String) -> Result<Self, Problem> {
        if text.len() > MAX_TEXT_BYTES {
            let found = text.len();
            return Err(invalid(format!(
                "the text has {found} bytes, the limit is {MAX_TEXT_BYTES}"
            ))
            .with_hint("give the part that matters; the model reads the beginning of a text"));
        }
        match text.chars().all(|c| c.is_whitespace() || c.is_control()) {
            true => Err(invalid("the text is empty".to_owned()).with_hint("write something first")),
            false => Ok(Self::Text(text)),
        }
    }

    /// Numbers. Refuses a shape that does not fit, an empty one, and infinity.
    pub fn tensor(shape: Vec<usize>, values: Vec<f32>) -> Result<Self, Problem> {
        check_shape(&shape, values.len())?;
        if let Some(index) = values.iter().position(|v| v.is_infinite()) {
            return Err(invalid(format!("element {index} is {}", values[index])).with_hint(
                "replace infinity before asking the model; NaN marks a gap in a series",
            ));
        }
        Ok(Self::Tensor { shape, values })
    }

    /// Bytes, scaled like pixels. Refuses a shape that does not fit and an empty one.
    pub fn bytes(shape: Vec<usize>, values: Vec<u8>) -> Result<Self, Problem> {
        check_shape(&shape, values.len())?;
        Ok(Self::Bytes { shape, values })
    }
}

fn check_shape(shape: &[usize], given: usize) -> Result<(), Problem> {
    let count = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
    let count = count.filter(|n| (1..=MAX_ELEMENTS).contains(n)).ok_or_else(|| {
        invalid(format!("the shape {shape:?} is empty or above {MAX_ELEMENTS} elements"))
    })?;
    match count == given {
        true => Ok(()),
        false => {
            Err(invalid(format!("the shape {shape:?} has {count} elements, {given} were given")))
        }
    }
}

/// Refuses numbers with gaps where the model does not take series.
pub(crate) fn no_gaps(values: &[f32]) -> Result<(), Problem> {
    match values.iter().position(|v| v.is_nan()) {
        None => Ok(()),
        Some(index) => Err(invalid(format!("element {index} is NaN"))
            .with_hint("replace NaN before asking the model")),
    }
}

pub(crate) fn invalid(detail: String) -> Problem {
    Problem::new(Code::InputInvalid, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_pictures_are_refused_with_their_numbers() {
        let refused = |w, h, n: usize| Input::image(w, h, vec![0; n]).unwrap_err();
        for problem in
            [refused(0, 5, 0), refused(2, 2, 15), refused(2, 2, 17), refused(1 << 14, 1 << 13, 0)]
        {
            assert!(problem.is(Code::InputInvalid), "{problem}");
        }
        assert!(refused(u32::MAX, u32::MAX, 0).detail().contains("67108864"));
        assert!(Input::image(1, 1, vec![0; 4]).is_ok());
    }

    #[test]
    fn bad_tensors_are_refused() {
        for (shape, values) in [
            (vec![2], vec![0.0, f32::NEG_INFINITY]),
            (vec![1], vec![f32::INFINITY]),
            (vec![3], vec![0.0]),
            (vec![0, 4], vec![]),
            (vec![usize::MAX, 2], vec![0.0]),
        ] {
            assert!(Input::tensor(shape, values).unwrap_err().is(Code::InputInvalid));
        }
        assert!(Input::tensor(vec![], vec![1.0]).is_ok());
        assert!(no_gaps(&[0.0, f32::NAN]).unwrap_err().detail().contains("element 1"));
    }

    #[test]
    fn empty_and_endless_texts_are_refused() {
        for bad in ["", " \n\t", "\u{0}", &"a".repeat(10 << 20)] {
            assert!(Input::text(bad.to_owned()).unwrap_err().is(Code::InputInvalid));
        }
        assert!(Input::text("a".repeat(MAX_TEXT_BYTES)).is_ok());
    }
}
