//! Runs the primary in segments with patches between them. Switching patches and weights compiles nothing anew.
//!
//! The primary is cut once at every site that the library's patches use. Each segment is compiled once, and each patch when
//! it is first needed. A run
//! walks a [`Plan`] over a map of live tensors; what it means is defined by `backstitch_onnx::stitch`, and a test
//! holds the two to the same numbers.

mod compiled;
mod plan;
mod run;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use backstitch_onnx::cost::{Cost, cost};
use backstitch_onnx::cut::cut_for;
use backstitch_onnx::engine::infer;
use backstitch_onnx::{DType, Digest, Dims, Model, Program, Shapes, Value};
use backstitch_protocol::Problem;
use backstitch_protocol::problem::Code;

pub use compiled::{Compiled, Weights};
pub use plan::{Plan, Step};
pub use run::{Deadline, Ran, Reusable, Running, Stage, Stitched};

use crate::residence::{Residence, Resident};

/// A primary, cut and compiled for one input at a time.
pub struct Session {
    model: Model,
    digest: Digest,
    input: String,
    output: String,
    shapes: Shapes,
    sites: BTreeSet<String>,
    segments: Vec<Segment>,
    total: Cost,
    residence: Arc<Residence>,
}

/// A part of the primary between two sites.
#[derive(Debug)]
pub struct Segment {
    /// `segment:0`, `segment:1` …
    pub name: String,
    /// Tensors that it reads.
    pub inputs: Vec<String>,
    /// Tensors that it makes.
    pub outputs: Vec<String>,
    /// Multiply-accumulates of one run.
    pub macs: u64,
    /// How often it applies each operator.
    pub operators: BTreeMap<String, usize>,
    program: Resident<Program>,
}

impl Session {
    /// Cuts and compiles a primary for a batch of one. `digest` is that of its file; `input` and `output` are the
    /// graph input that takes the user's data and the tensor that is answered; `sites` is every tensor that a
    /// patch of the library reads or changes.
    ///
    /// Sizes of the input that the primary leaves open count as 1; [`Model::taking`] fixes them. Fails where the primary
    /// has other inputs besides, or a site does not exist.
    pub fn compile(
        model: Model,
        digest: Digest,
        input: &str,
        output: &str,
        sites: &BTreeSet<String>,
    ) -> Result<Self, Problem> {
        Self::compile_in(&Arc::default(), model, digest, input, output, sites)
    }

    /// The same, with its programs, and those of patches and trainers that are compiled for it, in this residence.
    pub fn compile_in(
        residence: &Arc<Residence>,
        model: Model,
        digest: Digest,
        input: &str,
        output: &str,
        sites: &BTreeSet<String>,
    ) -> Result<Self, Problem> {
        let unknown = |what: &str, name: &str| {
            Problem::new(Code::CatalogInvalid, format!("the primary has no {what} `{name}`"))
        };
        let [only] = model.graph.inputs.as_slice() else {
            return Err(Problem::new(
                Code::CatalogInvalid,
                format!(
                    "the primary has {} inputs, the client feeds one",
                    model.graph.inputs.len()
                ),
            ));
        };
        if only.name != input {
            return Err(unknown("input", input));
        }
        if !model.graph.has_tensor(output) {
            return Err(unknown("tensor", output));
        }
        let shapes = infer(&model, &Dims::new())?;
        let model = model.answering(output, &shapes)?;
        let names: Vec<&str> = sites.iter().map(String::as_str).collect();
        let segments = cut_for(&model, &names, &shapes)?
            .into_iter()
            .enumerate()
            .map(|(index, segment)| Segment::compile(residence, index, segment, &shapes))
            .collect::<Result<Vec<_>, Problem>>()?;
        let total = cost(&model, &shapes)?.total;
        let (input, output, sites) = (input.to_owned(), output.to_owned(), sites.clone());
        let residence = residence.clone();
        Ok(Self { model, digest, input, output, shapes, sites, segments, total, residence })
    }

    /// The primary.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The digest of the primary's file.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Name and shape of the input, with a batch of one.
    pub fn input(&self) -> (&str, &[usize]) {
        (&self.input, self.shape(&self.input))
    }

    /// Values as the engine takes them at the input: whole numbers where the model takes ids.
    pub fn feed(&self, shape: &[usize], values: &[f32]) -> Result<Value, Problem> {
        feed(self.shapes.get(&self.input).map(|(dtype, _)| *dtype), shape, values)
    }

    /// Name and shape of the answer.
    pub fn output(&self) -> (&str, &[usize]) {
        (&self.output, self.shape(&self.output))
    }

    /// The dtype and shape of every tensor, with a batch of one.
    pub fn shapes(&self) -> &Shapes {
        &self.shapes
    }

    /// Where the primary is cut.
    pub fn sites(&self) -> &BTreeSet<String> {
        &self.sites
    }

    /// The parts, in the order of the graph.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Where everything that is compiled for this primary is kept.
    pub fn residence(&self) -> &Arc<Residence> {
        &self.residence
    }

    /// What the whole primary costs.
    pub fn cost(&self) -> Cost {
        self.total
    }

    fn shape(&self, name: &str) -> &[usize] {
        self.shapes.get(name).map(|(_, shape)| shape.as_slice()).unwrap_or_default()
    }
}

impl Segment {
    fn compile(
        residence: &Arc<Residence>,
        index: usize,
        model: Model,
        shapes: &Shapes,
    ) -> Result<Self, Problem> {
        let dims = dims_of(&model, shapes);
        let macs = cost(&model, shapes)?.total.macs;
        let mut operators = BTreeMap::new();
        for node in &model.graph.nodes {
            *operators.entry(node.op.clone()).or_insert(0) += 1;
        }
        let program = residence.program(model, dims)?;
        let compiled = program.take()?;
        Ok(Self {
            name: format!("segment:{index}"),
            inputs: compiled.input_names().map(str::to_owned).collect(),
            outputs: compiled.output_names().map(str::to_owned).collect(),
            macs,
            operators,
            program,
        })
    }
}

/// Prepared values in the input's own type.
pub(crate) fn feed(
    dtype: Option<DType>,
    shape: &[usize],
    values: &[f32],
) -> Result<Value, Problem> {
    Ok(Value::numbers(dtype.unwrap_or(DType::F32), shape, values)?)
}

/// The shapes of a model's inputs, where they are known by name.
fn dims_of(model: &Model, shapes: &Shapes) -> Dims {
    let known = |name: &String| shapes.get(name).map(|(_, shape)| (name.clone(), shape.clone()));
    model.graph.inputs.iter().filter_map(|info| known(&info.name)).collect()
}

/// Only float tensors can be changed by arithmetic between segments.
fn require_float(shapes: &Shapes, site: &str) -> Result<(), Problem> {
    match shapes.get(site) {
        Some((DType::F32, _)) => Ok(()),
        Some((dtype, _)) => Err(Problem::new(
            Code::CatalogInvalid,
            format!("the site `{site}` is {}, a parallel patch needs float32", dtype.name()),
        )),
        None => Err(Problem::new(Code::CatalogInvalid, format!("the site `{site}` is not known"))),
    }
}

#[cfg(test)]
mod tests;
