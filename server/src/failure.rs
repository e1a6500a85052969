//! How failures of libraries become problems: the caller says what it was doing, the cause follows.

use std::fmt::Display;

use backstitch_protocol::Problem;
use backstitch_protocol::problem::Code;

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, Problem>;

/// Turns any library's error into a [`Problem`].
pub(crate) trait Failure<T> {
    /// An `internal` problem: `doing: cause`. HTTP answers hide the text and the log keeps it.
    fn while_doing(self, doing: impl Display) -> Result<T>;
    /// A `request_invalid` problem with the cause in its text.
    fn when_reading(self, what: impl Display) -> Result<T>;
}

impl<T, E: Display> Failure<T> for std::result::Result<T, E> {
    fn while_doing(self, doing: impl Display) -> Result<T> {
        self.map_err(|cause| internal(format!("{doing}: {cause}")))
    }

    fn when_reading(self, what: impl Display) -> Result<T> {
        self.map_err(|cause| Problem::new(Code::RequestInvalid, format!("{what}: {cause}")))
    }
}

/// An `internal` problem.
pub(crate) fn internal(detail: impl Into<String>) -> Problem {
    Problem::new(Code::Internal, detail)
}

/// A `not_found` problem.
pub(crate) fn not_found(what: impl Display) -> Problem {
    Problem::new(Code::NotFound, format!("there is no {what}"))
}
