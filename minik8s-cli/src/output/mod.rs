//! What a person sees: tables, errors, logging.

mod format;
mod jsonpath;
mod table;

pub(crate) use format::{Format, print_objects};
pub(crate) use table::{Rows, render};

use anstyle::{AnsiColor, Style};
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Style of what went wrong.
const ERROR: Style = AnsiColor::Red.on_default().bold();

/// Style of what one should know.
const WARNING: Style = AnsiColor::Yellow.on_default().bold();

/// Logs go to standard error. A cluster says what it does; a command says nothing unless asked.
pub(crate) fn start_logging(serves: bool, verbose: u8) {
    let quiet = if serves { "warn" } else { "error" };
    let level = match verbose {
        0 => quiet,
        1 => "info,minik8s=debug,minik8s_core=debug,minik8s_net=debug,minik8s_runtime=debug",
        _ => "debug,minik8s=trace,minik8s_core=trace,minik8s_net=trace,minik8s_runtime=trace",
    };
    let filter = EnvFilter::try_from_env("MINIK8S_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours).init();
}

/// One line for the error and one for each cause that says something new.
pub(crate) fn print_error(error: &anyhow::Error) {
    let mut said = error.to_string();
    anstream::eprintln!("{ERROR}error:{ERROR:#} {said}");
    for cause in error.chain().skip(1) {
        let text = cause.to_string();
        if !said.contains(&text) {
            anstream::eprintln!("  because: {text}");
        }
        said = text;
    }
}

/// Something that does not keep the command from going on.
pub(crate) fn warn(text: &str) {
    anstream::eprintln!("{WARNING}warning:{WARNING:#} {text}");
}

/// Something to know that is not what was asked for.
pub(crate) fn note(text: &str) {
    anstream::eprintln!("{text}");
}

/// Prints a line on standard output; a closed pipe ends the program quietly, as with any other command.
pub(crate) fn say(line: &str) {
    use std::io::Write;
    if writeln!(anstream::stdout(), "{line}").is_err() {
        std::process::exit(0);
    }
}
