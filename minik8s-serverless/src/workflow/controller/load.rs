//! Finding a run again: its workflow as it was when it began, and what happened since.

use super::live::{Live, Lives};
use crate::workflow::machine::{Event, RunState};
use crate::workflow::objects::{History, Workflow, WorkflowRecord, WorkflowRun};
use crate::workflow::program;
use crate::workflow::read::{self, Fetch, ReadError};
use crate::workflow::records::{Records, name_of};
use minik8s_core::api::{ApiError, ApiResult, Reason};
use minik8s_core::client::Client;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;

/// Which workflow a record holds a revision of, or a piece of one.
pub(super) const REVISION_OF: &str = "minik8s.io/revision-of";

/// Gets records of a namespace.
fn fetch<'a>(client: &'a Client, namespace: &'a str) -> Box<Fetch<'a, ApiError>> {
    Box::new(move |name| Box::pin(async move { Ok(client.api::<WorkflowRecord>(namespace).get(&name).await?.data) }))
}

fn told(error: ReadError<ApiError>) -> ApiError {
    match error {
        ReadError::Fetch(error) => error,
        broken @ ReadError::Broken { .. } => ApiError::new(Reason::Invalid, broken.to_string()),
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

/// A workflow as runs keep it.
fn kept(workflow: &Workflow) -> Value {
    json!({ "spec": workflow.spec })
}

/// The record that holds a workflow as it is now, if a run ever began with it.
pub(super) fn revision_name(workflow: &Workflow) -> String {
    name_of(workflow.metadata.name.as_deref().unwrap_or_default(), &kept(workflow))
}

/// Revisions are nobody's: they outlive their workflow for as long as a run speaks of them.
async fn keep(client: &Client, workflow: &Workflow) -> ApiResult<String> {
    let namespace = workflow.metadata.namespace.as_deref().unwrap_or_default();
    let of = workflow.metadata.name.as_deref().unwrap_or_default();
    let annotations = Some([(REVISION_OF.to_owned(), of.to_owned())].into());
    Records { client, namespace, of, owner: None, annotations }.put(&kept(workflow)).await
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
    let read = program(client, namespace, revision).await;
    if read.as_ref().is_err_and(ApiError::is_not_found) {
        lives.forget_revision(revision);
    }
    let workflow = Arc::new(read?);
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
