//! An operator of our own: products of activations, quantised while it runs, with constant 8-bit weights. It stands
//! for the nodes that `onnxruntime.quantization.quantize_dynamic` writes for matrix products of the same activations,
//! and computes what the specification says of them: `DynamicQuantizeLinear`, then `MatMulInteger` in exact integers,
//! then one multiplication by both scales, then the bias.

use std::sync::Arc;

pub(super) use backstitch_kernels::LONGEST;
use backstitch_kernels::{Packed, pack_rows, quantise};
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

/// The operator's name in a graph. Inputs: activations `[…, K]` float32, and for each output weights `[K, N]` int8 or
/// uint8, their scale and zero point, each one number or N, and a bias of N floats. All but the activations are
/// constants. Outputs: `[…, N]`.
pub(super) const NAME: &str = "DynamicProduct";

/// Inputs for each output.
const CONSTANTS: usize = 4;

/// Makes the operator from a node of the graph.
pub(super) fn build(
    _: &tract_onnx::model::ParsingContext<'_>,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    Ok((expand(Unpacked { outputs: node.output.len() }), vec![]))
}

/// Bytes of its packed weights, where an operator is one of these.
pub(super) fn packed_bytes(op: &dyn TypedOp) -> Option<usize> {
    let DynamicProduct(products) = op.downcast_ref::<DynamicProduct>()?;
    Some(products.iter().map(|weights| weights.packed.bytes()).sum())
}

/// The operator before its constants are known.
#[derive(Clone, Debug)]
struct Unpacked {
    outputs: usize,
}

impl Expansion for Unpacked {
    fn name(&self) -> StaticName {
        NAME.into()
    }

    fn nboutputs(&self) -> TractResult<usize> {
        Ok(self.outputs)
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 1 + CONSTANTS * self.outputs)?;
        check_output_arity(outputs, self.outputs)?;
        for (index, output) in outputs.iter().enumerate() {
            solver.equals(&output.datum_type, f32::datum_type())?;
            let weights = &inputs[1 + CONSTANTS * index];
            solver.given_2(&inputs[0].shape, &weights.shape, move |solver, a, b| {
                let mut shape = a.clone();
                if let (Some(last), Some(columns)) = (shape.last_mut(), b.last()) {
                    *last = columns.clone();
                }
                solver.equals(&output.shape, shape)
            })?;
        }
        Ok(())
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        let constant = |outlet: &OutletId| -> TractResult<Arc<Tensor>> {
            let constant = model.outlet_fact(*outlet)?.konst.clone();
            constant.with_context(|| format!("{prefix}: {outlet:?} is no constant"))
        };
        let mut products = Vec::with_capacity(self.outputs);
        for constants in inputs[1..].chunks_exact(CONSTANTS) {
            let all = constants.iter().map(constant).collect::<TractResult<Vec<_>>>()?;
            let [levels, scale, zero, bias] = all.as_slice() else {
                bail!("{prefix}: {} constants", all.len())
            };
            products.push(Weights::new(levels, scale, zero, bias)?);
        }
        model.wire_node(prefix, DynamicProduct(Arc::new(products)), &inputs[..1])
    }
}

/// The operator with packed weights.
#[derive(Clone, Debug)]
struct DynamicProduct(Arc<Vec<Weights>>);

#[derive(Debug)]
struct Weights {
    packed: Packed,
    /// One per column.
    scales: Vec<f32>,
    bias: Vec<f32>,
}

impl Weights {
    fn new(levels: &Tensor, scale: &Tensor, zero: &Tensor, bias: &Tensor) -> TractResult<Self> {
        let &[inner, columns] = levels.shape() else {
            bail!("weights of shape {:?}", levels.shape())
        };
        ensure!(inner <= LONGEST, "{inner} rows of weights, the most are {LONGEST}");
        let numbers = |tensor: &Tensor| -> TractResult<Vec<i16>> {
            let wide = tensor.cast_to::<i16>()?;
            Ok(wide.try_as_plain_ram()?.as_slice::<i16>()?.to_vec())
        };
        let floats = |tensor: &Tensor| -> TractResult<Vec<f32>> {
            Ok(tensor.try_as_plain_ram()?.as_slice::<f32>()?.to_vec())
        };
        let (levels, zeros) = (numbers(levels)?, spread(numbers(zero)?, columns)?);
        let packed = Packed::new(inner, columns, |k, n| levels[k * columns + n] - zeros[n]);
        let (scales, bias) = (spread(floats(scale)?, columns)?, floats(bias)?);
        ensure!(bias.len() == columns, "{} biases for {columns} columns", bias.len());
        Ok(Self { packed, scales, bias })
    }
}

/// One number for each column.
fn spread<T: Clone>(numbers: Vec<T>, columns: usize) -> TractResult<Vec<T>> {
    match numbers.as_slice() {
        [one] => Ok(vec![one.clone(); columns]),
        _ if numbers.len() == columns => Ok(numbers),
        _ => bail!("{} numbers for {columns} columns", numbers.len()),
    }
}

impl PartialEq for DynamicProduct {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for DynamicProduct {}

impl Op for DynamicProduct {
    fn name(&self) -> StaticName {
        NAME.into()
    }

    op_as_typed_op!();
}

impl EvalOp for DynamicProduct {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let input = args_1!(inputs);
        let inner = self.0.first().map_or(0, |weights| weights.packed.inner());
        let last = input.shape().last().copied().unwrap_or_default();
        ensure!(last == inner, "{last} activations for {inner} rows");
        let (levels, scale) = quantise(input.try_as_plain_ram()?.as_slice::<f32>()?);
        let rows = pack_rows(inner, &levels);
        self.0.iter().map(|weights| weights.product(&rows, scale, input.shape())).collect()
    }
}

impl Weights {
    /// The product of packed rows, of which one level is worth `scale`; `shape` is that of the activations.
    fn product(&self, rows: &[i32], scale: f32, shape: &[usize]) -> TractResult<TValue> {
        let Self { packed, scales, bias } = self;
        let mut shape: TVec<usize> = shape.into();
        if let Some(last) = shape.last_mut() {
            *last = packed.columns();
        }
        let mut output = Tensor::zero::<f32>(&shape)?;
        let mut plain = output.try_as_plain_ram_mut()?;
        let scales: Vec<f32> = scales.iter().map(|own| scale * own).collect();
        packed.multiply(rows, &scales, bias, plain.as_slice_mut::<f32>()?);
        Ok(output.into_tvalue())
    }
}

impl TypedOp for DynamicProduct {
    as_op!();

    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let facts = self.0.iter().map(|weights| {
            let mut shape = inputs[0].shape.to_tvec();
            if let Some(last) = shape.last_mut() {
                *last = weights.packed.columns().to_dim();
            }
            f32::fact(shape)
        });
        Ok(facts.collect())
    }

    fn cost(&self, inputs: &[&TypedFact]) -> TractResult<TVec<(Cost, TDim)>> {
        let columns: usize = self.0.iter().map(|weights| weights.packed.columns()).sum();
        Ok(tvec![(Cost::FMA(i8::datum_type()), inputs[0].shape.volume() * columns)])
    }
}
