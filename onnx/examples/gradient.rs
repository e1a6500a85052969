//! Differentiates the suffix of a model file that its trainable tensors need, times a gradient step against the
//! forward of the same suffix in turns, and writes what `tests/golden/gradients.py` compares with PyTorch.
//!
//!     cargo run -p backstitch-onnx --example gradient -- MODEL --output logits --loss softmax_cross_entropy
//!         [--shape image=1,3,224,224] [--wrt conv.weight,conv.bias] [--runs 20] [--dump DIR]
//!
//! Without `--wrt` every float initializer that reaches the output by operators with a rule is trained.

use std::collections::BTreeMap;
use std::error::Error as Failure;
use std::path::Path;
use std::time::Instant;

use backstitch_onnx::autodiff::{Loss, Objective, differentiate};
use backstitch_onnx::cut::split_frozen_for;
use backstitch_onnx::engine::infer;
use backstitch_onnx::{
    Code, DType, Dim, Dims, Model, Program, Result, Shapes, Tensor, Value, ValueInfo,
};

type Values = BTreeMap<String, Value>;

struct Request {
    file: String,
    loss: Loss,
    output: Option<String>,
    wrt: Option<Vec<String>>,
    dims: Dims,
    runs: usize,
    dump: Option<String>,
}

fn request() -> std::result::Result<Request, Box<dyn Failure>> {
    let mut arguments = std::env::args().skip(1);
    let mut request = Request {
        file: arguments.next().ok_or("give a model file")?,
        loss: Loss::MeanSquaredError,
        output: None,
        wrt: None,
        dims: Dims::new(),
        runs: 20,
        dump: None,
    };
    while let (Some(flag), Some(value)) = (arguments.next(), arguments.next()) {
        match flag.as_str() {
            "--loss" => request.loss = value.parse()?,
            "--output" => request.output = Some(value),
            "--wrt" => request.wrt = Some(value.split(',').map(str::to_owned).collect()),
            "--runs" => request.runs = value.parse()?,
            "--dump" => request.dump = Some(value),
            "--shape" => {
                let (name, shape) = value.split_once('=').ok_or("--shape NAME=1,2")?;
                let shape: std::result::Result<_, _> = shape.split(',').map(str::parse).collect();
                request.dims.insert(name.to_owned(), shape?);
            }
            other => return Err(format!("unknown flag {other}").into()),
        }
    }
    Ok(request)
}

fn main() -> std::result::Result<(), Box<dyn Failure>> {
    let request = request()?;
    let mut model = Model::from_bytes(&std::fs::read(&request.file)?)?;
    let output = request.output.clone().unwrap_or_else(|| model.graph.outputs[0].name.clone());
    let shapes = infer(&model, &request.dims)?;
    model.graph.outputs = vec![info(&output, &shapes)];
    for input in &mut model.graph.inputs {
        *input = info(&input.name, &shapes);
    }
    model.graph.prune();
    let trainable = match &request.wrt {
        Some(names) => names.clone(),
        None => all_trainable(&model, request.loss, &output)?,
    };
    let names: Vec<&str> = trainable.iter().map(String::as_str).collect();
    let (prefix, suffix) = split_frozen_for(&model, &names, &shapes)?;
    let objective = Objective { loss: request.loss, output: &output, trainable: &names };
    let started = Instant::now();
    let training = differentiate(&suffix, &objective, &Dims::new())?;
    println!(
        "{} trainable tensors, suffix of {} nodes becomes {}, differentiated in {:.0} ms",
        names.len(),
        suffix.graph.nodes.len(),
        training.graph.nodes.len(),
        started.elapsed().as_secs_f64() * 1e3
    );
    let inputs = inputs(&model, prefix.as_ref(), &training)?;
    let outputs = Program::compile(&training, &Dims::new())?.run(&select(&training, &inputs))?;
    if let Some(folder) = request.dump {
        let stem = Path::new(&request.file).file_stem().unwrap_or_default().to_string_lossy();
        let stem = format!("{stem}.{}", request.loss.as_str());
        write(Path::new(&folder), &stem, (&suffix, &training), (&inputs, &outputs))?;
    }
    let mut forward = suffix.clone();
    forward.graph.promote(&names)?;
    let [forward, step] = medians([&forward, &training], &inputs, request.runs)?;
    println!("forward {forward:.2} ms, step {step:.2} ms: {:.2} times", step / forward);
    Ok(())
}

fn info(name: &str, shapes: &Shapes) -> ValueInfo {
    let (dtype, shape) = shapes.get(name).cloned().unwrap_or((DType::F32, Vec::new()));
    ValueInfo::fixed(name, dtype, &shape)
}

/// Tries all float initializers at once, then leaves out those that errors name, then tries one by one.
fn all_trainable(model: &Model, loss: Loss, output: &str) -> Result<Vec<String>> {
    let floats = model.graph.initializers.iter().filter(|(_, tensor)| tensor.dtype().is_float());
    let mut names: Vec<String> = floats.map(|(name, _)| name.clone()).collect();
    let attempt = |names: &[String]| {
        let trainable: Vec<&str> = names.iter().map(String::as_str).collect();
        differentiate(model, &Objective { loss, output, trainable: &trainable }, &Dims::new())
            .map(drop)
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

/// Weights as they are, frozen tensors from the prefix, everything else pseudo-random.
fn inputs(model: &Model, prefix: Option<&Model>, training: &Model) -> Result<Values> {
    let mut seed = 1u64;
    let mut unit = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 40) as f32 / (1u64 << 24) as f32
    };
    let mut feed = Values::new();
    for info in &model.graph.inputs {
        feed.insert(info.name.clone(), Value::try_from(&random(info, &mut unit)?)?);
    }
    if let Some(prefix) = prefix {
        let frozen = Program::compile(prefix, &Dims::new())?.run(&select(prefix, &feed))?;
        feed.extend(frozen);
    }
    for info in &training.graph.inputs {
        if let Some(tensor) = model.graph.initializers.get(&info.name) {
            feed.insert(info.name.clone(), Value::try_from(tensor)?);
        } else if !feed.contains_key(&info.name) {
            feed.insert(info.name.clone(), Value::try_from(&random(info, &mut unit)?)?);
        }
    }
    Ok(feed)
}

fn select(model: &Model, values: &Values) -> Values {
    let names = model.graph.inputs.iter().map(|info| &info.name);
    names.filter_map(|name| Some((name.clone(), values.get(name)?.clone()))).collect()
}

/// Token ids are small, masks one, floats within −1..1.
fn random(info: &ValueInfo, unit: &mut impl FnMut() -> f32) -> Result<Tensor> {
    let size = |dim: &Dim| if let Dim::Fixed(size) = dim { *size } else { 1 };
    let shape: Vec<usize> = info.shape.iter().flatten().map(size).collect();
    let mut values = vec![1.0; shape.iter().product()];
    if !info.name.contains("mask") {
        values.iter_mut().for_each(|value| *value = unit());
    }
    let most = if info.name == "target" { 2.0 } else { 100.0 };
    let count = |value: &f32| (value * most) as i64;
    match info.dtype {
        DType::F32 => {
            let spread: Vec<f32> = values.iter().map(|value| value * 2.0 - 1.0).collect();
            Tensor::new(shape, &spread)
        }
        DType::I32 => {
            Tensor::new(shape, &values.iter().map(|v| count(v) as i32).collect::<Vec<_>>())
        }
        _ if info.name.contains("mask") => Tensor::new(shape, &vec![1i64; values.len()]),
        _ => Tensor::new(shape, &values.iter().map(count).collect::<Vec<_>>()),
    }
}

/// The median run time of two models in milliseconds. They take turns, so that a slow moment of the machine meets both.
fn medians(models: [&Model; 2], inputs: &Values, runs: usize) -> Result<[f64; 2]> {
    let programs =
        [Program::compile(models[0], &Dims::new())?, Program::compile(models[1], &Dims::new())?];
    let fed = |program: &Program| -> Vec<Value> {
        program.input_names().filter_map(|name| inputs.get(name).cloned()).collect()
    };
    let feeds = [fed(&programs[0]), fed(&programs[1])];
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..runs.max(1) + 2 {
        for ((program, feed), times) in programs.iter().zip(&feeds).zip(&mut times) {
            let started = Instant::now();
            program.run_ordered(feed)?;
            // The first runs fill caches.
            if round >= 2 {
                times.push(started.elapsed().as_secs_f64() * 1e3);
            }
        }
    }
    Ok(times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    }))
}

/// `<stem>.onnx` is the training model, `forward/<stem>.onnx` what was differentiated.
fn write(
    folder: &Path,
    stem: &str,
    (forward, training): (&Model, &Model),
    (inputs, outputs): (&Values, &Values),
) -> std::result::Result<(), Box<dyn Failure>> {
    std::fs::create_dir_all(folder.join("forward"))?;
    std::fs::write(folder.join(format!("{stem}.onnx")), training.to_bytes())?;
    std::fs::write(folder.join(format!("forward/{stem}.onnx")), forward.to_bytes())?;
    let mut tensors = BTreeMap::new();
    for (prefix, values) in [("in", select(training, inputs)), ("out", outputs.clone())] {
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
        let shape = tensor.shape().to_vec();
        let view = safetensors::tensor::TensorView::new(dtype, shape, tensor.bytes());
        view.map(|view| (name.clone(), view))
    });
    let views = views.collect::<std::result::Result<Vec<_>, _>>()?;
    std::fs::write(
        folder.join(format!("{stem}.safetensors")),
        safetensors::serialize(views, None)?,
    )?;
    Ok(())
}
