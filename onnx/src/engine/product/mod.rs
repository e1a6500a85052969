//! An operator of our own: a product of activations, quantised while it runs, with constant 8-bit weights. It stands
//! for the nodes that `onnxruntime.quantization.quantize_dynamic` writes for a matrix product, and computes what the
//! specification says of them: `DynamicQuantizeLinear`, then `MatMulInteger` in exact integers, then one
//! multiplication by both scales, then the bias.

mod kernel;

use std::sync::Arc;

use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

use kernel::Packed;

/// The operator's name in a graph. Inputs: activations `[…, K]` float32; weights `[K, N]` int8 or uint8, their scale and
/// zero point, each one number or N; bias of N floats. All but the activations are constants. Output: `[…, N]`.
pub(super) const NAME: &str = "DynamicProduct";

/// The longest inner dimension that it takes.
pub(super) const LONGEST: usize = kernel::LONGEST;

/// Makes the operator from a node of the graph.
pub(super) fn build(
    _: &tract_onnx::model::ParsingContext<'_>,
    _: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    Ok((expand(Unpacked), vec![]))
}

/// The operator before its constants are known.
#[derive(Clone, Debug)]
struct Unpacked;

impl Expansion for Unpacked {
    fn name(&self) -> StaticName {
        NAME.into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 5)?;
        check_output_arity(outputs, 1)?;
        solver.equals(&outputs[0].datum_type, f32::datum_type())?;
        solver.given_2(&inputs[0].shape, &inputs[1].shape, move |solver, a, b| {
            let mut shape = a.clone();
            if let (Some(last), Some(columns)) = (shape.last_mut(), b.last()) {
                *last = columns.clone();
            }
            solver.equals(&outputs[0].shape, shape)
        })
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        let constant = |index: usize| -> TractResult<Arc<Tensor>> {
            let constant = model.outlet_fact(inputs[index])?.konst.clone();
            constant.with_context(|| format!("{prefix}: the input {index} is no constant"))
        };
        let op =
            DynamicProduct::new(&*constant(1)?, &*constant(2)?, &*constant(3)?, &*constant(4)?)?;
        model.wire_node(prefix, op, &inputs[..1])
    }
}

/// The operator with packed weights.
#[derive(Clone, Debug)]
struct DynamicProduct(Arc<Weights>);

#[derive(Debug)]
struct Weights {
    packed: Packed,
    /// One per column.
    scales: Vec<f32>,
    bias: Vec<f32>,
}

impl DynamicProduct {
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
        Ok(Self(Arc::new(Weights { packed, scales, bias })))
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
        let Weights { packed, scales, bias } = &*self.0;
        let input = args_1!(inputs);
        let mut shape: TVec<usize> = input.shape().into();
        if let Some(last) = shape.last_mut() {
            ensure!(*last == packed.inner(), "{last} activations for {} rows", packed.inner());
            *last = packed.columns();
        }
        let (levels, scale) = quantise(input.try_as_plain_ram()?.as_slice::<f32>()?);
        let rows = kernel::pack_rows(packed.inner(), &levels);
        let mut output = Tensor::zero::<f32>(&shape)?;
        let mut plain = output.try_as_plain_ram_mut()?;
        let values = plain.as_slice_mut::<f32>()?;
        packed.multiply(&rows, |row, column, sums| {
            let made = values[row * packed.columns() + column..].iter_mut();
            let columns = scales[column..].iter().zip(&bias[column..]);
            for ((made, sum), (scales, bias)) in made.zip(sums).zip(columns) {
                *made = *sum as f32 * (scale * scales) + bias;
            }
        });
        Ok(tvec![output.into_tvalue()])
    }
}

impl TypedOp for DynamicProduct {
    as_op!();

    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let mut shape = inputs[0].shape.to_tvec();
        if let Some(last) = shape.last_mut() {
            *last = self.0.packed.columns().to_dim();
        }
        Ok(tvec![f32::fact(shape)])
    }

    fn cost(&self, inputs: &[&TypedFact]) -> TractResult<TVec<(Cost, TDim)>> {
        let columns = self.0.packed.columns();
        Ok(tvec![(Cost::FMA(i8::datum_type()), inputs[0].shape.volume() * columns)])
    }
}

/// `DynamicQuantizeLinear`, with the zero point subtracted again: levels within ±255, and what one level is worth.
fn quantise(values: &[f32]) -> (Vec<i16>, f32) {
    let least = values.iter().fold(0f32, |least, value| value.min(least));
    let most = values.iter().fold(0f32, |most, value| value.max(most));
    // Where everything is 0, any scale will do.
    let scale = if most > least { (most - least) / 255.0 } else { 1.0 };
    let zero = (-least / scale).round_ties_even().clamp(0.0, 255.0);
    let level = |value: &f32| ((value / scale).round_ties_even().clamp(-zero, 255.0 - zero)) as i16;
    (values.iter().map(level).collect(), scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_follow_the_specification() {
        // The example of the operator's own documentation: scale 0.019607844, zero point 153.
        let (levels, scale) = quantise(&[0.0, 2.0, -3.0, -2.5, 1.34, 0.5]);
        assert_eq!(scale, 5.0 / 255.0);
        let shifted: Vec<i16> = levels.iter().map(|level| level + 153).collect();
        assert_eq!(shifted, [153, 255, 0, 26, 221, 179]);
    }

    #[test]
    fn nothing_but_zeros_stays_zero() {
        assert_eq!(quantise(&[0.0; 3]), (vec![0; 3], 1.0));
    }
}
