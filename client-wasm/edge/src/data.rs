//! Real pictures for simulated devices: idx files, a label-skewed split, and the tilt that is a person's style.

use std::f64::consts::TAU;
use std::io::Read as _;

use backstitch_client::input::Input;
use backstitch_client::random::SplitMix;
use backstitch_protocol::Problem;
use backstitch_protocol::problem::Code;

/// Pictures per device, from and below; as in the simulation that chose the library's parameters.
const PICTURES: (usize, usize) = (40, 61);

/// How people tilt their pictures, in degrees: mean and deviation between people, deviation within one.
const TILT: (f64, f64, f64) = (25.0, 4.0, 2.0);

/// Share of a person's pictures that are not tilted, and their deviation in degrees.
const STRAIGHT: (f64, f64) = (0.25, 3.0);

/// Grey pictures with their classes.
pub struct Pictures {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
    classes: Vec<u8>,
}

/// One labelled picture, pixels in 0..1.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    /// Row-major luminance.
    pub pixels: Vec<f32>,
    /// Its class.
    pub class: usize,
    width: usize,
    height: usize,
}

impl Example {
    /// As the client takes it: shape [1, 1, height, width].
    pub fn input(&self) -> Result<Input, Problem> {
        Input::tensor(vec![1, 1, self.height, self.width], self.pixels.clone())
    }

    /// Turned by `degrees` (positive is anticlockwise as seen), bilinear, black outside.
    pub fn tilted(&self, degrees: f64) -> Self {
        let (sin, cos) = degrees.to_radians().sin_cos();
        let centre = ((self.width as f64 - 1.0) / 2.0, (self.height as f64 - 1.0) / 2.0);
        let mut pixels = Vec::with_capacity(self.pixels.len());
        for row in 0..self.height {
            for column in 0..self.width {
                // Where this pixel comes from: the inverse turn, y pointing down.
                let (x, y) = (column as f64 - centre.0, row as f64 - centre.1);
                pixels
                    .push(self.sample(cos * x - sin * y + centre.0, sin * x + cos * y + centre.1));
            }
        }
        Self { pixels, ..self.clone() }
    }

    fn sample(&self, x: f64, y: f64) -> f32 {
        let (left, top) = (x.floor(), y.floor());
        let (right_share, bottom_share) = (x - left, y - top);
        let pixel = |column: f64, row: f64| {
            let inside = column >= 0.0
                && row >= 0.0
                && column < self.width as f64
                && row < self.height as f64;
            if inside {
                f64::from(self.pixels[row as usize * self.width + column as usize])
            } else {
                0.0
            }
        };
        let upper = pixel(left, top) * (1.0 - right_share) + pixel(left + 1.0, top) * right_share;
        let lower = pixel(left, top + 1.0) * (1.0 - right_share)
            + pixel(left + 1.0, top + 1.0) * right_share;
        (upper * (1.0 - bottom_share) + lower * bottom_share) as f32
    }
}

impl Pictures {
    /// Reads a pair of gzipped idx files (LeCun, Cortes, Burges 1998): images [n, height, width] and labels [n].
    pub fn read(images: &[u8], labels: &[u8]) -> Result<Self, Problem> {
        let (shape, pixels) = read_idx(images)?;
        let (label_shape, classes) = read_idx(labels)?;
        match (shape.as_slice(), label_shape.as_slice()) {
            (&[n, height, width], &[m]) if n == m && n > 0 => {
                Ok(Self { width, height, pixels, classes })
            }
            _ => Err(invalid(format!(
                "images {shape:?} and labels {label_shape:?} do not belong together"
            ))),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.classes.len()
    }

    /// Never, by construction.
    pub fn is_empty(&self) -> bool {
        self.classes.is_empty()
    }

    /// One of them; `index` is below [`Pictures::len`].
    pub fn example(&self, index: usize) -> Example {
        let size = self.width * self.height;
        let pixels = &self.pixels[index * size..(index + 1) * size];
        Example {
            pixels: pixels.iter().map(|p| f32::from(*p) / 255.0).collect(),
            class: usize::from(self.classes[index]),
            width: self.width,
            height: self.height,
        }
    }

    /// The pictures of `people`, each with an own mix of classes (Dirichlet ½, label skew) and an own tilt.
    pub fn people(&self, people: usize, seed: u64) -> Vec<Vec<Example>> {
        let classes = usize::from(self.classes.iter().copied().max().unwrap_or_default()) + 1;
        let mut draws = SplitMix::new(seed);
        let mut members: Vec<Vec<usize>> = vec![Vec::new(); classes];
        self.classes
            .iter()
            .enumerate()
            .for_each(|(index, class)| members[usize::from(*class)].push(index));
        members.iter_mut().for_each(|class| draws.shuffle(class));
        let mut used = vec![0; classes];
        (0..people)
            .map(|_| {
                let mix = mix(classes, &mut draws);
                let tilt = TILT.0 + TILT.1 * normal(&mut draws);
                let count = PICTURES.0 + draws.below(PICTURES.1 - PICTURES.0);
                (0..count)
                    .map(|_| {
                        let class = pick(&mix, draws.uniform());
                        let own = &members[class];
                        let index = own[used[class] % own.len()];
                        used[class] += 1;
                        self.example(index).tilted(angle(tilt, &mut draws))
                    })
                    .collect()
            })
            .collect()
    }
}

fn angle(tilt: f64, draws: &mut SplitMix) -> f64 {
    match draws.uniform() < STRAIGHT.0 {
        true => STRAIGHT.1 * normal(draws),
        false => tilt + TILT.2 * normal(draws),
    }
}

/// Class shares from a symmetric Dirichlet of concentration ½: a Gamma(½) variable is half a squared normal one.
fn mix(classes: usize, draws: &mut SplitMix) -> Vec<f64> {
    let raw: Vec<f64> = (0..classes).map(|_| normal(draws).powi(2) / 2.0).collect();
    let sum: f64 = raw.iter().sum();
    raw.into_iter().map(|share| share / sum).collect()
}

fn pick(shares: &[f64], uniform: f64) -> usize {
    let mut left = uniform;
    for (index, share) in shares.iter().enumerate() {
        left -= share;
        if left < 0.0 {
            return index;
        }
    }
    shares.len() - 1
}

/// A standard normal draw (Box, Muller 1958).
fn normal(draws: &mut SplitMix) -> f64 {
    (-2.0 * (1.0 - draws.uniform()).ln()).sqrt() * (TAU * draws.uniform()).cos()
}

/// The shape and bytes of a gzipped idx file of unsigned bytes.
fn read_idx(gzipped: &[u8]) -> Result<(Vec<usize>, Vec<u8>), Problem> {
    /// A file that claims more is not one of ours.
    const MAX_BYTES: u64 = 256 << 20;
    let mut raw = Vec::new();
    let unzipped = flate2::read::GzDecoder::new(gzipped).take(MAX_BYTES).read_to_end(&mut raw);
    unzipped.map_err(|e| invalid(format!("not a gzipped idx file: {e}")))?;
    let rank = match raw.as_slice() {
        [0, 0, 8, rank, ..] if raw.len() >= 4 + 4 * usize::from(*rank) => usize::from(*rank),
        _ => return Err(invalid("not an idx file of unsigned bytes".to_owned())),
    };
    let (header, body) = raw.split_at(4 + 4 * rank);
    let size = |b: &[u8]| u32::from_be_bytes([b[0], b[1], b[2], b[3]]) as usize;
    let shape: Vec<usize> = header[4..].chunks_exact(4).map(size).collect();
    match shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d)) {
        Some(expected) if expected == body.len() => Ok((shape, body.to_vec())),
        _ => Err(invalid(format!("an idx file of shape {shape:?} with {} bytes", body.len()))),
    }
}

fn invalid(detail: String) -> Problem {
    Problem::new(Code::InputInvalid, detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        out.write_all(bytes).unwrap();
        out.finish().unwrap()
    }

    fn pictures() -> Pictures {
        let mut images = vec![0, 0, 8, 3, 0, 0, 0, 40, 0, 0, 0, 3, 0, 0, 0, 3];
        let mut labels = vec![0, 0, 8, 1, 0, 0, 0, 40];
        for i in 0..40u8 {
            images.extend((0..9).map(|p| p * 28 + i % 4));
            labels.push(i % 4);
        }
        Pictures::read(&gzip(&images), &gzip(&labels)).unwrap()
    }

    #[test]
    fn damaged_files_are_refused() {
        let good = gzip(&[0, 0, 8, 1, 0, 0, 0, 1, 7]);
        for bad in [
            b"no gzip".to_vec(),
            gzip(&[1, 2, 3]),
            gzip(&[0, 0, 8, 1, 0, 0, 0, 9, 7]),
            gzip(&[0, 0, 8, 255]),
        ] {
            assert!(Pictures::read(&bad, &good).is_err());
        }
    }

    #[test]
    fn a_tilt_turns_anticlockwise_and_keeps_the_middle() {
        let example = pictures().example(0);
        let turned = example.tilted(90.0);
        // The right edge becomes the top edge.
        assert!((turned.pixels[0] - example.pixels[2]).abs() < 1e-6);
        assert!((turned.pixels[4] - example.pixels[4]).abs() < 1e-6);
        assert_eq!(example.tilted(0.0), example);
    }

    #[test]
    fn people_differ_in_labels_and_repeat_by_seed() {
        let people = pictures().people(20, 7);
        assert!(people.iter().all(|p| (40..=60).contains(&p.len())));
        let share =
            |p: &Vec<Example>| p.iter().filter(|e| e.class == 0).count() as f64 / p.len() as f64;
        let shares: Vec<f64> = people.iter().map(share).collect();
        assert!(shares.iter().any(|s| *s > 0.5) && shares.iter().any(|s| *s < 0.1), "{shares:?}");
        assert_eq!(people, pictures().people(20, 7));
    }
}
