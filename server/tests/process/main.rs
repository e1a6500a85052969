//! The `backstitch` process as an operator runs it, and what happens to its data: it is killed in the middle of a write,
//! put on an older copy, started twice, and attacked by those who take part.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed step of a test ends it")]

mod crash;
mod server;
mod tampered;
