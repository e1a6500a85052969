//! The softmax cross-entropy of `[N, C]` logits and its gradient, as [`crate::autodiff`] writes them: twenty nodes for
//! numbers that fit in a line of the cache. Of a small patch they were most of the time of a step.

use std::collections::{BTreeMap, BTreeSet};

use super::{Reading, Replacement};
use crate::dtypes;
use crate::engine::cross_entropy;
use crate::model::Node;
use crate::tensor::{DType, Tensor};

/// Operator, what it reads, and what it makes, in names of the pattern's own. Those with a `#` are constants.
const PATTERN: &[(&str, &[&str], &str)] = &[
    ("Reshape", &["#ids", "#row"], "classes"),
    ("Reshape", &["target", "#column"], "class"),
    ("Equal", &["class", "classes"], "is_class"),
    ("Cast", &["is_class"], "hot"),
    // The shift changes nothing, whatever it is.
    ("ReduceMax", &["logits"], "max"),
    ("Sub", &["logits", "max"], "shifted"),
    ("Exp", &["shifted"], "exponential"),
    ("ReduceSum", &["exponential", "#axis_of_sum"], "sum"),
    ("Log", &["sum"], "log_sum"),
    ("Sub", &["shifted", "log_sum"], "log_p"),
    ("Mul", &["hot", "log_p"], "picked"),
    ("ReduceSum", &["picked", "#axes"], "total"),
    ("ReduceSum", &["hot", "#axes"], "within"),
    ("Max", &["within", "#one"], "count"),
    ("Div", &["total", "count"], "mean"),
    ("Neg", &["mean"], "loss"),
    ("Exp", &["log_p"], "p"),
    ("ReduceSum", &["hot", "#axis_of_row"], "row_within"),
    ("Mul", &["p", "row_within"], "p_within"),
    ("Sub", &["p_within", "hot"], "difference"),
    ("Div", &["difference", "count"], "gradient"),
];

/// One node for each loss with its gradient.
pub(super) fn find(reading: &Reading<'_>) -> Vec<Replacement> {
    let made_by = |op: &'static str| {
        let nodes = reading.graph.nodes.iter().filter(move |node| node.op == op);
        nodes.filter_map(|node| node.makes().next())
    };
    let mut found = Vec::new();
    for gradient in made_by("Div") {
        let mut half = Match::new(reading);
        if half.bind("gradient", gradient) {
            let whole = made_by("Neg").find_map(|loss| {
                let mut whole = half.clone();
                (whole.bind("loss", loss) && whole.holds()).then_some(whole)
            });
            found.extend(whole.and_then(Match::replacement));
        }
    }
    found
}

/// What the pattern's names stand for in a graph.
#[derive(Clone)]
struct Match<'r, 'a> {
    reading: &'r Reading<'a>,
    bound: BTreeMap<&'static str, &'a str>,
    /// By what they make in the pattern.
    nodes: BTreeMap<&'static str, usize>,
}

impl<'r, 'a> Match<'r, 'a> {
    fn new(reading: &'r Reading<'a>) -> Self {
        Self { reading, bound: BTreeMap::new(), nodes: BTreeMap::new() }
    }

    /// Lets a name of the pattern stand for a tensor, and with it all that the tensor is made of.
    fn bind(&mut self, variable: &'static str, name: &'a str) -> bool {
        if let Some(known) = self.bound.get(variable) {
            return *known == name;
        }
        self.bound.insert(variable, name);
        let Some((op, reads, _)) = PATTERN.iter().find(|(_, _, made)| *made == variable) else {
            return true;
        };
        let Some(index) = self.reading.producers.get(name).copied() else { return false };
        let node = &self.reading.graph.nodes[index];
        self.nodes.insert(variable, index);
        let reads_alike = |(place, read): (usize, &&'static str)| {
            node.input(place).is_some_and(|name| self.bind(read, name))
        };
        node.op == *op && reads.iter().enumerate().all(reads_alike)
    }

    fn node(&self, variable: &str) -> Option<&'a Node> {
        Some(&self.reading.graph.nodes[*self.nodes.get(variable)?])
    }

    fn constant(&self, variable: &str) -> Option<&'a Tensor> {
        self.reading.constant(self.bound.get(variable)?)
    }

    /// Whether attributes and constants are those of the loss, and nobody else reads what lies between.
    fn holds(&self) -> bool {
        let axes = |variable: &str, axes: &[i64]| {
            let constant = self.constant(variable).and_then(|axes| axes.values::<i64>().ok());
            constant.is_some_and(|constant| constant == axes)
        };
        let last = |variable: &str| axes(variable, &[1]) || axes(variable, &[-1]);
        let keeps = |variable: &str, keep: i64| {
            self.node(variable).is_some_and(|node| node.int("keepdims", 1) == keep)
        };
        let classes = self.constant("#ids").map_or(0, |ids| ids.len() as i64);
        let column = self.constant("#column").and_then(|shape| shape.values::<i64>().ok());
        let float = self.node("hot").map(|cast| dtypes::numbered(cast.int("to", 0)));
        axes("#ids", &(0..classes).collect::<Vec<_>>())
            && axes("#row", &[1, classes])
            && matches!(column.as_deref(), Some([_, 1]))
            && float == Some(Some(DType::F32))
            && self.constant("#one").is_some_and(|one| *one == Tensor::scalar(1f32))
            && axes("#axes", &[0, 1])
            && last("#axis_of_sum")
            && last("#axis_of_row")
            && keeps("max", 1)
            && keeps("sum", 1)
            && keeps("row_within", 1)
            && keeps("total", 0)
            && keeps("within", 0)
            && self.is_closed()
    }

    fn is_closed(&self) -> bool {
        let own: BTreeSet<usize> = self.nodes.values().copied().collect();
        let hidden = |name: &&str| {
            let readers = self.reading.consumers.get(name);
            let ours = readers.is_none_or(|readers| readers.iter().all(|r| own.contains(r)));
            ours && self.reading.graph.output(name).is_none()
        };
        let between = self.nodes.keys().filter(|made| !matches!(**made, "loss" | "gradient"));
        between.filter_map(|made| self.bound.get(made)).all(hidden)
    }

    /// It stands where the logits are first read. What is asked for is fed, so it is there already.
    fn replacement(self) -> Option<Replacement> {
        let name = |variable: &str| self.bound.get(variable).copied();
        let (logits, target) = (name("logits")?, name("target")?);
        self.reading.graph.input(target)?;
        let node =
            Node::new(cross_entropy::NAME, &[logits, target], &[name("loss")?, name("gradient")?]);
        let at = *self.nodes.get("max")?;
        Some(Replacement { nodes: self.nodes.into_values().collect(), at, node, constants: vec![] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autodiff::{Loss, Objective, differentiate};
    use crate::engine::fuse::fuse;
    use crate::engine::{Dims, Program, Value, lowered};
    use crate::model::{Attribute, Dim, Graph, Model, ValueInfo};

    const OPSET: i64 = 18;
    const ROWS: usize = 3;
    const CLASSES: usize = 4;
    const WEIGHTS: [f32; 2 * CLASSES] = [0.5, -1.0, 2.0, 0.0, 1.5, 1.0, -0.5, 3.0];

    /// The gradient of `logits = x · w` with respect to `w`, in the engine's operators.
    fn gradient() -> Graph {
        let info = |name: &str, shape: Option<Vec<Dim>>| ValueInfo {
            name: name.to_owned(),
            dtype: DType::F32,
            shape,
        };
        let weights = Tensor::new(vec![2, CLASSES], &WEIGHTS).unwrap();
        let graph = Graph {
            inputs: vec![info("x", Some(vec![Dim::Fixed(ROWS), Dim::Fixed(2)]))],
            outputs: vec![info("logits", None)],
            nodes: vec![Node::new("MatMul", &["x", "w"], &["logits"])],
            initializers: [("w".to_owned(), weights)].into(),
            ..Graph::default()
        };
        let objective =
            Objective { loss: Loss::SoftmaxCrossEntropy, output: "logits", trainable: &["w"] };
        let model = Model { opset: OPSET, graph };
        lowered(&differentiate(&model, &objective, &Dims::new()).unwrap()).unwrap().graph
    }

    fn run(graph: Graph, classes: [i64; ROWS]) -> [Vec<f32>; 2] {
        let program = Program::compile(&Model { opset: OPSET, graph }, &Dims::new()).unwrap();
        let x: Vec<f32> = (0..2 * ROWS).map(|i| i as f32 * 7.0 - 9.0).collect();
        let inputs = [
            ("x", Value::f32(&[ROWS, 2], &x).unwrap()),
            ("w", Value::f32(&[2, CLASSES], &WEIGHTS).unwrap()),
            ("target", Value::i64(&[ROWS], &classes).unwrap()),
        ];
        let inputs = inputs.map(|(name, value)| (name.to_owned(), value)).into();
        let outputs = program.run(&inputs).unwrap();
        ["loss", "grad.w"].map(|name| outputs[name].f32s().unwrap().to_vec())
    }

    fn made_by<'a>(graph: &'a Graph, op: &str) -> Vec<&'a str> {
        graph.nodes.iter().filter(|node| node.op == op).flat_map(Node::makes).collect()
    }

    #[test]
    fn one_operator_computes_what_the_nodes_did() {
        let mut fused = gradient();
        fuse(&mut fused).unwrap();
        assert_eq!(made_by(&fused, cross_entropy::NAME).len(), 2);
        assert!(fused.nodes.len() < 10, "{:?}", fused.nodes);
        // With a tensor between them shown, the nodes stay.
        let mut plain = gradient();
        let name = made_by(&plain, "Log")[0].to_owned();
        plain.outputs.push(ValueInfo { name, dtype: DType::F32, shape: None });
        let mut kept = plain.clone();
        fuse(&mut kept).unwrap();
        assert_eq!(kept, plain);
        for classes in [[0, 3, 1], [2, 2, 2], [0, 4, -1], [-100, 4, i64::MIN]] {
            let pairs = std::iter::zip(run(gradient(), classes), run(plain.clone(), classes));
            for (got, want) in pairs.flat_map(|(got, want)| std::iter::zip(got, want)) {
                assert!((got - want).abs() <= 1e-5 * want.abs().max(1.0), "{got}, not {want}");
            }
        }
    }

    #[test]
    fn other_nodes_are_left_alone() {
        let change: [fn(&mut Node); 4] = [
            |node| {
                if node.op == "ReduceSum" && node.int("keepdims", 1) == 0 {
                    node.attributes.insert("keepdims".to_owned(), Attribute::Int(1));
                }
            },
            |node| {
                if node.op == "Cast" {
                    node.attributes.insert("to".to_owned(), Attribute::Int(11));
                }
            },
            |node| {
                if node.op == "Neg" {
                    "Abs".clone_into(&mut node.op);
                }
            },
            |node| {
                if node.op == "Max" {
                    node.inputs.swap(0, 1);
                }
            },
        ];
        for change in change {
            let mut graph = gradient();
            graph.nodes.iter_mut().for_each(change);
            let before = graph.clone();
            fuse(&mut graph).unwrap();
            assert_eq!(graph, before);
        }
    }
}
