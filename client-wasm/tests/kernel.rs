//! The matrix kernel of the browser build: tiles of every size, and what the engine fuses into them.

#![cfg(target_arch = "wasm32")]
#![allow(clippy::unwrap_used, reason = "a failed step of a test ends it")]

use backstitch_onnx::engine::{kernels, self_test};
use backstitch_onnx::{Attribute, DType, Dims, Graph, Model, Node, Program, Value, ValueInfo};
use wasm_bindgen_test::{wasm_bindgen_test, wasm_bindgen_test_configure};

wasm_bindgen_test_configure!(run_in_dedicated_worker);

/// Small whole numbers: sums of their products are exact in float32, in any order.
fn numbers(count: usize, seed: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 37 + seed * 11) % 13) as f32 - 6.0).collect()
}

fn run(nodes: Vec<Node>, inputs: &[(&str, &[usize], &[f32])]) -> Vec<f32> {
    let graph = Graph {
        nodes,
        inputs: inputs
            .iter()
            .map(|(name, shape, _)| ValueInfo::fixed(*name, DType::F32, shape))
            .collect(),
        outputs: vec![ValueInfo { name: "y".to_owned(), dtype: DType::F32, shape: None }],
        ..Graph::default()
    };
    let program = Program::compile(&Model { opset: 17, graph }, &Dims::new()).unwrap();
    let fed: Vec<Value> =
        inputs.iter().map(|(_, shape, values)| Value::f32(shape, values).unwrap()).collect();
    program.run_ordered(&fed).unwrap()[0].f32s().unwrap().to_vec()
}

#[wasm_bindgen_test]
fn the_kernel_is_registered_and_preferred() {
    self_test().unwrap();
    assert!(kernels().iter().any(|name| name == backstitch_kernels::NAME), "{:?}", kernels());
}

#[wasm_bindgen_test]
fn products_of_any_size_are_exact() {
    for (m, k, n) in [(1, 1, 1), (4, 3, 8), (5, 7, 9), (3, 64, 2), (17, 5, 33), (8, 129, 16)] {
        let (a, b) = (numbers(m * k, 1), numbers(k * n, 2));
        let product = |row: usize, column: usize| -> f32 {
            (0..k).map(|i| a[row * k + i] * b[i * n + column]).sum()
        };
        let expected: Vec<f32> = (0..m * n).map(|i| product(i / n, i % n)).collect();
        let plain = Node::new("MatMul", &["a", "b"], &["y"]);
        let found = run(vec![plain], &[("a", &[m, k], &a), ("b", &[k, n], &b)]);
        assert_eq!(found, expected, "{m} {k} {n}");

        let turned: Vec<f32> = (0..m * k).map(|i| a[(i % m) * k + i / m]).collect();
        let bias = numbers(n, 3);
        let gemm = Node::new("Gemm", &["a", "b", "c"], &["y"])
            .with("transA", Attribute::Int(1))
            .with("alpha", Attribute::Float(2.0))
            .with("beta", Attribute::Float(-1.0));
        let inputs: [(&str, &[usize], &[f32]); 3] =
            [("a", &[k, m], &turned), ("b", &[k, n], &b), ("c", &[n], &bias)];
        let shifted: Vec<f32> =
            expected.iter().enumerate().map(|(i, x)| 2.0 * x - bias[i % n]).collect();
        assert_eq!(run(vec![gemm], &inputs), shifted, "{m} {k} {n} transposed");
    }
}

#[wasm_bindgen_test]
fn what_follows_a_convolution_is_fused_right() {
    let (channels, out, side) = (3, 6, 7);
    let (x, w) = (numbers(channels * side * side, 4), numbers(out * channels * 9, 5));
    let (bias, more) = (numbers(out, 6), numbers(out * 25, 7));
    let conv = |o: usize, row: usize, column: usize| -> f32 {
        let taps = (0..channels * 9).map(|tap| {
            let (c, dy, dx) = (tap / 9, tap / 3 % 3, tap % 3);
            x[(c * side + row + dy) * side + column + dx] * w[o * channels * 9 + tap]
        });
        taps.sum::<f32>() + bias[o]
    };
    let plain: Vec<f32> = (0..out * 25).map(|i| conv(i / 25, i / 5 % 5, i % 5)).collect();
    let inputs: [(&str, &[usize], &[f32]); 4] = [
        ("x", &[1, channels, side, side], &x),
        ("w", &[out, channels, 3, 3], &w),
        ("b", &[out], &bias),
        ("r", &[1, out, 5, 5], &more),
    ];
    let after = |last: Node| {
        let first = Node::new("Conv", &["x", "w", "b"], &["h"]);
        run(vec![first, Node::new("Add", &["h", "r"], &["s"]), last], &inputs)
    };
    let summed: Vec<f32> = plain.iter().zip(&more).map(|(x, r)| x + r).collect();
    let relu: Vec<f32> = summed.iter().map(|x| x.max(0.0)).collect();
    assert_eq!(after(Node::new("Relu", &["s"], &["y"])), relu);
    let leaky = Node::new("LeakyRelu", &["s"], &["y"]).with("alpha", Attribute::Float(0.5));
    let sloped: Vec<f32> = summed.iter().map(|x| if *x > 0.0 { *x } else { 0.5 * x }).collect();
    assert_eq!(after(leaky), sloped);
    assert_eq!(
        after(Node::new("Neg", &["s"], &["y"])),
        summed.iter().map(|x| -x).collect::<Vec<_>>()
    );
}
