//! The losses, in forms that stay finite for large logits, and their gradients with respect to the model's output.

use super::Loss;
use super::builder::Builder;
use crate::error::Result;
use crate::tensor::{DType, Tensor};

/// Emits the loss of `output`, contributes its gradient to `output`, and returns the name of the scalar.
pub(super) fn append(b: &mut Builder, loss: Loss, output: &str) -> Result<String> {
    // Sixteen-bit logits would round the loss to three digits.
    let prediction = match b.dtype(output) {
        DType::F64 => output.to_owned(),
        _ => b.cast(output, DType::F32),
    };
    let (value, gradient) = match loss {
        Loss::SoftmaxCrossEntropy => softmax_cross_entropy(b, &prediction),
        Loss::SigmoidCrossEntropy => sigmoid_cross_entropy(b, &prediction),
        Loss::MeanSquaredError => mean_squared_error(b, &prediction),
        Loss::Entropy => entropy(b, &prediction),
    };
    let dtype = b.dtype(output);
    let gradient = b.cast(&gradient, dtype);
    b.contribute(output, &gradient);
    Ok(value)
}

fn class_axis(shape: &[usize]) -> usize {
    if shape.len() > 2 { 1 } else { shape.len().saturating_sub(1) }
}

fn log_softmax(b: &mut Builder, x: &str, axis: usize) -> String {
    let (dtype, shape) = (b.dtype(x), b.shape(x));
    let axis = crate::model::Attribute::Int(axis as i64);
    b.emit("LogSoftmax", &[x], &[("axis", axis)], dtype, shape)
}

fn total(b: &mut Builder, x: &str) -> String {
    let axes: Vec<usize> = (0..b.shape(x).len()).collect();
    b.sum(x, &axes, false)
}

fn mean(b: &mut Builder, x: &str) -> String {
    let count: usize = b.shape(x).iter().product();
    let sum = total(b, x);
    b.scale(&sum, 1.0 / count.max(1) as f64)
}

/// `−Σ hot · log p / n` with gradient `(p · Σ hot − hot) / n`. `n` counts the ids within range, at least one.
fn softmax_cross_entropy(b: &mut Builder, x: &str) -> (String, String) {
    let shape = b.shape(x);
    let axis = class_axis(&shape);
    let classes = shape.get(axis).copied().unwrap_or(1);
    let mut target_shape = shape.clone();
    if !shape.is_empty() {
        target_shape.remove(axis);
    }
    b.declare("target", DType::I64, &target_shape);

    // OneHot is avoided: runtimes disagree on ids out of range, one of ours would abort.
    let mut column = shape.clone();
    let mut row = vec![1; shape.len()];
    if let (Some(c), Some(r)) = (column.get_mut(axis), row.get_mut(axis)) {
        (*c, *r) = (1, classes);
    }
    let ids = Tensor::vector(&(0..classes as i64).collect::<Vec<_>>());
    let ids = b.constant(ids);
    let ids = b.reshape(&ids, &row);
    let target = b.reshape("target", &column);
    let hot = b.binary("Equal", &target, &ids);
    let hot = b.indicator(&hot, x);

    let log_p = log_softmax(b, x, axis);
    let picked = b.mul(&hot, &log_p);
    let sum = total(b, &picked);
    let count = total(b, &hot);
    let one = b.scalar(x, 1.0);
    let count = b.binary("Max", &count, &one);
    let mean = b.div(&sum, &count);
    let loss = b.neg(&mean);

    let p = b.unary("Exp", &log_p);
    let within = b.sum(&hot, &[axis], true);
    let p = b.mul(&p, &within);
    let difference = b.sub(&p, &hot);
    let gradient = b.div(&difference, &count);
    (loss, gradient)
}

/// `max(x, 0) − x·t + log(1 + exp(−|x|))` with gradient `sigmoid(x) − t`, both over the element count.
fn sigmoid_cross_entropy(b: &mut Builder, x: &str) -> (String, String) {
    let (dtype, shape) = (b.dtype(x), b.shape(x));
    b.declare("target", dtype, &shape);
    let zero = b.scalar(x, 0.0);
    let positive = b.binary("Max", x, &zero);
    let product = b.mul(x, "target");
    let linear = b.sub(&positive, &product);
    let magnitude = b.unary("Abs", x);
    let negative = b.neg(&magnitude);
    let small = b.unary("Exp", &negative);
    let shifted = b.offset(&small, 1.0);
    let log = b.unary("Log", &shifted);
    let each = b.add(&linear, &log);
    let loss = mean(b, &each);

    let p = b.unary("Sigmoid", x);
    let difference = b.sub(&p, "target");
    let count: usize = shape.iter().product();
    let gradient = b.scale(&difference, 1.0 / count.max(1) as f64);
    (loss, gradient)
}

fn mean_squared_error(b: &mut Builder, y: &str) -> (String, String) {
    let (dtype, shape) = (b.dtype(y), b.shape(y));
    b.declare("target", dtype, &shape);
    let difference = b.sub(y, "target");
    let square = b.mul(&difference, &difference);
    let loss = mean(b, &square);
    let count: usize = shape.iter().product();
    let gradient = b.scale(&difference, 2.0 / count.max(1) as f64);
    (loss, gradient)
}

/// `H = −Σ p log p` with gradient `−p (log p + H)`, over the number of positions.
fn entropy(b: &mut Builder, x: &str) -> (String, String) {
    let shape = b.shape(x);
    let axis = class_axis(&shape);
    let log_p = log_softmax(b, x, axis);
    let p = b.unary("Exp", &log_p);
    let product = b.mul(&p, &log_p);
    let negative = b.sum(&product, &[axis], true);
    let positions: usize = b.shape(&negative).iter().product();
    let weight = 1.0 / positions.max(1) as f64;
    let sum = total(b, &negative);
    let loss = b.scale(&sum, -weight);

    let centred = b.sub(&negative, &log_p);
    let weighted = b.mul(&p, &centred);
    let gradient = b.scale(&weighted, weight);
    (loss, gradient)
}
