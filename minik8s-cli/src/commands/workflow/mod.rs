//! `workflow`: begin runs, look at them, and draw them.

mod history;
mod picture;
mod run;
mod still;

use crate::api::Conn;
use crate::args::WorkflowCommand;
use crate::output::say;
use anyhow::{Context, Result, bail};
use futures::{AsyncBufReadExt, StreamExt};
use minik8s_serverless::workflow::WorkflowRun;
use minik8s_serverless::workflow::read::{self, Fetch, ReadError};
use serde_json::{Value, json};
use std::process::ExitCode;

pub(crate) async fn run(conn: &Conn, command: &WorkflowCommand) -> Result<ExitCode> {
    match command {
        WorkflowCommand::Run(options) => return run::run(conn, options).await,
        WorkflowCommand::Get(options) => history::get(conn, options.run.as_deref()).await?,
        WorkflowCommand::Logs(options) => history::logs(conn, options).await?,
        WorkflowCommand::Graph(options) => picture::run(conn, options).await?,
        WorkflowCommand::Cancel { run } => {
            let found = find(conn, run).await?;
            if is_over(&found) {
                bail!("the run {run} is over: it is {}", phase(&found));
            }
            conn.patch(&path(conn, "workflowruns", run), crate::api::MERGE, &json!({"spec": {"cancel": true}})).await?;
            say(&format!("workflowrun.minik8s.io/{run} is being stopped"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn collection(conn: &Conn, resource: &str) -> String {
    format!("/apis/minik8s.io/v1alpha1/namespaces/{}/{resource}", conn.namespace)
}

fn path(conn: &Conn, resource: &str, name: &str) -> String {
    format!("{}/{name}", collection(conn, resource))
}

async fn find(conn: &Conn, name: &str) -> Result<WorkflowRun> {
    let run = conn.get(&path(conn, "workflowruns", name)).await?;
    serde_json::from_value(run).with_context(|| format!("run {name} cannot be read"))
}

/// Gets records of the namespace.
fn fetch(conn: &Conn) -> Box<Fetch<'_, anyhow::Error>> {
    Box::new(move |name| {
        Box::pin(async move { Ok(conn.get(&path(conn, "workflowrecords", &name)).await?["data"].take()) })
    })
}

fn told(error: ReadError<anyhow::Error>) -> anyhow::Error {
    match error {
        ReadError::Fetch(error) => error,
        broken @ ReadError::Broken { .. } => anyhow::anyhow!("{broken}"),
    }
}

/// What came out of a run, from its record where it is large.
async fn output(conn: &Conn, run: &WorkflowRun) -> Result<Option<Value>> {
    let Some(mut output) = run.status.as_ref().and_then(|status| status.output.clone()) else { return Ok(None) };
    read::unpack(&mut output, &*fetch(conn)).await.map_err(told)?;
    Ok(Some(output))
}

/// Shows a run whenever it has changed, until it is over; answers with how it ended.
async fn each_change(
    conn: &Conn,
    name: &str,
    mut show: impl AsyncFnMut(&WorkflowRun) -> Result<()>,
) -> Result<WorkflowRun> {
    let list = collection(conn, "workflowruns");
    let mut run = find(conn, name).await?;
    loop {
        show(&run).await?;
        if is_over(&run) {
            return Ok(run);
        }
        let version = run.metadata.resource_version.clone().unwrap_or_default();
        let watch = format!("{list}?watch=true&fieldSelector=metadata.name%3D{name}&resourceVersion={version}");
        let stream = conn.client.request_stream(http::Request::get(watch).body(Vec::new())?).await;
        let mut lines = std::pin::pin!(stream.map_err(crate::api::explain)?.lines());
        while let Some(line) = lines.next().await {
            let mut event: Value = serde_json::from_str(&line?)?;
            match event["type"].as_str() {
                Some("DELETED") => bail!("the run {name} was deleted"),
                Some("ADDED" | "MODIFIED") => {
                    run = serde_json::from_value(event["object"].take())?;
                    show(&run).await?;
                    if is_over(&run) {
                        return Ok(run);
                    }
                }
                _ => break,
            }
        }
        run = find(conn, name).await?;
    }
}

fn phase(run: &WorkflowRun) -> &str {
    match run.status.as_ref().map(|status| status.phase.as_str()) {
        None | Some("") => "Pending",
        Some(phase) => phase,
    }
}

fn is_over(run: &WorkflowRun) -> bool {
    matches!(phase(run), "Succeeded" | "Failed" | "Cancelled")
}
