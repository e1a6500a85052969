//! Every attribute and every small integer weight of every golden model, replaced by hostile values one at a time: the
//! model is refused or runs, and nothing outside the engine panics. What the engine itself gives up on is counted.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use backstitch_onnx::engine::{Dims, Program, Value};
use backstitch_onnx::{Attribute, Code, DType, Model, Tensor};

use crate::golden::{Case, cases};

const HOSTILE: [i64; 7] = [0, -1, 1, 7, i64::MAX, i64::MIN, 1 << 33];

/// How many variants of one node are tried, so that the sweep takes seconds; `BACKSTITCH_SWEEP` raises it.
fn depth() -> usize {
    std::env::var("BACKSTITCH_SWEEP").ok().and_then(|text| text.parse().ok()).unwrap_or(4)
}

fn hostile(attribute: &Attribute) -> Vec<Attribute> {
    match attribute {
        Attribute::Int(_) => HOSTILE.map(Attribute::Int).into(),
        Attribute::Ints(values) => {
            let mut variants = vec![Vec::new(), [values.as_slice(), values].concat()];
            variants.extend(HOSTILE.map(|value| vec![value; values.len().max(1)]));
            variants.into_iter().map(Attribute::Ints).collect()
        }
        Attribute::Float(_) => [f32::NAN, -1e30].map(Attribute::Float).into(),
        Attribute::String(_) => {
            ["", "->", "ij,jk->ikk"].map(|s| Attribute::String(s.to_owned())).into()
        }
        _ => Vec::new(),
    }
}

/// The model with one attribute or weight changed, and what was changed.
fn variants(case: &Case) -> Vec<(String, Model)> {
    let mut all = Vec::new();
    for (index, node) in case.model.graph.nodes.iter().enumerate() {
        let mut of_node = Vec::new();
        for (name, attribute) in &node.attributes {
            for value in hostile(attribute) {
                let mut model = case.model.clone();
                let what = format!("{} {} {name} = {value:?}", case.name, node.describe());
                model.graph.nodes[index].attributes.insert(name.clone(), value);
                of_node.push((what, model));
            }
        }
        for name in node.reads() {
            let Some(tensor) = case.model.graph.initializers.get(name) else { continue };
            if tensor.dtype() != DType::I64 || tensor.len() > 16 {
                continue;
            }
            for value in HOSTILE {
                let mut model = case.model.clone();
                let values = vec![value; tensor.len()];
                let changed = Tensor::new(tensor.shape().to_vec(), &values).unwrap();
                model.graph.initializers.insert(name.to_owned(), changed);
                of_node
                    .push((format!("{} {} `{name}` = {value}", case.name, node.describe()), model));
            }
        }
        let step = (of_node.len() / depth()).max(1);
        all.extend(of_node.into_iter().skip(index % step).step_by(step).map(
            |(what, mut model)| {
                let makes: Vec<String> = node.makes().map(str::to_owned).collect();
                model.graph.outputs.retain(|info| makes.contains(&info.name));
                (what, model)
            },
        ));
    }
    all.retain(|(_, model)| !model.graph.outputs.is_empty());
    all
}

/// Reads, compiles and runs a model; yields the code of the refusal.
fn attempt(case: &Case, model: &Model) -> Option<Code> {
    let run = || -> Result<(), backstitch_onnx::Error> {
        let mut model = Model::from_bytes(&model.to_bytes())?;
        model.graph.prune();
        let dims: Dims = case
            .inputs
            .iter()
            .map(|(name, tensor)| (name.clone(), tensor.shape().to_vec()))
            .collect();
        let program = Program::compile(&model, &dims)?;
        let inputs: BTreeMap<String, Value> = case
            .inputs
            .iter()
            .map(|(name, tensor)| Ok((name.clone(), Value::try_from(tensor)?)))
            .collect::<Result<_, backstitch_onnx::Error>>()?;
        program.run(&inputs).map(drop)
    };
    run().err().map(|error| {
        assert!(!error.message().is_empty());
        error.code()
    })
}

thread_local! {
    static SILENT: Cell<bool> = const { Cell::new(false) };
}

/// Panics that this thread catches are not printed; those of other tests are.
fn silence_this_thread() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !SILENT.get() {
            print(panic);
        }
    }));
    SILENT.set(true);
}

#[test]
fn hostile_attributes_and_weights_are_refused_or_run() {
    let (mut tried, mut refused, mut given_up) = (0, 0, Vec::new());
    let mut escaped = Vec::new();
    silence_this_thread();
    for case in cases() {
        for (what, model) in variants(&case) {
            tried += 1;
            match catch_unwind(AssertUnwindSafe(|| attempt(&case, &model))) {
                Ok(None) => {}
                Ok(Some(Code::EngineFailed)) => given_up.push(what),
                Ok(Some(_)) => refused += 1,
                Err(_) => escaped.push(what),
            }
        }
    }
    SILENT.set(false);
    println!("{tried} variants: {refused} refused by name, {} by the engine", given_up.len());
    assert!(escaped.is_empty(), "{} panics of our own:\n{}", escaped.len(), escaped.join("\n"));
    assert!(refused > tried / 20, "the checks refused {refused} of {tried} only");
}
