//! The rule of Resize. Along each axis a resize is a fixed linear map `W` of output by input samples; the gradient is
//! multiplied by `Wᵀ`, axis by axis, so one rule serves nearest, linear and cubic interpolation.

use super::builder::Builder;
use super::unsupported;
use crate::error::Result;
use crate::model::Node;

/// Most entries of the matrix of one axis, which stands in the gradient's file.
const MATRIX: usize = 1 << 24;

pub(super) fn resize(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let x = node.input(0).unwrap_or_default();
    let (from, to) = (b.shape(x), b.shape(dy));
    let rule = Sampling::read(node)?;
    let scales = scales(b, node, &from, &to)?;
    let mut gradient = dy.to_owned();
    for axis in (0..from.len()).rev() {
        if from[axis] == to[axis] && scales[axis] == 1.0 {
            continue;
        }
        if !(1..=MATRIX).contains(&from[axis].saturating_mul(to[axis])) {
            let sizes = format!("axis {axis} from {} to {} samples", from[axis], to[axis]);
            return Err(unsupported(node, &sizes, "resize between smaller, not empty extents"));
        }
        let weights = rule.weights(from[axis], to[axis], scales[axis]);
        gradient = apply(b, &gradient, axis, &weights, from[axis], to[axis]);
    }
    b.give(node, 0, &gradient);
    Ok(())
}

/// Output samples per input sample of each axis: as given, else the ratio of the extents.
fn scales(b: &mut Builder, node: &Node, from: &[usize], to: &[usize]) -> Result<Vec<f64>> {
    let ratios: Vec<f64> = from.iter().zip(to).map(|(f, t)| *t as f64 / *f as f64).collect();
    let given = match b.static_tensor(node, 2)? {
        Some(tensor) => tensor.to_f64()?,
        None => Vec::new(),
    };
    if given.is_empty() {
        return Ok(ratios);
    }
    let mut scales = vec![1.0; from.len()];
    match node.ints("axes") {
        Some(axes) => axes
            .iter()
            .zip(given)
            .for_each(|(axis, s)| scales[super::layout::axis(*axis, from.len())] = s),
        None => scales = given,
    }
    Ok(scales)
}

/// Multiplies one axis by the transpose of a weight matrix `[to, from]`.
fn apply(
    b: &mut Builder,
    dy: &str,
    axis: usize,
    weights: &[f64],
    from: usize,
    to: usize,
) -> String {
    let mut shape = b.shape(dy);
    let outer: usize = shape[..axis].iter().product();
    let inner: usize = shape[axis + 1..].iter().product();
    shape[axis] = from;
    let product = if inner == 1 {
        let rows = b.reshape(dy, &[outer, to]);
        let matrix = b.floats(dy, weights, &[to, from]);
        b.matmul(&rows, &matrix)
    } else {
        let rows = b.reshape(dy, &[outer, to, inner]);
        let turned: Vec<f64> = (0..from * to).map(|i| weights[i % to * from + i / to]).collect();
        let matrix = b.floats(dy, &turned, &[from, to]);
        b.matmul(&matrix, &rows)
    };
    b.reshape(&product, &shape)
}

/// Where an output sample reads, and with which weights; the formulas are those of the ONNX specification of Resize.
struct Sampling {
    mode: String,
    coordinates: String,
    rounding: String,
    cubic: f64,
    exclude_outside: bool,
}

impl Sampling {
    fn read(node: &Node) -> Result<Self> {
        let rule = Self {
            mode: node.string("mode", "nearest").to_owned(),
            coordinates: node.string("coordinate_transformation_mode", "half_pixel").to_owned(),
            rounding: node.string("nearest_mode", "round_prefer_floor").to_owned(),
            cubic: f64::from(node.float("cubic_coeff_a", -0.75)),
            exclude_outside: node.int("exclude_outside", 0) != 0,
        };
        if node.int("antialias", 0) != 0 {
            return Err(unsupported(node, "antialias", "resize without antialias"));
        }
        match rule.coordinates.as_str() {
            "half_pixel"
            | "pytorch_half_pixel"
            | "align_corners"
            | "asymmetric"
            | "half_pixel_symmetric" => Ok(rule),
            other => Err(unsupported(
                node,
                &format!("coordinate mode `{other}`"),
                "use half_pixel or align_corners",
            )),
        }
    }

    /// The matrix `[to, from]` of one axis.
    fn weights(&self, from: usize, to: usize, scale: f64) -> Vec<f64> {
        let mut matrix = vec![0.0; from * to];
        for (sample, row) in matrix.chunks_exact_mut(from).enumerate() {
            let place = self.place(sample as f64, from as f64, to as f64, scale);
            for (position, weight) in self.taps(place, from as i64) {
                row[position.clamp(0, from as i64 - 1) as usize] += weight;
            }
        }
        matrix
    }

    fn place(&self, sample: f64, from: f64, to: f64, scale: f64) -> f64 {
        match self.coordinates.as_str() {
            "asymmetric" => sample / scale,
            "align_corners" if to > 1.0 => sample * (from - 1.0) / (to - 1.0),
            "align_corners" => 0.0,
            "pytorch_half_pixel" if to <= 1.0 => 0.0,
            "half_pixel_symmetric" => {
                let adjustment = to / (scale * from);
                from / 2.0 * (1.0 - adjustment) + (sample + 0.5) / scale - 0.5
            }
            _ => (sample + 0.5) / scale - 0.5,
        }
    }

    fn taps(&self, place: f64, from: i64) -> Vec<(i64, f64)> {
        let low = place.floor();
        let rest = place - low;
        let low = low as i64;
        match self.mode.as_str() {
            "linear" => {
                // Places beyond the border read the border sample alone.
                vec![(low, 1.0 - rest), (low + 1, rest)]
            }
            "cubic" => self.cubic_taps(low, rest, from),
            _ => {
                let nearest = match self.rounding.as_str() {
                    "floor" => place.floor(),
                    "ceil" => place.ceil(),
                    "round_prefer_ceil" => (place + 0.5).floor(),
                    _ => (place - 0.5).ceil(),
                };
                vec![(nearest as i64, 1.0)]
            }
        }
    }

    /// Keys, *Cubic convolution interpolation for digital image processing*, 1981.
    fn cubic_taps(&self, low: i64, rest: f64, from: i64) -> Vec<(i64, f64)> {
        let a = self.cubic;
        let near = |t: f64| ((a + 2.0) * t - (a + 3.0)) * t * t + 1.0;
        let far = |t: f64| ((a * t - 5.0 * a) * t + 8.0 * a) * t - 4.0 * a;
        let weights = [far(rest + 1.0), near(rest), near(1.0 - rest), far(2.0 - rest)];
        let mut taps: Vec<(i64, f64)> =
            weights.iter().enumerate().map(|(i, w)| (low - 1 + i as i64, *w)).collect();
        if self.exclude_outside {
            taps.retain(|(position, _)| (0..from).contains(position));
            let total: f64 = taps.iter().map(|(_, weight)| weight).sum();
            taps.iter_mut().for_each(|(_, weight)| *weight /= total);
        }
        taps
    }
}
