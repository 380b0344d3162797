//! What the records of a job's pods say of it. Pure.

use super::{AT_ONCE, CANCELLED, TASKS, TURN, task_of};
use crate::script::Left;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, Pod, PodCondition, PodStatus};
use minik8s_core::api::NODE_NOT_READY;
use minik8s_core::job::{EndReason, JobEnd, JobId, JobReport, JobState, TaskReport};
use minik8s_core::node::PAUSED;
use std::collections::BTreeSet;

/// What one pod says.
struct Look {
    task: Option<u32>,
    state: JobState,
    word: String,
    reason: String,
    node: String,
    started: Option<Timestamp>,
    ended: Option<Timestamp>,
    restarts: u32,
}

/// What has become of a job, as its pods say; of none, it is missing.
pub(super) fn report(id: &JobId, pods: &[Pod]) -> JobReport {
    let mut looks: Vec<Look> = pods.iter().map(look).collect();
    looks.extend(lost(pods));
    looks.sort_by_key(|look| look.task);
    let Some(telling) = telling(&looks) else { return JobReport::new(id, JobState::Missing) };
    let ended = telling.state.is_ended();
    let nodes: BTreeSet<&str> = looks.iter().map(|look| look.node.as_str()).filter(|node| !node.is_empty()).collect();
    JobReport {
        native_state: telling.word.clone(),
        reason: telling.reason.clone(),
        nodes: nodes.into_iter().collect::<Vec<_>>().join(","),
        started: looks.iter().filter_map(|look| look.started).min(),
        ended: looks.iter().filter_map(|look| look.ended).max().filter(|_| ended),
        restarts: looks.iter().map(|look| look.restarts).sum(),
        tasks: looks
            .iter()
            .filter_map(|look| Some(TaskReport { index: look.task?, state: look.state.clone() }))
            .collect(),
        ..JobReport::new(id, telling.state.clone())
    }
}

/// The least far of its tasks, or the first that did not end well.
fn telling(looks: &[Look]) -> Option<&Look> {
    let unfinished = [JobState::Running, JobState::Finishing, JobState::Suspended, JobState::Queued];
    let first = unfinished.into_iter().find_map(|state| looks.iter().find(|look| look.state == state));
    let good = |look: &&Look| matches!(&look.state, JobState::Ended(end) if end.reason == EndReason::Completed);
    first.or_else(|| looks.iter().find(|look| !good(look))).or_else(|| looks.first())
}

/// Tasks of an array whose pods somebody took away.
fn lost(pods: &[Pod]) -> Vec<Look> {
    let here: BTreeSet<Option<u32>> = pods.iter().map(task_of).collect();
    let gone = |index: &u32| !here.contains(&Some(*index));
    let ended = JobState::Ended(JobEnd::new(EndReason::Lost, None));
    let one = |task| Look {
        task: Some(task),
        state: ended.clone(),
        word: "Lost".into(),
        reason: String::new(),
        ..Look::none()
    };
    indices(pods).into_iter().filter(gone).map(one).collect()
}

/// The tasks of an array, as each of its pods says.
pub(super) fn indices(pods: &[Pod]) -> Vec<u32> {
    let said = pods.iter().find_map(|pod| annotation(pod, TASKS));
    said.map(|all| all.split(',').filter_map(|index| index.parse().ok()).collect()).unwrap_or_default()
}

/// Pods at the gate whose turn has come.
pub(super) fn turns(pods: &[Pod]) -> Vec<&Pod> {
    let Some(most) = pods.iter().find_map(|pod| annotation(pod, AT_ONCE)?.parse::<usize>().ok()) else {
        return Vec::new();
    };
    // What is told of a task counts, not its phase: that of one that was deleted never changes.
    let unfinished = pods.iter().filter(|pod| !look(pod).state.is_ended());
    let (mut waiting, busy): (Vec<&Pod>, Vec<&Pod>) = unfinished.partition(|pod| is_gated(pod));
    waiting.sort_by_key(|pod| task_of(pod));
    waiting.truncate(most.saturating_sub(busy.len()));
    waiting
}

fn is_gated(pod: &Pod) -> bool {
    let gates = pod.spec.iter().flat_map(|spec| spec.scheduling_gates.iter().flatten());
    gates.into_iter().any(|gate| gate.name == TURN)
}

/// True where nothing of it runs any more.
pub(super) fn is_over(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// True where its processes may write.
pub(super) fn is_running(pod: &Pod) -> bool {
    phase(pod) == "Running" && pod.metadata.deletion_timestamp.is_none()
}

/// True where its processes once began.
pub(super) fn has_started(pod: &Pod) -> bool {
    look(pod).started.is_some()
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

pub(super) fn node(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
}

fn annotation<'a>(pod: &'a Pod, name: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

fn is_set(pod: &Pod, name: &str) -> bool {
    annotation(pod, name) == Some("true")
}

fn condition<'a>(status: &'a PodStatus, kind: &str) -> Option<&'a PodCondition> {
    status.conditions.iter().flatten().find(|condition| condition.type_ == kind)
}

impl Look {
    fn none() -> Self {
        Self {
            task: None,
            state: JobState::Missing,
            word: String::new(),
            reason: String::new(),
            node: String::new(),
            started: None,
            ended: None,
            restarts: 0,
        }
    }
}

fn look(pod: &Pod) -> Look {
    let status = pod.status.clone().unwrap_or_default();
    let container = status.container_statuses.iter().flatten().find(|container| container.name == "job");
    let current = container.and_then(|container| container.state.clone()).unwrap_or_default();
    let ended = current.terminated.as_ref();
    let started = current.running.as_ref().and_then(|running| running.started_at.as_ref());
    let started = started.or(ended.and_then(|ended| ended.started_at.as_ref())).map(|time| time.0);
    let (state, word, reason) = told(pod, &status, &current);
    Look {
        task: task_of(pod),
        ended: ended.and_then(|ended| ended.finished_at.as_ref()).map(|time| time.0).filter(|_| state.is_ended()),
        state,
        word,
        reason,
        node: node(pod).to_owned(),
        started,
        restarts: container.map_or(0, |container| u32::try_from(container.restart_count).unwrap_or(0)),
    }
}

/// How far it is, the cluster's word for that, and why.
fn told(pod: &Pod, status: &PodStatus, current: &ContainerState) -> (JobState, String, String) {
    if let Some((end, why)) = end(pod, status, current.terminated.as_ref()) {
        let word = status.reason.clone().unwrap_or_else(|| phase(pod).to_owned());
        return (JobState::Ended(end), word, why);
    }
    let plain = |state, word: &str| (state, word.to_owned(), String::new());
    if pod.metadata.deletion_timestamp.is_some() {
        return plain(JobState::Finishing, "Terminating");
    }
    let held = is_set(pod, PAUSED);
    match phase(pod) {
        "Running" if is_set(pod, CANCELLED) => plain(JobState::Finishing, "Terminating"),
        "Running" if held => plain(JobState::Suspended, "Paused"),
        "Running" => plain(JobState::Running, "Running"),
        _ if held => (JobState::Queued, "Held".to_owned(), "held".to_owned()),
        _ => waits(pod, status, current),
    }
}

/// Why a pod does not run yet.
fn waits(pod: &Pod, status: &PodStatus, current: &ContainerState) -> (JobState, String, String) {
    if let Some(waiting) = &current.waiting {
        let word = waiting.reason.clone().unwrap_or_default();
        let why = waiting.message.clone().unwrap_or_else(|| word.clone());
        return (JobState::Queued, word, why);
    }
    let unplaced = condition(status, "PodScheduled").filter(|condition| condition.status == "False");
    match unplaced {
        _ if is_gated(pod) => (JobState::Queued, "Gated".to_owned(), "as many of its tasks as may run do".to_owned()),
        Some(why) => {
            let word = why.reason.clone().unwrap_or_else(|| "Pending".to_owned());
            (JobState::Queued, word, why.message.clone().unwrap_or_default())
        }
        None => (JobState::Queued, "Pending".to_owned(), String::new()),
    }
}

/// How it ended, and why; `None` where it has not. What its own processes did before somebody wanted the pod away counts.
fn end(pod: &Pod, status: &PodStatus, ended: Option<&ContainerStateTerminated>) -> Option<(JobEnd, String)> {
    let over = is_over(pod);
    let left = ended.and_then(|ended| Left::parse(ended.message.as_deref()?.lines().last()?));
    let by_itself = ended.and_then(|ended| ended.finished_at.as_ref()).is_some_and(|at| at.0 <= asked(pod));
    if let Some(left) = left.as_ref().filter(|left| over && (left.code == 0 || by_itself) && !was_stopped(status)) {
        return Some((left.end(), String::new()));
    }
    if let Some(disruption) = condition(status, "DisruptionTarget").filter(|condition| condition.status == "True") {
        let silent = condition(status, "Ready").is_some_and(|ready| ready.reason.as_deref() == Some(NODE_NOT_READY));
        return disrupted(disruption, over, silent);
    }
    let going = pod.metadata.deletion_timestamp.is_some();
    let none = |reason, why: &str| Some((JobEnd::new(reason, None), why.to_owned()));
    match status.reason.as_deref() {
        // Nobody else would take away a pod that has a node, or end one that has none.
        _ if going && (over || node(pod).is_empty()) && !by_itself => none(EndReason::Cancelled, "its pod was deleted"),
        _ if !over => None,
        Some("Cancelled") => none(EndReason::Cancelled, ""),
        Some("DeadlineExceeded") if is_set(pod, CANCELLED) => none(EndReason::Cancelled, ""),
        Some("DeadlineExceeded") => none(EndReason::Timeout, status.message.as_deref().unwrap_or_default()),
        Some("Evicted") => none(EndReason::DiskFull, status.message.as_deref().unwrap_or_default()),
        Some("NodeLost" | "Shutdown" | "Terminated") => none(EndReason::NodeFailure, ""),
        _ => Some(by_container(ended, left, status)),
    }
}

/// True where the agent ended it for a reason of the pod's.
fn was_stopped(status: &PodStatus) -> bool {
    matches!(status.reason.as_deref(), Some("DeadlineExceeded" | "Evicted"))
}

/// When somebody wanted it away; in the far future where nobody does.
fn asked(pod: &Pod) -> Timestamp {
    let grace = SignedDuration::from_secs(pod.metadata.deletion_grace_period_seconds.unwrap_or(0));
    pod.metadata.deletion_timestamp.as_ref().map_or(Timestamp::MAX, |at| at.0.saturating_sub(grace).unwrap_or(at.0))
}

/// Who is to blame where the pod had to go. A node that is silent may never say that it has ended; others do.
fn disrupted(by: &PodCondition, over: bool, silent: bool) -> Option<(JobEnd, String)> {
    let why = by.message.clone().unwrap_or_default();
    let reason = match by.reason.as_deref() {
        Some("DeletionByTaintManager") if over || silent => EndReason::NodeFailure,
        Some("DeletionByPodGC") => EndReason::NodeFailure,
        _ if over => EndReason::Preempted,
        _ => return None,
    };
    Some((JobEnd::new(reason, None), why))
}

/// What its container says.
fn by_container(ended: Option<&ContainerStateTerminated>, left: Option<Left>, status: &PodStatus) -> (JobEnd, String) {
    let Some(ended) = ended else {
        // It failed before there was a container.
        return (JobEnd::new(EndReason::LaunchError, None), status.message.clone().unwrap_or_default());
    };
    let said = ended.message.clone().unwrap_or_default();
    match ended.reason.as_deref() {
        Some("OOMKilled") => (JobEnd::new(EndReason::OutOfMemory, Some(ended.exit_code)), String::new()),
        Some("StartError") => (JobEnd::new(EndReason::LaunchError, None), said),
        // Its node has lost it: started anew, most likely.
        Some("ContainerStatusUnknown") => (JobEnd::new(EndReason::NodeFailure, None), said),
        _ => match left {
            Some(left) => (left.end(), String::new()),
            None => (JobEnd::new(EndReason::Error, Some(ended.exit_code)), String::new()),
        },
    }
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
