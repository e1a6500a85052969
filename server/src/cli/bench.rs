//! `backstitch onnx bench`: compile and run times, whole and cut taking turns.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use backstitch_onnx::engine::{Program, Shapes, Value, infer};
use backstitch_onnx::{DType, Model, Tensor};
use serde_json::json;

use super::files::{self, Outcome};

/// Compile time and run times of one way to run a model, in milliseconds.
struct Timing {
    compile_ms: f64,
    runs_ms: Vec<f64>,
}

impl Timing {
    fn quantile(&self, share: f64) -> f64 {
        let index = ((self.runs_ms.len() as f64 - 1.0) * share).round() as usize;
        self.runs_ms.get(index).copied().unwrap_or_default()
    }

    fn json(&self) -> serde_json::Value {
        json!({ "compile_ms": self.compile_ms, "p50_ms": self.quantile(0.5), "p95_ms": self.quantile(0.95),
                "least_ms": self.quantile(0.0), "runs": self.runs_ms.len() })
    }
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// Compiles segments and runs them in turn over one map of named tensors.
struct Chain {
    programs: Vec<Program>,
    compile_ms: f64,
}

impl Chain {
    fn new(segments: &[Model], shapes: &Shapes) -> Outcome<Self> {
        let start = Instant::now();
        let programs = segments.iter().map(|segment| {
            let sized =
                segment.graph.inputs.iter().filter_map(|info| {
                    Some((info.name.clone(), shapes.get(&info.name)?.1.clone()))
                });
            Program::compile(segment, &sized.collect())
        });
        let programs = programs.collect::<Result<Vec<_>, _>>()?;
        Ok(Self { programs, compile_ms: milliseconds(start) })
    }

    /// One run, in milliseconds.
    fn run(&self, inputs: &BTreeMap<String, Value>) -> Outcome<f64> {
        let start = Instant::now();
        let mut live = inputs.clone();
        for program in &self.programs {
            let fed = program
                .input_names()
                .filter_map(|name| live.get(name).cloned())
                .collect::<Vec<_>>();
            let outputs = program.run_ordered(&fed)?;
            live.extend(program.output_names().map(str::to_owned).zip(outputs));
        }
        Ok(milliseconds(start))
    }
}

/// Times a model as a whole and, where it is to be cut, its segments in turn with it.
pub(super) fn bench(
    path: &Path,
    shapes: &[(String, Vec<usize>)],
    runs: u32,
    at: &[String],
    json: bool,
) -> Outcome<()> {
    let (model, _) = files::read_model(path)?;
    let known = infer(&model, &files::dims(shapes))?;
    let inputs =
        model.graph.inputs.iter().map(|info| Ok((info.name.clone(), sample(&info.name, &known)?)));
    let inputs = inputs.collect::<Outcome<BTreeMap<_, _>>>()?;
    let mut chains = vec![("whole", Chain::new(std::slice::from_ref(&model), &known)?)];
    if !at.is_empty() {
        let sites: Vec<&str> = at.iter().map(String::as_str).collect();
        chains.push(("cut", Chain::new(&backstitch_onnx::cut::cut(&model, &sites)?, &known)?));
    }
    let mut timings: Vec<(&str, Timing)> = chains
        .iter()
        .map(|(name, chain)| (*name, Timing { compile_ms: chain.compile_ms, runs_ms: Vec::new() }))
        .collect();
    // The ways take turns, so that a slow moment of the machine meets all of them.
    for round in 0..runs + runs.div_ceil(5) {
        for ((_, chain), (_, timing)) in chains.iter().zip(&mut timings) {
            let took = chain.run(&inputs)?;
            if round >= runs.div_ceil(5) {
                timing.runs_ms.push(took);
            }
        }
    }
    timings.iter_mut().for_each(|(_, timing)| timing.runs_ms.sort_by(f64::total_cmp));
    if json {
        let all: BTreeMap<&str, serde_json::Value> =
            timings.iter().map(|(name, timing)| (*name, timing.json())).collect();
        return files::print_json(&json!(all));
    }
    for (name, timing) in &timings {
        println!(
            "{name:6} compile {:8.1} ms, run {:8.2} ms (median), {:8.2} ms (95th percentile), {:8.2} ms (least) over {} runs",
            timing.compile_ms,
            timing.quantile(0.5),
            timing.quantile(0.95),
            timing.quantile(0.0),
            timing.runs_ms.len()
        );
    }
    Ok(())
}

/// A value for timing: ones for integers, so that every index is small, and a ramp in 0..1 for floats.
fn sample(name: &str, shapes: &Shapes) -> Outcome<Value> {
    let (dtype, shape) =
        shapes.get(name).ok_or_else(|| format!("the shape of `{name}` is not known"))?;
    let count: usize = shape.iter().product();
    let tensor = match dtype {
        DType::F32 => Tensor::new(
            shape.clone(),
            &(0..count).map(|i| (i % 97) as f32 / 97.0).collect::<Vec<_>>(),
        )?,
        DType::I64 => Tensor::new(shape.clone(), &vec![1i64; count])?,
        DType::I32 => Tensor::new(shape.clone(), &vec![1i32; count])?,
        _ => return Ok(Value::zeros(*dtype, shape)?),
    };
    Ok(Value::try_from(&tensor)?)
}
