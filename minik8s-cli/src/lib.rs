//! The `minik8s` command: a whole cluster in one process (`up`, `down`), and a command line for any Kubernetes cluster.
//! This crate composes; the work is done in the libraries it names.

mod api;
mod args;
mod commands;
pub mod components;
mod legacy;
mod manifest;
mod output;
mod terminal;
mod up;

use args::{Args, Command};
use clap::Parser;
use std::process::ExitCode;

/// Runs the command with the process's arguments. Errors are printed once, here, with their causes.
pub fn run() -> ExitCode {
    program(
        |args: &Args| {
            let serves = matches!(args.command, Command::Up(_) | Command::Server(_) | Command::Agent(_));
            output::start_logging(serves, args.verbose);
        },
        commands::dispatch,
    )
}

/// A program: arguments, logging, its work, and errors printed once.
fn program<A: Parser, F>(log: impl FnOnce(&A), work: impl FnOnce(A) -> F) -> ExitCode
where
    F: Future<Output = anyhow::Result<ExitCode>>,
{
    // The log writer of a container is the same program as its node's: it must not pay for anything below.
    if let Some(code) = minik8s_runtime::log_driver::run_if_asked() {
        return code;
    }
    let args = A::parse();
    log(&args);
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(work(args)));
    match outcome {
        Ok(code) => code,
        Err(error) => {
            output::print_error(&error);
            ExitCode::FAILURE
        }
    }
}
