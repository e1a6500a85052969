//! The primary as training and evaluation see it: the model, its one input, the tensor that answers, and how
//! pictures become its input.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use backstitch_client::preprocessing::{Picture, Preprocessing};
use backstitch_client::session::Session;
use backstitch_onnx::engine::infer;
use backstitch_onnx::patch::{Patch, check};
use backstitch_onnx::{DType, Digest, Dim, Dims, Model, Shapes, ValueInfo};
use backstitch_protocol::Problem;
use backstitch_protocol::problem::Code;
use clap::Args;
use serde_json::{Map, Value as Json, json};

use super::data::DataArgs;
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
    /// The shape of one input, where the primary leaves sizes open and neither the preprocessing nor arrays in --data
    /// tell them.
    #[arg(long, value_name = "1,3,224,224", value_parser = files::parse_sizes)]
    shape: Option<files::Sizes>,
    /// How pictures become the input: JSON, or a file of it, as in a library.json, such as
    /// '{"scale": 1, "mean": [127, 127, 127], "std": [128, 128, 128]}'. Size and channels are the input's where it fixes
    /// them. Of series, what pack writes into the library: '{"window": 128, "channels": 6}'.
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
    /// Every tensor's shape with a batch of one.
    pub(super) shapes: Shapes,
    /// Names of the classes, where a library tells them.
    pub(super) labels: Vec<String>,
    /// How raw inputs are prepared, as a library.json says it.
    pub(super) preprocessing: Json,
    /// Set where the input is a picture.
    pub(super) picture: Option<Picture>,
    /// Set where they were asked for and the library has some.
    pub(super) probed: Option<Probed>,
}

impl PrimaryArgs {
    /// Reads the primary. Where it leaves sizes open, `data` may tell them.
    pub(super) fn read(&self, data: Option<&DataArgs>) -> Outcome<Primary> {
        let (model, digest) = files::read_model(&self.primary)?;
        let library = library_of(&self.primary)?;
        let [info] = model.graph.inputs.as_slice() else {
            return Err(format!(
                "the primary has {} inputs; training and evaluation feed one",
                model.graph.inputs.len()
            )
            .into());
        };
        let (input, dtype) = (info.name.clone(), info.dtype);
        let described = self.described(library.as_ref())?;
        let model = match self.sizes(info, &described, data)? {
            Some(shape) => model.taking(&input, &shape)?,
            None => model,
        };
        let first = model.graph.outputs.first().map(|o| o.name.clone());
        let told = library.as_ref().map(|l| l.primary.output.clone());
        let output = self.output.clone().or(told).or(first).ok_or("the primary has no output")?;
        let shapes = infer(&model, &Dims::new())?;
        let model = model.answering(&output, &shapes)?;
        let shape = shapes.get(&input).map(|(_, shape)| shape.clone()).unwrap_or_default();
        let (preprocessing, picture) = self.preprocessed(described, &shape)?;
        let labels = library.map(|l| l.primary.labels).unwrap_or_default();
        Ok(Primary {
            model,
            digest,
            input,
            dtype,
            shape,
            output,
            shapes,
            labels,
            preprocessing,
            picture,
            probed: None,
        })
    }

    /// The same with the probes of its library, which selectors may ask.
    pub(super) fn read_with_probes(&self, data: &DataArgs) -> Outcome<Primary> {
        let mut primary = self.read(Some(data))?;
        if let Some(library) = library_of(&self.primary)? {
            primary.probed = Probed::read(&self.primary, &library, &primary)?;
        }
        Ok(primary)
    }

    /// Whether `--output` is given.
    pub(super) fn names_output(&self) -> bool {
        self.output.is_some()
    }

    /// What `--preprocessing` says, or else the library.
    fn described(&self, library: Option<&LibraryDescriptor>) -> Outcome<Map<String, Json>> {
        let given = match &self.preprocessing {
            Some(text) if text.trim_start().starts_with('{') => text.clone().into_bytes(),
            Some(path) => files::read(Path::new(path))?,
            None => {
                return Ok(match library.map(|l| &l.primary.preprocessing) {
                    Some(Json::Object(keys)) => keys.clone(),
                    _ => Map::new(),
                });
            }
        };
        serde_json::from_slice(&given).map_err(|e| format!("--preprocessing: {e}").into())
    }

    /// The shape of one input where the model leaves sizes open: what `--shape`, the preprocessing or the data says.
    fn sizes(
        &self,
        info: &ValueInfo,
        described: &Map<String, Json>,
        data: Option<&DataArgs>,
    ) -> Outcome<Option<Vec<usize>>> {
        if self.shape.is_some() || !info.is_open() {
            return Ok(self.shape.as_ref().map(|sizes| sizes.0.clone()));
        }
        let mut whole = channels(info);
        whole.extend(described.clone());
        if (whole.contains_key("width") && whole.contains_key("height"))
            || whole.contains_key("window")
        {
            return Ok(Preprocessing::from_json(&Json::Object(whole))?.shape());
        }
        if let Some(tokens) = described.get("max_tokens").and_then(Json::as_u64) {
            return Ok(Some(vec![1, tokens as usize]));
        }
        if let Some(shape) = data.and_then(DataArgs::shape) {
            let has_batch = info.shape.as_ref().is_some_and(|dims| dims.len() == shape.len());
            return Ok(Some(if has_batch { shape } else { [vec![1], shape].concat() }));
        }
        Err(Problem::new(
            Code::InputInvalid,
            format!(
                "the primary leaves the size of its input open: `{}` is {}",
                info.name,
                info.shape_in_words()
            ),
        )
        .with_hint(
            "say it by --shape 1,3,224,224, or by width and height, or window and channels, in --preprocessing",
        )
        .into())
    }

    /// How inputs are prepared, for a library.json, and how pictures are. Size, channels and layout of pictures are the
    /// input's, the rest is described.
    fn preprocessed(
        &self,
        described: Map<String, Json>,
        shape: &[usize],
    ) -> Outcome<(Json, Option<Picture>)> {
        let sized = match *shape {
            [1, c @ (1 | 3), height, width] => {
                json!({ "width": width, "height": height, "channels": c })
            }
            [1, height, width, c @ (1 | 3)] => {
                json!({ "width": width, "height": height, "channels": c, "layout": "nhwc" })
            }
            _ => Json::Null,
        };
        let is_series = described.contains_key("window");
        let whole = match sized {
            Json::Object(mut whole) if !is_series => {
                whole.extend(described);
                whole
            }
            _ if is_series => described,
            _ if self.preprocessing.is_some() => {
                return Err(format!(
                    "--preprocessing is for pictures, and for series with `window` and `channels`; the input has the shape {shape:?}"
                )
                .into());
            }
            _ => return Ok((json!({}), None)),
        };
        let whole = Json::Object(whole);
        let preprocessing = Preprocessing::from_json(&whole)?;
        if let Some(made) = preprocessing.shape().filter(|made| made != shape) {
            return Err(Problem::new(
                Code::InputInvalid,
                format!("the preprocessing makes inputs of the shape {made:?}, the primary takes {shape:?}"),
            )
            .with_hint("correct size, channels and layout in --preprocessing or library.json")
            .into());
        }
        match preprocessing {
            Preprocessing::Picture(picture) => {
                Ok((serde_json::to_value(&*picture)?, Some(picture)))
            }
            _ => Ok((whole, None)),
        }
    }
}

/// The channels of an input that may be a picture, and where they stand.
fn channels(info: &ValueInfo) -> Map<String, Json> {
    let told = match info.shape.as_deref() {
        Some([_, Dim::Fixed(c @ (1 | 3)), _, _]) => json!({ "channels": c }),
        Some([_, _, _, Dim::Fixed(c @ (1 | 3))]) => json!({ "channels": c, "layout": "nhwc" }),
        _ => json!({}),
    };
    told.as_object().cloned().unwrap_or_default()
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

    /// What the answer is the softmax of, where it is one.
    pub(super) fn before_softmax(&self) -> Option<&str> {
        let nodes = &self.model.graph.nodes;
        let made = nodes.iter().find(|node| node.makes().any(|name| name == self.output))?;
        if made.op == "Softmax" { made.input(0) } else { None }
    }

    /// Numbers of one example in this tensor.
    pub(super) fn places(&self, tensor: &str) -> usize {
        self.shapes.get(tensor).map_or(0, |(_, shape)| shape.iter().product())
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
