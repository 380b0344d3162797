//! Steps that run a container to its end. There is no kind for batch jobs: the step makes a pod, whose name follows from the
//! attempt, so that it is made once. Its input is in the variable `WORKFLOW_INPUT`; its output is what it wrote as its
//! termination message, as JSON where it is JSON.

use super::invoker::{Heartbeat, Invocation};
use super::machine::Failure;
use super::spec::JobSpec;
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Container, EnvVar, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use minik8s_core::api::ApiError;
use minik8s_core::client::{Api, Client, DeleteOptions, TypedEvent, WatchOptions};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Label of the pods of a run.
pub const RUN_LABEL: &str = "minik8s.io/workflow-run";
/// Longer inputs are no environment variables.
const LONGEST_INPUT: usize = 64 << 10;

/// Runs a job's pod and waits for its end.
pub(super) async fn run(
    client: &Client,
    call: &Invocation,
    job: &JobSpec,
    alive: &Heartbeat,
) -> Result<Value, Failure> {
    let input = call.input.to_string();
    if input.len() > LONGEST_INPUT {
        return Err(Failure::new(
            "Refused",
            format!("a job's input has at most {LONGEST_INPUT} bytes, not {}", input.len()),
        ));
    }
    let api = client.api::<Pod>(&call.namespace);
    let name = pod_name(&call.key);
    match api.create(&pod(call, job, &name, input)).await {
        Err(e) if !e.is_already_exists() => return Err(unavailable(&e)),
        _ => {}
    }
    let field_selector = format!("metadata.name={name}");
    loop {
        let options = WatchOptions { field_selector: field_selector.clone(), ..WatchOptions::default() };
        let mut watch = api.watch(&options).await.map_err(|e| unavailable(&e))?;
        while let Some(Ok(event)) = watch.next().await {
            alive.beat();
            match event {
                TypedEvent::Added(pod) | TypedEvent::Modified(pod) => {
                    if let Some(end) = ending(&pod) {
                        return end;
                    }
                }
                TypedEvent::Deleted(_) => {
                    return Err(Failure::new("Unavailable", format!("the pod {name} was deleted")));
                }
                TypedEvent::Bookmark { .. } => {}
            }
        }
        // The watch broke off: look again, unless there is nothing to look at any more.
        if api.get_opt(&name).await.map_err(|e| unavailable(&e))?.is_none() {
            return Err(Failure::new("Unavailable", format!("the pod {name} was deleted")));
        }
    }
}

/// Deletes the pod of an attempt that nobody waits for any more.
pub(super) async fn abandon(client: &Client, call: &Invocation) {
    let api: Api<Pod> = client.api(&call.namespace);
    if let Err(error) = api.delete(&pod_name(&call.key), &DeleteOptions::default()).await
        && !error.is_not_found()
    {
        tracing::debug!(%error, key = call.key, "cannot delete the pod of a task that is not waited for");
    }
}

fn unavailable(error: &ApiError) -> Failure {
    Failure::new("Unavailable", error.to_string())
}

fn pod_name(key: &str) -> String {
    let digest: String = Sha256::digest(key).iter().take(10).map(|b| format!("{b:02x}")).collect();
    format!("workflow-{digest}")
}

fn pod(call: &Invocation, job: &JobSpec, name: &str, input: String) -> Pod {
    let variable =
        |name: &str, value: String| EnvVar { name: name.to_owned(), value: Some(value), ..EnvVar::default() };
    let mut env: Vec<EnvVar> = job.env.iter().map(|(name, value)| variable(name, value.clone())).collect();
    env.push(variable("WORKFLOW_INPUT", input));
    env.push(variable("WORKFLOW_KEY", call.key.clone()));
    let some = |words: &[String]| (!words.is_empty()).then(|| words.to_vec());
    let container = Container {
        name: "job".to_owned(),
        image: Some(job.image.clone()),
        command: some(&job.command),
        args: some(&job.args),
        env: Some(env),
        ..Container::default()
    };
    let owner = OwnerReference {
        api_version: "minik8s.io/v1alpha1".to_owned(),
        kind: "WorkflowRun".to_owned(),
        name: call.run.clone(),
        uid: call.key.split('/').next().unwrap_or_default().to_owned(),
        controller: Some(true),
        block_owner_deletion: None,
    };
    // Labels have at most 63 characters.
    let label: String = call.run.chars().take(63).collect();
    let label = label.trim_end_matches(['-', '.', '_']).to_owned();
    Pod {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some([(RUN_LABEL.to_owned(), label)].into()),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            containers: vec![container],
            restart_policy: Some("Never".to_owned()),
            ..PodSpec::default()
        }),
        ..Pod::default()
    }
}

/// What came of a pod that ended.
fn ending(pod: &Pod) -> Option<Result<Value, Failure>> {
    let status = pod.status.as_ref()?;
    let ended = status.container_statuses.iter().flatten().find_map(|c| c.state.as_ref()?.terminated.as_ref());
    let message = ended.and_then(|e| e.message.clone()).unwrap_or_default();
    match status.phase.as_deref()? {
        "Succeeded" if message.trim().is_empty() => Some(Ok(Value::Null)),
        "Succeeded" => Some(Ok(serde_json::from_str(&message).unwrap_or(Value::String(message)))),
        "Failed" => {
            let why = ended.map_or_else(
                || {
                    status
                        .message
                        .clone()
                        .or_else(|| status.reason.clone())
                        .unwrap_or_else(|| "the pod failed".to_owned())
                },
                |e| {
                    format!(
                        "the container ended with {} ({}): {message}",
                        e.exit_code,
                        e.reason.as_deref().unwrap_or("Error")
                    )
                },
            );
            Some(Err(Failure::new("TaskFailed", why)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_a_pod_ended_with_is_the_answer() {
        let ended = |phase: &str, code: i32, message: &str| -> Pod {
            serde_json::from_value(json!({"status": {"phase": phase, "containerStatuses": [{"name": "job", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"terminated": {"exitCode": code, "reason": "Error", "message": message}}}]}}))
            .unwrap()
        };
        assert_eq!(ending(&ended("Running", 0, "")), None);
        assert_eq!(ending(&ended("Succeeded", 0, "{\"a\": 1}")), Some(Ok(json!({"a": 1}))));
        assert_eq!(ending(&ended("Succeeded", 0, "done")), Some(Ok(json!("done"))));
        assert_eq!(ending(&ended("Succeeded", 0, "")), Some(Ok(json!(null))));
        let failed = ending(&ended("Failed", 3, "no disk")).unwrap().unwrap_err();
        assert_eq!(
            (failed.error.as_str(), failed.cause.as_str()),
            ("TaskFailed", "the container ended with 3 (Error): no disk")
        );
    }

    #[test]
    fn one_attempt_has_one_pod() {
        assert_eq!(pod_name("u/a/1"), pod_name("u/a/1"));
        assert_ne!(pod_name("u/a/1"), pod_name("u/a/2"));
    }
}
