//! Rewrites operator forms that the engine lacks, or computes otherwise than the specification, into forms that
//! it has. The result computes the same tensors under the same names. One small function per operator, in a table.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use crate::dtypes;
use crate::encode::data_type;
use crate::error::{Code, Error, Result};
use crate::model::{Attribute, Graph, Model, Node};
use crate::tensor::{DType, Tensor};

mod indexing;
mod losses;
mod parameters;
mod products;
pub(crate) mod ranks;
mod recurrent;
mod repeats;
mod rounding;
mod transposed;

/// Emits what replaces the node and yields true, or leaves the node alone and yields false.
type Rule = fn(&mut Lowering<'_>, &Node) -> Result<bool>;

const RULES: &[(&str, Rule)] = &[
    ("BatchNormalization", parameters::batch_normalization),
    ("Cast", cast),
    ("Celu", celu),
    ("Compress", indexing::compress),
    ("ConvTranspose", transposed::conv_transpose),
    ("DequantizeLinear", parameters::dequantize_linear),
    ("Div", rounding::div),
    ("Einsum", products::einsum),
    ("GRU", recurrent::recurrent),
    ("GatherND", indexing::gather_nd),
    ("Gemm", products::gemm),
    ("LSTM", recurrent::recurrent),
    ("LogSoftmax", log_softmax),
    ("MatMul", products::mat_mul),
    ("Mean", mean),
    ("NegativeLogLikelihoodLoss", losses::negative_log_likelihood),
    ("OneHot", indexing::one_hot),
    ("QuantizeLinear", parameters::quantize_linear),
    ("RNN", recurrent::recurrent),
    ("ReduceMax", reduce_bool),
    ("ReduceMin", reduce_bool),
    ("ScatterND", indexing::scatter_nd),
    ("Sigmoid", sigmoid),
    ("SoftmaxCrossEntropyLoss", losses::softmax_cross_entropy),
    ("Sub", products::sub),
];

fn rule(op: &str) -> Option<Rule> {
    RULES.binary_search_by_key(&op, |(name, _)| name).ok().map(|index| RULES[index].1)
}

/// The model as the engine can load it.
pub(crate) fn for_engine(model: &Model) -> Result<Cow<'_, Model>> {
    if !needs_lowering(&model.graph) {
        return Ok(Cow::Borrowed(model));
    }
    let mut taken = BTreeSet::new();
    collect_names(&model.graph, &mut taken);
    let graph = lower_graph(&model.graph, model.opset, &BTreeMap::new(), &mut taken)?;
    Ok(Cow::Owned(Model { opset: model.opset, graph }))
}

fn needs_lowering(graph: &Graph) -> bool {
    graph.nodes.iter().any(|node| {
        rule(&node.op).is_some() || node.op == "Expand" || node.subgraphs().any(needs_lowering)
    })
}

fn collect_names(graph: &Graph, names: &mut BTreeSet<String>) {
    names.extend(graph.tensor_names().into_iter().map(str::to_owned));
    graph
        .nodes
        .iter()
        .flat_map(Node::subgraphs)
        .for_each(|subgraph| collect_names(subgraph, names));
}

fn lower_graph(
    graph: &Graph,
    opset: i64,
    outer: &BTreeMap<String, DType>,
    taken: &mut BTreeSet<String>,
) -> Result<Graph> {
    let mut lowering = Lowering {
        graph,
        opset,
        producers: graph.producers(),
        consumers: graph.consumers(),
        ranks: ranks::propagate(graph),
        dtypes: dtypes::propagate(graph, outer),
        nodes: Vec::with_capacity(graph.nodes.len()),
        initializers: BTreeMap::new(),
        taken,
    };
    for node in &graph.nodes {
        let first = lowering.nodes.len();
        let replaced = match rule(&node.op) {
            Some(rule) => rule(&mut lowering, node).map_err(|e| e.context(node.describe()))?,
            None => false,
        };
        if replaced {
            lowering.trace_back(first, node);
        } else {
            let mut node = node.clone();
            for attribute in node.attributes.values_mut() {
                if let Attribute::Graph(subgraph) = attribute {
                    **subgraph = lower_graph(subgraph, opset, &lowering.dtypes, lowering.taken)?;
                }
            }
            lowering.nodes.push(node);
        }
    }
    repeats::write_out(&mut lowering);
    let (nodes, added) = (lowering.nodes, lowering.initializers);
    let mut lowered = Graph {
        name: graph.name.clone(),
        nodes,
        initializers: graph.initializers.clone(),
        inputs: graph.inputs.clone(),
        outputs: graph.outputs.clone(),
    };
    lowered.initializers.extend(added);
    widen_bfloat16(&mut lowered);
    Ok(lowered)
}

/// The engine has no bfloat16. Weights of that type are only ever cast, so they are stored as what they become.
fn widen_bfloat16(graph: &mut Graph) {
    let only_cast = |graph: &Graph, name: &str| {
        graph.nodes.iter().all(|node| node.op == "Cast" || !node.reads().contains(&name))
            && graph.output(name).is_none()
    };
    let narrow: Vec<String> = graph
        .initializers
        .iter()
        .filter(|(name, tensor)| tensor.dtype() == DType::BF16 && only_cast(graph, name))
        .map(|(name, _)| name.clone())
        .collect();
    for name in narrow {
        if let Some(tensor) = graph.initializers.get_mut(&name)
            && let Ok(values) = tensor.to_f64()
        {
            let wide: Vec<f32> = values.into_iter().map(|value| value as f32).collect();
            if let Ok(wide) = Tensor::new(tensor.shape().to_vec(), &wide) {
                *tensor = wide;
            }
        }
    }
}

/// One graph while it is lowered.
struct Lowering<'a> {
    graph: &'a Graph,
    opset: i64,
    producers: BTreeMap<&'a str, usize>,
    consumers: BTreeMap<&'a str, Vec<usize>>,
    ranks: BTreeMap<String, usize>,
    dtypes: BTreeMap<String, DType>,
    nodes: Vec<Node>,
    initializers: BTreeMap<String, Tensor>,
    taken: &'a mut BTreeSet<String>,
}

impl Lowering<'_> {
    /// Adds a node; yields the fresh name of its result.
    fn emit(&mut self, op: &str, inputs: &[&str], attributes: &[(&str, Attribute)]) -> String {
        let name = self.fresh(op);
        self.emit_as(op, inputs, &name, attributes);
        name
    }

    /// Adds a node that makes `output`.
    fn emit_as(
        &mut self,
        op: &str,
        inputs: &[&str],
        output: &str,
        attributes: &[(&str, Attribute)],
    ) {
        let mut node = Node::new(op, inputs, &[output]);
        node.attributes =
            attributes.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let dtype = dtypes::result(&node, 0, &self.dtypes);
        self.dtypes.insert(output.to_owned(), dtype);
        self.nodes.push(node);
    }

    /// Adds an initializer.
    fn constant(&mut self, tensor: Tensor) -> String {
        let name = self.fresh("constant");
        self.dtypes.insert(name.clone(), tensor.dtype());
        self.initializers.insert(name.clone(), tensor);
        name
    }

    /// Adds a scalar of the dtype of the tensor `like`.
    fn scalar_like(&mut self, value: f32, like: &str) -> String {
        let name = self.constant(Tensor::scalar(value));
        match self.dtypes.get(like) {
            Some(DType::F32) | None => name,
            Some(dtype) => self.emit("Cast", &[&name], &[("to", to(*dtype))]),
        }
    }

    /// Names the nodes from `first` on after the one that they stand for, so that what the engine says of them names it.
    fn trace_back(&mut self, first: usize, origin: &Node) {
        let name = if origin.name.is_empty() {
            origin.makes().next().unwrap_or_default()
        } else {
            origin.name.as_str()
        };
        for (number, node) in self.nodes.iter_mut().skip(first).enumerate() {
            node.name = format!("{name}/{}.{number}", node.op);
        }
    }

    fn fresh(&mut self, base: &str) -> String {
        let mut number = self.taken.len();
        loop {
            let name = format!("lowered/{base}.{number}");
            if self.taken.insert(name.clone()) {
                return name;
            }
            number += 1;
        }
    }

    fn dtype(&self, name: &str) -> DType {
        self.dtypes.get(name).copied().unwrap_or(DType::F32)
    }

    /// The operator that makes a tensor, seen through copies; the empty name where none does.
    fn maker(&self, name: &str) -> &str {
        let mut node = self.producers.get(name).and_then(|index| self.graph.nodes.get(*index));
        while let Some(copy) =
            node.filter(|node| matches!(node.op.as_str(), "Identity" | "Dropout"))
        {
            let source = copy.input(0).and_then(|name| self.producers.get(name));
            node = source.and_then(|index| self.graph.nodes.get(*index));
        }
        node.map(|node| node.op.as_str()).unwrap_or_default()
    }

    /// The nodes that read a tensor.
    fn readers(&self, name: &str) -> impl Iterator<Item = &Node> {
        let indices = self.consumers.get(name).map(Vec::as_slice).unwrap_or_default();
        indices.iter().filter_map(|index| self.graph.nodes.get(*index))
    }

    /// Whether a node's first result is a float tensor.
    fn makes_floats(&self, node: &Node) -> bool {
        node.makes().next().is_some_and(|made| self.dtype(made).is_float())
    }

    fn initializer(&self, name: &str) -> Option<&Tensor> {
        self.graph.initializers.get(name)
    }

    /// The rank of a tensor, where declarations and constants tell it.
    fn rank(&self, name: &str) -> Option<usize> {
        self.ranks.get(name).copied()
    }
}

/// The attribute `to` of `Cast`.
fn to(dtype: DType) -> Attribute {
    Attribute::Int(i64::from(data_type(dtype) as i32))
}

/// Reads of a node that its arity guarantees; an absent one is an error, not a panic.
fn need(node: &Node, index: usize) -> Result<&str> {
    node.input(index)
        .ok_or_else(|| Error::new(Code::ModelInvalid, format!("it lacks its input {index}")))
}

fn made(node: &Node) -> Result<&str> {
    node.makes().next().ok_or_else(|| Error::new(Code::ModelInvalid, "it makes nothing"))
}

/// Casting to a type that the engine lacks, and casting what [`widen_bfloat16`] stores in another type.
fn cast(_: &mut Lowering<'_>, node: &Node) -> Result<bool> {
    match dtypes::numbered(node.int("to", 0)) {
        Some(DType::BF16 | DType::String) | None => Err(Error::new(
            Code::ModelUnsupported,
            format!("the engine cannot cast to the data type {}", node.int("to", 0)),
        )
        .with_hint("export the model in float32")),
        Some(_) => Ok(false),
    }
}

/// max(0, x) + min(0, α (exp(x / α) − 1)); the engine leaves out the division.
fn celu(lowering: &mut Lowering<'_>, node: &Node) -> Result<bool> {
    let alpha = node.float("alpha", 1.0);
    if alpha == 1.0 {
        return Ok(false);
    }
    let x = need(node, 0)?;
    let inverse = lowering.scalar_like(1.0 / alpha, x);
    let zero = lowering.scalar_like(0.0, x);
    let scaled = lowering.emit("Mul", &[x, &inverse], &[]);
    let elu = lowering.emit("Elu", &[&scaled], &[("alpha", Attribute::Float(alpha))]);
    let negative = lowering.emit("Min", &[&elu, &zero], &[]);
    let positive = lowering.emit("Relu", &[x], &[]);
    lowering.emit_as("Add", &[&positive, &negative], made(node)?, &[]);
    Ok(true)
}

/// x − max − log Σ exp(x − max); the engine takes the logarithm of the softmax, which is −∞ for small shares.
fn log_softmax(lowering: &mut Lowering<'_>, node: &Node) -> Result<bool> {
    let x = need(node, 0)?;
    let axis = node.int("axis", -1);
    let axes = lowering.constant(Tensor::vector(&[axis]));
    // The axes of ReduceMax became an input at operator set 18, those of ReduceSum at 13.
    let max = match lowering.opset {
        18.. => lowering.emit("ReduceMax", &[x, &axes], &[]),
        _ => lowering.emit("ReduceMax", &[x], &[("axes", Attribute::Ints(vec![axis]))]),
    };
    let shifted = lowering.emit("Sub", &[x, &max], &[]);
    let exponential = lowering.emit("Exp", &[&shifted], &[]);
    let sum = lowering.emit("ReduceSum", &[&exponential, &axes], &[]);
    let log = lowering.emit("Log", &[&sum], &[]);
    lowering.emit_as("Sub", &[&shifted, &log], made(node)?, &[]);
    Ok(true)
}

/// 1 / (1 + exp(−x)); the engine's approximation stops at 5e-7, which a gradient would take for a slope.
fn sigmoid(lowering: &mut Lowering<'_>, node: &Node) -> Result<bool> {
    let x = need(node, 0)?;
    let one = lowering.scalar_like(1.0, x);
    let negative = lowering.emit("Neg", &[x], &[]);
    let exponential = lowering.emit("Exp", &[&negative], &[]);
    let sum = lowering.emit("Add", &[&exponential, &one], &[]);
    lowering.emit_as("Reciprocal", &[&sum], made(node)?, &[]);
    Ok(true)
}

/// The sum times 1 / n; the engine divides without bringing its operands to one rank.
fn mean(lowering: &mut Lowering<'_>, node: &Node) -> Result<bool> {
    let inputs: Vec<&str> = node.inputs.iter().map(String::as_str).collect();
    let share = lowering.scalar_like(1.0 / inputs.len() as f32, need(node, 0)?);
    let sum = lowering.emit("Sum", &inputs, &[]);
    lowering.emit_as("Mul", &[&sum, &share], made(node)?, &[]);
    Ok(true)
}

/// Booleans are reduced as integers.
fn reduce_bool(lowering: &mut Lowering<'_>, node: &Node) -> Result<bool> {
    let x = need(node, 0)?;
    if lowering.dtype(x) != DType::Bool {
        return Ok(false);
    }
    let wide = lowering.emit("Cast", &[x], &[("to", to(DType::I32))]);
    let mut reduced = node.clone();
    reduced.inputs[0] = wide;
    let name = lowering.fresh(&node.op);
    reduced.outputs = vec![name.clone()];
    lowering.nodes.push(reduced);
    lowering.emit_as("Cast", &[&name], made(node)?, &[("to", to(DType::Bool))]);
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_for_its_search() {
        assert!(RULES.is_sorted_by_key(|(name, _)| name));
    }
}
