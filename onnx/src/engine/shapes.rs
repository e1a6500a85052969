//! Concrete shapes: of the inputs, from what a caller fixes and the model declares; of all tensors, by the
//! engine's analysis.

use std::collections::{BTreeMap, BTreeSet};

use tract_onnx::prelude::InferenceFact;
use tract_onnx::tract_hir::infer::Factoid;
use tract_onnx::tract_hir::internal::DimLike;

use super::{Dims, Program, Shapes, Value, analyse, lowered, value};
use crate::error::{Code, Error, Result};
use crate::graph::some_of;
use crate::model::{Dim, Model, ValueInfo, limits};
use crate::tensor::{DType, element_count};

/// The dtype and concrete shape of every graph input, in order. A symbol that `dims` fixes at one input has
/// that size at all; other open dimensions are 1.
pub fn resolve(model: &Model, dims: &Dims) -> Result<Vec<(DType, Vec<usize>)>> {
    let inputs = &model.graph.inputs;
    if let Some(name) = dims.keys().find(|name| model.graph.input(name).is_none()) {
        return Err(Error::new(
            Code::InputMismatch,
            format!("a shape is given for `{name}`, which is no input"),
        )
        .with_hint(format!(
            "the model's inputs are {}",
            some_of(inputs.iter().map(|info| &info.name))
        )));
    }
    let mut symbols: BTreeMap<&str, usize> = BTreeMap::new();
    for info in inputs {
        let (Some(shape), Some(declared)) = (dims.get(&info.name), &info.shape) else { continue };
        for (size, dim) in shape.iter().zip(declared) {
            if let Dim::Symbol(symbol) = dim
                && *symbols.entry(symbol).or_insert(*size) != *size
            {
                return Err(mismatch(info, shape).with_hint(format!(
                    "`{symbol}` is {} at another input",
                    symbols[symbol.as_str()]
                )));
            }
        }
    }
    inputs
        .iter()
        .map(|info| Ok((info.dtype, resolve_one(info, dims.get(&info.name), &symbols)?)))
        .collect()
}

/// What the engine is told of inputs of these dtypes and shapes.
pub(super) fn facts(inputs: &[(DType, Vec<usize>)]) -> Result<Vec<InferenceFact>> {
    inputs
        .iter()
        .map(|(dtype, shape)| Ok(InferenceFact::dt_shape(value::to_datum_type(*dtype)?, shape)))
        .collect()
}

fn resolve_one(
    info: &ValueInfo,
    fixed: Option<&Vec<usize>>,
    symbols: &BTreeMap<&str, usize>,
) -> Result<Vec<usize>> {
    let shape = match (fixed, &info.shape) {
        (Some(shape), None) => shape.clone(),
        (Some(shape), Some(declared)) => {
            let fits =
                |(size, dim): (&usize, &Dim)| !matches!(dim, Dim::Fixed(fixed) if fixed != size);
            if shape.len() != declared.len() || !shape.iter().zip(declared).all(fits) {
                return Err(mismatch(info, shape));
            }
            shape.clone()
        }
        (None, Some(declared)) => declared
            .iter()
            .map(|dim| match dim {
                Dim::Fixed(size) => *size,
                Dim::Symbol(symbol) => symbols.get(symbol.as_str()).copied().unwrap_or(1),
                Dim::Unknown => 1,
            })
            .collect(),
        (None, None) => {
            return Err(Error::new(
                Code::InputMismatch,
                format!("the model leaves the rank of `{}` open", info.name),
            )
            .with_hint("give its shape"));
        }
    };
    match element_count(&shape) {
        Some(count) if count <= limits::ELEMENTS && shape.len() <= limits::RANK => Ok(shape),
        _ => Err(Error::new(
            Code::ModelTooLarge,
            format!(
                "`{}` of shape {shape:?} exceeds {} elements or rank {}",
                info.name,
                limits::ELEMENTS,
                limits::RANK
            ),
        )),
    }
}

fn mismatch(info: &ValueInfo, shape: &[usize]) -> Error {
    Error::new(
        Code::InputMismatch,
        format!(
            "the shape {shape:?} of `{}` does not fit the declared {}",
            info.name,
            info.shape_in_words()
        ),
    )
}

/// The dtype and shape of every tensor of the main graph, for these input shapes. Where the engine's analysis
/// leaves a tensor open, because its shape depends on values, the model is run on zeros.
pub fn infer(model: &Model, dims: &Dims) -> Result<Shapes> {
    let resolved = resolve(model, dims)?;
    let (analysed, outlets) = analyse(lowered(model)?, |_| facts(&resolved))?;
    let mut shapes = Shapes::new();
    for (info, (dtype, shape)) in model.graph.inputs.iter().zip(&resolved) {
        shapes.insert(info.name.clone(), (*dtype, shape.clone()));
    }
    for (name, tensor) in &model.graph.initializers {
        shapes.insert(name.clone(), (tensor.dtype(), tensor.shape().to_vec()));
    }
    let mut open = BTreeSet::new();
    for name in model.graph.tensor_names() {
        if shapes.contains_key(name) {
            continue;
        }
        let fact = outlets.get(name).and_then(|outlet| analysed.outlet_fact(*outlet).ok());
        match fact.and_then(concrete) {
            Some(known) => {
                shapes.insert(name.to_owned(), known);
            }
            None => {
                open.insert(name);
            }
        }
    }
    if !open.is_empty() {
        shapes.extend(observe(model, dims, &resolved, &open)?);
    }
    Ok(shapes)
}

/// Sizes of open first dimensions and of all others. Small ones suit models with little room, such as a table of
/// positions; strides make one of 1 and of 2, so a larger one tells what varies behind them. Networks that halve
/// and double again want powers of two.
const SIZES: [(usize, usize); 5] = [(1, 1), (2, 2), (3, 64), (3, 32), (3, 16)];

/// The smallest sizes of the open dimensions at which the model runs and leaves something of every tensor, with the
/// shapes of all tensors then. Not every network runs on an image of one pixel.
pub fn smallest(model: &Model) -> Result<(Dims, Shapes)> {
    let (mut refused, mut vanishing) = (None, None);
    let whole = |shapes: &Shapes| shapes.values().all(|(_, shape)| !shape.contains(&0));
    for dims in several(model, &Dims::new()) {
        match infer(model, &dims) {
            Ok(shapes) if whole(&shapes) => return Ok((dims, shapes)),
            Ok(shapes) => vanishing = vanishing.or(Some((dims, shapes))),
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    vanishing.ok_or_else(|| refused.unwrap_or_else(unknown))
}

fn unknown() -> Error {
    Error::new(Code::EngineFailed, "no shape of the model is known")
}

/// What holds of every tensor of the main graph whatever size the open dimensions of the inputs have: the dtype,
/// the rank, and those dimensions that stay the same. Found by inference with several sizes.
pub fn declare(model: &Model) -> Result<BTreeMap<String, ValueInfo>> {
    let candidates = several(model, &Dims::new());
    let mut seen: Vec<Shapes> = Vec::new();
    let mut refused = None;
    for dims in &candidates {
        match infer(model, dims) {
            Ok(shapes) => seen.push(shapes),
            Err(error) => refused = refused.or(Some(error)),
        }
        if seen.len() == 3 {
            break;
        }
    }
    let Some(one) = seen.first() else {
        return Err(refused.unwrap_or_else(unknown));
    };
    // A model that runs at one size alone tells nothing about what varies.
    let varies = candidates.len() > 1 && seen.len() == 1;
    let declared = one.iter().map(|(name, (dtype, shape))| {
        let found: Vec<&[usize]> =
            seen.iter().filter_map(|shapes| Some(shapes.get(name)?.1.as_slice())).collect();
        let declared = model.graph.input(name).or_else(|| model.graph.output(name));
        let trusted = declared.filter(|info| fits(info, &found)).cloned();
        let fixed = |(index, size): (usize, &usize)| {
            let same = !varies && found.iter().all(|other| other.get(index) == Some(size));
            if same { Dim::Fixed(*size) } else { Dim::Unknown }
        };
        let info = trusted.unwrap_or_else(|| ValueInfo {
            name: name.clone(),
            dtype: *dtype,
            shape: Some(shape.iter().enumerate().map(fixed).collect()),
        });
        (name.clone(), info)
    });
    Ok(declared.collect())
}

/// The given shapes, with several sizes for the dimensions that they leave open; one where they leave none. What holds
/// at a size of one may not hold at two, and what holds at two may not behind a stride.
pub fn several(model: &Model, given: &Dims) -> Vec<Dims> {
    let mut several: Vec<Dims> = Vec::new();
    for sizes in SIZES {
        let dims = sized(model, given, sizes);
        if !several.contains(&dims) {
            several.push(dims);
        }
    }
    several
}

/// The sizes stand for open first dimensions and for all others. A symbol has one size.
fn sized(model: &Model, given: &Dims, (first, other): (usize, usize)) -> Dims {
    let mut symbols: BTreeMap<&str, usize> = BTreeMap::new();
    let declared = || model.graph.inputs.iter().filter_map(|i| Some((&i.name, i.shape.as_ref()?)));
    for (shape, declared) in declared().filter_map(|(name, dims)| Some((given.get(name)?, dims))) {
        for (size, dim) in shape.iter().zip(declared) {
            if let Dim::Symbol(symbol) = dim {
                symbols.insert(symbol, *size);
            }
        }
    }
    let mut dims = given.clone();
    for (name, shape) in declared().filter(|(name, _)| !given.contains_key(*name)) {
        let sizes = shape.iter().enumerate().map(|(index, dim)| {
            let size = if index == 0 { first } else { other };
            match dim {
                Dim::Fixed(fixed) => *fixed,
                Dim::Symbol(symbol) => *symbols.entry(symbol).or_insert(size),
                Dim::Unknown => size,
            }
        });
        dims.insert(name.clone(), sizes.collect());
    }
    dims
}

/// Whether a declared shape holds of all that were found; exporters leave wrong ones behind.
fn fits(info: &ValueInfo, found: &[&[usize]]) -> bool {
    let holds = |(dim, size): (&Dim, &usize)| !matches!(dim, Dim::Fixed(fixed) if fixed != size);
    info.shape.as_ref().is_some_and(|dims| {
        found.iter().all(|shape| shape.len() == dims.len() && dims.iter().zip(*shape).all(holds))
    })
}

fn concrete(fact: &InferenceFact) -> Option<(DType, Vec<usize>)> {
    let dtype = value::from_datum_type(fact.datum_type.concretize()?)?;
    let shape = fact.shape.concretize()?;
    let shape = shape.iter().map(|dim| dim.to_usize().ok()).collect::<Option<Vec<_>>>()?;
    Some((dtype, shape))
}

/// Runs the model on zeros and looks at the tensors themselves.
fn observe(
    model: &Model,
    dims: &Dims,
    inputs: &[(DType, Vec<usize>)],
    open: &BTreeSet<&str>,
) -> Result<Shapes> {
    let mut probe = model.clone();
    probe.graph.outputs = open
        .iter()
        .map(|name| ValueInfo { name: (*name).to_owned(), dtype: DType::F32, shape: None })
        .collect();
    let program = Program::compile(&probe, dims)?;
    let zeros = inputs
        .iter()
        .map(|(dtype, shape)| Value::zeros(*dtype, shape))
        .collect::<Result<Vec<_>>>()?;
    let outputs = program.run_ordered(&zeros)?;
    let seen = outputs.iter().map(|value| (value.dtype(), value.shape().to_vec()));
    Ok(open.iter().map(|name| (*name).to_owned()).zip(seen).collect())
}
