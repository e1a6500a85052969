//! Operators whose parameters the engine wants as constants, for models that feed them as inputs: a training model
//! does so with every tensor that it trains.

use super::{Lowering, made, need, to};
use crate::error::Result;
use crate::model::Node;
use crate::tensor::Tensor;

/// `x · s/√(variance + ε) + (bias − mean · s/√(variance + ε))`, channels on axis 1. With all axes reversed the channels
/// are the last axis but one, whatever the rank, and `[channels, 1]` broadcasts.
pub(super) fn batch_normalization(lowering: &mut Lowering<'_>, node: &Node) -> Result<bool> {
    let parameters = [1, 2, 3, 4].map(|index| need(node, index));
    let [scale, bias, mean, variance] = parameters;
    let (scale, bias, mean, variance) = (scale?, bias?, mean?, variance?);
    let constant = |name| lowering.initializer(name).is_some();
    if node.int("training_mode", 0) != 0 || [scale, bias, mean, variance].into_iter().all(constant)
    {
        return Ok(false);
    }
    let epsilon = lowering.scalar_like(node.float("epsilon", 1e-5), variance);
    let shifted = lowering.emit("Add", &[variance, &epsilon], &[]);
    let deviation = lowering.emit("Sqrt", &[&shifted], &[]);
    let slope = lowering.emit("Div", &[scale, &deviation], &[]);
    let centre = lowering.emit("Mul", &[mean, &slope], &[]);
    let offset = lowering.emit("Sub", &[bias, &centre], &[]);
    let column = lowering.constant(Tensor::vector(&[-1i64, 1]));
    let slope = lowering.emit("Reshape", &[&slope, &column], &[]);
    let offset = lowering.emit("Reshape", &[&offset, &column], &[]);
    let reversed = lowering.emit("Transpose", &[need(node, 0)?], &[]);
    let scaled = lowering.emit("Mul", &[&reversed, &slope], &[]);
    let sum = lowering.emit("Add", &[&scaled, &offset], &[]);
    lowering.emit_as("Transpose", &[&sum], made(node)?, &[]);
    Ok(true)
}

/// `(x − zero point) · scale`, per tensor or along an axis.
pub(super) fn dequantize_linear(lowering: &mut Lowering<'_>, node: &Node) -> Result<bool> {
    let (x, scale) = (need(node, 0)?, need(node, 1)?);
    let (Some(rank), Some(scale_rank)) = (lowering.rank(x), lowering.rank(scale)) else {
        return Ok(false);
    };
    if lowering.initializer(scale).is_some() || scale_rank > 1 || node.int("block_size", 0) != 0 {
        return Ok(false);
    }
    let axis = node.int("axis", 1);
    let axis = if axis < 0 { axis + rank as i64 } else { axis };
    let mut shape = vec![1; if scale_rank == 0 { 0 } else { rank }];
    if let Some(dim) = shape.get_mut(axis as usize) {
        *dim = -1i64;
    }
    let shape = lowering.constant(Tensor::vector(&shape));
    let float = [("to", to(lowering.dtype(scale)))];
    let mut levels = lowering.emit("Cast", &[x], &float);
    if let Some(zero) = node.input(2) {
        let zero = lowering.emit("Cast", &[zero], &float);
        let zero = lowering.emit("Reshape", &[&zero, &shape], &[]);
        levels = lowering.emit("Sub", &[&levels, &zero], &[]);
    }
    let scale = lowering.emit("Reshape", &[scale, &shape], &[]);
    lowering.emit_as("Mul", &[&levels, &scale], made(node)?, &[]);
    Ok(true)
}
