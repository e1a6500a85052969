//! A line that says how far long work is: on a terminal only, so that a pipe stays quiet.

use std::io::{IsTerminal as _, Write as _};

/// Rewrites one line of the terminal. It disappears with the value.
pub(super) struct Progress {
    shown: bool,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self { shown: std::io::stderr().is_terminal() }
    }

    pub(super) fn say(&self, text: &str) {
        if self.shown {
            // A terminal that went away is no reason to stop.
            let mut out = std::io::stderr().lock();
            drop(write!(out, "\r\x1b[2K{text}").and_then(|()| out.flush()));
        }
    }

    /// Says how many of many, about a hundred times in all.
    pub(super) fn count(&self, what: &str, done: usize, all: usize) {
        if done.is_multiple_of((all / 100).max(1)) {
            self.say(&format!("{what} {done} of {all}"));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.say("");
    }
}
