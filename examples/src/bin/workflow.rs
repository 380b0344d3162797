//! A workflow whose tasks are functions of this program: kept through any crash of it, drawn with the state of its steps.

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use anyhow::{Context, Result};
use futures::StreamExt;
use minik8s_core::client::{TypedEvent, WatchOptions};
use minik8s_core::cluster::Cluster;
use minik8s_serverless::Serverless;
use minik8s_serverless::workflow::{Failure, FakeInvoker, Workflow, WorkflowRun, WorkflowsConfig, compile, draw};
use serde_json::json;
use std::sync::Arc;

#[tokio::main]
async fn main() -> Result<()> {
    // Anything can do what steps ask for: implement `Invoker`, or name functions.
    let functions = FakeInvoker::new()
        .with("default/price", |order| {
            let pieces = order["pieces"].as_i64().ok_or_else(|| Failure::new("Refused", "how many pieces?"))?;
            Ok(json!({"pieces": pieces, "price": pieces * 7}))
        })
        .with("default/wrap", |order| Ok(json!(format!("{} in a box", order["pieces"]))));
    let config = WorkflowsConfig { invoker: Some(Arc::new(functions)), ..WorkflowsConfig::default() };
    let cluster = Cluster::builder().extension(Serverless::new().workflows(config)).start().await?;
    let client = cluster.client();

    let workflow: Workflow = serde_json::from_value(json!({"metadata": {"name": "orders"}, "spec": {
        "startAt": "each",
        "steps": [
            {"name": "each", "map": {"startAt": "price", "steps": [
                {"name": "price", "task": {"function": {"name": "price"}}, "next": "large"},
                {"name": "large", "choice": {"rules": [{"when": "input.price > 20", "next": "wrap"}], "default": "letter"}},
                {"name": "wrap", "task": {"function": {"name": "wrap"}}, "end": true},
                {"name": "letter", "pass": {"value": "a letter"}, "end": true}]}, "end": true}]
    }}))?;
    client.api("default").create(&workflow).await?;
    let run: WorkflowRun = serde_json::from_value(
        json!({"metadata": {"name": "today"}, "spec": {"workflow": "orders", "input": [{"pieces": 2}, {"pieces": 5}]}}),
    )?;
    client.api("default").create(&run).await?;

    let mut watch = client.api::<WorkflowRun>("default").watch(&WatchOptions::default()).await?;
    let status = loop {
        let event = watch.next().await.context("the watch ended")??;
        let (TypedEvent::Added(run) | TypedEvent::Modified(run)) = event else { continue };
        let status = run.status.unwrap_or_default();
        if status.finished_at.is_some() {
            break status;
        }
    };
    let program = compile(&workflow.spec).map_err(|e| e.into_error("minik8s.io", "Workflow", "orders"))?;
    println!("{}", draw::text(&program.body, &status.steps, &|_, part| part.to_owned()));
    println!("{}: {}", status.phase, status.output.unwrap_or_default());
    cluster.stop().await;
    Ok(())
}
