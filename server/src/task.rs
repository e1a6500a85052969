//! The identity of a task across libraries: `library.task`, as it stands in URLs and in the ledger.

use std::fmt;

use backstitch_protocol::Problem;
use backstitch_protocol::id::Name;
use backstitch_protocol::problem::Code;

/// A task or an experiment of a library.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskId {
    /// The library.
    pub library: Name,
    /// The name within the library.
    pub name: Name,
}

impl TaskId {
    /// The id of a name within a library.
    pub fn new(library: Name, name: Name) -> Self {
        Self { library, name }
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.library, self.name)
    }
}

impl std::str::FromStr for TaskId {
    type Err = Problem;

    /// Splits at the one dot, which no name contains.
    fn from_str(text: &str) -> Result<Self, Problem> {
        let (library, name) = text.split_once('.').ok_or_else(|| {
            Problem::new(Code::NameInvalid, format!("`{}` has no dot", text.escape_debug()))
                .with_hint("write <library>.<name>, such as fashion.personal-style")
        })?;
        Ok(Self::new(Name::new(library)?, Name::new(name)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_two_names_and_a_dot() {
        let id: TaskId = "fashion.personal-style".parse().unwrap();
        assert_eq!(id.to_string(), "fashion.personal-style");
        for bad in ["fashion", ".x", "x.", "a.b.c", "A.b"] {
            assert!(bad.parse::<TaskId>().is_err(), "{bad}");
        }
    }
}
