//! `backstitch onnx`: look at, run, cut, stitch, differentiate and measure models.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use backstitch_onnx::autodiff::{Loss, Objective, differentiate};
use backstitch_onnx::engine::{Program, Value, declare, smallest};
use backstitch_onnx::patch::{Patch, check};
use backstitch_onnx::stitch::stitch;
use backstitch_onnx::{Code, Dim, Model, Tensor, ValueInfo};
use clap::Subcommand;
use serde_json::json;

use super::bench::bench;
use super::files::{self, Outcome};
use super::{cost, npy};

/// Look at, run, cut, stitch, differentiate and measure ONNX models.
#[derive(Debug, Subcommand)]
pub enum OnnxCommand {
    /// Print inputs, outputs, operators and tensors of a model.
    #[command(after_help = "Example: backstitch onnx inspect model.onnx --json")]
    Inspect {
        /// The model.
        model: PathBuf,
        /// Print everything as JSON, with all tensors.
        #[arg(long)]
        json: bool,
    },
    /// Run a model on .npy files.
    #[command(
        after_help = "Example: backstitch onnx run model.onnx --input image=image.npy --out results"
    )]
    Run {
        /// The model.
        model: PathBuf,
        /// An input and the file that holds it; once per input.
        #[arg(long = "input", value_name = "NAME=FILE.npy", value_parser = files::parse_file)]
        inputs: Vec<(String, PathBuf)>,
        /// Folder for one .npy file per output.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Print the outputs' names, types and shapes as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Cut a model at tensors into segments that run one after the other, here or in any ONNX runtime. Says what the
    /// engine here could not run.
    #[command(
        after_help = "Example: backstitch onnx cut model.onnx --at block3,block4 --out segments"
    )]
    Cut {
        /// The model.
        model: PathBuf,
        /// Tensors to cut at.
        #[arg(long, value_name = "TENSOR", value_delimiter = ',', required = true)]
        at: Vec<String>,
        /// Folder for segment-0.onnx, segment-1.onnx, …
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Print the segments' inputs and outputs as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Stitch patches into a primary and write the result as one model.
    #[command(
        after_help = "Example: backstitch onnx stitch primary.onnx patches/noise --out stitched.onnx"
    )]
    Stitch {
        /// The primary model.
        primary: PathBuf,
        /// Folders of patches, in the order in which they act.
        #[arg(value_name = "PATCH_DIR", required = true)]
        patches: Vec<PathBuf>,
        /// The stitched model.
        #[arg(long, value_name = "FILE.onnx")]
        out: PathBuf,
    },
    /// Write the training model: loss and gradients as a plain ONNX model.
    #[command(
        after_help = "Example: backstitch onnx grad model.onnx --loss softmax_cross_entropy --output logits \
                      --wrt head.weight,head.bias --shape image=16,3,224,224 --out training.onnx"
    )]
    Grad {
        /// The model.
        model: PathBuf,
        /// softmax_cross_entropy, sigmoid_cross_entropy, mean_squared_error or entropy.
        #[arg(long)]
        loss: String,
        /// The tensor that the loss reads.
        #[arg(long, value_name = "NAME")]
        output: String,
        /// Initializers to differentiate by.
        #[arg(long, value_name = "INITIALIZER", value_delimiter = ',', required = true)]
        wrt: Vec<String>,
        /// The shape of an input, where the model leaves it open.
        #[arg(long = "shape", value_name = "NAME=1,3,224,224", value_parser = files::parse_shape)]
        shapes: Vec<(String, Vec<usize>)>,
        /// The training model.
        #[arg(long, value_name = "FILE.onnx")]
        out: PathBuf,
    },
    /// Count multiply-accumulates, parameter bytes and activation bytes, also in terms of open dimensions.
    #[command(
        after_help = "Example: backstitch onnx cost model.onnx --shape image=1,3,224,224 --nodes"
    )]
    Cost {
        /// The model.
        model: PathBuf,
        /// The shape of an input, where the model leaves it open.
        #[arg(long = "shape", value_name = "NAME=1,3,224,224", value_parser = files::parse_shape)]
        shapes: Vec<(String, Vec<usize>)>,
        /// Also per node.
        #[arg(long)]
        nodes: bool,
        /// Print as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Measure how long a model takes to compile and to run.
    #[command(
        after_help = "Example: backstitch onnx bench model.onnx --shape image=1,3,224,224 --runs 50"
    )]
    Bench {
        /// The model.
        model: PathBuf,
        /// The shape of an input, where the model leaves it open.
        #[arg(long = "shape", value_name = "NAME=1,3,224,224", value_parser = files::parse_shape)]
        shapes: Vec<(String, Vec<usize>)>,
        /// Measured runs, after a fifth as many to warm up.
        #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
        runs: u32,
        /// Also cut the model at these tensors and measure the segments as one.
        #[arg(long, value_name = "TENSOR", value_delimiter = ',')]
        at: Vec<String>,
        /// Print as JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Runs one of the commands.
pub fn run(command: OnnxCommand) -> Outcome<()> {
    match command {
        OnnxCommand::Inspect { model, json } => inspect(&model, json),
        OnnxCommand::Run { model, inputs, out, json } => run_model(&model, &inputs, &out, json),
        OnnxCommand::Cut { model, at, out, json } => cut(&model, &at, &out, json),
        OnnxCommand::Stitch { primary, patches, out } => stitch_patches(&primary, &patches, &out),
        OnnxCommand::Grad { model, loss, output, wrt, shapes, out } => {
            grad(&model, (&loss, &output), &wrt, &shapes, &out)
        }
        OnnxCommand::Cost { model, shapes, nodes, json } => {
            cost::print(&model, &shapes, nodes, json)
        }
        OnnxCommand::Bench { model, shapes, runs, at, json } => {
            bench(&model, &shapes, runs, &at, json)
        }
    }
}

/// A shape for people: known sizes, symbols, and `?`.
fn show(info: &ValueInfo) -> String {
    let Some(shape) = &info.shape else { return format!("{} of open rank", info.dtype.name()) };
    let dims: Vec<String> = shape
        .iter()
        .map(|dim| match dim {
            Dim::Fixed(size) => size.to_string(),
            Dim::Symbol(symbol) => symbol.clone(),
            Dim::Unknown => "?".to_owned(),
        })
        .collect();
    format!("{} [{}]", info.dtype.name(), dims.join(", "))
}

fn as_json(info: &ValueInfo) -> serde_json::Value {
    let shape = info.shape.as_ref().map(|shape| {
        let dims = shape.iter().map(|dim| match dim {
            Dim::Fixed(size) => json!(size),
            Dim::Symbol(symbol) => json!(symbol),
            Dim::Unknown => json!(null),
        });
        dims.collect::<Vec<_>>()
    });
    json!({ "name": info.name, "dtype": info.dtype.name(), "shape": shape })
}

fn inspect(path: &Path, json: bool) -> Outcome<()> {
    let (model, digest) = files::read_model(path)?;
    let graph = &model.graph;
    let mut operators: BTreeMap<&str, usize> = BTreeMap::new();
    for node in &graph.nodes {
        *operators.entry(&node.op).or_default() += 1;
    }
    let parameters: usize = graph.initializers.values().map(Tensor::len).sum();
    // A model that the engine cannot analyse can still be looked at.
    let types = declare(&model);
    if json {
        let list = |infos: &[ValueInfo]| infos.iter().map(as_json).collect::<Vec<_>>();
        let weights = graph.initializers.iter().map(|(name, tensor)| {
            json!({ "name": name, "dtype": tensor.dtype().name(), "shape": tensor.shape() })
        });
        let known = types.as_ref().ok();
        let made =
            graph.nodes.iter().flat_map(|node| node.makes().map(move |name| (name, &node.op)));
        let tensors = made.map(|(name, op)| {
            let mut entry = known
                .and_then(|types| types.get(name))
                .map_or_else(|| json!({ "name": name }), as_json);
            entry["operator"] = json!(op);
            entry
        });
        return files::print_json(&json!({
            "digest": digest, "opset": model.opset, "inputs": list(&graph.inputs), "outputs": list(&graph.outputs),
            "nodes": graph.nodes.len(), "operators": operators, "parameters": parameters,
            "initializers": weights.collect::<Vec<_>>(), "tensors": tensors.collect::<Vec<_>>(),
            "engine": types.as_ref().err().map(ToString::to_string),
        }));
    }
    println!(
        "{}  operator set {}, {} nodes, {parameters} parameters",
        path.display(),
        model.opset,
        graph.nodes.len()
    );
    println!("{digest}");
    for (kind, infos) in [("input", &graph.inputs), ("output", &graph.outputs)] {
        for info in infos {
            println!("{kind:7} {}: {}", info.name, show(info));
        }
    }
    let counted: Vec<String> =
        operators.iter().map(|(op, count)| format!("{op} {count}")).collect();
    println!("operators: {}", counted.join(", "));
    match types {
        Ok(types) => {
            println!("tensors, where a model can be cut or patched:");
            for name in graph.nodes.iter().flat_map(|node| node.makes()) {
                println!("  {name}: {}", types.get(name).map_or_else(String::new, show));
            }
        }
        Err(error) => println!("the engine cannot run it: {error}"),
    }
    Ok(())
}

fn run_model(path: &Path, inputs: &[(String, PathBuf)], out: &Path, json: bool) -> Outcome<()> {
    let (mut model, _) = files::read_model(path)?;
    let mut values = BTreeMap::new();
    let mut shapes = Vec::new();
    for (name, file) in inputs {
        let tensor = npy::read(file)?;
        shapes.push((name.clone(), tensor.shape().to_vec()));
        values.insert(name.clone(), Value::try_from(&tensor)?);
    }
    for info in &model.graph.inputs {
        if !values.contains_key(&info.name) {
            return Err(format!(
                "the input `{}` ({}) is missing; give --input {}=FILE.npy",
                info.name,
                show(info),
                info.name
            )
            .into());
        }
    }
    let outputs = compute(&mut model, &mut values, shapes)?;
    files::create_folder(out)?;
    let mut written = Vec::new();
    for info in &model.graph.outputs {
        let Some(value) = outputs.get(&info.name) else { continue };
        // Names of tensors may hold slashes, names of files may not.
        let file = out.join(format!("{}.npy", info.name.replace(['/', '\\'], "_")));
        npy::write(&file, &value.to_tensor()?)?;
        if !json {
            println!("{}  {} {:?}", file.display(), value.dtype().name(), value.shape());
        }
        written.push(json!({ "name": info.name, "file": file, "dtype": value.dtype().name(), "shape": value.shape() }));
    }
    if json { files::print_json(&json!({ "outputs": written })) } else { Ok(()) }
}

/// Runs the model. Shapes, axes and scales may come as inputs; the engine needs them when it compiles, and here they
/// are known: where it fails without, small integers become constants, and where it still fails, all small inputs.
fn compute(
    model: &mut Model,
    values: &mut BTreeMap<String, Value>,
    shapes: Vec<(String, Vec<usize>)>,
) -> backstitch_onnx::Result<BTreeMap<String, Value>> {
    let run = |model: &Model, values: &BTreeMap<String, Value>| {
        let fed = shapes.iter().filter(|(name, _)| values.contains_key(name)).cloned();
        Program::compile(model, &fed.collect())?.run(values)
    };
    let first = match run(model, values) {
        // What does not fit what the model declares would, as a constant, run all the same.
        Err(error) if error.code() != Code::InputMismatch => error,
        done => return done,
    };
    for floats in [false, true] {
        if bind_small(model, values, floats)?
            && let Ok(outputs) = run(model, values)
        {
            return Ok(outputs);
        }
    }
    Err(first)
}

/// Turns small integer and boolean inputs, or all small ones, into initializers. Whether there was one.
fn bind_small(
    model: &mut Model,
    values: &mut BTreeMap<String, Value>,
    floats: bool,
) -> backstitch_onnx::Result<bool> {
    /// More elements are data, not shapes, axes or scales.
    const PARAMETERS: usize = 64;
    let bound: Vec<String> = values
        .iter()
        .filter(|(_, value)| {
            (floats || !value.dtype().is_float())
                && value.shape().iter().product::<usize>() <= PARAMETERS
        })
        .map(|(name, _)| name.clone())
        .collect();
    for name in &bound {
        if let Some(value) = values.remove(name) {
            model.graph.initializers.insert(name.clone(), value.to_tensor()?);
        }
    }
    model.graph.inputs.retain(|info| !bound.contains(&info.name));
    Ok(!bound.is_empty())
}

fn cut(path: &Path, at: &[String], out: &Path, json: bool) -> Outcome<()> {
    let (model, _) = files::read_model(path)?;
    let sites: Vec<&str> = at.iter().map(String::as_str).collect();
    let segments = backstitch_onnx::cut::cut(&model, &sites)?;
    // Any runtime may run the files; whoever means to run them here learns now what stands against that.
    let refused = declare(&model).err().map(|problem| problem.to_string());
    files::create_folder(out)?;
    let mut written = Vec::new();
    for (index, segment) in segments.iter().enumerate() {
        let file = out.join(format!("segment-{index}.onnx"));
        files::write(&file, &segment.to_bytes())?;
        let names =
            |infos: &[ValueInfo]| infos.iter().map(|info| info.name.clone()).collect::<Vec<_>>();
        let (inputs, outputs) = (names(&segment.graph.inputs), names(&segment.graph.outputs));
        if !json {
            println!(
                "{}  {} nodes, {} → {}",
                file.display(),
                segment.graph.nodes.len(),
                inputs.join(", "),
                outputs.join(", ")
            );
        }
        written.push(json!({ "file": file, "nodes": segment.graph.nodes.len(), "inputs": inputs, "outputs": outputs }));
    }
    if json {
        return files::print_json(&json!({ "segments": written, "engine": refused }));
    }
    refused.iter().for_each(|why| println!("the engine here cannot run the model: {why}"));
    Ok(())
}

fn stitch_patches(primary: &Path, folders: &[PathBuf], out: &Path) -> Outcome<()> {
    let (model, digest) = files::read_model(primary)?;
    let (_, shapes) = smallest(&model)?;
    let patches =
        folders.iter().map(|folder| files::read_patch(folder)).collect::<Outcome<Vec<Patch>>>()?;
    for patch in &patches {
        check(patch, &model, digest, &shapes)?;
    }
    let stitched = stitch(&model, &patches.iter().collect::<Vec<_>>())?;
    files::write(out, &stitched.to_bytes())?;
    println!(
        "{}  {} nodes ({} in the primary), {} patches",
        out.display(),
        stitched.graph.nodes.len(),
        model.graph.nodes.len(),
        patches.len()
    );
    Ok(())
}

fn grad(
    path: &Path,
    (loss, output): (&str, &str),
    wrt: &[String],
    shapes: &[(String, Vec<usize>)],
    out: &Path,
) -> Outcome<()> {
    let (model, _) = files::read_model(path)?;
    let loss: Loss = loss.parse()?;
    let trainable: Vec<&str> = wrt.iter().map(String::as_str).collect();
    let training = differentiate(
        &model,
        &Objective { loss, output, trainable: &trainable },
        &files::dims(shapes),
    )?;
    files::write(out, &training.to_bytes())?;
    println!(
        "{}  {} nodes, {} gradients",
        out.display(),
        training.graph.nodes.len(),
        trainable.len()
    );
    Ok(())
}
