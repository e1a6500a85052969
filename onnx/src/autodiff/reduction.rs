//! Rules of reductions. The gradient is first given back the reduced axes as size one, then broadcast.

use super::builder::Builder;
use super::unsupported;
use crate::error::Result;
use crate::model::{Attribute, Node};

/// A reduction with its operands brought to the rank of the input.
struct Reduction {
    axes: Vec<usize>,
    /// The gradient, with reduced axes as size one.
    dy: String,
    /// The output in the same shape.
    y: String,
    /// Elements that one output element stands for.
    count: usize,
}

impl Reduction {
    fn read(b: &mut Builder, node: &Node, dy: &str) -> Result<Self> {
        let shape = b.shape(x(node));
        let rank = shape.len() as i64;
        let given = match node.ints("axes") {
            Some(axes) => Some(axes.to_vec()),
            None => b.static_ints(node, 1)?,
        };
        let axes: Vec<usize> = match given.filter(|axes| !axes.is_empty()) {
            Some(axes) => axes
                .iter()
                .map(|axis| (if *axis < 0 { axis + rank } else { *axis }) as usize)
                .collect(),
            None if node.int("noop_with_empty_axes", 0) != 0 => Vec::new(),
            None => (0..shape.len()).collect(),
        };
        let kept: Vec<usize> = shape
            .iter()
            .enumerate()
            .map(|(axis, dim)| if axes.contains(&axis) { 1 } else { *dim })
            .collect();
        let count = axes.iter().filter_map(|axis| shape.get(*axis)).product();
        let dy = b.reshape(dy, &kept);
        let y = node.outputs.first().map(String::as_str).unwrap_or_default();
        let y = if b.shape(y) == kept { y.to_owned() } else { b.reshape(y, &kept) };
        Ok(Self { axes, dy, y, count })
    }
}

fn x(node: &Node) -> &str {
    node.input(0).unwrap_or_default()
}

pub(super) fn sum(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let r = Reduction::read(b, node, dy)?;
    b.give(node, 0, &r.dy);
    Ok(())
}

pub(super) fn mean(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let r = Reduction::read(b, node, dy)?;
    let gradient = b.scale(&r.dy, 1.0 / r.count.max(1) as f64);
    b.give(node, 0, &gradient);
    Ok(())
}

/// Elements that attain the extreme share the gradient equally, as `torch.amax` does.
pub(super) fn extreme(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let r = Reduction::read(b, node, dy)?;
    let gradient = share_ties(b, x(node), &r.y, &r.dy, &r.axes);
    b.give(node, 0, &gradient);
    Ok(())
}

/// Spreads `dy` over the elements of `x` that equal `y`, in equal parts.
pub(super) fn share_ties(b: &mut Builder, x: &str, y: &str, dy: &str, axes: &[usize]) -> String {
    let equal = b.binary("Equal", x, y);
    let mask = b.indicator(&equal, dy);
    let ties = b.sum(&mask, axes, true);
    let share = b.div(dy, &ties);
    b.mul(&mask, &share)
}

pub(super) fn l1(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let r = Reduction::read(b, node, dy)?;
    let sign = b.unary("Sign", x(node));
    let gradient = b.mul(&sign, &r.dy);
    b.give(node, 0, &gradient);
    Ok(())
}

/// `x / y`, and zero where the norm is zero.
pub(super) fn l2(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let r = Reduction::read(b, node, dy)?;
    let gradient = norm_gradient(b, x(node), &r.y, &r.dy);
    b.give(node, 0, &gradient);
    Ok(())
}

/// `dy · x / y` with 0 for 0/0, the subgradient that PyTorch takes.
pub(super) fn norm_gradient(b: &mut Builder, x: &str, y: &str, dy: &str) -> String {
    let zero = b.scalar(y, 0.0);
    let one = b.scalar(y, 1.0);
    let empty = b.binary("Equal", y, &zero);
    let safe = b.select(&empty, &one, y);
    let factor = b.div(dy, &safe);
    b.mul(x, &factor)
}

/// `y = log Σ x`: `1 / Σ x = exp(−y)`.
pub(super) fn log_sum(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let r = Reduction::read(b, node, dy)?;
    let sum = b.unary("Exp", &r.y);
    let gradient = b.div(&r.dy, &sum);
    b.give(node, 0, &gradient);
    Ok(())
}

/// `exp(x − y)`.
pub(super) fn log_sum_exp(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let r = Reduction::read(b, node, dy)?;
    let difference = b.sub(x(node), &r.y);
    let weight = b.unary("Exp", &difference);
    let gradient = b.mul(&weight, &r.dy);
    b.give(node, 0, &gradient);
    Ok(())
}

/// `y / x`; without zeros among the elements.
pub(super) fn product(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let r = Reduction::read(b, node, dy)?;
    let scaled = b.mul(&r.dy, &r.y);
    let gradient = b.div(&scaled, x(node));
    b.give(node, 0, &gradient);
    Ok(())
}

pub(super) fn sum_square(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let r = Reduction::read(b, node, dy)?;
    let double = b.scale(&r.dy, 2.0);
    let gradient = b.mul(x(node), &double);
    b.give(node, 0, &gradient);
    Ok(())
}

/// A cumulative sum is undone by the cumulative sum from the other end.
pub(super) fn cumulative(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let Some(axis) = node.input(1) else {
        return Err(unsupported(node, "a missing axis", "give the axis"));
    };
    let attributes = [
        ("exclusive", Attribute::Int(node.int("exclusive", 0))),
        ("reverse", Attribute::Int(1 - node.int("reverse", 0))),
    ];
    let (dtype, shape) = (b.dtype(dy), b.shape(dy));
    let gradient = b.emit("CumSum", &[dy, axis], &attributes, dtype, shape);
    b.give(node, 0, &gradient);
    Ok(())
}
