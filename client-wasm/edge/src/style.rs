//! How a device's pictures differ from others': they are tilted in the user's own way, and some are noisy.

use backstitch_client::random::SplitMix;

use crate::sampling::normal;

/// Mean tilt over people, in degrees.
const TILT: f64 = 25.0;

/// Standard deviation of the tilt between people, in degrees.
const TILT_BETWEEN: f64 = 4.0;

/// Standard deviation of the tilt between the pictures of one person, in degrees.
const TILT_WITHIN: f64 = 2.0;

/// Share of pictures that are straight, so that the shared patch does not unlearn these.
const STRAIGHT: f64 = 0.25;

/// One person's style.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Style {
    /// Degrees, anticlockwise as seen.
    pub tilt: f64,
}

impl Style {
    /// Draws a person.
    pub fn draw(draws: &mut SplitMix) -> Self {
        Self { tilt: TILT + TILT_BETWEEN * normal(draws) }
    }

    /// Draws the degrees by which one of this person's pictures is turned; 0 for a straight one.
    pub fn degrees(&self, draws: &mut SplitMix) -> f64 {
        match draws.uniform() < STRAIGHT {
            true => 0.0,
            false => self.tilt + TILT_WITHIN * normal(draws),
        }
    }
}

/// Turns a picture by degrees (anticlockwise as seen), bilinear, black outside. The same as PyTorch's `affine_grid`
/// and `grid_sample` with `align_corners=False`.
pub fn tilted(pixels: &[f32], width: usize, height: usize, degrees: f64) -> Vec<f32> {
    let (sin, cos) = degrees.to_radians().sin_cos();
    let (w, h) = (width as f64, height as f64);
    let at =
        |x: i64, y: i64| match (0..width as i64).contains(&x) && (0..height as i64).contains(&y) {
            true => f64::from(pixels[y as usize * width + x as usize]),
            false => 0.0,
        };
    let mut out = Vec::with_capacity(pixels.len());
    for row in 0..height {
        for column in 0..width {
            // Normalised coordinates, −1 to 1 from edge to edge; y points down.
            let (x, y) =
                ((2.0 * column as f64 + 1.0) / w - 1.0, (2.0 * row as f64 + 1.0) / h - 1.0);
            let source_x = ((cos * x - sin * y + 1.0) * w - 1.0) / 2.0;
            let source_y = ((sin * x + cos * y + 1.0) * h - 1.0) / 2.0;
            let (left, top) = (source_x.floor(), source_y.floor());
            let (right_share, bottom_share) = (source_x - left, source_y - top);
            let (left, top) = (left as i64, top as i64);
            let above = at(left, top) * (1.0 - right_share) + at(left + 1, top) * right_share;
            let below =
                at(left, top + 1) * (1.0 - right_share) + at(left + 1, top + 1) * right_share;
            out.push((above * (1.0 - bottom_share) + below * bottom_share) as f32);
        }
    }
    out
}

/// Gaussian blur of this standard deviation in pixels, mirrored at the border; the kernel ends at three deviations.
pub fn blurred(pixels: &[f32], width: usize, height: usize, sigma: f64) -> Vec<f32> {
    if sigma <= 0.0 {
        return pixels.to_vec();
    }
    let radius = (3.0 * sigma).ceil() as i64;
    let weights: Vec<f64> =
        (-radius..=radius).map(|i| (-0.5 * (i as f64 / sigma).powi(2)).exp()).collect();
    let total: f64 = weights.iter().sum();
    // Mirrored at the outermost pixel, which is not repeated.
    let mirrored = |at: i64, size: usize| {
        let period = 2 * (size as i64 - 1).max(1);
        let at = at.rem_euclid(period);
        if size == 1 { 0 } else { at.min(period - at) as usize }
    };
    let along = |from: &[f32], step: &dyn Fn(usize, usize, i64) -> usize| -> Vec<f32> {
        (0..width * height)
            .map(|index| {
                let (x, y) = (index % width, index / width);
                let taps = (-radius..=radius).zip(&weights);
                let sum: f64 = taps.map(|(i, w)| w * f64::from(from[step(x, y, i)])).sum();
                (sum / total) as f32
            })
            .collect()
    };
    let rows = along(pixels, &|x, y, i| y * width + mirrored(x as i64 + i, width));
    along(&rows, &|x, y, i| mirrored(y as i64 + i, height) * width + x)
}

/// Adds Gaussian noise of this standard deviation and clips to 0..1, as a camera does.
pub fn noisy(pixels: &[f32], sigma: f64, draws: &mut SplitMix) -> Vec<f32> {
    pixels.iter().map(|p| (f64::from(*p) + sigma * normal(draws)).clamp(0.0, 1.0) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turning_by_quarters_moves_pixels_exactly() {
        let picture = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0];
        let check = |degrees: f64, expected: [f32; 9]| {
            for (got, want) in tilted(&picture, 3, 3, degrees).iter().zip(expected) {
                assert!((got - want).abs() < 1e-5, "{degrees}: {got}, not {want}");
            }
        };
        check(0.0, picture);
        // Anticlockwise: the right column becomes the top row.
        check(90.0, [3.0, 6.0, 9.0, 2.0, 5.0, 8.0, 1.0, 4.0, 7.0]);
        check(180.0, [9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0]);
    }

    #[test]
    fn blur_spreads_light_and_keeps_its_sum() {
        let mut point = [0.0f32; 81];
        point[40] = 1.0;
        let spread = blurred(&point, 9, 9, 1.0);
        assert!((spread.iter().sum::<f32>() - 1.0).abs() < 1e-5);
        // The centre of a Gaussian of deviation one, cut at three: (1 / 2.5051)².
        assert!((spread[40] - 0.15935).abs() < 1e-3, "{}", spread[40]);
        assert!((spread[41] / spread[40] - (-0.5f32).exp()).abs() < 1e-4);
        assert_eq!(blurred(&point, 9, 9, 0.0), point);
        assert!(blurred(&[0.25; 3], 1, 3, 5.0).iter().all(|p| (p - 0.25).abs() < 1e-6));
    }

    #[test]
    fn corners_go_black_and_nothing_brightens() {
        let turned = tilted(&[1.0; 784], 28, 28, 45.0);
        assert_eq!(turned[0], 0.0);
        assert!((turned[14 * 28 + 14] - 1.0).abs() < 1e-6);
        assert!(turned.iter().all(|p| (0.0..=1.0 + 1e-6).contains(p)));
    }
}
