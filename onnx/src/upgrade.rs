//! Operator sets before 13 become 13, so that every other module knows one form of each operator, and a model is raised
//! to the operator set of another that it is joined with.

use crate::error::{Code, Error, Result};
use crate::model::{Attribute, Graph, Model, Node};
use crate::tensor::Tensor;

mod old;

/// Rewrites the operators whose form changed before or in operator set 13, in the main graph and in subgraphs.
/// Refuses the few whose older meaning has no newer form.
pub(crate) fn to_opset_13(model: &mut Model) -> Result<()> {
    if model.opset < 11 {
        old::to_opset_11(&mut model.graph, model.opset)?;
    }
    if model.opset < 13 {
        upgrade_graph(&mut model.graph);
        model.opset = 13;
    }
    Ok(())
}

fn upgrade_graph(graph: &mut Graph) {
    let mut nodes = Vec::with_capacity(graph.nodes.len());
    for mut node in std::mem::take(&mut graph.nodes) {
        for attribute in node.attributes.values_mut() {
            if let Attribute::Graph(subgraph) = attribute {
                upgrade_graph(subgraph);
            }
        }
        match node.op.as_str() {
            "Squeeze" | "Unsqueeze" | "ReduceSum" => attribute_to_input(&mut node, "axes", graph),
            "Split" => attribute_to_input(&mut node, "split", graph),
            // An attribute until 11, an input since 12; at inference it has no effect.
            "Dropout" => {
                node.attributes.remove("ratio");
            }
            "Softmax" | "LogSoftmax" | "Hardmax" if node.int("axis", 1) != -1 => {
                nodes.extend(flattened_softmax(node));
                continue;
            }
            _ => {}
        }
        nodes.push(node);
    }
    graph.nodes = nodes;
}

/// Turns an integer-list attribute into the second input, as an initializer named after the node's output.
fn attribute_to_input(node: &mut Node, name: &str, graph: &mut Graph) {
    if let Some(Attribute::Ints(values)) = node.attributes.remove(name) {
        let made =
            format!("{}/{name}", node.outputs.first().map(String::as_str).unwrap_or_default());
        graph.initializers.insert(made.clone(), Tensor::vector(&values));
        node.inputs.truncate(1);
        node.inputs.push(made);
    }
}

/// Until 12 the input was seen as a matrix, split before `axis`; since 13 only `axis` itself is normalised.
fn flattened_softmax(node: Node) -> [Node; 4] {
    let axis = node.int("axis", 1);
    let input = node.inputs.first().map(String::as_str).unwrap_or_default().to_owned();
    let output = node.outputs.first().map(String::as_str).unwrap_or_default().to_owned();
    let [shape, matrix, normal] =
        ["shape", "matrix", "normal"].map(|part| format!("{output}/{part}"));
    [
        Node::new("Shape", &[&input], &[&shape]),
        Node::new("Flatten", &[&input], &[&matrix]).with("axis", Attribute::Int(axis)),
        Node {
            name: node.name,
            ..Node::new(&node.op, &[&matrix], &[&normal]).with("axis", Attribute::Int(1))
        },
        Node::new("Reshape", &[&normal, &shape], &[&output]),
    ]
}

/// Rewrites a model of operator set 13 or later for a newer one, so that it can be joined with another model.
/// Refuses the few operators whose meaning changed in a way that their form does not show.
pub(crate) fn to_opset(model: &mut Model, opset: i64) -> Result<()> {
    if model.opset < opset {
        raise_graph(&mut model.graph, model.opset, opset)?;
        model.opset = opset;
    }
    Ok(())
}

fn raise_graph(graph: &mut Graph, from: i64, to: i64) -> Result<()> {
    let crosses = |version: i64| from < version && version <= to;
    let mut nodes = std::mem::take(&mut graph.nodes);
    for node in &mut nodes {
        for attribute in node.attributes.values_mut() {
            if let Attribute::Graph(subgraph) = attribute {
                raise_graph(subgraph, from, to)?;
            }
        }
        match node.op.as_str() {
            op if op.starts_with("Reduce") && crosses(18) => {
                attribute_to_input(node, "axes", graph)
            }
            "Split" if crosses(18) && node.input(1).is_none() => {
                let count = node.outputs.len() as i64;
                node.attributes.insert("num_outputs".to_owned(), Attribute::Int(count));
            }
            "BatchNormalization" if crosses(14) => node.outputs.truncate(1),
            "GridSample" if crosses(20) => {
                let mode = match node.string("mode", "bilinear") {
                    "bilinear" => "linear",
                    "bicubic" => "cubic",
                    other => other,
                };
                let mode = Attribute::String(mode.to_owned());
                node.attributes.insert("mode".to_owned(), mode);
            }
            "GroupNormalization" if crosses(21) => return Err(changed(node, from, to)),
            "DFT" if crosses(20) => return Err(changed(node, from, to)),
            _ => {}
        }
    }
    graph.nodes = nodes;
    Ok(())
}

fn changed(node: &Node, from: i64, to: i64) -> Error {
    Error::new(
        Code::ModelUnsupported,
        format!("{} means something else in operator set {to} than in {from}", node.describe()),
    )
    .with_hint(format!("export the model and its patches with operator set {to}"))
}
