//! Costs, declared shapes, new patches, indices out of range, and models of different operator sets.

use backstitch_onnx::cost::cost;
use backstitch_onnx::engine::{Dims, Program, Value, declare, infer, smallest};
use backstitch_onnx::patch::{Kind, Mode, Template, check, check_training, template};
use backstitch_onnx::stitch::stitch;
use backstitch_onnx::{Attribute, Code, DType, Digest, Dim, Graph, Model, Node, Tensor, ValueInfo};

use crate::cutting::{shapes_of, step, values};
use crate::golden::{case, difference};

/// Where a small network can be changed: the kind, its sites, and whether it starts without effect.
const TEMPLATES: [(Kind, &[&str]); 9] = [
    (Kind::Affine, &["image"]),
    (Kind::Affine, &["flatten13"]),
    (Kind::Lora, &["relu1", "conv6"]),
    (Kind::Lora, &["flatten13"]),
    (Kind::Adapter, &["add5"]),
    (Kind::Conv, &["relu3"]),
    (Kind::Head, &["flatten13", "gemm14"]),
    (Kind::ReplaceBlock, &["relu1", "relu3"]),
    (Kind::ReplaceBlock, &["add5", "gemm14"]),
];

#[test]
fn new_patches_fit_train_and_change_nothing_yet() {
    for name in ["network-13", "network-18"] {
        let case = case(name);
        let digest = case.model.digest();
        let shapes = shapes_of(&case);
        for (kind, sites) in TEMPLATES {
            let patch = template(
                &case.model,
                digest,
                &Template { kind, name: "new", sites, rank: 2, classes: None },
            )
            .unwrap();
            check(&patch, &case.model, digest, &shapes).unwrap();
            check_training(&patch, &case.model, &Dims::new(), Some("gemm14")).unwrap();
            assert_eq!(
                patch,
                template(
                    &case.model,
                    digest,
                    &Template { kind, name: "new", sites, rank: 2, classes: None }
                )
                .unwrap()
            );
            let stitched = stitch(&case.model, &[&patch]).unwrap();
            assert_eq!(stitched.opset, case.model.opset);
            let mut live = values(&case);
            step(&Model::from_bytes(&stitched.to_bytes()).unwrap(), &shapes, &mut live);
            for info in &case.model.graph.outputs {
                let found = live[&info.name].to_tensor().unwrap();
                let difference = difference(&found, &case.outputs[&info.name]).unwrap();
                assert!(difference < 1e-5, "{name}, {}: {difference:e}", kind.as_str());
            }
        }
    }
}

#[test]
fn a_new_head_starts_as_the_old_one() {
    let case = case("network-13");
    let head = Template {
        kind: Kind::Head,
        name: "head",
        sites: &["flatten13", "gemm14"],
        rank: 4,
        classes: None,
    };
    let patch = template(&case.model, case.model.digest(), &head).unwrap();
    assert_eq!(patch.manifest().attachments[0].mode, Mode::Replace);
    let gemm = case.model.graph.nodes.iter().find(|node| node.op == "Gemm").unwrap();
    assert_eq!(patch.weights()["weight"], case.model.graph.initializers[&gemm.inputs[1]]);
}

#[test]
fn a_head_of_own_classes_leaves_the_other_places_without_a_chance() {
    let case = case("network-13");
    let own = |classes| Template {
        kind: Kind::Head,
        name: "own",
        sites: &["flatten13", "gemm14"],
        rank: 4,
        classes: Some(classes),
    };
    let patch = template(&case.model, case.model.digest(), &own(2)).unwrap();
    assert_eq!(patch.weights()["weight"].shape(), [8, 2]);
    check_training(&patch, &case.model, &Dims::new(), Some("gemm14")).unwrap();
    let stitched = stitch(&case.model, &[&patch]).unwrap();
    let mut live = values(&case);
    step(&stitched, &shapes_of(&case), &mut live);
    let chances = live["softmax15"].to_tensor().unwrap().values::<f32>().unwrap();
    for row in chances.chunks(5) {
        assert!((row[0] + row[1] - 1.0).abs() < 1e-6 && row[2..] == [0.0; 3], "{row:?}");
    }
    for odd in [0, 6] {
        let refused = template(&case.model, Digest::of(b""), &own(odd)).unwrap_err();
        assert_eq!(refused.code(), Code::PatchMismatch);
    }
}

#[test]
fn templates_for_odd_sites_are_refused() {
    let case = case("network-13");
    let odd: [(Kind, &[&str]); 7] = [
        (Kind::Head, &["gemm14"]),
        (Kind::Affine, &["relu1", "relu3"]),
        (Kind::Lora, &["image", "flatten13"]),
        (Kind::Conv, &["flatten13"]),
        (Kind::Lora, &["conv6", "relu1"]),
        (Kind::ReplaceBlock, &["relu3"]),
        // The sum also reads the layer before this one.
        (Kind::ReplaceBlock, &["relu3", "relu1"]),
    ];
    for (kind, sites) in odd {
        let refused = template(
            &case.model,
            Digest::of(b""),
            &Template { kind, name: "odd", sites, rank: 2, classes: None },
        );
        assert_eq!(
            refused.unwrap_err().code(),
            Code::PatchMismatch,
            "{} at {sites:?}",
            kind.as_str()
        );
    }
}

#[test]
fn costs_are_those_of_the_definitions() {
    let case = case("network-13");
    let counted = cost(&case.model, &shapes_of(&case)).unwrap();
    // Two images: 3 → 6 and twice 6 → 6 channels at 8 × 8, 6 → 8 at 4 × 4, kernels of 3 × 3; then 8 → 5.
    let convolutions = 2 * 9 * (64 * (6 * 3 + 6 * 6 + 6 * 6) + 16 * 8 * 6);
    assert_eq!(counted.total.macs, convolutions + 2 * 8 * 5);
    let weights: usize = 9 * (18 + 36 + 36 + 48) + 6 + 6 + 6 + 8 + 40 + 5;
    // The split's sizes are two int64.
    assert_eq!(counted.total.parameter_bytes, 4 * weights as u64 + 16);
    // Three tensors of 2 × 6 × 8 × 8 are alive at the addition.
    assert_eq!(counted.total.peak_activation_bytes, 3 * 4 * 2 * 6 * 64);
    assert_eq!(counted.nodes.iter().map(|node| node.macs).sum::<u64>(), counted.total.macs);
}

#[test]
fn declared_shapes_say_what_stays_open() {
    let case = case("attention-17");
    let types = declare(&case.model).unwrap();
    let output = &case.model.graph.outputs[0].name;
    let inner = case
        .model
        .graph
        .nodes
        .iter()
        .find(|node| node.op == "Transpose")
        .unwrap()
        .makes()
        .next()
        .unwrap();
    assert!(types.contains_key(output));
    let fixed: Vec<bool> = types[inner]
        .shape
        .as_ref()
        .unwrap()
        .iter()
        .map(|dim| matches!(dim, Dim::Fixed(_)))
        .collect();
    assert_eq!(fixed, [false, true, false, true]);
}

#[test]
fn an_index_beyond_the_table_is_refused() {
    let case = case("attention-17");
    let dims = Dims::from([("ids".to_owned(), vec![1, 2])]);
    let program = Program::compile(&case.model, &dims).unwrap();
    let mask = Value::i64(&[1, 2], &[1, 1]).unwrap();
    let run = |ids: &[i64]| program.run_ordered(&[Value::i64(&[1, 2], ids).unwrap(), mask.clone()]);
    assert!(run(&[0, 10]).is_ok());
    for ids in [[0, 11], [-12, 0]] {
        assert_eq!(run(&ids).unwrap_err().code(), Code::InputMismatch);
    }
}

#[test]
fn inputs_that_do_not_fit_are_refused() {
    let case = case("network-13");
    let program = Program::compile(&case.model, &Dims::new()).unwrap();
    let image = Value::zeros(DType::F32, &[1, 3, 8, 8]).unwrap();
    let code = |inputs: &[(&str, Value)]| {
        let inputs =
            inputs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        program.run(&inputs).unwrap_err().code()
    };
    assert_eq!(code(&[]), Code::InputMismatch);
    assert_eq!(code(&[("image", image.clone()), ("more", image.clone())]), Code::InputMismatch);
    assert_eq!(
        code(&[("image", Value::zeros(DType::F64, &[1, 3, 8, 8]).unwrap())]),
        Code::InputMismatch
    );
    assert_eq!(
        code(&[("image", Value::zeros(DType::F32, &[1, 3, 8, 9]).unwrap())]),
        Code::InputMismatch
    );

    let wrong = |shape: Vec<usize>| Dims::from([("image".to_owned(), shape)]);
    for shape in [vec![1, 4, 8, 8], vec![1, 3, 8], vec![usize::MAX, 3, 8, 8]] {
        assert!(infer(&case.model, &wrong(shape)).is_err());
    }
    assert_eq!(
        infer(&case.model, &Dims::from([("x".to_owned(), vec![1])])).unwrap_err().code(),
        Code::InputMismatch
    );
}

#[test]
fn weights_that_are_inputs_are_not_folded() {
    let open = ValueInfo::fixed("x", DType::F32, &[2]);
    let mut graph = Graph {
        nodes: vec![Node::new("Mul", &["x", "w"], &["z"]), Node::new("Add", &["z", "v"], &["y"])],
        inputs: vec![open],
        outputs: vec![ValueInfo::fixed("y", DType::F32, &[2])],
        initializers: ["w", "v"].map(|name| (name.to_owned(), Tensor::vector(&[1.0f32]))).into(),
        ..Graph::default()
    };
    // The two weights are equal, and the engine merges equal constants: as inputs they must stay apart.
    graph.promote(&["v", "w"]).unwrap();
    assert_eq!(graph.promote(&["x"]).unwrap_err().code(), Code::UnknownTensor);
    let program = Program::compile(&Model { opset: 13, graph }, &Dims::new()).unwrap();
    assert_eq!(program.input_names().collect::<Vec<_>>(), ["x", "v", "w"]);
    let fed = [Value::f32(&[2], &[1.0, 2.0]), Value::f32(&[1], &[10.0]), Value::f32(&[1], &[3.0])];
    let outputs = program.run_ordered(&fed.map(Result::unwrap)).unwrap();
    assert_eq!(outputs[0].f32s().unwrap(), [13.0, 16.0]);
}

#[test]
fn fresh_names_and_pruning_look_into_subgraphs() {
    let mut model = case("dynamic-13").model;
    let branch = model.graph.nodes.iter().find(|node| node.op == "If").unwrap().clone();
    model.graph.outputs.retain(|info| info.name == branch.outputs[0]);
    model.graph.prune();
    // The branches read a constant from around them.
    assert_eq!(model.graph.nodes.len(), 1);
    assert_eq!(model.graph.initializers.len(), 1);
    assert_eq!(model.graph.fresh("Add_out"), "Add_out.1");
    let again = Model::from_bytes(&model.to_bytes()).unwrap();
    assert_eq!(again, model);
}

#[test]
fn extraction_names_the_input_that_is_missing() {
    let model = case("network-13").model;
    let middle = model.extract(&["relu1"], &["add5"]).unwrap();
    assert_eq!(middle.graph.nodes.len(), 4);
    assert!(middle.graph.inputs[0].shape.is_some());
    assert_eq!(model.extract(&["relu3"], &["add5"]).unwrap_err().code(), Code::InputMismatch);
    assert_eq!(model.extract(&["relu"], &["add5"]).unwrap_err().code(), Code::UnknownTensor);
}

/// The one output of a model of two float inputs, on these values.
fn computed(nodes: Vec<Node>, inputs: [(&[usize], &[f32]); 2]) -> Vec<f32> {
    let names = ["a", "b"].iter().zip(&inputs);
    let graph = Graph {
        nodes,
        inputs: names
            .map(|(name, (shape, _))| ValueInfo::fixed(*name, DType::F32, shape))
            .collect(),
        outputs: vec![ValueInfo { name: "y".to_owned(), dtype: DType::F32, shape: None }],
        ..Graph::default()
    };
    let program = Program::compile(&Model { opset: 17, graph }, &Dims::new()).unwrap();
    let fed = inputs.map(|(shape, values)| Value::f32(shape, values).unwrap());
    program.run_ordered(&fed).unwrap()[0].f32s().unwrap().to_vec()
}

#[test]
fn subtracting_a_convolution_keeps_the_sign() {
    let weights: (&[usize], &[f32]) = (&[1, 1, 1, 1], &[1.0]);
    let image: (&[usize], &[f32]) = (&[1, 1, 2, 2], &[1.0, 2.0, 3.0, 4.0]);
    let conv = Node::new("Conv", &["a", "b"], &["h"]).with("pads", Attribute::Ints(vec![1; 4]));
    let nodes = vec![conv, Node::new("Sub", &["b", "h"], &["y"])];
    let y = computed(nodes, [image, weights]);
    assert_eq!(y[..8], [1.0, 1.0, 1.0, 1.0, 1.0, 0.0, -1.0, 1.0]);
}

#[test]
fn an_ellipsis_is_spelled_out_inside_a_graph() {
    let row: (&[usize], &[f32]) = (&[1, 1, 2], &[1.0, 2.0]);
    let equation = Attribute::String("...ij,...kj->...ik".to_owned());
    let nodes = vec![
        Node::new("Neg", &["a"], &["h"]),
        Node::new("Einsum", &["h", "b"], &["y"]).with("equation", equation),
    ];
    assert_eq!(computed(nodes, [row, row]), [-5.0]);
}

#[test]
fn a_quotient_that_is_rounded_is_not_a_product() {
    // 1.5 / 3 and 7.5 / 15 are ties; a reciprocal moves some of their like by a step.
    let numbers: Vec<f32> = (0..4096).map(|n| n as f32 * 0.5).collect();
    for divisor in [3.0f32, 5.0, 7.0, 255.0 / 7.0] {
        let mut graph = Graph {
            nodes: vec![Node::new("Div", &["x", "d"], &["q"]), Node::new("Floor", &["q"], &["y"])],
            inputs: vec![ValueInfo::fixed("x", DType::F32, &[numbers.len()])],
            outputs: vec![ValueInfo { name: "y".to_owned(), dtype: DType::F32, shape: None }],
            ..Graph::default()
        };
        graph.initializers.insert("d".to_owned(), Tensor::scalar(divisor));
        let program = Program::compile(&Model { opset: 17, graph }, &Dims::new()).unwrap();
        let fed = [Value::f32(&[numbers.len()], &numbers).unwrap()];
        let found = program.run_ordered(&fed).unwrap()[0].f32s().unwrap().to_vec();
        let expected: Vec<f32> = numbers.iter().map(|number| (number / divisor).floor()).collect();
        assert_eq!(found, expected, "divided by {divisor}");
    }
}

#[test]
fn a_new_patch_fits_a_network_that_no_single_pixel_passes() {
    let mut graph = Graph { name: "open".to_owned(), ..Graph::default() };
    let open = vec![Dim::Unknown, Dim::Fixed(1), Dim::Unknown, Dim::Unknown];
    graph.inputs = vec![ValueInfo { name: "x".to_owned(), dtype: DType::F32, shape: Some(open) }];
    graph.outputs = vec![ValueInfo { name: "y".to_owned(), dtype: DType::F32, shape: None }];
    let weight = Tensor::new(vec![2, 1, 3, 3], &[0.5f32; 18]).unwrap();
    graph.initializers.insert("w".to_owned(), weight);
    graph.nodes = vec![
        Node::new("Conv", &["x", "w"], &["h"]),
        Node::new("GlobalAveragePool", &["h"], &["y"]),
    ];
    let model = Model { opset: 17, graph };
    let affine =
        Template { kind: Kind::Affine, name: "new", sites: &["h"], rank: 1, classes: None };
    let patch = template(&model, model.digest(), &affine).unwrap();
    let (dims, shapes) = smallest(&model).unwrap();
    assert!(dims["x"][2] >= 3);
    check(&patch, &model, model.digest(), &shapes).unwrap();
    check_training(&patch, &model, &dims, Some("y")).unwrap();
}
