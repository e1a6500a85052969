//! Products of matrices and transposed convolutions in forms that the engine does not accept.

use std::collections::BTreeSet;

use super::{Lowering, made, need};
use crate::error::{Code, Error, Result};
use crate::model::{Attribute, Node};
use crate::tensor::{DType, Tensor};

/// What the engine computes by its matrix kernels.
pub(super) const PRODUCTS: &[&str] = &["Conv", "ConvTranspose", "Einsum", "Gemm", "MatMul"];

/// `a − product` becomes `a + (−product)`: where the engine merges a subtraction into a convolution, it exchanges the
/// operands of some.
pub(super) fn sub(lowering: &mut Lowering<'_>, node: &Node) -> Result<bool> {
    let (a, b) = (need(node, 0)?, need(node, 1)?);
    if !PRODUCTS.contains(&lowering.maker(b)) {
        return Ok(false);
    }
    let negative = lowering.emit("Neg", &[b], &[]);
    lowering.emit_as("Add", &[a, &negative], made(node)?, &[]);
    Ok(true)
}

/// The engine computes a `Gemm` of 16-bit floats in float32, and then finds that the result has the wrong type. It is
/// written out as `α A' B' + β C`.
pub(super) fn gemm(lowering: &mut Lowering<'_>, node: &Node) -> Result<bool> {
    let output = made(node)?;
    if lowering.dtype(output) != DType::F16 {
        return Ok(false);
    }
    let mut sides = Vec::new();
    for (index, flag) in [(0, "transA"), (1, "transB")] {
        let side = need(node, index)?;
        sides.push(match node.int(flag, 0) {
            0 => side.to_owned(),
            _ => lowering.emit("Transpose", &[side], &[("perm", Attribute::Ints(vec![1, 0]))]),
        });
    }
    let product = lowering.emit("MatMul", &[&sides[0], &sides[1]], &[]);
    let product = scaled(lowering, &product, node.float("alpha", 1.0));
    match node.input(2) {
        None => lowering.emit_as("Identity", &[&product], output, &[]),
        Some(term) => {
            let term = scaled(lowering, term, node.float("beta", 1.0));
            lowering.emit_as("Add", &[&product, &term], output, &[]);
        }
    }
    Ok(true)
}

fn scaled(lowering: &mut Lowering<'_>, tensor: &str, factor: f32) -> String {
    if factor == 1.0 {
        return tensor.to_owned();
    }
    let factor = lowering.scalar_like(factor, tensor);
    lowering.emit("Mul", &[tensor, &factor], &[])
}

/// The product of two vectors is the sum of their products.
pub(super) fn mat_mul(lowering: &mut Lowering<'_>, node: &Node) -> Result<bool> {
    let (a, b) = (need(node, 0)?, need(node, 1)?);
    if lowering.rank(a) != Some(1) || lowering.rank(b) != Some(1) {
        return Ok(false);
    }
    let products = lowering.emit("Mul", &[a, b], &[]);
    let axes = lowering.constant(Tensor::vector(&[0i64]));
    lowering.emit_as(
        "ReduceSum",
        &[&products, &axes],
        made(node)?,
        &[("keepdims", Attribute::Int(0))],
    );
    Ok(true)
}

/// The engine knows neither `...` nor a result without indices.
pub(super) fn einsum(lowering: &mut Lowering<'_>, node: &Node) -> Result<bool> {
    let equation: String =
        node.string("equation", "").chars().filter(|c| !c.is_whitespace()).collect();
    let spelled = spell_out(lowering, node, &equation)?;
    if let Some(operands) = spelled.strip_suffix("->") {
        let Some(index) = operands.chars().find(char::is_ascii_alphabetic) else {
            return Ok(false);
        };
        let sums = lowering.fresh("Einsum");
        push_einsum(lowering, node, format!("{operands}->{index}"), &sums);
        let axes = lowering.constant(Tensor::vector(&[0i64]));
        lowering.emit_as(
            "ReduceSum",
            &[&sums, &axes],
            made(node)?,
            &[("keepdims", Attribute::Int(0))],
        );
        return Ok(true);
    }
    if spelled == equation {
        return Ok(false);
    }
    let output = made(node)?.to_owned();
    push_einsum(lowering, node, spelled, &output);
    Ok(true)
}

fn push_einsum(lowering: &mut Lowering<'_>, node: &Node, equation: String, output: &str) {
    let mut spelled = node.clone();
    spelled.attributes.insert("equation".to_owned(), Attribute::String(equation));
    spelled.outputs = vec![output.to_owned()];
    lowering.nodes.push(spelled);
}

/// Replaces `...` by as many unused indices as the operands' ranks leave.
fn spell_out(lowering: &Lowering<'_>, node: &Node, equation: &str) -> Result<String> {
    if !equation.contains("...") {
        return Ok(equation.to_owned());
    }
    let refuse = |why: &str| {
        Error::new(Code::ModelUnsupported, format!("the equation `{equation}` {why}"))
            .with_hint("write the equation with one letter per dimension")
    };
    let used: BTreeSet<char> = equation.chars().collect();
    let free: Vec<char> =
        ('A'..='Z').chain('a'..='z').filter(|letter| !used.contains(letter)).collect();
    let (operands, result) =
        equation.split_once("->").ok_or_else(|| refuse("has `...` without `->`"))?;
    let hidden =
        |term: &str, rank: usize| rank.checked_sub(term.chars().filter(|c| *c != '.').count());
    let mut counts = BTreeSet::new();
    for (term, input) in operands.split(',').zip(&node.inputs) {
        if term.contains("...") {
            let rank =
                lowering.rank(input).ok_or_else(|| refuse("has `...` on a tensor of open rank"))?;
            counts.insert(
                hidden(term, rank).ok_or_else(|| refuse("has more indices than dimensions"))?,
            );
        }
    }
    // Operands that hide different numbers of dimensions would need broadcasting.
    let (Some(count), 1) = (counts.first().copied(), counts.len()) else {
        return Err(refuse("hides different numbers of dimensions"));
    };
    let letters: String =
        free.get(..count).ok_or_else(|| refuse("has too many dimensions"))?.iter().collect();
    Ok(format!("{}->{}", operands.replace("...", &letters), result.replace("...", &letters)))
}
