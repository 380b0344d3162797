//! Finding a run again: its workflow as it was when it began, and what happened since.

use super::live::{Live, Lives};
use crate::workflow::machine::{Event, RunState};
use crate::workflow::objects::{History, Workflow, WorkflowRecord, WorkflowRun};
use crate::workflow::program;
use crate::workflow::read::{self, Fetch, ReadError};
use crate::workflow::records::Records;
use minik8s_core::api::{ApiError, ApiResult};
use minik8s_core::client::Client;
use minik8s_core::controllers::controller_reference;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;

/// Gets records of a namespace.
fn fetch<'a>(client: &'a Client, namespace: &'a str) -> Box<Fetch<'a, ApiError>> {
    Box::new(move |name| Box::pin(async move { Ok(client.api::<WorkflowRecord>(namespace).get(&name).await?.data) }))
}

fn told(error: ReadError<ApiError>) -> ApiError {
    match error {
        ReadError::Fetch(error) => error,
        broken @ ReadError::Broken { .. } => ApiError::internal(broken.to_string()),
    }
}

/// Everything that happened in a run.
///
/// # Errors
/// Where a record is gone, or is no history.
pub async fn events(client: &Client, namespace: &str, history: &History) -> ApiResult<Vec<Event>> {
    read::events(history, &*fetch(client, namespace)).await.map_err(told)
}

/// Keeps a workflow as it is now, for a run that begins; answers with the record's name.
pub(super) async fn revision(client: &Client, lives: &Lives, workflow: &Workflow) -> ApiResult<String> {
    let meta = &workflow.metadata;
    let key = format!("{}/{}", meta.uid.as_deref().unwrap_or_default(), meta.generation.unwrap_or_default());
    if let Some(known) = lives.revision(&key) {
        return Ok(known);
    }
    let name = keep(client, workflow).await?;
    lives.remember_revision(key, name.clone());
    Ok(name)
}

async fn keep(client: &Client, workflow: &Workflow) -> ApiResult<String> {
    let namespace = workflow.metadata.namespace.as_deref().unwrap_or_default();
    let owner = controller_reference(workflow);
    let records = Records { client, namespace, owner: &owner };
    records.put(&json!({ "spec": workflow.spec })).await
}

/// The workflow of a revision, compiled.
///
/// # Errors
/// Where the record is gone, or does not compile any more.
pub async fn program(client: &Client, namespace: &str, revision: &str) -> ApiResult<program::Workflow> {
    read::revision(revision, &*fetch(client, namespace)).await.map_err(told)
}

pub(super) async fn compiled(
    client: &Client,
    lives: &Lives,
    namespace: &str,
    revision: &str,
) -> ApiResult<Arc<program::Workflow>> {
    let key = format!("{namespace}/{revision}");
    if let Some(known) = lives.compiled(&key) {
        return Ok(known);
    }
    let workflow = Arc::new(program(client, namespace, revision).await?);
    lives.remember(key, workflow.clone());
    Ok(workflow)
}

/// The run as its status says it is.
pub(super) async fn load(client: &Client, lives: &Lives, run: WorkflowRun) -> ApiResult<Live> {
    let namespace = run.metadata.namespace.clone().unwrap_or_default();
    let status = run.status.clone().unwrap_or_default();
    let workflow = compiled(client, lives, &namespace, &status.revision).await?;
    let events = events(client, &namespace, &status.history).await?;
    let state = RunState::of(&events);
    let about = about(&run);
    Ok(Live { run, workflow, about, state, inbox: Arc::default(), stale: false, calls: HashMap::new() })
}

/// What expressions see as `run`.
fn about(run: &WorkflowRun) -> Value {
    let meta = &run.metadata;
    json!({"name": meta.name, "namespace": meta.namespace, "uid": meta.uid, "workflow": run.spec.workflow})
}
