//! Stitching means what the modes say, and the segment-wise run agrees with it.

use std::collections::BTreeMap;

use backstitch_onnx::cut::cut;
use backstitch_onnx::engine::{Program, Value};
use backstitch_onnx::patch::{Attachment, Manifest, Mode, Patch, check};
use backstitch_onnx::stitch::stitch;
use backstitch_onnx::{Code, DType, Digest, Dim, Graph, Model, Node, Tensor, ValueInfo};
use proptest::prelude::*;

use crate::cutting::{shapes_of, step, values};
use crate::golden::{Case, case, difference};

const SITES: [&str; 4] = ["image", "relu1", "relu3", "add5"];

fn open(name: &str) -> ValueInfo {
    let dims = vec![Dim::Symbol("n".to_owned()), Dim::Unknown, Dim::Unknown, Dim::Unknown];
    ValueInfo { name: name.to_owned(), dtype: DType::F32, shape: Some(dims) }
}

/// y = x · gain + bias, with one value per patch.
fn affine(
    name: &str,
    primary: Digest,
    attachments: &[(Mode, &str, &str, Option<f32>)],
    gain: f32,
    bias: f32,
) -> Patch {
    let mut graph = Graph {
        name: name.to_owned(),
        initializers: BTreeMap::from([
            ("gain".to_owned(), Tensor::vector(&[gain])),
            ("bias".to_owned(), Tensor::vector(&[bias])),
        ]),
        ..Graph::default()
    };
    let mut manifest = Manifest {
        format: 1,
        name: name.to_owned(),
        function: "Scales and shifts.".to_owned(),
        primary,
        attachments: Vec::new(),
        trainable: vec!["gain".to_owned(), "bias".to_owned()],
        training: None,
        selector: None,
        io: None,
        performance: Vec::new(),
        cost: None,
        licence: None,
        provenance: None,
    };
    for (index, (mode, from, to, scale)) in attachments.iter().enumerate() {
        let [x, scaled, y] = ["x", "scaled", "y"].map(|part| format!("{part}{index}"));
        graph.nodes.push(Node::new("Mul", &[&x, "gain"], &[&scaled]));
        graph.nodes.push(Node::new("Add", &[&scaled, "bias"], &[&y]));
        graph.inputs.push(open(&x));
        graph.outputs.push(open(&y));
        manifest.attachments.push(Attachment {
            mode: *mode,
            inputs: BTreeMap::from([(x, (*from).to_owned())]),
            output: BTreeMap::from([(y, (*to).to_owned())]),
            scale: *scale,
        });
    }
    Patch::from_parts(&manifest.to_bytes(), &Model { opset: 13, graph }.to_bytes(), None).unwrap()
}

fn digest(case: &Case) -> Digest {
    case.model.digest()
}

/// Runs segment by segment and applies every patch by hand, in plain arithmetic.
fn by_hand(case: &Case, patches: &[&Patch]) -> BTreeMap<String, Value> {
    let shapes = shapes_of(case);
    let mut live = values(case);
    apply("image", patches, &mut live);
    for segment in cut(&case.model, &SITES).unwrap() {
        step(&segment, &shapes, &mut live);
        for info in &segment.graph.outputs {
            if SITES.contains(&info.name.as_str()) {
                apply(&info.name, patches, &mut live);
            }
        }
    }
    live
}

fn apply(site: &str, patches: &[&Patch], live: &mut BTreeMap<String, Value>) {
    let mut current = live[site].clone();
    let term = |patch: &Patch, from: &str, current: &Value| -> Vec<f32> {
        let weights = patch.weights();
        let [gain, bias] = ["gain", "bias"].map(|name| weights[name].values::<f32>().unwrap()[0]);
        let input = if from == site { current } else { &live[from] };
        input.f32s().unwrap().iter().map(|x| x * gain + bias).collect()
    };
    for mode in [Mode::Replace, Mode::Series, Mode::Parallel] {
        let before = current.clone();
        for patch in patches {
            for attachment in
                patch.manifest().attachments.iter().filter(|a| a.mode == mode && a.site() == site)
            {
                let from = attachment.inputs.values().next().unwrap();
                let made =
                    term(patch, from, if mode == Mode::Parallel { &before } else { &current });
                let new: Vec<f32> = match mode {
                    Mode::Parallel => current
                        .f32s()
                        .unwrap()
                        .iter()
                        .zip(made)
                        .map(|(t, d)| t + attachment.factor() * d)
                        .collect(),
                    _ => made,
                };
                current = Value::f32(current.shape(), &new).unwrap();
            }
        }
    }
    live.insert(site.to_owned(), current);
}

fn check_agreement(patches: &[&Patch]) {
    let case = case("network-13");
    let stitched = stitch(&case.model, patches).unwrap();
    let stitched = Model::from_bytes(&stitched.to_bytes()).unwrap();
    let mut whole = values(&case);
    step(&stitched, &shapes_of(&case), &mut whole);
    let hand = by_hand(&case, patches);
    for info in &case.model.graph.outputs {
        let (a, b) =
            (whole[&info.name].to_tensor().unwrap(), hand[&info.name].to_tensor().unwrap());
        let difference = difference(&a, &b).unwrap();
        assert!(difference < 1e-5, "{} differs by {difference:e}", info.name);
    }
}

fn attachment() -> impl Strategy<Value = (Mode, &'static str, &'static str, Option<f32>)> {
    // Sites 1 to 3 have one shape; a patch may read at or before the site that it changes.
    prop_oneof![
        (0..4usize).prop_map(|site| (Mode::Series, SITES[site], SITES[site], None)),
        (1..4usize, 1..4usize, prop::option::of(-1.0..1.0f32))
            .prop_filter("reads at or before", |(from, to, _)| from <= to)
            .prop_map(|(from, to, scale)| (Mode::Parallel, SITES[from], SITES[to], scale)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn stitched_and_segment_wise_runs_agree(
        plans in prop::collection::vec((prop::collection::vec(attachment(), 1..3), 0.5..1.5f32, -0.3..0.3f32), 1..4),
    ) {
        let primary = digest(&case("network-13"));
        let patches: Vec<Patch> = plans
            .iter()
            .enumerate()
            .map(|(index, (attachments, gain, bias))| affine(&format!("p{index}"), primary, attachments, *gain, *bias))
            .collect();
        check_agreement(&patches.iter().collect::<Vec<_>>());
    }
}

#[test]
fn a_replaced_path_is_gone() {
    let case = case("network-13");
    let patch =
        affine("shortcut", digest(&case), &[(Mode::Replace, "relu1", "add5", None)], 0.9, 0.1);
    check_agreement(&[&patch]);
    let stitched = stitch(&case.model, &[&patch]).unwrap();
    let convolutions =
        |model: &Model| model.graph.nodes.iter().filter(|node| node.op == "Conv").count();
    assert_eq!(convolutions(&case.model) - convolutions(&stitched), 2);
    assert!(stitched.graph.initializers.contains_key("shortcut/gain"));
}

/// A fuzzer's harness had it wrong: what replaces a site may be there before the part that it replaces would have run.
#[test]
fn what_replaces_a_site_is_then_changed_in_series_and_in_parallel() {
    let replace = (Mode::Replace, "relu1", "add5", None);
    let all = [
        replace,
        (Mode::Series, "add5", "add5", None),
        (Mode::Parallel, "relu1", "add5", Some(-0.5)),
    ];
    check_agreement(&[&affine("all", digest(&case("network-13")), &all, 0.9, 0.1)]);
}

#[test]
fn a_patch_that_does_not_fit_is_refused() {
    let case = case("network-13");
    let (primary, shapes) = (digest(&case), shapes_of(&case));
    let code = |patch: &Patch| check(patch, &case.model, primary, &shapes).unwrap_err().code();

    let fits = affine("fits", primary, &[(Mode::Parallel, "relu1", "add5", Some(0.5))], 1.0, 0.0);
    check(&fits, &case.model, primary, &shapes).unwrap();
    assert_eq!(
        check(&fits, &case.model, Digest::of(b"other"), &shapes).unwrap_err().code(),
        Code::PatchMismatch
    );

    let backwards =
        affine("backwards", primary, &[(Mode::Parallel, "add5", "relu1", None)], 1.0, 0.0);
    assert_eq!(code(&backwards), Code::PatchMismatch);
    assert_eq!(stitch(&case.model, &[&backwards]).unwrap_err().code(), Code::PatchMismatch);
    let shape = affine("shape", primary, &[(Mode::Parallel, "image", "relu1", None)], 1.0, 0.0);
    assert_eq!(code(&shape), Code::PatchMismatch);
    let nowhere =
        affine("nowhere", primary, &[(Mode::Series, "nowhere", "nowhere", None)], 1.0, 0.0);
    assert_eq!(code(&nowhere), Code::UnknownTensor);
    // Each alone is fine; together the second reads what depends on the first, and the first on the second.
    let knot = [(Mode::Parallel, "relu3", "add5", None), (Mode::Parallel, "relu1", "relu3", None)];
    check(&affine("knot", primary, &knot, 1.0, 0.0), &case.model, primary, &shapes).unwrap();
}

#[test]
fn weights_are_replaced_only_by_fitting_finite_ones() {
    let case = case("network-13");
    let patch = affine("style", digest(&case), &[(Mode::Series, "relu1", "relu1", None)], 1.0, 0.0);
    let with = |name: &str, tensor: Tensor| {
        patch.with_weights(BTreeMap::from([(name.to_owned(), tensor)]))
    };
    let new = with("gain", Tensor::vector(&[2.0f32])).unwrap();
    assert_ne!(new.weights_digest(), patch.weights_digest());
    assert_eq!(new.graph_digest(), patch.graph_digest());
    assert_eq!(
        with("gain", Tensor::vector(&[f32::NAN])).unwrap_err().code(),
        Code::WeightsNotFinite
    );
    assert_eq!(
        with("gain", Tensor::vector(&[1.0f32, 2.0])).unwrap_err().code(),
        Code::PatchMismatch
    );
    assert_eq!(with("other", Tensor::vector(&[1.0f32])).unwrap_err().code(), Code::PatchMismatch);

    let bytes = new.weights_bytes();
    let again =
        Patch::from_parts(&patch.manifest().to_bytes(), &patch.model().to_bytes(), Some(&bytes))
            .unwrap();
    assert_eq!(again.weights(), new.weights());
    assert_eq!(again.weights_bytes(), bytes);
}

#[test]
fn the_weights_of_an_attachment_are_inputs() {
    let case = case("network-13");
    let patch = affine("style", digest(&case), &[(Mode::Series, "relu1", "relu1", None)], 2.0, 0.5);
    let model = patch.attachment_model(0).unwrap();
    let names: Vec<&str> = model.graph.inputs.iter().map(|info| info.name.as_str()).collect();
    assert_eq!(names, ["x0", "gain", "bias"]);
    let shapes = [("x0", vec![1, 1, 1, 2])].map(|(name, shape)| (name.to_owned(), shape)).into();
    let program = Program::compile(&model, &shapes).unwrap();
    let inputs = [
        Value::f32(&[1, 1, 1, 2], &[1.0, -1.0]),
        Value::f32(&[1], &[3.0]),
        Value::f32(&[1], &[0.25]),
    ];
    let outputs = program.run_ordered(&inputs.map(Result::unwrap)).unwrap();
    assert_eq!(outputs[0].f32s().unwrap(), [3.25, -2.75]);
}

#[test]
fn a_manifest_with_unknown_keys_is_refused() {
    let case = case("network-13");
    let patch = affine("style", digest(&case), &[(Mode::Series, "relu1", "relu1", None)], 1.0, 0.0);
    let text = String::from_utf8(patch.manifest().to_bytes()).unwrap();
    assert_eq!(&Manifest::from_bytes(text.as_bytes()).unwrap(), patch.manifest());
    for (from, to) in
        [("\"format\": 1", "\"format\": 2"), ("\"function\"", "\"funktion\""), ("style", "Style!")]
    {
        let error = Manifest::from_bytes(text.replace(from, to).as_bytes()).unwrap_err();
        assert_eq!(error.code(), Code::ManifestInvalid, "{from}");
    }
}

#[test]
fn stitched_nodes_have_names_of_their_own_or_none() {
    let mut case = case("network-13");
    // A node of the primary that is called as one of the patch will be.
    case.model.graph.nodes[0].name = "twice/scaling".to_owned();
    let attachments =
        [(Mode::Series, "relu1", "relu1", None), (Mode::Series, "relu3", "relu3", None)];
    let unnamed = affine("unnamed", digest(&case), &attachments, 1.5, 0.5);
    let mut graph = affine("twice", digest(&case), &attachments, 1.5, 0.5);
    let mut model = graph.model().clone();
    model.graph.nodes.iter_mut().for_each(|node| node.name = "scaling".to_owned());
    graph = Patch::from_parts(&graph.manifest().to_bytes(), &model.to_bytes(), None).unwrap();
    let stitched = stitch(&case.model, &[&unnamed, &graph]).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for node in stitched.graph.nodes.iter().filter(|node| !node.name.is_empty()) {
        assert!(seen.insert(&node.name), "two nodes are named `{}`", node.name);
        assert_ne!(node.name, "unnamed/", "an unnamed node got a name");
    }
}
