//! All integration tests, in one binary: the architecture as a test, and the loop end to end.

mod tidy;
mod whole_loop;
