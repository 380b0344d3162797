//! The program that containerd's shims start to write a container's log; see `minik8s_runtime::log_driver`.

use std::process::ExitCode;

fn main() -> ExitCode {
    minik8s_runtime::log_driver::run_if_asked().unwrap_or(ExitCode::from(2))
}
