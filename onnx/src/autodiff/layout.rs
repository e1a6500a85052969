//! Rules of operators that move, copy or drop elements without computing on them.

use super::builder::Builder;
use super::unsupported;
use crate::error::Result;
use crate::model::{Attribute, Node};

fn x(node: &Node) -> &str {
    node.input(0).unwrap_or_default()
}

/// An axis as written in ONNX, negative from the end.
pub(super) fn axis(value: i64, rank: usize) -> usize {
    (if value < 0 { value + rank as i64 } else { value }) as usize
}

/// Reshape, Flatten, Squeeze and Unsqueeze: the elements keep their order.
pub(super) fn reshape(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let shape = b.shape(x(node));
    let gradient = b.reshape(dy, &shape);
    b.give(node, 0, &gradient);
    Ok(())
}

pub(super) fn transpose(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let rank = b.shape(dy).len();
    let order: Vec<usize> = match node.ints("perm") {
        Some(order) => order.iter().map(|v| axis(*v, rank)).collect(),
        None => (0..rank).rev().collect(),
    };
    let mut inverse = vec![0; rank];
    for (to, from) in order.iter().enumerate() {
        inverse[*from] = to;
    }
    let gradient = b.transpose(dy, &inverse);
    b.give(node, 0, &gradient);
    Ok(())
}

pub(super) fn concat(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let axis = axis(node.int("axis", 0), b.shape(dy).len());
    let mut start = 0;
    for index in 0..node.inputs.len() {
        let count = b.shape(node.input(index).unwrap_or_default()).get(axis).copied().unwrap_or(1);
        if b.wants(node, index) {
            let part = b.slice(dy, axis, start, count, 1);
            b.give(node, index, &part);
        }
        start += count;
    }
    Ok(())
}

/// Outputs that nobody reads contribute zeros.
pub(super) fn split(b: &mut Builder, node: &Node, dy: &[Option<String>]) -> Result<()> {
    let axis = axis(node.int("axis", 0), b.shape(x(node)).len());
    let parts: Vec<String> = node
        .outputs
        .iter()
        .zip(dy)
        .map(|(output, dy)| match dy {
            Some(dy) => dy.clone(),
            None => {
                let shape = b.shape(output);
                b.zeros(x(node), &shape)
            }
        })
        .collect();
    let gradient = b.concat(&parts, axis);
    b.give(node, 0, &gradient);
    Ok(())
}

/// Per axis: the taken elements are spread over the steps, turned round where the step is negative, and surrounded
/// by zeros.
pub(super) fn slice(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let shape = b.shape(x(node));
    let starts = b.static_ints(node, 1)?.unwrap_or_default();
    let axes = match b.static_ints(node, 3)? {
        Some(axes) => axes.iter().map(|v| axis(*v, shape.len())).collect(),
        None => (0..starts.len()).collect::<Vec<_>>(),
    };
    let steps = b.static_ints(node, 4)?.unwrap_or_else(|| vec![1; starts.len()]);
    let mut gradient = dy.to_owned();
    for ((start, axis), step) in starts.iter().zip(axes).zip(steps) {
        let dim = shape[axis] as i64;
        // The clamping of starts is that of the ONNX specification of Slice.
        let start = if *start < 0 { start + dim } else { *start };
        let start = if step > 0 { start.clamp(0, dim) } else { start.clamp(0, dim - 1) };
        let taken = b.shape(&gradient)[axis] as i64;
        let ordered = if step < 0 { b.flip(&gradient, axis) } else { gradient };
        let first = if step < 0 { start + (taken - 1) * step } else { start };
        let spread = b.spread(&ordered, axis, step.unsigned_abs() as usize);
        gradient = b.window(&spread, axis, -first, shape[axis], 0.0);
    }
    b.give(node, 0, &gradient);
    Ok(())
}

/// The pads that a node asks for, as (before, after) per axis of the input.
fn pads(b: &mut Builder, node: &Node, rank: usize) -> Result<Vec<(i64, i64)>> {
    let given = b.static_ints(node, 1)?.unwrap_or_default();
    let axes: Vec<usize> = match b.static_ints(node, 3)? {
        Some(axes) => axes.iter().map(|v| axis(*v, rank)).collect(),
        None => (0..rank).collect(),
    };
    let mut pads = vec![(0, 0); rank];
    for (i, axis) in axes.iter().enumerate() {
        pads[*axis] = (given[i], given[i + axes.len()]);
    }
    Ok(pads)
}

/// Constant pads are cropped; copies made by `edge` and `reflect` are added back onto what they copied. Axes are
/// undone in the reverse of the order in which they were padded.
pub(super) fn pad(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let shape = b.shape(x(node));
    let mode = node.string("mode", "constant");
    if b.wants(node, 2) {
        return Err(unsupported(node, "the pad value", "keep the pad value constant"));
    }
    let mut gradient = dy.to_owned();
    for (axis, (before, after)) in pads(b, node, shape.len())?.into_iter().enumerate().rev() {
        let core = b.window(&gradient, axis, before, shape[axis], 0.0);
        let core = match mode {
            "constant" => core,
            "edge" => fold_edges(b, &gradient, core, axis, shape[axis], (before, after)),
            "reflect" => fold_mirrors(b, &gradient, core, axis, shape[axis], (before, after)),
            _ => {
                return Err(unsupported(
                    node,
                    &format!("mode `{mode}`"),
                    "use constant, edge or reflect",
                ));
            }
        };
        gradient = core;
    }
    b.give(node, 0, &gradient);
    Ok(())
}

fn fold_edges(
    b: &mut Builder,
    dy: &str,
    core: String,
    axis: usize,
    dim: usize,
    pads: (i64, i64),
) -> String {
    let total = b.shape(dy)[axis];
    let mut core = core;
    for (count, from, to) in [(pads.0, 0, 0), (pads.1, total as i64 - pads.1, dim as i64 - 1)] {
        if count > 0 {
            let copies = b.slice(dy, axis, from as usize, count as usize, 1);
            let sum = b.sum(&copies, &[axis], true);
            let placed = b.window(&sum, axis, -to, dim, 0.0);
            core = b.add(&core, &placed);
        }
    }
    core
}

fn fold_mirrors(
    b: &mut Builder,
    dy: &str,
    core: String,
    axis: usize,
    dim: usize,
    pads: (i64, i64),
) -> String {
    let total = b.shape(dy)[axis];
    let mut core = core;
    let last = dim as i64 - 1;
    for (count, from, to) in [(pads.0, 0, 1), (pads.1, total as i64 - pads.1, last - pads.1)] {
        if count > 0 {
            let copies = b.slice(dy, axis, from as usize, count as usize, 1);
            let turned = b.flip(&copies, axis);
            let placed = b.window(&turned, axis, -to, dim, 0.0);
            core = b.add(&core, &placed);
        }
    }
    core
}

/// Broadcast copies are summed.
pub(super) fn expand(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    b.give(node, 0, dy);
    Ok(())
}

/// Each axis is split into its repeats and its length; the repeats are summed.
pub(super) fn tile(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let (shape, tiled) = (b.shape(x(node)), b.shape(dy));
    let split: Vec<usize> =
        shape.iter().zip(&tiled).flat_map(|(dim, total)| [total / dim.max(&1), *dim]).collect();
    let axes: Vec<usize> =
        (0..shape.len()).map(|axis| 2 * axis).filter(|axis| split[*axis] > 1).collect();
    let parts = b.reshape(dy, &split);
    let sum = b.sum(&parts, &axes, false);
    let gradient = b.reshape(&sum, &shape);
    b.give(node, 0, &gradient);
    Ok(())
}

/// Undone by the same moves backwards: `[n, c, h, s, w, s]` to the order of the mode.
pub(super) fn depth_to_space(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let shape = b.shape(x(node));
    let [n, c, h, w] = four(&shape);
    let s = node.int("blocksize", 1).max(1) as usize;
    let depth = c / (s * s).max(1);
    let blocks = b.reshape(dy, &[n, depth, h, s, w, s]);
    let order =
        if node.string("mode", "DCR") == "CRD" { [0, 1, 3, 5, 2, 4] } else { [0, 3, 5, 1, 2, 4] };
    let moved = b.transpose(&blocks, &order);
    let gradient = b.reshape(&moved, &shape);
    b.give(node, 0, &gradient);
    Ok(())
}

pub(super) fn space_to_depth(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let shape = b.shape(x(node));
    let [n, c, h, w] = four(&shape);
    let s = node.int("blocksize", 1).max(1) as usize;
    let blocks = b.reshape(dy, &[n, s, s, c, h / s, w / s]);
    let moved = b.transpose(&blocks, &[0, 3, 4, 1, 5, 2]);
    let gradient = b.reshape(&moved, &shape);
    b.give(node, 0, &gradient);
    Ok(())
}

fn four(shape: &[usize]) -> [usize; 4] {
    std::array::from_fn(|i| shape.get(i).copied().unwrap_or(1))
}

/// The triangle that was kept passes the gradient; the mask is its own adjoint.
pub(super) fn triangle(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let inputs: Vec<&str> = [Some(dy), node.input(1)].into_iter().flatten().collect();
    let (dtype, shape) = (b.dtype(dy), b.shape(dy));
    let upper = Attribute::Int(node.int("upper", 1));
    let gradient = b.emit("Trilu", &inputs, &[("upper", upper)], dtype, shape);
    b.give(node, 0, &gradient);
    Ok(())
}
