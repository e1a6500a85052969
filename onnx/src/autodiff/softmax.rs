//! Rules of the softmax family, both stated on the output.

use super::builder::Builder;
use crate::error::Result;
use crate::model::Node;

/// `dx = y · (dy − Σ y · dy)`.
pub(super) fn softmax(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let (y, axis) = output(b, node);
    let product = b.mul(dy, &y);
    let sum = b.sum(&product, &[axis], true);
    let scaled = b.mul(&y, &sum);
    let gradient = b.sub(&product, &scaled);
    b.give(node, 0, &gradient);
    Ok(())
}

/// `dx = dy − exp(y) · Σ dy`.
pub(super) fn log_softmax(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let (y, axis) = output(b, node);
    let p = b.unary("Exp", &y);
    let sum = b.sum(dy, &[axis], true);
    let scaled = b.mul(&p, &sum);
    let gradient = b.sub(dy, &scaled);
    b.give(node, 0, &gradient);
    Ok(())
}

fn output(b: &mut Builder, node: &Node) -> (String, usize) {
    let y = node.outputs.first().cloned().unwrap_or_default();
    let rank = b.shape(&y).len() as i64;
    let axis = node.int("axis", -1);
    (y, (if axis < 0 { axis + rank } else { axis }) as usize)
}
