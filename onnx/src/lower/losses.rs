//! The losses that exporters put into a graph, from gathering and reducing. The engine has neither.

use super::{Lowering, made, need, to};
use crate::error::Result;
use crate::model::{Attribute, Node};
use crate::tensor::{DType, Tensor};

/// `−weight[target] · input[target]`, classes on axis 1.
pub(super) fn negative_log_likelihood(lowering: &mut Lowering<'_>, node: &Node) -> Result<bool> {
    let (input, target) = (need(node, 0)?, need(node, 1)?);
    likelihood(lowering, node, input, target, made(node)?)?;
    Ok(true)
}

/// The above of the logarithm of the softmax, which is the second output.
pub(super) fn softmax_cross_entropy(lowering: &mut Lowering<'_>, node: &Node) -> Result<bool> {
    let (scores, target) = (need(node, 0)?, need(node, 1)?);
    let named = node.outputs.get(1).filter(|name| !name.is_empty()).cloned();
    let logarithm = named.unwrap_or_else(|| lowering.fresh("LogSoftmax"));
    let axis = Attribute::Int(1);
    let softmax = Node::new("LogSoftmax", &[scores], &[&logarithm]).with("axis", axis);
    super::log_softmax(lowering, &softmax)?;
    if let Some(loss) = node.outputs.first().filter(|name| !name.is_empty()) {
        likelihood(lowering, node, &logarithm, target, loss)?;
    }
    Ok(true)
}

fn likelihood(
    lowering: &mut Lowering<'_>,
    node: &Node,
    input: &str,
    target: &str,
    output: &str,
) -> Result<()> {
    let whole = [("to", to(DType::I64))];
    let mut target = lowering.emit("Cast", &[target], &whole);
    let mut weight = None;
    if let Some(Attribute::Int(ignored)) = node.attributes.get("ignore_index") {
        // An ignored id may lie outside the classes, so it reads class 0 and weighs nothing.
        let ignored = lowering.constant(Tensor::scalar(*ignored));
        let zero = lowering.constant(Tensor::scalar(0i64));
        let skip = lowering.emit("Equal", &[&target, &ignored], &[]);
        target = lowering.emit("Where", &[&skip, &zero, &target], &[]);
        let counts = lowering.emit("Not", &[&skip], &[]);
        let float = [("to", to(lowering.dtype(input)))];
        weight = Some(lowering.emit("Cast", &[&counts], &float));
    }
    if let Some(classes) = node.input(2) {
        let picked = lowering.emit("Gather", &[classes, &target], &[]);
        weight = Some(match weight {
            Some(weight) => lowering.emit("Mul", &[&weight, &picked], &[]),
            None => picked,
        });
    }
    let axis = lowering.constant(Tensor::vector(&[1i64]));
    let column = lowering.emit("Unsqueeze", &[&target, &axis], &[]);
    let picked = lowering.emit("GatherElements", &[input, &column], &[("axis", Attribute::Int(1))]);
    let picked = lowering.emit("Squeeze", &[&picked, &axis], &[]);
    let mut loss = lowering.emit("Neg", &[&picked], &[]);
    if let Some(weight) = &weight {
        loss = lowering.emit("Mul", &[&loss, weight], &[]);
    }
    reduce(lowering, node.string("reduction", "mean"), &loss, weight.as_deref(), output);
    Ok(())
}

/// The mean is that of the weights: Σ loss / Σ weight.
fn reduce(
    lowering: &mut Lowering<'_>,
    reduction: &str,
    loss: &str,
    weight: Option<&str>,
    output: &str,
) {
    let all = [("keepdims", Attribute::Int(0))];
    match (reduction, weight) {
        ("none", _) => lowering.emit_as("Identity", &[loss], output, &[]),
        ("sum", _) => lowering.emit_as("ReduceSum", &[loss], output, &all),
        (_, None) => lowering.emit_as("ReduceMean", &[loss], output, &all),
        (_, Some(weight)) => {
            let sum = lowering.emit("ReduceSum", &[loss], &all);
            let total = lowering.emit("ReduceSum", &[weight], &all);
            lowering.emit_as("Div", &[&sum, &total], output, &[]);
        }
    }
}
