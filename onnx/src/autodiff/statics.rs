//! Values that a rule must know when it is applied, such as the axes of a reduction: constants of the graph, or
//! what the graph computes from constants and from the now concrete shapes.

use std::collections::{BTreeMap, BTreeSet};

use super::builder::Builder;
use super::unsupported;
use crate::engine::{Dims, Program};
use crate::error::Result;
use crate::model::{Graph, Model, Node, ValueInfo};
use crate::tensor::{DType, Tensor};

impl Builder {
    /// The integers of an optional input, or nothing where the input is absent.
    pub(crate) fn static_ints(&self, node: &Node, index: usize) -> Result<Option<Vec<i64>>> {
        let tensor = self.static_tensor(node, index)?;
        tensor.map(|t| Ok(t.to_f64()?.into_iter().map(|v| v as i64).collect())).transpose()
    }

    /// The value of an optional input, or nothing where the input is absent.
    pub(crate) fn static_tensor(&self, node: &Node, index: usize) -> Result<Option<Tensor>> {
        let Some(name) = node.input(index) else { return Ok(None) };
        match self.evaluate(name)? {
            Some(tensor) => Ok(Some(tensor)),
            None => Err(unsupported(
                node,
                &format!("an input `{name}` that depends on the model's inputs"),
                "make it a constant, or compute it from shapes",
            )),
        }
    }

    /// The value of a tensor that no graph input reaches, or nothing where one does.
    fn evaluate(&self, name: &str) -> Result<Option<Tensor>> {
        if let Some(tensor) = self.graph().initializers.get(name) {
            return Ok(Some(tensor.clone()));
        }
        let producers: BTreeMap<&str, &Node> = self
            .graph()
            .nodes
            .iter()
            .flat_map(|n| n.outputs.iter().map(move |o| (o.as_str(), n)))
            .collect();
        let mut graph = Graph { name: "constants".to_owned(), ..Graph::default() };
        let mut seen = BTreeSet::new();
        let mut stack = vec![name];
        while let Some(name) = stack.pop() {
            if name.is_empty() || !seen.insert(name) {
                continue;
            }
            if let Some(tensor) = self.graph().initializers.get(name) {
                graph.initializers.insert(name.to_owned(), tensor.clone());
                continue;
            }
            let Some(node) = producers.get(name) else { return Ok(None) };
            if let Some(tensor) = self.shape_value(node) {
                graph.initializers.insert(name.to_owned(), tensor);
                continue;
            }
            if !graph.nodes.iter().any(|known| known.outputs == node.outputs) {
                graph.nodes.push((*node).clone());
            }
            stack.extend(node.inputs.iter().map(String::as_str));
        }
        if let Some(tensor) = graph.initializers.remove(name) {
            return Ok(Some(tensor));
        }
        let (dtype, shape) = self.shapes().get(name).cloned().unwrap_or((DType::I64, Vec::new()));
        graph.outputs.push(ValueInfo::fixed(name, dtype, &shape));
        graph.sort()?;
        let program = Program::compile(&Model { opset: self.opset(), graph }, &Dims::new())?;
        match program.run(&BTreeMap::new())?.remove(name) {
            Some(value) => Ok(Some(value.to_tensor()?)),
            None => Ok(None),
        }
    }

    /// What `Shape` and `Size` yield, which are constants once shapes are concrete.
    fn shape_value(&self, node: &Node) -> Option<Tensor> {
        let (_, shape) = self.shapes().get(node.input(0)?)?;
        let dims: Vec<i64> = shape.iter().map(|d| *d as i64).collect();
        let rank = dims.len() as i64;
        let position =
            |value: i64| (if value < 0 { value + rank } else { value }).clamp(0, rank) as usize;
        match node.op.as_str() {
            "Shape" => {
                let (start, end) =
                    (position(node.int("start", 0)), position(node.int("end", rank)));
                Some(Tensor::vector(dims.get(start..end).unwrap_or_default()))
            }
            "Size" => Some(Tensor::scalar(dims.iter().product::<i64>())),
            _ => None,
        }
    }
}
