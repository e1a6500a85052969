//! The `backstitch` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    backstitch_server::cli::main()
}
