//! Rules of normalisations. All that divide by a standard deviation share one core, [`centred`].

use super::builder::Builder;
use super::layout::axis;
use super::reduction::norm_gradient;
use super::unsupported;
use crate::error::Result;
use crate::model::Node;

fn x(node: &Node) -> &str {
    node.input(0).unwrap_or_default()
}

fn y(node: &Node) -> &str {
    node.outputs.first().map(String::as_str).unwrap_or_default()
}

/// The normalised input and the reciprocal of the standard deviation, recomputed from the input.
struct Normalised {
    value: String,
    inverse: String,
    axes: Vec<usize>,
    count: usize,
}

/// `(x − mean) / √(variance + ε)` over some axes.
fn normalise(b: &mut Builder, x: &str, axes: Vec<usize>, epsilon: f64) -> Normalised {
    let shape = b.shape(x);
    let count: usize = axes.iter().map(|axis| shape[*axis]).product();
    let weight = 1.0 / count.max(1) as f64;
    let sum = b.sum(x, &axes, true);
    let mean = b.scale(&sum, weight);
    let difference = b.sub(x, &mean);
    let square = b.mul(&difference, &difference);
    let sum = b.sum(&square, &axes, true);
    let variance = b.scale(&sum, weight);
    let inverse = inverse_deviation(b, &variance, epsilon);
    let value = b.mul(&difference, &inverse);
    Normalised { value, inverse, axes, count }
}

fn inverse_deviation(b: &mut Builder, variance: &str, epsilon: f64) -> String {
    let shifted = b.offset(variance, epsilon);
    let deviation = b.unary("Sqrt", &shifted);
    b.unary("Reciprocal", &deviation)
}

/// `dx = (g − mean(g) − x̂ · mean(g · x̂)) / σ` for `g`, the gradient of `x̂` (Ba, Kiros and Hinton, *Layer
/// Normalization*, 2016; the same for every choice of axes).
fn centred(b: &mut Builder, n: &Normalised, g: &str) -> String {
    let weight = 1.0 / n.count.max(1) as f64;
    let sum = b.sum(g, &n.axes, true);
    let mean = b.scale(&sum, weight);
    let product = b.mul(g, &n.value);
    let sum = b.sum(&product, &n.axes, true);
    let slope = b.scale(&sum, weight);
    let along = b.mul(&n.value, &slope);
    let without_mean = b.sub(g, &mean);
    let difference = b.sub(&without_mean, &along);
    b.mul(&difference, &n.inverse)
}

/// `[channels]` as `[1, channels, 1, …]`.
fn per_channel(b: &mut Builder, name: &str, rank: usize) -> String {
    let mut shape = vec![1; rank];
    if let (Some(dim), Some(channels)) = (shape.get_mut(1), b.shape(name).first()) {
        *dim = *channels;
    }
    b.reshape(name, &shape)
}

/// Contributes the sum over all axes but the channels.
fn give_channels(b: &mut Builder, node: &Node, index: usize, gradient: &str) {
    let axes: Vec<usize> = (0..b.shape(gradient).len()).filter(|axis| *axis != 1).collect();
    let sum = b.sum(gradient, &axes, false);
    b.give(node, index, &sum);
}

pub(super) fn layer(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let shape = b.shape(x(node));
    let first = axis(node.int("axis", -1), shape.len());
    let epsilon = f64::from(node.float("epsilon", 1e-5));
    let n = normalise(b, x(node), (first..shape.len()).collect(), epsilon);
    if b.wants(node, 0) {
        let g = b.mul(dy, node.input(1).unwrap_or_default());
        let gradient = centred(b, &n, &g);
        b.give(node, 0, &gradient);
    }
    if b.wants(node, 1) {
        let gradient = b.mul(dy, &n.value);
        b.give(node, 1, &gradient);
    }
    b.give(node, 2, dy);
    Ok(())
}

pub(super) fn instance(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let rank = b.shape(x(node)).len();
    let n = normalise(b, x(node), (2..rank).collect(), f64::from(node.float("epsilon", 1e-5)));
    if b.wants(node, 0) {
        let scale = per_channel(b, node.input(1).unwrap_or_default(), rank);
        let g = b.mul(dy, &scale);
        let gradient = centred(b, &n, &g);
        b.give(node, 0, &gradient);
    }
    if b.wants(node, 1) {
        let gradient = b.mul(dy, &n.value);
        give_channels(b, node, 1, &gradient);
    }
    if b.wants(node, 2) {
        give_channels(b, node, 2, dy);
    }
    Ok(())
}

/// Scale and bias have one element per group up to operator set 20 and one per channel from 21.
pub(super) fn group(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let shape = b.shape(x(node));
    let groups = node.int("num_groups", 1).max(1) as usize;
    let area: usize = shape[2..].iter().product();
    let split = [shape[0], groups, shape[1] / groups, area];
    let grouped = b.reshape(x(node), &split);
    let dy = b.reshape(dy, &split);
    let n = normalise(b, &grouped, vec![2, 3], f64::from(node.float("epsilon", 1e-5)));
    let parameters = b.shape(node.input(1).unwrap_or_default());
    let aligned =
        if parameters == [groups] { [1, groups, 1, 1] } else { [1, groups, shape[1] / groups, 1] };
    if b.wants(node, 0) {
        let scale = b.reshape(node.input(1).unwrap_or_default(), &aligned);
        let g = b.mul(&dy, &scale);
        let gradient = centred(b, &n, &g);
        let gradient = b.reshape(&gradient, &shape);
        b.give(node, 0, &gradient);
    }
    for index in [1, 2] {
        if b.wants(node, index) {
            let each = if index == 1 { b.mul(&dy, &n.value) } else { dy.clone() };
            let sum = b.fit(&each, &aligned);
            let gradient = b.reshape(&sum, &parameters);
            b.give(node, index, &gradient);
        }
    }
    Ok(())
}

/// `y = (x − mean) · s/√(variance + ε) + bias` with frozen statistics: affine in the input.
pub(super) fn batch(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    if node.int("training_mode", 0) != 0 {
        return Err(unsupported(node, "training_mode", "export the model for inference"));
    }
    let rank = b.shape(x(node)).len();
    let epsilon = f64::from(node.float("epsilon", 1e-5));
    let [scale, mean, variance] = [1, 3, 4].map(|i| node.input(i).unwrap_or_default());
    let inverse = inverse_deviation(b, variance, epsilon);
    let slope = b.mul(scale, &inverse);
    if b.wants(node, 0) {
        let slope = per_channel(b, &slope, rank);
        let gradient = b.mul(dy, &slope);
        b.give(node, 0, &gradient);
    }
    if b.wants(node, 2) || b.wants(node, 3) {
        let axes: Vec<usize> = (0..rank).filter(|axis| *axis != 1).collect();
        let sum = b.sum(dy, &axes, false);
        b.give(node, 2, &sum);
        let weighted = b.mul(&sum, &slope);
        let gradient = b.neg(&weighted);
        b.give(node, 3, &gradient);
    }
    if b.wants(node, 1) || b.wants(node, 4) {
        let mean = per_channel(b, mean, rank);
        let difference = b.sub(x(node), &mean);
        let product = b.mul(dy, &difference);
        let axes: Vec<usize> = (0..rank).filter(|axis| *axis != 1).collect();
        let sum = b.sum(&product, &axes, false);
        let along = b.mul(&sum, &inverse);
        b.give(node, 1, &along);
        // d(v + ε)^(−1/2) = −½ (v + ε)^(−3/2) dv.
        let square = b.mul(&inverse, &slope);
        let bent = b.mul(&along, &square);
        let gradient = b.scale(&bent, -0.5);
        b.give(node, 4, &gradient);
    }
    Ok(())
}

/// `y = x / ‖x‖`: for p = 2 `dx = (dy − y · Σ y dy) / ‖x‖`, for p = 1 `dx = (dy − sign(x) · Σ y dy) / ‖x‖`.
pub(super) fn lp(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let axis = axis(node.int("axis", -1), b.shape(x(node)).len());
    let (direction, norm) = match node.int("p", 2) {
        1 => {
            let magnitude = b.unary("Abs", x(node));
            let norm = b.sum(&magnitude, &[axis], true);
            (b.unary("Sign", x(node)), norm)
        }
        _ => {
            let square = b.mul(x(node), x(node));
            let sum = b.sum(&square, &[axis], true);
            let norm = b.unary("Sqrt", &sum);
            (y(node).to_owned(), norm)
        }
    };
    let product = b.mul(dy, y(node));
    let along = b.sum(&product, &[axis], true);
    let parallel = b.mul(&direction, &along);
    let across = b.sub(dy, &parallel);
    let one = b.scalar(&norm, 1.0);
    let gradient = norm_gradient(b, &across, &norm, &one);
    b.give(node, 0, &gradient);
    Ok(())
}

/// The specification fixes the axes' default and an ε of 1e-9.
pub(super) fn mean_variance(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let rank = b.shape(x(node)).len();
    let axes = node.ints("axes").map(<[i64]>::to_vec).unwrap_or_else(|| vec![0, 2, 3]);
    let axes = axes.iter().map(|v| axis(*v, rank)).collect();
    let n = normalise(b, x(node), axes, 1e-9);
    let gradient = centred(b, &n, dy);
    b.give(node, 0, &gradient);
    Ok(())
}

/// `y = x · s^(−β)` with `s = k + α/n Σ x²` over `n` neighbouring channels:
/// `dx = dy · s^(−β) − 2αβ/n · x · Σ' dy · x · s^(−β−1)`, the sum running over the channels whose window holds this
/// one (Krizhevsky, Sutskever and Hinton, *ImageNet Classification*, 2012, section 3.3).
pub(super) fn local_response(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let size = node.int("size", 1).max(1);
    let alpha = f64::from(node.float("alpha", 1e-4)) / size as f64;
    let beta = f64::from(node.float("beta", 0.75));
    let square = b.mul(x(node), x(node));
    let (below, above) = ((size - 1) / 2, size / 2);
    let sum = neighbours(b, &square, -below, above);
    let scaled = b.scale(&sum, alpha);
    let s = b.offset(&scaled, f64::from(node.float("bias", 1.0)));
    let exponent = b.scalar(&s, -beta);
    let power = b.binary("Pow", &s, &exponent);
    let direct = b.mul(dy, &power);
    let weighted = b.mul(&direct, x(node));
    let weighted = b.div(&weighted, &s);
    let gathered = neighbours(b, &weighted, -above, below);
    let product = b.mul(x(node), &gathered);
    let indirect = b.scale(&product, -2.0 * alpha * beta);
    let gradient = b.add(&direct, &indirect);
    b.give(node, 0, &gradient);
    Ok(())
}

/// The sum over channels `c + from ..= c + to`, absent ones counting as zero.
fn neighbours(b: &mut Builder, x: &str, from: i64, to: i64) -> String {
    let channels = b.shape(x).get(1).copied().unwrap_or(1);
    let mut sum = x.to_owned();
    for offset in (from..=to).filter(|offset| *offset != 0) {
        let moved = b.window(x, 1, offset, channels, 0.0);
        sum = b.add(&sum, &moved);
    }
    sum
}
