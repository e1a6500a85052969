//! The Backstitch server: signed catalogs, immutable blobs, private rounds and honest experiments.

pub mod admission;
pub mod aggregate;
pub mod blob;
pub mod cli;
pub mod clock;
pub mod config;
pub mod experiment;
mod failure;
pub mod http;
mod npy;
pub mod privacy;
pub mod registry;
pub mod round;
pub mod server;
pub mod services;
pub mod store;
pub mod task;
#[cfg(test)]
mod tests;

pub use config::Config;
pub use failure::Result;
pub use server::{Running, Server};
