//! Operator sets 7 to 10 become 11: attributes become inputs, and two operators get the names of their successors.

use super::{attribute_to_input, changed};
use crate::error::{Code, Error, Result};
use crate::model::{Attribute, Graph, Node};
use crate::tensor::Tensor;

/// Rewrites a graph of an operator set from 7 to 10, and its subgraphs.
pub(super) fn to_opset_11(graph: &mut Graph, from: i64) -> Result<()> {
    let mut nodes = std::mem::take(&mut graph.nodes);
    for node in &mut nodes {
        for attribute in node.attributes.values_mut() {
            if let Attribute::Graph(subgraph) = attribute {
                to_opset_11(subgraph, from)?;
            }
        }
        match node.op.as_str() {
            "BatchNormalization" if from < 9 => spatial(node)?,
            "Clip" => {
                bounds_to_inputs(node, "min", 1, graph);
                bounds_to_inputs(node, "max", 2, graph);
            }
            "Pad" => pad(node, graph),
            "Resize" => resize(node, graph)?,
            "Scan" if from < 9 => return Err(changed(node, from, 11)),
            "Scatter" => "ScatterElements".clone_into(&mut node.op),
            "Slice" if from < 10 => slice(node, graph),
            "TopK" if from < 10 => {
                if let Some(Attribute::Int(count)) = node.attributes.remove("k") {
                    node.attributes.insert("k".to_owned(), Attribute::Ints(vec![count]));
                }
                attribute_to_input(node, "k", graph);
            }
            "Upsample" => upsample(node, graph),
            _ => {}
        }
    }
    graph.nodes = nodes;
    Ok(())
}

/// The name for what was the attribute `name` of a node.
fn made(node: &Node, name: &str) -> String {
    format!("{}/{name}", node.outputs.first().map(String::as_str).unwrap_or_default())
}

/// Puts an initializer at one place of a node's inputs; gaps before it stay empty.
fn set_input(node: &mut Node, index: usize, name: &str, tensor: Tensor, graph: &mut Graph) {
    let made = made(node, name);
    graph.initializers.insert(made.clone(), tensor);
    node.inputs.resize(node.inputs.len().max(index + 1), String::new());
    node.inputs[index] = made;
}

/// Statistics per element instead of per channel were dropped in operator set 9.
fn spatial(node: &mut Node) -> Result<()> {
    match node.attributes.remove("spatial") {
        Some(Attribute::Int(0)) => Err(Error::new(
            Code::ModelUnsupported,
            format!("{}: statistics per element are not supported", node.describe()),
        )
        .with_hint("export the model with operator set 13 or later")),
        _ => Ok(()),
    }
}

/// The bounds of `Clip`. They were float32 attributes, whatever the input's type is.
fn bounds_to_inputs(node: &mut Node, name: &str, index: usize, graph: &mut Graph) {
    if let Some(Attribute::Float(bound)) = node.attributes.remove(name) {
        let tensor = Tensor::scalar(bound);
        set_input(node, index, name, tensor, graph);
    }
}

fn pad(node: &mut Node, graph: &mut Graph) {
    attribute_to_input(node, "pads", graph);
    if let Some(Attribute::Float(value)) = node.attributes.remove("value")
        && value != 0.0
    {
        set_input(node, 2, "value", Tensor::scalar(value), graph);
    }
}

fn slice(node: &mut Node, graph: &mut Graph) {
    for (index, name) in [(1, "starts"), (2, "ends"), (3, "axes")] {
        if let Some(Attribute::Ints(values)) = node.attributes.remove(name) {
            set_input(node, index, name, Tensor::vector(&values), graph);
        }
    }
}

/// `Upsample` maps an output position to position / scale, and takes the element before it in mode `nearest`.
fn upsample(node: &mut Node, graph: &mut Graph) {
    "Resize".clone_into(&mut node.op);
    if let Some(Attribute::Floats(scales)) = node.attributes.remove("scales") {
        node.inputs.truncate(1);
        set_input(node, 2, "scales", Tensor::vector(&scales), graph);
    } else {
        node.inputs.insert(1, String::new());
    }
    asymmetric(node, "floor");
}

/// As `Upsample`; where it makes smaller, mode `nearest` takes the element after the position, as runtimes do.
fn resize(node: &mut Node, graph: &mut Graph) -> Result<()> {
    let scales = node.input(1).and_then(|name| graph.initializers.get(name)).map(Tensor::to_f64);
    let scales = scales.transpose()?;
    let nearest = node.string("mode", "nearest") == "nearest";
    let rounding = match scales.as_deref() {
        Some(scales) if scales.iter().all(|scale| *scale >= 1.0) => "floor",
        Some(scales) if scales.iter().all(|scale| *scale <= 1.0) => "ceil",
        _ if !nearest => "floor",
        _ => {
            return Err(Error::new(
                Code::ModelUnsupported,
                format!(
                    "{}: operator set 10 does not say which element is nearest for scales that are \
                     not constant, or that make one axis larger and another smaller",
                    node.describe()
                ),
            )
            .with_hint("export the model with operator set 11 or later"));
        }
    };
    node.inputs.insert(1, String::new());
    asymmetric(node, rounding);
    Ok(())
}

fn asymmetric(node: &mut Node, rounding: &str) {
    for (name, value) in
        [("coordinate_transformation_mode", "asymmetric"), ("nearest_mode", rounding)]
    {
        node.attributes.insert(name.to_owned(), Attribute::String(value.to_owned()));
    }
}
