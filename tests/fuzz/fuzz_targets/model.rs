//! Model bytes are read or refused in words. What was read is written to bytes that read the same; declaring shapes,
//! counting costs, cutting and differentiating it fail in words too.
#![no_main]

use backstitch_fuzz::forgive_the_engine;
use backstitch_onnx::Model;
use backstitch_onnx::autodiff::{Loss, Objective, differentiate};
use backstitch_onnx::cost::cost;
use backstitch_onnx::cut::cut;
use backstitch_onnx::engine::{Dims, Shapes};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    forgive_the_engine();
    let Ok(model) = Model::from_bytes(bytes) else { return };
    let written = model.to_bytes();
    let again = Model::from_bytes(&written).expect("what was written reads");
    // NaN breaks equality of values, not of bytes.
    assert_eq!(again.to_bytes(), written, "writing is not stable");
    work(&model);
});

/// What the tools do with any model; shapes come from the engine, so small hostile graphs reach it too.
fn work(model: &Model) {
    let _ = cost(model, &Shapes::new());
    for name in model.graph.tensor_names().into_iter().take(4) {
        if let Ok(segments) = cut(model, &[name]) {
            assert!(segments.len() <= 2, "one site makes at most two segments");
        }
    }
    let floats = model.graph.initializers.iter().filter(|(_, tensor)| tensor.dtype().is_float());
    let trainable: Vec<&str> = floats.map(|(name, _)| name.as_str()).take(2).collect();
    if let (Some(output), false) = (model.graph.outputs.first(), trainable.is_empty()) {
        let objective =
            Objective { loss: Loss::MeanSquaredError, output: &output.name, trainable: &trainable };
        let _ = differentiate(model, &objective, &Dims::new());
    }
}
