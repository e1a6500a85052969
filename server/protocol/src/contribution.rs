//! The frame that a device posts: a fixed header and two bytes per parameter. Only a [`ClippedDelta`] encodes.
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 4 | `BSC1` |
//! | 4 | 32 | base: digest of the round, and of the weights that the device trained from |
//! | 36 | 32 | nullifier: one per device, task and round |
//! | 68 | 4 | number of parameters, u32 little-endian |
//! | 72 | 2n | the clipped update, i16 little-endian |

use backstitch_onnx::Digest;
use sha2::{Digest as _, Sha256};

use crate::delta::{ClippedDelta, within_bound};
use crate::id::Name;
use crate::problem::{Code, Problem};

/// The media type of a frame.
pub const MEDIA_TYPE: &str = "application/vnd.backstitch.contribution";

/// Bytes before the values.
pub const HEADER_BYTES: usize = 72;

/// Most parameters of one task.
pub const MAX_PARAMETERS: u32 = 4_000_000;

const MAGIC: &[u8; 4] = b"BSC1";

/// Makes a contribution count once, without saying whose it is: SHA-256 over the device's secret, the task and
/// the round, under a label of its own. A retry has the same nullifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Nullifier([u8; 32]);

impl Nullifier {
    /// The nullifier of this device for this round.
    pub fn derive(secret: &[u8; 32], task: &Name, round: u64) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"backstitch nullifier v1\0");
        hash.update(secret);
        hash.update(round.to_le_bytes());
        hash.update(task.as_str());
        Self(hash.finalize().into())
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// A frame as both sides see it. The server gets one by [`Contribution::decode`] alone, a client by
/// [`Contribution::new`] from a clipped update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contribution {
    base: Digest,
    nullifier: Nullifier,
    values: Vec<i16>,
}

impl Contribution {
    /// What this device will post.
    pub fn new(base: Digest, nullifier: Nullifier, delta: ClippedDelta) -> Self {
        Self { base, nullifier, values: delta.values().to_vec() }
    }

    /// The exact size of a frame.
    pub const fn encoded_len(parameters: u32) -> usize {
        HEADER_BYTES + 2 * parameters as usize
    }

    /// The frame's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let count = u32::try_from(self.values.len()).unwrap_or(u32::MAX);
        let mut bytes = Vec::with_capacity(Self::encoded_len(count));
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(self.base.as_bytes());
        bytes.extend_from_slice(self.nullifier.as_bytes());
        bytes.extend_from_slice(&count.to_le_bytes());
        for value in &self.values {
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        bytes
    }

    /// Reads a frame of a task with this many parameters: exact length, magic, count and norm are checked.
    pub fn decode(bytes: &[u8], parameters: u32) -> Result<Self, Problem> {
        let expected = Self::encoded_len(parameters);
        if bytes.len() != expected {
            return Err(Problem::new(
                Code::FrameLength,
                format!(
                    "a contribution of {parameters} parameters has {expected} bytes, not {}",
                    bytes.len()
                ),
            )
            .with_hint("read the catalog again and train from its current version"));
        }
        let (header, body) = bytes.split_at(HEADER_BYTES);
        if &header[..4] != MAGIC || header[68..] != parameters.to_le_bytes() {
            return Err(Problem::new(
                Code::FrameInvalid,
                "the header is not that of a contribution",
            ));
        }
        let values: Vec<i16> =
            body.chunks_exact(2).map(|b| i16::from_le_bytes([b[0], b[1]])).collect();
        if !within_bound(&values) {
            return Err(Problem::new(
                Code::NormExceeded,
                "the update's integer norm exceeds 32767",
            ));
        }
        let field = |at: usize| {
            let mut raw = [0; 32];
            raw.copy_from_slice(&header[at..at + 32]);
            raw
        };
        Ok(Self { base: Digest::from_bytes(field(4)), nullifier: Nullifier(field(36)), values })
    }

    /// The round, and the weights that the device trained from: [`crate::catalog::base`].
    pub fn base(&self) -> Digest {
        self.base
    }

    /// The nullifier.
    pub fn nullifier(&self) -> Nullifier {
        self.nullifier
    }

    /// The clipped integers.
    pub fn values(&self) -> &[i16] {
        &self.values
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delta::Delta;
    use crate::privacy::ClipNorm;
    use proptest::prelude::*;

    fn frame() -> Contribution {
        let task = Name::new("task").unwrap();
        let delta = Delta::between(&[0.0; 3], &[0.1, -0.2, 0.0]).unwrap();
        let clipped = delta.clip(ClipNorm::new(1.0).unwrap()).unwrap();
        Contribution::new(Digest::of(b"base"), Nullifier::derive(&[7; 32], &task, 3), clipped)
    }

    #[test]
    fn a_frame_round_trips() {
        let bytes = frame().encode();
        assert_eq!(bytes.len(), 78);
        assert_eq!(Contribution::decode(&bytes, 3).unwrap(), frame());
    }

    #[test]
    fn short_long_foreign_and_oversized_frames_are_refused() {
        let bytes = frame().encode();
        let refused = |bytes: &[u8]| Contribution::decode(bytes, 3).unwrap_err();
        assert!(refused(&bytes[..77]).is(Code::FrameLength));
        assert!(refused(&[bytes.as_slice(), &[0]].concat()).is(Code::FrameLength));
        let mut foreign = bytes.clone();
        foreign[0] = b'X';
        assert!(refused(&foreign).is(Code::FrameInvalid));
        let mut oversized = bytes;
        oversized[72..78].copy_from_slice(&[0xff, 0x7f, 0xff, 0x7f, 0xff, 0x7f]);
        assert!(refused(&oversized).is(Code::NormExceeded));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), n in 0u32..100) {
            let _ = Contribution::decode(&bytes, n);
        }
    }
}
