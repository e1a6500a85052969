//! The commands of `backstitch` that need no server: model and patch tools.

mod files;
mod npy;

pub mod onnx;
pub mod patch;
