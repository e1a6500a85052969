//! A patch: a subgraph with trainable weights, and a manifest that says what it does, where it is stitched in,
//! what it costs, and when it helps.

use std::collections::{BTreeMap, BTreeSet};

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

use crate::autodiff::{Loss, Objective, differentiate};
use crate::cut::is_fixed;
use crate::engine::{Dims, Shapes, infer};
use crate::error::{Code, Error, Result};
use crate::graph::some_of;
use crate::model::{Digest, Graph, Model};
use crate::stitch::stitch;
use crate::tensor::{DType, Tensor};

mod classes;
mod manifest;
mod template;

pub use manifest::{
    Attachment, Cost, Gain, Io, Manifest, MeasuredMs, Mode, PerformanceRow, Requirement, Selector,
    Training,
};

pub use template::{Kind, Template, template};

/// A checked patch: its manifest and its graph with the current weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Patch {
    manifest: Manifest,
    model: Model,
    graph_digest: Digest,
}

impl Patch {
    /// A patch from the bytes of `patch.json`, `patch.onnx` and, for a new version, `weights.safetensors`, whose
    /// tensors override the initializers of the same name. Manifest and graph must agree; weights must be finite.
    pub fn from_parts(manifest: &[u8], graph: &[u8], weights: Option<&[u8]>) -> Result<Self> {
        let manifest = Manifest::from_bytes(manifest)?;
        let mut model = Model::from_bytes(graph)
            .map_err(|e| e.context(format!("patch `{}`", manifest.name)))?;
        if let Some(weights) = weights {
            for (name, tensor) in read_safetensors(weights)? {
                replace_weight(&mut model.graph, &name, tensor)
                    .map_err(|e| e.context(&manifest.name))?;
            }
        }
        let patch = Self { manifest, model, graph_digest: Digest::of(graph) };
        patch
            .check_interface()
            .map_err(|e| e.context(format!("patch `{}`", patch.manifest.name)))?;
        Ok(patch)
    }

    /// The same patch with other values of some trainable tensors. Refuses names that are not trainable, other
    /// shapes or dtypes, and values that are not finite.
    pub fn with_weights(&self, weights: BTreeMap<String, Tensor>) -> Result<Self> {
        let mut patch = self.clone();
        for (name, tensor) in weights {
            if !self.manifest.trainable.contains(&name) {
                return Err(Error::new(
                    Code::PatchMismatch,
                    format!("`{name}` is not trainable in the patch `{}`", self.manifest.name),
                )
                .with_hint(format!("trainable are {}", some_of(self.manifest.trainable.iter()))));
            }
            replace_weight(&mut patch.model.graph, &name, tensor)
                .map_err(|e| e.context(&self.manifest.name))?;
        }
        Ok(patch)
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The subgraph with its current weights as initializers.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The digest of the bytes of `patch.onnx`.
    pub fn graph_digest(&self) -> Digest {
        self.graph_digest
    }

    /// The digest of all float initializers with their current values, as canonical safetensors.
    pub fn weights_digest(&self) -> Digest {
        let floats =
            self.model.graph.initializers.iter().filter(|(_, tensor)| tensor.dtype().is_float());
        Digest::of(&write_safetensors(floats))
    }

    /// The trainable tensors with their current values.
    pub fn weights(&self) -> BTreeMap<String, Tensor> {
        let trainable = self.manifest.trainable.iter();
        trainable
            .filter_map(|name| {
                Some((name.clone(), self.model.graph.initializers.get(name)?.clone()))
            })
            .collect()
    }

    /// The trainable tensors as the bytes of `weights.safetensors`; the same values give the same bytes.
    pub fn weights_bytes(&self) -> Vec<u8> {
        write_safetensors(self.weights().iter())
    }

    /// The part of the graph that makes the output of one attachment. Its inputs are those of the attachment, in
    /// order of their names, then the trainable tensors that it reads, in the manifest's order.
    pub fn attachment_model(&self, index: usize) -> Result<Model> {
        let mut model = self.attachment_graph(index)?;
        let trainable: Vec<&str> = self
            .manifest
            .trainable
            .iter()
            .map(String::as_str)
            .filter(|name| model.graph.initializers.contains_key(*name))
            .collect();
        model.graph.promote(&trainable)?;
        Ok(model)
    }

    /// Like [`Patch::attachment_model`], with the weights as initializers.
    pub(crate) fn attachment_graph(&self, index: usize) -> Result<Model> {
        let attachment = self.manifest.attachments.get(index).ok_or_else(|| {
            Error::new(
                Code::PatchMismatch,
                format!("the patch `{}` has no attachment {index}", self.manifest.name),
            )
        })?;
        let inputs: Vec<&str> = attachment.inputs.keys().map(String::as_str).collect();
        let outputs: Vec<&str> = attachment.output.keys().map(String::as_str).collect();
        self.model.extract(&inputs, &outputs)
    }

    /// What manifest and graph must agree on, without a primary.
    fn check_interface(&self) -> Result<()> {
        let graph = &self.model.graph;
        let mismatch = |message: String| Error::new(Code::PatchMismatch, message);
        let mut attached = BTreeSet::new();
        let mut leading = BTreeSet::new();
        for (index, attachment) in self.manifest.attachments.iter().enumerate() {
            for name in attachment.inputs.keys() {
                if graph.input(name).is_none() {
                    return Err(mismatch(format!(
                        "attachment {index} feeds `{name}`, which is no input of the graph"
                    ))
                    .with_hint(format!(
                        "its inputs are {}",
                        some_of(graph.inputs.iter().map(|i| &i.name))
                    )));
                }
            }
            for name in attachment.output.keys() {
                if graph.output(name).is_none() {
                    return Err(mismatch(format!(
                        "attachment {index} takes `{name}`, which is no output of the graph"
                    ))
                    .with_hint(format!(
                        "its outputs are {}",
                        some_of(graph.outputs.iter().map(|o| &o.name))
                    )));
                }
                if !attached.insert(name) {
                    return Err(mismatch(format!("two attachments take the output `{name}`")));
                }
            }
            let part = self.attachment_graph(index)?;
            leading.extend(part.graph.initializers.into_keys());
        }
        for name in &self.manifest.trainable {
            match graph.initializers.get(name) {
                None => {
                    return Err(mismatch(format!(
                        "the trainable `{name}` is no initializer of the graph"
                    ))
                    .with_hint(format!(
                        "initializers are {}",
                        some_of(graph.initializers.keys())
                    )));
                }
                Some(tensor) if tensor.dtype() != DType::F32 => {
                    return Err(mismatch(format!(
                        "the trainable `{name}` is {}",
                        tensor.dtype().name()
                    ))
                    .with_hint("trainable tensors are float32"));
                }
                Some(_) if !leading.contains(name) => {
                    return Err(Error::new(
                        Code::GradientUnreachable,
                        format!("no attachment's output depends on the trainable `{name}`"),
                    ));
                }
                Some(_) => {}
            }
        }
        check_finite(graph)
    }
}

fn check_finite(graph: &Graph) -> Result<()> {
    match graph.initializers.iter().find(|(_, tensor)| !tensor.is_finite()) {
        Some((name, _)) => {
            Err(Error::new(Code::WeightsNotFinite, format!("`{name}` holds NaN or infinity"))
                .with_hint(
                    "training diverged; lower the learning rate and start from the last version",
                ))
        }
        None => Ok(()),
    }
}

fn replace_weight(graph: &mut Graph, name: &str, tensor: Tensor) -> Result<()> {
    let Some(current) = graph.initializers.get_mut(name) else {
        return Err(Error::new(
            Code::PatchMismatch,
            format!("there is no initializer `{name}` to override"),
        )
        .with_hint(format!("initializers are {}", some_of(graph.initializers.keys()))));
    };
    if current.dtype() != tensor.dtype() || current.shape() != tensor.shape() {
        return Err(Error::new(
            Code::PatchMismatch,
            format!(
                "`{name}` is {} {:?}, not {} {:?}",
                current.dtype().name(),
                current.shape(),
                tensor.dtype().name(),
                tensor.shape()
            ),
        ));
    }
    if !tensor.is_finite() {
        return Err(Error::new(
            Code::WeightsNotFinite,
            format!("the new `{name}` holds NaN or infinity"),
        ));
    }
    *current = tensor;
    Ok(())
}

/// Checks everything that must hold before a patch runs in a primary: the primary's digest, that sites exist and
/// have the right dtype and shape, that nothing becomes circular, and that replacing is legal.
///
/// `primary_digest` is the digest of the primary's file, which the manifest names; `primary_shapes` come from
/// [`infer`] for the shapes that the primary runs with.
pub fn check(
    patch: &Patch,
    primary: &Model,
    primary_digest: Digest,
    primary_shapes: &Shapes,
) -> Result<()> {
    let name = &patch.manifest.name;
    if patch.manifest.primary != primary_digest {
        return Err(Error::new(
            Code::PatchMismatch,
            format!(
                "the patch `{name}` is for the primary {}, this one is {primary_digest}",
                patch.manifest.primary
            ),
        )
        .with_hint("a patch fits one exact primary; make it again for this one"));
    }
    for (index, attachment) in patch.manifest.attachments.iter().enumerate() {
        check_attachment(patch, index, attachment, primary, primary_shapes)
            .map_err(|e| e.context(format!("patch `{name}`, attachment {index}")))?;
    }
    // Several attachments together may close a cycle that none closes alone.
    stitch(primary, &[patch]).map(|_| ())
}

/// Checks that the patch can be trained in its primary: that every trainable tensor reaches `output` on a path of
/// operators that have gradients. `output` is where the loss reads; where it is left out, any float output of the primary
/// will do.
/// A patch without trainable tensors passes.
pub fn check_training(
    patch: &Patch,
    primary: &Model,
    dims: &Dims,
    output: Option<&str>,
) -> Result<()> {
    let manifest = &patch.manifest;
    if manifest.trainable.is_empty() {
        return Ok(());
    }
    let loss = match &manifest.training {
        Some(training) => training.loss.parse()?,
        None => Loss::Entropy,
    };
    let stitched = stitch(primary, &[patch])?;
    let names: Vec<String> =
        manifest.trainable.iter().map(|name| format!("{}/{name}", manifest.name)).collect();
    let trainable: Vec<&str> = names.iter().map(String::as_str).collect();
    if let Some(name) = names.iter().find(|name| !stitched.graph.initializers.contains_key(*name)) {
        return Err(Error::new(
            Code::GradientUnreachable,
            format!("no output of the primary depends on the trainable `{name}`"),
        )
        .with_hint("attach the patch to a tensor that an output is computed from"));
    }
    let attempt = |output: &str| {
        differentiate(&stitched, &Objective { loss, output, trainable: &trainable }, dims)
            .map(drop)
            .map_err(|e| e.context(format!("patch `{}`", manifest.name)))
    };
    let named = manifest.training.as_ref().and_then(|training| training.output.as_deref());
    if let Some(output) = named.or(output) {
        primary.require(output).map_err(|e| e.context("the training's output"))?;
        return attempt(output);
    }
    let floats = primary.graph.outputs.iter().filter(|info| info.dtype.is_float());
    let mut refused = None;
    for info in floats {
        match attempt(&info.name) {
            Ok(()) => return Ok(()),
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    Err(refused.unwrap_or_else(|| {
        Error::new(Code::GradientUnsupported, "no output of the primary is a float tensor")
            .with_hint("name the float tensor that the loss reads")
    }))
}

fn check_attachment(
    patch: &Patch,
    index: usize,
    attachment: &Attachment,
    primary: &Model,
    shapes: &Shapes,
) -> Result<()> {
    let mut dims = Dims::new();
    let part = patch.attachment_graph(index)?;
    for (input, site) in &attachment.inputs {
        let (dtype, shape) = site_shape(primary, shapes, site)?;
        let declared = part.graph.input(input).map(|info| info.dtype);
        if declared != Some(*dtype) {
            return Err(Error::new(
                Code::PatchMismatch,
                format!(
                    "the input `{input}` is {}, `{site}` is {}",
                    declared.map_or("none", DType::name),
                    dtype.name()
                ),
            ));
        }
        dims.insert(input.clone(), shape.clone());
    }
    let made = infer(&part, &dims).map_err(|e| {
        Error::new(Code::PatchMismatch, e.message().to_owned())
            .with_hint("the patch's graph does not accept the shapes of its sites")
    })?;
    for (output, site) in &attachment.output {
        if is_fixed(primary, site) {
            return Err(Error::new(
                Code::PatchMismatch,
                format!("the site `{site}` is fixed by weights and shapes alone"),
            )
            .with_hint("attach to a tensor that depends on an input"));
        }
        let expected = site_shape(primary, shapes, site)?;
        let found = made.get(output).ok_or_else(|| {
            Error::new(
                Code::PatchMismatch,
                format!("the shape of the output `{output}` stays open"),
            )
        })?;
        if found != expected {
            return Err(Error::new(
                Code::PatchMismatch,
                format!(
                    "the output `{output}` is {} {:?}, the site `{site}` is {} {:?}",
                    found.0.name(),
                    found.1,
                    expected.0.name(),
                    expected.1
                ),
            )
            .with_hint("a patch must keep the dtype and shape of the tensor it changes"));
        }
        check_order(attachment, site, &primary.graph)?;
    }
    Ok(())
}

fn site_shape<'a>(
    primary: &Model,
    shapes: &'a Shapes,
    site: &str,
) -> Result<&'a (DType, Vec<usize>)> {
    primary.require(site)?;
    shapes.get(site).ok_or_else(|| {
        Error::new(Code::PatchMismatch, format!("the shape of the site `{site}` is not known"))
    })
}

/// An output site must not come before an input site: the patch would depend on its own result.
fn check_order(attachment: &Attachment, site: &str, primary: &Graph) -> Result<()> {
    let producers = primary.producers();
    for other in attachment.inputs.values().filter(|other| *other != site) {
        let upstream = primary.ancestors(&[other], &BTreeSet::new());
        let read_upstream =
            upstream.iter().any(|node| primary.nodes[*node].reads().contains(&site));
        let same_node =
            producers.get(site).is_some_and(|node| producers.get(other.as_str()) == Some(node));
        if read_upstream && !same_node {
            return Err(Error::new(
                Code::PatchMismatch,
                format!("the input site `{other}` depends on the output site `{site}`"),
            )
            .with_hint("a patch reads at or before the place where it writes"));
        }
    }
    Ok(())
}

fn read_safetensors(bytes: &[u8]) -> Result<BTreeMap<String, Tensor>> {
    let invalid = |message: String| Error::new(Code::ModelInvalid, message);
    let file = SafeTensors::deserialize(bytes)
        .map_err(|e| invalid(format!("the weights are no safetensors: {e}")))?;
    let mut tensors = BTreeMap::new();
    for (name, view) in file.iter() {
        let dtype = match view.dtype() {
            Dtype::F32 => DType::F32,
            Dtype::F64 => DType::F64,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            Dtype::I8 => DType::I8,
            Dtype::U8 => DType::U8,
            Dtype::I32 => DType::I32,
            Dtype::I64 => DType::I64,
            other => return Err(invalid(format!("the weight `{name}` has the type {other:?}"))),
        };
        tensors.insert(
            name.to_owned(),
            Tensor::from_bytes(dtype, view.shape().to_vec(), view.data())?,
        );
    }
    Ok(tensors)
}

/// Tensors of other types than floats never stand among weights; they are left out.
fn write_safetensors<'a>(tensors: impl Iterator<Item = (&'a String, &'a Tensor)>) -> Vec<u8> {
    let views = tensors.filter_map(|(name, tensor)| {
        let dtype = match tensor.dtype() {
            DType::F32 => Dtype::F32,
            DType::F64 => Dtype::F64,
            DType::F16 => Dtype::F16,
            DType::BF16 => Dtype::BF16,
            _ => return None,
        };
        Some((name.clone(), TensorView::new(dtype, tensor.shape().to_vec(), tensor.bytes()).ok()?))
    });
    let views: BTreeMap<String, TensorView<'_>> = views.collect();
    safetensors::serialize(views, None).unwrap_or_default()
}
