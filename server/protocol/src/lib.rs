//! What client and server agree on: identifiers, the signed catalog, how inputs are prepared, contribution frames, anonymous
//! tokens, clipping, privacy arithmetic, experiment assignment and problem codes.
//!
//! This crate knows no network, file, clock or source of randomness. Both sides run the very same code, so a
//! frame, a bucket or an ε computed in a browser is bit for bit the one computed on the server.

pub mod catalog;
pub mod contribution;
pub mod delta;
pub mod experiment;
pub mod id;
pub mod measure;
pub mod preprocessing;
pub mod privacy;
pub mod problem;
pub mod token;
pub mod trust;

pub use problem::Problem;
