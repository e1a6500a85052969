//! What a model costs, from its graph and shapes alone: multiply-accumulate operations, bytes of weights, and
//! the bytes of activations that are alive at once. For open dimensions it is an [`Expression`] in their names.

use std::collections::{BTreeMap, BTreeSet};

mod expression;

pub use expression::Expression;

use crate::engine::{Dims, Shapes, symbolic};
use crate::error::{Code, Error, Result};
use crate::model::{Model, Node};
use crate::tensor::DType;

/// The cost of a model or of a part of it, in numbers or in expressions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost<S = u64> {
    /// Multiply-accumulate operations of matrix products and convolutions; cheaper operators count nothing.
    pub macs: S,
    /// Bytes of the initializers that are read, each counted once.
    pub parameter_bytes: u64,
    /// The most bytes of inputs, intermediate tensors and outputs that are alive at the same time.
    pub peak_activation_bytes: S,
}

/// The cost of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeCost<S = u64> {
    /// The node's name, or its first output where it has none.
    pub name: String,
    /// Its operator.
    pub op: String,
    /// Multiply-accumulate operations.
    pub macs: S,
    /// Bytes of the initializers that no earlier node reads.
    pub parameter_bytes: u64,
    /// Bytes of its results.
    pub activation_bytes: S,
}

/// The cost of a model, and of each of its nodes in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelCost<S = u64> {
    /// The whole.
    pub total: Cost<S>,
    /// By node.
    pub nodes: Vec<NodeCost<S>>,
}

/// Counts what a model costs for the shapes that [`crate::engine::infer`] gave. Subgraphs count nothing, since
/// whether they run is not known.
pub fn cost(model: &Model, shapes: &Shapes) -> Result<ModelCost> {
    let sized = shapes.iter().map(|(name, (dtype, shape))| {
        (name.clone(), (*dtype, shape.iter().map(|size| *size as u64).collect()))
    });
    Counter { shapes: sized.collect() }.count(model)
}

/// Counts what a model costs in terms of the dimensions that its inputs and `dims` leave open. Refuses a model in
/// which a shape depends on values.
pub fn symbolic_cost(model: &Model, dims: &Dims) -> Result<ModelCost<Expression>> {
    Counter { shapes: symbolic(model, dims)? }.count(model)
}

/// What costs are counted in.
trait Size: Clone + PartialEq + From<u64> {
    fn plus(&self, other: &Self) -> Self;
    fn minus(&self, other: &Self) -> Self;
    fn times(&self, other: &Self) -> Self;
    fn most(all: Vec<Self>) -> Self;
}

impl Size for u64 {
    fn plus(&self, other: &Self) -> Self {
        self.saturating_add(*other)
    }

    fn minus(&self, other: &Self) -> Self {
        self.saturating_sub(*other)
    }

    fn times(&self, other: &Self) -> Self {
        self.saturating_mul(*other)
    }

    fn most(all: Vec<Self>) -> Self {
        all.into_iter().max().unwrap_or_default()
    }
}

impl Size for Expression {
    fn plus(&self, other: &Self) -> Self {
        self.plus(other)
    }

    fn minus(&self, other: &Self) -> Self {
        self.minus(other)
    }

    fn times(&self, other: &Self) -> Self {
        self.times(other)
    }

    fn most(all: Vec<Self>) -> Self {
        Self::most(all)
    }
}

/// Counts over known shapes.
struct Counter<S> {
    shapes: BTreeMap<String, (DType, Vec<S>)>,
}

fn product<S: Size>(sizes: &[S]) -> S {
    sizes.iter().fold(S::from(1), |product, size| product.times(size))
}

impl<S: Size> Counter<S> {
    fn count(&self, model: &Model) -> Result<ModelCost<S>> {
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
            let mut activation_bytes = S::from(0);
            for name in node.makes() {
                activation_bytes = activation_bytes.plus(&self.bytes(name)?);
            }
            nodes.push(NodeCost {
                name: if node.name.is_empty() {
                    node.outputs.first().cloned().unwrap_or_default()
                } else {
                    node.name.clone()
                },
                op: node.op.clone(),
                macs: self.macs(node)?,
                parameter_bytes,
                activation_bytes,
            });
        }
        let total = Cost {
            macs: nodes.iter().fold(S::from(0), |sum, node| sum.plus(&node.macs)),
            parameter_bytes: nodes.iter().map(|node| node.parameter_bytes).sum(),
            peak_activation_bytes: self.peak(model)?,
        };
        Ok(ModelCost { total, nodes })
    }

    fn shape(&self, name: &str) -> Result<&[S]> {
        self.shapes.get(name).map(|(_, shape)| shape.as_slice()).ok_or_else(|| {
            Error::new(Code::UnknownTensor, format!("the shape of `{name}` is not known"))
                .with_hint("pass the shapes that were inferred for this model")
        })
    }

    fn bytes(&self, name: &str) -> Result<S> {
        let size = self.shapes.get(name).map_or(0, |(dtype, _)| dtype.size() as u64);
        Ok(product(self.shape(name)?).times(&S::from(size)))
    }

    /// Multiply-accumulate operations of one node; each formula is the size of the loop nest that defines the operator.
    fn macs(&self, node: &Node) -> Result<S> {
        let input = |index: usize| -> Result<&[S]> {
            node.input(index).map_or(Ok(&[]), |name| self.shape(name))
        };
        let output = || -> Result<S> {
            node.makes().next().map_or(Ok(S::from(0)), |name| Ok(product(self.shape(name)?)))
        };
        let per_weight = |weight: &[S]| product(weight.get(1..).unwrap_or_default());
        let inner = |size: Option<&S>| size.cloned().unwrap_or_else(|| S::from(1));
        Ok(match node.op.as_str() {
            "Conv" | "ConvInteger" => output()?.times(&per_weight(input(1)?)),
            "QLinearConv" => output()?.times(&per_weight(input(3)?)),
            "ConvTranspose" => product(input(0)?).times(&per_weight(input(1)?)),
            "MatMul" | "MatMulInteger" | "QLinearMatMul" => {
                output()?.times(&inner(input(0)?.last()))
            }
            "Gemm" => {
                let along =
                    if node.int("transA", 0) == 0 { input(0)?.get(1) } else { input(0)?.first() };
                output()?.times(&inner(along))
            }
            "Einsum" => self.einsum(node)?,
            "LSTM" | "GRU" | "RNN" => {
                // W is [directions, gates · hidden, input], R is [directions, gates · hidden, hidden].
                let steps = product(input(0)?.get(..2).unwrap_or_default());
                steps.times(&product(input(1)?).plus(&product(input(2)?)))
            }
            _ => S::from(0),
        })
    }

    /// The product of all index sizes, for a product of two or more tensors.
    fn einsum(&self, node: &Node) -> Result<S> {
        let equation: String =
            node.string("equation", "").chars().filter(|c| !c.is_whitespace()).collect();
        let terms: Vec<&str> = equation.split("->").next().unwrap_or_default().split(',').collect();
        if terms.len() < 2 || equation.contains('.') {
            return Ok(S::from(0));
        }
        let mut sizes: BTreeMap<char, S> = BTreeMap::new();
        for (term, name) in terms.iter().zip(&node.inputs) {
            for (index, size) in term.chars().zip(self.shape(name)?) {
                let known = sizes.entry(index).or_insert_with(|| size.clone());
                if *known == S::from(1) {
                    known.clone_from(size);
                }
            }
        }
        Ok(product(&sizes.into_values().collect::<Vec<_>>()))
    }

    /// Walks the nodes in order, keeping every tensor from where it is made to where it is read last.
    fn peak(&self, model: &Model) -> Result<S> {
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
        let mut alive = S::from(0);
        for info in &graph.inputs {
            alive = alive.plus(&self.bytes(&info.name)?);
        }
        let mut seen = vec![alive.clone()];
        for (index, node) in graph.nodes.iter().enumerate() {
            for name in node.makes() {
                alive = alive.plus(&self.bytes(name)?);
            }
            seen.push(alive.clone());
            let read: BTreeSet<&str> = node.reads().into_iter().collect();
            for name in read {
                if last_read.get(name) == Some(&index) && !graph.initializers.contains_key(name) {
                    alive = alive.minus(&self.bytes(name)?);
                }
            }
            for name in node.makes().filter(|name| !last_read.contains_key(name)) {
                alive = alive.minus(&self.bytes(name)?);
            }
        }
        Ok(S::most(seen))
    }
}
