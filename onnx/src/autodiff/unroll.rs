//! Recurrent layers written out step by step, so that the rules of the operators that they are made of differentiate
//! them. Only layers that a trainable tensor reaches are written out, for the number of steps that their input has;
//! gates are those of the ONNX specification of `LSTM`, `GRU` and `RNN` with their usual activations.

use std::collections::BTreeSet;

use super::unsupported;
use crate::engine::Shapes;
use crate::error::{Code, Error, Result};
use crate::model::{Attribute, Graph, Model, Node};
use crate::tensor::{DType, Tensor};

/// Every step becomes about ten nodes, and as many again in the gradient.
const STEPS: usize = 2048;

/// Writes out what the trainable tensors reach. Whether there was any.
pub(super) fn recurrent(model: &mut Model, shapes: &Shapes, trainable: &[&str]) -> Result<bool> {
    let mut reached: BTreeSet<String> = trainable.iter().map(|name| (*name).to_owned()).collect();
    let mut script = Script::new(&model.graph);
    let mut written = false;
    for node in std::mem::take(&mut model.graph.nodes) {
        let depends = node.reads().iter().any(|name| reached.contains(*name));
        if depends {
            reached.extend(node.makes().map(str::to_owned));
        }
        if depends && matches!(node.op.as_str(), "GRU" | "LSTM" | "RNN") {
            written = true;
            Layer::read(&node, shapes)?.write(&mut script);
        } else {
            script.nodes.push(node);
        }
    }
    model.graph.nodes = script.nodes;
    model.graph.initializers.extend(script.constants);
    Ok(written)
}

/// Nodes and constants under construction.
struct Script {
    prefix: String,
    nodes: Vec<Node>,
    constants: Vec<(String, Tensor)>,
    made: usize,
}

impl Script {
    fn new(graph: &Graph) -> Self {
        let names = graph.tensor_names();
        let mut prefix = "unrolled".to_owned();
        while names.iter().any(|name| name.starts_with(&prefix)) {
            prefix.push('_');
        }
        Self { prefix, nodes: Vec::new(), constants: Vec::new(), made: 0 }
    }

    fn fresh(&mut self, op: &str) -> String {
        self.made += 1;
        format!("{}/{op}.{}", self.prefix, self.made)
    }

    fn constant(&mut self, tensor: Tensor) -> String {
        let name = self.fresh("constant");
        self.constants.push((name.clone(), tensor));
        name
    }

    fn node(&mut self, op: &str, inputs: &[&str], attributes: &[(&str, Attribute)]) -> String {
        let output = self.fresh(op);
        self.node_as(op, inputs, &output, attributes);
        output
    }

    fn node_as(
        &mut self,
        op: &str,
        inputs: &[&str],
        output: &str,
        attributes: &[(&str, Attribute)],
    ) {
        let mut node = Node::new(op, inputs, &[output]);
        for (key, value) in attributes {
            node.attributes.insert((*key).to_owned(), value.clone());
        }
        self.nodes.push(node);
    }

    fn transpose(&mut self, x: &str, order: &[i64]) -> String {
        self.node("Transpose", &[x], &[("perm", Attribute::Ints(order.to_vec()))])
    }

    fn concat(&mut self, parts: &[String], axis: i64) -> String {
        match parts {
            [only] => only.clone(),
            _ => {
                let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
                self.node("Concat", &parts, &[("axis", Attribute::Int(axis))])
            }
        }
    }

    fn split(&mut self, x: &str, axis: i64, sizes: &[usize]) -> Vec<String> {
        if sizes.len() == 1 {
            return vec![x.to_owned()];
        }
        let counts: Vec<i64> = sizes.iter().map(|size| *size as i64).collect();
        let counts = self.constant(Tensor::vector(&counts));
        let parts: Vec<String> = sizes.iter().map(|_| self.fresh("Split")).collect();
        let outputs: Vec<&str> = parts.iter().map(String::as_str).collect();
        let mut node = Node::new("Split", &[x, &counts], &outputs);
        node.attributes.insert("axis".to_owned(), Attribute::Int(axis));
        self.nodes.push(node);
        parts
    }

    /// Element `position` of the first axis, which goes.
    fn pick(&mut self, x: &str, position: usize) -> String {
        let position = self.constant(Tensor::scalar(position as i64));
        self.node("Gather", &[x, &position], &[("axis", Attribute::Int(0))])
    }

    fn unsqueeze(&mut self, x: &str, axis: i64) -> String {
        let axes = self.constant(Tensor::vector(&[axis]));
        self.node("Unsqueeze", &[x, &axes], &[])
    }
}

/// A recurrent node and its sizes.
struct Layer<'a> {
    node: &'a Node,
    dtype: DType,
    steps: usize,
    batch: usize,
    hidden: usize,
    /// Whether each direction runs from the end.
    backwards: Vec<bool>,
    /// The batch comes first.
    by_batch: bool,
}

/// The weights of one direction. `input` is [inputs, gates · hidden], `state` [hidden, gates · hidden].
struct Weights {
    input: String,
    state: String,
    /// Of the input and of the state.
    bias: Option<(String, String)>,
    /// Of a GRU that resets before its product: `state` for the gates, and for the new value.
    halves: Vec<String>,
    /// Of an LSTM's input, output and forget gate.
    peepholes: Option<Vec<String>>,
}

/// Hidden and cell state, each [1, batch, hidden].
#[derive(Clone)]
struct State {
    hidden: String,
    cell: String,
}

impl<'a> Layer<'a> {
    fn read(node: &'a Node, shapes: &Shapes) -> Result<Self> {
        if node.input(4).is_some() {
            return Err(unsupported(
                node,
                "sequence_lens",
                "give all sequences of a batch the same length, and leave sequence_lens out",
            ));
        }
        let by_batch = node.int("layout", 0) != 0;
        let shape = |index: usize| node.input(index).and_then(|name| shapes.get(name));
        let (Some((dtype, x)), Some((_, state))) = (shape(0), shape(2)) else {
            return Err(unknown(node));
        };
        let (&[first, second, _], &[directions, _, hidden]) = (x.as_slice(), state.as_slice())
        else {
            return Err(unknown(node));
        };
        let (steps, batch) = if by_batch { (second, first) } else { (first, second) };
        if !(1..=STEPS).contains(&steps) {
            return Err(unsupported(
                node,
                &format!("a sequence of {steps} steps"),
                &format!("train on sequences of 1 to {STEPS} steps"),
            ));
        }
        let backwards = match node.string("direction", "forward") {
            "bidirectional" => vec![false, true],
            direction => vec![direction == "reverse"],
        };
        if backwards.len() != directions {
            return Err(unknown(node));
        }
        Ok(Self { node, dtype: *dtype, steps, batch, hidden, backwards, by_batch })
    }

    fn write(&self, script: &mut Script) {
        let x = self.node.input(0).unwrap_or_default();
        let x = if self.by_batch { script.transpose(x, &[1, 0, 2]) } else { x.to_owned() };
        let (mut sequences, mut hidden, mut cells) = (Vec::new(), Vec::new(), Vec::new());
        for (direction, backwards) in self.backwards.iter().enumerate() {
            let (sequence, last) = self.direction(script, &x, direction, *backwards);
            sequences.push(script.unsqueeze(&sequence, 1));
            hidden.push(last.hidden);
            cells.push(last.cell);
        }
        self.publish(script, 0, &sequences, 1, &[2, 0, 1, 3]);
        self.publish(script, 1, &hidden, 0, &[1, 0, 2]);
        self.publish(script, 2, &cells, 0, &[1, 0, 2]);
    }

    /// Joins the directions to an output of the node; `order` brings the batch to the front.
    fn publish(
        &self,
        script: &mut Script,
        index: usize,
        parts: &[String],
        axis: i64,
        order: &[i64],
    ) {
        let Some(output) = self.node.outputs.get(index).filter(|name| !name.is_empty()) else {
            return;
        };
        let joined = script.concat(parts, axis);
        match self.by_batch {
            true => {
                let order = [("perm", Attribute::Ints(order.to_vec()))];
                script.node_as("Transpose", &[&joined], output, &order);
            }
            false => script.node_as("Identity", &[&joined], output, &[]),
        }
    }

    /// The states of all steps, [steps, batch, hidden], and the last one.
    fn direction(
        &self,
        script: &mut Script,
        x: &str,
        direction: usize,
        backwards: bool,
    ) -> (String, State) {
        let weights = self.weights(script, direction);
        let mut projected = script.node("MatMul", &[x, &weights.input], &[]);
        if let Some((input, state)) = &weights.bias {
            projected = script.node("Add", &[&projected, input], &[]);
            // A GRU that resets after its product has the state's bias inside that.
            if !self.resets_after_product() {
                projected = script.node("Add", &[&projected, state], &[]);
            }
        }
        let inputs = script.split(&projected, 0, &vec![1; self.steps]);
        let mut state = State {
            hidden: self.initial(script, 5, direction),
            cell: self.initial(script, 6, direction),
        };
        let mut states = Vec::with_capacity(self.steps);
        let order: Vec<&String> =
            if backwards { inputs.iter().rev().collect() } else { inputs.iter().collect() };
        for input in order {
            state = self.step(script, &weights, input, &state);
            states.push(state.hidden.clone());
        }
        if backwards {
            states.reverse();
        }
        (script.concat(&states, 0), state)
    }

    fn weights(&self, script: &mut Script, direction: usize) -> Weights {
        let name = |index: usize| self.node.input(index);
        let turned = |script: &mut Script, index: usize| {
            let matrix = script.pick(name(index).unwrap_or_default(), direction);
            script.transpose(&matrix, &[1, 0])
        };
        let (input, state) = (turned(script, 1), turned(script, 2));
        let gates = self.gates() * self.hidden;
        let bias = name(3).map(|bias| {
            let own = script.pick(bias, direction);
            let halves = script.split(&own, 0, &[gates, gates]);
            (halves[0].clone(), halves[1].clone())
        });
        let peepholes = name(7).map(|peepholes| {
            let own = script.pick(peepholes, direction);
            script.split(&own, 0, &[self.hidden; 3])
        });
        let halves = match self.node.op.as_str() {
            "GRU" if !self.resets_after_product() => {
                script.split(&state, 1, &[2 * self.hidden, self.hidden])
            }
            _ => Vec::new(),
        };
        Weights { input, state, bias, halves, peepholes }
    }

    fn gates(&self) -> usize {
        match self.node.op.as_str() {
            "LSTM" => 4,
            "GRU" => 3,
            _ => 1,
        }
    }

    fn resets_after_product(&self) -> bool {
        self.node.op == "GRU" && self.node.int("linear_before_reset", 0) != 0
    }

    /// The state before the first step, zeros where the node reads none.
    fn initial(&self, script: &mut Script, index: usize, direction: usize) -> String {
        match self.node.input(index).filter(|_| index == 5 || self.node.op == "LSTM") {
            Some(given) => {
                let given = match self.by_batch {
                    true => script.transpose(given, &[1, 0, 2]),
                    false => given.to_owned(),
                };
                let own = script.pick(&given, direction);
                script.unsqueeze(&own, 0)
            }
            None => {
                let shape = vec![1, self.batch, self.hidden];
                let bytes = vec![0; self.dtype.size() * self.batch * self.hidden];
                let zeros = Tensor::from_bytes(self.dtype, shape, bytes);
                script.constant(zeros.unwrap_or_else(|_| Tensor::scalar(0f32)))
            }
        }
    }

    fn step(&self, script: &mut Script, weights: &Weights, input: &str, state: &State) -> State {
        match self.node.op.as_str() {
            "LSTM" => self.long_short_term(script, weights, input, state),
            "GRU" => {
                let hidden = self.gated(script, weights, input, &state.hidden);
                State { hidden, cell: state.cell.clone() }
            }
            _ => {
                let product = script.node("MatMul", &[&state.hidden, &weights.state], &[]);
                let sum = script.node("Add", &[input, &product], &[]);
                let hidden = script.node("Tanh", &[&sum], &[]);
                State { hidden, cell: state.cell.clone() }
            }
        }
    }

    /// `C = f · C₋₁ + i · c`, `H = o · tanh C`. Gates in the order i, o, f, c.
    fn long_short_term(
        &self,
        script: &mut Script,
        weights: &Weights,
        input: &str,
        state: &State,
    ) -> State {
        let product = script.node("MatMul", &[&state.hidden, &weights.state], &[]);
        let sum = script.node("Add", &[input, &product], &[]);
        let gates = script.split(&sum, 2, &[self.hidden; 4]);
        let look = |script: &mut Script, gate: &str, cell: &str, index: usize| {
            let gate = match &weights.peepholes {
                Some(peepholes) => {
                    let seen = script.node("Mul", &[cell, &peepholes[index]], &[]);
                    script.node("Add", &[gate, &seen], &[])
                }
                None => gate.to_owned(),
            };
            script.node("Sigmoid", &[&gate], &[])
        };
        let enter = look(script, &gates[0], &state.cell, 0);
        let forget = look(script, &gates[2], &state.cell, 2);
        let new = script.node("Tanh", &[&gates[3]], &[]);
        let kept = script.node("Mul", &[&forget, &state.cell], &[]);
        let entered = script.node("Mul", &[&enter, &new], &[]);
        let cell = script.node("Add", &[&kept, &entered], &[]);
        let leave = look(script, &gates[1], &cell, 1);
        let bent = script.node("Tanh", &[&cell], &[]);
        let hidden = script.node("Mul", &[&leave, &bent], &[]);
        State { hidden, cell }
    }

    /// `H = n + z · (H₋₁ − n)`. Gates in the order z, r, n.
    fn gated(&self, script: &mut Script, weights: &Weights, input: &str, hidden: &str) -> String {
        let sizes = [2 * self.hidden, self.hidden];
        let from_input = script.split(input, 2, &sizes);
        let (gates, proposal) = if self.resets_after_product() {
            let mut product = script.node("MatMul", &[hidden, &weights.state], &[]);
            if let Some((_, bias)) = &weights.bias {
                product = script.node("Add", &[&product, bias], &[]);
            }
            let from_state = script.split(&product, 2, &sizes);
            let gates = self.update_and_reset(script, &from_input[0], &from_state[0]);
            let reset = script.node("Mul", &[&gates[1], &from_state[1]], &[]);
            (gates, reset)
        } else {
            let product = script.node("MatMul", &[hidden, &weights.halves[0]], &[]);
            let gates = self.update_and_reset(script, &from_input[0], &product);
            let reset = script.node("Mul", &[&gates[1], hidden], &[]);
            (gates, script.node("MatMul", &[&reset, &weights.halves[1]], &[]))
        };
        let sum = script.node("Add", &[&from_input[1], &proposal], &[]);
        let new = script.node("Tanh", &[&sum], &[]);
        let difference = script.node("Sub", &[hidden, &new], &[]);
        let kept = script.node("Mul", &[&gates[0], &difference], &[]);
        script.node("Add", &[&new, &kept], &[])
    }

    fn update_and_reset(&self, script: &mut Script, input: &str, state: &str) -> Vec<String> {
        let sum = script.node("Add", &[input, state], &[]);
        let open = script.node("Sigmoid", &[&sum], &[]);
        script.split(&open, 2, &[self.hidden; 2])
    }
}

fn unknown(node: &Node) -> Error {
    Error::new(
        Code::GradientUnsupported,
        format!("{}: its weights do not fit its direction and input", node.describe()),
    )
    .with_hint("check the model with onnx.checker, full check")
}
