//! What is told of functions and their revisions: pure.

use super::api::{Function, FunctionRevision, FunctionRevisionStatus, FunctionStatus};
use super::objects;
use super::plan::Plan;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use minik8s_core::controllers::conditions::{Wanted, settle};
use minik8s_core::controllers::is_ready;
use std::sync::Arc;

/// With this status ends who will not work however often it is started: its code is no good (`EX_DATAERR`).
pub(super) const HOPELESS: i32 = 65;
/// Reason of a condition: trying again would not help.
pub(super) const BROKEN: &str = "Broken";

/// Said of what waits for an image where nobody makes any.
const NO_BUILDER: &str = "nobody makes its image: the controllers run without the cluster's registry. Start them with the \
                          API server's data directory (minik8s-controller-manager --data-dir DIR)";

/// What of a revision's status is acted upon.
pub(super) struct State {
    /// What instances run, once it is built.
    pub(super) image: Option<String>,
    /// An instance was ready once.
    pub(super) proven: bool,
    /// It will never be.
    pub(super) failed: bool,
}

fn find<'a>(revision: &'a FunctionRevision, kind: &str) -> Option<&'a Condition> {
    revision.status.as_ref()?.conditions.iter().find(|c| c.type_ == kind)
}

/// Reads a revision's status.
pub(super) fn state(revision: &FunctionRevision) -> State {
    let template = &revision.spec.template;
    let built = revision.status.as_ref().map(|s| s.image.clone()).filter(|image| !image.is_empty());
    let image = if template.source.is_none() { Some(template.image.clone()) } else { built };
    let proven = find(revision, "Ready").is_some_and(|c| c.status == "True");
    let broken = |c: &Condition| c.status == "False" && c.reason == BROKEN;
    let failed = !proven && ["Ready", "Built"].iter().any(|kind| find(revision, kind).is_some_and(broken));
    State { image, proven, failed }
}

/// Why an instance does not come up, and the last words of its container.
struct Trouble {
    hopeless: bool,
    why: String,
    log: String,
}

fn trouble(pods: &[Arc<Pod>]) -> Option<Trouble> {
    let statuses = pods.iter().filter_map(|pod| pod.status.as_ref()?.container_statuses.as_ref());
    statuses.flatten().find_map(of_container)
}

fn of_container(status: &ContainerStatus) -> Option<Trouble> {
    let ended = |state: &Option<k8s_openapi::api::core::v1::ContainerState>| state.as_ref()?.terminated.clone();
    let ended: Option<ContainerStateTerminated> = ended(&status.state).or_else(|| ended(&status.last_state));
    if let Some(ended) = ended.filter(|ended| ended.exit_code != 0 || status.restart_count > 0) {
        let why = match (ended.reason.as_deref(), ended.exit_code) {
            (Some("OOMKilled"), _) => "the instance used more memory than it may".to_owned(),
            (_, HOPELESS) => "the code cannot be loaded".to_owned(),
            (_, code) => format!("the instance ended with status {code} instead of serving"),
        };
        return Some(Trouble { hopeless: ended.exit_code == HOPELESS, why, log: ended.message.unwrap_or_default() });
    }
    let waiting = status.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref().unwrap_or_default();
    let normal = matches!(reason, "" | "ContainerCreating" | "PodInitializing");
    let message = waiting.message.clone().unwrap_or_default();
    (!normal).then(|| Trouble { hopeless: false, why: format!("{reason}: {message}"), log: String::new() })
}

/// What is to be told of a revision; `None` where that is told already.
pub(super) fn of_revision(
    revision: &FunctionRevision,
    pods: &[Arc<Pod>],
    builds: bool,
    now: Timestamp,
) -> Option<FunctionRevisionStatus> {
    let before = revision.status.clone().unwrap_or_default();
    let state = state(revision);
    let ready = pods.iter().filter(|pod| is_ready(pod)).count();
    let mut told = before.clone();
    (told.instances, told.ready) = (number(pods.len()), number(ready));
    let built = find(revision, "Built").cloned();
    let wanted = match (state.proven || ready > 0, trouble(pods)) {
        (true, _) => Wanted::yes("Ready", "Started", "an instance has been ready"),
        (false, _) if state.failed => return (told != before).then_some(told),
        (false, Some(trouble)) => {
            told.log = trouble.log;
            Wanted::no("Ready", if trouble.hopeless { BROKEN } else { "NotStarted" }, trouble.why)
        }
        (false, None) if state.image.is_none() && !builds => Wanted::no("Ready", "NoBuilder", NO_BUILDER),
        (false, None) if state.image.is_none() => Wanted::no("Ready", "Building", "its image is being made"),
        (false, None) => Wanted::no("Ready", "Starting", "its first instance is being started"),
    };
    if wanted.holds {
        told.log = String::new();
    }
    told.conditions = settle(&before.conditions, vec![wanted], revision.metadata.generation.unwrap_or(0), now);
    told.conditions.extend(built);
    (told != before).then_some(told)
}

/// What is known of a function beside its newest revision.
pub(super) struct Seen<'a> {
    pub(super) plan: &'a Plan,
    /// What stands in its way.
    pub(super) stranger: Option<&'a str>,
}

/// What is to be told of a function; `None` where that is told already.
pub(super) fn of_function(
    function: &Function,
    newest: Option<&FunctionRevision>,
    Seen { plan, stranger }: &Seen<'_>,
    (instances, ready): (i32, i32),
    now: Timestamp,
) -> Option<FunctionStatus> {
    let before = function.status.clone().unwrap_or_default();
    let generation = function.metadata.generation.unwrap_or(0);
    let name = newest.and_then(|r| r.metadata.name.clone()).unwrap_or_default();
    let state = newest.map(state);
    let trouble = newest.and_then(|r| {
        let all = ["Built", "Ready"].into_iter().filter_map(|kind| find(r, kind));
        all.filter(|c| c.status == "False").map(|c| c.message.clone()).next()
    });
    let wanted = match state {
        _ if stranger.is_some() => {
            let what = stranger.unwrap_or_default();
            Wanted::no("Ready", "NameTaken", format!("{what} is not the function's: delete it, or name one otherwise"))
        }
        Some(state) if state.failed => {
            Wanted::no("Ready", "Failed", format!("revision {name}: {}", trouble.unwrap_or_default()))
        }
        Some(state) if state.proven && plan.settled => {
            Wanted::yes("Ready", "Serving", format!("calls reach revision {name}"))
        }
        Some(state) if state.proven => {
            Wanted::no("Ready", "Draining", "instances of revisions before it have not ended yet")
        }
        _ => Wanted::no("Ready", "Starting", format!("revision {name}: {}", trouble.unwrap_or_default())),
    };
    let told = FunctionStatus {
        observed_generation: generation,
        conditions: settle(&before.conditions, vec![wanted], generation, now),
        revision: name,
        traffic: plan.traffic.clone(),
        instances,
        ready,
        url: objects::url(function),
        log: newest.and_then(|r| r.status.as_ref()).map(|s| s.log.clone()).unwrap_or_default(),
    };
    (told != before).then_some(told)
}

fn number(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}
