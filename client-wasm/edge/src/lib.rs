//! The Backstitch client as a native node: one edge device, or a fleet of simulated ones on real data.
//!
//! It knows the public plane of a server and nothing else of it; what a node sends is what a browser sends.

pub mod data;
pub mod fleet;
pub mod node;
pub mod port;

pub use fleet::{Fleet, FleetEvent, FleetOptions};
pub use node::Node;
pub use port::NativePort;
