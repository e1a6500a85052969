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

/// `y · (1 − y)`.
pub(super) fn sigmoid(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let square = b.mul(y(node), y(node));
    let derivative = b.sub(y(node), &square);
    chain(b, node, dy, &derivative)
}

/// `1 − y²`.
pub(super) fn tanh(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let square = b.mul(y(node), y(node));
    let one = b.scalar(dy, 1.0);
    let derivative = b.sub(&one, &square);
    chain(b, node, dy, &derivative)
}

fn positive(b: &mut Builder, x: &str) -> String {
    let zero = b.scalar(x, 0.0);
    b.binary("Greater", x, &zero)
}

/// Contributes `dy` where the input is positive and `other` elsewhere.
fn above_zero(b: &mut Builder, node: &Node, dy: &str, other: &str) -> Result<()> {
    let mask = positive(b, x(node, 0));
    let gradient = b.select(&mask, dy, other);
    b.give(node, 0, &gradient);
    Ok(())
}

pub(super) fn leaky_relu(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let leak = b.scale(dy, f64::from(node.float("alpha", 0.01)));
    above_zero(b, node, dy, &leak)
}

pub(super) fn prelu(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let leak = b.mul(dy, x(node, 1));
    above_zero(b, node, dy, &leak)?;
    if b.wants(node, 1) {
        let zero = b.scalar(dy, 0.0);
        let negative = b.binary("Min", x(node, 0), &zero);
        let gradient = b.mul(dy, &negative);
        b.give(node, 1, &gradient);
    }
    Ok(())
}

pub(super) fn thresholded_relu(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let threshold = b.scalar(dy, f64::from(node.float("alpha", 1.0)));
    let mask = b.binary("Greater", x(node, 0), &threshold);
    let gradient = b.keep_where(&mask, dy);
    b.give(node, 0, &gradient);
    Ok(())
}

/// Below zero `y = α (eˣ − 1)`, so the derivative is `y + α`.
pub(super) fn elu(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let slope = b.offset(y(node), f64::from(node.float("alpha", 1.0)));
    let below = b.mul(dy, &slope);
    above_zero(b, node, dy, &below)
}

/// Below zero `y = γ α (eˣ − 1)`, so the derivative is `y + γ α`; above it is `γ`. The defaults are those of the
/// specification.
pub(super) fn selu(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let alpha = f64::from(node.float("alpha", 1.673_263_2));
    let gamma = f64::from(node.float("gamma", 1.050_701));
    let slope = b.offset(y(node), gamma * alpha);
    let below = b.mul(dy, &slope);
    let above = b.scale(dy, gamma);
    above_zero(b, node, &above, &below)
}

/// Below zero `y = α (exp(x/α) − 1)`, so the derivative is `y/α + 1`.
pub(super) fn celu(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let scaled = b.scale(y(node), 1.0 / f64::from(node.float("alpha", 1.0)));
    let slope = b.offset(&scaled, 1.0);
    let below = b.mul(dy, &slope);
    above_zero(b, node, dy, &below)
}

/// The mask is taken on the output, so an element exactly on a bound passes nothing; the bounds get what they cut.
pub(super) fn clip(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let mut gradient = dy.to_owned();
    for (index, inside, outside) in [(1, "Greater", "Less"), (2, "Less", "Greater")] {
        let Some(bound) = node.input(index) else { continue };
        if b.wants(node, index) {
            let beyond = b.binary(outside, x(node, 0), bound);
            let cut = b.keep_where(&beyond, dy);
            b.give(node, index, &cut);
        }
        let within = b.binary(inside, y(node), bound);
        let mask = b.indicator(&within, dy);
        gradient = b.mul(&gradient, &mask);
    }
    b.give(node, 0, &gradient);
    Ok(())
}

/// `α` while the output is strictly between zero and one.
pub(super) fn hard_sigmoid(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let one = b.scalar(dy, 1.0);
    let above = positive(b, y(node));
    let below = b.binary("Less", y(node), &one);
    let inside = b.binary("And", &above, &below);
    let scaled = b.scale(dy, f64::from(node.float("alpha", 0.2)));
    let gradient = b.keep_where(&inside, &scaled);
    b.give(node, 0, &gradient);
    Ok(())
}

/// `x · clamp(x/6 + 1/2, 0, 1)`: the derivative is 0 below −3, 1 above 3, `x/3 + 1/2` between.
pub(super) fn hard_swish(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let x = x(node, 0);
    let third = b.scale(x, 1.0 / 3.0);
    let slope = b.offset(&third, 0.5);
    let (low, high) = (b.scalar(x, -3.0), b.scalar(x, 3.0));
    let above = b.binary("Greater", x, &low);
    let beyond = b.binary("GreaterOrEqual", x, &high);
    let one = b.scalar(x, 1.0);
    let slope = b.keep_where(&above, &slope);
    let derivative = b.select(&beyond, &one, &slope);
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
    let t_square = b.mul(&t, &t);
    let one = b.scalar(x, 1.0);
    let rest = b.sub(&one, &t_square);
    let steep = b.scale(&square, 1.5 * c * K);
    let inner = b.offset(&steep, 0.5 * c);
    let product = b.mul(&rest, &inner);
    let right = b.mul(x, &product);
    b.add(&left, &right)
}
