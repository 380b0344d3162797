//! The `minik8s` command: a whole cluster in one process (`up`, `down`), and a command line for any Kubernetes cluster.
//! This crate composes; the work is done in the libraries it names.

mod api;
mod args;
mod commands;
mod manifest;
mod output;
mod up;

use clap::Parser;
use std::process::ExitCode;

/// Runs the command with the process's arguments. Errors are printed once, here, with their causes.
pub fn run() -> ExitCode {
    // The log writer of a container is this same program: it must not pay for anything below.
    if let Some(code) = minik8s_runtime::log_driver::run_if_asked() {
        return code;
    }
    let args = args::Args::parse();
    output::start_logging(&args);
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(commands::dispatch(args)));
    match outcome {
        Ok(code) => code,
        Err(error) => {
            output::print_error(&error);
            ExitCode::FAILURE
        }
    }
}
