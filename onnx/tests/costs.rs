//! Costs in terms of open dimensions are those that counting gives for every size.

use std::collections::BTreeMap;

use backstitch_onnx::cost::{cost, symbolic_cost};
use backstitch_onnx::engine::{Dims, infer};
use backstitch_onnx::{Attribute, DType, Dim, Graph, Model, Node, Tensor, ValueInfo};

use crate::golden::case;

/// The sizes that the symbols of a model have when its inputs have these shapes.
fn sizes(model: &Model, dims: &Dims) -> BTreeMap<String, i128> {
    let mut sizes = BTreeMap::new();
    for info in &model.graph.inputs {
        for (axis, dim) in info.shape.iter().flatten().enumerate() {
            let name = match dim {
                Dim::Fixed(_) => continue,
                Dim::Symbol(symbol) => symbol.clone(),
                Dim::Unknown => format!("{}.{axis}", info.name),
            };
            sizes.insert(name, dims[&info.name][axis] as i128);
        }
    }
    sizes
}

fn agree(model: &Model, shapes: &[&[(&str, &[usize])]]) {
    let open = symbolic_cost(model, &Dims::new()).unwrap();
    for given in shapes {
        let dims: Dims =
            given.iter().map(|(name, shape)| ((*name).to_owned(), shape.to_vec())).collect();
        let counted = cost(model, &infer(model, &dims).unwrap()).unwrap();
        let sizes = sizes(model, &dims);
        let total = &open.total;
        assert_eq!(total.macs.value(&sizes), Some(i128::from(counted.total.macs)), "{given:?}");
        assert_eq!(
            total.peak_activation_bytes.value(&sizes),
            Some(i128::from(counted.total.peak_activation_bytes)),
            "{given:?}: {}",
            total.peak_activation_bytes
        );
        for (symbolic, node) in open.nodes.iter().zip(&counted.nodes) {
            let bytes = symbolic.activation_bytes.value(&sizes);
            assert_eq!(bytes, Some(i128::from(node.activation_bytes)), "{}", node.name);
        }
    }
}

#[test]
fn a_transformer_costs_the_square_of_its_length() {
    let model = case("attention-17").model;
    agree(
        &model,
        &[
            &[("ids", &[1, 2]), ("mask", &[1, 2])],
            &[("ids", &[3, 5]), ("mask", &[3, 5])],
            &[("ids", &[2, 7]), ("mask", &[2, 7])],
        ],
    );
}

#[test]
fn an_image_network_costs_its_pixels() {
    let mut graph = Graph { name: "open".to_owned(), ..Graph::default() };
    let open = ["n", "", "h", "w"].map(|name| match name {
        "" => Dim::Fixed(3),
        name => Dim::Symbol(name.to_owned()),
    });
    graph.inputs =
        vec![ValueInfo { name: "x".to_owned(), dtype: DType::F32, shape: Some(open.into()) }];
    graph.outputs = vec![ValueInfo { name: "y".to_owned(), dtype: DType::F32, shape: None }];
    let weight =
        |inputs: usize| Tensor::new(vec![4, inputs, 3, 3], &vec![0.5f32; 36 * inputs]).unwrap();
    graph.initializers =
        [("v", weight(3)), ("w", weight(4))].map(|(n, t)| (n.to_owned(), t)).into();
    let ints = |values: &[i64]| Attribute::Ints(values.to_vec());
    let conv = |x: &str, w: &str, y: &str, stride: i64| {
        Node::new("Conv", &[x, w], &[y])
            .with("strides", ints(&[stride, stride]))
            .with("pads", ints(&[1, 1, 1, 1]))
    };
    graph.nodes = vec![
        conv("x", "v", "a", 1),
        Node::new("Relu", &["a"], &["b"]),
        conv("b", "w", "c", 2),
        Node::new("GlobalAveragePool", &["c"], &["y"]),
    ];
    let model = Model { opset: 17, graph };
    agree(&model, &[&[("x", &[1, 3, 8, 8])], &[("x", &[2, 3, 9, 6])], &[("x", &[5, 3, 4, 7])]]);
    let total = symbolic_cost(&model, &Dims::new()).unwrap().total;
    assert!(total.macs.to_string().contains("108·h·n·w"), "{}", total.macs);

    let fixed = Dims::from([("x".to_owned(), vec![2, 3, 8, 8])]);
    let total = symbolic_cost(&model, &fixed).unwrap().total;
    assert_eq!(total.macs.number(), Some(2 * (64 * 108 + 16 * 144)));
}
