//! One integration binary: what the crate computes against what onnxruntime computed, and the invariants that
//! encoding, cutting and stitching must keep.

mod cutting;
mod golden;
mod gradients;
mod hostile;
mod stitching;
