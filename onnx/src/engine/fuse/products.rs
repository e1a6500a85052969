//! What `onnxruntime.quantization.quantize_dynamic` writes for matrix products of the same activations: one operator.

use std::collections::BTreeMap;

use super::{Reading, Replacement};
use crate::dtypes;
use crate::engine::product;
use crate::error::Result;
use crate::model::{Graph, Node};
use crate::tensor::{DType, Tensor};

/// One node for all products of the same activations.
pub(super) fn find(reading: &Reading<'_>) -> Result<Vec<Replacement>> {
    let nodes = reading.graph.nodes.iter().enumerate().filter(|(_, n)| n.op == "MatMulInteger");
    let mut alike: BTreeMap<&str, Vec<Product<'_>>> = BTreeMap::new();
    for product in nodes.filter_map(|(index, node)| Product::find(reading, index, node)) {
        alike.entry(product.activations).or_default().push(product);
    }
    alike.values().map(|products| replacement(reading.graph, products)).collect()
}

/// `Cast(MatMulInteger(DynamicQuantizeLinear(x), w)) · (scale of x · scale of w) [+ bias]`, and the nodes that compute it.
struct Product<'a> {
    nodes: Vec<usize>,
    activations: &'a str,
    weights: (&'a str, &'a Tensor),
    scale: &'a str,
    zero: Option<&'a str>,
    bias: Option<&'a str>,
    columns: usize,
    output: &'a str,
}

impl<'a> Product<'a> {
    /// Found from the product of integers.
    fn find(reading: &Reading<'a>, index: usize, node: &'a Node) -> Option<Self> {
        let (levels, weights) = (node.input(0)?, node.input(1)?);
        let quantised = reading.made_by(levels, "DynamicQuantizeLinear")?;
        let of = |output: usize| quantised.outputs.get(output).map(String::as_str);
        if of(0) != Some(levels) || of(2) != node.input(2) {
            return None;
        }
        let tensor = reading.constant(weights)?;
        let (&[inner, columns], DType::I8 | DType::U8) = (tensor.shape(), tensor.dtype()) else {
            return None;
        };
        if inner > product::LONGEST || inner == 0 || columns == 0 {
            return None;
        }
        let per_column = |name: &str| {
            reading.constant(name).is_some_and(|tensor| match tensor.shape() {
                [] | [1] => true,
                [count] => *count == columns,
                _ => false,
            })
        };
        let zero = node.input(3);
        if zero.is_some_and(|zero| !per_column(zero)) {
            return None;
        }
        let (cast, float) = reading.only_reader(node, "Cast")?;
        if dtypes::numbered(float.int("to", 0)) != Some(DType::F32) {
            return None;
        }
        let (scaled, product) = reading.only_reader(float, "Mul")?;
        let both = reading.made_by(other(product, float.makes().next()?)?, "Mul")?;
        let scale = other(both, of(1)?).filter(|scale| per_column(scale))?;
        let (mut nodes, mut last, mut bias) = (vec![index, cast, scaled], product, None);
        if let Some((added, sum)) = reading.only_reader(product, "Add")
            && let Some(name) = other(sum, product.makes().next()?)
            && let Some(tensor) = reading.constant(name)
            && tensor.shape() == [columns]
        {
            nodes.push(added);
            (last, bias) = (sum, Some(name));
        }
        Some(Self {
            nodes,
            activations: quantised.input(0)?,
            weights: (weights, tensor),
            scale,
            zero,
            bias,
            columns,
            output: last.makes().next()?,
        })
    }

    /// The names of its constants, in the operator's order; those that the graph lacks are added to `more`.
    fn constants(&self, graph: &Graph, more: &mut Vec<(String, Tensor)>) -> Result<[String; 4]> {
        let mut add = |what: &str, tensor: Tensor| {
            let name = graph.fresh(&format!("{}/{what}", self.output));
            more.push((name.clone(), tensor));
            name
        };
        let zero = match self.zero {
            Some(zero) => zero.to_owned(),
            None => add("zero", Tensor::from_bytes(self.weights.1.dtype(), vec![], vec![0])?),
        };
        let bias = match self.bias {
            Some(bias) => bias.to_owned(),
            None => add("bias", Tensor::vector(&vec![0f32; self.columns])),
        };
        Ok([self.weights.0.to_owned(), self.scale.to_owned(), zero, bias])
    }
}

fn replacement(graph: &Graph, products: &[Product<'_>]) -> Result<Replacement> {
    let (mut nodes, mut inputs, mut constants) = (Vec::new(), Vec::new(), Vec::new());
    inputs.extend(products.first().map(|product| product.activations.to_owned()));
    for product in products {
        nodes.extend(&product.nodes);
        inputs.extend(product.constants(graph, &mut constants)?);
    }
    let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
    let outputs: Vec<&str> = products.iter().map(|product| product.output).collect();
    let node = Node::new(product::NAME, &inputs, &outputs);
    // The activations come before the first of them, and all else is constant.
    let at = nodes.iter().copied().min().unwrap_or_default();
    Ok(Replacement { nodes, at, node, constants })
}

/// The factor or term of a node of two inputs that is not `name`.
fn other<'a>(node: &'a Node, name: &str) -> Option<&'a str> {
    let (a, b) = (node.input(0)?, node.input(1)?);
    match (a == name, b == name) {
        (true, false) => Some(b),
        (false, true) => Some(a),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::fuse::fuse;
    use crate::engine::{Dims, Program, Value};
    use crate::model::{Attribute, Dim, Model, ValueInfo};

    const INNER: usize = 11;
    const COLUMNS: usize = 13;

    fn levels(count: usize) -> Vec<i8> {
        (0..count).map(|i| ((i * 97 + 5) % 255) as i8).collect()
    }

    /// What `quantize_dynamic` writes for a product, with a bias.
    fn quantised(scales: usize, zeros: usize) -> Graph {
        let mut cast = Node::new("Cast", &["sums"], &["float"]);
        cast.attributes.insert("to".to_owned(), Attribute::Int(1));
        let weights = Tensor::new(vec![INNER, COLUMNS], &levels(INNER * COLUMNS)).unwrap();
        let scale: Vec<f32> = (0..scales).map(|i| 0.01 + 0.001 * i as f32).collect();
        let bias: Vec<f32> = (0..COLUMNS).map(|i| i as f32 - 6.0).collect();
        let initializers = [
            ("w", weights),
            ("w_scale", Tensor::vector(&scale)),
            ("w_zero", Tensor::vector(&levels(zeros))),
            ("bias", Tensor::vector(&bias)),
        ];
        Graph {
            inputs: vec![ValueInfo {
                name: "x".to_owned(),
                dtype: DType::F32,
                shape: Some(vec![Dim::Fixed(1), Dim::Fixed(6), Dim::Fixed(INNER)]),
            }],
            outputs: vec![ValueInfo { name: "y".to_owned(), dtype: DType::F32, shape: None }],
            nodes: vec![
                Node::new("DynamicQuantizeLinear", &["x"], &["q", "s", "z"]),
                Node::new("Mul", &["s", "w_scale"], &["scales"]),
                Node::new("MatMulInteger", &["q", "w", "z", "w_zero"], &["sums"]),
                cast,
                Node::new("Mul", &["float", "scales"], &["product"]),
                Node::new("Add", &["bias", "product"], &["y"]),
            ],
            initializers: initializers.map(|(n, t)| (n.to_owned(), t)).into(),
            ..Graph::default()
        }
    }

    fn run(graph: Graph) -> Vec<f32> {
        let program = Program::compile(&Model { opset: 13, graph }, &Dims::new()).unwrap();
        let x: Vec<f32> = (0..6 * INNER).map(|i| ((i * 31) % 101) as f32 / 25.0 - 1.5).collect();
        let x = Value::f32(&[1, 6, INNER], &x).unwrap();
        program.run_ordered(&[x]).unwrap()[0].f32s().unwrap().to_vec()
    }

    #[test]
    fn one_operator_computes_what_the_nodes_did() {
        for (scales, zeros) in [(1, 1), (COLUMNS, 1), (COLUMNS, COLUMNS)] {
            let mut fused = quantised(scales, zeros);
            fuse(&mut fused).unwrap();
            let ops: Vec<&str> = fused.nodes.iter().map(|node| node.op.as_str()).collect();
            assert_eq!(ops, [product::NAME]);
            // With a tensor between them shown, the nodes stay.
            let mut plain = quantised(scales, zeros);
            plain.outputs.push(ValueInfo {
                name: "sums".to_owned(),
                dtype: DType::I32,
                shape: None,
            });
            let mut kept = plain.clone();
            fuse(&mut kept).unwrap();
            assert_eq!(kept, plain);
            for (got, want) in run(quantised(scales, zeros)).iter().zip(run(plain)) {
                assert!((got - want).abs() <= 1e-5 * want.abs().max(1.0), "{got}, not {want}");
            }
        }
    }

    #[test]
    fn products_of_the_same_activations_share_one_operator() {
        let mut graph = quantised(1, 1);
        for node in quantised(1, 1).nodes.into_iter().skip(1) {
            let again = |name: &String| match name.as_str() {
                "q" | "s" | "z" | "w" | "w_scale" | "w_zero" | "bias" => name.clone(),
                name => format!("{name}.2"),
            };
            let mut node = node;
            node.inputs = node.inputs.iter().map(again).collect();
            node.outputs = node.outputs.iter().map(again).collect();
            graph.nodes.push(node);
        }
        graph.nodes.push(Node::new("Sub", &["y", "y.2"], &["difference"]));
        graph.outputs[0].name = "difference".to_owned();
        let mut fused = graph.clone();
        fuse(&mut fused).unwrap();
        let ops: Vec<&str> = fused.nodes.iter().map(|node| node.op.as_str()).collect();
        assert_eq!(ops, [product::NAME, "Sub"]);
        assert!(run(graph).iter().all(|difference| *difference == 0.0));
    }

    #[test]
    fn other_products_are_left_alone() {
        let change: [fn(&mut Graph); 4] = [
            |graph| graph.nodes[2].inputs[2] = "w_zero".to_owned(),
            |graph| graph.nodes[2].inputs[1] = "q".to_owned(),
            |graph| graph.nodes[3].attributes = [("to".to_owned(), Attribute::Int(11))].into(),
            |graph| graph.nodes[4].inputs[1] = "w_scale".to_owned(),
        ];
        for change in change {
            let mut graph = quantised(1, 1);
            change(&mut graph);
            let before = graph.clone();
            fuse(&mut graph).unwrap();
            assert_eq!(graph, before);
        }
    }
}
