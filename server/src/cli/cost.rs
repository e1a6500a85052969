//! `backstitch onnx cost`: what a model costs, in numbers and in terms of the dimensions that it leaves open.

use std::path::Path;

use backstitch_onnx::cost::{Cost, Expression, ModelCost, cost, symbolic_cost};
use backstitch_onnx::engine::{Dims, infer, smallest};
use backstitch_onnx::{Dim, Model};
use serde_json::{Value, json};

use super::files::{self, Outcome};

/// Prints the cost of a model. Dimensions that are left open count as the smallest size at which the model runs, and
/// what they stand for is printed beside.
pub(super) fn print(
    path: &Path,
    shapes: &[(String, Vec<usize>)],
    nodes: bool,
    json: bool,
) -> Outcome<()> {
    let (model, _) = files::read_model(path)?;
    let dims = files::dims(shapes);
    let inferred = if dims.is_empty() { smallest(&model)?.1 } else { infer(&model, &dims)? };
    let counted = cost(&model, &inferred)?;
    let open = is_open(&model, &dims).then(|| symbolic_cost(&model, &dims));
    if json {
        let mut value = total(&counted.total, |count| json!(count));
        if nodes {
            value["nodes"] = each(&counted, |count| json!(count));
        }
        match &open {
            Some(Ok(open)) => {
                let text = |expression: &Expression| json!(expression.to_string());
                value["symbolic"] = total(&open.total, text);
                if nodes {
                    value["symbolic"]["nodes"] = each(open, text);
                }
            }
            Some(Err(error)) => value["symbolic"] = json!({ "error": error.to_string() }),
            None => {}
        }
        return files::print_json(&value);
    }
    show(&counted, nodes);
    match open {
        Some(Ok(open)) => {
            println!("in terms of the dimensions that are left open:");
            show_open(&open, nodes);
        }
        Some(Err(error)) => println!("not in terms of the open dimensions: {error}"),
        None => {}
    }
    Ok(())
}

/// Whether an input has a dimension that neither the model nor the given shapes fix.
fn is_open(model: &Model, dims: &Dims) -> bool {
    model
        .graph
        .inputs
        .iter()
        .filter(|info| !dims.contains_key(&info.name))
        .flat_map(|info| info.shape.iter().flatten())
        .any(|dim| !matches!(dim, Dim::Fixed(_)))
}

fn total<S>(total: &Cost<S>, show: impl Fn(&S) -> Value) -> Value {
    json!({
        "macs": show(&total.macs),
        "parameter_bytes": total.parameter_bytes,
        "peak_activation_bytes": show(&total.peak_activation_bytes),
    })
}

fn each<S>(counted: &ModelCost<S>, show: impl Fn(&S) -> Value) -> Value {
    let nodes = counted.nodes.iter().map(|node| {
        json!({ "name": node.name, "op": node.op, "macs": show(&node.macs),
                "parameter_bytes": node.parameter_bytes, "activation_bytes": show(&node.activation_bytes) })
    });
    nodes.collect()
}

fn show(counted: &ModelCost, nodes: bool) {
    let total = counted.total;
    println!("multiply-accumulates   {:>14}", total.macs);
    println!("parameter bytes        {:>14}", total.parameter_bytes);
    println!("peak activation bytes  {:>14}", total.peak_activation_bytes);
    if nodes {
        println!("{:>14} {:>12} {:>12}  node", "macs", "parameters", "activations");
        for node in &counted.nodes {
            println!(
                "{:>14} {:>12} {:>12}  {} {}",
                node.macs, node.parameter_bytes, node.activation_bytes, node.op, node.name
            );
        }
    }
}

fn show_open(open: &ModelCost<Expression>, nodes: bool) {
    println!("multiply-accumulates   {}", open.total.macs);
    println!("peak activation bytes  {}", open.total.peak_activation_bytes);
    if nodes {
        for node in &open.nodes {
            println!(
                "  {} {}: macs {}, activations {}",
                node.op, node.name, node.macs, node.activation_bytes
            );
        }
    }
}
