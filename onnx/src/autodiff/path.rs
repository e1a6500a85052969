//! Which nodes lie between the trainable tensors and the loss. Everything else is frozen and never traversed.

use std::collections::BTreeSet;

use super::builder::Builder;
use super::rules::{self, Gradient};
use crate::error::{Code, Error, Result};
use crate::model::Node;

/// The nodes to traverse and the tensors whose gradient they need.
pub(super) struct Path {
    /// In topological order.
    pub(super) nodes: Vec<Node>,
    /// Tensors that depend on a trainable and lead to the output.
    pub(super) wanted: BTreeSet<String>,
}

impl Path {
    /// Marks forwards from the trainable tensors and backwards from the output; the path is what both marks cover.
    pub(super) fn trace(builder: &Builder, output: &str, trainable: &[&str]) -> Result<Self> {
        let nodes = &builder.graph().nodes;
        let active = active(builder, trainable);
        let mut wanted = BTreeSet::from([output.to_owned()]);
        let mut path = Vec::new();
        for node in nodes.iter().rev() {
            if !node.outputs.iter().any(|name| wanted.contains(name) && active.contains(name)) {
                continue;
            }
            if rules::find(&node.op).is_none() {
                return Err(rules::missing(node));
            }
            wanted.extend(node.inputs.iter().filter(|name| active.contains(*name)).cloned());
            path.push(node.clone());
        }
        if let Some(name) = trainable.iter().find(|name| !wanted.contains(**name)) {
            return Err(unreachable(name));
        }
        path.reverse();
        Ok(Self { nodes: path, wanted })
    }
}

/// The tensors that depend on a trainable by a chain of float tensors. Integers carry no gradient, and neither do
/// piecewise constant operators.
fn active(builder: &Builder, trainable: &[&str]) -> BTreeSet<String> {
    let mut active: BTreeSet<String> = trainable.iter().map(|name| (*name).to_owned()).collect();
    for node in &builder.graph().nodes {
        let stops =
            rules::find(&node.op).is_some_and(|rule| matches!(rule.gradient, Gradient::Zero));
        if stops || !node.reads().into_iter().any(|name| active.contains(name)) {
            continue;
        }
        let floats = node
            .outputs
            .iter()
            .filter(|name| builder.shapes().get(*name).is_some_and(|(d, _)| d.is_float()));
        active.extend(floats.cloned());
    }
    active
}

/// The error for a trainable that cannot influence the loss.
pub(super) fn unreachable(name: &str) -> Error {
    Error::new(Code::GradientUnreachable, format!("the trainable tensor `{name}` does not reach the loss"))
        .with_hint("take it out of the trainable tensors, or choose an output that depends on it by float operators")
}
