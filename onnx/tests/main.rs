//! One integration binary: what the crate computes against what onnxruntime computed, and the invariants that
//! encoding, cutting, stitching and differentiating must keep.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    unreachable_pub,
    reason = "a test binary: it fails by a panic and exports nothing"
)]

mod costs;
mod coverage;
mod cutting;
mod golden;
mod gradients;
mod hostile;
mod stitching;
mod sweep;
mod tools;
