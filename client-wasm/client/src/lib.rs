//! The whole Backstitch client, pure: it analyses an input, selects patches under a cost limit, stitches them into
//! the running model, trains them on this device and contributes clipped updates.
//!
//! It touches the world through [`port::Port`] alone, so the same code runs in a browser, on an edge node and in a
//! test.

pub mod analysis;
pub mod catalog;
pub mod client;
pub mod contribution;
pub mod cost;
pub mod device;
pub mod examples;
pub mod experiment;
pub mod feedback;
pub mod files;
pub mod input;
pub mod ledger;
pub mod library;
pub mod memory;
pub mod overlap;
pub mod personal;
pub mod port;
pub mod preprocessing;
pub mod probe;
pub mod random;
pub mod report;
pub mod residence;
pub mod selection;
pub mod session;
pub mod training;
pub mod workshop;

pub use client::Client;

#[cfg(test)]
mod test_library;
