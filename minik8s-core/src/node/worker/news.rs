//! What a worker makes of news: results of its operations, verdicts of its probes.

use super::ops::Done;
use super::{Worker, start};
use crate::node::images::StartError;
use crate::node::lifecycle::{Backoff, Busy, Failure, backoff::later};
use crate::node::pod;
use crate::node::probe::{ProbeKind, ProbeNews};
use jiff::Timestamp;
use tokio::task::JoinError;

impl Worker {
    /// Takes in the result of an operation.
    pub(super) fn absorb(&mut self, done: Result<Done, JoinError>) {
        match done {
            Ok(Done::Started { container, result }) => {
                if self.memory.busy.get(&container) == Some(&Busy::Starting) {
                    self.memory.busy.remove(&container);
                }
                self.started(container, result);
            }
            Ok(Done::Stopped { container, until }) => {
                if self.memory.busy.get(&container) == Some(&Busy::Stopping(until)) {
                    self.memory.busy.remove(&container);
                }
            }
            Ok(Done::Turned { container, result }) => {
                if self.memory.busy.get(&container) == Some(&Busy::Turning) {
                    self.memory.busy.remove(&container);
                }
                self.turned(container, result);
            }
            Ok(Done::Removed { id }) => drop(self.removing.remove(&id)),
            Ok(Done::Refreshed(result)) => self.refreshed(result),
            Ok(done) => {
                self.memory.pod_busy = false;
                if let Err(error) = self.pod_done(done) {
                    self.setup_failed(error);
                }
            }
            Err(error) => {
                // Which one it was is lost with it; all of them can be begun again.
                tracing::error!(%error, "an operation on a pod broke off");
                self.stale |= self.memory.refreshing;
                (self.memory.pod_busy, self.memory.refreshing) = (false, false);
                self.memory.busy.clear();
                self.removing.clear();
            }
        }
    }

    /// Takes in the result of an operation on the pod as a whole.
    fn pod_done(&mut self, done: Done) -> Result<(), StartError> {
        match done {
            // It was cut short, and what it made is removed with the rest.
            Done::SetUp(Err(_)) if self.stop.is_cancelled() => {}
            Done::SetUp(result) => {
                let (sandbox, ips) = result?;
                (self.sandbox, self.memory.ips, self.networked) = (Some(sandbox), ips, true);
                self.memory.setup_failure = None;
            }
            Done::Rebuilt(result) => {
                result?;
                (self.sandbox, self.networked) = (None, false);
            }
            Done::Released(result) => {
                result?;
                (self.memory.released, self.networked) = (true, false);
            }
            Done::TornDown(result) => {
                result?;
                self.memory.torn_down = true;
                (self.sandbox, self.networked) = (None, false);
            }
            _ => {}
        }
        Ok(())
    }

    /// Takes in how bringing the volumes up to date went; what failed is tried again.
    fn refreshed(&mut self, result: Result<(), String>) {
        self.memory.refreshing = false;
        match result {
            Err(_) if self.stop.is_cancelled() => {}
            Err(error) => {
                self.context.warning(&self.handle.pod(), "FailedMount", error);
                self.stale = true;
                self.refresh_failures += 1;
                let wait = self.retry.failure(self.refresh_failures);
                self.refresh_at = Some(later(self.context.clock.now(), wait));
            }
            Ok(()) => self.refresh_failures = 0,
        }
    }

    fn setup_failed(&mut self, error: StartError) {
        let now = self.context.clock.now();
        let pod = self.handle.pod();
        tracing::info!(pod = pod::key(&pod), reason = error.reason, error = error.message, "pod operation failed");
        self.context.warning(&pod, error.reason, error.message.clone());
        let before = self.memory.setup_failure.as_ref().map_or(0, |failure| failure.count);
        self.memory.setup_failure = Some(failure(error, before + 1, now, &self.retry));
    }

    fn started(&mut self, container: String, result: Result<start::Started, start::NotStarted>) {
        let now = self.context.clock.now();
        match result {
            Ok(started) => {
                self.memory.failures.remove(&container);
                self.memory.images.insert(started.id, started.image_id);
            }
            Err(start::NotStarted::Cancelled) => {}
            Err(start::NotStarted::NoSandbox) => (self.sandbox, self.networked) = (None, false),
            Err(start::NotStarted::Error(error)) => {
                let before = self.memory.failures.get(&container).map_or(0, |failure| failure.count);
                let config = error.reason == "CreateContainerConfigError";
                let backoff = if config { &self.retry } else { &self.backoff };
                self.memory.failures.insert(container, failure(error, before + 1, now, backoff));
            }
        }
    }

    /// Takes in that a container was paused or resumed; what failed is tried again.
    fn turned(&mut self, container: String, result: Result<(), StartError>) {
        let Err(error) = result else { return drop(self.memory.failures.remove(&container)) };
        let before = self.memory.failures.get(&container).map_or(0, |failure| failure.count);
        self.context.warning(&self.handle.pod(), error.reason, error.message.clone());
        self.memory.failures.insert(container, failure(error, before + 1, self.context.clock.now(), &self.retry));
    }

    /// Takes in what a probe says.
    pub(super) fn heed(&mut self, news: ProbeNews) {
        let pod = self.handle.pod();
        let ProbeNews { id, container, kind, verdict, message } = news;
        if !message.is_empty() {
            let note = format!("{} probe failed for container {container}: {message}", kind.as_str());
            self.context.warning(&pod, "Unhealthy", note);
        }
        let health = self.memory.health.entry(id).or_default();
        match (kind, verdict) {
            (_, None) | (ProbeKind::Liveness, Some(true)) => {}
            (ProbeKind::Readiness, verdict) => health.ready = verdict,
            (ProbeKind::Startup, Some(true)) => health.startup = Some(true),
            (ProbeKind::Startup | ProbeKind::Liveness, Some(false)) => {
                let kind = kind.as_str().to_lowercase();
                health.unhealthy = Some(format!("it failed its {kind} probe, and will be restarted"));
            }
        }
    }
}

fn failure(error: StartError, count: u32, now: Timestamp, backoff: &Backoff) -> Failure {
    let retry_at = later(now, backoff.failure(count));
    Failure { reason: error.reason, message: error.message, count, at: now, retry_at }
}
