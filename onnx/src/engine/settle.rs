//! Tensors that the engine must take as they are. It merges operators where it sees a chance, moves transpositions
//! through them, and so changes in which order a reduction adds. A model that is cut shows it less, and would then
//! round otherwise than the whole. So what a reduction reads is settled: an operator that copies nothing, and that no
//! rewriting looks through.

use std::collections::{BTreeMap, BTreeSet};

use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

use crate::model::{Graph, Node};

/// The operator's name in a graph.
pub(super) const NAME: &str = "Settled";

/// Lets every node of the main graph read settled tensors where it would round otherwise.
pub(super) fn settle(graph: &mut Graph) {
    let mut prefix = "settled/".to_owned();
    while graph.tensor_names().iter().any(|name| name.starts_with(&prefix)) {
        prefix.push('/');
    }
    let nodes = std::mem::take(&mut graph.nodes);
    let makers: BTreeMap<&str, &Node> =
        nodes.iter().flat_map(|node| node.makes().map(move |made| (made, node))).collect();
    let constants = constants(graph, &nodes);
    let is_constant = |name: &str| constants.contains(name);
    let mut settled: BTreeSet<&str> = BTreeSet::new();
    let mut ordered = Vec::with_capacity(nodes.len());
    for node in &nodes {
        let mut reader = node.clone();
        for (index, read) in reader.inputs.iter_mut().enumerate() {
            let Some(name) = node.input(index).filter(|name| !is_constant(name)) else { continue };
            if !must_settle(node, index, makers.get(name).copied(), &is_constant) {
                continue;
            }
            *read = format!("{prefix}{name}");
            if settled.insert(name) {
                ordered.push(Node::new(NAME, &[name], &[read.as_str()]));
            }
        }
        ordered.push(reader);
    }
    graph.nodes = ordered;
}

/// Takes the operators out again, once nothing is rewritten any more: then they only cost a step of the plan each.
pub(super) fn release(model: &mut TypedModel) -> TractResult<()> {
    let is_settled = |node: &&TypedNode| node.op_is::<Settled>();
    let settled: Vec<usize> = model.nodes().iter().filter(is_settled).map(|n| n.id).collect();
    for node in settled {
        if let Some(patch) = TypedModelPatch::shunt_one_op(model, model.node(node))? {
            patch.apply(model)?;
        }
    }
    model.compact()
}

/// The tensors that follow from weights and shapes alone: the engine knows their values when it compiles.
fn constants<'a>(graph: &'a Graph, nodes: &'a [Node]) -> BTreeSet<&'a str> {
    let mut known: BTreeSet<&str> = graph.initializers.keys().map(String::as_str).collect();
    for node in nodes {
        let of_shape = matches!(node.op.as_str(), "Shape" | "Size");
        if of_shape || node.reads().iter().all(|name| known.contains(name)) {
            known.extend(node.makes());
        }
    }
    known
}

/// Whether what a node reads from the maker must be settled.
fn must_settle(
    node: &Node,
    index: usize,
    maker: Option<&Node>,
    is_constant: &dyn Fn(&str) -> bool,
) -> bool {
    let made_by = |ops: &[&str]| maker.is_some_and(|maker| ops.contains(&maker.op.as_str()));
    // Merged with the reshaping, the product would sum over several axes one after the other.
    let reshaped = made_by(&["Flatten", "Reshape", "Squeeze", "Unsqueeze"]);
    match node.op.as_str() {
        "GRU" | "GlobalAveragePool" | "LSTM" | "LogSoftmax" | "RNN" | "Softmax" => true,
        // Of a kernel per channel the engine makes a plain product, merges that with a product before it, and then finds
        // that the shapes do not fit.
        "ConvTranspose" => index == 0,
        "BatchNormalization" => false,
        "Gemm" | "MatMul" => reshaped,
        // A convolution that takes over a transposition sums over taps and channels in another order.
        "Conv" => reshaped || made_by(&["Transpose"]),
        // A product of 16-bit floats that is widened would not be rounded first.
        "Cast" => made_by(&["Gemm", "MatMul"]),
        // Two constant factors would be multiplied by each other first.
        "Div" | "Mul" => {
            let scales = |node: &Node| node.inputs.iter().any(|name| is_constant(name));
            scales(node)
                && maker.is_some_and(|maker| {
                    maker.op == "ReduceMean"
                        || matches!(maker.op.as_str(), "Div" | "Mul") && scales(maker)
                })
        }
        op => index == 0 && (op.starts_with("Reduce") || op.ends_with("Normalization")),
    }
}

/// Makes the operator from a node of the graph.
pub(super) fn build(
    _: &tract_onnx::model::ParsingContext<'_>,
    _: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    Ok((expand(Settle), vec![]))
}

/// The operator before types and shapes are known.
#[derive(Clone, Debug)]
struct Settle;

impl Expansion for Settle {
    fn name(&self) -> StaticName {
        NAME.into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 1)?;
        check_output_arity(outputs, 1)?;
        solver.equals(&outputs[0].datum_type, &inputs[0].datum_type)?;
        solver.equals(&outputs[0].shape, &inputs[0].shape)
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        model.wire_node(prefix, Settled, inputs)
    }
}

/// Hands on what it reads. It says nothing of axes, so that none is moved through it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Settled;

impl Op for Settled {
    fn name(&self) -> StaticName {
        NAME.into()
    }

    op_as_typed_op!();
}

impl EvalOp for Settled {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        Ok(inputs)
    }
}

impl TypedOp for Settled {
    as_op!();

    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec![inputs[0].without_value()])
    }
}
