//! What pods look like in each case, and what is read from that.

use super::super::TASK;
use super::*;
use serde_json::{Value, json};

fn pod(metadata: Value, spec: Value, status: Value) -> Pod {
    let all = json!({"metadata": metadata, "spec": spec, "status": status});
    let mut all = all;
    all["spec"]["containers"] = json!([{"name": "job", "image": "i"}]);
    serde_json::from_value(all).unwrap()
}

fn told_of(pods: &[Pod]) -> JobReport {
    report(&JobId::new("u", 1), pods)
}

/// A pod on a node that has ended: with what its container, and the pod itself, say.
fn over(terminated: Value, reason: Value) -> Pod {
    let mut terminated = terminated;
    terminated["finishedAt"] = "2026-01-01T00:00:10Z".into();
    let phase = if terminated["exitCode"] == 0 { "Succeeded" } else { "Failed" };
    let containers = json!([{"name": "job", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": {"terminated": terminated}}]);
    pod(
        json!({"name": "p"}),
        json!({"nodeName": "n1"}),
        json!({"phase": phase, "reason": reason, "containerStatuses": containers}),
    )
}

fn words(line: &str, code: i32) -> Value {
    json!({"exitCode": code, "message": line, "reason": if code == 0 { "Completed" } else { "Error" }})
}

fn ended(pod: &Pod) -> (EndReason, Option<i32>) {
    match told_of(std::slice::from_ref(pod)).state {
        JobState::Ended(end) => (end.reason, end.exit_code),
        other => panic!("{other:?} is no end"),
    }
}

#[test]
fn ends_are_told_apart() {
    for (terminated, reason, want) in [
        (words("0 run x 1767225610\n", 0), Value::Null, (EndReason::Completed, Some(0))),
        (words("3 run x 1767225610\n", 3), Value::Null, (EndReason::Error, Some(3))),
        (words("137 run x 1767225610\n", 137), Value::Null, (EndReason::Error, Some(137))),
        (words("4 compile x 1767225610\n", 4), Value::Null, (EndReason::CompileError, Some(4))),
        (words("143 timeout x 1767225610\n", 143), Value::Null, (EndReason::Timeout, Some(143))),
        (words("137 memory x 1767225610\n", 137), Value::Null, (EndReason::OutOfMemory, Some(137))),
        (words("126 launch x 1767225610\n", 126), Value::Null, (EndReason::LaunchError, Some(126))),
        (json!({"exitCode": 137, "reason": "OOMKilled"}), Value::Null, (EndReason::OutOfMemory, Some(137))),
        (json!({"exitCode": 128, "reason": "StartError"}), Value::Null, (EndReason::LaunchError, None)),
        (json!({"exitCode": 137, "reason": "ContainerStatusUnknown"}), Value::Null, (EndReason::NodeFailure, None)),
        (json!({"exitCode": 9, "reason": "Error"}), Value::Null, (EndReason::Error, Some(9))),
        (words("143 run x 1767225610\n", 143), json!("DeadlineExceeded"), (EndReason::Timeout, None)),
        (words("143 run x 1767225610\n", 143), json!("Evicted"), (EndReason::DiskFull, None)),
    ] {
        assert_eq!(ended(&over(terminated.clone(), reason.clone())), want, "{terminated} {reason}");
    }
    let never = pod(
        json!({}),
        json!({"nodeName": "n1"}),
        json!({"phase": "Failed", "reason": "SysctlForbidden", "message": "no"}),
    );
    assert_eq!(ended(&never).0, EndReason::LaunchError);
}

#[test]
fn who_ended_it_is_told_apart() {
    let with = |pod: &Pod, metadata: Value, condition: Option<&str>| {
        let mut all = serde_json::to_value(pod).unwrap();
        all["metadata"] = metadata;
        if let Some(reason) = condition {
            let mut conditions = all["status"]["conditions"].as_array().cloned().unwrap_or_default();
            conditions.push(json!({"type": "DisruptionTarget", "status": "True", "reason": reason}));
            all["status"]["conditions"] = conditions.into();
        }
        serde_json::from_value::<Pod>(all).unwrap()
    };
    let running = pod(json!({}), json!({"nodeName": "n1"}), json!({"phase": "Running"}));
    let unheard = json!([{"type": "Ready", "status": "False", "reason": NODE_NOT_READY}]);
    let silent = pod(json!({}), json!({"nodeName": "n1"}), json!({"phase": "Running", "conditions": unheard}));
    let stopped = over(words("143 run x 1767225610\n", 143), Value::Null);
    let limited = over(words("143 run x 1767225610\n", 143), json!("DeadlineExceeded"));
    let well = over(words("0 run x 1767225610\n", 0), Value::Null);
    // Asked for at second 5, and at second 20: its own end was at 10.
    let before = json!({"deletionTimestamp": "2026-01-01T00:00:10Z", "deletionGracePeriodSeconds": 5});
    let after = json!({"deletionTimestamp": "2026-01-01T00:00:20Z", "deletionGracePeriodSeconds": 0});
    let cancelled = json!({"annotations": {CANCELLED: "true"}});
    for (pod, want) in [
        (with(&limited, cancelled.clone(), None), EndReason::Cancelled),
        (with(&well, cancelled, None), EndReason::Completed),
        (with(&stopped, before.clone(), None), EndReason::Cancelled),
        (with(&stopped, after.clone(), None), EndReason::Error),
        (with(&stopped, before.clone(), Some("EvictionByEvictionAPI")), EndReason::Preempted),
        (with(&stopped, before.clone(), Some("PreemptionByScheduler")), EndReason::Preempted),
        (with(&stopped, before.clone(), Some("DeletionByTaintManager")), EndReason::NodeFailure),
        (with(&silent, before.clone(), Some("DeletionByTaintManager")), EndReason::NodeFailure),
        (with(&running, before.clone(), Some("DeletionByPodGC")), EndReason::NodeFailure),
        (with(&well, before.clone(), Some("DeletionByTaintManager")), EndReason::Completed),
        (with(&stopped, after, Some("DeletionByPodGC")), EndReason::Error),
    ] {
        assert_eq!(ended(&pod).0, want, "{pod:?}");
    }
    // The last of these is on a node that is there: it may still write.
    for reason in [None, Some("EvictionByEvictionAPI"), Some("DeletionByTaintManager")] {
        assert_eq!(told_of(&[with(&running, before.clone(), reason)]).state, JobState::Finishing);
    }
    let unplaced = pod(before, json!({}), json!({"phase": "Pending"}));
    assert_eq!(ended(&unplaced).0, EndReason::Cancelled);
    let by_us = pod(json!({}), json!({}), json!({"phase": "Failed", "reason": "Cancelled"}));
    assert_eq!(ended(&by_us).0, EndReason::Cancelled);
}

#[test]
fn what_waits_says_why() {
    let full = json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
        "message": "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."}]});
    let report = told_of(&[pod(json!({}), json!({}), full)]);
    assert_eq!((report.state, report.native_state.as_str()), (JobState::Queued, "Unschedulable"));
    assert!(report.reason.contains("Insufficient nvidia.com/gpu"), "{}", report.reason);
    let pulling = json!({"phase": "Pending", "containerStatuses": [{"name": "job", "image": "i", "imageID": "", "ready": false,
        "restartCount": 0, "state": {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}}}]});
    let report = told_of(&[pod(json!({}), json!({"nodeName": "n1"}), pulling)]);
    assert_eq!(
        (report.state, report.native_state.as_str(), report.nodes.as_str()),
        (JobState::Queued, "ImagePullBackOff", "n1")
    );
    let paused = json!({"annotations": {PAUSED: "true"}});
    let state = |phase: &str| told_of(&[pod(paused.clone(), json!({"nodeName": "n1"}), json!({"phase": phase}))]).state;
    assert_eq!((state("Running"), state("Pending")), (JobState::Suspended, JobState::Queued));
    assert_eq!(told_of(&[]).state, JobState::Missing);
}

#[test]
fn an_array_is_as_far_as_the_least_of_its_tasks() {
    let task = |index: u32, phase: &str, gated: bool| {
        let gates = if gated { json!([{"name": TURN}]) } else { json!([]) };
        let metadata = json!({"labels": {TASK: index.to_string()}, "annotations": {TASKS: "0,2,3", AT_ONCE: "1"}});
        pod(metadata, json!({"nodeName": "n1", "schedulingGates": gates}), json!({"phase": phase}))
    };
    let report = told_of(&[task(0, "Failed", false), task(2, "Running", false), task(3, "Pending", true)]);
    assert_eq!(report.state, JobState::Running);
    assert_eq!(report.tasks.iter().map(|task| task.index).collect::<Vec<_>>(), [0, 2, 3]);
    let all = [task(0, "Failed", false), task(2, "Failed", false), task(3, "Pending", true)];
    assert_eq!(turns(&all).into_iter().map(task_of).collect::<Vec<_>>(), [Some(3)], "its turn has come");
    assert!(turns(&[task(0, "Running", false), task(2, "Pending", true)]).is_empty());
    let mut deleted = [task(0, "Pending", true), task(2, "Pending", false), task(3, "Pending", true)];
    for (pod, node) in deleted.iter_mut().take(2).zip([None, Some("n1")]) {
        pod.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
        pod.spec.as_mut().unwrap().node_name = node.map(str::to_owned);
    }
    assert!(turns(&deleted).is_empty(), "the second is still on its node");
    deleted[1].spec.as_mut().unwrap().node_name = None;
    assert_eq!(turns(&deleted).into_iter().map(task_of).collect::<Vec<_>>(), [Some(3)], "those that went take no turn");
    let report = told_of(&[task(0, "Running", false), task(2, "Running", false)]);
    assert_eq!(report.tasks[2].state, JobState::Ended(JobEnd::new(EndReason::Lost, None)), "somebody took it away");
}
