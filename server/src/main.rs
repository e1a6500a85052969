//! The `backstitch` command.
fn main() {}
