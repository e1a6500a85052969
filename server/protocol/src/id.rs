//! Names and the version id that stands on every result, contribution, exposure and log line.

use std::fmt;

use backstitch_onnx::Digest;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::problem::{Code, Problem};

/// The name of a library, patch, task, experiment or arm: 1–64 of `a-z`, `0-9` and inner `-`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    /// Checks the characters and the length.
    pub fn new(text: impl Into<String>) -> Result<Self, Problem> {
        let text = text.into();
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let valid = (1..=64).contains(&text.len())
            && text.chars().all(inner)
            && !text.starts_with('-')
            && !text.ends_with('-');
        if !valid {
            return Err(Problem::new(
                Code::NameInvalid,
                format!("`{}` is no name", text.escape_debug()),
            )
            .with_hint("use 1 to 64 of a-z, 0-9 and inner hyphens"));
        }
        Ok(Self(text))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Name {
    type Error = Problem;
    fn try_from(text: String) -> Result<Self, Problem> {
        Self::new(text)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

/// One patch as it stands in a stitched combination.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Part {
    /// Digest of the patch's graph file.
    pub graph: Digest,
    /// Digest of the weights that it runs with.
    pub weights: Digest,
    /// The scale that the whole patch is applied with; 1 unless it is faded.
    pub scale: f32,
}

/// Identifies a stitched combination: `bs1-` and 20 hex digits. Same parts, same id, on every machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VersionId(String);

impl VersionId {
    /// `"bs1-" + hex(SHA-256(primary ‖ (graph ‖ weights ‖ scale as f32 LE)… ‖ stitch format as u32 LE))[..20]`,
    /// over the parts in stitching order.
    pub fn of(primary: &Digest, parts: &[Part], stitch_format: u32) -> Self {
        let mut hash = Sha256::new();
        hash.update(primary.as_bytes());
        for part in parts {
            hash.update(part.graph.as_bytes());
            hash.update(part.weights.as_bytes());
            hash.update(part.scale.to_le_bytes());
        }
        hash.update(stitch_format.to_le_bytes());
        let digits = hex::encode(hash.finalize());
        Self(format!("bs1-{}", &digits[..20]))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for VersionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        assert!(Name::new("noise-reduction").is_ok());
        for bad in ["", "-a", "a-", "A", "a b", "../x", &"a".repeat(65)] {
            assert!(Name::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_version_id_is_the_documented_hash() {
        let primary = Digest::of(b"primary");
        let part =
            Part { graph: Digest::of(b"graph"), weights: Digest::of(b"weights"), scale: 1.0 };
        let bytes = [
            primary.as_bytes().as_slice(),
            part.graph.as_bytes(),
            part.weights.as_bytes(),
            &1.0f32.to_le_bytes(),
            &1u32.to_le_bytes(),
        ]
        .concat();
        let id = VersionId::of(&primary, &[part], 1);
        assert_eq!(id.as_str(), format!("bs1-{}", &Digest::of(&bytes).hex()[..20]));
        assert_ne!(id, VersionId::of(&primary, &[], 1));
    }
}
