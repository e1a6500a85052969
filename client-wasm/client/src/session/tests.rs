//! The run in segments against the reference meaning, on the sample library and on graphs that stress the plan.

use std::collections::BTreeMap;
use std::sync::Arc;

use backstitch_onnx::patch::{Patch, check};
use backstitch_onnx::stitch::stitch;
use backstitch_onnx::{Dims, Tensor, Value};

use super::*;
use crate::random::SplitMix;
use crate::test_library::{Fashion, tiny};

fn uniform(shape: &[usize], seed: u64) -> Value {
    let mut draws = SplitMix::new(seed);
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| draws.uniform() as f32).collect();
    Value::f32(shape, &values).unwrap()
}

fn session(model: &Model, digest: Digest, output: &str, patches: &[&Patch]) -> Session {
    let attachments = patches.iter().flat_map(|p| &p.manifest().attachments);
    let sites: BTreeSet<String> =
        attachments.flat_map(|a| a.inputs.values().cloned().chain([a.site().to_owned()])).collect();
    let input = model.graph.inputs[0].name.clone();
    Session::compile(model.clone(), digest, &input, output, &sites).unwrap()
}

fn stitched(session: &Session, patch: &Patch) -> Stitched {
    let compiled = Compiled::new(session, patch).unwrap();
    let weights = compiled.weights(session, patch).unwrap();
    Stitched {
        name: patch.manifest().name.clone(),
        compiled: Arc::new(compiled),
        weights: Arc::new(weights),
    }
}

/// Both forms must give the same numbers for this set, on this input.
fn check_agrees(session: &Session, all: &[(&Patch, Stitched)], set: u32, input: &Value) {
    let chosen: Vec<&(&Patch, Stitched)> =
        all.iter().enumerate().filter(|(i, _)| set & (1 << i) != 0).map(|(_, p)| p).collect();
    let reference = stitch(session.model(), &chosen.iter().map(|(p, _)| *p).collect::<Vec<_>>());
    let compiled: Vec<&Compiled> = chosen.iter().map(|(_, s)| &*s.compiled).collect();
    let plan = Plan::of(session, &compiled);
    let (reference, plan) = match (reference, plan) {
        (Ok(reference), Ok(plan)) => (reference, plan),
        (Err(_), Err(_)) => return,
        (reference, plan) => panic!("set {set:b}: {:?} against {:?}", reference.err(), plan.err()),
    };
    let program = Program::compile(&reference, &Dims::new()).unwrap();
    let name = session.input().0.to_owned();
    let expected = program.run(&BTreeMap::from([(name, input.clone())])).unwrap();
    let expected = expected[session.output().0].f32s().unwrap().to_vec();
    let patches: Vec<Stitched> = chosen.iter().map(|(_, s)| s.clone()).collect();
    let clock = || 0.0;
    let (_, reusable) = session.base(input, None, &clock).unwrap();
    for reusable in [None, Some(&reusable)] {
        let ran = session.run(&plan, &patches, input, reusable, &clock).unwrap();
        for (got, want) in ran.output.f32s().unwrap().iter().zip(&expected) {
            assert!(
                (got - want).abs() <= 1e-5 + 1e-5 * want.abs(),
                "set {set:b}: {got}, not {want}"
            );
        }
    }
}

#[test]
fn the_sample_library_runs_as_its_reference() {
    let fashion = Fashion::load();
    let patches: Vec<&Patch> = fashion.patches.iter().collect();
    let session = session(&fashion.primary, fashion.digest, "logits", &patches);
    for patch in &patches {
        check(patch, session.model(), fashion.digest, session.shapes()).unwrap();
    }
    let trained: Vec<Patch> = patches.iter().map(|p| with_random_weights(p)).collect();
    let all: Vec<(&Patch, Stitched)> = trained.iter().map(|p| (p, stitched(&session, p))).collect();
    for set in 0..1 << all.len() {
        check_agrees(&session, &all, set, &uniform(&[1, 1, 28, 28], u64::from(set)));
    }
}

fn with_random_weights(patch: &Patch) -> Patch {
    let mut draws = SplitMix::new(9);
    let random = |tensor: &Tensor| {
        let values: Vec<f32> =
            (0..tensor.len()).map(|_| draws.uniform() as f32 * 0.2 - 0.1).collect();
        Tensor::new(tensor.shape().to_vec(), &values).unwrap()
    };
    let mut random = random;
    patch.with_weights(patch.weights().into_iter().map(|(n, t)| (n, random(&t))).collect()).unwrap()
}

#[test]
fn every_mode_and_mixture_runs_as_its_reference() {
    let library = tiny();
    let patches: Vec<&Patch> = library.patches.iter().collect();
    let session = session(&library.primary, library.digest, "out", &patches);
    let all: Vec<(&Patch, Stitched)> =
        patches.iter().map(|p| (*p, stitched(&session, p))).collect();
    for set in 0..1 << all.len() {
        check_agrees(&session, &all, set, &uniform(&[1, 4], u64::from(set) + 7));
    }
}

#[test]
fn a_replacing_patch_skips_what_nobody_needs() {
    let library = tiny();
    let patches: Vec<&Patch> = library.patches.iter().collect();
    let session = session(&library.primary, library.digest, "out", &patches);
    let position = patches.iter().position(|p| p.manifest().name == "shortcut").unwrap();
    let shortcut = stitched(&session, patches[position]);
    let plan = Plan::of(&session, &[&shortcut.compiled]).unwrap();
    assert!(!plan.skipped(&session).is_empty());
    assert!(Plan::of(&session, &[]).unwrap().skipped(&session).is_empty());
}

#[test]
fn an_early_answer_bypasses_what_others_may_need() {
    let fashion = Fashion::load();
    let read = |file: &str| {
        std::fs::read(Fashion::folder().join("patches/early-answer").join(file)).unwrap()
    };
    let early = Patch::from_parts(&read("patch.json"), &read("patch.onnx"), None).unwrap();
    let patches: Vec<&Patch> = fashion.patches.iter().chain([&early]).collect();
    let session = session(&fashion.primary, fashion.digest, "logits", &patches);
    let compiled = |patch: &Patch| stitched(&session, patch).compiled;
    let bypassed = |patch: &Compiled| Plan::of(&session, &[patch]).unwrap().bypassed(&session);
    // `logits` it makes itself; the style of the user's own pictures reads `features`.
    assert_eq!(bypassed(&compiled(&early)), ["features"]);
    for patch in &fashion.patches {
        assert!(bypassed(&compiled(patch)).is_empty(), "{}", patch.manifest().name);
    }
    let style = fashion.patches.iter().find(|p| p.manifest().name == "personal-style").unwrap();
    let (early, style) = (compiled(&early), compiled(style));
    let both = Plan::of(&session, &[&early, &style]).unwrap();
    assert!(both.bypassed(&session).is_empty(), "together they save nothing to speak of");
}

#[test]
fn a_fresh_adapter_is_known_to_change_nothing() {
    let fashion = Fashion::load();
    let patches: Vec<&Patch> = fashion.patches.iter().collect();
    let session = session(&fashion.primary, fashion.digest, "logits", &patches);
    for patch in patches {
        let has_effect = |patch: &Patch| {
            let Stitched { compiled, weights, .. } = stitched(&session, patch);
            compiled.has_effect(&session, &weights).unwrap()
        };
        assert_eq!(has_effect(patch), patch.manifest().name != "personal-style");
        assert!(has_effect(&with_random_weights(patch)));
    }
}

#[test]
fn the_same_path_gives_the_same_bits_and_other_weights_compile_nothing() {
    let fashion = Fashion::load();
    let patches: Vec<&Patch> = fashion.patches.iter().collect();
    let session = session(&fashion.primary, fashion.digest, "logits", &patches);
    let mut style = stitched(&session, patches[2]);
    let input = uniform(&[1, 1, 28, 28], 3);
    let run = |style: &Stitched| {
        let plan = Plan::of(&session, &[&style.compiled]).unwrap();
        let ran = session.run(&plan, std::slice::from_ref(style), &input, None, &|| 0.0).unwrap();
        ran.output.f32s().unwrap().to_vec()
    };
    let base = session.base(&input, None, &|| 0.0).unwrap().0.output.f32s().unwrap().to_vec();
    assert_eq!(run(&style), base);
    let trained = with_random_weights(patches[2]);
    assert_eq!(Compiled::key(&session, patches[2]), Compiled::key(&session, &trained));
    style.weights = Arc::new(style.compiled.weights(&session, &trained).unwrap());
    let changed = run(&style);
    assert_ne!(changed, base);
    assert_eq!(run(&style), changed);
}
