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
    // What lies behind the API's answer says the same in other words.
    let mut answered = false;
    let mut causes =
        error.chain().take_while(|cause| !std::mem::replace(&mut answered, answer(*cause).is_some())).map(words);
    let mut said = causes.next().unwrap_or_default();
    anstream::eprintln!("{ERROR}error:{ERROR:#} {said}");
    for text in causes {
        if !said.contains(&text) {
            anstream::eprintln!("  because: {text}");
        }
        said = text;
    }
}

/// An error in words. What the API refuses it says itself, for each field; a library would show all of the answer's parts.
fn words(error: &(dyn std::error::Error + 'static)) -> String {
    answer(error).map_or_else(|| error.to_string(), refusal)
}

/// What the API answered, where that is the error.
fn answer<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a kube::core::Status> {
    match error.downcast_ref::<kube::Error>() {
        Some(kube::Error::Api(status)) if !status.message.is_empty() => Some(status),
        _ => None,
    }
}

fn refusal(status: &kube::core::Status) -> String {
    let causes = status.details.as_ref().map(|details| details.causes.as_slice()).unwrap_or_default();
    if causes.len() < 2 {
        return status.message.clone();
    }
    let head = status.message.split_once(": [").map_or(status.message.as_str(), |(head, _)| head);
    let lines: String = causes.iter().map(|cause| format!("\n    {}: {}", cause.field, cause.message)).collect();
    format!("{head}:{lines}")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_api_refuses_is_told_in_its_words_for_each_field() {
        let error = |answer: serde_json::Value| {
            let status: kube::core::Status = serde_json::from_value(answer).unwrap();
            words(anyhow::Error::from(kube::Error::Api(Box::new(status))).chain().next().unwrap())
        };
        let one = serde_json::json!({"status": "Failure", "code": 404, "reason": "NotFound", "message": "pods \"a\" not found"});
        assert_eq!(error(one), "pods \"a\" not found");
        let causes = [("spec.a", "Required value"), ("spec.b", "Not found: \"x\"")]
            .map(|(field, message)| serde_json::json!({"field": field, "message": message, "reason": "r"}));
        let two = serde_json::json!({"status": "Failure", "code": 422, "reason": "Invalid", "details": {"causes": causes},
            "message": "Workflow \"w\" is invalid: [spec.a: Required value, spec.b: Not found: \"x\"]"});
        assert_eq!(error(two), "Workflow \"w\" is invalid:\n    spec.a: Required value\n    spec.b: Not found: \"x\"");
    }
}
