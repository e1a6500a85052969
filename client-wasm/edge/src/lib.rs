//! The Backstitch client as a native node: a device at the edge with its own data, and a fleet of simulated ones
//! that contribute to a server over real HTTP.

pub mod data;
pub mod evaluation;
pub mod fleet;
pub mod jpeg;
pub mod node;
pub mod person;
pub mod population;
pub mod port;
pub mod sampling;
mod storage;
pub mod style;

pub use fleet::{FleetOptions, run};
pub use node::{Node, NodeOptions};
pub use port::NativePort;
