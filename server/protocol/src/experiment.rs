//! Which arm a device is in, and how it reports without saying what happened to it.
//!
//! Assignment is a pure function of public parameters and a secret that never leaves the device.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::id::Name;
use crate::privacy::Epsilon;
use crate::problem::{Code, Problem};

/// Buckets of the assignment hash.
pub const BUCKETS: u32 = 65_536;

/// The last two bytes, big-endian, of SHA-256(salt ‖ experiment ‖ seed as u64 LE ‖ secret).
pub fn bucket(salt: &[u8; 16], experiment: &Name, seed: u64, secret: &[u8; 32]) -> u32 {
    let mut hash = Sha256::new();
    hash.update(salt);
    hash.update(experiment.as_str());
    hash.update(seed.to_le_bytes());
    hash.update(secret);
    let digest = hash.finalize();
    u32::from(u16::from_be_bytes([digest[30], digest[31]]))
}

/// The arm of this bucket: arms take consecutive ranges in proportion to their weights, in the given order.
/// `None` where the coverage of all arms ends before the bucket.
pub fn arm_of(bucket: u32, weights: &[u32]) -> Option<usize> {
    let mut end = 0u64;
    for (index, weight) in weights.iter().enumerate() {
        end += u64::from(*weight);
        if u64::from(bucket) < end {
            return Some(index);
        }
    }
    None
}

/// One device's randomised outcome: the true bit with probability e^ε/(1+e^ε), else its opposite
/// (Warner 1965). `uniform` is a fresh draw from [0, 1).
pub fn randomise(outcome: bool, epsilon: Epsilon, uniform: f64) -> bool {
    outcome == (uniform < crate::privacy::certainty(epsilon.value()))
}

/// The unbiased estimate of the true rate from a rate of randomised bits, and the factor by which its
/// standard error grows.
pub fn debias(observed_rate: f64, epsilon: Epsilon) -> (f64, f64) {
    let keep = crate::privacy::certainty(epsilon.value());
    let factor = 1.0 / (2.0 * keep - 1.0);
    ((observed_rate - (1.0 - keep)) * factor, factor)
}

/// What a device sends once per experiment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// The arm, in clear: it depends on no user data.
    pub arm: Name,
    /// The randomised outcome.
    pub outcome: bool,
    /// 64 hex digits: one report per device and experiment.
    pub nullifier: String,
}

impl Report {
    /// The nullifier's bytes.
    pub fn nullifier(&self) -> Result<[u8; 32], Problem> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(&self.nullifier, &mut bytes).map_err(|_| {
            Problem::new(Code::RequestInvalid, "the nullifier is not 64 hex digits")
        })?;
        Ok(bytes)
    }

    /// The nullifier of this device for this experiment.
    pub fn derive_nullifier(secret: &[u8; 32], experiment: &Name) -> String {
        let mut hash = Sha256::new();
        hash.update(b"backstitch report nullifier v1\0");
        hash.update(secret);
        hash.update(experiment.as_str());
        hex::encode(hash.finalize())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(index: u64) -> [u8; 32] {
        let mut secret = [0; 32];
        secret[..8].copy_from_slice(&index.to_le_bytes());
        secret
    }

    #[test]
    fn buckets_are_uniform_and_layers_independent() {
        let name = Name::new("e").unwrap();
        let mut counts = [0u32; 64];
        let mut product = 0.0;
        let n = 100_000;
        for i in 0..n {
            let a = bucket(&[1; 16], &name, 0, &secret(i));
            let b = bucket(&[2; 16], &name, 0, &secret(i));
            counts[(a / 1024) as usize] += 1;
            product += (f64::from(a) / 65_536.0 - 0.5) * (f64::from(b) / 65_536.0 - 0.5);
        }
        let expected = n as f64 / 64.0;
        let chi2: f64 = counts.iter().map(|c| (f64::from(*c) - expected).powi(2) / expected).sum();
        // 63 degrees of freedom: 121.7 is the 1e-5 quantile.
        assert!(chi2 < 121.7, "{chi2}");
        assert!((product / n as f64 * 12.0).abs() < 0.02);
    }

    #[test]
    fn arms_follow_their_weights() {
        assert_eq!(arm_of(0, &[100, 200]), Some(0));
        assert_eq!(arm_of(100, &[100, 200]), Some(1));
        assert_eq!(arm_of(300, &[100, 200]), None);
        assert_eq!(arm_of(65_535, &[u32::MAX, 1]), Some(0));
    }

    #[test]
    fn randomised_bits_are_unbiased() {
        let epsilon = Epsilon::new(1.0).unwrap();
        let n = 20_000;
        // A low-discrepancy draw, so that the test is exact and repeatable.
        let uniform = |i: usize| (i as f64 * 0.618_033_988_749_895).fract();
        let ones = (0..n).filter(|i| randomise(i % 10 < 7, epsilon, uniform(*i))).count();
        let (rate, _) = debias(ones as f64 / n as f64, epsilon);
        assert!((rate - 0.7).abs() < 0.02, "{rate}");
    }
}
