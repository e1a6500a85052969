//! Rules of element-wise operators. Derivatives are stated on the output `y` where that is possible, so that the
//! input need not be kept and the engine may fuse the operator into its producer.

use super::builder::Builder;
use super::unsupported;
use crate::error::Result;
use crate::model::Node;

/// The name of input `index`; rules run on checked nodes, an absent input reads as the empty name.
pub(super) fn x(node: &Node, index: usize) -> &str {
    node.input(index).unwrap_or_default()
}

pub(super) fn y(node: &Node) -> &str {
    node.outputs.first().map(String::as_str).unwrap_or_default()
}

/// Contributes `dy · derivative` to the only input.
pub(super) fn chain(b: &mut Builder, node: &Node, dy: &str, derivative: &str) -> Result<()> {
    let gradient = b.mul(dy, derivative);
    b.give(node, 0, &gradient);
    Ok(())
}

pub(super) fn identity(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    b.give(node, 0, dy);
    Ok(())
}

pub(super) fn dropout(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    if let Some(mode) = b.static_tensor(node, 2)?
        && mode.to_f64()?.iter().any(|v| *v != 0.0)
    {
        return Err(unsupported(node, "training_mode", "export the model for inference"));
    }
    identity(b, node, dy)
}

pub(super) fn cast(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let dtype = b.dtype(x(node, 0));
    let gradient = b.cast(dy, dtype);
    b.give(node, 0, &gradient);
    Ok(())
}

/// `x = scale · (q − zero_point)`: the scale of each slice gets the sum of `dy · (q − zero_point)` over it.
pub(super) fn dequantize(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    if b.wants(node, 0) {
        return Err(unsupported(node, "its float input", "dequantise constants only"));
    }
    if node.int("block_size", 0) != 0 {
        return Err(unsupported(node, "block_size", "quantise per tensor or per axis"));
    }
    let like = x(node, 1);
    let (scale_shape, shape) = (b.shape(like), b.shape(x(node, 0)));
    let mut aligned = vec![1; shape.len()];
    let axis = node.int("axis", 1);
    let axis = if axis < 0 { axis + shape.len() as i64 } else { axis } as usize;
    if let (Some(dim), Some(count)) = (aligned.get_mut(axis), scale_shape.first()) {
        *dim = *count;
    }
    let dtype = b.dtype(like);
    let mut levels = b.cast(x(node, 0), dtype);
    if let Some(zero) = node.input(2) {
        let zero = b.cast(zero, dtype);
        let zero = b.reshape(&zero, &aligned);
        levels = b.sub(&levels, &zero);
    }
    let product = b.mul(dy, &levels);
    let sum = b.fit(&product, &aligned);
    let gradient = b.reshape(&sum, &scale_shape);
    b.give(node, 1, &gradient);
    Ok(())
}

// --- arithmetic ------------------------------------------------------------------------------------------------

pub(super) fn add(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    b.give(node, 0, dy);
    b.give(node, 1, dy);
    Ok(())
}

pub(super) fn sum(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    (0..node.inputs.len()).for_each(|index| b.give(node, index, dy));
    Ok(())
}

pub(super) fn mean(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let share = b.scale(dy, 1.0 / node.inputs.len() as f64);
    sum(b, node, &share)
}

pub(super) fn sub(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    b.give(node, 0, dy);
    if b.wants(node, 1) {
        let negative = b.neg(dy);
        b.give(node, 1, &negative);
    }
    Ok(())
}

pub(super) fn mul(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    for (index, other) in [(0, 1), (1, 0)] {
        if b.wants(node, index) {
            let gradient = b.mul(dy, x(node, other));
            b.give(node, index, &gradient);
        }
    }
    Ok(())
}

/// `d(a/c) = da / c − dc · y / c`.
pub(super) fn div(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let quotient = b.div(dy, x(node, 1));
    b.give(node, 0, &quotient);
    if b.wants(node, 1) {
        let product = b.mul(&quotient, y(node));
        let gradient = b.neg(&product);
        b.give(node, 1, &gradient);
    }
    Ok(())
}

pub(super) fn neg(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let gradient = b.neg(dy);
    b.give(node, 0, &gradient);
    Ok(())
}

/// `a^e`: `e · a^(e−1)` for the base, `y · log a` for the exponent where the base is positive and zero elsewhere,
/// as the power is no smooth function of the exponent there.
pub(super) fn pow(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let (base, exponent) = (x(node, 0), x(node, 1));
    if b.wants(node, 0) {
        let gradient = pow_base(b, node, dy);
        b.give(node, 0, &gradient);
    }
    if b.wants(node, 1) {
        let zero = b.scalar(base, 0.0);
        let positive = b.binary("Greater", base, &zero);
        let one = b.scalar(base, 1.0);
        let safe = b.select(&positive, base, &one);
        let log = b.unary("Log", &safe);
        let factor = b.mul(y(node), &log);
        let gradient = b.mul(dy, &factor);
        let dtype = b.dtype(exponent);
        let gradient = b.cast(&gradient, dtype);
        b.give(node, 1, &gradient);
    }
    Ok(())
}

fn pow_base(b: &mut Builder, node: &Node, dy: &str) -> String {
    let (base, exponent) = (x(node, 0), x(node, 1));
    let constant = b.graph().initializers.get(exponent).filter(|t| t.len() == 1);
    let constant = constant.and_then(|t| t.to_f64().ok()).and_then(|v| v.first().copied());
    let frozen = !b.wants(node, 1);
    let factor = match constant.filter(|_| frozen) {
        Some(1.0) => return dy.to_owned(),
        Some(2.0) => b.scale(base, 2.0),
        Some(3.0) => {
            let square = b.mul(base, base);
            b.scale(&square, 3.0)
        }
        Some(0.5) => {
            let half = b.scalar(base, 0.5);
            b.div(&half, y(node))
        }
        Some(value) => {
            let less = b.scalar(base, value - 1.0);
            let power = b.binary("Pow", base, &less);
            b.scale(&power, value)
        }
        None => {
            let dtype = b.dtype(base);
            let exponent = b.cast(exponent, dtype);
            let less = b.offset(&exponent, -1.0);
            let power = b.binary("Pow", base, &less);
            b.mul(&exponent, &power)
        }
    };
    b.mul(dy, &factor)
}

/// `Min` and `Max`: the inputs that attain the extreme share the gradient equally.
pub(super) fn extreme(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    if node.inputs.len() == 1 {
        return identity(b, node, dy);
    }
    let masks: Vec<String> = (0..node.inputs.len())
        .map(|index| {
            let equal = b.binary("Equal", x(node, index), y(node));
            b.indicator(&equal, dy)
        })
        .collect();
    let count = masks.iter().cloned().reduce(|sum, mask| b.add(&sum, &mask)).unwrap_or_default();
    let share = b.div(dy, &count);
    for (index, mask) in masks.iter().enumerate() {
        if b.wants(node, index) {
            let gradient = b.mul(&share, mask);
            b.give(node, index, &gradient);
        }
    }
    Ok(())
}

pub(super) fn select(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let zero = b.scalar(dy, 0.0);
    if b.wants(node, 1) {
        let gradient = b.select(x(node, 0), dy, &zero);
        b.give(node, 1, &gradient);
    }
    if b.wants(node, 2) {
        let gradient = b.select(x(node, 0), &zero, dy);
        b.give(node, 2, &gradient);
    }
    Ok(())
}

// --- powers, exponentials, trigonometry ------------------------------------------------------------------------

pub(super) fn abs(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let sign = b.unary("Sign", x(node, 0));
    chain(b, node, dy, &sign)
}

pub(super) fn sqrt(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let half = b.scale(dy, 0.5);
    let gradient = b.div(&half, y(node));
    b.give(node, 0, &gradient);
    Ok(())
}

pub(super) fn reciprocal(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let square = b.mul(y(node), y(node));
    let derivative = b.neg(&square);
    chain(b, node, dy, &derivative)
}

pub(super) fn exp(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    chain(b, node, dy, y(node))
}

pub(super) fn log(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let gradient = b.div(dy, x(node, 0));
    b.give(node, 0, &gradient);
    Ok(())
}

/// `2/√π · exp(−x²)`.
pub(super) fn erf(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let square = b.mul(x(node, 0), x(node, 0));
    let negative = b.neg(&square);
    let bell = b.unary("Exp", &negative);
    let derivative = b.scale(&bell, std::f64::consts::FRAC_2_SQRT_PI);
    chain(b, node, dy, &derivative)
}

pub(super) fn sin(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let derivative = b.unary("Cos", x(node, 0));
    chain(b, node, dy, &derivative)
}

pub(super) fn cos(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let sine = b.unary("Sin", x(node, 0));
    let derivative = b.neg(&sine);
    chain(b, node, dy, &derivative)
}

/// `1 + y²`.
pub(super) fn tan(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let square = b.mul(y(node), y(node));
    let derivative = b.offset(&square, 1.0);
    chain(b, node, dy, &derivative)
}

pub(super) fn sinh(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let derivative = b.unary("Cosh", x(node, 0));
    chain(b, node, dy, &derivative)
}

pub(super) fn cosh(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let derivative = b.unary("Sinh", x(node, 0));
    chain(b, node, dy, &derivative)
}

/// Contributes `sign · dy / √(square · x² + term)`.
fn inverse_root(
    b: &mut Builder,
    node: &Node,
    dy: &str,
    sign: f64,
    square: f64,
    term: f64,
) -> Result<()> {
    let power = b.mul(x(node, 0), x(node, 0));
    let scaled = b.scale(&power, square);
    let shifted = b.offset(&scaled, term);
    let root = b.unary("Sqrt", &shifted);
    let dy = b.scale(dy, sign);
    let gradient = b.div(&dy, &root);
    b.give(node, 0, &gradient);
    Ok(())
}

pub(super) fn asin(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    inverse_root(b, node, dy, 1.0, -1.0, 1.0)
}

pub(super) fn acos(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    inverse_root(b, node, dy, -1.0, -1.0, 1.0)
}

pub(super) fn asinh(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    inverse_root(b, node, dy, 1.0, 1.0, 1.0)
}

pub(super) fn acosh(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    inverse_root(b, node, dy, 1.0, 1.0, -1.0)
}

/// Contributes `dy / (1 + sign · x²)`.
fn inverse_square(b: &mut Builder, node: &Node, dy: &str, sign: f64) -> Result<()> {
    let power = b.mul(x(node, 0), x(node, 0));
    let scaled = b.scale(&power, sign);
    let shifted = b.offset(&scaled, 1.0);
    let gradient = b.div(dy, &shifted);
    b.give(node, 0, &gradient);
    Ok(())
}

pub(super) fn atan(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    inverse_square(b, node, dy, 1.0)
}

pub(super) fn atanh(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    inverse_square(b, node, dy, -1.0)
}
