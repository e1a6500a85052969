//! Rules of pooling. Windows are read tap by tap as slices, and written back by a transposed convolution, or by a
//! plain interleaving where windows do not overlap.

use super::builder::Builder;
use super::convolution::{Geometry, scatter};
use super::reduction::share_ties;
use crate::error::Result;
use crate::model::Node;

fn x(node: &Node) -> &str {
    node.input(0).unwrap_or_default()
}

fn y(node: &Node) -> &str {
    node.outputs.first().map(String::as_str).unwrap_or_default()
}

fn geometry(b: &mut Builder, node: &Node) -> Geometry {
    let (wide, narrow) = (b.shape(x(node)), b.shape(y(node)));
    let kernel: Vec<usize> =
        node.ints("kernel_shape").unwrap_or_default().iter().map(|v| *v as usize).collect();
    Geometry::read(node, &kernel, &wide[2..], &narrow[2..])
}

/// Windows tile the axis without gap or overlap.
fn disjoint(geometry: &Geometry) -> bool {
    geometry.kernel == geometry.strides && geometry.dilations.iter().all(|d| *d == 1)
}

/// The first tap, in row-major order, that equals the maximum gets the whole gradient, as in PyTorch and
/// onnxruntime, which remember one index per window.
pub(super) fn max_pool(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let geometry = geometry(b, node);
    // Padding must never win; the lowest finite number stands for minus infinity.
    let covered = geometry.cover(b, x(node), f64::from(f32::MIN));
    let slices = geometry.tap_slices(b, &covered);
    let mut rest = dy.to_owned();
    let last = slices.len().saturating_sub(1);
    let parts: Vec<String> = slices
        .iter()
        .enumerate()
        .map(|(tap, slice)| {
            let equal = b.binary("Equal", slice, y(node));
            let part = b.keep_where(&equal, &rest);
            if tap != last {
                rest = b.sub(&rest, &part);
            }
            part
        })
        .collect();
    let gradient = if disjoint(&geometry) {
        interleave(b, parts, &geometry)
    } else {
        spread(b, &parts, &geometry)
    };
    b.give(node, 0, &gradient);
    Ok(())
}

/// Places the taps of disjoint windows next to each other, innermost axis first.
fn interleave(b: &mut Builder, parts: Vec<String>, geometry: &Geometry) -> String {
    let rank = geometry.kernel.len();
    let Some(first) = parts.first() else { return String::new() };
    let mut shape = b.shape(first);
    let mut parts = parts;
    for axis in (0..rank).rev() {
        let mut column = shape.clone();
        column.insert(axis + 3, 1);
        shape[axis + 2] *= geometry.kernel[axis];
        parts = parts
            .chunks(geometry.kernel[axis])
            .map(|taps| {
                let columns: Vec<String> = taps.iter().map(|tap| b.reshape(tap, &column)).collect();
                let merged = b.concat(&columns, axis + 3);
                b.reshape(&merged, &shape)
            })
            .collect();
    }
    let whole = parts.pop().unwrap_or_default();
    uncover(b, whole, geometry)
}

/// Cuts the covered extent back to that of the input.
fn uncover(b: &mut Builder, covered: String, geometry: &Geometry) -> String {
    let windows: Vec<(i64, usize)> =
        geometry.begin.iter().copied().zip(geometry.wide.iter().copied()).collect();
    b.windows(&covered, 2, &windows, 0.0)
}

/// Adds the taps of overlapping windows onto the input: tap `t` becomes a channel of its own, whose kernel is one at
/// `t` and zero elsewhere.
fn spread(b: &mut Builder, parts: &[String], geometry: &Geometry) -> String {
    let Some(first) = parts.first() else { return String::new() };
    let shape = b.shape(first);
    let (batch, channels, taps) = (shape[0], shape[1], parts.len());
    let column = [&[batch, channels, 1], &shape[2..]].concat();
    let columns: Vec<String> = parts.iter().map(|part| b.reshape(part, &column)).collect();
    let stacked = b.concat(&columns, 2);
    let stacked = b.reshape(&stacked, &[&[batch, channels * taps], &shape[2..]].concat());
    let unit: Vec<f64> =
        (0..taps * taps).map(|i| if i % taps == i / taps { 1.0 } else { 0.0 }).collect();
    let kernel = b.floats(&stacked, &unit, &[&[1, taps, 1], geometry.kernel.as_slice()].concat());
    let kernel = b.expand(&kernel, &[&[channels, taps, 1], geometry.kernel.as_slice()].concat());
    let kernel = b.reshape(&kernel, &[&[channels * taps, 1], geometry.kernel.as_slice()].concat());
    scatter(b, &stacked, &kernel, geometry, channels)
}

/// Each element of a window gets its share of the gradient.
pub(super) fn average_pool(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let geometry = geometry(b, node);
    let counts = counts(&geometry, node.int("count_include_pad", 0) != 0);
    let shape = b.shape(dy);
    let share = match counts.first() {
        Some(count) if counts.iter().all(|c| c == count) => b.scale(dy, 1.0 / count),
        _ => {
            let counts = b.floats(dy, &counts, &[&[1, 1], &shape[2..]].concat());
            b.div(dy, &counts)
        }
    };
    let gradient = if disjoint(&geometry) {
        let split = |size: &dyn Fn(usize) -> usize| -> Vec<usize> {
            let spatial =
                (0..geometry.kernel.len()).flat_map(|axis| [geometry.narrow[axis], size(axis)]);
            shape[..2].iter().copied().chain(spatial).collect()
        };
        let column = b.reshape(&share, &split(&|_| 1));
        let copies = b.expand(&column, &split(&|axis| geometry.kernel[axis]));
        let covered: Vec<usize> =
            (0..geometry.kernel.len()).map(|a| geometry.narrow[a] * geometry.kernel[a]).collect();
        let whole = b.reshape(&copies, &[&shape[..2], covered.as_slice()].concat());
        uncover(b, whole, &geometry)
    } else {
        let channels = shape[1];
        let one = b.scalar(dy, 1.0);
        let kernel = b.expand(&one, &[&[channels, 1], geometry.kernel.as_slice()].concat());
        scatter(b, &share, &kernel, &geometry, channels)
    };
    b.give(node, 0, &gradient);
    Ok(())
}

/// Elements that each window averages, in row-major order of windows.
fn counts(geometry: &Geometry, include_pad: bool) -> Vec<f64> {
    (0..geometry.kernel.len()).fold(vec![1.0], |counts, axis| {
        let (low, high) = match include_pad {
            true => (-geometry.begin[axis], geometry.wide[axis] as i64 + geometry.end[axis]),
            false => (0, geometry.wide[axis] as i64),
        };
        let along: Vec<f64> = (0..geometry.narrow[axis])
            .map(|window| {
                let start = (window * geometry.strides[axis]) as i64 - geometry.begin[axis];
                let taps = (0..geometry.kernel[axis])
                    .map(|tap| start + (tap * geometry.dilations[axis]) as i64);
                taps.filter(|position| (low..high).contains(position)).count().max(1) as f64
            })
            .collect();
        counts.iter().flat_map(|count| along.iter().map(move |n| count * n)).collect()
    })
}

pub(super) fn global_average(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let area: usize = b.shape(x(node)).iter().skip(2).product();
    let gradient = b.scale(dy, 1.0 / area.max(1) as f64);
    b.give(node, 0, &gradient);
    Ok(())
}

pub(super) fn global_max(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let axes: Vec<usize> = (2..b.shape(x(node)).len()).collect();
    let gradient = share_ties(b, x(node), y(node), dy, &axes);
    b.give(node, 0, &gradient);
    Ok(())
}
