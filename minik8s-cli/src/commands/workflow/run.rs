//! `workflow run`: begins a run, and waits for its end.

use super::{collection, output, path, phase, still};
use crate::api::Conn;
use crate::args::WorkflowRunOptions;
use crate::output::{note, say};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::io::Read;
use std::process::ExitCode;

pub(super) async fn run(conn: &Conn, options: &WorkflowRunOptions) -> Result<ExitCode> {
    let mut spec = json!({"workflow": options.workflow});
    if let Some(text) = &options.input {
        spec["input"] = input(text)?;
    }
    // A workflow that is not there would be waited for.
    conn.get(&path(conn, "workflows", &options.workflow)).await?;
    let metadata = match &options.name {
        Some(name) => json!({"name": name}),
        None => json!({"generateName": format!("{}-", options.workflow)}),
    };
    let run = json!({"apiVersion": "minik8s.io/v1alpha1", "kind": "WorkflowRun", "metadata": metadata, "spec": spec});
    let made = conn.post(&collection(conn, "workflowruns"), &run).await?;
    let name = made["metadata"]["name"].as_str().context("the run has no name")?;
    if options.no_wait {
        say(&format!("workflowrun.minik8s.io/{name} begun"));
        return Ok(ExitCode::SUCCESS);
    }
    note(&format!("workflowrun.minik8s.io/{name} begun"));
    let run = still::wait(conn, name).await?;
    match phase(&run) {
        "Succeeded" => {
            say(&serde_json::to_string_pretty(&output(conn, &run).await?.unwrap_or_default())?);
            Ok(ExitCode::SUCCESS)
        }
        phase => {
            let message = run.status.as_ref().map(|status| status.message.as_str()).unwrap_or_default();
            bail!("the run {name} is {phase}: {message}")
        }
    }
}

/// JSON, `@FILE`, or `-` for standard input.
fn input(text: &str) -> Result<Value> {
    let read = match text.strip_prefix('@') {
        Some(file) => std::fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?,
        None if text == "-" => {
            let mut read = String::new();
            std::io::stdin().read_to_string(&mut read).context("cannot read standard input")?;
            read
        }
        None => text.to_owned(),
    };
    serde_json::from_str(&read).context("the input is not JSON; a text stands in quotes: '\"text\"'")
}
