//! In a worker of a real browser: the same numbers as natively, and typed errors.

#![cfg(target_arch = "wasm32")]
#![allow(clippy::unwrap_used, reason = "a failed step of a test ends it")]

use std::collections::BTreeSet;
use std::sync::Arc;

use backstitch_client::examples::{Example, Target};
use backstitch_client::residence::Residence;
use backstitch_client::session::{Compiled, Plan, Session, Stitched};
use backstitch_client::training::{Activation, Descent, Pace, Trainer};
use backstitch_client_wasm::{Client, analyse};
use backstitch_onnx::patch::Patch;
use backstitch_onnx::{Digest, Model, Tensor, Value};
use base64::Engine as _;
use js_sys::{Object, Reflect};
use wasm_bindgen::JsValue;
use wasm_bindgen_test::{wasm_bindgen_test, wasm_bindgen_test_configure};

#[path = "../client/tests/fingerprint/mod.rs"]
mod fingerprint;

wasm_bindgen_test_configure!(run_in_dedicated_worker);

macro_rules! fashion {
    ($path:literal) => {
        include_bytes!(concat!("../../onnx/models/fashion/", $path)).as_slice()
    };
}

fn golden(bytes: &[u8]) -> serde_json::Value {
    serde_json::from_slice(bytes).unwrap()
}

fn tensor(value: &serde_json::Value) -> Vec<f32> {
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(value["base64"].as_str().unwrap())
        .unwrap();
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

fn session() -> Session {
    session_in(&Arc::default())
}

fn session_in(residence: &Arc<Residence>) -> Session {
    let file = fashion!("primary.onnx");
    let sites: BTreeSet<String> = ["image", "features", "logits"].map(str::to_owned).into();
    let model = Model::from_bytes(file).unwrap();
    Session::compile_in(residence, model, Digest::of(file), "image", "logits", &sites).unwrap()
}

fn patches() -> Vec<Patch> {
    let parts = [
        (
            fashion!("patches/noise-reduction/patch.json"),
            fashion!("patches/noise-reduction/patch.onnx"),
        ),
        (fashion!("patches/low-contrast/patch.json"), fashion!("patches/low-contrast/patch.onnx")),
        (
            fashion!("patches/personal-style/patch.json"),
            fashion!("patches/personal-style/patch.onnx"),
        ),
    ];
    parts.iter().map(|(m, g)| Patch::from_parts(m, g, None).unwrap()).collect()
}

fn with_parameters(patch: &Patch, parameters: &serde_json::Value) -> Patch {
    let tensors = patch.weights().into_iter().map(|(name, old)| {
        let values = tensor(&parameters[&name]);
        (name, Tensor::new(old.shape().to_vec(), &values).unwrap())
    });
    patch.with_weights(tensors.collect()).unwrap()
}

fn close(got: &[f32], want: &[serde_json::Value], absolute: f64, relative: f64) {
    assert_eq!(got.len(), want.len());
    for (got, want) in got.iter().zip(want) {
        let want = want.as_f64().unwrap();
        assert!(
            (f64::from(*got) - want).abs() <= absolute + relative * want.abs(),
            "{got}, not {want}"
        );
    }
}

#[wasm_bindgen_test]
fn the_kernels_are_there() {
    backstitch_onnx::engine::self_test().unwrap();
}

#[wasm_bindgen_test]
fn every_mixture_of_patches_gives_the_golden_answers() {
    check_golden_answers(&Arc::default());
}

#[wasm_bindgen_test]
fn without_memory_for_more_than_one_program_the_answers_are_the_same() {
    let none = Arc::new(Residence::within(0));
    check_golden_answers(&none);
    let kept = none.occupancy();
    // Every program of every run but the one that has just run.
    assert!(kept.held <= 1 && kept.dropped > 10, "{kept:?}");
}

fn check_golden_answers(residence: &Arc<Residence>) {
    let golden = golden(fashion!("golden/forward.json"));
    let (session, mut patches) = (session_in(residence), patches());
    patches[2] = with_parameters(&patches[2], &golden["personal_style_parameters"]);
    let stitched: Vec<Stitched> = patches
        .iter()
        .map(|patch| {
            let compiled = Compiled::new(&session, patch).unwrap();
            let weights = compiled.weights(&session, patch).unwrap();
            let name = patch.manifest().name.clone();
            Stitched { name, compiled: Arc::new(compiled), weights: Arc::new(weights) }
        })
        .collect();
    for case in golden["stitched"].as_array().unwrap() {
        let names = case["patches"].as_array().unwrap();
        let chosen: Vec<Stitched> = stitched
            .iter()
            .filter(|s| names.iter().any(|n| n == s.name.as_str()))
            .cloned()
            .collect();
        let compiled: Vec<&Compiled> = chosen.iter().map(|s| &*s.compiled).collect();
        let plan = Plan::of(&session, &compiled).unwrap();
        let wanted = case["logits"]["values"].as_array().unwrap();
        for (image, wanted) in
            tensor(&golden["image"]).chunks_exact(784).zip(wanted.chunks_exact(10))
        {
            let input = Value::f32(&[1, 1, 28, 28], image).unwrap();
            let ran = session.run(&plan, &chosen, &input, None, &|| 0.0).unwrap();
            close(ran.output.f32s().unwrap(), wanted, 1e-4, 1e-4);
        }
    }
}

#[wasm_bindgen_test]
fn one_training_step_follows_the_golden_gradient() {
    let golden = golden(fashion!("golden/gradient.json"));
    let (session, patches) = (session(), patches());
    let patch = with_parameters(&patches[2], &golden["parameters"]);
    let trainer = Arc::new(Trainer::compile(&session, &[&patch]).unwrap());
    let targets = golden["target"].as_array().unwrap();
    let images = tensor(&golden["image"]);
    let examples: Vec<Arc<Activation>> = images
        .chunks_exact(784)
        .zip(targets)
        .map(|(values, target)| {
            let target = Target::Class(target.as_u64().unwrap() as usize);
            let example =
                Example { id: 0, shape: vec![1, 1, 28, 28], values: values.to_vec(), target };
            Arc::new(trainer.activate(&example).unwrap())
        })
        .collect();
    let before = trainer.weights_of(&[&patch]).unwrap();
    let pace = Pace { epochs: 1, seed: 0 };
    let mut descent = Descent::start(trainer.clone(), examples, before.clone(), pace).unwrap();
    let loss = descent.step().unwrap().unwrap();
    assert!((f64::from(loss) - golden["loss"].as_f64().unwrap()).abs() < 1e-4);
    let rate = trainer.training().learning_rate;
    for ((name, before), after) in patch.weights().keys().zip(&before).zip(descent.weights()) {
        let slope: Vec<f32> = before.iter().zip(after).map(|(b, a)| (b - a) / rate).collect();
        close(&slope, golden["gradients"][name]["values"].as_array().unwrap(), 1e-5, 1e-3);
    }
}

#[wasm_bindgen_test]
fn clipping_and_framing_are_bit_equal_to_native() {
    assert_eq!(fingerprint::of_many_clipped_updates(), fingerprint::EXPECTED);
}

fn code(error: &JsValue) -> String {
    Reflect::get(error, &"code".into()).unwrap().as_string().unwrap()
}

#[wasm_bindgen_test]
async fn errors_are_thrown_with_their_code() {
    let open = |url: &str| Client::open(url.to_owned(), JsValue::UNDEFINED, JsValue::UNDEFINED);
    assert_eq!(code(&open("nonsense").await.err().unwrap()), "input_invalid");
    let absent = open("http://127.0.0.1:9/v1/libraries/fashion").await.err().unwrap();
    assert_eq!(code(&absent), "network_failed");
    assert!(!Reflect::get(&absent, &"hint".into()).unwrap().is_null());
}

#[wasm_bindgen_test]
fn an_input_is_measured_without_a_client() {
    let object = |pairs: &[(&str, JsValue)]| -> JsValue {
        let object = Object::new();
        pairs.iter().for_each(|(name, value)| {
            assert!(Reflect::set(&object, &(*name).into(), value).unwrap())
        });
        object.into()
    };
    let preprocessing =
        object(&[("width", 28.into()), ("height", 28.into()), ("channels", 1.into())]);
    let grey = js_sys::Uint8ClampedArray::new_with_length(4 * 30 * 20);
    grey.fill(255, 0, 4 * 30 * 20);
    let image = object(&[("data", grey.into()), ("width", 30.into()), ("height", 20.into())]);
    let features = analyse(object(&[("image", image)]), preprocessing.clone()).unwrap();
    let brightness = Reflect::get(&features, &"image.brightness".into()).unwrap().as_f64().unwrap();
    assert!((0.6..0.7).contains(&brightness), "{brightness}");
    let wrong = object(&[(
        "image",
        object(&[("data", JsValue::NULL), ("width", 1.into()), ("height", 1.into())]),
    )]);
    assert_eq!(code(&analyse(wrong, preprocessing).unwrap_err()), "input_invalid");
}
