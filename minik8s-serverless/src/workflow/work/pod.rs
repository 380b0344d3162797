//! A container that runs to its end, as a pod: there is no kind for batch jobs. Its output is what it wrote as its
//! termination message, as JSON where it is JSON.

use super::Work;
use crate::workflow::machine::Failure;
use crate::workflow::spec::JobSpec;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use minik8s_core::api::Gvr;
use serde_json::{Value, json};

impl Work for JobSpec {
    fn gvr(&self) -> Gvr {
        Gvr::new("", "v1", "pods")
    }

    fn kind(&self) -> &'static str {
        "Pod"
    }

    fn spec(&self, variables: &[(&str, String)]) -> Value {
        let own = self.env.iter().map(|(name, value)| (name.as_str(), value));
        let all = own.chain(variables.iter().map(|(name, value)| (*name, value)));
        let env: Vec<Value> = all.map(|(name, value)| json!({"name": name, "value": value})).collect();
        let mut container = json!({"name": "job", "image": self.image, "env": env});
        for (field, words) in [("command", &self.command), ("args", &self.args)] {
            if !words.is_empty() {
                container[field] = json!(words);
            }
        }
        json!({"containers": [container], "restartPolicy": "Never"})
    }

    fn ending(&self, object: &Value) -> Option<Result<Value, Failure>> {
        ending(&serde_json::from_value::<Pod>(object.clone()).ok()?.status?)
    }
}

/// What came of a pod that ended.
fn ending(status: &PodStatus) -> Option<Result<Value, Failure>> {
    let ended = status.container_statuses.iter().flatten().find_map(|c| c.state.as_ref()?.terminated.as_ref());
    let message = ended.and_then(|e| e.message.clone()).unwrap_or_default();
    match status.phase.as_deref()? {
        "Succeeded" if message.trim().is_empty() => Some(Ok(Value::Null)),
        "Succeeded" => Some(Ok(serde_json::from_str(&message).unwrap_or(Value::String(message)))),
        "Failed" => {
            let of_pod = || status.message.clone().or_else(|| status.reason.clone());
            let why = match ended {
                None => of_pod().unwrap_or_else(|| "the pod failed".to_owned()),
                Some(e) => {
                    let reason = e.reason.as_deref().unwrap_or("Error");
                    format!("the container ended with {} ({reason}): {message}", e.exit_code)
                }
            };
            Some(Err(Failure::new("TaskFailed", why)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_pod_ended_with_is_the_answer() {
        let ended = |phase: &str, code: i32, message: &str| {
            JobSpec::default().ending(&json!({"status": {"phase": phase, "containerStatuses": [{"name": "job", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"terminated": {"exitCode": code, "reason": "Error", "message": message}}}]}}))
        };
        assert_eq!(ended("Running", 0, ""), None);
        assert_eq!(ended("Succeeded", 0, "{\"a\": 1}"), Some(Ok(json!({"a": 1}))));
        assert_eq!(ended("Succeeded", 0, "done"), Some(Ok(json!("done"))));
        assert_eq!(ended("Succeeded", 0, ""), Some(Ok(json!(null))));
        let failed = ended("Failed", 3, "no disk").unwrap().unwrap_err();
        assert_eq!(
            (failed.error.as_str(), failed.cause.as_str()),
            ("TaskFailed", "the container ended with 3 (Error): no disk")
        );
    }
}
