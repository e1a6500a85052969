//! The operators that the engine runs, and how many tensors each reads and makes. A graph that breaks this table
//! is refused before the engine sees it, since the engine's importer indexes inputs without looking.

use std::collections::BTreeSet;

use super::sanity;
use crate::error::{Code, Error, Result};
use crate::lower::ranks;
use crate::model::{Graph, Node};

const ANY: usize = usize::MAX;

/// Operator, least and most inputs, most outputs, over the operator sets 13 to 21.
#[rustfmt::skip]
const OPERATORS: &[(&str, usize, usize, usize)] = &[
    ("Abs", 1, 1, 1),
    ("Acos", 1, 1, 1),
    ("Acosh", 1, 1, 1),
    ("Add", 2, 2, 1),
    ("And", 2, 2, 1),
    ("ArgMax", 1, 1, 1),
    ("ArgMin", 1, 1, 1),
    ("Asin", 1, 1, 1),
    ("Asinh", 1, 1, 1),
    ("Atan", 1, 1, 1),
    ("Atanh", 1, 1, 1),
    ("AveragePool", 1, 1, 1),
    ("BatchNormalization", 5, 5, 5),
    ("BitShift", 2, 2, 1),
    ("BitwiseAnd", 2, 2, 1),
    ("BitwiseNot", 1, 1, 1),
    ("BitwiseOr", 2, 2, 1),
    ("BitwiseXor", 2, 2, 1),
    ("BlackmanWindow", 1, 1, 1),
    ("Cast", 1, 1, 1),
    ("CastLike", 2, 2, 1),
    ("Ceil", 1, 1, 1),
    ("Celu", 1, 1, 1),
    ("Clip", 1, 3, 1),
    ("Compress", 2, 2, 1),
    ("Concat", 1, ANY, 1),
    ("ConstantOfShape", 1, 1, 1),
    ("Conv", 2, 3, 1),
    ("ConvInteger", 2, 4, 1),
    ("ConvTranspose", 2, 3, 1),
    ("Cos", 1, 1, 1),
    ("Cosh", 1, 1, 1),
    ("CumSum", 2, 2, 1),
    ("DepthToSpace", 1, 1, 1),
    ("DequantizeLinear", 2, 3, 1),
    ("Div", 2, 2, 1),
    ("Dropout", 1, 3, 2),
    ("DynamicQuantizeLinear", 1, 1, 3),
    ("Einsum", 1, ANY, 1),
    ("Elu", 1, 1, 1),
    ("Equal", 2, 2, 1),
    ("Erf", 1, 1, 1),
    ("Exp", 1, 1, 1),
    ("Expand", 2, 2, 1),
    ("EyeLike", 1, 1, 1),
    ("Flatten", 1, 1, 1),
    ("Floor", 1, 1, 1),
    ("GRU", 3, 6, 2),
    ("Gather", 2, 2, 1),
    ("GatherElements", 2, 2, 1),
    ("GatherND", 2, 2, 1),
    ("Gelu", 1, 1, 1),
    ("Gemm", 2, 3, 1),
    ("GlobalAveragePool", 1, 1, 1),
    ("GlobalLpPool", 1, 1, 1),
    ("GlobalMaxPool", 1, 1, 1),
    ("Greater", 2, 2, 1),
    ("GreaterOrEqual", 2, 2, 1),
    ("GridSample", 2, 2, 1),
    ("GroupNormalization", 3, 3, 1),
    ("HammingWindow", 1, 1, 1),
    ("HannWindow", 1, 1, 1),
    ("HardSigmoid", 1, 1, 1),
    ("HardSwish", 1, 1, 1),
    ("Hardmax", 1, 1, 1),
    ("Identity", 1, 1, 1),
    ("If", 1, 1, ANY),
    ("InstanceNormalization", 3, 3, 1),
    ("IsInf", 1, 1, 1),
    ("IsNaN", 1, 1, 1),
    ("LRN", 1, 1, 1),
    ("LSTM", 3, 8, 3),
    ("LayerNormalization", 2, 3, 3),
    ("LeakyRelu", 1, 1, 1),
    ("Less", 2, 2, 1),
    ("LessOrEqual", 2, 2, 1),
    ("Log", 1, 1, 1),
    ("LogSoftmax", 1, 1, 1),
    ("LpNormalization", 1, 1, 1),
    ("MatMul", 2, 2, 1),
    ("MatMulInteger", 2, 4, 1),
    ("Max", 1, ANY, 1),
    ("MaxPool", 1, 1, 2),
    ("Mean", 1, ANY, 1),
    ("MeanVarianceNormalization", 1, 1, 1),
    ("Min", 1, ANY, 1),
    ("Mish", 1, 1, 1),
    ("Mod", 2, 2, 1),
    ("Mul", 2, 2, 1),
    ("Multinomial", 1, 1, 1),
    ("Neg", 1, 1, 1),
    ("NegativeLogLikelihoodLoss", 2, 3, 1),
    ("NonMaxSuppression", 2, 5, 1),
    ("NonZero", 1, 1, 1),
    ("Not", 1, 1, 1),
    ("OneHot", 3, 3, 1),
    ("Or", 2, 2, 1),
    ("PRelu", 2, 2, 1),
    ("Pad", 2, 4, 1),
    ("Pow", 2, 2, 1),
    ("QLinearConv", 8, 9, 1),
    ("QLinearMatMul", 8, 8, 1),
    ("QuantizeLinear", 2, 3, 1),
    ("RNN", 3, 6, 2),
    ("RandomNormal", 0, 0, 1),
    ("RandomNormalLike", 1, 1, 1),
    ("RandomUniform", 0, 0, 1),
    ("RandomUniformLike", 1, 1, 1),
    ("Range", 3, 3, 1),
    ("Reciprocal", 1, 1, 1),
    ("ReduceL1", 1, 2, 1),
    ("ReduceL2", 1, 2, 1),
    ("ReduceLogSum", 1, 2, 1),
    ("ReduceLogSumExp", 1, 2, 1),
    ("ReduceMax", 1, 2, 1),
    ("ReduceMean", 1, 2, 1),
    ("ReduceMin", 1, 2, 1),
    ("ReduceProd", 1, 2, 1),
    ("ReduceSum", 1, 2, 1),
    ("ReduceSumSquare", 1, 2, 1),
    ("Relu", 1, 1, 1),
    ("Reshape", 2, 2, 1),
    ("Resize", 1, 4, 1),
    ("Round", 1, 1, 1),
    ("Scan", 1, ANY, ANY),
    ("ScatterElements", 3, 3, 1),
    ("ScatterND", 3, 3, 1),
    ("Selu", 1, 1, 1),
    ("Shape", 1, 1, 1),
    ("Shrink", 1, 1, 1),
    ("Sigmoid", 1, 1, 1),
    ("Sign", 1, 1, 1),
    ("Sin", 1, 1, 1),
    ("Sinh", 1, 1, 1),
    ("Size", 1, 1, 1),
    ("Slice", 3, 5, 1),
    ("Softmax", 1, 1, 1),
    ("SoftmaxCrossEntropyLoss", 2, 3, 2),
    ("Softplus", 1, 1, 1),
    ("Softsign", 1, 1, 1),
    ("SpaceToDepth", 1, 1, 1),
    ("Split", 1, 2, ANY),
    ("Sqrt", 1, 1, 1),
    ("Squeeze", 1, 2, 1),
    ("Sub", 2, 2, 1),
    ("Sum", 1, ANY, 1),
    ("Tan", 1, 1, 1),
    ("Tanh", 1, 1, 1),
    ("ThresholdedRelu", 1, 1, 1),
    ("Tile", 2, 2, 1),
    ("TopK", 2, 2, 2),
    ("Transpose", 1, 1, 1),
    ("Trilu", 1, 2, 1),
    ("Unsqueeze", 2, 2, 1),
    ("Where", 3, 3, 1),
    ("Xor", 2, 2, 1),
];

/// Inputs that must not be absent, beyond the least count: none of the operators allows a gap there.
fn check_node(node: &Node) -> Result<()> {
    let Some((_, least, most, outputs)) = OPERATORS
        .binary_search_by_key(&node.op.as_str(), |entry| entry.0)
        .ok()
        .map(|index| OPERATORS[index])
    else {
        return Err(Error::new(
            Code::ModelUnsupported,
            format!("{}: the engine has no operator {}", node.describe(), node.op),
        )
        .with_hint("docs/OPS.md lists the supported operators"));
    };
    if node.inputs.len() < least || node.inputs.len() > most || node.outputs.len() > outputs {
        return Err(Error::new(
            Code::ModelInvalid,
            format!(
                "{} has {} inputs and {} outputs; {} takes {least} to {most} and makes at most {outputs}",
                node.describe(),
                node.inputs.len(),
                node.outputs.len(),
                node.op,
            ),
        ));
    }
    if let Some(gap) = (0..least).find(|index| node.input(*index).is_none()) {
        return Err(Error::new(
            Code::ModelInvalid,
            format!("{} lacks its input {gap}", node.describe()),
        ));
    }
    Ok(())
}

/// Refuses operators that the engine lacks, nodes with a wrong number of inputs or outputs, and attributes or
/// constants out of all bounds.
pub(super) fn check(graph: &Graph) -> Result<()> {
    let ranks = ranks::propagate(graph);
    for node in &graph.nodes {
        check_node(node)?;
        sanity::check_attributes(node)?;
        sanity::check_axes(node, graph, &ranks)?;
        sanity::check_indices(node, graph)?;
        sanity::check_size(node, graph)?;
        for subgraph in node.subgraphs() {
            check(subgraph)?;
        }
    }
    Ok(())
}

/// The names of all operators that the engine runs.
pub fn operators() -> BTreeSet<&'static str> {
    OPERATORS.iter().map(|entry| entry.0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_for_its_search() {
        assert!(OPERATORS.is_sorted_by_key(|entry| entry.0));
    }

    #[test]
    fn an_unknown_operator_and_a_missing_input_are_refused() {
        assert_eq!(
            check_node(&Node::new("Frobnicate", &["x"], &["y"])).unwrap_err().code(),
            Code::ModelUnsupported
        );
        assert_eq!(
            check_node(&Node::new("Add", &["x"], &["y"])).unwrap_err().code(),
            Code::ModelInvalid
        );
        assert_eq!(
            check_node(&Node::new("Add", &["x", ""], &["y"])).unwrap_err().code(),
            Code::ModelInvalid
        );
        assert!(check_node(&Node::new("Clip", &["x", "", "high"], &["y"])).is_ok());
    }
}
