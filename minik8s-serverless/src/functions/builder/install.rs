//! What a function requires is installed by a pod of its own: what that pod is, and what has come of it. Pure.

use crate::functions::api::FunctionRevision;
use crate::functions::build::{BuildError, install_command, of_installing};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerStateTerminated, Pod};
use minik8s_core::controllers::controller_reference;
use serde_json::json;
use std::time::Duration;

/// Label of such a pod: the revision it installs for.
pub(in crate::functions) const LABEL: &str = "minik8s.io/installs-for";
/// Where it sends what it has installed.
const SEND_TO: &str = "SEND_TO";
/// How long it may take.
const LIMIT: i64 = 900;
/// Who installs: what packages bring is run while they are.
const NOBODY: i64 = 65_534;
/// With this status ends what may go better another time (`EX_TEMPFAIL`).
const AGAIN: i32 = 75;
/// Before another time.
const PAUSE: Duration = Duration::from_secs(20);

/// Its name.
pub(super) fn name(revision: &FunctionRevision) -> String {
    format!("{}-install", revision.metadata.name.as_deref().unwrap_or_default())
}

/// The pod. It may write nothing of the cluster's but the one file.
pub(super) fn pod(revision: &FunctionRevision, image: &str, send_to: &str) -> Result<Pod, serde_json::Error> {
    let meta = &revision.metadata;
    let mut env = vec![json!({"name": SEND_TO, "value": send_to})];
    env.extend(of_installing(&revision.spec.template).map(|var| json!(var)));
    serde_json::from_value(json!({
        "metadata": {"name": name(revision), "namespace": meta.namespace, "labels": {LABEL: meta.name},
            "ownerReferences": [controller_reference(revision)]},
        "spec": {
            "restartPolicy": "Never", "activeDeadlineSeconds": LIMIT, "terminationGracePeriodSeconds": 1,
            "enableServiceLinks": false, "automountServiceAccountToken": false,
            "containers": [{
                "name": "install", "image": image, "command": install_command(), "env": env,
                "imagePullPolicy": "IfNotPresent", "terminationMessagePolicy": "FallbackToLogsOnError",
                "resources": {"limits": {"memory": "1Gi"}, "requests": {"memory": "64Mi", "cpu": "50m"}},
                "securityContext": {"runAsUser": NOBODY, "runAsGroup": NOBODY, "allowPrivilegeEscalation": false,
                    "capabilities": {"drop": ["ALL"]}},
                "volumeMounts": [{"name": "work", "mountPath": "/work"}, {"name": "ca", "mountPath": "/ca"}],
            }],
            "volumes": [
                {"name": "work", "emptyDir": {"sizeLimit": "4Gi"}},
                {"name": "ca", "configMap": {"name": "kube-root-ca.crt", "optional": true}},
            ],
        },
    }))
}

/// Where the pod was told to send to.
pub(super) fn send_to(pod: &Pod) -> Option<String> {
    let env = pod.spec.as_ref()?.containers.first()?.env.as_ref()?;
    env.iter().find(|var| var.name == SEND_TO)?.value.clone()
}

/// What has come of it.
#[derive(Debug)]
pub(super) enum Progress {
    /// It is not over; and what it waits for, where that is known.
    Installing(String),
    /// All is installed and sent.
    Done,
    /// It did not work.
    Failed(BuildError),
    /// It did not work, and now is the time for another try.
    Again,
    /// It did not work, and after so long is the time for another try.
    Later(BuildError, Duration),
}

/// Reads a pod.
pub(super) fn progress(pod: &Pod, now: Timestamp) -> Progress {
    let status = pod.status.clone().unwrap_or_default();
    match status.phase.as_deref() {
        Some("Succeeded") => Progress::Done,
        Some("Failed") => failed(pod, now),
        _ if pod.metadata.deletion_timestamp.is_some() => Progress::Installing("it is being ended".to_owned()),
        _ => Progress::Installing(waits_for(pod)),
    }
}

fn failed(pod: &Pod, now: Timestamp) -> Progress {
    let status = pod.status.clone().unwrap_or_default();
    let of_container = status.container_statuses.iter().flatten().next();
    let ended: Option<ContainerStateTerminated> = of_container.and_then(|s| s.state.as_ref()?.terminated.clone());
    let ended = ended.unwrap_or_default();
    let code = ended.exit_code;
    let (why, again) = match (status.reason.as_deref(), ended.reason.as_deref()) {
        (Some("DeadlineExceeded"), _) => (format!("that took longer than {} minutes", LIMIT / 60), false),
        (_, Some("OOMKilled")) => ("that used more memory than it may".to_owned(), false),
        // The node's doing, not the packages'.
        (Some(reason), _) => (format!("{reason}: {}", status.message.as_deref().unwrap_or_default()), true),
        _ if code == AGAIN => ("what is needed for that could not be reached".to_owned(), true),
        _ => (format!("the installation ended with status {code}"), false),
    };
    let error = BuildError::Install { why, log: ended.message.unwrap_or_default(), again };
    let pause = SignedDuration::try_from(PAUSE).unwrap_or_default();
    let waited = ended.finished_at.or(status.start_time).map_or(pause, |since| now.duration_since(since.0));
    match again {
        false => Progress::Failed(error),
        true if waited >= pause => Progress::Again,
        true => Progress::Later(error, Duration::try_from(pause - waited).unwrap_or(PAUSE).min(PAUSE)),
    }
}

/// What a pod that does not run yet says of that.
fn waits_for(pod: &Pod) -> String {
    let Some(status) = &pod.status else { return String::new() };
    let waiting = status.container_statuses.iter().flatten().find_map(|s| s.state.as_ref()?.waiting.clone());
    let unusual = waiting.filter(|w| !matches!(w.reason.as_deref(), None | Some("ContainerCreating")));
    let placed = status.conditions.iter().flatten().find(|c| c.type_ == "PodScheduled" && c.status == "False");
    let of_waiting = unusual.map(|w| format!("{}: {}", w.reason.unwrap_or_default(), w.message.unwrap_or_default()));
    of_waiting.or_else(|| placed.and_then(|c| c.message.clone())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn revision(env: Value) -> FunctionRevision {
        serde_json::from_value(json!({"metadata": {"name": "f-1", "namespace": "n", "uid": "u"},
            "spec": {"function": "f", "template": {"env": env}}}))
        .unwrap()
    }

    #[test]
    fn a_pod_says_where_it_sends_to_and_has_nothing_of_the_clusters() {
        let env = json!([{"name": "PIP_INDEX_URL", "value": "http://x"}, {"name": "SECRET", "value": "y"}]);
        let pod = pod(&revision(env), "image", "/there").unwrap();
        assert_eq!(send_to(&pod).as_deref(), Some("/there"));
        let spec = serde_json::to_value(pod.spec.as_ref().unwrap()).unwrap();
        let names: Vec<&str> =
            spec["containers"][0]["env"].as_array().unwrap().iter().map(|v| v["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["SEND_TO", "PIP_INDEX_URL"]);
        assert_eq!(spec["automountServiceAccountToken"], false);
        assert_eq!(spec["containers"][0]["securityContext"]["runAsUser"], NOBODY);
        assert!(spec["activeDeadlineSeconds"].as_i64().is_some() && spec["restartPolicy"] == "Never");
    }

    fn told(progress: Progress) -> String {
        match progress {
            Progress::Installing(what) => format!("installing {what}").trim_end().to_owned(),
            Progress::Done => "done".to_owned(),
            Progress::Failed(error) => format!("failed {error} / {}", error.log()),
            Progress::Again => "again".to_owned(),
            Progress::Later(_, wait) => format!("later {}", wait.as_secs()),
        }
    }

    #[test]
    fn what_has_come_of_a_pod_is_read_from_its_status() {
        let now: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
        let ended = |code: i32, reason: &str, at: &str| {
            json!({"phase": "Failed", "containerStatuses": [{"name": "install", "image": "", "imageID": "",
                "ready": false, "restartCount": 0, "state": {"terminated": {"exitCode": code, "reason": reason,
                "message": "No matching distribution", "finishedAt": at}}}]})
        };
        let (just_now, long_ago) = ("2026-01-01T00:00:55Z", "2026-01-01T00:00:40Z");
        let unplaced = json!({"phase": "Pending", "conditions": [
            {"type": "PodScheduled", "status": "False", "message": "no node has room"}]});
        let table = [
            (json!({}), "installing"),
            (json!({"phase": "Running"}), "installing"),
            (unplaced, "installing no node has room"),
            (json!({"phase": "Succeeded"}), "done"),
            (
                ended(1, "Error", just_now),
                "failed its requirements cannot be installed: the installation ended with status 1 / No matching distribution",
            ),
            (
                ended(137, "OOMKilled", just_now),
                "failed its requirements cannot be installed: that used more memory than it may / No matching distribution",
            ),
            (
                json!({"phase": "Failed", "reason": "DeadlineExceeded"}),
                "failed its requirements cannot be installed: that took longer than 15 minutes / its requirements cannot be installed: that took longer than 15 minutes",
            ),
            (ended(75, "Error", just_now), "later 15"),
            (ended(75, "Error", long_ago), "again"),
            (json!({"phase": "Failed", "reason": "Evicted", "startTime": just_now}), "later 15"),
            (json!({"phase": "Failed", "reason": "Evicted"}), "again"),
        ];
        for (status, want) in table {
            let pod: Pod = serde_json::from_value(json!({"metadata": {}, "status": status.clone()})).unwrap();
            assert_eq!(told(progress(&pod, now)), want, "{status}");
        }
    }
}
