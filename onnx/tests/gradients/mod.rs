//! Gradients against central differences: operator by operator, on random graphs, and against files that PyTorch
//! wrote.

mod case;
mod draft;
mod draft_moves;
mod errors;
mod golden;
mod random;
mod rules;

/// The graphs of all gradient cases, as text such as ` y = Add(a, b)`.
pub(crate) fn graphs() -> Vec<String> {
    rules::graphs()
}
