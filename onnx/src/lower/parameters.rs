//! Operators whose parameters the engine wants as constants, for models that feed them as inputs: a training model
//! does so with every tensor that it trains.

use super::{Lowering, made, need, rounding, to};
use crate::encode::data_type;
use crate::error::Result;
use crate::model::Node;
use crate::tensor::{DType, Tensor};

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
    let shape = along_axis(lowering, node, rank, scale_rank);
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

/// `saturate(round(x / scale) + zero point)`, ties to even, per tensor or along an axis, for a scale that is computed.
pub(super) fn quantize_linear(lowering: &mut Lowering<'_>, node: &Node) -> Result<bool> {
    let (x, scale) = (need(node, 0)?, need(node, 1)?);
    if lowering.initializer(scale).is_some() || node.int("block_size", 0) != 0 {
        return Ok(false);
    }
    let number = node.int("output_dtype", i64::from(data_type(DType::U8) as i32));
    let dtype = match node.input(2) {
        Some(zero) => lowering.dtype(zero),
        None => crate::dtypes::numbered(number).unwrap_or(DType::U8),
    };
    let (low, high) = match dtype {
        DType::U8 => (0.0, 255.0),
        DType::I8 => (-128.0, 127.0),
        DType::U16 => (0.0, 65_535.0),
        DType::I16 => (-32_768.0, 32_767.0),
        _ => return Ok(false),
    };
    let (mut scale, mut zero) = (scale.to_owned(), node.input(2).map(str::to_owned));
    // Where ranks are not declared the scale must be one number: a reshape of several fails.
    let shape = match (lowering.rank(x), lowering.rank(&scale)) {
        (Some(rank), Some(scale_rank)) => along_axis(lowering, node, rank, scale_rank),
        _ => lowering.constant(Tensor::vector::<i64>(&[])),
    };
    scale = lowering.emit("Reshape", &[&scale, &shape], &[]);
    zero = zero.map(|zero| lowering.emit("Reshape", &[&zero, &shape], &[]));
    let float = [("to", to(lowering.dtype(x)))];
    let ratio = rounding::quotient(lowering, x, &scale);
    let mut levels = lowering.emit("Round", &[&ratio], &[]);
    if let Some(zero) = zero {
        let zero = lowering.emit("Cast", &[&zero], &float);
        levels = lowering.emit("Add", &[&levels, &zero], &[]);
    }
    let (low, high) = (lowering.scalar_like(low, x), lowering.scalar_like(high, x));
    let levels = lowering.emit("Max", &[&levels, &low], &[]);
    let levels = lowering.emit("Min", &[&levels, &high], &[]);
    lowering.emit_as("Cast", &[&levels], made(node)?, &[("to", to(dtype))]);
    Ok(true)
}

/// The shape in which a parameter of this rank meets a tensor: one number, or numbers along the node's axis.
fn along_axis(
    lowering: &mut Lowering<'_>,
    node: &Node,
    rank: usize,
    parameter_rank: usize,
) -> String {
    let axis = node.int("axis", 1);
    let axis = if axis < 0 { axis + rank as i64 } else { axis };
    let mut shape = vec![1; if parameter_rank == 0 { 0 } else { rank }];
    if let Some(dim) = shape.get_mut(axis as usize) {
        *dim = -1i64;
    }
    lowering.constant(Tensor::vector(&shape))
}
