//! Cutting changes nothing: the segments over one map of named tensors give the whole model's outputs.

use std::collections::BTreeMap;

use backstitch_onnx::cut::{cut, cut_for, is_fixed, split_frozen};
use backstitch_onnx::engine::{Dims, Program, Shapes, Value, infer};
use backstitch_onnx::{Attribute, Code, DType, Dim, Graph, Model, Node, Tensor, ValueInfo};
use proptest::prelude::*;

use crate::golden::{Case, case, difference};

/// Shapes from inference for exactly the inputs of a segment.
pub(crate) fn dims_of(model: &Model, shapes: &Shapes) -> Dims {
    model
        .graph
        .inputs
        .iter()
        .map(|info| (info.name.clone(), shapes[&info.name].1.clone()))
        .collect()
}

pub(crate) fn values(case: &Case) -> BTreeMap<String, Value> {
    case.inputs
        .iter()
        .map(|(name, tensor)| (name.clone(), Value::try_from(tensor).unwrap()))
        .collect()
}

pub(crate) fn shapes_of(case: &Case) -> Shapes {
    let dims: Dims =
        case.inputs.iter().map(|(name, tensor)| (name.clone(), tensor.shape().to_vec())).collect();
    infer(&case.model, &dims).unwrap()
}

/// Compiles a model for what is in the map, runs it, and adds its outputs.
pub(crate) fn step(model: &Model, shapes: &Shapes, live: &mut BTreeMap<String, Value>) {
    let program = Program::compile(model, &dims_of(model, shapes)).unwrap();
    let inputs: Vec<Value> = program.input_names().map(|name| live[name].clone()).collect();
    let outputs = program.run_ordered(&inputs).unwrap();
    live.extend(program.output_names().map(str::to_owned).zip(outputs));
}

fn run_cut(case: &Case, sites: &[&str]) -> (usize, BTreeMap<String, Value>) {
    let shapes = shapes_of(case);
    let segments = cut(&case.model, sites).unwrap();
    let fixed = cut_for(&case.model, sites, &shapes).unwrap();
    assert!(segments.iter().zip(&fixed).all(|(open, fixed)| open.graph.nodes == fixed.graph.nodes));
    let mut live = values(case);
    for segment in &segments {
        // What a segment needs must survive a trip through a file.
        let segment = Model::from_bytes(&segment.to_bytes()).unwrap();
        step(&segment, &shapes, &mut live);
    }
    (segments.len(), live)
}

fn check_cut(name: &str, picks: &[prop::sample::Index]) {
    let case = case(name);
    let names: Vec<String> =
        case.model.graph.tensor_names().into_iter().map(str::to_owned).collect();
    let sites: Vec<&str> = picks.iter().map(|pick| pick.get(&names).as_str()).collect();
    let mut whole = values(&case);
    step(&case.model, &shapes_of(&case), &mut whole);
    let (segments, live) = run_cut(&case, &sites);
    assert!(segments <= sites.len() + 1);
    for info in &case.model.graph.outputs {
        let (cut, whole) =
            (live[&info.name].to_tensor().unwrap(), whole[&info.name].to_tensor().unwrap());
        assert_eq!(cut, whole, "{name} cut at {sites:?}: {} differs", info.name);
    }
    for site in sites.iter().filter(|site| !is_fixed(&case.model, site)) {
        assert!(live.contains_key(*site), "{site} is no output of a segment");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn a_network_cut_anywhere_is_the_whole(picks in prop::collection::vec(any::<prop::sample::Index>(), 1..5)) {
        check_cut("network-13", &picks);
    }

    #[test]
    fn a_transformer_cut_anywhere_is_the_whole(picks in prop::collection::vec(any::<prop::sample::Index>(), 1..4)) {
        check_cut("attention-17", &picks);
    }
}

/// What an engine likes to merge: a normalisation by hand between two transpositions, heads that are joined before a
/// product, a concatenation before a product, and constant factors after a mean.
fn merging() -> Model {
    let mut graph = Graph { name: "merging".to_owned(), ..Graph::default() };
    let ints = |values: &[i64]| Attribute::Ints(values.to_vec());
    let mut node =
        |op: &str, inputs: &[&str], output: &str, attribute: Option<(&str, Attribute)>| {
            let mut node = Node::new(op, inputs, &[output]);
            node.attributes.extend(attribute.map(|(name, value)| (name.to_owned(), value)));
            graph.nodes.push(node);
        };
    node("Transpose", &["x"], "t", Some(("perm", ints(&[0, 2, 1]))));
    node("ReduceMean", &["t"], "mean", Some(("axes", ints(&[1]))));
    node("Sub", &["t", "mean"], "d", None);
    node("Mul", &["d", "d"], "square", None);
    node("ReduceMean", &["square"], "variance", Some(("axes", ints(&[1]))));
    node("Add", &["variance", "epsilon"], "shifted", None);
    node("Sqrt", &["shifted"], "deviation", None);
    node("Div", &["d", "deviation"], "normal", None);
    node("Transpose", &["normal"], "back", Some(("perm", ints(&[0, 2, 1]))));
    node("Reshape", &["back", "heads"], "apart", None);
    node("Transpose", &["apart"], "turned", Some(("perm", ints(&[0, 2, 1, 3]))));
    node("Softmax", &["turned"], "p", None);
    node("Transpose", &["p"], "returned", Some(("perm", ints(&[0, 2, 1, 3]))));
    node("Reshape", &["returned", "joined"], "flat", None);
    node("MatMul", &["flat", "w1"], "o", None);
    node("Concat", &["o", "x"], "both", Some(("axis", Attribute::Int(2))));
    node("MatMul", &["both", "w2"], "z", None);
    node("ReduceMean", &["z"], "pooled", Some(("axes", ints(&[1]))));
    node("Mul", &["pooled", "first"], "scaled", None);
    node("Div", &["scaled", "second"], "y", None);
    let weight = |shape: &[usize]| {
        let count: usize = shape.iter().product();
        let values: Vec<f32> = (0..count).map(|i| (i as f32 * 1.7).sin()).collect();
        Tensor::new(shape.to_vec(), &values).unwrap()
    };
    graph.initializers.extend([
        ("epsilon".to_owned(), Tensor::scalar(1e-5f32)),
        ("first".to_owned(), Tensor::scalar(1.3f32)),
        ("second".to_owned(), Tensor::scalar(0.7f32)),
        ("heads".to_owned(), Tensor::vector(&[2i64, 6, 4, 12])),
        ("joined".to_owned(), Tensor::vector(&[2i64, 6, 48])),
        ("w1".to_owned(), weight(&[48, 20])),
        ("w2".to_owned(), weight(&[68, 7])),
    ]);
    graph.inputs = vec![ValueInfo::fixed("x", DType::F32, &[2, 6, 48])];
    graph.outputs = vec![ValueInfo::fixed("y", DType::F32, &[2, 1, 7])];
    Model { opset: 13, graph }
}

#[test]
fn what_an_engine_likes_to_merge_is_the_same_to_the_bit_when_cut_apart() {
    let model = merging();
    let shapes = infer(&model, &Dims::new()).unwrap();
    let values: Vec<f32> = (0..2 * 6 * 48).map(|i| (i as f32 * 0.37).cos() * 2.0).collect();
    let x = Value::try_from(&Tensor::new(vec![2, 6, 48], &values).unwrap()).unwrap();
    let start = BTreeMap::from([("x".to_owned(), x)]);
    let mut whole = start.clone();
    step(&model, &shapes, &mut whole);
    for site in model.graph.nodes.iter().flat_map(|node| node.makes()).filter(|name| *name != "y") {
        let mut live = start.clone();
        for segment in cut(&model, &[site]).unwrap() {
            step(&segment, &shapes, &mut live);
        }
        let [cut, whole] = [&live, &whole].map(|values| values["y"].to_tensor().unwrap());
        assert_eq!(cut, whole, "cut at {site}");
    }
}

#[test]
fn a_site_that_nothing_makes_cuts_nothing() {
    let case = case("network-13");
    assert_eq!(cut(&case.model, &["image"]).unwrap().len(), 1);
    assert_eq!(cut(&case.model, &[]).unwrap().len(), 1);
    assert_eq!(cut(&case.model, &["nowhere"]).unwrap_err().code(), Code::UnknownTensor);
}

#[test]
fn a_model_with_branches_is_refused_by_the_name_of_the_node() {
    let model = case("dynamic-13").model;
    let branch = model.graph.nodes.iter().find(|node| node.op == "If").unwrap();
    let site = model.graph.nodes[0].outputs[0].clone();
    let error = cut(&model, &[&site]).unwrap_err();
    assert_eq!(error.code(), Code::ModelUnsupported);
    assert!(error.message().contains(&branch.describe()), "{error}");
    assert_eq!(cut(&model, &[]).unwrap().len(), 1);
}

#[test]
fn the_frozen_part_runs_once_and_the_rest_follows() {
    let case = case("network-13");
    let weight = &case.model.graph.nodes.iter().find(|node| node.op == "Gemm").unwrap().inputs[1];
    let (prefix, suffix) = split_frozen(&case.model, &[weight]).unwrap();
    let prefix = prefix.unwrap();
    assert_eq!(
        suffix.graph.nodes.iter().map(|node| node.op.as_str()).collect::<Vec<_>>(),
        ["Gemm", "Softmax"]
    );
    let shapes = shapes_of(&case);
    let mut live = values(&case);
    step(&prefix, &shapes, &mut live);
    step(&suffix, &shapes, &mut live);
    let output = &suffix.graph.outputs[0].name;
    assert!(difference(&live[output].to_tensor().unwrap(), &case.outputs[output]).unwrap() < 1e-5);

    let first = &case.model.graph.nodes.iter().find(|node| node.op == "Conv").unwrap().inputs[1];
    assert!(split_frozen(&case.model, &[first]).unwrap().0.is_none());
    assert_eq!(split_frozen(&case.model, &["nowhere"]).unwrap_err().code(), Code::UnknownTensor);
}

#[test]
fn segments_leave_open_what_lies_behind_strides() {
    let mut graph = Graph { name: "open".to_owned(), ..Graph::default() };
    let open = vec![Dim::Unknown, Dim::Fixed(1), Dim::Unknown, Dim::Unknown];
    graph.inputs = vec![ValueInfo { name: "x".to_owned(), dtype: DType::F32, shape: Some(open) }];
    // A stale declaration, as exporters leave behind.
    graph.outputs = vec![ValueInfo::fixed("y", DType::F32, &[1, 1, 1, 1])];
    let weight = Tensor::new(vec![1, 1, 3, 3], &[0.5f32; 9]).unwrap();
    graph.initializers.insert("w".to_owned(), weight);
    let ints = |values: &[i64]| Attribute::Ints(values.to_vec());
    let conv = Node::new("Conv", &["x", "w"], &["h"]);
    let conv = conv.with("strides", ints(&[2, 2])).with("pads", ints(&[1, 1, 1, 1]));
    graph.nodes = vec![conv, Node::new("Relu", &["h"], &["y"])];
    let segments = cut(&Model { opset: 17, graph }, &["h"]).unwrap();
    let shape = |info: &ValueInfo| info.shape.clone().unwrap();
    let expected = vec![Dim::Unknown, Dim::Fixed(1), Dim::Unknown, Dim::Unknown];
    assert_eq!(shape(&segments[1].graph.inputs[0]), expected);
    assert_eq!(shape(&segments[1].graph.outputs[0]), expected);
}
