//! Attributes and constants that would make the engine loop, overflow or allocate without end.

use std::collections::BTreeMap;

use tract_onnx::prelude::InferenceFact;
use tract_onnx::tract_hir::infer::Factoid;

use crate::error::{Code, Error, Result};
use crate::model::{Attribute, Graph, Node, limits};
use crate::tensor::Tensor;

/// Sizes of kernels, strides, paddings and groups.
const SIZE: i64 = 1 << 16;
const RANK: i64 = limits::RANK as i64;

/// Checks the attributes of a node by their names, which mean the same at every operator that has them.
pub(super) fn check_attributes(node: &Node) -> Result<()> {
    for (name, value) in &node.attributes {
        let (least, most) = match name.as_str() {
            "axis" | "axes" => (-RANK, RANK),
            "batch_dims" => (0, RANK),
            "kernel_shape" | "strides" | "dilations" | "group" | "num_groups" | "blocksize"
            | "size" | "hidden_size" | "num_outputs" => (1, SIZE),
            "pads" | "output_padding" => (0, SIZE),
            "perm" => (0, RANK - 1),
            _ => continue,
        };
        let fits = |number: &i64| (least..=most).contains(number);
        let odd = match value {
            Attribute::Int(number) => !fits(number),
            Attribute::Ints(numbers) => {
                numbers.len() > 2 * limits::RANK
                    || !numbers.iter().all(fits)
                    || (name == "perm" && !is_permutation(numbers))
            }
            _ => true,
        };
        if odd {
            return Err(Error::new(
                Code::ModelInvalid,
                format!("{}: the attribute {name} is not within {least}..={most}", node.describe()),
            )
            .with_hint("check the model with onnx.checker, full check"));
        }
    }
    Ok(())
}

/// Checks that a tensor, as far as its shape is known, stays within the limit of elements. What depends on values, such
/// as how many boxes are kept, has no size yet.
pub(super) fn check_extent(name: &str, fact: &InferenceFact) -> Result<()> {
    let Some(shape) = fact.shape.concretize() else { return Ok(()) };
    let mut known = shape.iter().filter_map(|dim| dim.to_i64().ok());
    let elements = known.try_fold(1usize, |all, dim| all.checked_mul(dim.try_into().ok()?));
    match elements {
        Some(elements) if elements <= limits::ELEMENTS => Ok(()),
        _ => Err(Error::new(
            Code::ModelTooLarge,
            format!("`{name}` has the shape {shape:?}, the limit is {} elements", limits::ELEMENTS),
        )
        .with_hint("run it on smaller inputs; if those are small, a Resize, Pad, Tile or Expand asks for too much")),
    }
}

/// Checks the axes that a node names, in an attribute or a constant input, against the rank of what it reads, as far as
/// that is known.
pub(super) fn check_axes(
    node: &Node,
    graph: &Graph,
    ranks: &BTreeMap<String, usize>,
) -> Result<()> {
    let Some((axes, by_input)) = named_axes(node, graph)? else { return Ok(()) };
    let rank = node.input(0).and_then(|name| ranks.get(name)).map(|rank| *rank as i64);
    let rank = match node.op.as_str() {
        // The axes are those of the result.
        "Unsqueeze" => rank.map(|rank| rank + axes.len() as i64),
        // Behind the last axis everything is on the left.
        "Flatten" => rank.map(|rank| rank + 1),
        _ => rank,
    };
    let least = -rank.unwrap_or(RANK);
    let most = rank.map_or(RANK, |rank| rank - 1);
    if let Some(axis) = axes.iter().find(|axis| !(least..=most).contains(axis)) {
        let whose = match by_input {
            true => "a constant",
            false => "an attribute",
        };
        return Err(Error::new(
            Code::ModelInvalid,
            format!(
                "{} names the axis {axis} in {whose}, not within {least}..={most}",
                node.describe()
            ),
        )
        .with_hint("check the model with onnx.checker, full check"));
    }
    Ok(())
}

/// The axes of a node that are known before it runs, and whether they stand in a constant input.
fn named_axes(node: &Node, graph: &Graph) -> Result<Option<(Vec<i64>, bool)>> {
    let index = match node.op.as_str() {
        "Squeeze" | "Unsqueeze" | "CumSum" => 1,
        "Slice" | "Pad" => 3,
        op if op.starts_with("Reduce") => 1,
        "Softmax" | "LogSoftmax" | "Hardmax" | "Concat" | "Gather" | "GatherElements"
        | "ScatterElements" | "Split" | "LayerNormalization" | "ArgMax" | "ArgMin" | "TopK"
        | "Flatten" | "Transpose" => usize::MAX,
        _ => return Ok(None),
    };
    if let Some(axes) = node.input(index).and_then(|name| graph.initializers.get(name)) {
        return Ok(Some((axes.to_f64()?.into_iter().map(|axis| axis as i64).collect(), true)));
    }
    let given = ["axis", "axes", "perm"].into_iter().find_map(|name| node.attributes.get(name));
    Ok(match given {
        Some(Attribute::Int(axis)) => Some((vec![*axis], false)),
        Some(Attribute::Ints(axes)) => Some((axes.clone(), false)),
        _ => None,
    })
}

/// Checks the constant indices of a `Gather` from a constant.
pub(super) fn check_indices(node: &Node, graph: &Graph) -> Result<()> {
    let constant = |index: usize| graph.initializers.get(node.input(index)?);
    let ("Gather", Some(table), Some(indices)) = (node.op.as_str(), constant(0), constant(1))
    else {
        return Ok(());
    };
    let axis = node.int("axis", 0);
    let axis = if axis < 0 { axis + table.shape().len() as i64 } else { axis };
    let size = usize::try_from(axis).ok().and_then(|axis| table.shape().get(axis).copied());
    let Some(size) = size.map(|size| size as f64) else { return Ok(()) };
    match indices.to_f64()?.into_iter().find(|index| !(-size..size).contains(index)) {
        Some(index) => Err(Error::new(
            Code::ModelInvalid,
            format!("{} picks the entry {index} of {size}", node.describe()),
        )
        .with_hint("check the model with onnx.checker, full check")),
        None => Ok(()),
    }
}

fn is_permutation(numbers: &[i64]) -> bool {
    let mut sorted = numbers.to_vec();
    sorted.sort_unstable();
    sorted.into_iter().eq(0..numbers.len() as i64)
}

/// Refuses a node whose constant inputs alone ask for more elements than a tensor may have. The engine folds such
/// nodes while it loads them.
pub(super) fn check_size(node: &Node, graph: &Graph) -> Result<()> {
    let constant = |index: usize| -> Option<Vec<f64>> {
        graph.initializers.get(node.input(index)?).and_then(|tensor: &Tensor| tensor.to_f64().ok())
    };
    let product = |index: usize| {
        constant(index).map(|sizes| sizes.iter().map(|size| size.abs().max(1.0)).product::<f64>())
    };
    let asked = match node.op.as_str() {
        "ConstantOfShape" => product(0),
        "Expand" | "Tile" | "Reshape" => product(1),
        "Resize" => product(3).or_else(|| product(2)),
        "OneHot" => product(1),
        "Pad" => constant(1).map(|pads| pads.iter().map(|pad| pad.abs()).fold(0.0, f64::max)),
        "Range" => match (constant(0).as_deref(), constant(1).as_deref(), constant(2).as_deref()) {
            (Some([start]), Some([limit]), Some([step])) => Some(((limit - start) / step).abs()),
            _ => None,
        },
        _ => None,
    };
    match asked {
        // Not a number is refused as well.
        Some(count) if count.is_nan() || count > limits::ELEMENTS as f64 => Err(Error::new(
            Code::ModelTooLarge,
            format!(
                "{} asks for {count} elements, the limit is {}",
                node.describe(),
                limits::ELEMENTS
            ),
        )),
        _ => Ok(()),
    }
}
