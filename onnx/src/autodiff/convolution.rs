//! Rules of convolutions. A convolution and its transpose are each other's adjoint, so both operators share the
//! same two products: [`scatter`] and [`weight_gradient`] (Dumoulin and Visin, *A guide to convolution arithmetic
//! for deep learning*, 2016, chapter 4).

use std::collections::BTreeMap;

use super::builder::Builder;
use crate::error::Result;
use crate::model::{Attribute, Node};

/// How windows slide over the spatial axes: window `p`, tap `k` reads the wide side at
/// `p · stride + k · dilation − begin`.
#[derive(Clone)]
pub(super) struct Geometry {
    pub(super) kernel: Vec<usize>,
    pub(super) strides: Vec<usize>,
    pub(super) dilations: Vec<usize>,
    /// Padding before and after the wide side.
    pub(super) begin: Vec<i64>,
    pub(super) end: Vec<i64>,
    /// Extents of the side that windows read: the input of a convolution.
    pub(super) wide: Vec<usize>,
    /// Number of windows per axis: the output of a convolution.
    pub(super) narrow: Vec<usize>,
}

impl Geometry {
    /// Reads the attributes of a node; extents are those of inferred shapes, so `auto_pad` and `ceil_mode` need no
    /// formula beyond where the padding begins.
    pub(super) fn read(node: &Node, kernel: &[usize], wide: &[usize], narrow: &[usize]) -> Self {
        let rank = kernel.len();
        let list = |name: &str| match node.ints(name) {
            Some(values) => values.iter().map(|v| *v as usize).collect(),
            None => vec![1; rank],
        };
        let (strides, dilations): (Vec<usize>, Vec<usize>) = (list("strides"), list("dilations"));
        let mut geometry = Self {
            kernel: kernel.to_vec(),
            strides,
            dilations,
            begin: vec![0; rank],
            end: vec![0; rank],
            wide: wide.to_vec(),
            narrow: narrow.to_vec(),
        };
        for (axis, extent) in wide.iter().enumerate().take(rank) {
            let missing = geometry.full(axis) as i64 - *extent as i64;
            (geometry.begin[axis], geometry.end[axis]) = match node.string("auto_pad", "NOTSET") {
                "SAME_UPPER" => (missing.max(0) / 2, missing.max(0) - missing.max(0) / 2),
                "SAME_LOWER" => (missing.max(0) - missing.max(0) / 2, missing.max(0) / 2),
                "VALID" => (0, 0),
                _ => match node.ints("pads") {
                    Some(pads) => {
                        let at = |i: usize| pads.get(i).copied().unwrap_or(0);
                        (at(axis), at(axis + rank))
                    }
                    None => (0, 0),
                },
            };
        }
        geometry
    }

    /// Elements from the first to the last that any window of an axis reads.
    pub(super) fn full(&self, axis: usize) -> usize {
        (self.narrow[axis].max(1) - 1) * self.strides[axis]
            + (self.kernel[axis] - 1) * self.dilations[axis]
            + 1
    }

    /// Number of taps of a window.
    pub(super) fn taps(&self) -> usize {
        self.kernel.iter().product()
    }

    /// The wide side cut or filled to exactly what windows read.
    pub(super) fn cover(&self, b: &mut Builder, x: &str, fill: f64) -> String {
        let windows: Vec<(i64, usize)> =
            (0..self.kernel.len()).map(|axis| (-self.begin[axis], self.full(axis))).collect();
        b.windows(x, 2, &windows, fill)
    }

    /// For each tap, in row-major order, what all windows read at it, from a covered wide side.
    ///
    /// A strided slice copies element by element in the engine, so the wide side is first split into its phases
    /// modulo the strides; in each of them taps are plain slices.
    pub(super) fn tap_slices(&self, b: &mut Builder, covered: &str) -> Vec<String> {
        let phases = self.phases(b, covered);
        let rank = self.kernel.len();
        // Taps of one row share the slice along the first axis.
        let mut known: BTreeMap<(String, usize, usize), String> = BTreeMap::new();
        (0..self.taps())
            .map(|tap| {
                let offsets = self.offsets(tap);
                let phase = (0..rank).fold(0, |phase, axis| {
                    phase * self.strides[axis] + offsets[axis] % self.strides[axis]
                });
                (0..rank).fold(phases[phase].clone(), |part, axis| {
                    let start = offsets[axis] / self.strides[axis];
                    let key = (part, axis, start);
                    if let Some(slice) = known.get(&key) {
                        return slice.clone();
                    }
                    let slice = b.slice(&key.0, axis + 2, start, self.narrow[axis], 1);
                    known.insert(key, slice.clone());
                    slice
                })
            })
            .collect()
    }

    /// Where a tap lies in its window, per axis.
    fn offsets(&self, tap: usize) -> Vec<usize> {
        let mut rest = tap;
        let mut offsets: Vec<usize> = (0..self.kernel.len())
            .rev()
            .map(|axis| {
                let along = rest % self.kernel[axis];
                rest /= self.kernel[axis];
                along * self.dilations[axis]
            })
            .collect();
        offsets.reverse();
        offsets
    }

    /// The elements at each residue modulo the strides, in row-major order of residues.
    fn phases(&self, b: &mut Builder, covered: &str) -> Vec<String> {
        let (rank, count) = (self.kernel.len(), self.strides.iter().product());
        if count == 1 {
            return vec![covered.to_owned()];
        }
        let whole = |axis: usize| self.full(axis).div_ceil(self.strides[axis]) * self.strides[axis];
        let windows: Vec<(i64, usize)> = (0..rank).map(|axis| (0, whole(axis))).collect();
        let x = b.windows(covered, 2, &windows, 0.0);
        let shape = b.shape(&x);
        let lattice: Vec<usize> = (0..rank).map(|a| shape[a + 2] / self.strides[a]).collect();
        let split: Vec<usize> = shape[..2]
            .iter()
            .copied()
            .chain((0..rank).flat_map(|axis| [lattice[axis], self.strides[axis]]))
            .collect();
        let x = b.reshape(&x, &split);
        let residues = (0..rank).map(|axis| 2 * axis + 3);
        let order: Vec<usize> =
            residues.chain([0, 1]).chain((0..rank).map(|axis| 2 * axis + 2)).collect();
        let x = b.transpose(&x, &order);
        let plane = [&shape[..2], lattice.as_slice()].concat();
        let stacked = b.reshape(&x, &[&[count], plane.as_slice()].concat());
        (0..count)
            .map(|phase| {
                let slice = b.slice(&stacked, 0, phase, 1, 1);
                b.reshape(&slice, &plane)
            })
            .collect()
    }

    fn attributes(&self, group: usize, pads: Vec<i64>) -> Vec<(&'static str, Attribute)> {
        let list = |values: &[usize]| Attribute::Ints(values.iter().map(|v| *v as i64).collect());
        vec![
            ("kernel_shape", list(&self.kernel)),
            ("strides", list(&self.strides)),
            ("dilations", list(&self.dilations)),
            ("group", Attribute::Int(group as i64)),
            ("pads", Attribute::Ints(pads)),
        ]
    }
}

pub(super) fn conv(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let (x, w) = (node.input(0).unwrap_or_default(), node.input(1).unwrap_or_default());
    let (x_shape, w_shape, y_shape) = (b.shape(x), b.shape(w), b.shape(dy));
    let geometry = Geometry::read(node, &w_shape[2..], &x_shape[2..], &y_shape[2..]);
    let group = node.int("group", 1).max(1) as usize;
    if b.wants(node, 0) {
        let gradient = input_gradient(b, dy, w, &geometry, group);
        b.give(node, 0, &gradient);
    }
    if b.wants(node, 1) {
        let gradient = weight_gradient(b, x, dy, &geometry, group);
        b.give(node, 1, &gradient);
    }
    give_bias(b, node, dy);
    Ok(())
}

/// Weights are `[input channels, output channels / group, …]`. The output is the wide side.
pub(super) fn transposed(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let (x, w) = (node.input(0).unwrap_or_default(), node.input(1).unwrap_or_default());
    let (x_shape, w_shape, y_shape) = (b.shape(x), b.shape(w), b.shape(dy));
    let mut geometry = Geometry::read(node, &w_shape[2..], &y_shape[2..], &x_shape[2..]);
    place_transposed(node, &mut geometry);
    let group = node.int("group", 1).max(1) as usize;
    if b.wants(node, 0) {
        let covered = geometry.cover(b, dy, 0.0);
        let attributes = geometry.attributes(group, vec![0; 2 * geometry.kernel.len()]);
        let dtype = b.dtype(dy);
        let gradient = b.emit("Conv", &[&covered, w], &attributes, dtype, x_shape);
        b.give(node, 0, &gradient);
    }
    if b.wants(node, 1) {
        let gradient = weight_gradient(b, dy, x, &geometry, group);
        b.give(node, 1, &gradient);
    }
    give_bias(b, node, dy);
    Ok(())
}

/// Where `output_shape` or `auto_pad` fixes the extents, the padding follows from them; the split of an odd total is
/// that of the ONNX specification of ConvTranspose.
fn place_transposed(node: &Node, geometry: &mut Geometry) {
    let auto = node.string("auto_pad", "NOTSET");
    let fixed = node.ints("output_shape").is_some();
    if !fixed && !auto.starts_with("SAME") {
        return;
    }
    for axis in 0..geometry.kernel.len() {
        let extra = node.ints("output_padding").and_then(|v| v.get(axis)).copied().unwrap_or(0);
        let total = (geometry.full(axis) as i64 + extra - geometry.wide[axis] as i64).max(0);
        geometry.begin[axis] = if auto == "SAME_UPPER" { total / 2 } else { total - total / 2 };
    }
}

fn give_bias(b: &mut Builder, node: &Node, dy: &str) {
    if b.wants(node, 2) {
        let axes: Vec<usize> = (0..b.shape(dy).len()).filter(|axis| *axis != 1).collect();
        let gradient = b.sum(dy, &axes, false);
        b.give(node, 2, &gradient);
    }
}

/// `dX` of a convolution: for stride one again a convolution, which engines run fastest, else a transposed one.
fn input_gradient(b: &mut Builder, dy: &str, w: &str, geometry: &Geometry, group: usize) -> String {
    if geometry.strides.iter().any(|s| *s != 1) {
        return scatter(b, dy, w, geometry, group);
    }
    let rank = geometry.kernel.len();
    let reach: Vec<i64> =
        (0..rank).map(|a| ((geometry.kernel[a] - 1) * geometry.dilations[a]) as i64).collect();
    let before: Vec<i64> = (0..rank).map(|a| reach[a] - geometry.begin[a]).collect();
    let after: Vec<i64> = (0..rank)
        .map(|a| geometry.wide[a] as i64 + reach[a] - geometry.narrow[a] as i64 - before[a])
        .collect();
    let mut dy = dy.to_owned();
    let mut pads = [before.clone(), after].concat();
    if pads.iter().any(|p| *p < 0) {
        let windows: Vec<(i64, usize)> = (0..rank)
            .map(|axis| (-before[axis], geometry.wide[axis] + reach[axis] as usize))
            .collect();
        dy = b.windows(&dy, 2, &windows, 0.0);
        pads = vec![0; 2 * rank];
    }
    let kernel = turned(b, w, group);
    let channels = b.shape(&kernel).first().copied().unwrap_or(1);
    let (dtype, mut shape) = (b.dtype(&dy), b.shape(&dy));
    shape.truncate(1);
    shape.push(channels);
    shape.extend(&geometry.wide);
    let attributes = geometry.attributes(group, pads);
    b.emit("Conv", &[&dy, &kernel], &attributes, dtype, shape)
}

/// Exchanges input and output channels within each group, and reverses the spatial axes.
fn turned(b: &mut Builder, w: &str, group: usize) -> String {
    let shape = b.shape(w);
    let (outputs, inputs, kernel) = (shape[0] / group, shape[1], &shape[2..]);
    let split = [&[group, outputs, inputs], kernel].concat();
    let order: Vec<usize> = [0, 2, 1].into_iter().chain(3..split.len()).collect();
    let merged = [&[group * inputs, outputs], kernel].concat();
    let mut w = w.to_owned();
    if outputs != 1 || inputs != 1 {
        let parts = b.reshape(&w, &split);
        w = b.transpose(&parts, &order);
    }
    // Reversing all spatial axes reverses the flattened ones; the exchange matrix does that exactly, and far
    // faster in the engine than a slice with a negative step.
    let taps: usize = kernel.iter().product();
    if taps > 1 {
        let exchange: Vec<f64> = (0..taps * taps)
            .map(|i| if i / taps + i % taps == taps - 1 { 1.0 } else { 0.0 })
            .collect();
        let exchange = b.floats(&w, &exchange, &[taps, taps]);
        let flat = b.reshape(&w, &[group * inputs * outputs, taps]);
        w = b.matmul(&flat, &exchange);
    }
    b.reshape(&w, &merged)
}

/// Adds every narrow element, times the kernel, onto the wide elements its window read: a transposed convolution.
pub(super) fn scatter(
    b: &mut Builder,
    dy: &str,
    w: &str,
    geometry: &Geometry,
    group: usize,
) -> String {
    let rank = geometry.kernel.len();
    let (w_shape, mut shape) = (b.shape(w), b.shape(dy));
    let mut pads = geometry.begin.clone();
    let mut extra = vec![0; rank];
    pads.resize(2 * rank, 0);
    for axis in 0..rank {
        let rest = geometry.wide[axis] as i64 + geometry.begin[axis] - geometry.full(axis) as i64;
        extra[axis] = rest.max(0);
        pads[rank + axis] = (-rest).max(0);
    }
    // Runtimes want less output padding than the stride; more of it, which pooling can leave, is padded by hand.
    let direct = (0..rank).all(|a| (extra[a] as usize) < geometry.strides[a]);
    let mut attributes = geometry.attributes(group, pads);
    if direct && extra.iter().any(|e| *e > 0) {
        attributes.push(("output_padding", Attribute::Ints(extra.clone())));
    }
    let dtype = b.dtype(dy);
    shape.truncate(1);
    shape.push(w_shape.get(1).copied().unwrap_or(1) * group);
    let spatial = geometry
        .wide
        .iter()
        .zip(&extra)
        .map(|(wide, e)| if direct { *wide } else { wide - *e as usize });
    shape.extend(spatial);
    let result = b.emit("ConvTranspose", &[dy, w], &attributes, dtype, shape);
    let windows: Vec<(i64, usize)> = geometry.wide.iter().map(|wide| (0, *wide)).collect();
    b.windows(&result, 2, &windows, 0.0)
}

/// `dW[o, c, k] = Σ dY[o, p] · X[c, p·s + k·d − begin]`: the taps are gathered side by side, so that one product per
/// batch and group makes the gradient of all of them.
fn weight_gradient(
    b: &mut Builder,
    wide: &str,
    narrow: &str,
    geometry: &Geometry,
    group: usize,
) -> String {
    let (wide_shape, narrow_shape) = (b.shape(wide), b.shape(narrow));
    let (batch, inputs, outputs) = (wide_shape[0], wide_shape[1] / group, narrow_shape[1] / group);
    let windows: usize = geometry.narrow.iter().product();
    let taps = geometry.taps();
    let covered = geometry.cover(b, wide, 0.0);
    let columns: Vec<String> = geometry
        .tap_slices(b, &covered)
        .iter()
        .map(|slice| b.reshape(slice, &[batch, group, inputs, 1, windows]))
        .collect();
    let columns = b.concat(&columns, 3);
    let narrow = b.reshape(narrow, &[batch, group, outputs, windows]);
    let product = if inputs == 1 && outputs == 1 {
        let columns = b.reshape(&columns, &[batch, group, taps, windows]);
        let product = b.mul(&columns, &narrow);
        b.sum(&product, &[0, 3], false)
    } else {
        let columns = b.reshape(&columns, &[batch, group, inputs * taps, windows]);
        // The columns are the larger operand: the other one is transposed, and the small product back.
        let narrow = b.swap(&narrow);
        let product = b.matmul(&columns, &narrow);
        let product = b.sum(&product, &[0], false);
        b.swap(&product)
    };
    let shape = [&[group * outputs, inputs], geometry.kernel.as_slice()].concat();
    b.reshape(&product, &shape)
}
