//! The table of gradient rules: one row per operator.

use super::builder::Builder;
use super::{
    activation, convolution, elementwise, indexing, layout, linear, normalisation, pooling,
    reduction, resize, softmax,
};
use crate::error::{Code, Error, Result};
use crate::model::Node;

/// How an operator passes gradients back.
pub(super) enum Gradient {
    /// From the gradient of the first output.
    First(fn(&mut Builder, &Node, &str) -> Result<()>),
    /// From the gradients of all outputs, some of which may be absent.
    Each(fn(&mut Builder, &Node, &[Option<String>]) -> Result<()>),
    /// The operator is piecewise constant: no gradient passes.
    Zero,
    /// The node is written out in other operators before the sweep.
    Unrolled,
}

/// A row of the table.
pub struct Rule {
    /// The operator of the standard domain.
    pub op: &'static str,
    /// Which inputs get a gradient and what is not covered, for the documentation.
    pub scope: &'static str,
    pub(super) gradient: Gradient,
}

/// All rules, sorted by operator.
pub fn rules() -> &'static [Rule] {
    RULES
}

/// The rule of an operator.
pub(super) fn find(op: &str) -> Option<&'static Rule> {
    RULES.binary_search_by(|rule| rule.op.cmp(op)).ok().and_then(|index| RULES.get(index))
}

/// The error for a node without a rule.
pub(super) fn missing(node: &Node) -> Error {
    Error::new(Code::GradientUnsupported, format!("no gradient rule for {}", node.describe()))
        .with_hint(format!(
            "replace the operator {} between the trainable tensors and the loss by ones with a rule, attach the patch \
             after it, or train tensors that do not pass through it",
            node.op
        ))
}

const fn first(
    op: &'static str,
    scope: &'static str,
    f: fn(&mut Builder, &Node, &str) -> Result<()>,
) -> Rule {
    Rule { op, scope, gradient: Gradient::First(f) }
}

const fn each(
    op: &'static str,
    scope: &'static str,
    f: fn(&mut Builder, &Node, &[Option<String>]) -> Result<()>,
) -> Rule {
    Rule { op, scope, gradient: Gradient::Each(f) }
}

const fn unrolled(op: &'static str) -> Rule {
    Rule {
        op,
        scope: "all inputs, unrolled over the steps; no sequence_lens, usual activations",
        gradient: Gradient::Unrolled,
    }
}

const fn zero(op: &'static str) -> Rule {
    Rule { op, scope: "piecewise constant: stops the gradient", gradient: Gradient::Zero }
}

const RULES: &[Rule] = &[
    first("Abs", "input", elementwise::abs),
    first("Acos", "input", elementwise::acos),
    first("Acosh", "input", elementwise::acosh),
    first("Add", "both inputs, broadcast", elementwise::add),
    first("Asin", "input", elementwise::asin),
    first("Asinh", "input", elementwise::asinh),
    first("Atan", "input", elementwise::atan),
    first("Atanh", "input", elementwise::atanh),
    first("AveragePool", "input", pooling::average_pool),
    first("BatchNormalization", "all inputs, inference form", normalisation::batch),
    first("Cast", "input, float to float", elementwise::cast),
    first("CastLike", "input, float to float", elementwise::cast),
    zero("Ceil"),
    first("Celu", "input", activation::celu),
    first("Clip", "input, min, max; zero on the bounds", activation::clip),
    first("Concat", "all inputs", layout::concat),
    first(
        "Conv",
        "input, weight, bias; groups, stride, dilation, pads, auto_pad",
        convolution::conv,
    ),
    first(
        "ConvTranspose",
        "input, weight, bias; groups, stride, dilation, pads, auto_pad",
        convolution::transposed,
    ),
    first("Cos", "input", elementwise::cos),
    first("Cosh", "input", elementwise::cosh),
    first("CumSum", "input", reduction::cumulative),
    first("DepthToSpace", "input, both modes", layout::depth_to_space),
    first("DequantizeLinear", "scale, per tensor and per axis", elementwise::dequantize),
    first("Div", "both inputs, broadcast", elementwise::div),
    first("Dropout", "input, inference form", elementwise::dropout),
    first("Einsum", "all inputs, no repeated index within a term", linear::einsum),
    first("Elu", "input", activation::elu),
    first("Erf", "input", elementwise::erf),
    first("Exp", "input", elementwise::exp),
    first("Expand", "input", layout::expand),
    first("Flatten", "input", layout::reshape),
    zero("Floor"),
    unrolled("GRU"),
    first("Gather", "data", indexing::gather),
    first("GatherElements", "data", indexing::gather_elements),
    first("GatherND", "data, batch_dims 0", indexing::gather_nd),
    first("Gelu", "input, both approximations", activation::gelu),
    first("Gemm", "all inputs", linear::gemm),
    first("GlobalAveragePool", "input", pooling::global_average),
    first("GlobalMaxPool", "input; ties share", pooling::global_max),
    first("GroupNormalization", "input, scale, bias", normalisation::group),
    first("HardSigmoid", "input; zero on the bounds", activation::hard_sigmoid),
    first("HardSwish", "input", activation::hard_swish),
    first("Identity", "input", elementwise::identity),
    first("InstanceNormalization", "input, scale, bias", normalisation::instance),
    first("LRN", "input", normalisation::local_response),
    unrolled("LSTM"),
    first("LayerNormalization", "input, scale, bias", normalisation::layer),
    first("LeakyRelu", "input", activation::leaky_relu),
    first("Log", "input", elementwise::log),
    first("LogSoftmax", "input", softmax::log_softmax),
    first("LpNormalization", "input, p 1 and 2", normalisation::lp),
    first("MatMul", "both inputs, all ranks, broadcast batch", linear::matmul),
    first("Max", "all inputs, broadcast; ties share", elementwise::extreme),
    first("MaxPool", "input; the first of equal elements wins", pooling::max_pool),
    first("Mean", "all inputs, broadcast", elementwise::mean),
    first("MeanVarianceNormalization", "input", normalisation::mean_variance),
    first("Min", "all inputs, broadcast; ties share", elementwise::extreme),
    first("Mish", "input", activation::mish),
    first("Mul", "both inputs, broadcast", elementwise::mul),
    first("Neg", "input", elementwise::neg),
    first("PRelu", "both inputs, broadcast", activation::prelu),
    first("Pad", "input; constant, edge, reflect", layout::pad),
    first(
        "Pow",
        "both inputs, broadcast; the exponent where the base is positive",
        elementwise::pow,
    ),
    unrolled("RNN"),
    first("Reciprocal", "input", elementwise::reciprocal),
    first("ReduceL1", "input", reduction::l1),
    first("ReduceL2", "input", reduction::l2),
    first("ReduceLogSum", "input", reduction::log_sum),
    first("ReduceLogSumExp", "input", reduction::log_sum_exp),
    first("ReduceMax", "input; ties share", reduction::extreme),
    first("ReduceMean", "input", reduction::mean),
    first("ReduceMin", "input; ties share", reduction::extreme),
    first("ReduceProd", "input without zeros", reduction::product),
    first("ReduceSum", "input", reduction::sum),
    first("ReduceSumSquare", "input", reduction::sum_square),
    first("Relu", "input", activation::relu),
    first("Reshape", "input", layout::reshape),
    first("Resize", "input; nearest, linear, cubic, without antialias or crop", resize::resize),
    zero("Round"),
    first("ScatterElements", "data, updates; reduction none and add", indexing::scatter_elements),
    first("ScatterND", "data, updates; reduction none and add", indexing::scatter_nd),
    first("Selu", "input", activation::selu),
    zero("Shape"),
    first("Sigmoid", "input", activation::sigmoid),
    zero("Sign"),
    first("Sin", "input", elementwise::sin),
    first("Sinh", "input", elementwise::sinh),
    zero("Size"),
    first("Slice", "input, any step", layout::slice),
    first("Softmax", "input", softmax::softmax),
    first("Softplus", "input", activation::softplus),
    first("Softsign", "input", activation::softsign),
    first("SpaceToDepth", "input", layout::space_to_depth),
    each("Split", "input", layout::split),
    first("Sqrt", "input", elementwise::sqrt),
    first("Squeeze", "input", layout::reshape),
    first("Sub", "both inputs, broadcast", elementwise::sub),
    first("Sum", "all inputs, broadcast", elementwise::sum),
    first("Tan", "input", elementwise::tan),
    first("Tanh", "input", activation::tanh),
    first("ThresholdedRelu", "input", activation::thresholded_relu),
    first("Tile", "input", layout::tile),
    first("TopK", "input, by its values", indexing::top_k),
    first("Transpose", "input", layout::transpose),
    first("Trilu", "input", layout::triangle),
    first("Unsqueeze", "input", layout::reshape),
    first("Where", "both branches, broadcast", elementwise::select),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_has_no_operator_twice() {
        assert!(RULES.windows(2).all(|pair| pair[0].op < pair[1].op));
    }

    #[test]
    fn a_rule_is_found_by_its_operator() {
        assert!(RULES.iter().all(|rule| find(rule.op).is_some_and(|found| found.op == rule.op)));
        assert!(find("NonMaxSuppression").is_none());
    }
}
