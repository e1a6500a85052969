//! Rules of matrix products. Frozen operands cost nothing: only the wanted side is emitted.

use std::collections::BTreeMap;

use super::builder::Builder;
use super::unsupported;
use crate::error::Result;
use crate::model::{Attribute, Node};

/// `Y = A B`: `dA = dY Bᵀ`, `dB = Aᵀ dY`, batch axes that were broadcast are summed. A vector operand counts as a
/// row on the left and as a column on the right, as in numpy.
pub(super) fn matmul(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let (left, right) = (input(node, 0), input(node, 1));
    let (left_shape, right_shape) = (b.shape(left), b.shape(right));
    let mut shape = b.shape(dy);
    if right_shape.len() == 1 {
        shape.push(1);
    }
    if left_shape.len() == 1 {
        shape.insert(shape.len() - 1, 1);
    }
    let dy = b.reshape(dy, &shape);
    let column = [right_shape.as_slice(), &[1]].concat();
    let row = [&[1], left_shape.as_slice()].concat();
    let right = if right_shape.len() == 1 { b.reshape(right, &column) } else { right.to_owned() };
    let left = if left_shape.len() == 1 { b.reshape(left, &row) } else { left.to_owned() };

    if b.wants(node, 0) {
        let transposed = b.swap(&right);
        let gradient = b.matmul(&dy, &transposed);
        give_matrix(b, node, 0, &gradient, &left_shape);
    }
    if b.wants(node, 1) {
        let gradient = left_transposed(b, &left, &dy, right_shape.len() <= 2);
        give_matrix(b, node, 1, &gradient, &right_shape);
    }
    Ok(())
}

/// A vector operand lost its unit axis in the product's gradient; the element count tells.
fn give_matrix(b: &mut Builder, node: &Node, index: usize, gradient: &str, shape: &[usize]) {
    let gradient = match shape {
        [n] => {
            let target = if index == 0 { vec![1, *n] } else { vec![*n, 1] };
            let summed = b.fit(gradient, &target);
            b.reshape(&summed, shape)
        }
        _ => gradient.to_owned(),
    };
    b.give(node, index, &gradient);
}

/// `Aᵀ dY`. Where the right operand is one matrix for the whole batch, rows of all batches are stacked first, so
/// that one product replaces a batch of products and their sum.
fn left_transposed(b: &mut Builder, a: &str, dy: &str, shared: bool) -> String {
    let (a_shape, dy_shape) = (b.shape(a), b.shape(dy));
    if !shared || a_shape.len() <= 2 {
        let transposed = b.swap(a);
        return b.matmul(&transposed, dy);
    }
    let stack = |shape: &[usize]| {
        let (last, rest) = shape.split_last().unwrap_or((&1, &[]));
        [rest.iter().product(), *last]
    };
    let rows = b.reshape(a, &stack(&a_shape));
    let columns = b.swap(&rows);
    let dy = b.reshape(dy, &stack(&dy_shape));
    b.matmul(&columns, &dy)
}

/// `Y = α A' B' + β C`, where a dash is an optional transpose.
pub(super) fn gemm(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let (left, right) = (input(node, 0), input(node, 1));
    let (flip_left, flip_right) = (node.int("transA", 0) != 0, node.int("transB", 0) != 0);
    let scaled = if b.wants(node, 0) || b.wants(node, 1) {
        b.scale(dy, f64::from(node.float("alpha", 1.0)))
    } else {
        dy.to_owned()
    };
    if b.wants(node, 0) {
        let gradient = product(b, &scaled, false, right, !flip_right, flip_left);
        b.give(node, 0, &gradient);
    }
    if b.wants(node, 1) {
        let gradient = product(b, left, !flip_left, &scaled, false, flip_right);
        b.give(node, 1, &gradient);
    }
    if b.wants(node, 2) {
        let gradient = b.scale(dy, f64::from(node.float("beta", 1.0)));
        b.give(node, 2, &gradient);
    }
    Ok(())
}

/// `A' B'`, or its transpose `B'ᵀ A'ᵀ`.
fn product(
    b: &mut Builder,
    left: &str,
    flip_left: bool,
    right: &str,
    flip_right: bool,
    flip: bool,
) -> String {
    let side = |b: &mut Builder, x: &str, turn: bool| if turn { b.swap(x) } else { x.to_owned() };
    let left = side(b, left, flip_left != flip);
    let right = side(b, right, flip_right != flip);
    if flip { b.matmul(&right, &left) } else { b.matmul(&left, &right) }
}

/// The gradient of a term is the einsum of `dY` with all other terms; indices that the term alone has were summed, so
/// their gradient is repeated.
pub(super) fn einsum(b: &mut Builder, node: &Node, dy: &str) -> Result<()> {
    let equation = Equation::parse(b, node)?;
    for (index, term) in equation.terms.iter().enumerate() {
        if !b.wants(node, index) {
            continue;
        }
        let shape = b.shape(input(node, index));
        let others: Vec<(usize, &Vec<char>)> =
            equation.terms.iter().enumerate().filter(|(i, _)| *i != index).collect();
        let known =
            |c: &char| equation.output.contains(c) || others.iter().any(|(_, o)| o.contains(c));
        let kept: Vec<char> = term.iter().copied().filter(known).collect();
        let mut operands = vec![(dy.to_owned(), equation.output.clone())];
        operands.extend(others.iter().map(|(i, o)| (input(node, *i).to_owned(), (*o).clone())));
        let gradient = contract(b, operands, &kept);
        // The indices that were summed come back as axes of size one, which `give` repeats.
        let kept_shape = b.shape(&gradient);
        let mut dims = kept_shape.iter();
        let aligned: Vec<usize> = term
            .iter()
            .map(|c| if known(c) { dims.next().copied().unwrap_or(1) } else { 1 })
            .collect();
        let gradient = b.reshape(&gradient, &aligned);
        let gradient = b.fit(&gradient, &shape);
        b.give(node, index, &gradient);
    }
    Ok(())
}

/// Emits an einsum of the operands.
fn contract(b: &mut Builder, operands: Vec<(String, Vec<char>)>, output: &[char]) -> String {
    let mut sizes: BTreeMap<char, usize> = BTreeMap::new();
    for (name, indices) in &operands {
        for (index, dim) in indices.iter().zip(b.shape(name)) {
            let size = sizes.entry(*index).or_insert(1);
            *size = (*size).max(dim);
        }
    }
    // Equal extents everywhere: runtimes differ in whether an einsum index may broadcast.
    let operands: Vec<(String, Vec<char>)> = operands
        .into_iter()
        .map(|(name, indices)| {
            let full: Vec<usize> =
                indices.iter().map(|c| sizes.get(c).copied().unwrap_or(1)).collect();
            (b.expand(&name, &full), indices)
        })
        .collect();
    let terms: Vec<String> = operands.iter().map(|(_, indices)| indices.iter().collect()).collect();
    let equation = format!("{}->{}", terms.join(","), output.iter().collect::<String>());
    let dtype =
        operands.first().map(|(name, _)| b.dtype(name)).unwrap_or(crate::tensor::DType::F32);
    let shape = output.iter().map(|c| sizes.get(c).copied().unwrap_or(1)).collect();
    let names: Vec<&str> = operands.iter().map(|(name, _)| name.as_str()).collect();
    b.emit("Einsum", &names, &[("equation", Attribute::String(equation))], dtype, shape)
}

/// An einsum equation with its ellipsis written out.
struct Equation {
    terms: Vec<Vec<char>>,
    output: Vec<char>,
}

impl Equation {
    fn parse(b: &mut Builder, node: &Node) -> Result<Self> {
        let text: String =
            node.string("equation", "").chars().filter(|c| !c.is_whitespace()).collect();
        let (left, right) =
            text.split_once("->").map_or((text.as_str(), None), |(l, r)| (l, Some(r)));
        let terms: Vec<&str> = left.split(',').collect();
        if terms.len() != node.inputs.len() {
            return Err(unsupported(
                node,
                &format!("an equation of {} terms for {} inputs", terms.len(), node.inputs.len()),
                "write one term for each input",
            ));
        }
        let mut spare: Vec<char> = ('A'..='Z').filter(|c| !text.contains(*c)).collect();
        let ellipsis = (0..terms.len())
            .filter(|i| terms[*i].contains("..."))
            .map(|i| (b.shape(input(node, i)).len() + 3).saturating_sub(terms[i].len()))
            .max()
            .unwrap_or(0);
        spare.truncate(ellipsis);
        let write_out = |term: &str, count: usize| -> Vec<char> {
            let dots: String =
                spare.get(ellipsis - count.min(ellipsis)..).unwrap_or_default().iter().collect();
            term.replace("...", &dots).chars().collect()
        };
        let full: Vec<Vec<char>> = (0..terms.len())
            .map(|i| {
                let count = (b.shape(input(node, i)).len() + 3).saturating_sub(terms[i].len());
                write_out(terms[i], count)
            })
            .collect();
        let repeated =
            |term: &Vec<char>| term.iter().enumerate().any(|(i, c)| term[..i].contains(c));
        if full.iter().any(repeated) {
            return Err(unsupported(
                node,
                "an index repeated within a term",
                "take the diagonal by another operator",
            ));
        }
        let output = match right {
            Some(right) => write_out(right, ellipsis),
            None => implicit_output(&full, &spare),
        };
        Ok(Self { terms: full, output })
    }
}

/// Without an arrow the output has the ellipsis and then the indices that occur once, in alphabetical order.
fn implicit_output(terms: &[Vec<char>], ellipsis: &[char]) -> Vec<char> {
    let mut counts: BTreeMap<char, usize> = BTreeMap::new();
    for c in terms.iter().flatten().filter(|c| !ellipsis.contains(c)) {
        *counts.entry(*c).or_default() += 1;
    }
    ellipsis
        .iter()
        .copied()
        .chain(counts.into_iter().filter(|(_, n)| *n == 1).map(|(c, _)| c))
        .collect()
}

fn input(node: &Node, index: usize) -> &str {
    node.input(index).unwrap_or_default()
}
