//! Rules of operators that address elements by index tensors. What was read is added back where it was read from;
//! an index that occurs several times collects all its contributions.

use super::builder::Builder;
use super::layout::axis;
use super::unsupported;
use crate::error::Result;
use crate::model::{Attribute, Node};

/// `ScatterND` and `ScatterElements` add from this operator set on. Raising 13–15 to it keeps the meaning of every
/// other operator with a rule.
const ADDING_OPSET: i64 = 16;

fn data(node: &Node) -> &str {
    node.input(0).unwrap_or_default()
}

fn indices(node: &Node) -> &str {
    node.input(1).unwrap_or_default()
}

fn add_rows(b: &mut Builder, zeros: &str, rows: &str, updates: &str) -> String {
    b.require_opset(ADDING_OPSET);
    let (dtype, shape) = (b.dtype(zeros), b.shape(zeros));
    b.emit(
        "ScatterND",
        &[zeros, rows, updates],
        &[("reduction", Attribute::String("add".to_owned()))],
        dtype,
        shape,
    )
}

/// Non-negative indices along an axis of `dim` elements; runtimes disagree on negative ones in `ScatterND`.
fn wrapped(b: &mut Builder, indices: &str, dim: usize) -> String {
    if let Some(tensor) = b.graph().initializers.get(indices)
        && tensor.to_f64().is_ok_and(|values| values.iter().all(|v| *v >= 0.0))
    {
        return indices.to_owned();
    }
    let zero = b.scalar(indices, 0.0);
    let negative = b.binary("Less", indices, &zero);
    let shifted = b.offset(indices, dim as f64);
    b.select(&negative, &shifted, indices)
}

/// The gathered axes are brought to the front, then whole rows are added. One constant index is a padded slice.
pub(super) fn gather(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let (shape, index_shape) = (b.shape(data(node)), b.shape(indices(node)));
    let axis = axis(node.int("axis", 0), shape.len());
    let dim = shape[axis];
    let constant = b.graph().initializers.get(indices(node)).filter(|t| t.len() == 1);
    if let Some(position) = constant.and_then(|t| t.to_f64().ok()).and_then(|v| v.first().copied())
    {
        let position = if position < 0.0 { position as i64 + dim as i64 } else { position as i64 };
        let mut row = shape.clone();
        row[axis] = 1;
        let row = b.reshape(dy, &row);
        let gradient = b.window(&row, axis, -position, dim, 0.0);
        b.give(node, 0, &gradient);
        return Ok(());
    }
    let rank = b.shape(dy).len();
    let inner = axis..axis + index_shape.len();
    let order: Vec<usize> = inner.clone().chain((0..rank).filter(|i| !inner.contains(i))).collect();
    let updates = b.transpose(dy, &order);
    let rows = wrapped(b, indices(node), dim);
    let rows = b.cast(&rows, crate::tensor::DType::I64);
    let rows = b.reshape(&rows, &[index_shape.as_slice(), &[1]].concat());
    let front: Vec<usize> =
        std::iter::once(axis).chain((0..shape.len()).filter(|i| *i != axis)).collect();
    let moved: Vec<usize> = front.iter().map(|i| shape[*i]).collect();
    let zeros = b.zeros(dy, &moved);
    let added = add_rows(b, &zeros, &rows, &updates);
    let mut back = vec![0; shape.len()];
    front.iter().enumerate().for_each(|(to, from)| back[*from] = to);
    let gradient = b.transpose(&added, &back);
    b.give(node, 0, &gradient);
    Ok(())
}

fn add_elements(b: &mut Builder, node: &Node, dy: &str, indices: &str, axis: i64) {
    b.require_opset(ADDING_OPSET);
    let (dtype, shape) = (b.dtype(data(node)), b.shape(data(node)));
    let zeros = b.zeros(dy, &shape);
    let attributes =
        [("axis", Attribute::Int(axis)), ("reduction", Attribute::String("add".to_owned()))];
    let gradient = b.emit("ScatterElements", &[&zeros, indices, dy], &attributes, dtype, shape);
    b.give(node, 0, &gradient);
}

pub(super) fn gather_elements(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    add_elements(b, node, dy, indices(node), node.int("axis", 0));
    Ok(())
}

pub(super) fn top_k(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    match node.outputs.get(1).filter(|name| !name.is_empty()) {
        Some(picked) => add_elements(b, node, dy, picked, node.int("axis", -1)),
        None => {
            return Err(unsupported(
                node,
                "TopK without its indices",
                "give the second output a name",
            ));
        }
    }
    Ok(())
}

pub(super) fn gather_nd(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    if node.int("batch_dims", 0) != 0 {
        return Err(unsupported(node, "batch_dims", "use batch_dims 0"));
    }
    let shape = b.shape(data(node));
    let rows = wrapped_tuples(b, indices(node), &shape);
    let zeros = b.zeros(dy, &shape);
    let gradient = add_rows(b, &zeros, &rows, dy);
    b.give(node, 0, &gradient);
    Ok(())
}

/// As [`wrapped`], for index tuples: each coordinate wraps at its own axis.
fn wrapped_tuples(b: &mut Builder, indices: &str, shape: &[usize]) -> String {
    if let Some(tensor) = b.graph().initializers.get(indices)
        && tensor.to_f64().is_ok_and(|values| values.iter().all(|v| *v >= 0.0))
    {
        return indices.to_owned();
    }
    let depth = b.shape(indices).last().copied().unwrap_or(0);
    let dims: Vec<i64> = shape.iter().take(depth).map(|d| *d as i64).collect();
    let dims = b.vector(&dims);
    let zero = b.scalar(indices, 0.0);
    let negative = b.binary("Less", indices, &zero);
    let shifted = b.add(indices, &dims);
    b.select(&negative, &shifted, indices)
}

fn reduction_of(node: &Node) -> Result<bool> {
    match node.string("reduction", "none") {
        "none" => Ok(false),
        "add" => Ok(true),
        other => Err(unsupported(node, &format!("reduction `{other}`"), "use none or add")),
    }
}

/// The updates get what stands at their place; the data gets the rest, where nothing was overwritten.
pub(super) fn scatter_nd(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let adds = reduction_of(node)?;
    let updates = node.input(2).unwrap_or_default();
    if b.wants(node, 0) {
        let gradient = if adds {
            dy.to_owned()
        } else {
            let shape = b.shape(updates);
            let zeros = b.zeros(dy, &shape);
            let (dtype, shape) = (b.dtype(dy), b.shape(dy));
            b.emit("ScatterND", &[dy, indices(node), &zeros], &[], dtype, shape)
        };
        b.give(node, 0, &gradient);
    }
    if b.wants(node, 2) {
        let (dtype, shape) = (b.dtype(dy), b.shape(updates));
        let gradient = b.emit("GatherND", &[dy, indices(node)], &[], dtype, shape);
        b.give(node, 2, &gradient);
    }
    Ok(())
}

pub(super) fn scatter_elements(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let adds = reduction_of(node)?;
    let axis = [("axis", Attribute::Int(node.int("axis", 0)))];
    let updates = node.input(2).unwrap_or_default();
    if b.wants(node, 0) {
        let gradient = if adds {
            dy.to_owned()
        } else {
            let shape = b.shape(updates);
            let zeros = b.zeros(dy, &shape);
            let (dtype, shape) = (b.dtype(dy), b.shape(dy));
            b.emit("ScatterElements", &[dy, indices(node), &zeros], &axis, dtype, shape)
        };
        b.give(node, 0, &gradient);
    }
    if b.wants(node, 2) {
        let (dtype, shape) = (b.dtype(dy), b.shape(updates));
        let gradient = b.emit("GatherElements", &[dy, indices(node)], &axis, dtype, shape);
        b.give(node, 2, &gradient);
    }
    Ok(())
}
