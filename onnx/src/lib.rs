//! ONNX models as plain values: cut them, stitch patches into them, differentiate them, and run them.
//!
//! Cutting, stitching and differentiating are pure functions from models to models. This crate knows no clock,
//! no file, no network and no randomness; only [`engine`] knows what executes a graph.

mod decode;
mod dtypes;
mod encode;
mod error;
mod interface;
mod lower;
mod proto;
mod tensor;
mod upgrade;

pub mod autodiff;
pub mod cost;
pub mod cut;
pub mod engine;
pub mod graph;
pub mod model;
pub mod patch;
pub mod probe;
pub mod stitch;

pub use engine::{Dims, Program, Shapes, Value};
pub use error::{Code, Error, Result};
pub use model::{Attribute, Digest, Dim, Graph, Model, Node, ValueInfo};
pub use tensor::{DType, Element, Tensor};
