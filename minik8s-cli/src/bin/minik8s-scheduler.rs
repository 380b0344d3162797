//! The `minik8s-scheduler` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    minik8s_cli::components::scheduler()
}
