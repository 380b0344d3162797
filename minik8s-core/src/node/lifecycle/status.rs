//! The status the API shows of a pod: what is seen, in the API's words.

use super::backoff::{from_millis, later};
use super::decide::{ending, failure_turns, mains_exist, outcome, restarts, started};
use super::seen::{Life, Seen, UNKNOWN_EXIT};
use super::{Busy, SandboxState, View};
use crate::node::ids;
use crate::node::pod::{self, Role};
use crate::node::spec::qos_class;
use crate::runtime::{ContainerInfo, ContainerState as RuntimeState};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    HostIP, PodCondition, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::net::IpAddr;

/// What the status says beside what is seen of the pod.
#[derive(Clone, Debug, Default)]
pub(crate) struct StatusContext {
    /// `containerd` in `containerd://<id>`.
    pub(crate) scheme: String,
    pub(crate) host_ips: Vec<IpAddr>,
    /// When the agent took the pod on.
    pub(crate) start_time: Timestamp,
}

/// The whole status.
pub(crate) fn status(view: &View<'_>, context: &StatusContext) -> PodStatus {
    let recorded = pod::status(view.pod);
    let maker = Maker { view, context, inits_done: inits_done(view) };
    let inits: Vec<ContainerStatus> = pod::inits(view.pod).map(|c| maker.container(pod::init_role(c), c)).collect();
    let mains: Vec<ContainerStatus> = pod::mains(view.pod).map(|c| maker.container(Role::Main, c)).collect();
    let phase = phase(view, &mains, maker.inits_done);
    let conditions = maker.conditions(&inits, &mains, phase);
    let ips: Vec<String> = view.memory.ips.iter().map(ToString::to_string).collect();
    let pod_ips = if ips.is_empty() {
        recorded.pod_ips.clone()
    } else {
        Some(ips.iter().map(|ip| PodIP { ip: ip.clone() }).collect())
    };
    let host: Vec<String> = context.host_ips.iter().map(ToString::to_string).collect();
    let doom = view.memory.doom.as_ref();
    PodStatus {
        phase: Some(phase.to_owned()),
        conditions: Some(conditions),
        container_statuses: (!mains.is_empty()).then_some(mains),
        init_container_statuses: (!inits.is_empty()).then_some(inits),
        host_ip: host.first().cloned(),
        host_ips: (!host.is_empty()).then(|| host.into_iter().map(|ip| HostIP { ip }).collect()),
        pod_ip: ips.into_iter().next().or_else(|| recorded.pod_ip.clone()),
        pod_ips,
        start_time: recorded.start_time.clone().or(Some(time(context.start_time))),
        qos_class: recorded.qos_class.clone().or_else(|| Some(qos_class(view.pod).as_str().to_owned())),
        reason: doom.map(|(reason, _)| (*reason).to_owned()).or_else(|| recorded.reason.clone()),
        message: doom.map(|(_, message)| message.clone()).or_else(|| recorded.message.clone()),
        ..recorded.clone()
    }
}

/// Whole seconds, as the API keeps times.
pub(crate) fn time(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

fn inits_done(view: &View<'_>) -> bool {
    mains_exist(view)
        || pod::inits(view.pod).all(|container| {
            let life = Seen::of(view, &container.name).life(view.now);
            match pod::init_role(container) {
                Role::Sidecar => life == Life::Running && started(view, container),
                _ => matches!(life, Life::Ended { code: 0, .. }),
            }
        })
}

fn phase(view: &View<'_>, mains: &[ContainerStatus], inits_done: bool) -> &'static str {
    let running = view.containers.iter().any(|c| c.state == RuntimeState::Running);
    let busy = !view.memory.busy.is_empty();
    match outcome(view) {
        Some(good) if pod::is_terminal(view.pod) || view.memory.doom.is_some() || !(running || busy) => {
            return if good { "Succeeded" } else { "Failed" };
        }
        _ => {}
    }
    let state = |status: &ContainerStatus| status.state.clone().unwrap_or_default();
    if ending(view) && !running && !busy && mains.iter().all(|c| state(c).terminated.is_some()) {
        let good = mains.iter().all(|c| state(c).terminated.is_some_and(|t| t.exit_code == 0));
        return if good { "Succeeded" } else { "Failed" };
    }
    let never_lived = |status: &ContainerStatus| {
        state(status).waiting.is_some() && status.last_state.as_ref().is_none_or(|last| last.terminated.is_none())
    };
    if !inits_done || mains.iter().any(never_lived) { "Pending" } else { "Running" }
}

struct Maker<'v, 'a> {
    view: &'v View<'a>,
    context: &'v StatusContext,
    inits_done: bool,
}

impl Maker<'_, '_> {
    fn container(&self, role: Role, container: &Container) -> ContainerStatus {
        let seen = Seen::of(self.view, &container.name);
        let life = seen.life(self.view.now);
        let ended = seen.current.and_then(|info| self.ended(info));
        let waiting = self.waiting(role, container, &seen, life);
        let past = seen.recorded.and_then(|r| r.state.as_ref()).and_then(|s| s.terminated.clone());
        let ended_now = ended.clone().or_else(|| self.past(life, past));
        let earlier = seen.previous.and_then(|info| self.ended(info));
        let kept = seen.recorded.and_then(|r| r.last_state.as_ref()).and_then(|s| s.terminated.clone());
        let last = if waiting.is_some() { ended_now.clone().or(earlier) } else { earlier }.or(kept);
        let running = (life == Life::Running)
            .then(|| ContainerStateRunning { started_at: seen.current.map(|info| time(from_millis(info.started_at))) });
        let terminated = if waiting.is_none() && running.is_none() { ended_now } else { None };
        let started = running.is_some() && role != Role::Init && started(self.view, container);
        let ready = match role {
            Role::Init => terminated.as_ref().is_some_and(|t| t.exit_code == 0),
            _ if pod::is_to_pause(self.view.pod) || seen.current.is_some_and(|info| info.paused) => false,
            _ => started && self.passes(container, &seen),
        };
        ContainerStatus {
            name: container.name.clone(),
            image: container.image.clone().unwrap_or_default(),
            image_id: seen.current.map_or_else(
                || seen.recorded.map_or(String::new(), |r| r.image_id.clone()),
                |info| self.image_id(info),
            ),
            container_id: seen
                .current
                .map(|info| self.id(info))
                .or_else(|| seen.recorded.and_then(|r| r.container_id.clone())),
            restart_count: i32::try_from(seen.restarts()).unwrap_or(i32::MAX),
            ready,
            started: Some(started),
            state: Some(ContainerState { running, terminated, waiting }),
            last_state: Some(ContainerState { terminated: last, ..ContainerState::default() }),
            ..ContainerStatus::default()
        }
    }

    fn id(&self, info: &ContainerInfo) -> String {
        format!("{}://{}", self.context.scheme, info.id)
    }

    fn image_id(&self, info: &ContainerInfo) -> String {
        self.view.memory.images.get(&info.id).unwrap_or(&info.image_id).clone()
    }

    /// Its readiness probe, if any, says so.
    fn passes(&self, container: &Container, seen: &Seen<'_>) -> bool {
        let health = seen.current.and_then(|info| self.view.memory.health.get(&info.id));
        container.readiness_probe.is_none() || health.is_some_and(|health| health.ready == Some(true))
    }

    /// Why it neither runs nor has ended, or is about to run again.
    fn waiting(&self, role: Role, container: &Container, seen: &Seen<'_>, life: Life) -> Option<ContainerStateWaiting> {
        let view = self.view;
        let failure = view.memory.failures.get(&container.name).filter(|_| !ending(view));
        let failed = failure.map(|failure| {
            let backing_off = failure.reason == "ErrImagePull" && view.now >= failure_turns(failure);
            let image = container.image.as_deref().unwrap_or_default();
            if backing_off {
                waiting("ImagePullBackOff", format!("Back-off pulling image \"{image}\": {}", failure.message))
            } else {
                waiting(failure.reason, failure.message.clone())
            }
        });
        match life {
            Life::Running => None,
            Life::Ended { code, started, finished, step } => {
                if ending(view) || !restarts(view, role, code) {
                    return None;
                }
                if view.memory.busy.get(&container.name) == Some(&Busy::Starting) {
                    return failed;
                }
                let wait = view.backoff.restart(view.backoff.effective_step(step, started, finished));
                let crash_loop = || {
                    let (pod, uid) = (pod::key(view.pod).replace('/', "_"), pod::uid(view.pod));
                    let name = &container.name;
                    let text = format!("back-off {wait:?} restarting failed container={name} pod={pod}({uid})");
                    waiting("CrashLoopBackOff", text)
                };
                match failed {
                    Some(failed) if failed.reason.as_deref() != Some("RunContainerError") => Some(failed),
                    Some(_) => Some(crash_loop()),
                    None => (later(finished, wait) > view.now).then(crash_loop),
                }
            }
            Life::None | Life::Created => failed.or_else(|| {
                let initialising =
                    role == Role::Main && !self.inits_done && seen.recorded.is_none_or(|r| r.restart_count == 0);
                let has_inits = pod::inits(view.pod).next().is_some();
                let reason = if has_inits && (initialising || role != Role::Main) {
                    "PodInitializing"
                } else {
                    "ContainerCreating"
                };
                Some(ContainerStateWaiting { reason: Some(reason.to_owned()), message: None })
            }),
        }
    }

    fn ended(&self, info: &ContainerInfo) -> Option<ContainerStateTerminated> {
        let RuntimeState::Exited(exit) = &info.state else { return None };
        let reason = match exit.code {
            _ if exit.oom_killed => "OOMKilled",
            _ if info.started_at == 0 => "StartError",
            0 => "Completed",
            _ => "Error",
        };
        Some(ContainerStateTerminated {
            exit_code: exit.code,
            reason: Some(reason.to_owned()),
            message: self.view.memory.last_words.get(&info.id).cloned().or_else(|| self.start_error(info)),
            // What never ran has no such time.
            started_at: (info.started_at > 0).then(|| time(from_millis(info.started_at))),
            finished_at: Some(time(from_millis(exit.finished_at))),
            container_id: Some(self.id(info)),
            ..ContainerStateTerminated::default()
        })
    }

    /// Why a container never ran, as the runtime said when it was tried.
    fn start_error(&self, info: &ContainerInfo) -> Option<String> {
        let name = info.labels.get(ids::CONTAINER_NAME)?;
        let failure = self.view.memory.failures.get(name).filter(|_| info.started_at == 0)?;
        Some(failure.message.clone())
    }

    /// The end of a life the runtime knows nothing of any more.
    fn past(&self, life: Life, recorded: Option<ContainerStateTerminated>) -> Option<ContainerStateTerminated> {
        let Life::Ended { finished, .. } = life else { return None };
        recorded.or_else(|| {
            Some(ContainerStateTerminated {
                exit_code: UNKNOWN_EXIT,
                reason: Some("ContainerStatusUnknown".to_owned()),
                message: Some("The container could not be located when the pod was looked at".to_owned()),
                finished_at: Some(time(finished)),
                ..ContainerStateTerminated::default()
            })
        })
    }

    fn conditions(&self, inits: &[ContainerStatus], mains: &[ContainerStatus], phase: &str) -> Vec<PodCondition> {
        let view = self.view;
        let done = phase == "Succeeded";
        let unready: Vec<&str> =
            sidecars(view, inits).chain(mains).filter(|c| !c.ready).map(|c| c.name.as_str()).collect();
        let incomplete: Vec<&str> = inits.iter().filter(|c| !c.ready).map(|c| c.name.as_str()).collect();
        let containers_ready = match phase {
            "Succeeded" => Verdict::no("PodCompleted", String::new()),
            "Failed" => Verdict::no("PodFailed", String::new()),
            _ if unready.is_empty() => Verdict::YES,
            _ => Verdict::no("ContainersNotReady", format!("containers with unready status: [{}]", unready.join(" "))),
        };
        let initialized = if self.inits_done || done {
            if done { Verdict { yes: true, reason: "PodCompleted", message: String::new() } } else { Verdict::YES }
        } else {
            let text = format!("containers with incomplete status: [{}]", incomplete.join(" "));
            Verdict::no("ContainersNotInitialized", text)
        };
        let has_sandbox = view.sandbox == SandboxState::Ready && !view.memory.torn_down && !view.memory.released;
        let sandbox = if has_sandbox { Verdict::YES } else { Verdict::no("", String::new()) };
        let ready = if containers_ready.yes { gates(view) } else { containers_ready.clone() };
        vec![
            self.condition("PodScheduled", Verdict::YES),
            self.condition("PodReadyToStartContainers", sandbox),
            self.condition("Initialized", initialized),
            self.condition("ContainersReady", containers_ready),
            self.condition("Ready", ready),
        ]
    }

    /// A condition keeps its time of transition while its status stays the same.
    fn condition(&self, kind: &str, verdict: Verdict) -> PodCondition {
        let recorded = pod::status(self.view.pod).conditions.iter().flatten().find(|c| c.type_ == kind);
        let status = if verdict.yes { "True" } else { "False" };
        let since = recorded.filter(|c| c.status == status).and_then(|c| c.last_transition_time.clone());
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        PodCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: text(verdict.reason),
            message: text(&verdict.message),
            last_transition_time: since.or_else(|| Some(time(self.view.now))),
            ..PodCondition::default()
        }
    }
}

#[derive(Clone)]
struct Verdict {
    yes: bool,
    reason: &'static str,
    message: String,
}

impl Verdict {
    const YES: Self = Self { yes: true, reason: "", message: String::new() };

    fn no(reason: &'static str, message: String) -> Self {
        Self { yes: false, reason, message }
    }
}

fn sidecars<'s>(view: &View<'_>, inits: &'s [ContainerStatus]) -> impl Iterator<Item = &'s ContainerStatus> {
    let names: Vec<String> =
        pod::inits(view.pod).filter(|c| pod::init_role(c) == Role::Sidecar).map(|c| c.name.clone()).collect();
    inits.iter().filter(move |status| names.contains(&status.name))
}

/// What others must say before the pod counts as ready.
fn gates(view: &View<'_>) -> Verdict {
    let conditions = pod::status(view.pod).conditions.as_deref().unwrap_or_default();
    let mut open = Vec::new();
    for gate in pod::spec(view.pod).readiness_gates.iter().flatten() {
        let kind = &gate.condition_type;
        match conditions.iter().find(|c| c.type_ == *kind) {
            Some(condition) if condition.status == "True" => {}
            Some(condition) => open
                .push(format!("the status of pod readiness gate \"{kind}\" is not \"True\", but {}", condition.status)),
            None => open.push(format!("corresponding condition of pod readiness gate \"{kind}\" does not exist.")),
        }
    }
    if open.is_empty() { Verdict::YES } else { Verdict::no("ReadinessGatesNotReady", open.join(", ")) }
}

fn waiting(reason: &str, message: String) -> ContainerStateWaiting {
    ContainerStateWaiting { reason: Some(reason.to_owned()), message: Some(message) }
}
