//! Transposed convolutions whose padding the engine does not work out: `SAME`, and a wanted output shape.

use super::{Lowering, made, need};
use crate::error::{Code, Error, Result};
use crate::model::{Attribute, Dim, Node};
use crate::tensor::Tensor;

/// `SAME` padding becomes explicit; a wanted output shape becomes a cut out of the whole result.
pub(super) fn conv_transpose(lowering: &mut Lowering<'_>, node: &Node) -> Result<bool> {
    let fixed = node.ints("output_shape").map(<[i64]>::to_vec);
    let auto = node.string("auto_pad", "NOTSET");
    if fixed.is_none() && !auto.starts_with("SAME") {
        return Ok(false);
    }
    let windows = Windows::read(lowering, node)?;
    match fixed {
        Some(wanted) => cut_out(lowering, node, &windows, &wanted)?,
        None => {
            let pads = windows.same_pads(auto == "SAME_UPPER");
            let mut explicit = node.clone();
            explicit.attributes.remove("auto_pad");
            explicit.attributes.insert("pads".to_owned(), Attribute::Ints(pads));
            lowering.nodes.push(explicit);
        }
    }
    Ok(true)
}

/// How the windows of a transposed convolution lie, per spatial axis.
struct Windows {
    strides: Vec<i64>,
    /// Elements from the first to the last of a window.
    reach: Vec<i64>,
    /// Elements added behind the last window.
    extra: Vec<i64>,
}

impl Windows {
    fn read(lowering: &Lowering<'_>, node: &Node) -> Result<Self> {
        let weight = need(node, 1)?;
        let given = node.ints("kernel_shape").map(<[i64]>::to_vec);
        let kernel = given.or_else(|| kernel_of(lowering, weight)).ok_or_else(|| {
            Error::new(
                Code::ModelUnsupported,
                "its padding follows from a kernel that no attribute, initializer or input tells",
            )
            .with_hint("give kernel_shape, or explicit pads")
        })?;
        let list = |name: &str, default: i64| -> Vec<i64> {
            let given = node.ints(name).unwrap_or_default();
            (0..kernel.len()).map(|axis| given.get(axis).copied().unwrap_or(default)).collect()
        };
        let reach = kernel.iter().zip(list("dilations", 1));
        let reach = reach
            .map(|(size, dilation)| {
                size.saturating_sub(1).saturating_mul(dilation).saturating_add(1)
            })
            .collect();
        Ok(Self { strides: list("strides", 1), reach, extra: list("output_padding", 0) })
    }

    fn rank(&self) -> usize {
        self.reach.len()
    }

    /// The output is input · stride long, so that what is cut off does not depend on the input.
    fn same_pads(&self, upper: bool) -> Vec<i64> {
        let totals: Vec<i64> = (0..self.rank())
            .map(|axis| {
                let whole = self.reach[axis].saturating_add(self.extra[axis]);
                whole.saturating_sub(self.strides[axis]).max(0)
            })
            .collect();
        let smaller = totals.iter().map(|total| total / 2);
        let larger = totals.iter().map(|total| total - total / 2);
        if upper { smaller.chain(larger).collect() } else { larger.chain(smaller).collect() }
    }
}

/// The spatial sizes of a weight: of an initializer, or, in a training model, of an input.
fn kernel_of(lowering: &Lowering<'_>, weight: &str) -> Option<Vec<i64>> {
    if let Some(weight) = lowering.initializer(weight) {
        return Some(weight.shape().iter().skip(2).map(|size| *size as i64).collect());
    }
    let declared = lowering.graph.input(weight)?.shape.as_ref()?;
    let fixed = declared.iter().skip(2).map(|dim| match dim {
        Dim::Fixed(size) => Some(*size as i64),
        _ => None,
    });
    fixed.collect()
}

/// Without padding the result of an axis is (input − 1) · stride + reach long. What the wanted shape leaves out of it is
/// cut off on both sides, the split of an odd number as in the specification of ConvTranspose; what it lacks is filled
/// with zeros at the end, before the bias is added.
fn cut_out(
    lowering: &mut Lowering<'_>,
    node: &Node,
    windows: &Windows,
    wanted: &[i64],
) -> Result<()> {
    let rank = windows.rank();
    let Some(wanted) = wanted.len().checked_sub(rank).and_then(|skip| wanted.get(skip..)) else {
        return Err(Error::new(
            Code::ModelInvalid,
            format!("output_shape {wanted:?} has fewer than {rank} dimensions"),
        )
        .with_hint("give one size per spatial axis"));
    };
    if let Some(odd) = wanted.iter().find(|size| !(1..=1 << 28).contains(*size)) {
        return Err(Error::new(
            Code::ModelInvalid,
            format!("output_shape {wanted:?} asks for the size {odd}"),
        )
        .with_hint("give sizes of at least 1"));
    }
    let (x, weight) = (need(node, 0)?, need(node, 1)?);
    let whole = lowering.fresh("ConvTranspose");
    let mut plain = node.clone();
    for name in ["output_shape", "output_padding", "auto_pad", "pads"] {
        plain.attributes.remove(name);
    }
    plain.inputs = vec![x.to_owned(), weight.to_owned()];
    plain.outputs = vec![whole.clone()];
    lowering.nodes.push(plain);

    let axes: Vec<i64> = (2..).take(rank).collect();
    let axes = lowering.constant(Tensor::vector(&axes));
    let natural = spatial_sizes(lowering, &whole);
    let wanted_sizes = lowering.constant(Tensor::vector(wanted));
    let begin = surplus(lowering, windows, &natural, &wanted_sizes, node);
    let end = lowering.emit("Add", &[&begin, &wanted_sizes], &[]);
    let lacking = lowering.emit("Sub", &[&end, &natural], &[]);
    let none = lowering.constant(Tensor::vector(&vec![0i64; rank]));
    let lacking = lowering.emit("Max", &[&lacking, &none], &[]);
    let before = lowering.constant(Tensor::vector(&vec![0i64; 4 + rank]));
    let pads = lowering.emit("Concat", &[&before, &lacking], &[("axis", Attribute::Int(0))]);
    let filled = lowering.emit("Pad", &[&whole, &pads], &[]);
    let cut = [filled.as_str(), &begin, &end, &axes];
    match node.input(2) {
        None => lowering.emit_as("Slice", &cut, made(node)?, &[]),
        Some(bias) => {
            let part = lowering.emit("Slice", &cut, &[]);
            let column: Vec<i64> = std::iter::once(-1).chain(vec![1; rank]).collect();
            let column = lowering.constant(Tensor::vector(&column));
            let bias = lowering.emit("Reshape", &[bias, &column], &[]);
            lowering.emit_as("Add", &[&part, &bias], made(node)?, &[]);
        }
    }
    Ok(())
}

/// The sizes of all axes but the first two.
fn spatial_sizes(lowering: &mut Lowering<'_>, tensor: &str) -> String {
    let shape = lowering.emit("Shape", &[tensor], &[]);
    let from = lowering.constant(Tensor::vector(&[2i64]));
    let until = lowering.constant(Tensor::vector(&[i64::MAX]));
    lowering.emit("Slice", &[&shape, &from, &until], &[])
}

/// How many elements are cut off before each axis.
fn surplus(
    lowering: &mut Lowering<'_>,
    windows: &Windows,
    natural: &str,
    wanted: &str,
    node: &Node,
) -> String {
    let vector = |lowering: &mut Lowering<'_>, value: i64| {
        lowering.constant(Tensor::vector(&vec![value; windows.rank()]))
    };
    let extra = lowering.constant(Tensor::vector(&windows.extra));
    let (zero, two) = (vector(lowering, 0), vector(lowering, 2));
    let longest = lowering.emit("Add", &[natural, &extra], &[]);
    let total = lowering.emit("Sub", &[&longest, wanted], &[]);
    let total = lowering.emit("Max", &[&total, &zero], &[]);
    let upper = node.string("auto_pad", "NOTSET") == "SAME_UPPER";
    let total = if upper {
        total
    } else {
        let one = vector(lowering, 1);
        lowering.emit("Add", &[&total, &one], &[])
    };
    lowering.emit("Div", &[&total, &two], &[])
}
