//! The border to the engine's code: its errors and panics become errors of ours.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use tract_onnx::prelude::{TractError, TractResult};

use crate::error::{Code, Error, Result};

const HINT: &str = "check the model with onnx.checker, full check; if it passes, the engine lacks this form of the operator";

thread_local! {
    /// Whether engine code runs on this thread, whose panics are caught.
    static WITHIN: Cell<bool> = const { Cell::new(false) };
}

/// Runs engine code, turning its errors and panics into ours. Graphs are validated first, so that in the
/// browser, where a panic cannot be caught, none is expected.
pub(super) fn guarded<T>(doing: &str, work: impl FnOnce() -> TractResult<T>) -> Result<T> {
    keep_quiet();
    let outer = WITHIN.replace(true);
    let done = catch_unwind(AssertUnwindSafe(work));
    WITHIN.set(outer);
    match done {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(engine_error(doing, &error)),
        Err(_) => {
            Err(Error::new(Code::EngineFailed, format!("{doing} the model: the engine gave up"))
                .with_hint(
                    "the graph is likely inconsistent; check it with onnx.checker, full check",
                ))
        }
    }
}

/// A panic that is caught here is told as an error: it does not print itself as well. Where panics abort, as in the
/// browser, their text is all that remains, and stays.
fn keep_quiet() {
    static ONCE: Once = Once::new();
    if cfg!(panic = "unwind") {
        ONCE.call_once(|| {
            let print = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                if !WITHIN.get() {
                    print(panic);
                }
            }));
        });
    }
}

/// The engine prints whole nodes and tensors, on many lines; the beginning says what was wrong.
pub(super) fn engine_error(doing: &str, error: &TractError) -> Error {
    const MESSAGE_CHARS: usize = 400;
    let text = format!("{error:#}");
    let line: Vec<&str> = text.split_whitespace().collect();
    let text: String = line.join(" ").chars().take(MESSAGE_CHARS).collect();
    Error::new(Code::EngineFailed, format!("{doing} the model: {text}")).with_hint(HINT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_and_panics_of_the_engine_become_one_line() {
        let failed: Result<()> =
            guarded("running", || Err(TractError::msg("first\n  second\n\tthird")));
        assert_eq!(failed.unwrap_err().message(), "running the model: first second third");
        let gone: Result<()> = guarded("running", || panic!("not printed"));
        assert_eq!(gone.unwrap_err().message(), "running the model: the engine gave up");
        assert!(!WITHIN.get());
    }
}
