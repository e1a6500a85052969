//! Gradients against central differences: operator by operator, on random graphs, and against files that PyTorch
//! wrote.

mod case;
mod errors;
mod golden;
mod rules;
