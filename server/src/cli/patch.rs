//! `backstitch patch`: make, check, train, measure and pack patches.

mod answers;
mod choose;
mod condition;
mod data;
mod evaluate;
mod fit;
mod measure;
mod pack;
pub(super) mod pictures;
mod primary;
mod probed;
mod progress;
mod statistics;
mod train;

use std::path::{Path, PathBuf};

use backstitch_onnx::engine::{infer, several, smallest};
use backstitch_onnx::patch::{Patch, Template, check, check_training, template};
use backstitch_onnx::{Digest, Dims, Model};
use clap::Subcommand;
use serde_json::json;

use super::files::{self, Outcome};

/// Make, check, train, measure and pack patches.
#[derive(Debug, Subcommand)]
pub(super) enum PatchCommand {
    /// Make a new patch that changes nothing until it is trained.
    #[command(
        after_help = "Example: backstitch patch new --kind lora --primary primary.onnx --site block3,block4 --rank 4 --out style"
    )]
    New {
        /// affine, lora, adapter, conv, head or replace-block.
        #[arg(long)]
        kind: String,
        /// The primary model.
        #[arg(long, value_name = "FILE.onnx")]
        primary: PathBuf,
        /// The tensor that it changes; for lora, head and replace-block the one that it reads, then the one that it changes.
        #[arg(long, value_name = "TENSOR", value_delimiter = ',', required = true)]
        site: Vec<String>,
        /// Width of the bottleneck of lora and adapter.
        #[arg(long, default_value_t = 4)]
        rank: usize,
        /// A head for this many classes of your own, which take the first places of the output.
        #[arg(long, value_name = "N")]
        classes: Option<usize>,
        /// Its name; the folder's where it is left out.
        #[arg(long)]
        name: Option<String>,
        /// The folder to write.
        #[arg(long, value_name = "PATCH_DIR")]
        out: PathBuf,
    },
    Train(train::Train),
    Eval(evaluate::Evaluate),
    Pack(pack::Pack),
    /// Check that a patch fits its primary and can be trained in it.
    #[command(after_help = "Example: backstitch patch check patches/noise --primary primary.onnx")]
    Check {
        /// The patch's folder.
        patch: PathBuf,
        /// The primary model.
        #[arg(long, value_name = "FILE.onnx")]
        primary: PathBuf,
        /// The tensor that the loss reads; where it is left out, any float output of the primary will do.
        #[arg(long, value_name = "TENSOR")]
        output: Option<String>,
        /// The shape of an input, where the primary leaves it open.
        #[arg(long = "shape", value_name = "NAME=1,3,224,224", value_parser = files::parse_shape)]
        shapes: Vec<(String, Vec<usize>)>,
        /// Print as JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Runs one of the commands.
pub(super) fn run(command: PatchCommand) -> Outcome<()> {
    match command {
        PatchCommand::New { kind, primary, site, rank, classes, name, out } => {
            let sites: Vec<&str> = site.iter().map(String::as_str).collect();
            let folder = out.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let name = name.unwrap_or_else(|| folder.to_lowercase().replace(['_', ' ', '.'], "-"));
            let kind = kind.parse()?;
            make(&primary, &Template { kind, name: &name, sites: &sites, rank, classes }, &out)
        }
        PatchCommand::Train(command) => train::run(&command),
        PatchCommand::Eval(command) => evaluate::run(&command),
        PatchCommand::Pack(command) => pack::run(&command),
        PatchCommand::Check { patch, primary, output, shapes, json } => {
            check_patch(&patch, &primary, output.as_deref(), &shapes, json)
        }
    }
}

fn make(primary: &Path, wanted: &Template<'_>, out: &Path) -> Outcome<()> {
    let (model, digest) = files::read_model(primary)?;
    let patch = template(&model, digest, wanted)?;
    if out.join("patch.json").exists() {
        return Err(
            format!("{} holds a patch already; choose another folder", out.display()).into()
        );
    }
    files::create_folder(out)?;
    files::write(&out.join("patch.onnx"), &patch.model().to_bytes())?;
    files::write(&out.join("patch.json"), &patch.manifest().to_bytes())?;
    println!("{}  {}", out.display(), describe(&patch));
    Ok(())
}

/// What fits one size of the dimensions that nobody fixed may still not fit another, such as a batch of two.
fn check_other_sizes(patch: &Patch, model: &Model, digest: Digest, given: &Dims) -> Outcome<()> {
    for dims in several(model, given) {
        // A size at which the primary does not run tells nothing of the patch.
        let Ok(shapes) = infer(model, &dims) else { continue };
        check(patch, model, digest, &shapes)
            .map_err(|error| error.context(format!("with inputs of the shapes {dims:?}")))?;
    }
    Ok(())
}

fn describe(patch: &Patch) -> String {
    let manifest = patch.manifest();
    let weights: usize = patch.weights().values().map(|tensor| tensor.len()).sum();
    format!(
        "{}: {} {} attachments, {weights} trainable weights",
        manifest.name,
        manifest.function,
        manifest.attachments.len()
    )
}

fn check_patch(
    folder: &Path,
    primary: &Path,
    output: Option<&str>,
    shapes: &[(String, Vec<usize>)],
    json: bool,
) -> Outcome<()> {
    let patch = files::read_patch(folder)?;
    let (model, digest) = files::read_model(primary)?;
    let given = files::dims(shapes);
    let (dims, shapes) =
        if given.is_empty() { smallest(&model)? } else { (given.clone(), infer(&model, &given)?) };
    check(&patch, &model, digest, &shapes)?;
    check_other_sizes(&patch, &model, digest, &given)?;
    check_training(&patch, &model, &dims, output)?;
    if json {
        return files::print_json(&json!({
            "name": patch.manifest().name,
            "graph": patch.graph_digest(),
            "weights": patch.weights_digest(),
            "trainable": patch.weights().into_iter().map(|(name, tensor)| json!({ "name": name, "shape": tensor.shape() })).collect::<Vec<_>>(),
        }));
    }
    println!("{} fits.", describe(&patch));
    Ok(())
}
