//! The program `iceshare`.

use std::process::ExitCode;

fn main() -> ExitCode {
    iceshare_cli::main()
}
