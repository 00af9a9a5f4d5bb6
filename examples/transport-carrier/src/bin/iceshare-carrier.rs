//! The `iceshare` command with protocol `carrier` beside its own.

use iceshare_transport_carrier as _;

fn main() -> std::process::ExitCode {
    iceshare_cli::main()
}
