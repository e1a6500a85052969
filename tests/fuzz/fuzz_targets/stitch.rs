//! Random patches on random primaries. What `check` passes is stitched, reads back, runs, and gives what the segments
//! and the attachments give one by one; what cannot be trained is refused in words.
#![no_main]

use std::collections::{BTreeMap, BTreeSet};

use arbitrary::Arbitrary;
use backstitch_fuzz::forgive_the_engine;
use backstitch_onnx::cut::cut;
use backstitch_onnx::engine::{Dims, Program, Shapes, Value, infer};
use backstitch_onnx::patch::{Attachment, Manifest, Mode, Patch, check, check_training};
use backstitch_onnx::stitch::stitch;
use backstitch_onnx::{Attribute, DType, Digest, Graph, Model, Node, Tensor, ValueInfo};
use libfuzzer_sys::fuzz_target;

#[derive(Debug, Arbitrary)]
struct Plan {
    primary: Vec<Step>,
    outputs: [u8; 2],
    patches: Vec<PatchPlan>,
}

/// One operator on tensors that stand before it.
#[derive(Debug, Arbitrary)]
struct Step {
    op: u8,
    reads: [u8; 2],
}

#[derive(Debug, Arbitrary)]
struct PatchPlan {
    steps: Vec<Step>,
    attachments: Vec<AttachmentPlan>,
    trainable: bool,
}

#[derive(Debug, Arbitrary)]
struct AttachmentPlan {
    mode: u8,
    reads: [u8; 2],
    output: u8,
    site: u8,
    scale: Option<i8>,
}

const PRIMARY_STEPS: usize = 12;
const PATCHES: usize = 3;

fuzz_target!(|plan: Plan| {
    forgive_the_engine();
    let Some((primary, shapes)) = primary(&plan) else { return };
    let digest = primary.digest();
    let sites: Vec<&str> = primary.graph.tensor_names().into_iter().collect();
    let patches: Vec<Patch> = (plan.patches.iter().take(PATCHES).enumerate())
        .filter_map(|(index, plan)| patch(plan, index, digest, &sites))
        .filter(|patch| check(patch, &primary, digest, &shapes).is_ok())
        .collect();
    for patch in &patches {
        let _ = check_training(patch, &primary, &Dims::new(), None);
    }
    let patches: Vec<&Patch> = patches.iter().collect();
    // Patches that fit one by one may replace one site twice or close a cycle together.
    let Ok(stitched) = stitch(&primary, &patches) else {
        assert!(patches.len() > 1, "a checked patch could not be stitched");
        return;
    };
    let stitched = Model::from_bytes(&stitched.to_bytes()).expect("a stitched model reads back");
    compare(&primary, &patches, &stitched, &shapes);
});

fn compare(primary: &Model, patches: &[&Patch], stitched: &Model, shapes: &Shapes) {
    let inputs =
        BTreeMap::from([("x".to_owned(), values(&[2, 3])), ("z".to_owned(), values(&[3]))]);
    let Ok(program) = Program::compile(stitched, &Dims::new()) else {
        panic!("a checked stitched model does not compile");
    };
    let needed: BTreeMap<String, Value> =
        program.input_names().map(|name| (name.to_owned(), inputs[name].clone())).collect();
    let whole = program.run(&needed).expect("a stitched model runs");
    let Some(live) = one_by_one(primary, patches, shapes, inputs) else { return };
    for (name, value) in whole {
        same(&name, &value, &live[&name]);
    }
}

/// Runs the segments of the primary and, at each site, its attachments. `None` where no order of sites and segments
/// exists, though the graph as a whole has one.
fn one_by_one(
    primary: &Model,
    patches: &[&Patch],
    shapes: &Shapes,
    inputs: BTreeMap<String, Value>,
) -> Option<BTreeMap<String, Value>> {
    let attached: Vec<(&Patch, usize, &Attachment)> = (patches.iter())
        .flat_map(|p| p.manifest().attachments.iter().enumerate().map(|(i, a)| (*p, i, a)))
        .collect();
    let reads = attached.iter().flat_map(|(_, _, a)| a.inputs.values().map(String::as_str));
    let mut cuts: BTreeSet<&str> = attached.iter().map(|(_, _, a)| a.site()).chain(reads).collect();
    cuts.retain(|name| primary.graph.input(name).is_none());
    let segments = cut(primary, &cuts.into_iter().collect::<Vec<_>>()).expect("checked sites cut");
    let mut pending: BTreeSet<&str> = attached.iter().map(|(_, _, a)| a.site()).collect();
    let mut live = inputs;
    settle(&attached, &mut pending, &mut live);
    for segment in &segments {
        if segment.graph.inputs.iter().any(|info| pending.contains(info.name.as_str())) {
            return None;
        }
        // A site that was replaced before its segment ran has its final value.
        let settled = |name: &str| {
            !pending.contains(name) && attached.iter().any(|(_, _, a)| a.site() == name)
        };
        let made = run(segment, shapes, &live);
        live.extend(made.into_iter().filter(|(name, _)| !settled(name)));
        settle(&attached, &mut pending, &mut live);
    }
    pending.is_empty().then_some(live)
}

/// Gives every site whose reads are final its own final value.
fn settle<'a>(
    attached: &[(&'a Patch, usize, &'a Attachment)],
    pending: &mut BTreeSet<&'a str>,
    live: &mut BTreeMap<String, Value>,
) {
    loop {
        let ready = pending.iter().copied().find(|site| {
            let mine = attached.iter().filter(|(_, _, a)| a.site() == *site);
            let ready = |name: &String| {
                name == site || (live.contains_key(name) && !pending.contains(name.as_str()))
            };
            let replaced = mine.clone().any(|(_, _, a)| a.mode == Mode::Replace);
            (replaced || live.contains_key(*site))
                && mine.flat_map(|(_, _, a)| a.inputs.values()).all(ready)
        });
        let Some(site) = ready else { return };
        apply(site, attached, live);
        pending.remove(site);
    }
}

fn apply(
    site: &str,
    attached: &[(&Patch, usize, &Attachment)],
    live: &mut BTreeMap<String, Value>,
) {
    for mode in [Mode::Replace, Mode::Series, Mode::Parallel] {
        let before = live.get(site).cloned();
        for (patch, index, attachment) in
            attached.iter().filter(|(_, _, a)| a.site() == site && a.mode == mode)
        {
            let fed = attachment.inputs.iter().map(|(input, from)| {
                let value = if from == site && mode == Mode::Parallel {
                    before.as_ref()
                } else {
                    live.get(from)
                };
                (input.clone(), value.expect("a ready site").clone())
            });
            let made = evaluate(patch, *index, fed.collect());
            let new = if mode == Mode::Parallel {
                add(&live[site], &made, attachment.factor())
            } else {
                made
            };
            live.insert(site.to_owned(), new);
        }
    }
}

/// The output of one attachment, with its weights fed as inputs.
fn evaluate(patch: &Patch, index: usize, mut fed: BTreeMap<String, Value>) -> Value {
    let model = patch.attachment_model(index).expect("a checked attachment");
    for (name, tensor) in patch.weights() {
        fed.insert(name, Value::try_from(&tensor).expect("a weight is a value"));
    }
    fed.retain(|name, _| model.graph.input(name).is_some());
    let dims = fed.iter().map(|(name, value)| (name.clone(), value.shape().to_vec())).collect();
    let program = Program::compile(&model, &dims).expect("a checked attachment compiles");
    let outputs = program.run(&fed).expect("a checked attachment runs");
    outputs.into_values().next().expect("an attachment has one output")
}

fn add(site: &Value, made: &Value, factor: f32) -> Value {
    if let (Ok(site_values), Ok(made)) = (site.f32s(), made.f32s()) {
        let sum: Vec<f32> = site_values.iter().zip(made).map(|(t, d)| t + factor * d).collect();
        return Value::f32(site.shape(), &sum).expect("as many as before");
    }
    let sum: Vec<i64> = (site.i64s().expect("an integer site").iter())
        .zip(made.i64s().expect("an integer term"))
        .map(|(t, d)| t.wrapping_add(*d))
        .collect();
    Value::i64(site.shape(), &sum).expect("as many as before")
}

/// What a segment makes of the values that are there.
fn run(model: &Model, shapes: &Shapes, live: &BTreeMap<String, Value>) -> BTreeMap<String, Value> {
    let dims = model
        .graph
        .inputs
        .iter()
        .map(|info| (info.name.clone(), shapes[&info.name].1.clone()))
        .collect();
    let program = Program::compile(model, &dims).expect("a segment compiles");
    let inputs: Vec<Value> = program.input_names().map(|name| live[name].clone()).collect();
    let outputs = program.run_ordered(&inputs).expect("a segment runs");
    program.output_names().map(str::to_owned).zip(outputs).collect()
}

fn same(name: &str, a: &Value, b: &Value) {
    assert_eq!(a.shape(), b.shape(), "{name}");
    if let (Ok(a), Ok(b)) = (a.f32s(), b.f32s()) {
        let close = |a: f32, b: f32| {
            (a - b).abs() <= 1e-4 * (1.0 + a.abs().max(b.abs())) || !a.is_finite() || !b.is_finite()
        };
        assert!(a.iter().zip(b).all(|(a, b)| close(*a, *b)), "{name}: {a:?} is not {b:?}");
    } else {
        assert_eq!(a.i64s().ok(), b.i64s().ok(), "{name}");
    }
}

fn values(shape: &[usize]) -> Value {
    let count = shape.iter().product::<usize>();
    let ramp: Vec<f32> = (0..count).map(|i| (i as f32 * 0.37).sin()).collect();
    Value::f32(shape, &ramp).expect("as many as the shape says")
}

/// A primary that can be read and whose shapes fit.
fn primary(plan: &Plan) -> Option<(Model, Shapes)> {
    let mut graph =
        Graph { name: "primary".to_owned(), initializers: weights(), ..Graph::default() };
    graph.inputs =
        vec![ValueInfo::fixed("x", DType::F32, &[2, 3]), ValueInfo::fixed("z", DType::F32, &[3])];
    let mut names = vec!["x".to_owned(), "z".to_owned()];
    for (index, step) in plan.primary.iter().take(PRIMARY_STEPS).enumerate() {
        push(&mut graph, &mut names, index, step);
    }
    let outputs: BTreeSet<&String> = plan.outputs.iter().map(|o| pick(&names, *o)).collect();
    graph.outputs = outputs.into_iter().map(|name| open(name, &graph)).collect();
    let model = Model::from_bytes(&Model { opset: 17, graph }.to_bytes()).ok()?;
    let shapes = infer(&model, &Dims::new()).ok()?;
    Program::compile(&model, &Dims::new()).ok()?;
    Some((model, shapes))
}

fn patch(plan: &PatchPlan, index: usize, primary: Digest, sites: &[&str]) -> Option<Patch> {
    let name = format!("p{index}");
    let mut graph = Graph { name: name.clone(), initializers: weights(), ..Graph::default() };
    let mut names = Vec::new();
    let mut attachments = Vec::new();
    let planned = plan.attachments.get(..plan.attachments.len().min(2))?;
    for (at, attachment) in planned.iter().enumerate() {
        for side in 0..attachment.reads.len() {
            names.push(format!("in{at}{side}"));
            graph.inputs.push(open(&format!("in{at}{side}"), &graph));
        }
    }
    for (step_index, step) in plan.steps.iter().take(6).enumerate() {
        push(&mut graph, &mut names, step_index, step);
    }
    for (at, attachment) in planned.iter().enumerate() {
        let made = pick(&names, attachment.output).clone();
        let output = format!("out{at}");
        graph.nodes.push(Node::new("Identity", &[&made], &[&output]));
        graph.outputs.push(open(&output, &graph));
        let inputs = attachment.reads.iter().enumerate();
        attachments.push(Attachment {
            mode: [Mode::Series, Mode::Replace, Mode::Parallel][usize::from(attachment.mode) % 3],
            inputs: inputs
                .map(|(side, site)| (format!("in{at}{side}"), (*pick(sites, *site)).to_owned()))
                .collect(),
            output: BTreeMap::from([(output, (*pick(sites, attachment.site)).to_owned())]),
            scale: attachment.scale.map(|scale| f32::from(scale) / 32.0),
        });
    }
    let manifest = Manifest {
        format: 1,
        name,
        function: "Fuzz.".to_owned(),
        primary,
        attachments,
        trainable: if plan.trainable { vec!["w".to_owned()] } else { Vec::new() },
        training: None,
        selector: None,
        io: None,
        performance: Vec::new(),
        cost: None,
        licence: None,
        provenance: None,
    };
    Patch::from_parts(&manifest.to_bytes(), &Model { opset: 17, graph }.to_bytes(), None).ok()
}

fn weights() -> BTreeMap<String, Tensor> {
    let square: Vec<f32> = (0..9).map(|i| (i as f32 * 0.71).cos()).collect();
    BTreeMap::from([
        ("w".to_owned(), Tensor::new(vec![3, 3], &square).expect("nine")),
        ("shape".to_owned(), Tensor::vector(&[-1i64, 3])),
        ("axes".to_owned(), Tensor::vector(&[0i64])),
    ])
}

fn push(graph: &mut Graph, names: &mut Vec<String>, index: usize, step: &Step) {
    if names.is_empty() {
        return;
    }
    let [a, b] = step.reads.map(|at| pick(names, at).clone());
    let made = format!("t{index}");
    let node = match step.op % 14 {
        0 => Node::new("Add", &[&a, &b], &[&made]),
        1 => Node::new("Mul", &[&a, &b], &[&made]),
        2 => Node::new("MatMul", &[&a, "w"], &[&made]),
        3 => Node::new("Relu", &[&a], &[&made]),
        4 => Node::new("Tanh", &[&a], &[&made]),
        5 => Node::new("Softmax", &[&a], &[&made]),
        6 => Node::new("Transpose", &[&a], &[&made]),
        7 => Node::new("Reshape", &[&a, "shape"], &[&made]),
        8 => Node::new("Concat", &[&a, &b], &[&made]).with("axis", Attribute::Int(0)),
        9 => Node::new("Unsqueeze", &[&a, "axes"], &[&made]),
        10 => Node::new("Gemm", &[&a, "w"], &[&made]),
        11 => Node::new("ReduceMean", &[&a], &[&made]),
        12 => Node::new("Shape", &[&a], &[&made]),
        _ => Node::new("Identity", &[&a], &[&made]),
    };
    graph.nodes.push(node);
    names.push(made);
}

fn pick<T>(from: &[T], at: u8) -> &T {
    &from[usize::from(at) % from.len()]
}

/// A declaration that leaves the shape open; the dtype is that of what makes it.
fn open(name: &str, graph: &Graph) -> ValueInfo {
    let is_shape =
        |node: &Node| node.op == "Shape" && node.outputs.iter().any(|output| output == name);
    let dtype = if graph.nodes.iter().any(is_shape) { DType::I64 } else { DType::F32 };
    ValueInfo { name: name.to_owned(), dtype, shape: None }
}
