//! The number of dimensions of tensors, by propagation along the graph, as far as declarations and constants tell.

use std::collections::BTreeMap;

use crate::model::{Attribute, Graph, Node};

/// The rank of every tensor of the main graph whose rank can be told without running anything.
pub(crate) fn propagate(graph: &Graph) -> BTreeMap<String, usize> {
    let declared = graph
        .inputs
        .iter()
        .filter_map(|info| Some((info.name.clone(), info.shape.as_ref()?.len())));
    let weights = graph.initializers.iter().map(|(name, t)| (name.clone(), t.shape().len()));
    let mut known: BTreeMap<String, usize> = declared.chain(weights).collect();
    for node in &graph.nodes {
        if let Some(rank) = result(node, graph, &known) {
            known.extend(node.makes().map(|name| (name.to_owned(), rank)));
        }
    }
    known
}

/// The rank that all float outputs of a node have.
fn result(node: &Node, graph: &Graph, known: &BTreeMap<String, usize>) -> Option<usize> {
    let rank = |index: usize| known.get(node.input(index)?).copied();
    // How many numbers a constant input holds.
    let length = |index: usize| Some(graph.initializers.get(node.input(index)?)?.len());
    match node.op.as_str() {
        "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Min" | "Max" | "Sum" | "Mean" | "Where"
        | "Mod" | "Equal" | "Less" | "LessOrEqual" | "Greater" | "GreaterOrEqual" | "And"
        | "Or" | "Xor" => {
            (0..node.inputs.len()).map(rank).collect::<Option<Vec<_>>>()?.into_iter().max()
        }
        "MatMul" => Some(match (rank(0)?, rank(1)?) {
            (1, other) | (other, 1) => other.checked_sub(1)?,
            (left, right) => left.max(right),
        }),
        "Gemm" | "Flatten" => Some(2),
        "Shape" => Some(1),
        "Size" => Some(0),
        "Reshape" | "ConstantOfShape" => length(usize::from(node.op == "Reshape")),
        "Expand" => Some(rank(0)?.max(length(1)?)),
        "Unsqueeze" => Some(rank(0)? + length(1)?),
        "Squeeze" => rank(0)?.checked_sub(length(1)?),
        "Gather" => (rank(0)? + rank(1)?).checked_sub(1),
        "ArgMax" | "ArgMin" => rank(0)?.checked_sub(usize::from(node.int("keepdims", 1) == 0)),
        op if op.starts_with("Reduce") => {
            match (node.int("keepdims", 1), node.attributes.get("axes")) {
                (0, Some(Attribute::Ints(axes))) => rank(0)?.checked_sub(axes.len()),
                (0, _) if node.input(1).is_some() => rank(0)?.checked_sub(length(1)?),
                (0, _) if node.int("noop_with_empty_axes", 0) == 0 => Some(0),
                _ => rank(0),
            }
        }
        op if KEEPING.contains(&op) || op.ends_with("Normalization") || op.contains("Pool") => {
            rank(0)
        }
        _ => None,
    }
}

/// Operators whose outputs have the rank of their first input.
#[rustfmt::skip]
const KEEPING: &[&str] = &[
    "Abs", "Cast", "CastLike", "Ceil", "Celu", "Clip", "Concat", "Conv", "ConvTranspose", "CumSum", "DepthToSpace",
    "DequantizeLinear", "Dropout", "Elu", "Erf", "Exp", "Floor", "GatherElements", "Gelu", "HardSigmoid", "HardSwish",
    "Identity", "LeakyRelu", "Log", "LogSoftmax", "Mish", "Neg", "Not", "PRelu", "Pad", "QuantizeLinear", "Reciprocal",
    "Relu", "Resize", "Round", "ScatterElements", "ScatterND", "Selu", "Sigmoid", "Sign", "Slice", "Softmax",
    "Softplus", "Softsign", "SpaceToDepth", "Split", "Sqrt", "Tanh", "ThresholdedRelu", "Tile", "TopK", "Transpose",
    "Trilu",
];
