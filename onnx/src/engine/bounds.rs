//! Inputs that are indices into weights, such as token ids: what lies outside is refused before the engine reads
//! beyond a table.

use std::collections::BTreeMap;

use super::Value;
use crate::error::{Code, Error, Result};
use crate::model::Model;
use crate::tensor::DType;

/// For every input that picks rows of a weight, the size of the smallest one; valid are −size up to size − 1.
pub(super) fn of(model: &Model) -> BTreeMap<String, usize> {
    let graph = &model.graph;
    // Tensors that hold the values of an input, in whatever shape, and the sizes of weights, in whatever type.
    let mut values: BTreeMap<&str, &str> =
        graph.inputs.iter().map(|info| (info.name.as_str(), info.name.as_str())).collect();
    let mut shapes: BTreeMap<&str, &[usize]> =
        graph.initializers.iter().map(|(name, tensor)| (name.as_str(), tensor.shape())).collect();
    let mut bounds = BTreeMap::new();
    for node in &graph.nodes {
        let (Some(first), Some(output)) = (node.input(0), node.makes().next()) else { continue };
        match node.op.as_str() {
            "Cast" | "Identity" | "Unsqueeze" | "Squeeze" | "Reshape" | "Flatten" | "Transpose" => {
                if let Some(input) = values.get(first).copied() {
                    values.insert(output, input);
                }
            }
            "Gather" => {
                let input = node.input(1).and_then(|indices| values.get(indices).copied());
                if let (Some(input), Some(shape)) = (input, shapes.get(first)) {
                    let axis = node.int("axis", 0);
                    let axis = if axis < 0 { axis + shape.len() as i64 } else { axis };
                    let size = usize::try_from(axis).ok().and_then(|axis| shape.get(axis));
                    let bound = bounds.entry(input.to_owned()).or_insert(usize::MAX);
                    *bound = size.copied().unwrap_or(usize::MAX).min(*bound);
                }
            }
            _ => {}
        }
        if matches!(node.op.as_str(), "Cast" | "Identity" | "DequantizeLinear")
            && let Some(shape) = shapes.get(first).copied()
        {
            shapes.insert(output, shape);
        }
    }
    bounds
}

/// Refuses an index outside −`size`..`size`.
pub(super) fn check(name: &str, value: &Value, size: usize) -> Result<()> {
    let outside = |index: i64| index >= size as i64 || index < -(size as i64);
    let found = match value.dtype() {
        DType::I64 => value.i64s()?.iter().copied().find(|index| outside(*index)),
        DType::I32 => value
            .to_tensor()?
            .values::<i32>()?
            .into_iter()
            .map(i64::from)
            .find(|index| outside(*index)),
        _ => None,
    };
    match found {
        Some(index) => Err(Error::new(
            Code::InputMismatch,
            format!("the input `{name}` holds the index {index}, the model has {size} rows for it"),
        )
        .with_hint("prepare the input with the vocabulary that belongs to the model")),
        None => Ok(()),
    }
}
