//! How blurred a picture is: how little of its local variation a further blur takes away.

use crate::preprocessing::Plane;

/// Length of the averaging filter, in pixels.
const FILTER: usize = 11;

/// The blur effect of Crété et al. 2007, 0 (sharp) to 1, in the variant of scikit-image: variation is measured by the
/// Sobel filter, and of the two directions the more blurred one counts. 0 for a picture without variation or with a
/// side below four pixels.
pub(super) fn blur(plane: &Plane) -> f64 {
    if plane.width < 4 || plane.height < 4 {
        return 0.0;
    }
    let turned = turned(plane);
    across(plane).max(across(&turned))
}

/// The share of the horizontal variation that an average along the rows leaves.
fn across(plane: &Plane) -> f64 {
    let (width, height) = (plane.width, plane.height);
    let smooth: Vec<f32> = plane.pixels.chunks_exact(width).flat_map(averaged).collect();
    let (mut before, mut lost) = (0.0, 0.0);
    for y in 2..height - 1 {
        let variation = |pixels: &[f32], x: usize| {
            let slope = |y: usize| {
                f64::from(pixels[y * width + x + 1]) - f64::from(pixels[y * width + x - 1])
            };
            (slope(y - 1) + 2.0 * slope(y) + slope(y + 1)).abs()
        };
        for x in 2..width - 1 {
            let own = variation(&plane.pixels, x);
            before += own;
            lost += (own - variation(&smooth, x)).max(0.0);
        }
    }
    if before > 0.0 { (before - lost) / before } else { 0.0 }
}

/// The running mean over [`FILTER`] pixels; the row is mirrored at its ends.
fn averaged(row: &[f32]) -> Vec<f32> {
    let (n, half) = (row.len() as isize, (FILTER / 2) as isize);
    let at = |i: isize| {
        let i = i.rem_euclid(2 * n);
        f64::from(row[if i < n { i } else { 2 * n - 1 - i } as usize])
    };
    let mut sum: f64 = (-half..=half).map(at).sum();
    (0..n)
        .map(|i| {
            let mean = (sum / FILTER as f64) as f32;
            sum += at(i + half + 1) - at(i - half);
            mean
        })
        .collect()
}

fn turned(plane: &Plane) -> Plane {
    let column = |x: usize| (0..plane.height).map(move |y| plane.pixels[y * plane.width + x]);
    Plane {
        width: plane.height,
        height: plane.width,
        pixels: (0..plane.width).flat_map(column).collect(),
    }
}
