//! The end of a pod: main containers first, then sidecars from the last to the first, then everything else.

use super::backoff::later;
use super::seen::{Life, Seen};
use super::{Action, Busy, Decision, View};
use crate::node::pod::{self, Role};
use k8s_openapi::api::core::v1::Container;
use std::time::Duration;

/// Grace of pods whose record has vanished.
const GONE_GRACE: Duration = Duration::from_secs(2);
/// Why a pod, or part of it, could not be removed.
pub(crate) const FAILED_KILL: &str = "FailedKillPod";
/// A new request must shorten the grace by this much to be worth another signal.
const WORTH: Duration = Duration::from_millis(500);

pub(crate) fn end(view: &View<'_>, decision: &mut Decision) {
    let leaving = view.gone || pod::deletion(view.pod).is_some();
    if view.memory.torn_down {
        if leaving {
            decision.act(Action::Finish);
        }
        return;
    }
    // Containers do not wait for work on the pod that may hang.
    let stopping = stop_all(view, decision);
    if stopping || view.memory.pod_busy || !view.memory.busy.is_empty() || view.memory.refreshing {
        return;
    }
    let last = if leaving { Action::TearDown } else { Action::Release };
    if last == Action::Release && view.memory.released {
        return;
    }
    // What could not be set up is torn down at once.
    let failure = view.memory.setup_failure.as_ref().filter(|failure| failure.reason == FAILED_KILL);
    match failure {
        Some(failure) if failure.retry_at > view.now => decision.wake_at(failure.retry_at),
        _ => decision.act(last),
    }
}

/// Stops what runs, in order. True while something does.
fn stop_all(view: &View<'_>, decision: &mut Decision) -> bool {
    let why = reason(view);
    let mut stop = |container: &Container| stop(view, decision, container, &why);
    let early = pod::containers(view.pod).filter(|(role, _)| *role != Role::Sidecar);
    let mains = early.map(|(_, container)| stop(container)).fold(false, |any, one| any | one);
    if mains || starting(view) {
        return true;
    }
    let sidecars = pod::inits(view.pod).rev().filter(|c| pod::init_role(c) == Role::Sidecar);
    // Each waits for the one after it.
    sidecars.into_iter().any(stop)
}

fn starting(view: &View<'_>) -> bool {
    view.memory.busy.values().any(|busy| *busy == Busy::Starting)
}

/// Asks one container to stop, unless it was asked already. True while it runs.
fn stop(view: &View<'_>, decision: &mut Decision, container: &Container, why: &str) -> bool {
    let seen = Seen::of(view, &container.name);
    let (Some(info), Life::Running) = (seen.current, seen.life(view.now)) else { return false };
    let grace = grace(view);
    let asked = match view.memory.busy.get(&container.name) {
        None => false,
        Some(Busy::Stopping(until)) => later(later(view.now, grace), WORTH) >= *until,
        // It is being started, paused or resumed: that ends soon, and then it is stopped.
        Some(Busy::Starting | Busy::Turning) => true,
    };
    if !asked {
        let (id, container) = (info.id.clone(), container.name.clone());
        decision.act(Action::Stop { id, container, grace, why: why.to_owned() });
    }
    true
}

fn reason(view: &View<'_>) -> String {
    match &view.memory.doom {
        Some((_, message)) => message.clone(),
        None if view.gone => "the pod's record is gone".to_owned(),
        None if pod::deletion(view.pod).is_some() => "the pod is deleted".to_owned(),
        None => "the pod has ended".to_owned(),
    }
}

/// How long a process gets, counted from now.
fn grace(view: &View<'_>) -> Duration {
    let total = Duration::from_secs(pod::grace_seconds(view.pod));
    match pod::deletion(view.pod) {
        _ if view.gone => total.min(GONE_GRACE),
        // What is left of it: sidecars and restarted agents do not start anew.
        Some(at) => {
            let left = at.duration_since(view.now);
            let left = if left.is_negative() { Duration::ZERO } else { left.unsigned_abs() };
            left.max(Duration::from_secs(1)).min(total)
        }
        None => total,
    }
}
