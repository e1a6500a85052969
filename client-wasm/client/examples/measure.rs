//! Prints what the parts of a run and of a training take on this machine, on the sample library.
//!
//! `cargo run --release -p backstitch-client --example measure`

#![allow(clippy::unit_arg, reason = "`Ok(work())` keeps each measured line in one piece")]

use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use backstitch_client::analysis::analyse;
use backstitch_client::examples::{Example, Target};
use backstitch_client::input::Input;
use backstitch_client::library::Version;
use backstitch_client::preprocessing::{Preparation, Preprocessing};
use backstitch_client::random::SplitMix;
use backstitch_client::selection::{Candidate, Choice, CostLimit, Meanings, select};
use backstitch_client::session::{Compiled, Plan, Stitched};
use backstitch_client::training::{Activation, Descent, Pace};
use backstitch_client::workshop::Workshop;
use backstitch_onnx::patch::Patch;
use backstitch_onnx::{Dims, Program, Value};
use backstitch_protocol::id::Name;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Median and 95th percentile of `runs` runs, in milliseconds.
fn time(name: &str, runs: usize, mut work: impl FnMut() -> Outcome<()>) -> Outcome<f64> {
    let mut times = Vec::with_capacity(runs);
    for run in 0..runs + runs / 5 {
        let began = Instant::now();
        work()?;
        if run >= runs / 5 {
            times.push(began.elapsed().as_secs_f64() * 1000.0);
        }
    }
    times.sort_by(f64::total_cmp);
    let (median, p95) = (times[runs / 2], times[runs * 95 / 100]);
    println!("{name:<58} {median:>9.4} ms   p95 {p95:>9.4} ms");
    Ok(median)
}

struct Fashion {
    file: Vec<u8>,
    patches: Vec<Patch>,
}

fn load() -> Outcome<Fashion> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../onnx/models/fashion");
    let read = |path: String| std::fs::read(folder.join(path));
    let mut patches = Vec::new();
    for name in ["noise-reduction", "low-contrast", "personal-style"] {
        let (manifest, graph) = (
            read(format!("patches/{name}/patch.json"))?,
            read(format!("patches/{name}/patch.onnx"))?,
        );
        patches.push(Patch::from_parts(&manifest, &graph, None)?);
    }
    Ok(Fashion { file: read("primary.onnx".to_owned())?, patches })
}

fn picture() -> Outcome<Input> {
    let mut draws = SplitMix::new(1);
    Ok(Input::tensor(vec![28, 28], (0..784).map(|_| draws.uniform() as f32).collect())?)
}

fn main() -> Outcome<()> {
    let Fashion { file, patches } = load()?;
    let workshop = Workshop::default();
    let sites = ["image", "features", "logits"].map(str::to_owned).into();
    let began = Instant::now();
    let session = workshop.session(&file, "image", "logits", &sites)?;
    println!("primary: decode, cut, compile {:>37.1} ms", began.elapsed().as_secs_f64() * 1000.0);
    let mut versions = Vec::new();
    for patch in &patches {
        let began = Instant::now();
        let compiled = workshop.compiled(&session, patch)?;
        let weights = Arc::new(compiled.weights(&session, patch)?);
        let took = began.elapsed().as_secs_f64() * 1000.0;
        println!("patch from bytes to ready: {:<31} {took:>9.2} ms", patch.manifest().name);
        let name = Name::new(patch.manifest().name.as_str())?;
        versions.push(Version::new(name, 1, Arc::new(patch.clone()), compiled, weights));
    }
    let prepared = preparation()?.prepare(&picture()?, session.input().1)?;
    let input = Value::f32(&prepared.shape, &prepared.values)?;
    let clock = || 0.0;

    let whole = Program::compile(session.model(), &Dims::new())?;
    let named = BTreeMap::from([("image".to_owned(), input.clone())]);
    let uncut = time("primary, uncut", 300, || Ok(drop(whole.run(&named)?)))?;
    let base = time("primary in segments, no patch", 300, || {
        Ok(drop(session.base(&input, None, &clock)?))
    })?;
    println!("{:<58} {:>9.3}", "  ratio", base / uncut);
    time("analysis", 300, || Ok(drop(analyse(&prepared.subject))))?;
    let features = analyse(&prepared.subject);
    let candidates: Vec<Candidate<'_>> = versions.iter().map(candidate).collect();
    let limit = CostLimit { ms: Some(20.0), ..CostLimit::default() };
    time("selection, 3 candidates", 300, || {
        Ok(drop(select(&features, &candidates, &limit, 1.0, &Choice::Auto)?))
    })?;
    selection_of_many(&features, &versions)?;
    let stitched: Vec<Stitched> = versions.iter().map(Version::stitched).collect();
    let compiled: Vec<&Compiled> = versions.iter().map(|v| &*v.compiled).collect();
    time("switching to another set of patches: the plan", 300, || {
        Ok(drop(Plan::of(&session, &compiled)?))
    })?;
    let plan = Plan::of(&session, &compiled)?;
    time("primary with all three patches", 300, || {
        Ok(drop(session.run(&plan, &stitched, &input, None, &clock)?))
    })?;
    time("new weights into a running model", 300, || {
        Ok(drop(versions[2].with_weights(&session, patches[2].weights())?))
    })?;
    training(&workshop, &session, &patches[2], &prepared.values)
}

fn preparation() -> Outcome<Preparation> {
    let json = serde_json::json!({"width": 28, "height": 28, "channels": 1});
    Ok(Preprocessing::from_json(&json)?.complete(&[])?)
}

fn candidate(version: &Version) -> Candidate<'_> {
    Candidate {
        name: &version.name,
        selector: &version.selector,
        has_effect: true,
        cost_ms: 0.3,
        cost_bytes: version.weight_bytes,
        replaces: &version.replaces,
        correction: 0.0,
        meanings: Meanings::NONE,
    }
}

fn selection_of_many(
    features: &backstitch_client::analysis::FeatureVector,
    versions: &[Version],
) -> Outcome<()> {
    for count in [16, 24] {
        let mut draws = SplitMix::new(7);
        let drawn: Vec<_> = (0..count)
            .map(|i| {
                let mut selector = versions[0].selector.clone();
                selector.requires.clear();
                selector.gain.weights.clear();
                selector.gain.intercept = draws.uniform();
                Name::new(format!("patch-{i}")).map(|name| (name, selector, draws.uniform()))
            })
            .collect::<Result<_, _>>()?;
        let candidates: Vec<Candidate<'_>> = drawn
            .iter()
            .map(|(name, selector, cost_ms)| Candidate {
                name,
                selector,
                has_effect: true,
                cost_ms: *cost_ms,
                cost_bytes: 1,
                replaces: &[],
                correction: 0.0,
                meanings: Meanings::NONE,
            })
            .collect();
        let limit = CostLimit { ms: Some(1.0 + f64::from(count) / 5.0), ..CostLimit::default() };
        time(&format!("selection, {count} candidates under a tight limit"), 100, || {
            Ok(drop(select(features, &candidates, &limit, 1.0, &Choice::Auto)?))
        })?;
    }
    Ok(())
}

fn training(
    workshop: &Workshop,
    session: &backstitch_client::session::Session,
    patch: &Patch,
    values: &[f32],
) -> Outcome<()> {
    let began = Instant::now();
    let (_, trainer) = workshop.trainer(session, &[patch])?;
    println!(
        "differentiate and compile for training {:>28.1} ms",
        began.elapsed().as_secs_f64() * 1000.0
    );
    let example = |id: u64| Example {
        id,
        shape: vec![1, 1, 28, 28],
        values: values.to_vec(),
        target: Target::Class(id as usize % 10),
    };
    time("frozen part of one example", 100, || Ok(drop(trainer.activate(&example(0))?)))?;
    let examples: Vec<Arc<Activation>> =
        (0..48).map(|id| trainer.activate(&example(id)).map(Arc::new)).collect::<Result<_, _>>()?;
    let weights = trainer.weights_of(&[patch])?;
    let borrowed: Vec<&Activation> = examples[..16].iter().map(|e| &**e).collect();
    let forward = time("forward of the trained part, 16 examples one by one", 200, || {
        trainer.score(&borrowed, &weights)?;
        Ok(())
    })?;
    let pace = Pace { epochs: 1000, seed: 1 };
    let mut descent = Descent::start(trainer.clone(), examples, weights, pace)?;
    let step = time("training step, batch 16", 500, || {
        descent.step()?;
        Ok(())
    })?;
    println!("{:<58} {:>9.3}", "  ratio", step / forward);
    Ok(())
}
