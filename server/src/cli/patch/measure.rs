//! What a patch costs: arithmetic and bytes from its graph, milliseconds from running it.

use std::collections::BTreeMap;
use std::time::Instant;

use backstitch_onnx::cost::cost;
use backstitch_onnx::engine::infer;
use backstitch_onnx::patch::{Cost, MeasuredMs, Patch};
use backstitch_onnx::{DType, Dims, Program, Value};

use super::primary::Primary;
use super::statistics::quantile;
use crate::cli::files::Outcome;

/// Runs that are measured, after a fifth as many that are not.
const RUNS: usize = 100;

/// Counts and times every attachment of the patch, with a batch of one.
pub(super) fn measure(primary: &Primary, patch: &Patch, download_bytes: u64) -> Outcome<Cost> {
    let (mut macs, mut stages) = (0, Vec::new());
    for (index, attachment) in patch.manifest().attachments.iter().enumerate() {
        let model = patch.attachment_model(index)?;
        let site = |name: &String| primary.shapes.get(name).map(|(_, shape)| shape.clone());
        let mut dims: Dims = attachment
            .inputs
            .iter()
            .filter_map(|(input, tensor)| Some((input.clone(), site(tensor)?)))
            .collect();
        let weights = patch.weights();
        dims.extend(weights.iter().map(|(name, tensor)| (name.clone(), tensor.shape().to_vec())));
        dims.retain(|name, _| model.graph.input(name).is_some());
        macs += cost(&model, &infer(&model, &dims)?)?.total.macs;
        let mut fed = BTreeMap::new();
        for (name, shape) in &dims {
            let value = match weights.get(name) {
                Some(tensor) => Value::try_from(tensor)?,
                None => ramp(shape)?,
            };
            fed.insert(name.clone(), value);
        }
        stages.push((Program::compile(&model, &dims)?, fed));
    }
    let initializers = patch.model().graph.initializers.values();
    Ok(Cost {
        macs,
        parameter_bytes: initializers.map(|t| t.bytes().len() as u64).sum(),
        download_bytes,
        measured_ms: vec![time(&stages)?],
    })
}

fn time(stages: &[(Program, BTreeMap<String, Value>)]) -> Outcome<MeasuredMs> {
    let mut runs_ms = Vec::with_capacity(RUNS);
    for run in 0..RUNS + RUNS / 5 {
        let start = Instant::now();
        for (program, fed) in stages {
            program.run(fed)?;
        }
        if run >= RUNS / 5 {
            runs_ms.push(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    runs_ms.sort_by(f64::total_cmp);
    let short = |ms: f64| (ms * 1e4).round() / 1e4;
    Ok(MeasuredMs {
        device: format!("{} {}, native, one thread", std::env::consts::OS, std::env::consts::ARCH),
        p50: short(quantile(&runs_ms, 0.5)),
        p95: short(quantile(&runs_ms, 0.95)),
    })
}

/// Levels between 0 and 1: nothing that an activation of a real input would not hold.
fn ramp(shape: &[usize]) -> Outcome<Value> {
    let count = shape.iter().product();
    let values: Vec<f32> = (0..count).map(|i: usize| (i % 97) as f32 / 97.0).collect();
    Ok(Value::numbers(DType::F32, shape, &values)?)
}
