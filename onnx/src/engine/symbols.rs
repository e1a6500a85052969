//! Shapes in terms of open dimensions, by the engine's own symbolic analysis.

use std::collections::BTreeMap;

use tract_onnx::prelude::{InferenceFact, TDim};
use tract_onnx::tract_hir::infer::Factoid;
use tract_onnx::tract_hir::internal::{SymbolScope, ToDim};

use super::{Dims, analyse, lowered, value};
use crate::cost::Expression;
use crate::error::{Code, Error, Result};
use crate::model::{Dim, Model, ValueInfo};
use crate::tensor::DType;

/// The dtype and shape of every tensor of the main graph in terms of the dimensions that the inputs and `dims` leave
/// open. A dimension without a name is called by its input and axis, as in `x.0`.
pub fn symbolic(model: &Model, dims: &Dims) -> Result<BTreeMap<String, (DType, Vec<Expression>)>> {
    // Refuses what does not fit the declarations.
    super::resolve(model, dims)?;
    let graph = &model.graph;
    let mut fixed: BTreeMap<&str, usize> = BTreeMap::new();
    for (info, given) in graph.inputs.iter().filter_map(|i| Some((i, dims.get(&i.name)?))) {
        for (dim, size) in info.shape.iter().flatten().zip(given) {
            if let Dim::Symbol(symbol) = dim {
                fixed.insert(symbol, *size);
            }
        }
    }
    let (analysed, outlets) = analyse(lowered(model)?, |scope| {
        graph.inputs.iter().map(|info| input_fact(info, dims, &fixed, scope)).collect()
    })?;
    let mut shapes = BTreeMap::new();
    for (name, tensor) in &graph.initializers {
        let shape = tensor.shape().iter().map(|size| Expression::from(*size as u64));
        shapes.insert(name.clone(), (tensor.dtype(), shape.collect()));
    }
    for name in graph.tensor_names() {
        if shapes.contains_key(name) {
            continue;
        }
        let fact = outlets.get(name).and_then(|outlet| analysed.outlet_fact(*outlet).ok());
        let Some(known) = fact.and_then(open_shape) else {
            return Err(Error::new(
                Code::EngineFailed,
                format!("the shape of `{name}` depends on more than the open dimensions"),
            )
            .with_hint("give the shapes of the inputs"));
        };
        shapes.insert(name.to_owned(), known);
    }
    Ok(shapes)
}

fn input_fact(
    info: &ValueInfo,
    dims: &Dims,
    fixed: &BTreeMap<&str, usize>,
    scope: &SymbolScope,
) -> Result<InferenceFact> {
    let dtype = value::to_datum_type(info.dtype)?;
    if let Some(given) = dims.get(&info.name) {
        return Ok(InferenceFact::dt_shape(dtype, given));
    }
    let shape = info.shape.iter().flatten().enumerate().map(|(axis, dim)| match dim {
        Dim::Fixed(size) => size.to_dim(),
        Dim::Symbol(symbol) => fixed
            .get(symbol.as_str())
            .map_or_else(|| scope.sym(symbol).to_dim(), |size| size.to_dim()),
        Dim::Unknown => scope.sym(&format!("{}.{axis}", info.name)).to_dim(),
    });
    Ok(InferenceFact::dt_shape(dtype, shape.collect::<Vec<TDim>>()))
}

fn open_shape(fact: &InferenceFact) -> Option<(DType, Vec<Expression>)> {
    let dtype = value::from_datum_type(fact.datum_type.concretize()?)?;
    let shape = fact.shape.concretize()?;
    Some((dtype, shape.iter().map(expression).collect::<Option<_>>()?))
}

fn expression(dim: &TDim) -> Option<Expression> {
    let all = |list: &[TDim]| list.iter().map(expression).collect::<Option<Vec<_>>>();
    Some(match dim {
        TDim::Val(value) => Expression::constant(i128::from(*value)),
        TDim::Sym(symbol) => Expression::symbol(&symbol.to_string()),
        TDim::Add(list) => {
            all(list)?.iter().fold(Expression::default(), |sum, part| sum.plus(part))
        }
        TDim::Mul(list) => {
            all(list)?.iter().fold(Expression::from(1), |product, part| product.times(part))
        }
        TDim::MulInt(factor, part) => {
            expression(part)?.times(&Expression::constant(i128::from(*factor)))
        }
        TDim::Div(part, divisor) => expression(part)?.floor(i128::from(*divisor)),
        // Sizes that broadcast are equal or one.
        TDim::Broadcast(list) | TDim::Max(list) => Expression::most(all(list)?),
        TDim::Min(list) => Expression::least(all(list)?),
        TDim::Ge(..) | TDim::Eq(..) => return None,
    })
}
