//! A gradient case: a small graph written as text, whose gradient our engine computes and central differences of
//! the same engine's forward run confirm.
//!
//! `weights`: `x:2x3 b:3@0.5..2 ~f:3` — trainable tensors with shape and, optionally, range; `~` freezes one.
//! `graph`: `h = Conv(x, w) strides=[2,2]; y = Relu(h)` — an argument is a tensor, `_` for none, `[1,2]` for an int64
//! vector, `7i` for an int64 scalar, `0.5` for a float scalar.

use std::collections::BTreeMap;

use backstitch_onnx::autodiff::{Loss, Objective, differentiate};
use backstitch_onnx::{
    Attribute, Code, DType, Dim, Dims, Error, Graph, Model, Node, Program, Tensor, Value, ValueInfo,
};

/// The environment variable with the folder for [`dump`].
const DUMP: &str = "BACKSTITCH_GRADIENT_DUMP";

/// One row of a table.
#[derive(Clone)]
pub struct Case {
    pub name: String,
    pub weights: String,
    pub graph: String,
    pub opset: i64,
    pub loss: Loss,
    /// Tensors that are neither trainable nor written in the graph.
    pub constants: BTreeMap<String, Tensor>,
}

impl Case {
    pub fn new(name: &str, weights: &str, graph: &str) -> Self {
        Self {
            name: name.to_owned(),
            weights: weights.to_owned(),
            graph: graph.to_owned(),
            opset: 17,
            loss: Loss::MeanSquaredError,
            constants: BTreeMap::new(),
        }
    }

    pub fn opset(self, opset: i64) -> Self {
        Self { opset, ..self }
    }

    pub fn loss(self, loss: Loss) -> Self {
        Self { loss, ..self }
    }

    pub fn constant(mut self, name: &str, tensor: Tensor) -> Self {
        self.constants.insert(name.to_owned(), tensor);
        self
    }

    /// The model in one float type, and its trainable tensors in order.
    pub fn model(&self, dtype: DType) -> (Model, Vec<String>) {
        let mut graph = Graph { name: "case".to_owned(), ..Graph::default() };
        let mut random = Random::new(&self.name);
        let mut trainable = Vec::new();
        for weight in self.weights.split_whitespace() {
            let (marked, rest) = weight.split_once(':').expect("name:shape");
            let name = marked.trim_start_matches('~');
            let (shape, range) = rest.split_once('@').unwrap_or((rest, "-1.5..1.5"));
            let (low, high) = range.split_once("..").expect("low..high");
            let (low, high): (f64, f64) = (low.parse().unwrap(), high.parse().unwrap());
            let shape: Vec<usize> =
                shape.split('x').filter(|d| !d.is_empty()).map(|d| d.parse().unwrap()).collect();
            let count = shape.iter().product();
            let values: Vec<f64> = (0..count).map(|_| low + (high - low) * random.unit()).collect();
            graph.initializers.insert(name.to_owned(), floats(dtype, &shape, &values));
            if name == marked {
                trainable.push(name.to_owned());
            }
        }
        graph.initializers.extend(self.constants.clone());
        for line in self.graph.split(';').map(str::trim).filter(|line| !line.is_empty()) {
            let node = parse_node(line, dtype, &mut graph.initializers);
            graph.nodes.push(node);
        }
        graph.outputs = vec![ValueInfo { name: "y".to_owned(), dtype, shape: None }];
        (Model { opset: self.opset, graph }, trainable)
    }

    /// Gradient and central differences agree, in f64 where the engine runs the graph so, else in f32. Some of
    /// the engine's operators compute in f32 inside; their rounding asks for a wider step.
    pub fn check(&self) -> Result<Report, String> {
        if std::env::var(DUMP).is_ok() {
            self.compare(DType::F32, Step::WIDE).map_err(|e| format!("{}: {e}", self.name))?;
        }
        let mut found = Vec::new();
        for step in [Step::NARROW, Step::SMALL, Step::MIDDLE, Step::WIDE] {
            let compared = match self.compare(DType::F64, step) {
                Err(error) if error.code() == Code::EngineFailed => self.compare(DType::F32, step),
                other => other,
            };
            let error =
                compared.map_err(|e| format!("{}: {e} [{}]", self.name, e.code().as_str()))?;
            if error <= step.limit {
                return Ok(Report { step, error });
            }
            found.push(format!("{error:.1e} with the step {}", step.size));
        }
        Err(format!("{}: relative errors {}", self.name, found.join(", ")))
    }

    fn compare(&self, dtype: DType, step: Step) -> Result<f64, Error> {
        let (model, trainable) = self.model(dtype);
        let names: Vec<&str> = trainable.iter().map(String::as_str).collect();
        let objective = Objective { loss: self.loss, output: "y", trainable: &names };
        let training = differentiate(&model, &objective, &Dims::new())?;
        let training = Model::from_bytes(&training.to_bytes())?;
        let mut inputs: BTreeMap<String, Tensor> =
            names.iter().map(|n| ((*n).to_owned(), model.graph.initializers[*n].clone())).collect();
        if let Some(info) = training.graph.inputs.iter().find(|info| info.name == "target") {
            inputs.insert("target".to_owned(), target(info));
        }
        let program = Program::compile(&training, &Dims::new())?;
        let outputs = run(&program, &inputs)?;
        if dtype == DType::F32 {
            dump(&self.name, &training, &inputs, &outputs);
        }
        central_differences(&program, &inputs, &outputs, &names, step)
    }
}

/// A target of the dtype and shape that a training model declares.
pub fn target(info: &ValueInfo) -> Tensor {
    let fixed = |dim: &Dim| match dim {
        Dim::Fixed(size) => *size,
        other => panic!("open target dimension {other:?}"),
    };
    let shape: Vec<usize> = info.shape.iter().flatten().map(fixed).collect();
    let mut random = Random::new("target");
    let count: usize = shape.iter().product();
    match info.dtype {
        DType::I64 => {
            let ids: Vec<i64> = (0..count).map(|i| (i as i64 * 7 + 1) % 3).collect();
            Tensor::new(shape, &ids).unwrap()
        }
        dtype => {
            let values: Vec<f64> = (0..count).map(|_| random.unit()).collect();
            floats(dtype, &shape, &values)
        }
    }
}

/// How closely a case agrees.
#[derive(Debug)]
pub struct Report {
    pub step: Step,
    pub error: f64,
}

/// The step of central differences and the relative error that it may leave.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    pub size: f64,
    pub limit: f64,
}

impl Step {
    /// For f64: truncation and rounding both stay below 1e-9 on these graphs.
    pub const NARROW: Self = Self { size: 1e-5, limit: 2e-6 };
    /// For f32, whose rounding of 1e-7 is divided by the step, where a wider one would meet a kink.
    pub const SMALL: Self = Self { size: 1e-4, limit: 4e-3 };
    /// As above.
    pub const MIDDLE: Self = Self { size: 1e-3, limit: 4e-3 };
    /// For f32 in general.
    pub const WIDE: Self = Self { size: 1e-2, limit: 4e-3 };
}

fn run(
    program: &Program,
    inputs: &BTreeMap<String, Tensor>,
) -> Result<BTreeMap<String, Tensor>, Error> {
    let values: Result<BTreeMap<String, Value>, Error> =
        inputs.iter().map(|(name, tensor)| Ok((name.clone(), Value::try_from(tensor)?))).collect();
    program
        .run(&values?)?
        .iter()
        .map(|(name, value)| Ok((name.clone(), value.to_tensor()?)))
        .collect()
}

/// The largest difference between a gradient and central differences, relative to the largest gradient of its tensor.
pub fn central_differences(
    program: &Program,
    inputs: &BTreeMap<String, Tensor>,
    outputs: &BTreeMap<String, Tensor>,
    names: &[&str],
    step: Step,
) -> Result<f64, Error> {
    let mut worst: f64 = 0.0;
    for name in names {
        let tensor = &inputs[*name];
        let values = tensor.to_f64()?;
        let gradient = outputs[&format!("grad.{name}")].to_f64()?;
        assert_eq!(
            outputs[&format!("grad.{name}")].shape(),
            tensor.shape(),
            "shape of grad.{name}"
        );
        let scale = gradient.iter().fold(1e-2f64, |m, g| m.max(g.abs()));
        let stride = values.len().div_ceil(24).max(1);
        for index in (0..values.len()).step_by(stride) {
            let at = |delta: f64| -> Result<f64, Error> {
                let mut moved = values.clone();
                moved[index] += delta;
                let mut inputs = inputs.clone();
                inputs.insert((*name).to_owned(), floats(tensor.dtype(), tensor.shape(), &moved));
                Ok(run(program, &inputs)?["loss"].to_f64()?[0])
            };
            let slope = (at(step.size)? - at(-step.size)?) / (2.0 * step.size);
            let error = (slope - gradient[index]).abs() / scale;
            // A NaN must not pass as the smaller of two numbers.
            worst = if error.is_nan() { f64::INFINITY } else { worst.max(error) };
        }
    }
    Ok(worst)
}

pub fn floats(dtype: DType, shape: &[usize], values: &[f64]) -> Tensor {
    match dtype {
        DType::F64 => Tensor::new(shape.to_vec(), values).unwrap(),
        _ => Tensor::new(shape.to_vec(), &values.iter().map(|v| *v as f32).collect::<Vec<_>>())
            .unwrap(),
    }
}

/// Splitmix64 (Steele, Lea and Flood, 2014), seeded by a name: the same numbers on every machine.
pub struct Random(u64);

impl Random {
    pub fn new(name: &str) -> Self {
        Self(
            name.bytes().fold(0x9e37, |seed, byte| seed.wrapping_mul(31).wrapping_add(byte.into())),
        )
    }

    pub fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn parse_node(line: &str, dtype: DType, initializers: &mut BTreeMap<String, Tensor>) -> Node {
    let (outputs, rest) = line.split_once('=').expect("outputs = Op(…)");
    let (op, rest) = rest.trim().split_once('(').expect("Op(");
    let (arguments, attributes) = rest.split_once(')').expect(")");
    let inputs: Vec<String> = split_outside_brackets(arguments)
        .iter()
        .map(|a| argument(a, dtype, initializers))
        .collect();
    let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
    let outputs: Vec<&str> = outputs.split(',').map(str::trim).collect();
    let mut node = Node::new(op, &inputs, &outputs);
    for attribute in attributes.split_whitespace() {
        let (name, value) = attribute.split_once('=').expect("name=value");
        node = node.with(name, attribute_value(value));
    }
    node
}

fn argument(text: &str, dtype: DType, initializers: &mut BTreeMap<String, Tensor>) -> String {
    let name = format!("const_{}", initializers.len());
    let tensor = if text == "_" {
        return String::new();
    } else if let Some(list) = text.strip_prefix('[') {
        let list = list.trim_end_matches(']').split(',').filter(|v| !v.trim().is_empty());
        Tensor::vector(&list.map(|v| v.trim().parse().unwrap()).collect::<Vec<i64>>())
    } else if let Some(number) = text.strip_suffix('i').and_then(|n| n.parse::<i64>().ok()) {
        Tensor::scalar(number)
    } else if let Ok(number) = text.parse::<f64>() {
        floats(dtype, &[], &[number])
    } else {
        return text.to_owned();
    };
    initializers.insert(name.clone(), tensor);
    name
}

fn attribute_value(text: &str) -> Attribute {
    let list = text.strip_prefix('[').map(|list| list.trim_end_matches(']').split(','));
    match list {
        Some(list) => Attribute::Ints(list.map(|v| v.parse().unwrap()).collect()),
        None if text.contains('.') && text.parse::<f32>().is_ok() => {
            Attribute::Float(text.parse().unwrap())
        }
        None => {
            text.parse().map(Attribute::Int).unwrap_or_else(|_| Attribute::String(text.to_owned()))
        }
    }
}

fn split_outside_brackets(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut depth = 0;
    for c in text.chars() {
        depth += i32::from(c == '[') - i32::from(c == ']');
        match (c, parts.last_mut()) {
            (',', _) if depth == 0 => parts.push(String::new()),
            (c, Some(last)) if !c.is_whitespace() => last.push(c),
            _ => {}
        }
    }
    parts.retain(|part| !part.is_empty());
    parts
}

/// Writes the training model, its inputs and our outputs for `check_onnxruntime.py`, where the environment asks.
pub fn dump(
    name: &str,
    training: &Model,
    inputs: &BTreeMap<String, Tensor>,
    outputs: &BTreeMap<String, Tensor>,
) {
    let Ok(folder) = std::env::var(DUMP) else { return };
    let folder = std::path::Path::new(&folder);
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join(format!("{name}.onnx")), training.to_bytes()).unwrap();
    let file: BTreeMap<String, Stored> = inputs
        .iter()
        .map(|(n, t)| (format!("in.{n}"), Stored(t.clone())))
        .chain(outputs.iter().map(|(n, t)| (format!("out.{n}"), Stored(t.clone()))))
        .collect();
    let bytes = safetensors::serialize(file, None).unwrap();
    std::fs::write(folder.join(format!("{name}.safetensors")), bytes).unwrap();
}

struct Stored(Tensor);

impl safetensors::View for Stored {
    fn dtype(&self) -> safetensors::Dtype {
        match self.0.dtype() {
            DType::F64 => safetensors::Dtype::F64,
            DType::I64 => safetensors::Dtype::I64,
            _ => safetensors::Dtype::F32,
        }
    }

    fn shape(&self) -> &[usize] {
        self.0.shape()
    }

    fn data(&self) -> std::borrow::Cow<'_, [u8]> {
        self.0.bytes().into()
    }

    fn data_len(&self) -> usize {
        self.0.bytes().len()
    }
}
