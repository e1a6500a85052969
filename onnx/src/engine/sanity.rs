//! Attributes and constants that would make the engine loop, overflow or allocate without end.

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

/// Checks axes that are given as a constant input.
pub(super) fn check_axes(node: &Node, graph: &Graph) -> Result<()> {
    let index = match node.op.as_str() {
        "Squeeze" | "Unsqueeze" => 1,
        "Slice" | "Pad" => 3,
        op if op.starts_with("Reduce") => 1,
        _ => return Ok(()),
    };
    let Some(axes) = node.input(index).and_then(|name| graph.initializers.get(name)) else {
        return Ok(());
    };
    match axes.to_f64()?.into_iter().find(|axis| !(-RANK as f64..=RANK as f64).contains(axis)) {
        Some(axis) => Err(Error::new(
            Code::ModelInvalid,
            format!("{} names the axis {axis}", node.describe()),
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
