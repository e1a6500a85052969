//! Features of a picture's luminance. Filters are 3×3 correlations over the valid region, without padding.
//!
//! One pass over the pixels computes all of them; a picture with a side below three pixels has no valid region,
//! and those features are 0.

use std::collections::BTreeMap;

use super::{Description, FeatureVector};
use crate::preprocessing::Plane;

/// Sobel magnitude, as a share of the full range, above which a pixel counts as an edge.
const EDGE_THRESHOLD: f64 = 0.1;

/// What each feature of a picture means.
pub const DESCRIPTIONS: &[Description] = &[
    Description {
        name: "image.noise",
        unit: "luminance, 0 to 1",
        range: "≥ 0",
        about: "Standard deviation of the noise, estimated from a filter that cancels smooth structure.",
        source: "Immerkær 1996, Fast noise variance estimation",
    },
    Description {
        name: "image.contrast",
        unit: "luminance, 0 to 1",
        range: "0 to 0.5",
        about: "RMS contrast: the population standard deviation of the luminance.",
        source: "Peli 1990, Contrast in complex images",
    },
    Description {
        name: "image.brightness",
        unit: "luminance, 0 to 1",
        range: "0 to 1",
        about: "The mean luminance.",
        source: "arithmetic mean",
    },
    Description {
        name: "image.sharpness",
        unit: "luminance², 0 to 1",
        range: "≥ 0",
        about: "The variance of the Laplacian; low where the picture is blurred.",
        source: "Pech-Pacheco et al. 2000, Diatom autofocusing in brightfield microscopy",
    },
    Description {
        name: "image.edge_density",
        unit: "share of pixels",
        range: "0 to 1",
        about: "Pixels whose Sobel magnitude √(gx² + gy²)/4 exceeds 0.1.",
        source: "Sobel, Feldman 1968",
    },
    Description {
        name: "image.orientation",
        unit: "degrees",
        range: "-90 to 90",
        about: "The direction of the strongest brightness change, ½·atan2(2Σgx·gy, Σgx² − Σgy²); y points down.",
        source: "structure tensor: Bigün, Granlund 1987",
    },
];

/// Sums over the valid region.
#[derive(Default)]
struct Sums {
    noise: f64,
    laplacian: f64,
    laplacian_squares: f64,
    edges: u64,
    gx_gx: f64,
    gy_gy: f64,
    gx_gy: f64,
    pixels: f64,
}

pub(super) fn features(plane: &Plane) -> FeatureVector {
    let count = plane.pixels.len() as f64;
    let mean = plane.pixels.iter().map(|p| f64::from(*p)).sum::<f64>() / count;
    let variance = plane.pixels.iter().map(|p| (f64::from(*p) - mean).powi(2)).sum::<f64>() / count;
    let sums = filters(plane);
    let valid = sums.pixels.max(1.0);
    let laplacian_mean = sums.laplacian / valid;
    // Adding 0 turns a negative zero round, so that the range is (−90, 90].
    let across = 2.0 * sums.gx_gy + 0.0;
    let values = [
        ("image.noise", (std::f64::consts::PI / 2.0).sqrt() / (6.0 * valid) * sums.noise),
        ("image.contrast", variance.sqrt()),
        ("image.brightness", mean),
        (
            "image.sharpness",
            (sums.laplacian_squares / valid - laplacian_mean * laplacian_mean).max(0.0),
        ),
        ("image.edge_density", sums.edges as f64 / valid),
        ("image.orientation", (0.5 * across.atan2(sums.gx_gx - sums.gy_gy)).to_degrees()),
    ];
    FeatureVector(values.into_iter().map(|(n, v)| (n.to_owned(), v)).collect::<BTreeMap<_, _>>())
}

fn filters(plane: &Plane) -> Sums {
    let mut sums = Sums::default();
    let (width, height) = (plane.width, plane.height);
    if width < 3 || height < 3 {
        return sums;
    }
    for y in 1..height - 1 {
        let row = |dy: usize| &plane.pixels[(y + dy - 1) * width..][..width];
        let rows = row(0).windows(3).zip(row(1).windows(3)).zip(row(2).windows(3));
        for ((above, here), below) in rows {
            sums.add(&grey(above), &grey(here), &grey(below));
        }
    }
    sums.pixels = ((width - 2) * (height - 2)) as f64;
    sums
}

fn grey(window: &[f32]) -> [f64; 3] {
    [f64::from(window[0]), f64::from(window[1]), f64::from(window[2])]
}

impl Sums {
    #[inline]
    fn add(&mut self, above: &[f64; 3], here: &[f64; 3], below: &[f64; 3]) {
        let corners = above[0] + above[2] + below[0] + below[2];
        let cross = above[1] + here[0] + here[2] + below[1];
        self.noise += (corners - 2.0 * cross + 4.0 * here[1]).abs();
        let laplacian = cross - 4.0 * here[1];
        self.laplacian += laplacian;
        self.laplacian_squares += laplacian * laplacian;
        let gx = (above[2] - above[0]) + 2.0 * (here[2] - here[0]) + (below[2] - below[0]);
        let gy = (below[0] - above[0]) + 2.0 * (below[1] - above[1]) + (below[2] - above[2]);
        self.gx_gx += gx * gx;
        self.gy_gy += gy * gy;
        self.gx_gy += gx * gy;
        let threshold = 4.0 * EDGE_THRESHOLD;
        self.edges += u64::from(gx * gx + gy * gy > threshold * threshold);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plane(width: usize, height: usize, f: impl Fn(usize, usize) -> f32) -> Plane {
        let pixels =
            (0..height).flat_map(|y| (0..width).map(move |x| (x, y))).map(|(x, y)| f(x, y));
        Plane { width, height, pixels: pixels.collect() }
    }

    fn check(plane: &Plane, expected: [f64; 6]) {
        let found = features(plane);
        for (description, expected) in DESCRIPTIONS.iter().zip(expected) {
            let value = found.value(description.name).unwrap();
            assert!(
                (value - expected).abs() < 1e-6,
                "{}: {value}, not {expected}",
                description.name
            );
        }
    }

    #[test]
    fn a_flat_picture_has_only_brightness() {
        check(&plane(8, 6, |_, _| 0.5), [0.0, 0.0, 0.5, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn a_ramp_points_along_its_change() {
        // gx = 8 · 1/9, so the magnitude is 0.222: all edges. σ of 0, 1/9 … 1 is √(99/12)/9.
        let contrast = (99.0f64 / 12.0).sqrt() / 9.0;
        check(&plane(10, 5, |x, _| x as f32 / 9.0), [0.0, contrast, 0.5, 0.0, 1.0, 0.0]);
        check(&plane(5, 10, |_, y| y as f32 / 9.0), [0.0, contrast, 0.5, 0.0, 1.0, 90.0]);
    }

    #[test]
    fn tiny_pictures_do_not_fail() {
        for (w, h) in [(1, 1), (2, 9), (9, 2)] {
            assert!(features(&plane(w, h, |_, _| 1.0)).0.values().all(|v| v.is_finite()));
        }
    }

    #[test]
    fn gaussian_noise_is_estimated_within_a_tenth() {
        let mut draws = crate::random::SplitMix::new(3);
        let mut noise = || (0..12).map(|_| draws.uniform()).sum::<f64>() - 6.0;
        let pixels = (0..128 * 128).map(|_| (0.5 + 0.1 * noise()) as f32).collect();
        let found = features(&Plane { width: 128, height: 128, pixels });
        assert!((found.value("image.noise").unwrap() - 0.1).abs() < 0.01);
    }
}
