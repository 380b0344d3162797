//! The one word that sums a pod up.

use super::super::util::{items, number, text};
use serde_json::Value;

/// The pod's state as `get pods` shows it.
pub(super) fn status(pod: &Value) -> String {
    let reason = running_reason(pod);
    if pod.pointer("/metadata/deletionTimestamp").is_none() {
        return reason;
    }
    let phase = text(pod, "/status/phase");
    match text(pod, "/status/reason") {
        "NodeLost" => "Unknown".to_owned(),
        _ if !matches!(phase, "Succeeded" | "Failed") => "Terminating".to_owned(),
        _ => reason,
    }
}

fn running_reason(pod: &Value) -> String {
    let phase = text(pod, "/status/phase");
    let own = text(pod, "/status/reason");
    let mut reason = if own.is_empty() { phase } else { own }.to_owned();
    let gated = |c: &Value| text(c, "/type") == "PodScheduled" && text(c, "/reason") == "SchedulingGated";
    if items(pod, "/status/conditions").any(gated) {
        reason = "SchedulingGated".to_owned();
    }
    if let Some(init) = init_reason(pod) {
        return init;
    }
    let statuses: Vec<&Value> = items(pod, "/status/containerStatuses").collect();
    let mut some_run = false;
    for status in statuses.iter().rev() {
        if let Some(word) = container_reason(status) {
            reason = word;
        } else if status.get("ready") == Some(&Value::Bool(true)) && status.pointer("/state/running").is_some() {
            some_run = true;
        }
    }
    if reason == "Completed" && some_run {
        let ready =
            items(pod, "/status/conditions").any(|c| text(c, "/type") == "Ready" && text(c, "/status") == "True");
        return if ready { "Running" } else { "NotReady" }.to_owned();
    }
    reason
}

/// Why a container does not run.
fn container_reason(status: &Value) -> Option<String> {
    let waiting = text(status, "/state/waiting/reason");
    if !waiting.is_empty() {
        return Some(waiting.to_owned());
    }
    status.pointer("/state/terminated").map(terminated_reason)
}

fn terminated_reason(state: &Value) -> String {
    let (reason, signal) = (text(state, "/reason"), number(state, "/signal").unwrap_or_default());
    match (reason, signal) {
        ("", 0) => format!("ExitCode:{}", number(state, "/exitCode").unwrap_or_default()),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

/// What the first unfinished init container is doing.
pub(super) fn init_reason(pod: &Value) -> Option<String> {
    let inits: Vec<&Value> = items(pod, "/spec/initContainers").collect();
    let stays = |name: &str| inits.iter().any(|c| text(c, "/name") == name && text(c, "/restartPolicy") == "Always");
    for (index, status) in items(pod, "/status/initContainerStatuses").enumerate() {
        let exit = number(status, "/state/terminated/exitCode");
        let started = stays(text(status, "/name")) && status.get("started") == Some(&Value::Bool(true));
        if exit == Some(0) || started {
            continue;
        }
        let waiting = text(status, "/state/waiting/reason");
        return Some(if let Some(state) = status.pointer("/state/terminated") {
            format!("Init:{}", terminated_reason(state))
        } else if !waiting.is_empty() && waiting != "PodInitializing" {
            format!("Init:{waiting}")
        } else {
            format!("Init:{index}/{}", inits.len())
        });
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn one_word_for_every_state() {
        let with =
            |status: Value| json!({"spec": {"initContainers": [{"name": "i"}, {"name": "j"}]}, "status": status});
        let container = |state: Value| json!({"phase": "Running", "containerStatuses": [{"state": state}]});
        let init = |state: Value| json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": state}]});
        for (status_of_pod, want) in [
            (json!({"phase": "Pending"}), "Pending"),
            (json!({"phase": "Failed", "reason": "Evicted"}), "Evicted"),
            (container(json!({"waiting": {"reason": "CrashLoopBackOff"}})), "CrashLoopBackOff"),
            (container(json!({"terminated": {"exitCode": 3}})), "ExitCode:3"),
            (container(json!({"terminated": {"signal": 9}})), "Signal:9"),
            (container(json!({"terminated": {"reason": "OOMKilled"}})), "OOMKilled"),
            (container(json!({"running": {}})), "Running"),
            (init(json!({"running": {}})), "Init:0/2"),
            (init(json!({"waiting": {"reason": "ImagePullBackOff"}})), "Init:ImagePullBackOff"),
            (init(json!({"terminated": {"exitCode": 1, "reason": "Error"}})), "Init:Error"),
        ] {
            assert_eq!(status(&with(status_of_pod.clone())), want, "{status_of_pod}");
        }
        let both = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "False"}],
            "containerStatuses": [{"ready": true, "state": {"running": {}}},
                {"state": {"terminated": {"reason": "Completed", "exitCode": 0}}}]}});
        assert_eq!(status(&both), "NotReady");
        let mut going = both;
        going["metadata"] = json!({"deletionTimestamp": "2026-01-01T00:00:00Z"});
        assert_eq!(status(&going), "Terminating");
    }
}
