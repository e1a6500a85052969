//! Central differential privacy: a ledger that refuses, integer Gaussian noise, and the one way from a raw sum
//! to something that may be published.
//!
//! Unit: one enrolled client profile. Adjacency: its contributions become zero vectors. Measure: zCDP, in
//! integer quanta of 2⁻²⁰. A release of noise multiplier z costs whoever is in it ρ = 1/(2z²).

pub mod audit;
mod band;
mod ledger;
mod noise;
mod release;
mod reports;
mod spending;
mod witness;

pub use band::Band;
pub(crate) use band::Block;
pub use ledger::{Head, Kind, Ledger, Record, State};
pub(crate) use ledger::{catalog_head, spending};
pub use noise::NoiseSource;
pub use release::{NoisyAggregate, Reservation};
pub(crate) use release::{Release, note, persist, persisted, release, reserve};
pub use reports::ReportSpending;
pub(crate) use reports::{debit_reports, report_spending};
pub use spending::{Promise, Spending};
pub use witness::Witness;
