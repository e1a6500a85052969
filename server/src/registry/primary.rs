//! What a library says of its primary, held against the model: whether inputs can be fed and answers be named as it
//! says. A library that cannot answer is refused before a page finds out.

use backstitch_onnx::engine::smallest;
use backstitch_onnx::patch::Patch;
use backstitch_onnx::{Dims, Model, Shapes};
use backstitch_protocol::Problem;
use backstitch_protocol::preprocessing::Preprocessing;
use backstitch_protocol::problem::Code;

use super::descriptor::{PrimaryDescriptor, invalid};
use crate::failure::Result;

/// A primary as its library feeds it.
pub(crate) struct Fed {
    /// With the sizes of its input that the preprocessing decides.
    pub(crate) model: Model,
    /// Of its input.
    pub(crate) dims: Dims,
    /// Of all its tensors.
    pub(crate) shapes: Shapes,
}

impl PrimaryDescriptor {
    /// Checks input, preprocessing and answer. The files that the preprocessing names must be blobs by now.
    pub(crate) fn feed(&self, model: Model) -> Result<Fed> {
        let inputs: Vec<&str> = model.graph.inputs.iter().map(|i| i.name.as_str()).collect();
        if inputs != [self.input.as_str()] {
            return Err(invalid(format!(
                "primary.input is `{}`, the model takes {inputs:?}",
                self.input
            ))
            .with_hint("a library's primary has one input, and names it"));
        }
        let model = match Preprocessing::from_json(&self.preprocessing)?.shape() {
            Some(shape) => model.taking(&self.input, &shape).map_err(|e| {
                e.context("library.json: primary.preprocessing")
                    .with_hint("give the size, channels and layout that the model takes")
            })?,
            None if model.graph.inputs[0].is_open() => {
                return Err(invalid(format!(
                    "primary.preprocessing does not say the size of `{}`, which the model leaves open: {}",
                    self.input,
                    model.graph.inputs[0].shape_in_words()
                ))
                .with_hint("give width, height and channels of pictures, window and channels of series"));
            }
            None => model,
        };
        // Patches are checked against the tensors' shapes at the smallest size at which the primary runs.
        let (dims, shapes) = smallest(&model).map_err(|e| e.context(&self.file))?;
        let model = model
            .answering(&self.output, &shapes)
            .map_err(|e| e.context("library.json: primary.output"))?;
        Ok(Fed { model, dims, shapes })
    }

    /// Checks that the labels name the places of the answer: all of them, or the first ones, which a head for so many
    /// classes takes.
    pub(crate) fn check_labels(&self, shapes: &Shapes, patches: &[Patch]) -> Result<()> {
        let Some((_, shape)) = shapes.get(&self.output) else { return Ok(()) };
        let (labels, places) = (self.labels.len(), shape.iter().skip(1).product::<usize>());
        let own = || patches.iter().any(|patch| patch.classes_at(&self.output) == Some(labels));
        if labels == 0 || labels == places || (labels < places && own()) {
            return Ok(());
        }
        Err(Problem::new(
            Code::RequestInvalid,
            format!(
                "library.json: primary.labels names {labels} classes, `{}` has {places} places",
                self.output
            ),
        )
        .with_hint(
            "give a label for each place in order, or none; fewer are the classes of a patch that replaces the answer \
             by a head for so many",
        ))
    }
}
