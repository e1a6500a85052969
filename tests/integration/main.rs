//! All integration tests, in one binary: the architecture as a test, the loop end to end, and
//! hostile clients.

#![allow(clippy::unwrap_used, reason = "a failed step of a test ends it")]

mod hostile;
mod libraries;
mod mutations;
mod tidy;
mod whole_loop;
