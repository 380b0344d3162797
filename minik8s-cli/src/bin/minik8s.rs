//! The `minik8s` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    minik8s_cli::run()
}
