//! All integration tests, in one binary: the architecture as a test, and the loop end to end.

#![allow(clippy::unwrap_used, reason = "a failed step of a test ends it")]

mod libraries;
mod mutations;
mod tidy;
mod whole_loop;
