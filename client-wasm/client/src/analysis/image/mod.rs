//! Features of a picture's luminance and colours. Filters are 3×3 correlations over the valid region, without padding.
//!
//! A picture with a side below three pixels has no valid region, and those features are 0. A model that takes
//! luminance alone sees no colours, and its pictures have no features of colour.

mod blur;
mod colour;

use super::{Description, FeatureVector, Picture};
use crate::preprocessing::Plane;
use colour::Cell;

/// Sobel magnitude, as a share of the full range, above which a pixel counts as an edge.
const EDGE_THRESHOLD: f64 = 0.1;

const PALETTE: &str = "colour histogram: Swain, Ballard 1991, Color indexing";

/// What each feature of a picture means.
pub(super) const DESCRIPTIONS: &[Description] = &[
    Description {
        name: "image.noise",
        label: "noise",
        unit: "luminance, 0 to 1",
        range: "≥ 0",
        about: "Standard deviation of the noise, estimated from a filter that cancels smooth structure.",
        source: "Immerkær 1996, Fast noise variance estimation",
    },
    Description {
        name: "image.contrast",
        label: "contrast",
        unit: "luminance, 0 to 1",
        range: "0 to 0.5",
        about: "RMS contrast: the population standard deviation of the luminance.",
        source: "Peli 1990, Contrast in complex images",
    },
    Description {
        name: "image.brightness",
        label: "brightness",
        unit: "luminance, 0 to 1",
        range: "0 to 1",
        about: "The mean luminance.",
        source: "arithmetic mean",
    },
    Description {
        name: "image.sharpness",
        label: "fine detail",
        unit: "luminance², 0 to 1",
        range: "≥ 0",
        about: "The variance of the Laplacian; low where the picture is blurred.",
        source: "Pech-Pacheco et al. 2000, Diatom autofocusing in brightfield microscopy",
    },
    Description {
        name: "image.blur",
        label: "looks blurred",
        unit: "share of variation",
        range: "0 to 1",
        about: "How little of its local variation a further blur takes away: 0 is sharp, 1 is blurred.",
        source: "Crété et al. 2007, The blur effect",
    },
    Description {
        name: "image.edge_density",
        label: "edges",
        unit: "share of pixels",
        range: "0 to 1",
        about: "Pixels whose Sobel magnitude √(gx² + gy²)/4 exceeds 0.1.",
        source: "Sobel, Feldman 1968",
    },
    Description {
        name: "image.orientation",
        label: "direction of the strongest change",
        unit: "degrees",
        range: "-90 to 90",
        about: "The direction of the strongest brightness change, ½·atan2(2Σgx·gy, Σgx² − Σgy²); y points down.",
        source: "structure tensor: Bigün, Granlund 1987",
    },
    Description {
        name: "image.alignment",
        label: "stands upright",
        unit: "share of squared gradients",
        range: "-1 to 1",
        about: "How much brightness changes along rows and columns: 1 for an upright grid, −1 for one turned by 45°, Σ‖g‖²·cos 4θ / Σ‖g‖².",
        source: "symmetry of order four: Bigün 1988, Recognition by symmetry derivatives",
    },
    Description {
        name: "image.slant",
        label: "stands askew",
        unit: "share of squared gradients",
        range: "0 to 1",
        about: "How much brightness changes along a grid that is turned, but not by 45°: the size of Σ‖g‖²·sin 4θ / Σ‖g‖².",
        source: "symmetry of order four: Bigün 1988, Recognition by symmetry derivatives",
    },
    Description {
        name: "image.saturation",
        label: "saturation",
        unit: "HSV saturation",
        range: "0 to 1",
        about: "The mean of (max − min)/max over red, green and blue.",
        source: "Smith 1978, Color gamut transform pairs",
    },
    Description {
        name: "image.colourfulness",
        label: "colourfulness",
        unit: "level, 0 to 1",
        range: "≥ 0",
        about: "√(σ²rg + σ²yb) + 0.3·√(μ²rg + μ²yb) of the opponent colours; grey is 0.",
        source: "Hasler, Süsstrunk 2003, Measuring colourfulness in natural images",
    },
    Description {
        name: "image.dominant_share",
        label: "share of the main colour",
        unit: "share of pixels",
        range: "0 to 1",
        about: "Pixels in the fullest cell of a palette of 4 × 4 × 4 colours.",
        source: PALETTE,
    },
    Description {
        name: "image.dominant_red",
        label: "red of the main colour",
        unit: "level, 0 to 1",
        range: "0 to 1",
        about: "The mean red of the pixels in the fullest cell.",
        source: PALETTE,
    },
    Description {
        name: "image.dominant_green",
        label: "green of the main colour",
        unit: "level, 0 to 1",
        range: "0 to 1",
        about: "The mean green of the pixels in the fullest cell.",
        source: PALETTE,
    },
    Description {
        name: "image.dominant_blue",
        label: "blue of the main colour",
        unit: "level, 0 to 1",
        range: "0 to 1",
        about: "The mean blue of the pixels in the fullest cell.",
        source: PALETTE,
    },
    Description {
        name: "image.second_share",
        label: "share of the second colour",
        unit: "share of pixels",
        range: "0 to 1",
        about: "Pixels in the second fullest cell of a palette of 4 × 4 × 4 colours.",
        source: PALETTE,
    },
    Description {
        name: "image.second_red",
        label: "red of the second colour",
        unit: "level, 0 to 1",
        range: "0 to 1",
        about: "The mean red of the pixels in the second fullest cell.",
        source: PALETTE,
    },
    Description {
        name: "image.second_green",
        label: "green of the second colour",
        unit: "level, 0 to 1",
        range: "0 to 1",
        about: "The mean green of the pixels in the second fullest cell.",
        source: PALETTE,
    },
    Description {
        name: "image.second_blue",
        label: "blue of the second colour",
        unit: "level, 0 to 1",
        range: "0 to 1",
        about: "The mean blue of the pixels in the second fullest cell.",
        source: PALETTE,
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
    /// Real and imaginary part of g⁴ / |g|², the gradient as a complex number.
    fourfold: (f64, f64),
    pixels: f64,
}

pub(super) fn features(picture: &Picture) -> FeatureVector {
    let mut features = luminance(&picture.luminance);
    let Some(planes) = &picture.colours else { return features };
    let colour::Colours { saturation, colourfulness, fullest } = colour::colours(planes);
    let mut set = |name: &str, value: f64| {
        features.0.insert(name.to_owned(), value);
    };
    set("image.saturation", saturation);
    set("image.colourfulness", colourfulness);
    for (rank, Cell { share, mean }) in ["dominant", "second"].iter().zip(fullest) {
        set(&format!("image.{rank}_share"), share);
        for (channel, level) in ["red", "green", "blue"].iter().zip(mean) {
            set(&format!("image.{rank}_{channel}"), level);
        }
    }
    features
}

fn luminance(plane: &Plane) -> FeatureVector {
    let count = plane.pixels.len() as f64;
    let mean = plane.pixels.iter().map(|p| f64::from(*p)).sum::<f64>() / count;
    let variance = plane.pixels.iter().map(|p| (f64::from(*p) - mean).powi(2)).sum::<f64>() / count;
    let sums = filters(plane);
    let valid = sums.pixels.max(1.0);
    let laplacian_mean = sums.laplacian / valid;
    let energy = (sums.gx_gx + sums.gy_gy).max(f64::MIN_POSITIVE);
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
        ("image.blur", blur::blur(plane)),
        ("image.edge_density", sums.edges as f64 / valid),
        ("image.orientation", (0.5 * across.atan2(sums.gx_gx - sums.gy_gy)).to_degrees()),
        ("image.alignment", sums.fourfold.0 / energy),
        ("image.slant", sums.fourfold.1.abs() / energy),
    ];
    FeatureVector(values.into_iter().map(|(n, v)| (n.to_owned(), v)).collect())
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
        let (square, twice) = (gx * gx - gy * gy, 2.0 * gx * gy);
        let magnitude = gx * gx + gy * gy;
        if magnitude > 0.0 {
            self.fourfold.0 += (square * square - twice * twice) / magnitude;
            self.fourfold.1 += 2.0 * square * twice / magnitude;
        }
        let threshold = 4.0 * EDGE_THRESHOLD;
        self.edges += u64::from(magnitude > threshold * threshold);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::analysis::analyse;
    use crate::input::Input;
    use crate::preprocessing::Preprocessing;

    fn plane(width: usize, height: usize, f: impl Fn(usize, usize) -> f32) -> Plane {
        let pixels =
            (0..height).flat_map(|y| (0..width).map(move |x| (x, y))).map(|(x, y)| f(x, y));
        Plane { width, height, pixels: pixels.collect() }
    }

    /// Without the blur, which a formula on paper does not give.
    fn check(plane: &Plane, expected: [f64; 8]) {
        let found = luminance(plane);
        let names = DESCRIPTIONS.iter().map(|d| d.name).filter(|name| *name != "image.blur");
        for (name, expected) in names.zip(expected) {
            let value = found.value(name).unwrap();
            assert!((value - expected).abs() < 1e-6, "{name}: {value}, not {expected}");
        }
    }

    #[test]
    fn a_flat_picture_has_only_brightness() {
        check(&plane(8, 6, |_, _| 0.5), [0.0, 0.0, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn a_ramp_points_along_its_change() {
        // gx = 8 · 1/9, so the magnitude is 0.222: all edges. σ of 0, 1/9 … 1 is √(99/12)/9.
        let contrast = (99.0f64 / 12.0).sqrt() / 9.0;
        let expected = |angle| [0.0, contrast, 0.5, 0.0, 1.0, angle, 1.0, 0.0];
        check(&plane(10, 5, |x, _| x as f32 / 9.0), expected(0.0));
        check(&plane(5, 10, |_, y| y as f32 / 9.0), expected(90.0));
    }

    #[test]
    fn a_turned_grid_is_slanted_and_a_diagonal_one_is_not_aligned() {
        let turned = |degrees: f64| {
            let (sin, cos) = degrees.to_radians().sin_cos();
            let ramp = move |x: usize, y: usize| (0.05 * (cos * x as f64 + sin * y as f64)) as f32;
            let found = luminance(&plane(9, 9, ramp));
            (found.value("image.alignment").unwrap(), found.value("image.slant").unwrap())
        };
        for (degrees, alignment, slant) in
            [(0.0, 1.0, 0.0), (22.5, 0.0, 1.0), (45.0, -1.0, 0.0), (-22.5, 0.0, 1.0)]
        {
            let (a, s) = turned(degrees);
            assert!((a - alignment).abs() < 1e-4 && (s - slant).abs() < 1e-4, "{degrees}: {a} {s}");
        }
    }

    #[derive(serde::Deserialize)]
    struct Case {
        name: String,
        width: usize,
        height: usize,
        rgb: String,
        features: FeatureVector,
    }

    #[test]
    fn features_are_those_of_opencv_and_scikit_image() {
        let cases: Vec<Case> =
            serde_json::from_str(include_str!("../../../tests/golden/image.json")).unwrap();
        assert_eq!(cases.len(), 5);
        for case in cases {
            let bytes = hex::decode(case.rgb).unwrap();
            let rgba = bytes.chunks_exact(3).flat_map(|p| [p[0], p[1], p[2], 255]).collect();
            let input = Input::image(case.width as u32, case.height as u32, rgba).unwrap();
            let json = json!({"width": case.width, "height": case.height, "channels": 3});
            let preprocessing = Preprocessing::from_json(&json).unwrap();
            let found = analyse(&preprocessing.subject(&input).unwrap());
            assert_eq!(found.0.len(), DESCRIPTIONS.len());
            for description in DESCRIPTIONS {
                let name = description.name;
                let (value, expected) =
                    (found.value(name).unwrap(), case.features.value(name).unwrap());
                // Levels are kept in f32.
                let close = (value - expected).abs() <= 2e-6 + 2e-5 * expected.abs();
                assert!(close, "{}: {name} is {value}, not {expected}", case.name);
            }
        }
    }

    #[test]
    fn tiny_pictures_do_not_fail() {
        for (w, h) in [(1, 1), (2, 9), (9, 2)] {
            assert!(luminance(&plane(w, h, |_, _| 1.0)).0.values().all(|v| v.is_finite()));
        }
    }

    #[test]
    fn gaussian_noise_is_estimated_within_a_tenth() {
        let mut draws = crate::random::SplitMix::new(3);
        let mut noise = || (0..12).map(|_| draws.uniform()).sum::<f64>() - 6.0;
        let pixels = (0..128 * 128).map(|_| (0.5 + 0.1 * noise()) as f32).collect();
        let found = luminance(&Plane { width: 128, height: 128, pixels });
        assert!((found.value("image.noise").unwrap() - 0.1).abs() < 0.01);
    }
}
