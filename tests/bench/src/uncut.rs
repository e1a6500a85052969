//! A whole model, run as it is.

use std::collections::BTreeMap;

use backstitch_onnx::{Dims, Model, Program, Value};
use wasm_bindgen::JsError;
use wasm_bindgen::prelude::wasm_bindgen;

use crate::thrown;

/// A model compiled for the shapes of its inputs.
#[wasm_bindgen]
#[derive(Debug)]
pub struct Uncut {
    model: Model,
    feeds: BTreeMap<String, Value>,
    program: Option<Program>,
}

#[wasm_bindgen]
impl Uncut {
    /// Reads a file.
    #[wasm_bindgen(constructor)]
    pub fn new(file: &[u8]) -> Result<Uncut, JsError> {
        let model = Model::from_bytes(file).map_err(thrown)?;
        Ok(Self { model, feeds: BTreeMap::new(), program: None })
    }

    /// Keeps only this output.
    pub fn only(&mut self, output: &str) -> Result<(), JsError> {
        let inputs: Vec<&str> =
            self.model.graph.inputs.iter().map(|info| info.name.as_str()).collect();
        self.model = self.model.extract(&inputs, &[output]).map_err(thrown)?;
        Ok(())
    }

    /// Sets an input of floats.
    pub fn feed_f32(&mut self, name: &str, shape: &[u32], values: &[f32]) -> Result<(), JsError> {
        self.feed(name, Value::f32(&sizes(shape), values))
    }

    /// Sets an input of 64-bit integers.
    pub fn feed_i64(&mut self, name: &str, shape: &[u32], values: &[i64]) -> Result<(), JsError> {
        self.feed(name, Value::i64(&sizes(shape), values))
    }

    /// Compiles for the inputs that were set.
    pub fn compile(&mut self) -> Result<(), JsError> {
        let shape = |(name, value): (&String, &Value)| (name.clone(), value.shape().to_vec());
        let dims: Dims = self.feeds.iter().map(shape).collect();
        self.program = Some(Program::compile(&self.model, &dims).map_err(thrown)?);
        Ok(())
    }

    /// Runs; yields the first output.
    pub fn run(&self) -> Result<Vec<f32>, JsError> {
        let program = self.program.as_ref().ok_or_else(|| thrown("compile first"))?;
        let feed = |name: &str| self.feeds.get(name).cloned().ok_or_else(|| thrown(name));
        let inputs = program.input_names().map(feed).collect::<Result<Vec<_>, _>>()?;
        let outputs = program.run_ordered(&inputs).map_err(thrown)?;
        let first = outputs.first().ok_or_else(|| thrown("the model has no output"))?;
        Ok(first.f32s().map_err(thrown)?.to_vec())
    }

    fn feed(&mut self, name: &str, value: backstitch_onnx::Result<Value>) -> Result<(), JsError> {
        self.feeds.insert(name.to_owned(), value.map_err(thrown)?);
        Ok(())
    }
}

pub(crate) fn sizes(shape: &[u32]) -> Vec<usize> {
    shape.iter().map(|size| *size as usize).collect()
}
