//! `backstitch patch pack`: checked patches and their primary as a library, ready for `backstitch library import`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use backstitch_onnx::patch::{Patch, check_training};
use backstitch_onnx::{Digest, Dims};
use backstitch_protocol::Problem;
use backstitch_protocol::id::Name;
use backstitch_protocol::problem::Code;
use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::primary::{Primary, PrimaryArgs};
use crate::cli::files::{self, Outcome};
use crate::registry::{LibraryDescriptor, PrimaryDescriptor};

/// Check patches and put them, with their primary, into a library that a server can import.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: backstitch patch pack my-head --primary model.onnx --out my-library --title \"My things\" --labels cup,phone

A library that is there already gets the patches added; one of the same name is replaced. Every file is named with
its SHA-256: what a server stores and a browser fetches under that digest."
)]
pub(in crate::cli) struct Pack {
    /// Folders of patches, in stitching order.
    #[arg(required = true, value_name = "PATCH_DIR")]
    patches: Vec<PathBuf>,
    #[command(flatten)]
    primary: PrimaryArgs,
    /// The library's folder.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// A new library's name; the folder's where it is left out.
    #[arg(long)]
    name: Option<String>,
    /// A new library's title, for people.
    #[arg(long)]
    title: Option<String>,
    /// A new library's description, for people.
    #[arg(long)]
    description: Option<String>,
    /// A new library's names of the classes, in order.
    #[arg(long, value_delimiter = ',')]
    labels: Vec<String>,
    /// A new library's kind of data: image, text or series.
    #[arg(long)]
    modality: Option<String>,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

/// A file of the library.
#[derive(Serialize)]
struct Packed {
    path: String,
    digest: Digest,
    bytes: u64,
}

/// Runs the command.
pub(super) fn run(command: &Pack) -> Outcome<()> {
    let primary = command.primary.read(None)?;
    let patches: Vec<Patch> =
        command.patches.iter().map(|p| files::read_patch(p)).collect::<Outcome<_>>()?;
    primary.check(&patches)?;
    let library = command.library(&primary, &patches)?;
    for patch in &patches {
        check_training(patch, &primary.model, &Dims::new(), Some(&library.primary.output))?;
    }
    let mut packed =
        vec![write(&command.out, &library.primary.file, &files::read(&command.primary.primary)?)?];
    for (folder, patch) in command.patches.iter().zip(&patches) {
        packed.extend(copy(&command.out, folder, &patch.manifest().name)?);
    }
    // Last: a folder whose library.json names a patch has it.
    packed.push(write(&command.out, "library.json", &json_bytes(&library)?)?);
    notes(&primary, &library, &patches);
    let weights: BTreeMap<&str, Digest> =
        patches.iter().map(|p| (p.manifest().name.as_str(), p.weights_digest())).collect();
    if command.json {
        return files::print_json(
            &json!({ "library": library.name, "files": packed, "weights": weights }),
        );
    }
    for file in &packed {
        println!("{}  {:>9} bytes  {}", file.digest, file.bytes, file.path);
    }
    println!(
        "{} is ready: backstitch library import {} --data backstitch-data",
        library.name,
        command.out.display()
    );
    Ok(())
}

/// Says what its author may not expect of the library.
fn notes(primary: &Primary, library: &LibraryDescriptor, patches: &[Patch]) {
    for manifest in patches.iter().map(Patch::manifest).filter(|m| m.selector.is_none()) {
        eprintln!(
            "note: {} has no selector, so clients stitch it only by name; `backstitch patch eval --write` gives it one",
            manifest.name
        );
    }
    if let Some(logits) = primary.before_softmax()
        && library.primary.output == primary.output
    {
        eprintln!(
            "note: pages take the softmax of `{}`, which is one already: `--output {logits}` shows true shares and trains better",
            primary.output
        );
    }
    if library.modality == "series" && library.primary.preprocessing.get("window").is_none() {
        eprintln!(
            "note: without `window` and `channels` in --preprocessing, pages give tensors of the shape {:?}, and cannot follow a series",
            primary.shape
        );
    }
    let places = primary.shapes.get(&primary.output).and_then(|(_, shape)| shape.last());
    let labels = library.primary.labels.len();
    if let Some(places) = places.filter(|places| labels > 0 && labels != **places) {
        eprintln!(
            "note: {labels} labels name the first of {places} places; the primary alone is shown without"
        );
    }
}

impl Pack {
    /// The library that is there with these patches added, or a new one.
    fn library(&self, primary: &Primary, patches: &[Patch]) -> Outcome<LibraryDescriptor> {
        let path = self.out.join("library.json");
        let mut library = match path.exists() {
            true => self.known_library(&path, primary)?,
            false => self.new_library(primary, patches)?,
        };
        let there = self.out.join(&library.primary.file);
        if there.exists() && Digest::of(&files::read(&there)?) != primary.digest {
            return Err(format!(
                "{} holds another primary; patches are bound to theirs, so pack into another folder",
                self.out.display()
            )
            .into());
        }
        for patch in patches {
            let name = Name::new(&*patch.manifest().name)?;
            if !library.patches.contains(&name) {
                library.patches.push(name);
            }
        }
        Ok(library)
    }

    /// The library that is there. It keeps what it says; who asks for another answer than its own is told.
    fn known_library(&self, path: &Path, primary: &Primary) -> Outcome<LibraryDescriptor> {
        let library = LibraryDescriptor::from_bytes(&files::read(path)?)?;
        if self.primary.names_output() && primary.output != library.primary.output {
            return Err(Problem::new(
                Code::Conflict,
                format!(
                    "{} answers with `{}`, not `{}`",
                    path.display(),
                    library.primary.output,
                    primary.output
                ),
            )
            .with_hint("all patches of a library share its answer: pack into another folder, or change primary.output there")
            .into());
        }
        let differs = [
            ("--name", self.name.as_deref().is_some_and(|n| n != library.name.as_str())),
            ("--title", self.title.as_ref().is_some_and(|t| *t != library.title)),
            ("--description", self.description.as_ref().is_some_and(|d| *d != library.description)),
            ("--labels", !self.labels.is_empty() && self.labels != library.primary.labels),
            ("--modality", self.modality.as_ref().is_some_and(|m| *m != library.modality)),
        ];
        for (option, _) in differs.into_iter().filter(|(_, differs)| *differs) {
            eprintln!(
                "note: {option} is for a new library; {} stays as it is, edit it there",
                path.display()
            );
        }
        Ok(library)
    }

    fn new_library(&self, primary: &Primary, patches: &[Patch]) -> Outcome<LibraryDescriptor> {
        let folder = self.out.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let name = self
            .name
            .clone()
            .unwrap_or_else(|| folder.to_lowercase().replace(['_', ' ', '.'], "-"));
        let modality =
            self.modality.clone().or(primary.picture.is_some().then(|| "image".to_owned()));
        let labels =
            if self.labels.is_empty() { primary.labels.clone() } else { self.labels.clone() };
        let library = LibraryDescriptor {
            format: 1,
            title: self.title.clone().unwrap_or_else(|| name.clone()),
            name: Name::new(name)?,
            description: self.description.clone().unwrap_or_default(),
            modality: modality
                .ok_or("say what kind of data this is: --modality text or --modality series")?,
            primary: PrimaryDescriptor {
                file: "primary.onnx".to_owned(),
                input: primary.input.clone(),
                output: primary.output.clone(),
                labels,
                preprocessing: primary.preprocessing.clone(),
                probes: Vec::new(),
            },
            patches: Vec::new(),
            tasks: Vec::new(),
            reports: Default::default(),
            samples: None,
        };
        let (model, _) = files::read_model(&self.primary.primary)?;
        let fed = library.primary.feed(model)?;
        library.primary.check_labels(&fed.shapes, patches)?;
        Ok(library)
    }
}

fn json_bytes(library: &LibraryDescriptor) -> Outcome<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(library)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// The files of a patch; its manifest last.
fn copy(out: &Path, folder: &Path, name: &str) -> Outcome<Vec<Packed>> {
    let mut packed = Vec::new();
    for file in ["patch.onnx", "weights.safetensors", "patch.json"] {
        let path = folder.join(file);
        if path.exists() {
            packed.push(write(out, &format!("patches/{name}/{file}"), &files::read(&path)?)?);
        }
    }
    Ok(packed)
}

fn write(out: &Path, path: &str, bytes: &[u8]) -> Outcome<Packed> {
    let target = out.join(path);
    if let Some(folder) = target.parent() {
        files::create_folder(folder)?;
    }
    files::write(&target, bytes)?;
    Ok(Packed { path: path.to_owned(), digest: Digest::of(bytes), bytes: bytes.len() as u64 })
}
