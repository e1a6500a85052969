//! Recurrent layers that run backwards: the engine runs them forwards, so what goes in and comes out is turned.

use super::{Lowering, need};
use crate::error::{Code, Error, Result};
use crate::model::{Attribute, Node};
use crate::tensor::Tensor;

pub(super) fn recurrent(lowering: &mut Lowering<'_>, node: &Node) -> Result<bool> {
    for name in ["clip", "input_forget"] {
        let off = matches!(node.attributes.get(name), None | Some(Attribute::Int(0)));
        if !off {
            return Err(Error::new(
                Code::ModelUnsupported,
                format!("the attribute {name} is not supported"),
            ));
        }
    }
    if let Some(Attribute::Strings(activations)) = node.attributes.get("activations") {
        let usual: &[&str] = match node.op.as_str() {
            "LSTM" => &["Sigmoid", "Tanh", "Tanh"],
            "GRU" => &["Sigmoid", "Tanh"],
            _ => &["Tanh"],
        };
        if activations
            .iter()
            .zip(usual.iter().cycle())
            .any(|(found, usual)| !found.eq_ignore_ascii_case(usual))
        {
            return Err(Error::new(
                Code::ModelUnsupported,
                format!("the activations {activations:?} are not supported"),
            )
            .with_hint(format!("the engine computes {usual:?}")));
        }
    }
    if node.string("direction", "forward") != "reverse" {
        return Ok(false);
    }
    // X is [steps, batch, input] and Y [steps, directions, batch, hidden]; in layout 1 the batch comes first.
    let time = i64::from(node.int("layout", 0) == 1);
    let mut forward = node.clone();
    forward.attributes.insert("direction".to_owned(), Attribute::String("forward".to_owned()));
    let x = lowering.fresh("Slice");
    turn(lowering, need(node, 0)?, time, &x);
    forward.inputs[0] = x;
    match node.outputs.first().filter(|name| !name.is_empty()) {
        Some(output) => {
            let turned = lowering.fresh(&node.op);
            forward.outputs[0] = turned.clone();
            lowering.nodes.push(forward);
            turn(lowering, &turned, time, output);
        }
        None => lowering.nodes.push(forward),
    }
    Ok(true)
}

/// Reverses a tensor along one axis.
fn turn(lowering: &mut Lowering<'_>, tensor: &str, axis: i64, output: &str) {
    let [from, until, axes, steps] =
        [-1, i64::MIN, axis, -1].map(|value: i64| lowering.constant(Tensor::vector(&[value])));
    lowering.emit_as("Slice", &[tensor, &from, &until, &axes, &steps], output, &[]);
}
