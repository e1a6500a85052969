//! Hostile bytes: typed errors, never a panic.

use backstitch_onnx::autodiff::{Loss, Objective, differentiate};
use backstitch_onnx::engine::{Dims, Program};
use backstitch_onnx::patch::{Manifest, Patch};
use backstitch_onnx::{Attribute, Code, DType, Graph, Model, Node, Tensor, ValueInfo};
use proptest::prelude::*;

use crate::golden::folder;

fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(folder().join(format!("{name}.onnx"))).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn mutated_models_are_read_or_refused(
        name in prop::sample::select(vec!["network-13", "dynamic-21", "old-11", "layout-18"]),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = bytes(name);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(model) = Model::from_bytes(&bytes) {
            let again = Model::from_bytes(&model.to_bytes()).unwrap();
            // NaN breaks equality of values, not of bytes.
            prop_assert_eq!(again.to_bytes(), model.to_bytes());
        }
    }

    #[test]
    fn truncated_models_are_refused_or_read(name in Just("network-13"), length in any::<prop::sample::Index>()) {
        let bytes = bytes(name);
        let _ = Model::from_bytes(&bytes[..length.index(bytes.len())]);
    }

    #[test]
    fn noise_is_no_model(noise in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Model::from_bytes(&noise);
        prop_assert!(Manifest::from_bytes(&noise).is_err());
        prop_assert!(Patch::from_parts(&noise, &noise, Some(&noise)).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn mutated_models_that_are_read_compile_or_fail_in_words(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = bytes("attention-17");
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(model) = Model::from_bytes(&bytes) {
            let _ = Program::compile(&model, &Dims::new());
        }
    }
}

/// One input, and nodes in a row with constants.
fn chain(shape: &[usize], constants: &[(&str, &[i64])], nodes: Vec<Node>) -> Model {
    let mut graph = Graph { nodes, ..Graph::default() };
    let named = constants.iter().map(|(name, values)| ((*name).to_owned(), Tensor::vector(values)));
    graph.initializers = named.collect();
    graph.initializers.insert("w".to_owned(), Tensor::vector(&[1.0f32]));
    graph.inputs = vec![ValueInfo::fixed("x", DType::F32, shape)];
    graph.outputs = vec![ValueInfo { name: "y".to_owned(), dtype: DType::F32, shape: None }];
    Model::from_bytes(&Model { opset: 13, graph }.to_bytes()).unwrap()
}

#[test]
fn tensors_that_grow_step_by_step_are_refused_before_they_exist() {
    let tiles = vec![
        Node::new("Tile", &["x", "repeats"], &["wide"]),
        Node::new("Tile", &["wide", "repeats"], &["y"]),
    ];
    let model = chain(&[1], &[("repeats", &[1 << 20])], tiles);
    let error = Program::compile(&model, &Dims::new()).unwrap_err();
    assert_eq!(error.code(), Code::ModelTooLarge);
    assert!(error.message().contains("`y`"), "{error}");
}

#[test]
fn the_gradient_of_an_enormous_resize_is_refused() {
    let nodes = vec![
        Node::new("Mul", &["x", "w"], &["scaled"]),
        Node::new("Resize", &["scaled", "", "", "sizes"], &["y"]),
    ];
    let model = chain(&[1, 1, 1 << 12, 1], &[("sizes", &[1, 1, 1 << 13, 1])], nodes);
    let objective = Objective { loss: Loss::MeanSquaredError, output: "y", trainable: &["w"] };
    let error = differentiate(&model, &objective, &Dims::new()).unwrap_err();
    assert_eq!(error.code(), Code::GradientUnsupported);
    assert!(error.message().contains("4096 to 8192"), "{error}");
}

#[test]
fn axes_and_indices_that_are_not_there_are_refused_by_the_name_of_the_node() {
    let with = |op: &str, inputs: &[&str], name: &str, value: Attribute| {
        let mut node = Node::new(op, inputs, &["y"]);
        node.name = "culprit".to_owned();
        node.attributes.insert(name.to_owned(), value);
        node
    };
    let axis = |axis: i64| Attribute::Int(axis);
    let wrong = [
        with("Softmax", &["x"], "axis", axis(2)),
        with("LogSoftmax", &["x"], "axis", axis(-3)),
        with("Concat", &["x", "x"], "axis", axis(2)),
        with("Gather", &["x", "one"], "axis", axis(2)),
        with("Flatten", &["x"], "axis", axis(3)),
        with("ReduceMax", &["x"], "axes", Attribute::Ints(vec![0, 2])),
        with("ReduceSum", &["x", "five"], "keepdims", axis(1)),
        with("Unsqueeze", &["x", "five"], "unused", axis(0)),
        with("Gather", &["one", "five"], "axis", axis(0)),
    ];
    for node in wrong {
        let op = node.op.clone();
        let model = chain(&[2, 3], &[("one", &[1]), ("five", &[5])], vec![node]);
        let error = Program::compile(&model, &Dims::new()).unwrap_err();
        assert_eq!(error.code(), Code::ModelInvalid, "{op}: {error}");
        assert!(error.message().contains("culprit"), "{op}: {error}");
    }
    let right = [
        with("Softmax", &["x"], "axis", axis(-2)),
        with("Flatten", &["x"], "axis", axis(2)),
        with("Unsqueeze", &["x", "two"], "unused", axis(0)),
    ];
    for node in right {
        let model = chain(&[2, 3], &[("two", &[2])], vec![node]);
        Program::compile(&model, &Dims::new()).unwrap();
    }
}

#[test]
fn every_golden_model_survives_encoding() {
    for case in crate::golden::cases() {
        let bytes = case.model.to_bytes();
        let again = Model::from_bytes(&bytes).unwrap();
        assert_eq!(again, case.model, "{}", case.name);
        assert_eq!(again.to_bytes(), bytes, "{}", case.name);
    }
}

#[test]
fn codes_say_what_was_wrong() {
    assert_eq!(Model::from_bytes(b"no model").unwrap_err().code(), Code::ModelInvalid);
    assert_eq!(Model::from_bytes(&[]).unwrap_err().code(), Code::ModelUnsupported);
    let mut model = Model::from_bytes(&bytes("network-13")).unwrap();
    model.opset = 22;
    assert_eq!(Model::from_bytes(&model.to_bytes()).unwrap_err().code(), Code::ModelUnsupported);
    model.opset = 13;
    let output = model.graph.nodes[0].outputs[0].clone();
    model.graph.nodes[0].inputs[0] = model.graph.nodes[1].outputs[0].clone();
    let error = Model::from_bytes(&model.to_bytes()).unwrap_err();
    assert_eq!(error.code(), Code::ModelInvalid);
    assert!(error.message().contains(&output), "{error}");
}
