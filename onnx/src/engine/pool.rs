//! The engine's operator for the largest values of windows, with a kernel of ours: the engine's own goes through a window
//! element by element unless its stride is 1.

use backstitch_kernels::{Windows, max_pool};
use tract_onnx::tract_core::ops::cnn::OptMaxPool;
use tract_onnx::tract_hir::internal::*;

/// Gives every pool our kernel that it can do: float32 with channels first, over one or two axes of known length,
/// without the places of the largest.
pub(super) fn speed(model: &mut TypedModel) -> TractResult<()> {
    for node in 0..model.nodes().len() {
        let Some(pool) = replacement(model, model.node(node))? else { continue };
        let node = model.node(node);
        TypedModelPatch::replace_single_op(model, node, &node.inputs, pool)?.apply(model)?;
    }
    Ok(())
}

fn replacement(model: &TypedModel, node: &TypedNode) -> TractResult<Option<MaxPool>> {
    let Some(pool) = node.op_as::<OptMaxPool>() else { return Ok(None) };
    let input = model.outlet_fact(node.inputs[0])?;
    let planes = pool.with_index_outputs.is_none()
        && !pool.pool_spec.data_format.c_is_last()
        && input.datum_type == f32::datum_type();
    let Some(shape) = input.shape.as_concrete().filter(|_| planes) else { return Ok(None) };
    let geometry = pool.geometry.to_concrete(shape)?;
    let (patch, lengths) = (&geometry.patch, geometry.input_shape.hw_dims());
    let axis = |axis: usize| Windows {
        input: lengths[axis],
        output: patch.output_shape[axis],
        size: patch.spec.kernel_shape[axis],
        stride: patch.spec.strides[axis],
        dilation: patch.spec.dilations[axis],
        before: patch.pad_before[axis],
    };
    let line = Windows { input: 1, output: 1, size: 1, stride: 1, dilation: 1, before: 0 };
    let (rows, columns) = match lengths.len() {
        1 => (line, axis(0)),
        2 => (axis(0), axis(1)),
        _ => return Ok(None),
    };
    Ok(Some(MaxPool { rows, columns, shape: geometry.output_shape.shape.clone() }))
}

/// The operator. Input: planes of float32, whatever axes count them. Output: as many, of the given shape as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
struct MaxPool {
    rows: Windows,
    columns: Windows,
    shape: TVec<usize>,
}

impl Op for MaxPool {
    fn name(&self) -> StaticName {
        "PlaneMaxPool".into()
    }

    op_as_typed_op!();
}

impl EvalOp for MaxPool {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let input = args_1!(inputs);
        let input = input.try_as_plain_ram()?;
        let mut output = Tensor::zero::<f32>(&self.shape)?;
        let mut plain = output.try_as_plain_ram_mut()?;
        max_pool(input.as_slice()?, plain.as_slice_mut()?, self.rows, self.columns);
        Ok(tvec![output.into_tvalue()])
    }
}

impl TypedOp for MaxPool {
    as_op!();

    fn output_facts(&self, _: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec![f32::fact(&self.shape)])
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Dims, Program};
    use crate::model::{Attribute, Graph, Model, Node, ValueInfo};
    use crate::tensor::DType;

    /// The operators that a pool over a tensor of this shape is compiled to.
    fn compiled(shape: &[usize], kernel: &[i64], outputs: &[&str]) -> Vec<String> {
        let mut node = Node::new("MaxPool", &["x"], outputs);
        node.attributes.insert("kernel_shape".into(), Attribute::Ints(kernel.to_vec()));
        let open = |name: &str, dtype| ValueInfo { name: name.into(), dtype, shape: None };
        let outputs = outputs.iter().zip([DType::F32, DType::I64]);
        let graph = Graph {
            nodes: vec![node],
            inputs: vec![ValueInfo::fixed("x", DType::F32, shape)],
            outputs: outputs.map(|(name, dtype)| open(name, dtype)).collect(),
            ..Graph::default()
        };
        let program = Program::compile(&Model { opset: 17, graph }, &Dims::new()).unwrap();
        program.plan.model().nodes().iter().map(|node| node.op.name().into_owned()).collect()
    }

    #[test]
    fn pools_over_one_and_two_axes_have_our_kernel() {
        let ours = |ops: &[String]| ops.iter().any(|op| op == "PlaneMaxPool");
        assert!(ours(&compiled(&[1, 2, 9], &[3], &["y"])));
        assert!(ours(&compiled(&[2, 2, 9, 9], &[2, 2], &["y"])));
        assert!(!ours(&compiled(&[1, 2, 4, 4, 4], &[2, 2, 2], &["y"])));
        assert!(!ours(&compiled(&[2, 2, 9, 9], &[2, 2], &["y", "places"])));
    }
}
