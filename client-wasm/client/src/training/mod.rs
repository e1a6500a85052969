//! Trains patches on this device: the frozen part of the model runs once per example, the gradient graph of the rest
//! runs per step, and stochastic gradient descent, with momentum or Adam, moves the weights.
//!
//! A [`Trainer`] holds compiled programs and no weights, so it serves every version of its patches and every device
//! of one process. Given the seed, training is deterministic.

mod comparison;
mod course;
mod descent;
mod judging;
mod rule;
mod trainer;

pub use comparison::Comparison;
pub use course::{Course, Header};
pub use descent::{Descent, Pace};
pub(crate) use judging::argmax;
pub use judging::{Judged, Score};
pub use trainer::{Activation, Trainer};

#[cfg(test)]
mod tests;
