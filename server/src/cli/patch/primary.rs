//! The primary as training and evaluation see it: the model, its one input, the tensor that answers, and how
//! pictures become its input.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use backstitch_client::preprocessing::{Picture, Preprocessing};
use backstitch_client::session::Session;
use backstitch_onnx::engine::{declare, infer};
use backstitch_onnx::patch::{Patch, check};
use backstitch_onnx::{DType, Digest, Dims, Model, Shapes};
use clap::Args;
use serde_json::{Value as Json, json};

use super::probed::Probed;
use crate::cli::files::{self, Outcome};
use crate::registry::LibraryDescriptor;

/// Which primary, and how to feed and read it.
#[derive(Debug, Args)]
pub(super) struct PrimaryArgs {
    /// The primary model. What a library.json beside it says of its input and output is used.
    #[arg(long, value_name = "FILE.onnx")]
    pub(super) primary: PathBuf,
    /// The tensor that answers, before a final softmax where training is to reach it; the library's or the primary's
    /// first output where it is left out.
    #[arg(long, value_name = "TENSOR")]
    output: Option<String>,
    /// How pictures become the input: JSON, or a file of it, as in a library.json, such as
    /// '{"scale": 1, "mean": [127, 127, 127], "std": [128, 128, 128]}'. Size and channels are the input's.
    #[arg(long, value_name = "JSON")]
    preprocessing: Option<String>,
}

/// A primary that takes one input.
pub(super) struct Primary {
    /// With the answering tensor as its first output.
    pub(super) model: Model,
    pub(super) digest: Digest,
    pub(super) input: String,
    pub(super) dtype: DType,
    /// Of one input.
    pub(super) shape: Vec<usize>,
    pub(super) output: String,
    /// What a client is shown: the same where the model's file has it as an output, or else the file's first output.
    pub(super) shown: String,
    /// Every tensor's shape with a batch of one.
    pub(super) shapes: Shapes,
    /// Names of the classes, where a library tells them.
    pub(super) labels: Vec<String>,
    /// Set where the input is a picture.
    pub(super) picture: Option<Picture>,
    /// Set where they were asked for and the library has some.
    pub(super) probed: Option<Probed>,
}

impl PrimaryArgs {
    pub(super) fn read(&self) -> Outcome<Primary> {
        let (model, digest) = files::read_model(&self.primary)?;
        let library = library_of(&self.primary)?;
        let [input] = model.graph.inputs.as_slice() else {
            return Err(format!(
                "the primary has {} inputs; training and evaluation feed one",
                model.graph.inputs.len()
            )
            .into());
        };
        let (input, dtype) = (input.name.clone(), input.dtype);
        let first = model.graph.outputs.first().map(|o| o.name.clone());
        let told = library.as_ref().map(|l| l.primary.output.clone());
        let output =
            self.output.clone().or(told).or(first.clone()).ok_or("the primary has no output")?;
        let shown = match (model.graph.output(&output), first) {
            (None, Some(first)) => first,
            _ => output.clone(),
        };
        let model = with_output(model, &output)?;
        let shapes = infer(&model, &Dims::new())?;
        let shape = shapes.get(&input).map(|(_, shape)| shape.clone()).unwrap_or_default();
        let described = library.as_ref().map(|l| l.primary.preprocessing.clone());
        let picture = self.picture(described, &shape)?;
        let labels = library.map(|l| l.primary.labels).unwrap_or_default();
        Ok(Primary {
            model,
            digest,
            input,
            dtype,
            shape,
            output,
            shown,
            shapes,
            labels,
            picture,
            probed: None,
        })
    }

    /// The same with the probes of its library, which selectors may ask.
    pub(super) fn read_with_probes(&self) -> Outcome<Primary> {
        let mut primary = self.read()?;
        if let Some(library) = library_of(&self.primary)? {
            primary.probed = Probed::read(&self.primary, &library, &primary)?;
        }
        Ok(primary)
    }

    /// Size, channels and layout are the input's, the rest is the library's or what `--preprocessing` says.
    fn picture(&self, library: Option<Json>, shape: &[usize]) -> Outcome<Option<Picture>> {
        let given = match &self.preprocessing {
            Some(text) if text.trim_start().starts_with('{') => Some(text.clone().into_bytes()),
            Some(path) => Some(files::read(Path::new(path))?),
            None => None,
        };
        let given: Option<Json> = given
            .map(|bytes| serde_json::from_slice(&bytes))
            .transpose()
            .map_err(|e| format!("--preprocessing: {e}"))?;
        let sized = match *shape {
            [1, c @ (1 | 3), height, width] => {
                json!({ "width": width, "height": height, "channels": c })
            }
            [1, height, width, c @ (1 | 3)] => {
                json!({ "width": width, "height": height, "channels": c, "layout": "nhwc" })
            }
            _ => Json::Null,
        };
        let Json::Object(mut whole) = sized else {
            return match given {
                None => Ok(None),
                Some(_) => Err(format!(
                    "--preprocessing is for pictures; the input has the shape {shape:?}"
                )
                .into()),
            };
        };
        if let Some(Json::Object(more)) = given.or(library) {
            whole.extend(more);
        }
        match Preprocessing::from_json(&Json::Object(whole))? {
            Preprocessing::Picture(picture) => Ok(Some(picture)),
            _ => Ok(None),
        }
    }
}

impl Primary {
    /// The shape of one input whose dimensions are known but for those of size 1. Refuses another shape.
    pub(super) fn shape_like(&self, given: &[usize]) -> Outcome<Vec<usize>> {
        let significant =
            |s: &[usize]| s.iter().copied().filter(|d| *d != 1).collect::<Vec<usize>>();
        let flat = given == [self.shape.iter().product::<usize>()];
        match flat || significant(given) == significant(&self.shape) {
            true => Ok(self.shape.clone()),
            false => Err(format!(
                "one input has the shape {given:?}, the primary takes {:?}",
                self.shape
            )
            .into()),
        }
    }

    /// Checks that the patches fit.
    pub(super) fn check(&self, patches: &[Patch]) -> Outcome<()> {
        for patch in patches {
            check(patch, &self.model, self.digest, &self.shapes)?;
        }
        Ok(())
    }

    /// Compiled for a batch of one, cut at these tensors.
    pub(super) fn session(&self, sites: &BTreeSet<String>) -> Outcome<Session> {
        let model = self.model.clone();
        Ok(Session::compile(model, self.digest, &self.input, &self.output, sites)?)
    }
}

/// The model with this tensor as its first output.
fn with_output(mut model: Model, output: &str) -> Outcome<Model> {
    if !model.graph.has_tensor(output) {
        return Err(format!(
            "the primary has no tensor `{output}`; `backstitch onnx inspect` lists them"
        )
        .into());
    }
    let outputs = &mut model.graph.outputs;
    match outputs.iter().position(|o| o.name == output) {
        Some(index) => outputs.swap(0, index),
        None => {
            let info = declare(&model)?.get(output).cloned().ok_or_else(|| {
                format!("`{output}` cannot answer: its type and shape are not known")
            })?;
            model.graph.outputs.insert(0, info);
        }
    }
    Ok(model)
}

/// The library whose primary this file is, where a `library.json` beside it says so.
fn library_of(primary: &Path) -> Outcome<Option<LibraryDescriptor>> {
    let path = primary.with_file_name("library.json");
    if !path.exists() {
        return Ok(None);
    }
    let library = LibraryDescriptor::from_bytes(&files::read(&path)?)
        .map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(primary.file_name().is_some_and(|n| n == library.primary.file.as_str()).then_some(library))
}
