//! Quotients that are rounded or compared. The engine multiplies by the reciprocal of a constant divisor, which can be
//! off by a unit in the last place: harmless for what goes on as a float, a whole step where it is rounded.

use std::collections::BTreeSet;

use super::{Lowering, made, need, to};
use crate::error::Result;
use crate::model::Node;
use crate::tensor::DType;

/// Lets such a quotient be computed by [`quotient`].
pub(super) fn div(lowering: &mut Lowering<'_>, node: &Node) -> Result<bool> {
    let (a, b, made) = (need(node, 0)?, need(node, 1)?, made(node)?);
    if lowering.dtype(a) != DType::F32 || !is_rounded(lowering, made) {
        return Ok(false);
    }
    let exact = quotient(lowering, a, b);
    lowering.emit_as("Identity", &[&exact], made, &[]);
    Ok(true)
}

/// `a / b`, of float32 computed in double precision: half a unit of float64 disappears when it becomes a float32.
pub(super) fn quotient(lowering: &mut Lowering<'_>, a: &str, b: &str) -> String {
    if lowering.dtype(a) != DType::F32 {
        return lowering.emit("Div", &[a, b], &[]);
    }
    let double = [("to", to(DType::F64))];
    let a = lowering.emit("Cast", &[a], &double);
    let b = lowering.emit("Cast", &[b], &double);
    let exact = lowering.emit("Div", &[&a, &b], &[]);
    lowering.emit("Cast", &[&exact], &[("to", to(DType::F32))])
}

/// Whether a rounding or a comparison reads the tensor, directly or through operators that carry the error along.
fn is_rounded(lowering: &Lowering<'_>, tensor: &str) -> bool {
    let mut seen = BTreeSet::from([tensor]);
    let mut open = vec![tensor];
    while let Some(name) = open.pop() {
        for reader in lowering.readers(name) {
            let integers = reader.op == "Cast" && !lowering.makes_floats(reader);
            if integers || ROUNDING.contains(&reader.op.as_str()) {
                return true;
            }
            if CARRYING.contains(&reader.op.as_str()) {
                open.extend(reader.makes().filter(|made| seen.insert(made)));
            }
        }
    }
    false
}

const ROUNDING: &[&str] = &[
    "Ceil",
    "Equal",
    "Floor",
    "Greater",
    "GreaterOrEqual",
    "Less",
    "LessOrEqual",
    "QuantizeLinear",
    "Round",
];

#[rustfmt::skip]
const CARRYING: &[&str] = &[
    "Abs", "Add", "Clip", "Concat", "Div", "Flatten", "Identity", "Max", "Min", "Neg", "Reshape", "Slice", "Squeeze",
    "Sub", "Transpose", "Unsqueeze",
];
