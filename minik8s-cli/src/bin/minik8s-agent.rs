//! The `minik8s-agent` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    minik8s_cli::components::agent()
}
