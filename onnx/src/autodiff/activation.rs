//! Rules of activation functions, stated on the output `y` where that is possible.

use super::builder::Builder;
use super::elementwise::{chain, x, y};
use crate::error::Result;
use crate::model::Node;

/// The output is never negative, so its sign is the mask.
pub(super) fn relu(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let mask = b.unary("Sign", y(node));
    chain(b, node, dy, &mask)
}

/// `y · (1 − y)`; as `y − y²` it would lose all digits where the sigmoid saturates at one.
pub(super) fn sigmoid(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let one = b.scalar(dy, 1.0);
    let rest = b.sub(&one, y(node));
    let derivative = b.mul(y(node), &rest);
    chain(b, node, dy, &derivative)
}

pub(super) fn tanh(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let derivative = tanh_slope(b, x(node, 0));
    chain(b, node, dy, &derivative)
}

/// `1 − tanh² x = 4 e / (1 + e)²` with `e = exp(−2 |x|)`. Stated on the output it would keep what approximations of the
/// tangent leave below one, 1e-6 in some engines, and a large factor behind it would make a gradient of that.
fn tanh_slope(b: &mut Builder, x: &str) -> String {
    let magnitude = b.unary("Abs", x);
    let negative = b.scale(&magnitude, -2.0);
    let e = b.unary("Exp", &negative);
    let sum = b.offset(&e, 1.0);
    let square = b.mul(&sum, &sum);
    let quotient = b.div(&e, &square);
    b.scale(&quotient, 4.0)
}

/// One where `x` exceeds the threshold, zero elsewhere. A comparison with a scalar is ten times slower in the engine
/// than this arithmetic.
fn step(b: &mut Builder, x: &str, threshold: f64) -> String {
    let excess = if threshold == 0.0 { x.to_owned() } else { b.offset(x, -threshold) };
    let positive = b.unary("Relu", &excess);
    b.unary("Sign", &positive)
}

/// `α + (1 − α) [x > 0]`.
pub(super) fn leaky_relu(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let alpha = f64::from(node.float("alpha", 0.01));
    let above = step(b, x(node, 0), 0.0);
    let scaled = b.scale(&above, 1.0 - alpha);
    let derivative = b.offset(&scaled, alpha);
    chain(b, node, dy, &derivative)
}

/// `s + (1 − s) [x > 0]` for the input, `min(x, 0)` for the slope `s`.
pub(super) fn prelu(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let slope = x(node, 1);
    if b.wants(node, 0) {
        let above = step(b, x(node, 0), 0.0);
        let one = b.scalar(dy, 1.0);
        let rest = b.sub(&one, slope);
        let gained = b.mul(&above, &rest);
        let derivative = b.add(&gained, slope);
        chain(b, node, dy, &derivative)?;
    }
    if b.wants(node, 1) {
        let negative = below_zero(b, x(node, 0));
        let gradient = b.mul(dy, &negative);
        b.give(node, 1, &gradient);
    }
    Ok(())
}

/// `min(x, 0)`.
fn below_zero(b: &mut Builder, x: &str) -> String {
    let zero = b.scalar(x, 0.0);
    b.binary("Min", x, &zero)
}

pub(super) fn thresholded_relu(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let derivative = step(b, x(node, 0), f64::from(node.float("alpha", 1.0)));
    chain(b, node, dy, &derivative)
}

/// `y = β α (eˣ − 1)` below zero and `β x` above: the derivative is `min(y, 0) + β α + β (1 − α) [y > 0]`.
fn exponential_unit(b: &mut Builder, node: &Node, dy: &str, alpha: f64, beta: f64) -> Result<()> {
    let negative = below_zero(b, y(node));
    let slope = b.offset(&negative, beta * alpha);
    let above = step(b, y(node), 0.0);
    let gained = b.scale(&above, beta * (1.0 - alpha));
    let derivative = b.add(&slope, &gained);
    chain(b, node, dy, &derivative)
}

pub(super) fn elu(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    exponential_unit(b, node, dy, f64::from(node.float("alpha", 1.0)), 1.0)
}

/// The defaults are those of the specification.
pub(super) fn selu(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let alpha = f64::from(node.float("alpha", 1.673_263_2));
    exponential_unit(b, node, dy, alpha, f64::from(node.float("gamma", 1.050_701)))
}

/// Below zero `y = α (exp(x/α) − 1)`, so the derivative is `min(y, 0)/α + 1`.
pub(super) fn celu(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let negative = below_zero(b, y(node));
    let scaled = b.scale(&negative, 1.0 / f64::from(node.float("alpha", 1.0)));
    let derivative = b.offset(&scaled, 1.0);
    chain(b, node, dy, &derivative)
}

/// The mask is taken on the output, so an element exactly on a bound passes nothing; the bounds get what they cut.
pub(super) fn clip(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let mut gradient = dy.to_owned();
    for (index, outside) in [(1, "Less"), (2, "Greater")] {
        let Some(bound) = node.input(index) else { continue };
        if b.wants(node, index) {
            let beyond = b.binary(outside, x(node, 0), bound);
            let cut = b.keep_where(&beyond, dy);
            b.give(node, index, &cut);
        }
        if b.wants(node, 0) {
            let distance =
                if index == 1 { above_bound(b, y(node), bound) } else { b.sub(bound, y(node)) };
            let mask = b.unary("Sign", &distance);
            gradient = b.mul(&gradient, &mask);
        }
    }
    b.give(node, 0, &gradient);
    Ok(())
}

/// `y − bound`, which for the usual bound of zero is `y`.
fn above_bound(b: &mut Builder, y: &str, bound: &str) -> String {
    let constant = b.graph().initializers.get(bound).and_then(|t| t.to_f64().ok());
    if constant.as_deref() == Some(&[0.0]) { y.to_owned() } else { b.sub(y, bound) }
}

/// `α` while the output is strictly between zero and one.
pub(super) fn hard_sigmoid(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let square = b.mul(y(node), y(node));
    let inside = b.sub(y(node), &square);
    let mask = b.unary("Sign", &inside);
    let derivative = b.scale(&mask, f64::from(node.float("alpha", 0.2)));
    chain(b, node, dy, &derivative)
}

/// `x · clamp(x/6 + 1/2, 0, 1)`. With `c = clamp(x, −3, 3)` the derivative is `c/3 + 1/2 − sign(x − c)/2`: 0 below −3,
/// 1 above 3.
pub(super) fn hard_swish(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let x = x(node, 0);
    let (low, high) = (b.scalar(x, -3.0), b.scalar(x, 3.0));
    let (dtype, shape) = (b.dtype(x), b.shape(x));
    let clamped = b.emit("Clip", &[x, &low, &high], &[], dtype, shape);
    let third = b.scale(&clamped, 1.0 / 3.0);
    let slope = b.offset(&third, 0.5);
    let beyond = b.sub(x, &clamped);
    let side = b.unary("Sign", &beyond);
    let half = b.scale(&side, 0.5);
    let derivative = b.sub(&slope, &half);
    chain(b, node, dy, &derivative)
}

pub(super) fn softplus(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let derivative = b.unary("Sigmoid", x(node, 0));
    chain(b, node, dy, &derivative)
}

/// `1 / (1 + |x|)²`.
pub(super) fn softsign(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let magnitude = b.unary("Abs", x(node, 0));
    let shifted = b.offset(&magnitude, 1.0);
    let square = b.mul(&shifted, &shifted);
    let gradient = b.div(dy, &square);
    b.give(node, 0, &gradient);
    Ok(())
}

/// `x · t` with `t = tanh(softplus x)`: `t + x · (1 − t²) · sigmoid(x)`.
pub(super) fn mish(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let x = x(node, 0);
    let plus = b.unary("Softplus", x);
    let t = b.unary("Tanh", &plus);
    let square = b.mul(&t, &t);
    let one = b.scalar(x, 1.0);
    let rest = b.sub(&one, &square);
    let sigmoid = b.unary("Sigmoid", x);
    let inner = b.mul(&rest, &sigmoid);
    let second = b.mul(x, &inner);
    let derivative = b.add(&t, &second);
    chain(b, node, dy, &derivative)
}

/// Hendrycks and Gimpel, *Gaussian Error Linear Units*, 2016: `x Φ(x)`, exactly or by its tanh approximation.
pub(super) fn gelu(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let derivative = match node.string("approximate", "none") {
        "tanh" => gelu_tanh(b, x(node, 0)),
        _ => gelu_exact(b, x(node, 0)),
    };
    chain(b, node, dy, &derivative)
}

/// `Φ(x) + x φ(x)`.
fn gelu_exact(b: &mut Builder, x: &str) -> String {
    let scaled = b.scale(x, std::f64::consts::FRAC_1_SQRT_2);
    let error = b.unary("Erf", &scaled);
    let half = b.scale(&error, 0.5);
    let cumulative = b.offset(&half, 0.5);
    let square = b.mul(&scaled, &scaled);
    let negative = b.neg(&square);
    let bell = b.unary("Exp", &negative);
    let density =
        b.scale(&bell, 0.5 * std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2);
    let product = b.mul(x, &density);
    b.add(&cumulative, &product)
}

/// With `u = c (x + k x³)`: `(1 + tanh u)/2 + x (1 − tanh² u) c (1 + 3 k x²)/2`.
fn gelu_tanh(b: &mut Builder, x: &str) -> String {
    const K: f64 = 0.044_715;
    let c = std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2;
    let square = b.mul(x, x);
    let bent = b.scale(&square, c * K);
    let slope = b.offset(&bent, c);
    let u = b.mul(x, &slope);
    let t = b.unary("Tanh", &u);
    let half = b.scale(&t, 0.5);
    let left = b.offset(&half, 0.5);
    let rest = tanh_slope(b, &u);
    let steep = b.scale(&square, 1.5 * c * K);
    let inner = b.offset(&steep, 0.5 * c);
    let product = b.mul(&rest, &inner);
    let right = b.mul(x, &product);
    b.add(&left, &right)
}
