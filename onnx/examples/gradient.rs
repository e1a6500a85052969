//! Differentiates a model file, times a gradient step against the forward of the same suffix, and writes what the
//! dev scripts beside the golden files compare with other runtimes.
//!
//!     cargo run -p backstitch-onnx --example gradient -- MODEL --output logits --loss softmax_cross_entropy
//!         [--shape image=1,3,224,224] [--wrt conv.weight,conv.bias] [--runs 20] [--dump DIR]
//!
//! Without `--wrt` every float initializer that reaches the output by operators with a rule is trained.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use backstitch_onnx::autodiff::{Loss, Objective, differentiate};
use backstitch_onnx::cut::split_frozen;
use backstitch_onnx::{Code, DType, Dims, Model, Program, Result, Tensor, Value, ValueInfo};

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let file = arguments.next().ok_or("give a model file")?;
    let (mut loss, mut output, mut wrt) = (Loss::MeanSquaredError, None, None);
    let (mut dims, mut runs, mut dump) = (Dims::new(), 20usize, None);
    while let (Some(flag), Some(value)) = (arguments.next(), arguments.next()) {
        match flag.as_str() {
            "--loss" => loss = value.parse()?,
            "--output" => output = Some(value),
            "--wrt" => wrt = Some(value.split(',').map(str::to_owned).collect::<Vec<_>>()),
            "--runs" => runs = value.parse()?,
            "--dump" => dump = Some(value),
            "--shape" => {
                let (name, shape) = value.split_once('=').ok_or("--shape NAME=1,2")?;
                let shape: std::result::Result<_, _> = shape.split(',').map(str::parse).collect();
                dims.insert(name.to_owned(), shape?);
            }
            other => return Err(format!("unknown flag {other}").into()),
        }
    }
    let model = Model::from_bytes(&std::fs::read(&file)?)?;
    let output = output.unwrap_or_else(|| model.graph.outputs[0].name.clone());
    let trainable = match wrt {
        Some(names) => names,
        None => all_trainable(&model, loss, &output, &dims)?,
    };
    let names: Vec<&str> = trainable.iter().map(String::as_str).collect();
    let objective = Objective { loss, output: &output, trainable: &names };
    let started = Instant::now();
    let training = differentiate(&model, &objective, &dims)?;
    println!(
        "{} trainable tensors, {} nodes, differentiated in {:.0} ms",
        names.len(),
        training.graph.nodes.len(),
        started.elapsed().as_secs_f64() * 1e3
    );
    let inputs = inputs(&model, &training)?;
    let outputs = Program::compile(&training, &Dims::new())?.run(&inputs)?;
    if let Some(folder) = dump {
        let stem = Path::new(&file).file_stem().unwrap_or_default().to_string_lossy().into_owned();
        write(Path::new(&folder), &stem, (&model, &training), (&inputs, &outputs))?;
    }
    time(&model, &training, &inputs, (&output, &names), runs)?;
    Ok(())
}

/// Tries all float initializers at once, then leaves out those that errors name, then one by one.
fn all_trainable(model: &Model, loss: Loss, output: &str, dims: &Dims) -> Result<Vec<String>> {
    let floats = model.graph.initializers.iter().filter(|(_, tensor)| tensor.dtype().is_float());
    let mut names: Vec<String> = floats.map(|(name, _)| name.clone()).collect();
    let attempt = |names: &[String]| {
        let trainable: Vec<&str> = names.iter().map(String::as_str).collect();
        differentiate(model, &Objective { loss, output, trainable: &trainable }, dims).map(drop)
    };
    loop {
        match attempt(&names) {
            Ok(()) => return Ok(names),
            Err(error) if error.code() == Code::GradientUnreachable => {
                let quoted = error.message().split('`').nth(1).unwrap_or_default().to_owned();
                names.retain(|name| *name != quoted);
            }
            Err(error) if error.code() == Code::GradientUnsupported => {
                println!("not all: {error}");
                names.retain(|name| attempt(std::slice::from_ref(name)).is_ok());
            }
            Err(error) => return Err(error),
        }
    }
}

/// Weights as they are, everything else pseudo-random; token ids small, masks one.
fn inputs(model: &Model, training: &Model) -> Result<BTreeMap<String, Value>> {
    let mut seed = 1u64;
    let mut unit = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 40) as f32 / (1u64 << 24) as f32
    };
    let mut feed = BTreeMap::new();
    for info in &training.graph.inputs {
        let tensor = match model.graph.initializers.get(&info.name) {
            Some(tensor) => tensor.clone(),
            None => random(info, &mut unit)?,
        };
        feed.insert(info.name.clone(), Value::try_from(&tensor)?);
    }
    Ok(feed)
}

fn random(info: &ValueInfo, unit: &mut impl FnMut() -> f32) -> Result<Tensor> {
    let shape: Vec<usize> = info
        .shape
        .iter()
        .flatten()
        .map(|dim| if let backstitch_onnx::Dim::Fixed(size) = dim { *size } else { 1 })
        .collect();
    let count = shape.iter().product::<usize>();
    let mask = info.name.contains("mask");
    match info.dtype {
        DType::F32 => Tensor::new(shape, &(0..count).map(|_| unit() * 2.0 - 1.0).collect::<Vec<_>>()),
        DType::I32 => Tensor::new(shape, &(0..count).map(|_| (unit() * 256.0) as i32).collect::<Vec<_>>()),
        _ if mask => Tensor::new(shape, &vec![1i64; count]),
        _ => Tensor::new(shape, &(0..count).map(|_| (unit() * 100.0) as i64).collect::<Vec<_>>()),
    }
}

/// Median times of the frozen prefix, of the forward suffix and of the training step from the same frontier.
fn time(
    model: &Model,
    training: &Model,
    inputs: &BTreeMap<String, Value>,
    (output, names): (&str, &[&str]),
    runs: usize,
) -> Result<()> {
    let mut forward = model.clone();
    let dtype = DType::F32;
    forward.graph.outputs = vec![ValueInfo { name: output.to_owned(), dtype, shape: None }];
    forward.graph.prune();
    forward.graph.promote(names)?;
    for info in &mut forward.graph.inputs {
        if let Some(known) = training.graph.inputs.iter().find(|i| i.name == info.name) {
            *info = known.clone();
        }
    }
    let (prefix, suffix) = split_frozen(&training_split(&forward, names)?, names)?;
    let whole = median(&forward, inputs, runs)?;
    println!("forward, weights as inputs: {whole:.2} ms; has a frozen prefix: {}", prefix.is_some());
    println!("suffix has {} of {} nodes", suffix.graph.nodes.len(), forward.graph.nodes.len());
    let step = median(training, inputs, runs)?;
    println!("training step: {step:.2} ms = {:.2} × the forward", step / whole);
    Ok(())
}

/// The forward with its weights back as initializers, as `split_frozen` wants it.
fn training_split(forward: &Model, names: &[&str]) -> Result<Model> {
    let mut model = forward.clone();
    for name in names {
        if let Some(at) = model.graph.inputs.iter().position(|info| info.name == *name) {
            let info = model.graph.inputs.remove(at);
            let tensor = random(&info, &mut || 0.5)?;
            model.graph.initializers.insert(info.name, tensor);
        }
    }
    Ok(model)
}

fn median(model: &Model, inputs: &BTreeMap<String, Value>, runs: usize) -> Result<f64> {
    let program = Program::compile(model, &Dims::new())?;
    let feed: Vec<Value> =
        program.input_names().filter_map(|name| inputs.get(name).cloned()).collect();
    program.run_ordered(&feed)?;
    let mut times = Vec::new();
    for _ in 0..runs.max(1) {
        let started = Instant::now();
        program.run_ordered(&feed)?;
        times.push(started.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

fn write(
    folder: &Path,
    stem: &str,
    (model, training): (&Model, &Model),
    (inputs, outputs): (&BTreeMap<String, Value>, &BTreeMap<String, Value>),
) -> std::result::Result<(), Box<dyn std::error::Error>> {
    std::fs::create_dir_all(folder)?;
    std::fs::write(folder.join(format!("{stem}.onnx")), training.to_bytes())?;
    std::fs::create_dir_all(folder.join("forward"))?;
    std::fs::write(folder.join(format!("forward/{stem}.onnx")), model.to_bytes())?;
    let mut tensors = BTreeMap::new();
    for (prefix, values) in [("in", inputs), ("out", outputs)] {
        for (name, value) in values {
            tensors.insert(format!("{prefix}.{name}"), value.to_tensor()?);
        }
    }
    let views = tensors.iter().map(|(name, tensor)| {
        let dtype = match tensor.dtype() {
            DType::I64 => safetensors::Dtype::I64,
            DType::I32 => safetensors::Dtype::I32,
            _ => safetensors::Dtype::F32,
        };
        let view =
            safetensors::tensor::TensorView::new(dtype, tensor.shape().to_vec(), tensor.bytes());
        view.map(|view| (name.clone(), view))
    });
    let views = views.collect::<std::result::Result<Vec<_>, _>>()?;
    std::fs::write(folder.join(format!("{stem}.safetensors")), safetensors::serialize(views, None)?)?;
    Ok(())
}
