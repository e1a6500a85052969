//! Learned probes: small models that read one activation of a primary and tell a few numbers about it.

use crate::engine::{Dims, Program, infer};
use crate::error::{Code, Error, Result};
use crate::model::Model;
use crate::tensor::DType;

/// Most features of one probe.
const MOST_FEATURES: usize = 64;

/// Checks a probe's file against the shape of the site that it reads, and the number of features that it is to make.
///
/// # Errors
/// [`Code::UnknownTensor`] where the primary has no such site, [`Code::PatchMismatch`] where the file does not have one
/// input of its shape and one float32 output with `features` numbers.
pub fn check(file: &[u8], site: Option<&[usize]>, features: usize) -> Result<()> {
    read(file, site, features).map(drop)
}

/// Compiles a probe; refuses what [`check`] refuses.
pub fn compile(file: &[u8], site: Option<&[usize]>, features: usize) -> Result<Program> {
    let (model, dims) = read(file, site, features)?;
    Program::compile(&model, &dims)
}

fn read(file: &[u8], site: Option<&[usize]>, features: usize) -> Result<(Model, Dims)> {
    let site = site.ok_or_else(|| {
        Error::new(Code::UnknownTensor, "the primary has no such tensor")
            .with_hint("`backstitch onnx inspect` lists its tensors")
    })?;
    let model = Model::from_bytes(file)?;
    let graph = &model.graph;
    let ([input], [output]) = (graph.inputs.as_slice(), graph.outputs.as_slice()) else {
        return Err(mismatch(format!(
            "it has {} inputs and {} outputs",
            graph.inputs.len(),
            graph.outputs.len()
        ))
        .with_hint("a probe reads one tensor and makes one"));
    };
    let dims = Dims::from([(input.name.clone(), site.to_vec())]);
    let shapes = infer(&model, &dims)?;
    let (dtype, shape) = shapes.get(&output.name).cloned().unwrap_or((DType::F32, Vec::new()));
    let count: usize = shape.iter().product();
    if dtype != DType::F32 || count != features || count > MOST_FEATURES {
        return Err(mismatch(format!(
            "its output is {} {shape:?} for {features} features",
            dtype.name()
        ))
        .with_hint(format!("make one float32 for each feature, {MOST_FEATURES} at most")));
    }
    Ok((model, dims))
}

fn mismatch(message: String) -> Error {
    Error::new(Code::PatchMismatch, message)
}
