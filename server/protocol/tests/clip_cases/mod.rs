//! A million updates to clip, hostile ones among them, and one digest over what came of all: the same on every
//! machine that computes as IEEE 754 says. Shared by the native test and by the browser's.

use backstitch_protocol::delta::{CLIP_INTEGER, Delta, within_bound};
use backstitch_protocol::privacy::ClipNorm;
use sha2::{Digest as _, Sha256};

/// The digest of [`run`] over [`CASES`] cases.
pub(crate) const DIGEST: &str = "2a5b6090411dc53546fa21ea28ded9327bfda1afc84ea5b5890a3e716eff9d5b";

/// Updates that are clipped.
pub(crate) const CASES: u32 = 1_000_000;

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Draws(u64);

impl Draws {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Ordinary numbers, all bit patterns, and the edges of the format.
    fn value(&mut self) -> f32 {
        const EDGES: [f32; 10] = [
            0.0,
            -0.0,
            f32::MIN_POSITIVE,
            f32::from_bits(1),
            f32::from_bits(0x8000_0001),
            f32::from_bits(0x007f_ffff),
            f32::MAX,
            f32::MIN,
            f32::EPSILON,
            1.0,
        ];
        const NOT_FINITE: [f32; 3] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
        let draw = self.next();
        match draw % 256 {
            0 => NOT_FINITE[(draw >> 32) as usize % 3],
            1..=24 => f32::from_bits((draw >> 32) as u32),
            25..=64 => EDGES[(draw >> 32) as usize % 10],
            // Subnormal, either sign.
            65..=80 => f32::from_bits((draw >> 32) as u32 & 0x807f_ffff),
            _ => ((draw >> 11) as f64 / (1u64 << 53) as f64 * 2.0 - 1.0) as f32,
        }
    }

    /// From 2⁻²⁰ to 2²⁰, so that some updates are within it and others far out.
    fn clip_norm(&mut self) -> f64 {
        let draw = self.next();
        2f64.powi((draw % 41) as i32 - 20) * (1.0 + (draw >> 12) as f64 / (1u64 << 52) as f64)
    }
}

/// What came of the cases.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Refused because a value was not finite.
    pub(crate) refused: u32,
    /// Within the bound after their norm was reduced.
    pub(crate) clipped: u32,
    /// Within the bound as they were.
    pub(crate) kept: u32,
    /// Hex of SHA-256 over every result.
    pub(crate) digest: String,
}

/// Clips them all. Panics where a result exceeds the bound or a value that is not finite passes.
pub(crate) fn run(cases: u32) -> Tally {
    let mut draws = Draws(6);
    let (mut tally, mut hash) = (Tally::default(), Sha256::new());
    let base = [0.0f32; 16];
    for case in 0..cases {
        let length = 1 + draws.next() as usize % 16;
        let values: Vec<f32> = (0..length).map(|_| draws.value()).collect();
        let clip = ClipNorm::new(draws.clip_norm()).unwrap();
        let finite = values.iter().all(|v| v.is_finite());
        let result = Delta::between(&base[..length], &values).and_then(|delta| delta.clip(clip));
        assert_eq!(result.is_ok(), finite, "case {case}: {values:?}");
        let Ok(clipped) = result else {
            tally.refused += 1;
            hash.update([0xff]);
            continue;
        };
        let squares: i64 = clipped.values().iter().map(|q| i64::from(*q).pow(2)).sum();
        assert!(squares <= CLIP_INTEGER * CLIP_INTEGER, "case {case}: {values:?} at {clip:?}");
        assert!(within_bound(clipped.values()));
        match clipped.was_clipped() {
            true => tally.clipped += 1,
            false => tally.kept += 1,
        }
        hash.update([u8::from(clipped.was_clipped())]);
        clipped.values().iter().for_each(|q| hash.update(q.to_le_bytes()));
    }
    tally.digest = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    tally
}
