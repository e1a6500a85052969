//! Training one patch of a stitched primary.

use std::sync::Arc;

use backstitch_client::examples::{Example, Target};
use backstitch_client::training::{Activation, Descent, Pace, Trainer};
use backstitch_onnx::stitch::stitch;
use backstitch_onnx::{Dims, Program, Value};
use wasm_bindgen::JsError;
use wasm_bindgen::prelude::wasm_bindgen;

use crate::stitching::Stitching;
use crate::thrown;

/// More steps than a bench takes.
const EPOCHS: usize = 1_000_000;

/// A training in progress, and the forward part alone of what it differentiates.
#[wasm_bindgen]
#[derive(Debug)]
pub struct Training {
    descent: Descent,
    forward: Program,
    fed: Value,
}

#[wasm_bindgen]
impl Training {
    /// Trains the patch of this index on one batch of pictures. `border` is the tensor up to which everything is frozen.
    #[wasm_bindgen(constructor)]
    pub fn new(
        stitching: &Stitching,
        index: usize,
        border: &str,
        images: &[f32],
        labels: &[u32],
    ) -> Result<Training, JsError> {
        let session = &stitching.session;
        let patch = stitching.patches.get(index).ok_or_else(|| thrown("no such patch"))?;
        let trainer = Arc::new(Trainer::compile(session, &[patch]).map_err(thrown)?);
        let (_, shape) = session.input();
        let pixels = shape.iter().product();
        let examples = images.chunks_exact(pixels).zip(labels).map(|(values, label)| {
            let target = Target::Class(*label as usize);
            let example = Example { id: 0, shape: shape.to_vec(), values: values.to_vec(), target };
            trainer.activate(&example).map(Arc::new)
        });
        let examples: Vec<Arc<Activation>> = examples.collect::<Result<_, _>>().map_err(thrown)?;
        let weights = trainer.weights_of(&[patch]).map_err(thrown)?;
        let pace = Pace { epochs: EPOCHS, seed: 1 };
        let descent = Descent::start(trainer, examples, weights, pace).map_err(thrown)?;
        let whole = stitch(session.model(), &[patch]).map_err(thrown)?;
        let suffix = whole.extract(&[border], &[session.output().0]).map_err(thrown)?;
        let mut batch = session
            .shapes()
            .get(border)
            .map(|(_, shape)| shape.clone())
            .ok_or_else(|| thrown(border))?;
        batch[0] = labels.len();
        let random: Vec<f32> =
            images.iter().cycle().take(batch.iter().product()).copied().collect();
        let fed = Value::f32(&batch, &random).map_err(thrown)?;
        let dims = Dims::from([(border.to_owned(), batch)]);
        let forward = Program::compile(&suffix, &dims).map_err(thrown)?;
        Ok(Self { descent, forward, fed })
    }

    /// One step on the whole batch; yields its loss.
    pub fn step(&mut self) -> Result<f32, JsError> {
        self.descent.step().map_err(thrown)?.ok_or_else(|| thrown("all steps are taken"))
    }

    /// Forward of the whole batch through the trained part.
    pub fn forward(&self) -> Result<f32, JsError> {
        let outputs = self.forward.run_ordered(std::slice::from_ref(&self.fed)).map_err(thrown)?;
        let first = outputs.first().ok_or_else(|| thrown("no output"))?;
        Ok(first.f32s().map_err(thrown)?.iter().sum())
    }
}
