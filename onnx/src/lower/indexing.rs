//! Gathering and scattering: indices that the engine does not accept.

use super::{Lowering, made, need, to};
use crate::error::{Code, Error, Result};
use crate::model::{Attribute, Node};
use crate::tensor::{DType, Tensor};

/// Picks by a constant condition become a gather of the places where it holds.
pub(super) fn compress(lowering: &mut Lowering<'_>, node: &Node) -> Result<bool> {
    let (mut x, condition) = (need(node, 0)?.to_owned(), need(node, 1)?);
    let Some(condition) = lowering.initializer(condition) else {
        return Err(Error::new(Code::ModelUnsupported, "its condition is not constant")
            .with_hint("make the condition an initializer"));
    };
    let holds: Vec<bool> = condition.values()?;
    let places: Vec<i64> =
        (0i64..).zip(holds).filter(|(_, hold)| *hold).map(|(place, _)| place).collect();
    let axis = match node.attributes.get("axis") {
        Some(Attribute::Int(axis)) => *axis,
        _ => {
            let flat = lowering.constant(Tensor::vector(&[-1i64]));
            x = lowering.emit("Reshape", &[&x, &flat], &[]);
            0
        }
    };
    let places = lowering.constant(Tensor::vector(&places));
    lowering.emit_as("Gather", &[&x, &places], made(node)?, &[("axis", Attribute::Int(axis))]);
    Ok(true)
}

pub(super) fn gather_nd(lowering: &mut Lowering<'_>, node: &Node) -> Result<bool> {
    counted_from_the_start(lowering, node, node.int("batch_dims", 0))
}

pub(super) fn scatter_nd(lowering: &mut Lowering<'_>, node: &Node) -> Result<bool> {
    counted_from_the_start(lowering, node, 0)
}

/// Indices that may count from the end get the size of their dimension added where they are negative.
fn counted_from_the_start(lowering: &mut Lowering<'_>, node: &Node, skipped: i64) -> Result<bool> {
    let (data, indices) = (need(node, 0)?, need(node, 1)?);
    if let Some(tensor) = lowering.initializer(indices)
        && tensor.values::<i64>()?.iter().all(|index| *index >= 0)
    {
        return Ok(false);
    }
    let shape = lowering.emit("Shape", &[data], &[]);
    let index_shape = lowering.emit("Shape", &[indices], &[]);
    let last = lowering.constant(Tensor::vector(&[-1i64]));
    let end = lowering.constant(Tensor::vector(&[i64::MAX]));
    let depth = lowering.emit("Slice", &[&index_shape, &last, &end], &[]);
    let from = lowering.constant(Tensor::vector(&[skipped]));
    let until = lowering.emit("Add", &[&depth, &from], &[]);
    let sizes = lowering.emit("Slice", &[&shape, &from, &until], &[]);
    let positive = wrapped(lowering, indices, &sizes);
    let mut positive_node = node.clone();
    positive_node.inputs[1] = positive;
    lowering.nodes.push(positive_node);
    Ok(true)
}

/// Where an index is negative, the index plus `size`.
fn wrapped(lowering: &mut Lowering<'_>, indices: &str, size: &str) -> String {
    let zero = lowering.constant(Tensor::scalar(0i64));
    let negative = lowering.emit("Less", &[indices, &zero], &[]);
    let shifted = lowering.emit("Add", &[indices, size], &[]);
    lowering.emit("Where", &[&negative, &shifted, indices], &[])
}

/// Indices outside −depth..depth give a row without a mark: they are moved to one more class, which is cut off.
pub(super) fn one_hot(lowering: &mut Lowering<'_>, node: &Node) -> Result<bool> {
    let (indices, depth, values) = (need(node, 0)?, need(node, 1)?, need(node, 2)?);
    let depth = lowering
        .initializer(depth)
        .map(Tensor::to_f64)
        .transpose()?
        .and_then(|d| d.first().copied());
    let Some(depth) = depth.filter(|depth| (1.0..1e9).contains(depth)) else {
        return Err(Error::new(Code::ModelUnsupported, "its depth is no positive constant")
            .with_hint("make the depth an initializer"));
    };
    let depth = depth as i64;
    let indices = if lowering.dtype(indices) == DType::I64 {
        indices.to_owned()
    } else {
        lowering.emit("Cast", &[indices], &[("to", to(DType::I64))])
    };
    let count = lowering.constant(Tensor::scalar(depth));
    let zero = lowering.constant(Tensor::scalar(0i64));
    let indices = wrapped(lowering, &indices, &count);
    let below = lowering.emit("Less", &[&indices, &zero], &[]);
    let above = lowering.emit("GreaterOrEqual", &[&indices, &count], &[]);
    let outside = lowering.emit("Or", &[&below, &above], &[]);
    let indices = lowering.emit("Where", &[&outside, &count, &indices], &[]);
    let more = lowering.constant(Tensor::scalar(depth + 1));
    let axis = node.int("axis", -1);
    let marks =
        lowering.emit("OneHot", &[&indices, &more, values], &[("axis", Attribute::Int(axis))]);
    let from = lowering.constant(Tensor::vector(&[0i64]));
    let until = lowering.constant(Tensor::vector(&[depth]));
    let axes = lowering.constant(Tensor::vector(&[axis]));
    lowering.emit_as("Slice", &[&marks, &from, &until, &axes], made(node)?, &[]);
    Ok(true)
}
