//! An operator of our own: the softmax cross-entropy of `[N, C]` logits with its gradient, in one pass over each row.

use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

/// The operator's name in a graph. Inputs: logits `[N, C]` float32 and N class numbers int64, where one that is no class
/// leaves its row out. Outputs: `−Σ log p / n`, a number, and its gradient `(p − hot) / n`, `[N, C]`; `n` counts the
/// rows that are not left out, at least one.
pub(super) const NAME: &str = "CrossEntropyGradient";

/// Makes the operator from a node of the graph.
pub(super) fn build(
    _: &tract_onnx::model::ParsingContext<'_>,
    _: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    Ok((expand(Untyped), vec![]))
}

/// The operator before types and shapes are known.
#[derive(Clone, Debug)]
struct Untyped;

impl Expansion for Untyped {
    fn name(&self) -> StaticName {
        NAME.into()
    }

    fn nboutputs(&self) -> TractResult<usize> {
        Ok(2)
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 2)?;
        check_output_arity(outputs, 2)?;
        solver.equals(&inputs[0].rank, 2)?;
        solver.equals(&outputs[0].rank, 0)?;
        solver.equals(&outputs[1].shape, &inputs[0].shape)?;
        for output in outputs {
            solver.equals(&output.datum_type, &inputs[0].datum_type)?;
        }
        Ok(())
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        model.wire_node(prefix, CrossEntropyGradient, inputs)
    }
}

/// The operator.
#[derive(Clone, Debug, PartialEq, Eq)]
struct CrossEntropyGradient;

impl Op for CrossEntropyGradient {
    fn name(&self) -> StaticName {
        NAME.into()
    }

    op_as_typed_op!();
}

impl EvalOp for CrossEntropyGradient {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let (logits, target) = args_2!(inputs);
        let &[rows, classes] = logits.shape() else { bail!("logits of {:?}", logits.shape()) };
        ensure!(target.len() == rows, "{} classes for {rows} rows", target.len());
        let mut gradient = logits.into_tensor();
        let target = target.try_as_plain_ram()?;
        let mut values = gradient.try_as_plain_ram_mut()?;
        let loss = descend(values.as_slice_mut::<f32>()?, classes, target.as_slice::<i64>()?);
        Ok(tvec![tensor0(loss).into_tvalue(), gradient.into_tvalue()])
    }
}

/// Puts the gradient in the place of the logits, and yields the loss.
fn descend(logits: &mut [f32], classes: usize, target: &[i64]) -> f32 {
    let class = |id: i64| usize::try_from(id).ok().filter(|class| *class < classes);
    let count = target.iter().filter(|id| class(**id).is_some()).count().max(1) as f32;
    let mut total = 0.0;
    for (row, id) in logits.chunks_exact_mut(classes.max(1)).zip(target) {
        let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let log_sum = row.iter().map(|x| (x - max).exp()).sum::<f32>().ln();
        let class = class(*id);
        let within = f32::from(class.is_some());
        if let Some(class) = class {
            total += row[class] - max - log_sum;
        }
        for (index, value) in row.iter_mut().enumerate() {
            let hot = f32::from(class == Some(index));
            // What is not finite stays so, whether or not its row counts.
            *value = ((*value - max - log_sum).exp() * within - hot) / count;
        }
    }
    -total / count
}

impl TypedOp for CrossEntropyGradient {
    as_op!();

    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let shape: &[TDim] = &[];
        Ok(tvec![f32::fact(shape), inputs[0].without_value()])
    }
}
