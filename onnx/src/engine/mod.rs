//! The engine that runs models: tract, behind types of our own. Nothing outside this folder names it.
//!
//! A [`Program`] is compiled for concrete input shapes, because that is the engine's fast path. Weights that
//! change from run to run are inputs, so that new weights need no new program.

mod bounds;
mod cross_entropy;
mod fuse;
mod guard;
mod ops;
mod pool;
mod product;
mod sanity;
mod self_test;
mod settle;
mod shapes;
mod symbols;
mod value;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use tract_onnx::prelude::{
    Framework, InferenceFact, InferenceModel, InferenceModelExt, TVec, TractResult,
};
use tract_onnx::tract_core::ops::konst::Const;
use tract_onnx::tract_core::optim::Optimizer;
use tract_onnx::tract_hir::internal::{
    DimLike, OutletId, SymbolScope, TypedModel, TypedNode, TypedSimplePlan, TypedSimpleState,
};

pub use ops::operators;
pub use self_test::{kernels, self_test};
pub use shapes::{declare, infer, resolve, several, smallest};
pub use symbols::symbolic;
pub use value::Value;

use crate::error::{Code, Error, Result};
use crate::lower;
use crate::model::{Graph, Model};
use crate::tensor::DType;
use guard::guarded;

/// The concrete shape of graph inputs, by name. What is left out comes from the model's declaration, with every
/// open dimension 1.
pub type Dims = BTreeMap<String, Vec<usize>>;

/// The dtype and concrete shape of tensors, by name.
pub type Shapes = BTreeMap<String, (DType, Vec<usize>)>;

/// A `tracing` directive that silences the engine's warning about operator sets beyond those that its authors test:
/// every operator that is let in is tested here, against onnxruntime.
pub const LOG_DIRECTIVE: &str = "tract_onnx=error";

/// A model compiled for concrete input shapes. Runs on several threads at once do not disturb each other.
pub struct Program {
    inputs: Vec<Input>,
    outputs: Vec<String>,
    plan: Arc<TypedSimplePlan>,
    /// States of finished runs, kept because making one walks the whole graph.
    idle: Mutex<Vec<TypedSimpleState>>,
}

struct Input {
    name: String,
    dtype: DType,
    shape: Vec<usize>,
    /// Rows of the smallest weight that it indexes.
    rows: Option<usize>,
}

impl Program {
    /// Compiles a model for the given input shapes.
    pub fn compile(model: &Model, dims: &Dims) -> Result<Self> {
        let resolved = resolve(model, dims)?;
        let mut fused = lowered(model)?;
        fuse::fuse(&mut fused.graph)?;
        settle::settle(&mut fused.graph);
        let (engine_model, _) = analyse(fused, |_| shapes::facts(&resolved))?;
        let plan =
            guarded("compiling", || TypedSimplePlan::new(optimized(engine_model.into_typed()?)?))?;
        let rows = bounds::of(model);
        let named = model.graph.inputs.iter().zip(resolved);
        let inputs = named
            .map(|(info, (dtype, shape))| Input {
                name: info.name.clone(),
                dtype,
                shape,
                rows: rows.get(&info.name).copied(),
            })
            .collect();
        let outputs = model.graph.outputs.iter().map(|info| info.name.clone()).collect();
        Ok(Self { inputs, outputs, plan, idle: Mutex::new(Vec::new()) })
    }

    /// Names of the inputs, in the model's order.
    pub fn input_names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.inputs.iter().map(|input| input.name.as_str())
    }

    /// Names of the outputs, in the model's order.
    pub fn output_names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.outputs.iter().map(String::as_str)
    }

    /// The dtype and shape of every input, in the model's order.
    pub fn input_shapes(&self) -> impl ExactSizeIterator<Item = (&str, DType, &[usize])> {
        self.inputs.iter().map(|input| (input.name.as_str(), input.dtype, input.shape.as_slice()))
    }

    /// Runs on named inputs. Refuses a missing input, one the model does not have, and a wrong dtype or shape.
    pub fn run(&self, inputs: &BTreeMap<String, Value>) -> Result<BTreeMap<String, Value>> {
        if let Some(extra) =
            inputs.keys().find(|name| !self.inputs.iter().any(|input| input.name == **name))
        {
            return Err(Error::new(
                Code::InputMismatch,
                format!("the model has no input `{extra}`"),
            )
            .with_hint(format!("its inputs are {}", self.list_inputs())));
        }
        let ordered = self.inputs.iter().map(|input| {
            inputs.get(&input.name).cloned().ok_or_else(|| {
                Error::new(Code::InputMismatch, format!("the input `{}` is missing", input.name))
                    .with_hint(format!("the model's inputs are {}", self.list_inputs()))
            })
        });
        let outputs = self.run_ordered(&ordered.collect::<Result<Vec<_>>>()?)?;
        Ok(self.outputs.iter().cloned().zip(outputs).collect())
    }

    /// Runs on inputs in the order of [`Program::input_names`]; yields outputs in the order of
    /// [`Program::output_names`].
    pub fn run_ordered(&self, inputs: &[Value]) -> Result<Vec<Value>> {
        if inputs.len() != self.inputs.len() {
            return Err(Error::new(
                Code::InputMismatch,
                format!("{} inputs were given, the model has {}", inputs.len(), self.inputs.len()),
            )
            .with_hint(format!("its inputs are {}", self.list_inputs())));
        }
        for (value, input) in inputs.iter().zip(&self.inputs) {
            if value.dtype() != input.dtype || value.shape() != input.shape {
                return Err(Error::new(
                    Code::InputMismatch,
                    format!(
                        "the input `{}` is {} {:?}, the program was compiled for {} {:?}",
                        input.name,
                        value.dtype().name(),
                        value.shape(),
                        input.dtype.name(),
                        input.shape
                    ),
                )
                .with_hint("convert the input, or compile the model for its shape"));
            }
            if let Some(rows) = input.rows {
                bounds::check(&input.name, value, rows)?;
            }
        }
        let fed: TVec<_> = inputs.iter().map(Value::to_engine).collect();
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let (outputs, state) = guarded("running", || {
            let mut state = match idle {
                Some(state) => state,
                None => self.plan.spawn()?,
            };
            let outputs = state.run(fed)?;
            Ok((outputs, state))
        })?;
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(state);
        outputs.into_iter().map(Value::from_engine).collect()
    }

    /// Bytes of the constants that the program carries, packed as its kernels want them.
    pub fn constant_bytes(&self) -> u64 {
        let constant = |node: &TypedNode| match node.op_as::<Const>() {
            Some(_) => node.outputs.first()?.fact.mem_size().to_usize().ok(),
            None => product::packed_bytes(node.op.as_ref()),
        };
        self.plan.model().nodes().iter().filter_map(constant).map(|bytes| bytes as u64).sum()
    }

    fn list_inputs(&self) -> String {
        crate::graph::some_of(
            self.input_shapes()
                .map(|(name, dtype, shape)| format!("{name}: {} {shape:?}", dtype.name())),
        )
    }
}

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Program {} -> {:?}", self.list_inputs(), self.outputs)
    }
}

/// The engine's own rewriting, without the one that splits a product over the parts of a concatenation: it adds in
/// another order than the product of the whole, and does not happen where a model is cut between the two.
fn optimized(mut model: TypedModel) -> TractResult<TypedModel> {
    let mut first = Optimizer::declutter();
    first.passes.retain(|pass| !format!("{pass:?}").starts_with("ConcatThenEinsum"));
    first.optimize(&mut model)?;
    model.optimize()?;
    pool::speed(&mut model)?;
    settle::release(&mut model)?;
    Ok(model)
}

/// The model in the operators that the engine has.
fn lowered(model: &Model) -> Result<Model> {
    let lowered = lower::for_engine(model)?;
    ops::check(&lowered.graph)?;
    Ok(lowered.into_owned())
}

/// A lowered model in the engine with every shape that its analysis can tell, and where each named tensor lies in it.
/// Tensors beyond the limit are refused before anything of their size is allocated.
fn analyse(
    lowered: Model,
    inputs: impl FnOnce(&SymbolScope) -> Result<Vec<InferenceFact>>,
) -> Result<(InferenceModel, BTreeMap<String, OutletId>)> {
    let (mut analysed, outlets) = parse(lowered, inputs)?;
    guarded("analysing", || analysed.analyse(false))?;
    for (name, outlet) in &outlets {
        if let Ok(fact) = analysed.outlet_fact(*outlet) {
            sanity::check_extent(name, fact)?;
        }
    }
    Ok((analysed, outlets))
}

/// The engine's model, and where each named tensor lies in it.
fn parse(
    mut model: Model,
    inputs: impl FnOnce(&SymbolScope) -> Result<Vec<InferenceFact>>,
) -> Result<(InferenceModel, BTreeMap<String, OutletId>)> {
    name_nodes(&mut model.graph);
    let bytes = model.to_bytes();
    drop(model);
    let (mut engine_model, outlets) = guarded("loading", || {
        let mut importer =
            tract_onnx::onnx().with_ignore_value_info(true).with_ignore_output_shapes(true);
        importer.op_register.insert(cross_entropy::NAME, cross_entropy::build);
        importer.op_register.insert(product::NAME, product::build);
        importer.op_register.insert(settle::NAME, settle::build);
        let proto = importer.proto_model_for_read(&mut bytes.as_slice())?;
        let parsed = importer.parse(&proto, None)?;
        Ok((parsed.model, parsed.outlets_by_name.into_iter().collect()))
    })?;
    let facts = inputs(&engine_model.symbols)?;
    guarded("loading", || {
        facts
            .into_iter()
            .enumerate()
            .try_for_each(|(index, fact)| engine_model.set_input_fact(index, fact))
    })?;
    Ok((engine_model, outlets))
}

/// The engine insists on names that are unique among nodes and weights; the specification does not. A node whose
/// name is not goes without, and the engine then calls it by its first output.
fn name_nodes(graph: &mut Graph) {
    let mut taken: BTreeSet<String> = graph.tensor_names().into_iter().map(str::to_owned).collect();
    for node in &mut graph.nodes {
        if !taken.insert(node.name.clone()) {
            node.name.clear();
        }
    }
}
