//! PNG and JPEG files as pictures. What a camera notes about how it was held is not read: turn such pictures first.

use std::error::Error as StdError;
use std::io::Cursor;
use std::path::Path;

use backstitch_client::input::{Input, MAX_PIXELS};
use backstitch_edge::jpeg;
use png::{ColorType, Transformations};

use crate::cli::files::{self, Outcome};

/// Width, height, and red, green, blue, alpha of each pixel.
type Decoded = Result<(u32, u32, Vec<u8>), Box<dyn StdError>>;

/// Whether the name ends as that of a picture that can be read.
pub(in crate::cli) fn is_picture(path: &Path) -> bool {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    ["png", "jpg", "jpeg"].iter().any(|known| extension.eq_ignore_ascii_case(known))
}

/// Reads a picture; its first bytes say whether it is a PNG, whatever its name is.
pub(in crate::cli) fn open(path: &Path) -> Outcome<Input> {
    let bytes = files::read(path)?;
    let decoded = match bytes.starts_with(b"\x89PNG") {
        true => from_png(&bytes),
        false => from_jpeg(&bytes),
    };
    let (width, height, rgba) =
        decoded.map_err(|e| format!("{} is no readable PNG or JPEG: {e}", path.display()))?;
    Ok(Input::image(width, height, rgba).map_err(|e| format!("{}: {e}", path.display()))?)
}

fn from_png(bytes: &[u8]) -> Decoded {
    let mut decoder = png::Decoder::new(Cursor::new(bytes));
    decoder.set_transformations(Transformations::normalize_to_color8() | Transformations::ALPHA);
    let mut reader = decoder.read_info()?;
    let (width, height) = (reader.info().width, reader.info().height);
    let size = reader
        .output_buffer_size()
        .filter(|_| u64::from(width) * u64::from(height) <= MAX_PIXELS)
        .ok_or_else(|| format!("{width} × {height} pixels are too many"))?;
    let mut pixels = vec![0; size];
    let frame = reader.next_frame(&mut pixels)?;
    pixels.truncate(frame.buffer_size());
    let rgba = match frame.color_type {
        ColorType::GrayscaleAlpha => {
            pixels.chunks_exact(2).flat_map(|p| [p[0], p[0], p[0], p[1]]).collect()
        }
        _ => pixels,
    };
    Ok((width, height, rgba))
}

fn from_jpeg(bytes: &[u8]) -> Decoded {
    Ok(jpeg::decode(bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Eight by eight pixels of the grey level 200.
    const JPEG: &str = "ffd8ffe000104a46494600010100000100010000ffdb00430006040506050406060506070706080a100a0a09090a140e0f0c1017141818171416161a1d251f1a1b231c1616202c20232627292a29191f2d302d283025282928ffc0000b080008000801011100ffc40014000100000000000000000000000000000007ffc40014100100000000000000000000000000000000ffda0008010100003f00607fffd9";

    fn encoded(colour: ColorType, pixels: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, 2, 1);
        encoder.set_color(colour);
        encoder.write_header().unwrap().write_image_data(pixels).unwrap();
        bytes
    }

    #[test]
    fn every_kind_of_png_becomes_four_channels() {
        let of = |colour, pixels: &[u8]| from_png(&encoded(colour, pixels)).unwrap();
        assert_eq!(of(ColorType::Grayscale, &[7, 9]), (2, 1, vec![7, 7, 7, 255, 9, 9, 9, 255]));
        assert_eq!(of(ColorType::GrayscaleAlpha, &[7, 1, 9, 2]).2, [7, 7, 7, 1, 9, 9, 9, 2]);
        assert_eq!(of(ColorType::Rgb, &[1, 2, 3, 4, 5, 6]).2, [1, 2, 3, 255, 4, 5, 6, 255]);
        assert_eq!(of(ColorType::Rgba, &[1, 2, 3, 4, 5, 6, 7, 8]).2, [1, 2, 3, 4, 5, 6, 7, 8]);
    }

    #[test]
    fn a_small_file_that_claims_a_large_picture_is_refused() {
        let mut png = encoded(ColorType::Grayscale, &[7, 9]);
        png[16..24].copy_from_slice(&[0, 0, 0xff, 0xff, 0, 0, 0xff, 0xff]);
        assert!(from_png(&png).is_err());
    }

    proptest::proptest! {
        #[test]
        fn damage_never_panics(at: proptest::sample::Index, byte: u8, cut: proptest::sample::Index) {
            let png = encoded(ColorType::Rgba, &[1, 2, 3, 4, 5, 6, 7, 8]);
            for (whole, read) in [(hex::decode(JPEG).unwrap(), from_jpeg as fn(&[u8]) -> Decoded), (png, from_png)] {
                let mut bytes = whole.clone();
                bytes[at.index(whole.len())] = byte;
                let _ = read(&bytes);
                let _ = read(&whole[..cut.index(whole.len())]);
            }
        }
    }

    #[test]
    fn a_jpeg_is_read_and_damage_is_refused() {
        let (width, height, rgba) = from_jpeg(&hex::decode(JPEG).unwrap()).unwrap();
        assert_eq!((width, height, rgba.len()), (8, 8, 256));
        assert!(rgba.chunks(4).all(|p| p[0].abs_diff(200) <= 2 && p[0] == p[2] && p[3] == 255));
        let folder = tempfile::tempdir().unwrap();
        let png = encoded(ColorType::Grayscale, &[7, 9]);
        for (name, bytes) in [("a.png", &png[..30]), ("b.jpg", b"text"), ("c.jpg", b"")] {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            let refused = open(&path).unwrap_err().to_string();
            assert!(refused.contains(name) && refused.contains("no readable PNG"), "{refused}");
        }
    }
}
