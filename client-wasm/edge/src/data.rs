//! Labelled grey pictures from gzipped idx files, as the MNIST family is published.

use std::io::Read as _;

use backstitch_protocol::Problem;
use backstitch_protocol::problem::Code;
use flate2::read::GzDecoder;

/// Most bytes of an unpacked file.
const UNPACKED: u64 = 512 << 20;

/// Pictures of one size with a class each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pictures {
    /// Pixels across.
    pub width: usize,
    /// Pixels down.
    pub height: usize,
    pixels: Vec<u8>,
    labels: Vec<u8>,
}

impl Pictures {
    /// Reads `*-images-idx3-ubyte.gz` and `*-labels-idx1-ubyte.gz`.
    pub fn read(images: &[u8], labels: &[u8]) -> Result<Self, Problem> {
        let (dims, pixels) = idx(images)?;
        let (label_dims, labels) = idx(labels)?;
        match (dims.as_slice(), label_dims.as_slice()) {
            (&[count, height, width], &[label_count])
                if count == label_count && width * height > 0 =>
            {
                Ok(Self { width, height, pixels, labels })
            }
            _ => Err(bad(format!(
                "pictures {dims:?} and labels {label_dims:?} do not belong together"
            ))),
        }
    }

    /// The first ones and the rest.
    pub fn split(mut self, first: usize) -> (Self, Self) {
        let first = first.min(self.labels.len());
        let labels = self.labels.split_off(first);
        let pixels = self.pixels.split_off(first * self.width * self.height);
        let rest = Self { width: self.width, height: self.height, pixels, labels };
        (self, rest)
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The classes, in order.
    pub fn labels(&self) -> &[u8] {
        &self.labels
    }

    /// One picture as luminance, 0 to 1.
    pub fn luminance(&self, index: usize) -> Vec<f32> {
        let size = self.width * self.height;
        self.pixels[index * size..][..size].iter().map(|p| f32::from(*p) / 255.0).collect()
    }
}

/// Dimensions and values of a gzipped idx file of unsigned bytes: `00 00 08 rank`, big-endian dimensions, values.
fn idx(packed: &[u8]) -> Result<(Vec<usize>, Vec<u8>), Problem> {
    let mut bytes = Vec::new();
    let mut unpacked = GzDecoder::new(packed).take(UNPACKED + 1);
    unpacked.read_to_end(&mut bytes).map_err(|e| bad(format!("not gzip: {e}")))?;
    let Some(([0, 0, 8, rank], rest)) = bytes.split_first_chunk::<4>() else {
        return Err(bad("not an idx file of unsigned bytes".to_owned()));
    };
    let Some((header, values)) = rest.split_at_checked(4 * usize::from(*rank)) else {
        return Err(bad("the idx file ends in its header".to_owned()));
    };
    let dims: Vec<usize> = header
        .chunks_exact(4)
        .map(|d| u32::from_be_bytes([d[0], d[1], d[2], d[3]]) as usize)
        .collect();
    let count = dims.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
    match count == Some(values.len()) {
        true => Ok((dims, values.to_vec())),
        false => Err(bad(format!("an idx file of {dims:?} has {} values", values.len()))),
    }
}

fn bad(detail: String) -> Problem {
    Problem::new(Code::InputInvalid, detail)
        .with_hint("expected the gzipped idx files of an MNIST-like data set")
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn pack(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn files_are_read_and_bad_ones_refused() {
        let images = pack(&[0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2, 0, 51, 255, 0]);
        let labels = pack(&[0, 0, 8, 1, 0, 0, 0, 2, 7, 9]);
        let pictures = Pictures::read(&images, &labels).unwrap();
        assert_eq!((pictures.len(), pictures.width, pictures.labels()), (2, 2, [7, 9].as_slice()));
        assert_eq!(pictures.luminance(0), [0.0, 0.2]);
        let short = pack(&[0, 0, 8, 1, 0, 0, 0, 3, 7, 9]);
        for bad in [b"plain".to_vec(), pack(b""), pack(&[0, 0, 8, 200, 0]), short, images.clone()] {
            assert!(Pictures::read(&images, &bad).unwrap_err().is(Code::InputInvalid));
        }
    }
}
