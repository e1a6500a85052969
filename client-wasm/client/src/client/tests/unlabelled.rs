//! Adapting without answers, on real pictures of low contrast.

use std::io::Read as _;

use backstitch_onnx::patch::{Kind, Template, template};

use super::*;

/// What is left of the contrast.
const CONTRAST: f32 = 0.15;

/// A gzipped IDX file behind its header.
fn body(file: &str, header: usize) -> Vec<u8> {
    let zipped = std::fs::File::open(Fashion::folder().join("data").join(file)).unwrap();
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(zipped).read_to_end(&mut bytes).unwrap();
    bytes[header..].to_vec()
}

/// The first test pictures of Fashion-MNIST as a dim camera sees them, with their classes.
fn dim() -> Vec<(Input, usize)> {
    let classes = body("test-labels-idx1-ubyte.gz", 8).into_iter().map(usize::from);
    let picture = |bytes: &[u8]| {
        let values = bytes.iter().map(|b| CONTRAST * f32::from(*b) / 255.0).collect();
        Input::tensor(vec![28, 28], values).unwrap()
    };
    let pixels = body("test-images-idx3-ubyte.gz", 16);
    pixels.chunks_exact(784).map(picture).zip(classes).take(400).collect()
}

/// Adds a gain and a bias at the picture to the server's library.
fn with_exposure(server: &Rc<RefCell<Server>>, loss: &str) {
    let kind = Template {
        kind: Kind::Affine,
        name: "exposure",
        sites: &["image"],
        rank: 1,
        classes: None,
    };
    let patch = template(&files().primary, files().digest, &kind).unwrap();
    let mut manifest = serde_json::to_value(patch.manifest()).unwrap();
    manifest["training"] = serde_json::json!({"loss": loss, "learning_rate": 0.01, "batch": 32,
        "epochs": 12, "clip_norm": 1.0, "optimizer": "adam"});
    let mut server = server.borrow_mut();
    let entry = PatchEntry {
        name: name("exposure"),
        version: 1,
        aliases: vec!["champion".to_owned()],
        manifest: server.blob(&serde_json::to_vec(&manifest).unwrap()),
        graph: server.blob(&patch.model().to_bytes()),
        weights: None,
    };
    server.catalog.patches.push(entry);
}

fn right(client: &Client<MemoryPort>, pictures: &[(Input, usize)], weights: WeightChoice) -> usize {
    let choice = Choice::Named(vec![name("exposure")]);
    let options = RunOptions { choice, weights, ..RunOptions::default() };
    let right = |(input, class): &&(Input, usize)| {
        let result = block_on(client.run(input, &options, &|| false)).unwrap();
        result.top[0].index == *class
    };
    pictures.iter().filter(right).count()
}

fn adapt(
    client: &Client<MemoryPort>,
    inputs: &[Input],
) -> Result<crate::report::AdaptReport, Problem> {
    block_on(client.adapt_to(inputs, &TrainOptions::default(), &|| false))
}

#[test]
fn certain_answers_to_dim_pictures_are_more_often_right() {
    let server = Server::new();
    with_exposure(&server, "entropy");
    let port = device(&server, 1);
    let client = open(&port);
    let pictures = dim();
    let (seen, others) = pictures.split_at(200);
    let inputs: Vec<Input> = seen.iter().map(|(input, _)| input.clone()).collect();
    let shared = client.live().slot(&name("exposure")).unwrap().shared.patch.weights_digest();
    let before = right(&client, others, WeightChoice::Best);
    let report = adapt(&client, &inputs).unwrap();
    assert!(report.in_use && report.after.entropy < report.before.entropy, "{report:?}");
    assert!(report.after.variety >= 0.95 * report.before.variety, "{report:?}");
    let after = right(&client, others, WeightChoice::Best);
    println!("{before} of {} dim pictures right before, {after} after: {report:?}", others.len());
    assert!(after >= before + 6, "{before} to {after}: {report:?}");
    // The shared weights are as they were, here and in the next visit, and nothing was sent.
    assert_eq!(right(&client, others, WeightChoice::Shared), before);
    let again = open(&port);
    let slot = again.live().slot(&name("exposure")).unwrap().clone();
    assert_eq!(slot.shared.patch.weights_digest(), shared);
    assert_ne!(slot.personal.unwrap().version.patch.weights_digest(), shared);
    assert_eq!(right(&again, others, WeightChoice::Best), after);
    assert!(port.requests.borrow().iter().all(|request| request.method == Method::Get));
    block_on(again.forget()).unwrap();
    assert_eq!(right(&again, others, WeightChoice::Best), before);
}

#[test]
fn only_what_allows_it_adapts_and_only_to_enough_inputs() {
    let inputs: Vec<Input> = (0..10).map(|seed| picture(seed, 0.2)).collect();
    let server = Server::new();
    let client = open(&device(&server, 1));
    assert!(adapt(&client, &inputs).unwrap_err().is(Code::NothingToContribute));
    let style = TrainOptions { patches: Some(vec![name("personal-style")]), ..Default::default() };
    let refused = block_on(client.adapt_to(&inputs, &style, &|| false)).unwrap_err();
    assert!(refused.is(Code::PatchUnknown) && refused.hint().unwrap().contains("entropy"));
    with_exposure(&server, "entropy");
    let client = open(&device(&server, 1));
    assert!(adapt(&client, &inputs[..7]).unwrap_err().is(Code::InputInvalid));
    // Slow enough to look up between two steps.
    client.port().tick_ms.set(10.0);
    let cancelled = block_on(client.adapt_to(&inputs, &TrainOptions::default(), &|| true));
    assert!(cancelled.unwrap_err().is(Code::Aborted));
    assert!(client.live().slot(&name("exposure")).unwrap().personal.is_none());
}
