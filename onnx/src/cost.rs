//! What a model costs, from its graph and shapes alone: multiply-accumulate operations, bytes of weights, and
//! the bytes of activations that are alive at once.

use std::collections::{BTreeMap, BTreeSet};

use crate::engine::Shapes;
use crate::error::{Code, Error, Result};
use crate::model::{Model, Node};

/// The cost of a model or of a part of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Multiply-accumulate operations of matrix products and convolutions; cheaper operators count nothing.
    pub macs: u64,
    /// Bytes of the initializers that are read, each counted once.
    pub parameter_bytes: u64,
    /// The most bytes of inputs, intermediate tensors and outputs that are alive at the same time.
    pub peak_activation_bytes: u64,
}

/// The cost of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeCost {
    /// The node's name, or its first output where it has none.
    pub name: String,
    /// Its operator.
    pub op: String,
    /// Multiply-accumulate operations.
    pub macs: u64,
    /// Bytes of the initializers that no earlier node reads.
    pub parameter_bytes: u64,
    /// Bytes of its results.
    pub activation_bytes: u64,
}

/// The cost of a model, and of each of its nodes in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelCost {
    /// The whole.
    pub total: Cost,
    /// By node.
    pub nodes: Vec<NodeCost>,
}

/// Counts what a model costs for the shapes that [`crate::engine::infer`] gave. Subgraphs count nothing, since
/// whether they run is not known.
pub fn cost(model: &Model, shapes: &Shapes) -> Result<ModelCost> {
    let graph = &model.graph;
    let mut counted = BTreeSet::new();
    let mut nodes = Vec::with_capacity(graph.nodes.len());
    for node in &graph.nodes {
        let mut parameter_bytes = 0;
        for name in node.reads() {
            if let Some(tensor) = graph.initializers.get(name)
                && counted.insert(name)
            {
                parameter_bytes += tensor.bytes().len() as u64;
            }
        }
        nodes.push(NodeCost {
            name: if node.name.is_empty() {
                node.outputs.first().cloned().unwrap_or_default()
            } else {
                node.name.clone()
            },
            op: node.op.clone(),
            macs: macs(node, shapes)?,
            parameter_bytes,
            activation_bytes: node.makes().map(|name| bytes(shapes, name)).sum::<Result<u64>>()?,
        });
    }
    let total = Cost {
        macs: nodes.iter().map(|node| node.macs).sum(),
        parameter_bytes: nodes.iter().map(|node| node.parameter_bytes).sum(),
        peak_activation_bytes: peak(model, shapes)?,
    };
    Ok(ModelCost { total, nodes })
}

fn shape<'a>(shapes: &'a Shapes, name: &str) -> Result<&'a [usize]> {
    shapes.get(name).map(|(_, shape)| shape.as_slice()).ok_or_else(|| {
        Error::new(Code::UnknownTensor, format!("the shape of `{name}` is not known"))
            .with_hint("pass the shapes that were inferred for this model")
    })
}

fn count(shape: &[usize]) -> u64 {
    shape.iter().fold(1u64, |product, size| product.saturating_mul(*size as u64))
}

fn bytes(shapes: &Shapes, name: &str) -> Result<u64> {
    let size = shapes.get(name).map_or(0, |(dtype, _)| dtype.size() as u64);
    Ok(count(shape(shapes, name)?).saturating_mul(size))
}

/// Multiply-accumulate operations of one node; each formula is the size of the loop nest that defines the operator.
fn macs(node: &Node, shapes: &Shapes) -> Result<u64> {
    let input = |index: usize| -> Result<&[usize]> {
        node.input(index).map_or(Ok(&[]), |name| shape(shapes, name))
    };
    let output = || -> Result<u64> {
        node.makes().next().map_or(Ok(0), |name| Ok(count(shape(shapes, name)?)))
    };
    let per_weight = |weight: &[usize]| count(weight.get(1..).unwrap_or_default());
    Ok(match node.op.as_str() {
        "Conv" | "ConvInteger" => output()? * per_weight(input(1)?),
        "QLinearConv" => output()? * per_weight(input(3)?),
        "ConvTranspose" => count(input(0)?) * per_weight(input(1)?),
        "MatMul" | "MatMulInteger" | "QLinearMatMul" => {
            output()? * input(0)?.last().map_or(1, |k| *k as u64)
        }
        "Gemm" => {
            let inner =
                if node.int("transA", 0) == 0 { input(0)?.get(1) } else { input(0)?.first() };
            output()? * inner.map_or(1, |k| *k as u64)
        }
        "Einsum" => einsum(node, shapes)?,
        "LSTM" | "GRU" | "RNN" => {
            // W is [directions, gates · hidden, input], R is [directions, gates · hidden, hidden].
            let steps = count(input(0)?.get(..2).unwrap_or_default());
            steps * (count(input(1)?) + count(input(2)?))
        }
        _ => 0,
    })
}

/// The product of all index sizes, for a product of two or more tensors.
fn einsum(node: &Node, shapes: &Shapes) -> Result<u64> {
    let equation: String =
        node.string("equation", "").chars().filter(|c| !c.is_whitespace()).collect();
    let terms: Vec<&str> = equation.split("->").next().unwrap_or_default().split(',').collect();
    if terms.len() < 2 || equation.contains('.') {
        return Ok(0);
    }
    let mut sizes: BTreeMap<char, usize> = BTreeMap::new();
    for (term, name) in terms.iter().zip(&node.inputs) {
        for (index, size) in term.chars().zip(shape(shapes, name)?) {
            let known = sizes.entry(index).or_insert(*size);
            *known = (*known).max(*size);
        }
    }
    Ok(count(&sizes.into_values().collect::<Vec<_>>()))
}

/// Walks the nodes in order, keeping every tensor from where it is made to where it is read last.
fn peak(model: &Model, shapes: &Shapes) -> Result<u64> {
    let graph = &model.graph;
    let mut last_read: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, node) in graph.nodes.iter().enumerate() {
        for name in node.reads() {
            last_read.insert(name, index);
        }
    }
    for info in &graph.outputs {
        last_read.insert(&info.name, graph.nodes.len());
    }
    let mut alive = 0u64;
    for info in &graph.inputs {
        alive += bytes(shapes, &info.name)?;
    }
    let mut most = alive;
    for (index, node) in graph.nodes.iter().enumerate() {
        for name in node.makes() {
            alive += bytes(shapes, name)?;
        }
        most = most.max(alive);
        let read: BTreeSet<&str> = node.reads().into_iter().collect();
        for name in read {
            if last_read.get(name) == Some(&index) && !graph.initializers.contains_key(name) {
                alive = alive.saturating_sub(bytes(shapes, name)?);
            }
        }
        for name in node.makes().filter(|name| !last_read.contains_key(name)) {
            alive = alive.saturating_sub(bytes(shapes, name)?);
        }
    }
    Ok(most)
}
