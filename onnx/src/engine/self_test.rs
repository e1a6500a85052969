//! A check at start that the engine's fast kernels are linked in and compute right. In the browser they register
//! themselves in constructors, which a wrong build or loader silently leaves out.

use tract_onnx::prelude::tract_linalg::{isa, mmm_routines};

use super::{Dims, Program, Value};
use crate::error::{Code, Error, Result};
use crate::model::{Graph, Model, Node, ValueInfo};
use crate::tensor::DType;

/// The names of the matrix kernels that this machine can run.
pub fn kernels() -> Vec<String> {
    mmm_routines::runnable_for(&isa::native())
        .iter()
        .map(|kernel| kernel.name().to_owned())
        .collect()
}

/// Proves that the SIMD matrix kernels are there, and that a product of two matrices is right.
pub fn self_test() -> Result<()> {
    backstitch_kernels::register();
    let names = kernels();
    let fast = names.iter().any(|name| name == backstitch_kernels::NAME);
    if cfg!(target_arch = "wasm32") && !fast {
        return Err(Error::new(
            Code::EngineFailed,
            format!("the SIMD kernel is not registered, only {names:?}"),
        )
        .with_hint(
            "build with target-feature=+simd128 and call __wasm_call_ctors before anything else",
        ));
    }
    let side = 17;
    let square = [side, side];
    let model = Model {
        opset: 13,
        graph: Graph {
            nodes: vec![Node::new("MatMul", &["a", "b"], &["c"])],
            inputs: vec![
                ValueInfo::fixed("a", DType::F32, &square),
                ValueInfo::fixed("b", DType::F32, &square),
            ],
            outputs: vec![ValueInfo::fixed("c", DType::F32, &square)],
            ..Graph::default()
        },
    };
    // Small whole numbers, so that every kernel must give exactly the same product.
    let element = |row: usize, column: usize| ((row * 7 + column * 3) % 11) as f32 - 5.0;
    let matrix: Vec<f32> = (0..side * side).map(|i| element(i / side, i % side)).collect();
    let program = Program::compile(&model, &Dims::new())?;
    let value = Value::f32(&square, &matrix)?;
    let outputs = program.run_ordered(&[value.clone(), value])?;
    let product = outputs.first().map(Value::f32s).transpose()?.unwrap_or_default();
    for (index, found) in product.iter().enumerate() {
        let (row, column) = (index / side, index % side);
        let expected: f32 = (0..side).map(|k| element(row, k) * element(k, column)).sum();
        if *found != expected {
            return Err(Error::new(
                Code::EngineFailed,
                format!(
                    "the matrix kernels compute {found} instead of {expected} at {row}, {column}"
                ),
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_engine_computes_a_product_right() {
        super::self_test().unwrap();
    }
}
