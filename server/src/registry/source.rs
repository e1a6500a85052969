//! Where a library is read from: a folder, or one of the samples that are embedded in the program.

use std::borrow::Cow;
use std::path::{Component, Path, PathBuf};

use backstitch_protocol::Problem;
use backstitch_protocol::problem::Code;
use rust_embed::RustEmbed;

use crate::failure::{Failure, Result, not_found};

/// The sample libraries, a folder each. Debug builds read them from the source tree.
#[derive(RustEmbed)]
#[folder = "../onnx/models"]
#[allow_missing = true]
#[exclude = "*/make/*"]
#[exclude = "*/golden/*"]
#[exclude = "*/data/test-*"]
struct Samples;

/// The names of the sample libraries, the smallest first.
pub const SAMPLES: &[&str] =
    &["fashion", "fashion-compact", "motion", "anomalies", "photos", "sentiment"];

/// A readable library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A folder with a `library.json`.
    Folder(PathBuf),
    /// One of [`SAMPLES`].
    Embedded(&'static str),
}

impl Source {
    /// `embedded:` and one of [`SAMPLES`], or a folder.
    pub fn parse(text: &str) -> Result<Self> {
        match text.strip_prefix("embedded:") {
            Some(name) => SAMPLES
                .iter()
                .find(|known| **known == name)
                .map(|name| Self::Embedded(name))
                .ok_or_else(|| {
                    Problem::new(Code::RequestInvalid, format!("no library `{name}` is embedded"))
                        .with_hint(format!("embedded are {}", SAMPLES.join(", ")))
                }),
            None => Ok(Self::Folder(text.into())),
        }
    }

    /// A file of the library; the path may not lead out of it.
    pub(crate) fn read(&self, path: &str) -> Result<Cow<'static, [u8]>> {
        self.read_if_present(path)?.ok_or_else(|| not_found(format!("file `{path}` in {self}")))
    }

    /// The same, `None` where it does not exist.
    pub(crate) fn read_if_present(&self, path: &str) -> Result<Option<Cow<'static, [u8]>>> {
        let inside = Path::new(path).components().all(|c| matches!(c, Component::Normal(_)));
        if !inside || path.is_empty() {
            return Err(Problem::new(
                Code::RequestInvalid,
                format!("`{path}` is not a path within the library"),
            ));
        }
        match self {
            Self::Embedded(name) => {
                Ok(Samples::get(&format!("{name}/{path}")).map(|file| file.data))
            }
            Self::Folder(folder) => match std::fs::read(folder.join(path)) {
                Ok(bytes) => Ok(Some(bytes.into())),
                Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(cause) => Err(cause).when_reading(folder.join(path).display()),
            },
        }
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Folder(folder) => folder.display().fmt(f),
            Self::Embedded(name) => write!(f, "embedded:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_cannot_leave_the_library() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a"), b"1").unwrap();
        let source = Source::parse(folder.path().to_str().unwrap()).unwrap();
        assert_eq!(&*source.read("a").unwrap(), b"1");
        assert!(source.read("b").unwrap_err().is(Code::NotFound));
        for bad in ["../a", "/etc/passwd", "", "x/../../a"] {
            assert!(source.read(bad).unwrap_err().is(Code::RequestInvalid), "{bad}");
        }
        assert!(Source::parse("embedded:other").is_err());
        for name in SAMPLES {
            let sample = Source::parse(&format!("embedded:{name}")).unwrap();
            assert!(sample.read("library.json").is_ok(), "{sample}");
            assert!(sample.read("../fashion/library.json").is_err(), "{sample}");
        }
    }
}
