//! One pod's worker: looks, decides, acts, and reports, whenever anything about the pod changes.
//!
//! Long work runs beside it, one operation per container and one for the pod; the worker only ever waits for news.
//! Dropping a worker drops its operations: the next one learns everything from the runtime and the API.

mod devices;
mod look;
mod news;
mod ops;
mod start;

pub(crate) use look::lives;

use super::context::Context;
use super::lifecycle::{
    Action, Backoff, Busy, Decision, Memory, SandboxState, StatusContext, View, backoff::later, ending, next, status,
};
use super::pod;
use super::pods::{PodHandle, Slot};
use super::probe::{ProbeNews, Probes};
use super::status_sync::{self, Wish};
use crate::runtime::{ContainerInfo, SandboxInfo};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use ops::Done;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::AbortOnDropHandle;

/// Probe results that may wait for the worker.
const NEWS: usize = 16;

/// What was found of a pod when the agent started.
#[derive(Clone, Debug, Default)]
pub(crate) struct Found {
    pub(crate) sandbox: Option<SandboxInfo>,
    pub(crate) ips: Vec<IpAddr>,
}

/// See the [module](self).
pub(crate) struct Worker {
    context: Arc<Context>,
    handle: Arc<PodHandle>,
    uid: String,
    memory: Memory,
    containers: Vec<ContainerInfo>,
    sandbox: Option<SandboxInfo>,
    /// The sandbox is on the network.
    networked: bool,
    images: BTreeMap<String, Option<String>>,
    removing: BTreeSet<String>,
    /// The volumes may show what is old by now.
    stale: bool,
    /// They could not be brought up to date: when to try again, and how often they failed in a row.
    refresh_at: Option<Timestamp>,
    refresh_failures: u32,
    ops: JoinSet<Done>,
    /// Cancelled when the pod begins to end: waits inside operations are cut short.
    stop: CancellationToken,
    _stop: DropGuard,
    probes: Probes,
    news: mpsc::Receiver<ProbeNews>,
    wish: watch::Sender<Option<Wish>>,
    _writer: AbortOnDropHandle<()>,
    start_time: Timestamp,
    backoff: Backoff,
    /// For what must work in the end: setting up, configuration.
    retry: Backoff,
    runtime_failures: u32,
}

impl Worker {
    pub(crate) fn new(context: Arc<Context>, handle: Arc<PodHandle>, found: Found) -> Self {
        let pod = handle.pod();
        let (sender, news) = mpsc::channel(NEWS);
        let (wish, wishes) = watch::channel(None);
        let writer = tokio::spawn(status_sync::write(context.clone(), handle.clone(), wishes));
        let stop = CancellationToken::new();
        let backoff = context.config.backoff();
        let second = Duration::from_secs(1);
        let mut worker = Self {
            uid: pod::uid(&pod).to_owned(),
            memory: Memory { ips: found.ips, ..Memory::default() },
            containers: Vec::new(),
            networked: false,
            images: pod::containers(&pod).map(|(_, c)| (c.name.clone(), c.image.clone())).collect(),
            removing: BTreeSet::new(),
            stale: false,
            refresh_at: None,
            refresh_failures: 0,
            ops: JoinSet::new(),
            _stop: stop.clone().drop_guard(),
            stop,
            probes: Probes::new(context.clone(), sender),
            news,
            wish,
            _writer: AbortOnDropHandle::new(writer),
            start_time: context.clock.now(),
            backoff,
            retry: Backoff { base: backoff.base.min(second), max: backoff.max.min(second * 30), ..backoff },
            runtime_failures: 0,
            sandbox: found.sandbox,
            context,
            handle,
        };
        worker.adopt(&pod);
        worker
    }

    /// A sandbox that was found is set up again, which changes nothing where nothing is missing.
    fn adopt(&mut self, pod: &Arc<Pod>) {
        let alive = self.sandbox.as_ref().is_some_and(|sandbox| sandbox.ready);
        let wanted = pod::deletion(pod).is_none() && !pod::is_terminal(pod) && !self.handle.look().gone;
        if alive && wanted {
            self.memory.pod_busy = true;
            self.ops.spawn(ops::set_up(self.context.clone(), pod.clone(), self.stop.clone()));
        }
    }

    /// Works until the pod is gone from the API and from this machine.
    pub(crate) async fn run(mut self) {
        loop {
            let slot = self.handle.look();
            let wake = match self.look(&slot).await {
                Ok(()) => {
                    self.runtime_failures = 0;
                    let decision = self.decide(&slot);
                    if slot.gone && decision.actions.contains(&Action::Finish) {
                        return self.context.refs.release(&self.uid);
                    }
                    let doomed = decision.actions.iter().any(|action| matches!(action, Action::Doom { .. }));
                    for action in decision.actions {
                        self.act(action, &slot);
                    }
                    let later = self.refresh(&slot.pod);
                    self.report(&slot);
                    let wake = decision.wake.into_iter().chain(later).min();
                    if doomed { Some(Duration::ZERO) } else { wake.map(|at| self.until(at)) }
                }
                Err(error) => {
                    self.runtime_failures += 1;
                    self.handle.put_back(&slot);
                    tracing::warn!(pod = pod::key(&slot.pod), %error, "cannot look at the pod's containers");
                    Some(self.context.retry.delay(self.runtime_failures))
                }
            };
            self.wait(wake).await;
        }
    }

    fn until(&self, at: Timestamp) -> Duration {
        let wait = at.duration_since(self.context.clock.now());
        // A timer that fires a moment early must not spin.
        if wait.is_positive() { wait.unsigned_abs() } else { Duration::from_millis(1) }
    }

    fn view<'a>(&'a self, slot: &'a Slot) -> View<'a> {
        View {
            pod: &slot.pod,
            gone: slot.gone,
            sandbox: match &self.sandbox {
                Some(sandbox) if !sandbox.ready => SandboxState::Broken,
                Some(_) if self.networked || self.memory.pod_busy => SandboxState::Ready,
                _ => SandboxState::Absent,
            },
            containers: &self.containers,
            memory: &self.memory,
            backoff: &self.backoff,
            now: self.context.clock.now(),
        }
    }

    fn decide(&mut self, slot: &Slot) -> Decision {
        let view = self.view(slot);
        let (decision, ends) = (next(&view), ending(&view));
        if ends {
            self.stop.cancel();
        }
        decision
    }

    /// Begins what is to be done.
    fn act(&mut self, action: Action, slot: &Slot) {
        let (context, pod) = (self.context.clone(), slot.pod.clone());
        match action {
            Action::SetUp => {
                self.memory.pod_busy = true;
                self.ops.spawn(ops::set_up(context, pod, self.stop.clone()));
            }
            Action::Rebuild => {
                context.normal(&pod, "SandboxChanged", "Pod sandbox changed, it will be killed and re-created.");
                self.memory.pod_busy = true;
                self.ops.spawn(ops::rebuild(context, self.uid.clone()));
            }
            Action::Start { container, attempt, step } => {
                self.memory.busy.insert(container.clone(), Busy::Starting);
                let ips = self.memory.ips.clone();
                let plan = start::Plan { context, pod, container, attempt, step, ips, stop: self.stop.clone() };
                self.ops.spawn(plan.run());
            }
            Action::Stop { id, container, grace, why } => {
                let until = later(context.clock.now(), grace);
                let again = self.memory.busy.insert(container.clone(), Busy::Stopping(until)).is_some();
                if !again {
                    context.normal(&pod, "Killing", format!("Stopping container {container}: {why}"));
                }
                self.ops.spawn(ops::stop(context, pod, ops::Stop { id, container, grace, until, hook: !again }));
            }
            Action::Pause { id, container, pause } => {
                self.memory.busy.insert(container.clone(), Busy::Turning);
                self.ops.spawn(ops::pause(context, id, container, pause));
            }
            Action::Remove { id } => {
                if self.removing.insert(id.clone()) {
                    self.ops.spawn(ops::remove(context, id));
                }
            }
            Action::Release => {
                self.memory.pod_busy = true;
                self.ops.spawn(ops::release(context, self.uid.clone()));
            }
            Action::TearDown => {
                self.memory.pod_busy = true;
                self.ops.spawn(ops::tear_down(context, pod));
            }
            Action::Doom { reason, message } => {
                context.warning(&pod, reason, message.clone());
                self.memory.doom = Some((reason, message));
            }
            // Told with the status.
            Action::Finish => {}
        }
    }

    /// Brings the volumes up to date where they may not be, one try at a time, and while nothing else is done to them.
    /// Answers when to try again.
    fn refresh(&mut self, pod: &Arc<Pod>) -> Option<Timestamp> {
        let free = self.networked && !self.memory.pod_busy && !self.memory.refreshing && !self.stop.is_cancelled();
        // What is under way ends with news.
        if !self.stale || !free {
            return None;
        }
        if let Some(at) = self.refresh_at.filter(|at| *at > self.context.clock.now()) {
            return Some(at);
        }
        (self.stale, self.refresh_at, self.memory.refreshing) = (false, None, true);
        let ips = self.memory.ips.clone();
        self.ops.spawn(ops::refresh(self.context.clone(), pod.clone(), ips, self.stop.clone()));
        None
    }

    /// Says what is, and that the record may go once nothing is left.
    fn report(&mut self, slot: &Slot) {
        self.probe(slot);
        let context = StatusContext {
            scheme: self.context.scheme(),
            host_ips: self.context.config.addresses.clone(),
            start_time: self.start_time,
        };
        let view = self.view(slot);
        let delete = self.memory.torn_down && pod::deletion(&slot.pod).is_some();
        let wish = Some(Wish { status: status(&view, &context), delete });
        self.wish.send_if_modified(|current| {
            let new = !slot.gone && (*current != wish || pod::is_given_up(&slot.pod));
            if new {
                *current = wish;
            }
            new
        });
    }

    /// Waits until something happens, or for `wake`.
    async fn wait(&mut self, wake: Option<Duration>) {
        let alarm = async {
            match wake {
                Some(wait) => tokio::time::sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        let done = tokio::select! {
            biased;
            () = self.handle.wake.notified() => None,
            done = self.ops.join_next(), if !self.ops.is_empty() => done,
            Some(news) = self.news.recv() => {
                self.heed(news);
                None
            }
            () = alarm => None,
        };
        if let Some(done) = done {
            self.absorb(done);
        }
    }
}
