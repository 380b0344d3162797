//! The decision: which actions bring a pod closer to what its record asks for.

use super::backoff::later;
use super::end::end;
use super::seen::{Life, Seen};
use super::{Action, Decision, SandboxState, View};
use crate::node::ids;
use crate::node::pod::{self, RestartPolicy, Role};
use crate::node::spec::forbidden_sysctl;
use crate::runtime::ContainerInfo;
use k8s_openapi::api::core::v1::Container;
use std::time::Duration;

/// What to do next. Nothing to do is an empty list.
pub(crate) fn next(view: &View<'_>) -> Decision {
    let mut decision = Decision::default();
    if ending(view) {
        end(view, &mut decision);
    } else if let Some(message) = view.memory.evicted.clone() {
        decision.act(Action::Doom { reason: "Evicted", message });
    } else if let Some(message) = forbidden_sysctl(view.pod) {
        decision.act(Action::Doom { reason: "SysctlForbidden", message });
    } else if !deadline(view, &mut decision) {
        run(view, &mut decision);
    }
    decision
}

/// The pod's processes are to end, for one reason or another.
pub(crate) fn ending(view: &View<'_>) -> bool {
    view.gone || pod::deletion(view.pod).is_some() || outcome(view).is_some()
}

/// Whether the pod has come to its end, and a good one.
pub(crate) fn outcome(view: &View<'_>) -> Option<bool> {
    if view.memory.doom.is_some() {
        return Some(false);
    }
    if pod::is_terminal(view.pod) {
        return Some(pod::status(view.pod).phase.as_deref() == Some("Succeeded"));
    }
    if init_failed(view) {
        return Some(false);
    }
    let mut good = true;
    let mut any = false;
    for container in pod::mains(view.pod) {
        any = true;
        match Seen::of(view, &container.name).life(view.now) {
            Life::Ended { code, .. } if !restarts(view, Role::Main, code) => good &= code == 0,
            _ => return None,
        }
    }
    any.then_some(good)
}

fn init_failed(view: &View<'_>) -> bool {
    !mains_exist(view)
        && RestartPolicy::of(view.pod) == RestartPolicy::Never
        && pod::inits(view.pod)
            .filter(|c| pod::init_role(c) == Role::Init)
            .any(|c| matches!(Seen::of(view, &c.name).life(view.now), Life::Ended { code, .. } if code != 0))
}

/// A main container exists: the init containers of this sandbox have done their work.
pub(crate) fn mains_exist(view: &View<'_>) -> bool {
    view.containers.iter().any(|info| pod::mains(view.pod).any(|c| c.name == ids::name(info)))
}

pub(crate) fn restarts(view: &View<'_>, role: Role, code: i32) -> bool {
    let policy = RestartPolicy::of(view.pod);
    match role {
        Role::Main => policy.restarts(code),
        Role::Sidecar => true,
        Role::Init => policy != RestartPolicy::Never && code != 0,
    }
}

/// True where the pod has run out of its time.
fn deadline(view: &View<'_>, decision: &mut Decision) -> bool {
    let seconds = pod::spec(view.pod).active_deadline_seconds.and_then(|s| u64::try_from(s).ok());
    let start = pod::status(view.pod).start_time.as_ref().map(|t| t.0);
    let (Some(seconds), Some(start)) = (seconds, start) else { return false };
    let end = later(start, Duration::from_secs(seconds));
    if end > view.now {
        decision.wake_at(end);
        return false;
    }
    let message = "Pod was active on the node longer than the specified deadline".to_owned();
    decision.act(Action::Doom { reason: "DeadlineExceeded", message });
    true
}

fn run(view: &View<'_>, decision: &mut Decision) {
    if view.memory.pod_busy {
        return;
    }
    let mut plan = Plan { view, decision: Decision::default(), waits: false };
    if plan.inits() {
        for container in pod::mains(view.pod) {
            plan.supervise(Role::Main, container);
        }
    }
    let Plan { decision: planned, waits, .. } = plan;
    let starts = waits || planned.actions.iter().any(|action| matches!(action, Action::Start { .. }));
    if !starts || view.sandbox == SandboxState::Ready {
        *decision = merged(std::mem::take(decision), planned);
        return;
    }
    let retry_at = view.memory.setup_failure.as_ref().map(|failure| failure.retry_at);
    match retry_at {
        Some(at) if at > view.now => decision.wake_at(at),
        _ if !view.memory.busy.is_empty() || view.memory.refreshing => {}
        _ if view.sandbox == SandboxState::Broken && !view.containers.is_empty() => decision.act(Action::Rebuild),
        _ => decision.act(Action::SetUp),
    }
}

fn merged(mut a: Decision, b: Decision) -> Decision {
    a.actions.extend(b.actions);
    if let Some(at) = b.wake {
        a.wake_at(at);
    }
    a
}

struct Plan<'v, 'a> {
    view: &'v View<'a>,
    decision: Decision,
    /// Something waits for its back-off: the sandbox is needed.
    waits: bool,
}

impl Plan<'_, '_> {
    /// Init containers and sidecars. True once the main containers may start.
    fn inits(&mut self) -> bool {
        let past = mains_exist(self.view);
        for container in pod::inits(self.view.pod) {
            let role = pod::init_role(container);
            let seen = Seen::of(self.view, &container.name);
            let life = seen.life(self.view.now);
            match role {
                // Only the runtime's word counts: a new sandbox runs them again.
                Role::Init if past || (seen.current.is_some() && matches!(life, Life::Ended { code: 0, .. })) => {
                    self.clean(&seen);
                    continue;
                }
                _ => self.supervise(role, container),
            }
            let through = role == Role::Sidecar && life == Life::Running && started(self.view, container);
            if !past && !through {
                return false;
            }
        }
        true
    }

    /// One container that should live.
    fn supervise(&mut self, role: Role, container: &Container) {
        let view = self.view;
        let seen = Seen::of(view, &container.name);
        if view.memory.busy.contains_key(&container.name) {
            return;
        }
        self.clean(&seen);
        let step = match seen.life(view.now) {
            Life::Running => return self.check(container, &seen),
            Life::None => 0,
            // An agent died between making and starting it: go on. But where starting failed, a new life is needed.
            Life::Created if !view.memory.failures.contains_key(&container.name) => {
                let info = seen.current.map(|info| (ids::attempt(info), ids::backoff_step(info)));
                let (attempt, step) = info.unwrap_or_default();
                return self.start(container, attempt, step);
            }
            Life::Created => seen.current.map_or(0, ids::backoff_step) + 1,
            // An init container the runtime has lost runs again, whatever its record says.
            Life::Ended { .. } if role == Role::Init && seen.current.is_none() => 0,
            Life::Ended { code, .. } if !restarts(view, role, code) => return,
            Life::Ended { started, finished, step, .. } => {
                let step = view.backoff.effective_step(step, started, finished);
                let at = later(finished, view.backoff.restart(step));
                if at > view.now {
                    self.waits = true;
                    return self.decision.wake_at(at);
                }
                step + 1
            }
        };
        if let Some(failure) = view.memory.failures.get(&container.name)
            && failure.retry_at > view.now
        {
            self.waits = true;
            if failure_turns(failure) > view.now {
                self.decision.wake_at(failure_turns(failure));
            }
            return self.decision.wake_at(failure.retry_at);
        }
        self.start(container, seen.next_attempt(), step);
    }

    fn start(&mut self, container: &Container, attempt: u32, step: u32) {
        self.decision.act(Action::Start { container: container.name.clone(), attempt, step });
    }

    /// A running container: is it what it should be, and well?
    fn check(&mut self, container: &Container, seen: &Seen<'_>) {
        let Some(info) = seen.current else { return };
        let unhealthy = self.view.memory.health.get(&info.id).and_then(|health| health.unhealthy.clone());
        let changed = info.labels.get(ids::IMAGE).is_some_and(|image| Some(image) != container.image.as_ref());
        let why = match unhealthy {
            Some(why) => why,
            None if changed => format!("Container {} definition changed, will be restarted", container.name),
            None => return self.pause(container, info),
        };
        let grace = probe_grace(container).unwrap_or_else(|| pod::grace_seconds(self.view.pod));
        self.decision.act(Action::Stop {
            id: info.id.clone(),
            container: container.name.clone(),
            grace: Duration::from_secs(grace),
            why,
        });
    }

    /// Is it to stand still?
    fn pause(&mut self, container: &Container, info: &ContainerInfo) {
        let pause = pod::is_to_pause(self.view.pod);
        let failing = self.view.memory.failures.get(&container.name).filter(|failure| failure.retry_at > self.view.now);
        match failing {
            _ if pause == info.paused => {}
            Some(failure) => self.decision.wake_at(failure.retry_at),
            None => self.decision.act(Action::Pause { id: info.id.clone(), container: container.name.clone(), pause }),
        }
    }

    fn clean(&mut self, seen: &Seen<'_>) {
        for life in &seen.stale {
            self.decision.act(Action::Remove { id: life.id.clone() });
        }
    }
}

/// When a fresh failure begins to be called a back-off.
pub(crate) fn failure_turns(failure: &super::Failure) -> jiff::Timestamp {
    let wait = failure.retry_at.duration_since(failure.at).unsigned_abs();
    later(failure.at, Duration::from_secs(2).min(wait / 2))
}

fn probe_grace(container: &Container) -> Option<u64> {
    let probes = [&container.liveness_probe, &container.startup_probe];
    let seconds = probes.into_iter().flatten().find_map(|probe| probe.termination_grace_period_seconds)?;
    u64::try_from(seconds).ok()
}

/// Its startup probe, if any, has passed.
pub(crate) fn started(view: &View<'_>, container: &Container) -> bool {
    if container.startup_probe.is_none() {
        return true;
    }
    let current = Seen::of(view, &container.name).current;
    current.and_then(|info| view.memory.health.get(&info.id)).is_some_and(|health| health.startup == Some(true))
}
