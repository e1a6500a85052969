//! JPEG files as pixels.

use std::fmt::Display;
use std::io::Cursor;

use backstitch_client::input::MAX_PIXELS;
use backstitch_protocol::Problem;
use backstitch_protocol::problem::Code;
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

/// Width, height, and red, green, blue, alpha of each pixel.
pub fn decode(bytes: &[u8]) -> Result<(u32, u32, Vec<u8>), Problem> {
    let options = DecoderOptions::default().jpeg_set_out_colorspace(ColorSpace::RGBA);
    let mut decoder = JpegDecoder::new_with_options(Cursor::new(bytes), options);
    // A few bytes can claim a gigabyte of pixels.
    decoder.decode_headers().map_err(bad)?;
    let (width, height) = decoder.dimensions().ok_or_else(|| bad("it has no size"))?;
    if width as u64 * height as u64 > MAX_PIXELS {
        return Err(bad(format!("{width} × {height} pixels are too many")));
    }
    let rgba = decoder.decode().map_err(bad)?;
    // Neither side is above 65,535: the format has two bytes for each.
    Ok((width as u32, height as u32, rgba))
}

fn bad(why: impl Display) -> Problem {
    Problem::new(Code::InputInvalid, format!("not a readable JPEG: {why}"))
}

#[cfg(test)]
pub(crate) mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    /// Eight by eight pixels of the grey level 200, in base64.
    pub(crate) const GREY: &str = "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAYEBQYFBAYGBQYHBwYIChAKCgkJChQODwwQFxQYGBcUFhYaHSUfGhsjHBYWICwgIyYnKSopGR8tMC0oMCUoKSj/wAALCAAIAAgBAREA/8QAFAABAAAAAAAAAAAAAAAAAAAAB//EABQQAQAAAAAAAAAAAAAAAAAAAAD/2gAIAQEAAD8AYH//2Q==";

    #[test]
    fn pixels_are_read_and_a_large_claim_is_refused() {
        let grey = STANDARD.decode(GREY).unwrap();
        let (width, height, rgba) = decode(&grey).unwrap();
        assert_eq!((width, height, rgba.len()), (8, 8, 256));
        assert!(rgba.chunks(4).all(|p| p[0].abs_diff(200) <= 2 && p[0] == p[2] && p[3] == 255));
        let mut large = grey.clone();
        // Height and width stand behind the mark of the frame, its length and its precision.
        let frame = large.windows(2).position(|mark| mark == [0xff, 0xc0]).unwrap();
        large[frame + 5..frame + 9].copy_from_slice(&[0x3f, 0xff, 0x3f, 0xff]);
        assert!(decode(&large).unwrap_err().detail().contains("too many"));
        for damaged in [&grey[..20], b"text", b""] {
            assert!(decode(damaged).unwrap_err().is(Code::InputInvalid));
        }
    }
}
