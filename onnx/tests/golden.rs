//! Every output of every golden case, one at a time, against onnxruntime. `golden/make.py` made the cases.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use backstitch_onnx::{DType, Dims, Model, Program, Tensor, Value};

/// Largest difference allowed between two float results, relative to the larger of 1 and the result.
const TOLERANCE: f64 = 2e-5;

/// Outputs that the engine cannot compute, or computes otherwise than onnxruntime; they must keep failing, so
/// that an improvement is noticed. All fail with a typed error; none gives a wrong result.
const KNOWN_FAILURES: &[(&str, &str)] = &[
    ("attributes-17 lstm45_0", "sequences of different lengths"),
    ("attributes-17 lstm45_1", "sequences of different lengths"),
    ("attributes-17 lstm45_2", "sequences of different lengths"),
    ("attributes-21 lstm55_0", "sequences of different lengths"),
    ("attributes-21 lstm55_1", "sequences of different lengths"),
    ("attributes-21 lstm55_2", "sequences of different lengths"),
    ("attributes-21 pad45", "padding by wrapping around"),
];

pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) model: Model,
    pub(crate) inputs: BTreeMap<String, Tensor>,
    pub(crate) outputs: BTreeMap<String, Tensor>,
}

pub(crate) fn cases() -> Vec<Case> {
    let mut names: Vec<String> = std::fs::read_dir(folder())
        .unwrap()
        .filter_map(|entry| {
            entry
                .unwrap()
                .file_name()
                .into_string()
                .unwrap()
                .strip_suffix(".onnx")
                .map(str::to_owned)
        })
        .collect();
    names.sort();
    names.into_iter().map(|name| case(&name)).collect()
}

pub(crate) fn case(name: &str) -> Case {
    let read =
        |extension: &str| std::fs::read(folder().join(format!("{name}.{extension}"))).unwrap();
    let model = Model::from_bytes(&read("onnx")).unwrap();
    let bytes = read("safetensors");
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let (mut inputs, mut outputs) = (BTreeMap::new(), BTreeMap::new());
    for (key, view) in tensors.tensors() {
        let tensor =
            Tensor::from_bytes(dtype(view.dtype()), view.shape().to_vec(), view.data()).unwrap();
        match key.split_once('.').unwrap() {
            ("in", input) => inputs.insert(input.to_owned(), tensor),
            (_, output) => outputs.insert(output.to_owned(), tensor),
        };
    }
    Case { name: name.to_owned(), model, inputs, outputs }
}

fn dtype(dtype: safetensors::Dtype) -> DType {
    use safetensors::Dtype;
    match dtype {
        Dtype::F32 => DType::F32,
        Dtype::F64 => DType::F64,
        Dtype::F16 => DType::F16,
        Dtype::I8 => DType::I8,
        Dtype::U8 => DType::U8,
        Dtype::I32 => DType::I32,
        Dtype::I64 => DType::I64,
        Dtype::U32 => DType::U32,
        Dtype::BOOL => DType::Bool,
        other => panic!("{other:?}"),
    }
}

/// The largest relative difference of two tensors, or why they cannot be compared.
pub(crate) fn difference(found: &Tensor, expected: &Tensor) -> Result<f64, String> {
    if found.dtype() != expected.dtype() || found.shape() != expected.shape() {
        return Err(format!(
            "{} {:?} instead of {} {:?}",
            found.dtype().name(),
            found.shape(),
            expected.dtype().name(),
            expected.shape()
        ));
    }
    let pairs = found.to_f64().unwrap().into_iter().zip(expected.to_f64().unwrap());
    Ok(pairs
        .map(|(a, b)| {
            if a == b || (a.is_nan() && b.is_nan()) {
                0.0
            } else {
                (a - b).abs() / b.abs().max(1.0)
            }
        })
        .fold(0.0, |worst: f64, d| if d.is_nan() { f64::INFINITY } else { worst.max(d) }))
}

fn run_one(case: &Case, output: &str) -> Result<f64, String> {
    let mut model = case.model.clone();
    model.graph.outputs.retain(|info| info.name == output);
    model.graph.prune();
    let dims: Dims =
        case.inputs.iter().map(|(name, tensor)| (name.clone(), tensor.shape().to_vec())).collect();
    let program = Program::compile(&model, &dims).map_err(|e| e.to_string())?;
    let inputs = case
        .inputs
        .iter()
        .map(|(name, tensor)| (name.clone(), Value::try_from(tensor).unwrap()))
        .collect();
    let outputs = program.run(&inputs).map_err(|e| e.to_string())?;
    difference(&outputs[output].to_tensor().unwrap(), &case.outputs[output])
}

#[test]
fn every_operator_agrees_with_onnxruntime() {
    let mut complaints = Vec::new();
    let mut worst = (0.0, String::new());
    let mut count = 0;
    for case in cases() {
        for output in case.outputs.keys() {
            let place = format!("{} {output}", case.name);
            let known = KNOWN_FAILURES.iter().any(|(failure, _)| *failure == place);
            count += 1;
            match run_one(&case, output) {
                Ok(difference) if difference <= TOLERANCE => {
                    if known {
                        complaints.push(format!("{place}: agrees now; take it off the list"));
                    }
                    if difference > worst.0 {
                        worst = (difference, place);
                    }
                }
                Err(_) if known => {}
                Ok(difference) => complaints.push(format!("{place}: differs by {difference:e}")),
                Err(why) => complaints.push(format!("{place}: {why}")),
            }
        }
    }
    println!("{count} outputs, largest relative difference {:e} at {}", worst.0, worst.1);
    assert!(complaints.is_empty(), "{} of {count}:\n{}", complaints.len(), complaints.join("\n"));
}

#[test]
fn inferred_shapes_are_those_of_onnxruntime() {
    for case in cases() {
        let dims: Dims = case
            .inputs
            .iter()
            .map(|(name, tensor)| (name.clone(), tensor.shape().to_vec()))
            .collect();
        if KNOWN_FAILURES.iter().any(|(failure, _)| failure.starts_with(&format!("{} ", case.name)))
        {
            continue;
        }
        let shapes = match backstitch_onnx::engine::infer(&case.model, &dims) {
            Ok(shapes) => shapes,
            Err(error) => panic!("{}: {error}", case.name),
        };
        for (name, tensor) in &case.outputs {
            if name.starts_with("nonzero") {
                continue; // Its shape depends on values, and inference looks at zeros.
            }
            assert_eq!(
                shapes[name],
                (tensor.dtype(), tensor.shape().to_vec()),
                "{} {name}",
                case.name
            );
        }
    }
}
