//! Emits the nodes of the gradient graph. Every emitted tensor has a fresh name and a known shape, equal constants
//! are stored once, and contributions to one tensor are collected until the sweep asks for their sum.
//!
//! Emission does not fail: rules read like the formulas they implement. A name without a known shape is a bug
//! of a rule or of shape inference; the first such fault is kept and reported by [`Builder::finish`].

use std::collections::{BTreeMap, BTreeSet};

use crate::engine::Shapes;
use crate::error::{Code, Error, Result};
use crate::model::{Attribute, Graph, Model, Node};
use crate::tensor::{DType, Tensor};

/// The adjoint graph under construction.
pub(crate) struct Builder {
    graph: Graph,
    opset: i64,
    shapes: Shapes,
    constants: BTreeMap<(DType, Vec<usize>, Vec<u8>), String>,
    wanted: BTreeSet<String>,
    contributions: BTreeMap<String, Vec<String>>,
    next: usize,
    fault: Option<Error>,
}

impl Builder {
    /// Starts from the forward graph and the concrete shapes of its tensors.
    pub(crate) fn new(model: Model, shapes: Shapes) -> Self {
        Self {
            graph: model.graph,
            opset: model.opset,
            shapes,
            constants: BTreeMap::new(),
            wanted: BTreeSet::new(),
            contributions: BTreeMap::new(),
            next: 0,
            fault: None,
        }
    }

    /// Declares the tensors whose gradient is asked for; contributions to others are dropped.
    pub(crate) fn want(&mut self, names: BTreeSet<String>) {
        self.wanted = names;
    }

    /// Raises the operator set of the result where a rule needs a newer form of an operator.
    pub(crate) fn require_opset(&mut self, opset: i64) {
        self.opset = self.opset.max(opset);
    }

    /// Gives up the graph and its operator set, or the first fault.
    pub(crate) fn finish(self) -> Result<Model> {
        match self.fault {
            Some(fault) => Err(fault),
            None => Ok(Model { opset: self.opset, graph: self.graph }),
        }
    }

    /// The graph so far.
    pub(crate) fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Declares a tensor that no emitted node makes, such as the target.
    pub(crate) fn declare(&mut self, name: &str, dtype: DType, shape: &[usize]) {
        self.shapes.insert(name.to_owned(), (dtype, shape.to_vec()));
    }

    /// The shapes of all tensors.
    pub(crate) fn shapes(&self) -> &Shapes {
        &self.shapes
    }

    /// The operator set of the result.
    pub(crate) fn opset(&self) -> i64 {
        self.opset
    }

    /// The shape of a tensor.
    pub(crate) fn shape(&mut self, name: &str) -> Vec<usize> {
        self.fact(name).1
    }

    /// The element type of a tensor.
    pub(crate) fn dtype(&mut self, name: &str) -> DType {
        self.fact(name).0
    }

    pub(super) fn fact(&mut self, name: &str) -> (DType, Vec<usize>) {
        match self.shapes.get(name) {
            Some(fact) => fact.clone(),
            None => {
                self.fail(Error::new(
                    Code::EngineFailed,
                    format!("the shape of tensor `{name}` is not known"),
                ));
                (DType::F32, Vec::new())
            }
        }
    }

    pub(super) fn fail(&mut self, error: Error) {
        self.fault.get_or_insert(error);
    }

    // --- gradients ---------------------------------------------------------------------------------------------

    /// Whether the gradient of input `index` of the node is asked for.
    pub(crate) fn wants(&self, node: &Node, index: usize) -> bool {
        node.input(index).is_some_and(|name| self.wanted.contains(name))
    }

    /// Contributes to the gradient of input `index`: broadcast axes are summed, missing ones repeated.
    pub(crate) fn give(&mut self, node: &Node, index: usize, gradient: &str) {
        if let Some(name) = node.input(index) {
            self.contribute(name, gradient);
        }
    }

    /// Contributes to the gradient of a tensor, brought to its shape.
    pub(crate) fn contribute(&mut self, name: &str, gradient: &str) {
        if !self.wanted.contains(name) {
            return;
        }
        let shape = self.shape(name);
        let gradient = self.fit(gradient, &shape);
        self.contributions.entry(name.to_owned()).or_default().push(gradient);
    }

    /// The sum of all contributions to a tensor's gradient, or nothing where there is none.
    pub(crate) fn gradient(&mut self, name: &str) -> Option<String> {
        let parts = self.contributions.remove(name)?;
        let sum = parts.into_iter().reduce(|sum, part| self.add(&sum, &part))?;
        self.contributions.insert(name.to_owned(), vec![sum.clone()]);
        Some(sum)
    }

    // --- emission ----------------------------------------------------------------------------------------------

    fn fresh(&mut self, op: &str) -> String {
        loop {
            self.next += 1;
            let name = format!("grad/{op}.{}", self.next);
            if !self.shapes.contains_key(&name) && !self.graph.initializers.contains_key(&name) {
                return name;
            }
        }
    }

    /// Gives a tensor the name under which the caller of the result finds it.
    pub(crate) fn publish(&mut self, x: &str, name: &str) {
        let fact = self.fact(x);
        self.shapes.insert(name.to_owned(), fact);
        self.graph.nodes.push(Node::new("Identity", &[x], &[name]));
    }

    /// Emits a node with one output of this dtype and shape.
    pub(crate) fn emit(
        &mut self,
        op: &str,
        inputs: &[&str],
        attributes: &[(&str, Attribute)],
        dtype: DType,
        shape: Vec<usize>,
    ) -> String {
        let name = self.fresh(op);
        let mut node = Node::new(op, inputs, &[&name]);
        for (key, value) in attributes {
            node.attributes.insert((*key).to_owned(), value.clone());
        }
        self.shapes.insert(name.clone(), (dtype, shape));
        self.graph.nodes.push(node);
        name
    }

    // --- constants ---------------------------------------------------------------------------------------------

    /// A constant tensor; equal ones share a name.
    pub(crate) fn constant(&mut self, tensor: Tensor) -> String {
        let key = (tensor.dtype(), tensor.shape().to_vec(), tensor.bytes().to_vec());
        if let Some(name) = self.constants.get(&key) {
            return name.clone();
        }
        let name = self.fresh("constant");
        self.shapes.insert(name.clone(), (tensor.dtype(), tensor.shape().to_vec()));
        self.graph.initializers.insert(name.clone(), tensor);
        self.constants.insert(key, name.clone());
        name
    }

    /// A constant without dimensions in the dtype of `like`.
    pub(crate) fn scalar(&mut self, like: &str, value: f64) -> String {
        self.floats(like, &[value], &[])
    }

    /// A constant of this shape in the dtype of `like`.
    pub(crate) fn floats(&mut self, like: &str, values: &[f64], shape: &[usize]) -> String {
        let shape = shape.to_vec();
        let tensor = match self.dtype(like) {
            DType::F64 => Tensor::new(shape, values),
            DType::F16 => {
                let bytes: Vec<u8> =
                    values.iter().flat_map(|v| half::f16::from_f64(*v).to_le_bytes()).collect();
                Tensor::from_bytes(DType::F16, shape, bytes)
            }
            DType::BF16 => {
                let bytes: Vec<u8> =
                    values.iter().flat_map(|v| half::bf16::from_f64(*v).to_le_bytes()).collect();
                Tensor::from_bytes(DType::BF16, shape, bytes)
            }
            DType::I64 => Tensor::new(shape, &values.iter().map(|v| *v as i64).collect::<Vec<_>>()),
            DType::I32 => Tensor::new(shape, &values.iter().map(|v| *v as i32).collect::<Vec<_>>()),
            _ => Tensor::new(shape, &values.iter().map(|v| *v as f32).collect::<Vec<_>>()),
        };
        match tensor {
            Ok(tensor) => self.constant(tensor),
            Err(error) => {
                self.fail(error);
                like.to_owned()
            }
        }
    }

    /// A constant int64 vector.
    pub(crate) fn vector(&mut self, values: &[i64]) -> String {
        self.constant(Tensor::vector(values))
    }

    pub(super) fn integers(&mut self, values: &[usize]) -> String {
        let values: Vec<i64> = values.iter().map(|v| *v as i64).collect();
        self.vector(&values)
    }

    /// A tensor of zeros in the dtype of `like`, without storing them.
    pub(crate) fn zeros(&mut self, like: &str, shape: &[usize]) -> String {
        let zero = self.scalar(like, 0.0);
        self.expand(&zero, shape)
    }
}
