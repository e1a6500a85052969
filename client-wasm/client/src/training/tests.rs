//! Training on the sample library: against the golden gradient, determinism, divergence, and what it is for.

use std::sync::Arc;

use backstitch_onnx::patch::{Kind, Patch, Template, template};
use backstitch_onnx::{Attribute, DType, Digest, Dim, Graph, Model, Node, Tensor, ValueInfo};
use backstitch_protocol::problem::Code;
use base64::Engine as _;

use super::*;
use crate::examples::{Example, Target};
use crate::session::Session;
use crate::test_library::{Fashion, Library, tiny};

fn session(library: &Library, output: &str, patch: &Patch) -> Session {
    let sites = patch.manifest().attachments.iter();
    let sites =
        sites.flat_map(|a| a.inputs.values().cloned().chain([a.site().to_owned()])).collect();
    let input = library.primary.graph.inputs[0].name.clone();
    Session::compile(library.primary.clone(), library.digest, &input, output, &sites).unwrap()
}

fn style() -> (Library, Arc<Trainer>) {
    let library = Fashion::load();
    let session = session(&library, "logits", &library.patches[2]);
    let trainer = Trainer::compile(&session, &[&library.patches[2]]).unwrap();
    (library, Arc::new(trainer))
}

fn tensor(value: &serde_json::Value) -> Vec<f32> {
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(value["base64"].as_str().unwrap())
        .unwrap();
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

fn golden() -> serde_json::Value {
    let text = std::fs::read(Fashion::folder().join("golden/gradient.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

fn golden_examples(trainer: &Trainer) -> Vec<Arc<Activation>> {
    let golden = golden();
    let targets = golden["target"].as_array().unwrap();
    let images = tensor(&golden["image"]);
    let example = |(i, values): (usize, &[f32])| Example {
        id: i as u64,
        shape: vec![1, 1, 28, 28],
        values: values.to_vec(),
        target: Target::Class(targets[i].as_u64().unwrap() as usize),
    };
    images
        .chunks_exact(784)
        .enumerate()
        .map(|e| Arc::new(trainer.activate(&example(e)).unwrap()))
        .collect()
}

#[test]
fn a_short_batch_has_the_golden_gradient() {
    let (_, trainer) = style();
    let (golden, examples) = (golden(), golden_examples(&trainer));
    let names: Vec<&str> = trainer.parameters.iter().map(|p| p.name.as_str()).collect();
    let weights: Vec<Vec<f32>> = names.iter().map(|n| tensor(&golden["parameters"][n])).collect();
    let batch: Vec<&Activation> = examples.iter().map(|e| &**e).collect();
    assert!(batch.len() < trainer.batch);
    assert!(batch.iter().all(|activation| activation.bytes() == trainer.activation_bytes()));
    let (loss, gradients) = trainer.gradient(&batch, &weights).unwrap();
    assert!((f64::from(loss) - golden["loss"].as_f64().unwrap()).abs() < 1e-4, "{loss}");
    assert!((trainer.score(&batch, &weights).unwrap().loss - f64::from(loss)).abs() < 1e-5);
    for (name, gradient) in names.iter().zip(&gradients) {
        let expected = golden["gradients"][name]["values"].as_array().unwrap();
        for (got, want) in gradient.f32s().unwrap().iter().zip(expected) {
            let want = want.as_f64().unwrap();
            assert!(
                (f64::from(*got) - want).abs() <= 1e-5 + 1e-4 * want.abs(),
                "{name}: {got}, not {want}"
            );
        }
    }
}

fn train(trainer: &Arc<Trainer>, patch: &Patch, seed: u64) -> (Vec<Vec<f32>>, Score, Score) {
    let examples = golden_examples(trainer);
    let all: Vec<&Activation> = examples.iter().map(|e| &**e).collect();
    let start = trainer.weights_of(&[patch]).unwrap();
    let before = trainer.score(&all, &start).unwrap();
    let pace = Pace { epochs: 30, seed };
    let mut descent = Descent::start(trainer.clone(), examples.clone(), start, pace).unwrap();
    assert_eq!(descent.steps(), 30);
    while descent.step().unwrap().is_some() {}
    let weights = descent.weights().to_vec();
    let after = trainer.score(&all, &weights).unwrap();
    (weights, before, after)
}

#[test]
fn training_learns_and_is_deterministic() {
    let (library, trainer) = style();
    let patch = &library.patches[2];
    let (weights, before, after) = train(&trainer, patch, 1);
    assert!(after.loss < 0.7 * before.loss, "{before:?} {after:?}");
    assert_eq!(train(&trainer, patch, 1).0, weights);
    let trained = trainer.apply(patch, &weights).unwrap();
    assert_eq!(trainer.weights_of(&[&trained]).unwrap(), weights);
    assert_ne!(trained.weights_digest(), patch.weights_digest());
}

#[test]
fn a_fixed_batch_of_one_trains_too_with_other_losses() {
    let library = tiny();
    let patch = library.patches.iter().find(|p| p.manifest().name == "two-places").unwrap();
    let session = session(&library, "out", patch);
    let trainer = Arc::new(Trainer::compile(&session, &[patch]).unwrap());
    let example = |id: u64, value: f32| {
        let target = Target::Values(vec![0.5; 4]);
        trainer
            .activate(&Example { id, shape: vec![1, 4], values: vec![value; 4], target })
            .unwrap()
    };
    let examples = vec![Arc::new(example(0, 0.3)), Arc::new(example(1, -0.2))];
    let all: Vec<&Activation> = examples.iter().map(|e| &**e).collect();
    let start = trainer.weights_of(&[patch]).unwrap();
    let before = trainer.score(&all, &start).unwrap();
    let mut descent =
        Descent::start(trainer.clone(), examples.clone(), start, Pace { epochs: 20, seed: 0 })
            .unwrap();
    while descent.step().unwrap().is_some() {}
    assert!(trainer.score(&all, descent.weights()).unwrap().loss < before.loss);
}

#[test]
fn divergence_bad_targets_and_no_examples_are_typed() {
    let (library, trainer) = style();
    let examples = golden_examples(&trainer);
    let mut weights = trainer.weights_of(&[&library.patches[2]]).unwrap();
    let pace = Pace { epochs: 1, seed: 0 };
    let none = Descent::start(trainer.clone(), vec![], weights.clone(), pace).unwrap_err();
    assert!(none.is(Code::NothingToContribute));
    weights[1].fill(f32::MAX);
    let mut descent = Descent::start(trainer.clone(), examples, weights, pace).unwrap();
    assert!(descent.step().unwrap_err().is(Code::TrainingDiverged));
    let example =
        |target| Example { id: 0, shape: vec![1, 1, 28, 28], values: vec![0.0; 784], target };
    for target in [Target::Class(10), Target::Values(vec![0.0; 10])] {
        assert!(trainer.activate(&example(target)).unwrap_err().is(Code::InputInvalid));
    }
}

#[test]
fn a_loss_of_another_tensor_takes_one_number_for_all_of_it() {
    let library = Fashion::load();
    let mut manifest: serde_json::Value = serde_json::from_slice(&library.parts[2].0).unwrap();
    let trainer = |manifest: &serde_json::Value| {
        let manifest = serde_json::to_vec(manifest).unwrap();
        let patch = Patch::from_parts(&manifest, &library.parts[2].1, None).unwrap();
        let session = session(&library, "logits", &patch);
        Trainer::compile(&session, &[&patch]).map(|trainer| (trainer, patch))
    };
    let example =
        |target| Example { id: 0, shape: vec![1, 1, 28, 28], values: vec![0.5; 784], target };
    manifest["training"]["loss"] = "mean_squared_error".into();
    let (whole, _) = trainer(&manifest).unwrap();
    let one = Target::Values(vec![0.5]);
    assert!(whole.activate(&example(one.clone())).unwrap_err().is(Code::InputInvalid));
    manifest["training"]["output"] = "logits".into();
    let (spread, patch) = trainer(&manifest).unwrap();
    let each = spread.activate(&example(Target::Values(vec![0.5; 10]))).unwrap();
    let one = spread.activate(&example(one)).unwrap();
    let weights = spread.weights_of(&[&patch]).unwrap();
    let loss = spread.score(&[&each], &weights).unwrap().loss;
    assert!(loss > 0.1 && !spread.names_classes());
    assert_eq!(loss, spread.score(&[&one], &weights).unwrap().loss);
    assert_eq!(
        spread.gradient(&[&one], &weights).unwrap().0,
        spread.gradient(&[&each], &weights).unwrap().0
    );
    manifest["training"]["output"] = "nowhere".into();
    assert!(trainer(&manifest).is_err());
}

#[test]
fn the_best_class_is_the_first_of_equals() {
    assert_eq!(argmax_of(&[1.0, 3.0, 3.0]), Some(1));
    assert_eq!(argmax_of(&[]), None);
}

fn argmax_of(values: &[f32]) -> Option<usize> {
    argmax(values)
}

#[test]
fn adam_learns_and_the_proximal_term_holds_the_weights_back() {
    let library = Fashion::load();
    let session = session(&library, "logits", &library.patches[2]);
    let trained = |more: serde_json::Value| {
        let mut manifest: serde_json::Value = serde_json::from_slice(&library.parts[2].0).unwrap();
        manifest["training"].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let manifest = serde_json::to_vec(&manifest).unwrap();
        let patch = Patch::from_parts(&manifest, &library.parts[2].1, None).unwrap();
        let trainer = Arc::new(Trainer::compile(&session, &[&patch]).unwrap());
        let (weights, before, after) = train(&trainer, &patch, 1);
        let start = trainer.weights_of(&[&patch]).unwrap();
        let pairs = weights.iter().flatten().zip(start.iter().flatten());
        let moved = pairs.map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt();
        (after.loss / before.loss, moved)
    };
    let (adam, _) = trained(serde_json::json!({"optimizer": "adam", "learning_rate": 0.01}));
    assert!(adam < 0.7, "{adam}");
    let (_, free) = trained(serde_json::json!({}));
    let (_, held) = trained(serde_json::json!({"proximal": 5.0}));
    assert!(held < free, "{held} against {free}");
}

#[test]
fn a_patch_may_learn_from_the_first_classes_only() {
    let library = Fashion::load();
    let patch = |classes: usize| {
        let mut manifest: serde_json::Value = serde_json::from_slice(&library.parts[2].0).unwrap();
        manifest["training"]["classes"] = classes.into();
        Patch::from_parts(&serde_json::to_vec(&manifest).unwrap(), &library.parts[2].1, None)
    };
    let three = patch(3).unwrap();
    let trainer = Trainer::compile(&session(&library, "logits", &three), &[&three]).unwrap();
    assert!(trainer.learns_from(&Target::Class(2)) && !trainer.learns_from(&Target::Class(3)));
    assert!(trainer.learns_from(&Target::Values(vec![0.0; 10])));
    let none = patch(0).unwrap_err();
    assert!(none.to_string().contains("no class"), "{none}");
}

#[test]
fn a_checkpoint_goes_on_bit_by_bit_by_every_rule() {
    let (library, _) = style();
    for optimizer in ["sgd", "adam"] {
        let (manifest, graph) = &library.parts[2];
        let mut manifest: serde_json::Value = serde_json::from_slice(manifest).unwrap();
        manifest["training"]["optimizer"] = optimizer.into();
        manifest["training"]["proximal"] = 0.1.into();
        let manifest = serde_json::to_vec(&manifest).unwrap();
        let patch = Patch::from_parts(&manifest, graph, None).unwrap();
        let session = session(&library, "logits", &patch);
        let trainer = Arc::new(Trainer::compile(&session, &[&patch]).unwrap());
        let examples = golden_examples(&trainer);
        let start = trainer.weights_of(&[&patch]).unwrap();
        let pace = Pace { epochs: 12, seed: 3 };
        let begin = || {
            let (training, judges) = (examples.clone(), examples.clone());
            Course::start(trainer.clone(), training, judges, start.clone(), pace).unwrap()
        };
        let (mut whole, mut parts) = (begin(), begin());
        while whole.step().unwrap().is_some() {}
        let identity = Digest::of(b"this training");
        let mut resumed = 0;
        while parts.step().unwrap().is_some() {
            let bytes = parts.checkpoint(identity, serde_json::Value::Null, 1.5).unwrap();
            let resume = |bytes: &[u8], identity| {
                let (training, judges) = (examples.clone(), examples.clone());
                Course::resume(trainer.clone(), training, judges, bytes, identity)
            };
            assert!(resume(&bytes, Digest::of(b"another")).is_none());
            assert!(resume(&bytes[..bytes.len() - 4], identity).is_none());
            let header;
            (parts, header) = resume(&bytes, identity).unwrap();
            assert_eq!((header.step, header.worked_ms), (parts.losses().len(), 1.5));
            resumed += 1;
        }
        assert_eq!(resumed, 12);
        assert_eq!((parts.weights(), parts.losses()), (whole.weights(), whole.losses()));
    }
}

#[test]
fn arbitrary_bytes_are_no_checkpoint() {
    let mut draws = crate::random::SplitMix::new(5);
    for _ in 0..2000 {
        let length = draws.below(120);
        let body: Vec<u8> = (0..length)
            .map(|_| if draws.below(3) > 0 { 0 } else { draws.next_u64() as u8 })
            .collect();
        let signed = [Digest::of(&body).as_bytes().as_slice(), &body].concat();
        assert!(Header::read(&body).is_none() && Header::read(&signed).is_none());
    }
}

/// The same judgement with every example in a run of its own.
fn one_by_one(trainer: &Trainer, examples: &[&Activation], weights: &[Vec<f32>]) -> Vec<Judged> {
    let one = |example: &&Activation| trainer.judge(&[*example], weights).unwrap()[0];
    examples.iter().map(one).collect()
}

#[test]
fn a_batch_is_judged_as_its_examples_are_one_by_one() {
    let (library, trainer) = style();
    let batch = trainer.batch();
    assert!(batch > 8 && trainer.answer.together.is_some());
    let examples = golden_examples(&trainer);
    let start = trainer.weights_of(&[&library.patches[2]]).unwrap();
    let all: Vec<&Activation> = (0..3 * batch).map(|i| &*examples[i % examples.len()]).collect();
    for count in [0, 1, batch / 4, batch - 1, batch, batch + 1, 2 * batch + batch / 2] {
        let judged = trainer.judge(&all[..count], &start).unwrap();
        let expected = one_by_one(&trainer, &all[..count], &start);
        assert_eq!(judged.len(), count);
        for (got, want) in judged.iter().zip(&expected) {
            assert!((got.loss - want.loss).abs() < 1e-4 * want.loss.abs().max(1.0), "{count}");
            assert_eq!(got.right, want.right, "{count}");
        }
        let shares = trainer.shares(&all[..count], &start).unwrap();
        assert!(shares.iter().all(|s| (s.iter().sum::<f64>() - 1.0).abs() < 1e-9));
    }
    // Not all are the same, so a row that was mistaken for another would show.
    let losses: std::collections::BTreeSet<u64> =
        one_by_one(&trainer, &all, &start).iter().map(|j| (j.loss * 1e6) as u64).collect();
    assert_eq!(losses.len(), examples.len());
}

/// Two series of five moments with the time first inside: `[N, 5, 3]`, transposed to `[5, N, 3]`, changed there by the
/// patch, and read at the last moment.
fn time_first(last: &[Node]) -> (Session, Patch) {
    let info = |name: &str, shape: Option<Vec<Dim>>| ValueInfo {
        name: name.to_owned(),
        dtype: DType::F32,
        shape,
    };
    let rows = |sizes: &[usize]| {
        let fixed = sizes.iter().map(|size| Dim::Fixed(*size));
        Some([Dim::Symbol("N".to_owned())].into_iter().chain(fixed).collect())
    };
    let mut nodes = vec![
        Node::new("Transpose", &["x"], &["turned"]).with("perm", Attribute::Ints(vec![1, 0, 2])),
        Node::new("Tanh", &["turned"], &["site"]),
    ];
    nodes.extend_from_slice(last);
    let graph = Graph {
        nodes,
        initializers: [("last".to_owned(), Tensor::scalar(4i64))].into(),
        inputs: vec![info("x", rows(&[5, 3]))],
        outputs: vec![info("y", None)],
        ..Graph::default()
    };
    let model = Model { opset: 13, graph };
    let digest = Digest::of(&model.to_bytes());
    let kind = Template { kind: Kind::Affine, name: "p", sites: &["site"], rank: 1, classes: None };
    let patch = template(&model, digest, &kind).unwrap();
    (Session::compile(model, digest, "x", "y", &["site".to_owned()].into()).unwrap(), patch)
}

#[test]
fn sites_with_the_time_first_train_one_example_at_a_time() {
    let gather = Node::new("Gather", &["site", "last"], &["y"]);
    let (session, patch) = time_first(&[gather]);
    assert!(patch.manifest().training.as_ref().unwrap().batch > 1);
    let trainer = Arc::new(Trainer::compile(&session, &[&patch]).unwrap());
    assert_eq!(trainer.batch(), 1);
    let example = |class: usize| {
        let values = (0..15).map(|i| if i % 3 == class { 0.5 } else { 0.1 }).collect();
        let (shape, target) = (vec![1, 5, 3], Target::Class((class + 1) % 3));
        Arc::new(trainer.activate(&Example { id: 0, shape, values, target }).unwrap())
    };
    let examples: Vec<Arc<Activation>> = (0..3).map(example).collect();
    let weights = trainer.weights_of(&[&patch]).unwrap();
    let judged: Vec<&Activation> = examples.iter().map(|e| &**e).collect();
    let before = trainer.score(&judged, &weights).unwrap().loss;
    let pace = Pace { epochs: 20, seed: 1 };
    let mut descent = Descent::start(trainer.clone(), examples.clone(), weights, pace).unwrap();
    while descent.step().unwrap().is_some() {}
    let after = trainer.score(&judged, descent.weights()).unwrap().loss;
    assert!(after < before, "{before} {after}");

    // What has the time first to the end has no answer for each example.
    let (session, patch) = time_first(&[Node::new("Identity", &["site"], &["y"])]);
    let refused = Trainer::compile(&session, &[&patch]).unwrap_err();
    assert_eq!(refused.code(), "gradient_unsupported", "{refused}");
}
