//! A hash over the frames of many clipped updates. The same file is compiled natively and for the browser: where both
//! give the expected hash, both clip and quantise to the same bits.

use backstitch_client::random::SplitMix;
use backstitch_onnx::Digest;
use backstitch_protocol::contribution::{Contribution, Nullifier};
use backstitch_protocol::delta::Delta;
use backstitch_protocol::id::Name;
use backstitch_protocol::privacy::ClipNorm;

/// On every machine.
pub(crate) const EXPECTED: &str =
    "965aad18d9736db422a5e1dc1c6e6db42225c320d6d3495cb193997b0e98c3e6";

/// Updates from denormal to huge, clip norms from 2⁻¹² to 2¹². Only exact arithmetic makes them: powers of two.
pub(crate) fn of_many_clipped_updates() -> String {
    let mut draws = SplitMix::new(2026);
    let nullifier = Nullifier::derive(&[7; 32], &Name::new("task").unwrap(), 1);
    let mut frames = Vec::new();
    for case in 0..2000 {
        let size = 2f64.powi(draws.below(270) as i32 - 145);
        let mut number = || ((draws.uniform() - 0.5) * size) as f32;
        let trained: Vec<f32> = (0..1 + case % 64).map(|_| number()).collect();
        let clip = (0.5 + draws.uniform()) * 2f64.powi(draws.below(24) as i32 - 12);
        let delta = Delta::between(&vec![0.0; trained.len()], &trained).unwrap();
        let clipped = delta.clip(ClipNorm::new(clip).unwrap()).unwrap();
        frames.extend(Contribution::new(Digest::of(b"base"), nullifier, clipped).encode());
    }
    Digest::of(&frames).hex()
}
