//! Tells cargo that build-time features are kept, too.
fn main() {}
