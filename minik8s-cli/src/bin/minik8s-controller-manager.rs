//! The `minik8s-controller-manager` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    minik8s_cli::components::controller_manager()
}
