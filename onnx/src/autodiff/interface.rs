//! The names and value infos by which callers see a training model, and the checks on what they ask for.

use std::collections::BTreeSet;

use super::builder::Builder;
use super::{Loss, Objective, value_info};
use crate::engine::Shapes;
use crate::error::{Code, Error, Result};
use crate::model::{Graph, Model, ValueInfo};
use crate::tensor::DType;

/// Checks the objective against the model and cuts the model down to what its output needs. Inner tensors that
/// stand in the way of the names `loss`, `target` and `grad.*` are renamed; the second value is the name of the
/// objective's output afterwards.
pub(super) fn prepare(model: &Model, objective: &Objective<'_>) -> Result<(Model, String)> {
    check_trainable(&model.graph, objective.trainable)?;
    check_output(&model.graph, objective.output)?;
    let mut model = model.clone();
    let mut output = objective.output.to_owned();
    for name in reserved(objective) {
        let taken_outside = model.graph.inputs.iter().any(|input| input.name == name)
            || objective.trainable.iter().any(|trainable| *trainable == name);
        if taken_outside {
            return Err(Error::new(
                Code::ModelInvalid,
                format!("the training model needs the name `{name}` for itself"),
            )
            .with_hint(format!("rename the model's input or initializer `{name}`")));
        }
        let replacement = model.graph.fresh(&name);
        rename(&mut model.graph, &name, &replacement);
        if output == name {
            output = replacement;
        }
    }
    let known = model.graph.outputs.iter().find(|info| info.name == output).cloned();
    let info = known.unwrap_or(ValueInfo { name: output.clone(), dtype: DType::F32, shape: None });
    model.graph.outputs = vec![info];
    model.graph.prune();
    Ok((model, output))
}

fn check_trainable(graph: &Graph, trainable: &[&str]) -> Result<()> {
    if trainable.is_empty() {
        return Err(Error::new(Code::UnknownTensor, "no trainable tensor is given")
            .with_hint("name at least one float initializer of the model"));
    }
    let mut seen = BTreeSet::new();
    for name in trainable {
        if !seen.insert(name) {
            return Err(Error::new(
                Code::ModelInvalid,
                format!("the trainable tensor `{name}` is given twice"),
            ));
        }
        match graph.initializers.get(*name) {
            Some(tensor) if tensor.dtype().is_float() => {}
            Some(tensor) => {
                let dtype = tensor.dtype().name();
                return Err(Error::new(
                    Code::GradientUnsupported,
                    format!("`{name}` is {dtype}, not a float tensor"),
                )
                .with_hint("only float initializers can be trained"));
            }
            None => return Err(no_initializer(graph, name)),
        }
    }
    Ok(())
}

fn no_initializer(graph: &Graph, name: &str) -> Error {
    let floats: Vec<&str> = graph
        .initializers
        .iter()
        .filter(|(_, tensor)| tensor.dtype().is_float())
        .map(|(name, _)| name.as_str())
        .take(8)
        .collect();
    Error::new(Code::UnknownTensor, format!("the model has no initializer `{name}`"))
        .with_hint(format!("its float initializers begin with {}", floats.join(", ")))
}

fn check_output(graph: &Graph, output: &str) -> Result<()> {
    let made = graph.nodes.iter().any(|node| node.outputs.iter().any(|name| name == output));
    if made {
        return Ok(());
    }
    let names: Vec<&str> = graph.outputs.iter().map(|info| info.name.as_str()).take(8).collect();
    Err(Error::new(
        Code::UnknownTensor,
        format!("no node of the model makes the tensor `{output}`"),
    )
    .with_hint(format!("the model's outputs are {}", names.join(", "))))
}

fn reserved(objective: &Objective<'_>) -> Vec<String> {
    let mut names = vec!["loss".to_owned()];
    names.extend(objective.loss.has_target().then(|| "target".to_owned()));
    names.extend(objective.trainable.iter().map(|name| format!("grad.{name}")));
    names
}

/// Renames a tensor wherever it is made or read, in subgraphs too.
fn rename(graph: &mut Graph, from: &str, to: &str) {
    let swap = |name: &mut String| {
        if name == from {
            to.clone_into(name);
        }
    };
    for node in &mut graph.nodes {
        node.inputs.iter_mut().for_each(swap);
        node.outputs.iter_mut().for_each(swap);
        for attribute in node.attributes.values_mut() {
            if let crate::model::Attribute::Graph(inner) = attribute {
                rename(inner, from, to);
            }
        }
    }
    graph.outputs.iter_mut().for_each(|info| swap(&mut info.name));
    if let Some(tensor) = graph.initializers.remove(from) {
        graph.initializers.insert(to.to_owned(), tensor);
    }
}

/// Refuses an output that no loss can read.
pub(super) fn check_trainable_path(
    model: &Model,
    shapes: &Shapes,
    output: &str,
    objective: &Objective<'_>,
) -> Result<()> {
    let classes = matches!(objective.loss, Loss::SoftmaxCrossEntropy | Loss::Entropy);
    match shapes.get(output) {
        Some((_, shape)) if classes && shape.is_empty() => {
            return Err(Error::new(
                Code::GradientUnsupported,
                format!(
                    "the output `{}` is one number, {} needs an axis of classes",
                    objective.output,
                    objective.loss.as_str()
                ),
            )
            .with_hint("choose the tensor of logits, or the loss mean_squared_error"));
        }
        Some((dtype, _)) if dtype.is_float() => {}
        Some((dtype, _)) => {
            return Err(Error::new(
                Code::GradientUnsupported,
                format!(
                    "the output `{}` is {}, a loss needs floats",
                    objective.output,
                    dtype.name()
                ),
            )
            .with_hint("choose the float tensor from which it is computed"));
        }
        None => {
            return Err(Error::new(
                Code::EngineFailed,
                format!("the shape of `{}` is not known", objective.output),
            ));
        }
    }
    match objective.trainable.iter().find(|name| !model.graph.initializers.contains_key(**name)) {
        Some(name) => Err(super::path::unreachable(name)),
        None => Ok(()),
    }
}

/// Sets inputs and outputs, drops what no output needs, and orders the nodes.
pub(super) fn finish(mut builder: Builder, objective: &Objective<'_>) -> Result<Model> {
    let mut inputs: Vec<String> =
        builder.graph().inputs.iter().map(|info| info.name.clone()).collect();
    inputs.extend(objective.loss.has_target().then(|| "target".to_owned()));
    inputs.extend(objective.trainable.iter().map(|name| (*name).to_owned()));
    let gradients = objective.trainable.iter().map(|name| format!("grad.{name}"));
    let outputs: Vec<String> = std::iter::once("loss".to_owned()).chain(gradients).collect();
    let inputs = inputs.iter().map(|name| value_info(&mut builder, name)).collect();
    let outputs = outputs.iter().map(|name| value_info(&mut builder, name)).collect();
    let mut model = builder.finish()?;
    model.graph.inputs = inputs;
    model.graph.outputs = outputs;
    for name in objective.trainable {
        model.graph.initializers.remove(*name);
    }
    model.graph.prune();
    model.graph.sort()?;
    Ok(model)
}
