//! Steps whose task is an object that somebody else brings to its end: a pod, a job on a cluster. What they have in common
//! is here, on generic JSON; a kind is one small file that says what is made and what its end means.
//!
//! The object's name follows from the attempt, so that it is made once; it belongs to the run and goes with it. The step's
//! input is in the variable `WORKFLOW_INPUT`, the attempt's key in `WORKFLOW_KEY`. An API that does not answer for a while is
//! no reason to give up what runs elsewhere.

mod gpu_job;
mod pod;
mod trouble;

use super::invoker::{Heartbeat, Invocation};
use super::machine::Failure;
use super::program::Target;
use futures::StreamExt;
use minik8s_core::api::{ApiError, ApiResult, Gvr, Reason, Target as Place, WatchEvent, WatchEventType};
use minik8s_core::client::{Client, DeleteOptions, Payload, WatchOptions, WriteOptions};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::time::Duration;
use trouble::Trouble;

/// Label of the objects of a run.
pub const RUN_LABEL: &str = "minik8s.io/workflow-run";
/// Longer inputs are no environment variables.
const LONGEST_INPUT: usize = 64 << 10;

/// A kind of such objects.
pub(super) trait Work: Send + Sync {
    /// Where they are in the API.
    fn gvr(&self) -> Gvr;

    /// What they are called.
    fn kind(&self) -> &'static str;

    /// The spec of one, with these variables in its environment.
    fn spec(&self, variables: &[(&str, String)]) -> Value;

    /// What came of one that has ended.
    fn ending(&self, object: &Value) -> Option<Result<Value, Failure>>;
}

/// What a target has made, if it is such a one.
pub(super) fn of(target: &Target) -> Option<&dyn Work> {
    match target {
        Target::Function(_) | Target::Http(_) => None,
        Target::Job(job) => Some(job),
        Target::GpuJob(job) => Some(job),
    }
}

/// Has an object made, and waits for its end. Where the API fails, it is asked again, for as long as `patience` in a row.
pub(super) async fn run(
    client: &Client,
    call: &Invocation,
    work: &dyn Work,
    alive: &Heartbeat,
    patience: Duration,
) -> Result<Value, Failure> {
    let input = call.input.to_string();
    if input.len() > LONGEST_INPUT {
        let why = format!("a job's input has at most {LONGEST_INPUT} bytes, not {}", input.len());
        return Err(Failure::new("Refused", why));
    }
    let name = name_of(&call.key);
    let body = object(call, work, &name, input).to_string();
    let job = Job { client, work, namespace: &call.namespace, name };
    let mut trouble = Trouble::new(patience);
    while let Err(error) = job.make(&body).await {
        trouble.pause(&error).await?;
    }
    trouble.is_over();
    loop {
        match job.follow(alive, &mut trouble).await {
            Ok(end) => return end,
            Err(error) => trouble.pause(&error).await?,
        }
    }
}

/// Deletes the object of an attempt that nobody waits for any more.
pub(super) async fn abandon(client: &Client, call: &Invocation, work: &dyn Work, patience: Duration) {
    let place = Place::object(work.gvr(), &call.namespace, name_of(&call.key));
    let mut trouble = Trouble::new(patience);
    while let Err(error) = client.transport().delete(&place, &DeleteOptions::default()).await {
        if error.is_not_found() {
            return;
        }
        if let Err(failure) = trouble.pause(&error).await {
            tracing::warn!(error = failure.cause, key = call.key, "what a task had made stays until its run goes");
            return;
        }
    }
}

/// The object of an attempt.
struct Job<'a> {
    client: &'a Client,
    work: &'a dyn Work,
    namespace: &'a str,
    name: String,
}

impl Job<'_> {
    async fn make(&self, body: &str) -> ApiResult<()> {
        let all = Place::in_namespace(self.work.gvr(), self.namespace);
        let body = Payload::Json(body.to_owned().into());
        match self.client.transport().create(&all, body, &WriteOptions::default()).await {
            Err(error) if error.reason != Reason::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    }

    /// What came of it; an error where nobody tells of it any more.
    async fn follow(&self, alive: &Heartbeat, trouble: &mut Trouble) -> ApiResult<Result<Value, Failure>> {
        let deleted =
            || Err(Failure::new("Unavailable", format!("the {} {} was deleted", self.work.kind(), self.name)));
        let all = Place::in_namespace(self.work.gvr(), self.namespace);
        let field_selector = format!("metadata.name={}", self.name);
        let options = WatchOptions { field_selector, ..WatchOptions::default() };
        let mut watch = self.client.transport().watch(&all, &options).await?;
        // A watch does not tell of what is not there any more when it begins.
        let place = Place::object(self.work.gvr(), self.namespace, self.name.as_str());
        match self.client.transport().get(&place).await {
            Err(error) if error.is_not_found() => return Ok(deleted()),
            found => found?,
        };
        trouble.is_heard();
        while let Some(event) = watch.next().await {
            let event = event?;
            trouble.is_over();
            alive.beat();
            match event {
                WatchEvent::Object(WatchEventType::Deleted, _) => return Ok(deleted()),
                WatchEvent::Object(_, object) => {
                    let object = object.value()?;
                    // One that is deleted is ended for that: it did not fail by itself.
                    let is_deleted = object["metadata"]["deletionTimestamp"].is_string();
                    match self.work.ending(&object) {
                        Some(Err(_)) if is_deleted => return Ok(deleted()),
                        Some(end) => return Ok(end),
                        None => {}
                    }
                }
                WatchEvent::Bookmark { .. } => {}
            }
        }
        Err(ApiError::new(Reason::ServiceUnavailable, "the watch ended"))
    }
}

fn name_of(key: &str) -> String {
    let digest: String = Sha256::digest(key).iter().take(10).map(|b| format!("{b:02x}")).collect();
    format!("workflow-{digest}")
}

fn object(call: &Invocation, work: &dyn Work, name: &str, input: String) -> Value {
    // Labels have at most 63 characters.
    let label: String = call.run.chars().take(63).collect();
    let owner = json!({"apiVersion": "minik8s.io/v1alpha1", "kind": "WorkflowRun", "name": call.run,
        "uid": call.key.split('/').next().unwrap_or_default(), "controller": true});
    let variables = [("WORKFLOW_INPUT", input), ("WORKFLOW_KEY", call.key.clone())];
    let gvr = work.gvr();
    let api_version =
        if gvr.group.is_empty() { gvr.version.to_string() } else { format!("{}/{}", gvr.group, gvr.version) };
    json!({"apiVersion": api_version, "kind": work.kind(), "spec": work.spec(&variables), "metadata": {
        "name": name, "namespace": call.namespace, "ownerReferences": [owner],
        "labels": {RUN_LABEL: label.trim_end_matches(['-', '.', '_'])}}})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workflow::spec::JobSpec;

    #[test]
    fn one_attempt_has_one_object_and_belongs_to_its_run() {
        assert_eq!(name_of("u/a/1"), name_of("u/a/1"));
        assert_ne!(name_of("u/a/1"), name_of("u/a/2"));
        let job = JobSpec { image: "i".into(), ..JobSpec::default() };
        let call = Invocation {
            key: "uid/a/1".into(),
            namespace: "ns".into(),
            run: format!("{}-x", "r".repeat(62)),
            step: "a".into(),
            target: Target::Job(job.clone()),
            input: json!(1),
        };
        let made = object(&call, &job, "n", "1".into());
        let meta = &made["metadata"];
        assert_eq!(
            (&made["apiVersion"], &made["kind"], &meta["namespace"]),
            (&json!("v1"), &json!("Pod"), &json!("ns"))
        );
        assert_eq!(meta["labels"][RUN_LABEL], "r".repeat(62), "a label ends in a letter");
        assert_eq!(
            (&meta["ownerReferences"][0]["name"], &meta["ownerReferences"][0]["uid"]),
            (&json!(call.run), &json!("uid"))
        );
    }
}
