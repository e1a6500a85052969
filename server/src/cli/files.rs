//! What the model tools share: reading models and patches, shapes on the command line, writing files whole.

use std::error::Error as StdError;
use std::path::{Path, PathBuf};

use backstitch_onnx::patch::Patch;
use backstitch_onnx::{Digest, Dims, Error, Model};

/// The result of a command: what went wrong is one clear line.
pub(super) type Outcome<T> = Result<T, Box<dyn StdError>>;

pub(super) fn read(path: &Path) -> Outcome<Vec<u8>> {
    std::fs::read(path).map_err(|cause| format!("cannot read {}: {cause}", path.display()).into())
}

/// Writes beside the file first, so that a reader never sees half of it.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Outcome<()> {
    let failed = |cause: std::io::Error| format!("cannot write {}: {cause}", path.display());
    let mut beside = path.as_os_str().to_owned();
    beside.push(".part");
    let beside = PathBuf::from(beside);
    std::fs::write(&beside, bytes).map_err(failed)?;
    std::fs::rename(&beside, path).map_err(failed)?;
    Ok(())
}

pub(super) fn create_folder(path: &Path) -> Outcome<()> {
    std::fs::create_dir_all(path)
        .map_err(|cause| format!("cannot create {}: {cause}", path.display()).into())
}

/// A model, with the digest of its file.
pub(super) fn read_model(path: &Path) -> Outcome<(Model, Digest)> {
    let bytes = read(path)?;
    let model = Model::from_bytes(&bytes).map_err(|error| at(path, error))?;
    Ok((model, Digest::of(&bytes)))
}

/// A patch from its folder: `patch.json`, `patch.onnx` and, where present, `weights.safetensors`.
pub(super) fn read_patch(folder: &Path) -> Outcome<Patch> {
    let manifest = read(&folder.join("patch.json"))?;
    let graph = read(&folder.join("patch.onnx"))?;
    let weights = folder.join("weights.safetensors");
    let weights = if weights.exists() { Some(read(&weights)?) } else { None };
    Ok(Patch::from_parts(&manifest, &graph, weights.as_deref())
        .map_err(|error| at(folder, error))?)
}

fn at(path: &Path, error: Error) -> Error {
    error.context(path.display())
}

/// Parses `NAME=1,3,224,224`; for clap.
pub(super) fn parse_shape(text: &str) -> Result<(String, Vec<usize>), String> {
    let (name, sizes) = text.rsplit_once('=').ok_or("expected NAME=1,3,224,224")?;
    Ok((name.to_owned(), parse_sizes(sizes)?.0))
}

/// The sizes of a shape; clap would take a plain vector for an option that may be repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sizes(pub(super) Vec<usize>);

/// Parses `1,3,224,224`; for clap.
pub(super) fn parse_sizes(text: &str) -> Result<Sizes, String> {
    let sizes = text.split(',').filter(|size| !size.is_empty()).map(|size| size.trim().parse());
    let sizes = sizes.collect::<Result<_, _>>().map_err(|_| "expected sizes like 1,3,224,224")?;
    Ok(Sizes(sizes))
}

/// Parses `NAME=FILE`; for clap.
pub(super) fn parse_file(text: &str) -> Result<(String, PathBuf), String> {
    let (name, path) = text.split_once('=').ok_or("expected NAME=FILE.npy")?;
    Ok((name.to_owned(), PathBuf::from(path)))
}

/// The shapes given on the command line, by input.
pub(super) fn dims(shapes: &[(String, Vec<usize>)]) -> Dims {
    shapes.iter().cloned().collect()
}

/// Prints pretty JSON.
pub(super) fn print_json(value: &serde_json::Value) -> Outcome<()> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_parsed_or_refused() {
        assert_eq!(parse_shape("x=1,3,8"), Ok(("x".to_owned(), vec![1, 3, 8])));
        assert_eq!(parse_shape("a=b=2"), Ok(("a=b".to_owned(), vec![2])));
        assert_eq!(parse_shape("x="), Ok(("x".to_owned(), vec![])));
        assert!(parse_shape("x").is_err());
        assert!(parse_shape("x=1,many").is_err());
    }
}
