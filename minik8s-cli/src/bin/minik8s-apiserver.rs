//! The `minik8s-apiserver` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    minik8s_cli::components::apiserver()
}
