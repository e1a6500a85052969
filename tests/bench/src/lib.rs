//! The engine and the client's parts, one by one, for the bench page (`tests/bench/README.md`).

#![cfg(target_arch = "wasm32")]

mod stitching;
mod training;
mod uncut;

use std::fmt::Display;

use wasm_bindgen::JsError;
use wasm_bindgen::prelude::wasm_bindgen;

pub use stitching::Stitching;
pub use training::Training;
pub use uncut::Uncut;

/// Panics are printed with their place; the kernels are proven before anything is timed.
#[wasm_bindgen(start)]
pub fn start() -> Result<(), JsError> {
    console_error_panic_hook::set_once();
    backstitch_onnx::engine::self_test().map_err(thrown)
}

fn thrown(error: impl Display) -> JsError {
    JsError::new(&error.to_string())
}
