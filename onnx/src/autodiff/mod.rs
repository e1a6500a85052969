//! Reverse-mode differentiation from ONNX to ONNX.
//!
//! [`differentiate`] appends a loss and the adjoint of every node between the trainable tensors and that loss.
//! The result is an ordinary model in standard operators: any runtime trains with it. There is one rule per
//! operator, in the table [`rules`]; a rule emits the vector–Jacobian product of its node (Griewank and Walther,
//! *Evaluating Derivatives*, 2nd ed., chapter 3), stated on the node's output where that saves keeping its input.

mod activation;
mod builder;
mod convolution;
mod elementwise;
mod emit;
mod indexing;
mod interface;
mod layout;
mod linear;
mod loss;
mod normalisation;
mod path;
mod pooling;
mod reduction;
mod resize;
mod rules;
mod softmax;
mod statics;
mod unroll;

use std::str::FromStr;

use crate::engine::{self, Dims};
use crate::error::{Code, Error, Result};
use crate::model::{Model, Node, ValueInfo};

use builder::Builder;
use path::Path;
use rules::Gradient;
pub use rules::{Rule, rules};

/// What is minimised. Every loss is a scalar: the mean over the batch, and over positions where there are several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Loss {
    /// `−log softmax(logits)[target]`. Classes lie on the last axis of a tensor of up to two axes and on axis 1 of a
    /// larger one, as in ONNX `SoftmaxCrossEntropyLoss`; `target` holds int64 class ids in the shape without the class
    /// axis. An id outside `0..classes`, such as −1 for padding, is left out of the sum and of the mean's count.
    SoftmaxCrossEntropy,
    /// Binary cross-entropy of `sigmoid(logits)` against a `target` in 0..1 of the same shape, mean over all elements.
    SigmoidCrossEntropy,
    /// `(output − target)²`, mean over all elements; `target` has the output's shape.
    MeanSquaredError,
    /// Shannon entropy of `softmax(logits)` in nats, classes as for [`Loss::SoftmaxCrossEntropy`]; no target.
    Entropy,
}

impl Loss {
    /// The name in manifests and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SoftmaxCrossEntropy => "softmax_cross_entropy",
            Self::SigmoidCrossEntropy => "sigmoid_cross_entropy",
            Self::MeanSquaredError => "mean_squared_error",
            Self::Entropy => "entropy",
        }
    }

    /// Whether the training model has an input named `target`.
    pub const fn has_target(self) -> bool {
        !matches!(self, Self::Entropy)
    }

    const ALL: [Self; 4] = [
        Self::SoftmaxCrossEntropy,
        Self::SigmoidCrossEntropy,
        Self::MeanSquaredError,
        Self::Entropy,
    ];
}

impl FromStr for Loss {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|loss| loss.as_str() == text).ok_or_else(|| {
            Error::new(Code::ManifestInvalid, format!("unknown loss `{text}`"))
                .with_hint(format!("use one of {}", Self::ALL.map(Self::as_str).join(", ")))
        })
    }
}

/// What to minimise, and over which tensors.
#[derive(Clone, Copy, Debug)]
pub struct Objective<'a> {
    /// The loss.
    pub loss: Loss,
    /// The tensor that the loss reads: an output of the model or any tensor inside it, such as the logits before
    /// a final softmax.
    pub output: &'a str,
    /// Float initializers of the model.
    pub trainable: &'a [&'a str],
}

/// The training model: inputs are those of the model, `target` unless the loss has none, and each trainable tensor
/// under its own name; outputs are `loss` and `grad.<name>` for each trainable tensor.
///
/// Shapes are those that `dims` gives the model's inputs; symbolic dimensions that it does not fix count as one.
///
/// # Errors
/// [`Code::UnknownTensor`] for an output or trainable that the model does not have, [`Code::GradientUnsupported`] for
/// a node on the way without a rule, [`Code::GradientUnreachable`] for a trainable that does not reach the loss.
pub fn differentiate(model: &Model, objective: &Objective<'_>, dims: &Dims) -> Result<Model> {
    let (mut model, output) = interface::prepare(model, objective)?;
    let mut shapes = engine::infer(&model, dims)?;
    interface::check_trainable_path(&model, &shapes, &output, objective)?;
    if unroll::recurrent(&mut model, &shapes, objective.trainable)? {
        shapes = engine::infer(&model, dims)?;
    }
    let mut builder = Builder::new(model, shapes);
    let path = Path::trace(&builder, &output, objective.trainable)?;
    builder.want(path.wanted);
    let loss = loss::append(&mut builder, objective.loss, &output)?;
    for node in path.nodes.iter().rev() {
        pull_back(&mut builder, node)?;
    }
    builder.publish(&loss, "loss");
    publish_gradients(&mut builder, objective)?;
    interface::finish(builder, objective)
}

/// Applies the rule of one node to the gradients of its outputs.
fn pull_back(builder: &mut Builder, node: &Node) -> Result<()> {
    let upstream: Vec<Option<String>> =
        node.outputs.iter().map(|name| builder.gradient(name)).collect();
    let Some(rule) = rules::find(&node.op) else { return Err(rules::missing(node)) };
    match (&rule.gradient, upstream.as_slice()) {
        (Gradient::Zero, _) => Ok(()),
        (Gradient::Unrolled, _) => Err(rules::missing(node)),
        (Gradient::Each(each), some) if some.iter().any(Option::is_some) => {
            each(builder, node, some)
        }
        (Gradient::First(first), [Some(dy), rest @ ..]) if rest.iter().all(Option::is_none) => {
            first(builder, node, dy)
        }
        (Gradient::First(_), [_, rest @ ..]) if rest.iter().any(Option::is_some) => Err(
            unsupported(node, "the gradient of its further outputs", "read its first output only"),
        ),
        _ => Ok(()),
    }
}

fn publish_gradients(builder: &mut Builder, objective: &Objective<'_>) -> Result<()> {
    for name in objective.trainable {
        let Some(gradient) = builder.gradient(name) else { return Err(path::unreachable(name)) };
        builder.publish(&gradient, &format!("grad.{name}"));
    }
    Ok(())
}

/// An operator that has a rule, in a form that the rule does not cover.
fn unsupported(node: &Node, what: &str, change: &str) -> Error {
    Error::new(
        Code::GradientUnsupported,
        format!("{}: {what} has no gradient rule", node.describe()),
    )
    .with_hint(change.to_owned())
}

fn value_info(builder: &mut Builder, name: &str) -> ValueInfo {
    let (dtype, shape) = (builder.dtype(name), builder.shape(name));
    ValueInfo::fixed(name, dtype, &shape)
}
