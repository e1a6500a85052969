//! Gradients of whole networks against those that PyTorch's autograd found in f64. `golden/gradients.py` made them.

use std::collections::BTreeMap;

use backstitch_onnx::autodiff::{Loss, Objective, differentiate};
use backstitch_onnx::{Dims, Error, Program, Value};

use crate::golden::{case, folder};

/// Relative to the largest element of a gradient, for f32 networks of a dozen layers.
const TOLERANCE: f64 = 1e-5;

#[test]
fn networks_agree_with_pytorch() {
    let mut names: Vec<String> = std::fs::read_dir(folder().join("gradients"))
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
        .filter_map(|file| file.strip_suffix(".onnx").map(str::to_owned))
        .collect();
    names.sort();
    assert!(names.len() >= 5, "{names:?}");
    for name in names {
        let error = worst(&name).unwrap();
        println!("{name}: {error:.1e}");
        assert!(error <= TOLERANCE, "{name}: relative error {error:.1e}");
    }
}

fn worst(name: &str) -> Result<f64, Error> {
    let golden = case(&format!("gradients/{name}"));
    let loss: Loss = name.split_once('.').unwrap().1.parse()?;
    let trainable: Vec<&str> =
        golden.outputs.keys().filter_map(|output| output.strip_prefix("grad.")).collect();
    let dims: Dims = golden
        .inputs
        .iter()
        .filter(|(input, _)| *input != "target")
        .map(|(input, tensor)| (input.clone(), tensor.shape().to_vec()))
        .collect();
    let training = differentiate(
        &golden.model,
        &Objective { loss, output: "y", trainable: &trainable },
        &dims,
    )?;
    let mut feed: BTreeMap<String, Value> = BTreeMap::new();
    for (input, tensor) in &golden.inputs {
        feed.insert(input.clone(), Value::try_from(tensor)?);
    }
    for weight in &trainable {
        let tensor = &golden.model.graph.initializers[*weight];
        feed.insert((*weight).to_owned(), Value::try_from(tensor)?);
    }
    let outputs = Program::compile(&training, &Dims::new())?.run(&feed)?;
    let mut worst: f64 = 0.0;
    for (output, expected) in &golden.outputs {
        let (ours, theirs) = (outputs[output].to_tensor()?, expected);
        assert_eq!(ours.shape(), theirs.shape(), "{name} {output}");
        let (ours, theirs) = (ours.to_f64()?, theirs.to_f64()?);
        let scale = theirs.iter().fold(1e-6f64, |m, v| m.max(v.abs()));
        let error = ours.iter().zip(&theirs).fold(0f64, |m, (a, b)| m.max((a - b).abs())) / scale;
        worst = if ours.iter().all(|v| v.is_finite()) { worst.max(error) } else { f64::INFINITY };
    }
    Ok(worst)
}
