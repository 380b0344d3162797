//! Probes: a task per probe of a running container, on its own timer, that tells the worker when the verdict changes.

mod action;
mod grpc;
mod http;
mod tls;

pub(crate) use action::{Place, exec, http_get, run, tcp};

use super::context::Context;
use super::lifecycle::backoff::later;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Probe};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// Wait before the second look at a container that has just started.
const SOON: Duration = Duration::from_millis(10);

/// What a probe is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ProbeKind {
    Startup,
    Readiness,
    Liveness,
}

impl ProbeKind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Readiness => "Readiness",
            Self::Liveness => "Liveness",
        }
    }

    fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            Self::Startup => container.startup_probe.as_ref(),
            Self::Readiness => container.readiness_probe.as_ref(),
            Self::Liveness => container.liveness_probe.as_ref(),
        }
    }
}

/// A probe failed, or its verdict changed.
#[derive(Clone, Debug)]
pub(crate) struct ProbeNews {
    /// The container's id.
    pub(crate) id: String,
    pub(crate) container: String,
    pub(crate) kind: ProbeKind,
    /// The verdict, where it changed.
    pub(crate) verdict: Option<bool>,
    /// Why it failed; empty where it did not.
    pub(crate) message: String,
}

/// Counts successes and failures in a row.
#[derive(Debug)]
struct Counter {
    successes: u32,
    failures: u32,
    success_threshold: u32,
    failure_threshold: u32,
    verdict: Option<bool>,
}

impl Counter {
    fn new(probe: &Probe, verdict: Option<bool>) -> Self {
        let number =
            |n: Option<i32>, default| n.and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0).unwrap_or(default);
        Self {
            successes: 0,
            failures: 0,
            success_threshold: number(probe.success_threshold, 1),
            failure_threshold: number(probe.failure_threshold, 3),
            verdict,
        }
    }

    /// The verdict, where this result changes it.
    fn record(&mut self, good: bool) -> Option<bool> {
        if good {
            (self.successes, self.failures) = (self.successes + 1, 0);
        } else {
            (self.successes, self.failures) = (0, self.failures + 1);
        }
        let reached =
            if good { self.successes >= self.success_threshold } else { self.failures >= self.failure_threshold };
        (reached && self.verdict != Some(good)).then(|| {
            self.verdict = Some(good);
            good
        })
    }
}

/// The running probes of one pod. Dropping it ends them.
pub(crate) struct Probes {
    context: Arc<Context>,
    news: mpsc::Sender<ProbeNews>,
    tasks: HashMap<(String, ProbeKind), AbortHandle>,
}

/// A container to probe.
pub(crate) struct Target<'a> {
    pub(crate) container: &'a Container,
    pub(crate) id: String,
    pub(crate) started_at: Timestamp,
    pub(crate) kinds: Vec<ProbeKind>,
    /// What the readiness probe said before.
    pub(crate) ready: Option<bool>,
    pub(crate) place: Place,
}

impl Probes {
    pub(crate) fn new(context: Arc<Context>, news: mpsc::Sender<ProbeNews>) -> Self {
        Self { context, news, tasks: HashMap::new() }
    }

    /// Starts and ends probes so that exactly those of `targets` run.
    pub(crate) fn reconcile(&mut self, targets: Vec<Target<'_>>) {
        let wanted = |key: &(String, ProbeKind)| targets.iter().any(|t| t.id == key.0 && t.kinds.contains(&key.1));
        self.tasks.retain(|key, task| {
            let keep = wanted(key);
            if !keep {
                task.abort();
            }
            keep
        });
        for target in &targets {
            for kind in &target.kinds {
                self.start(target, *kind);
            }
        }
    }

    fn start(&mut self, target: &Target<'_>, kind: ProbeKind) {
        let key = (target.id.clone(), kind);
        let Some(probe) = kind.of(target.container).filter(|_| !self.tasks.contains_key(&key)) else { return };
        let verdict = match kind {
            ProbeKind::Readiness => target.ready,
            ProbeKind::Liveness => Some(true),
            ProbeKind::Startup => None,
        };
        let task = Task {
            context: self.context.clone(),
            news: self.news.clone(),
            id: target.id.clone(),
            container: target.container.name.clone(),
            kind,
            probe: probe.clone(),
            place: target.place.clone(),
            counter: Counter::new(probe, verdict),
        };
        let first = later(target.started_at, seconds(probe.initial_delay_seconds, 0));
        self.tasks.insert(key, tokio::spawn(task.run(first)).abort_handle());
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.tasks.values().for_each(AbortHandle::abort);
    }
}

fn seconds(value: Option<i32>, default: u64) -> Duration {
    Duration::from_secs(value.and_then(|n| u64::try_from(n).ok()).unwrap_or(default))
}

struct Task {
    context: Arc<Context>,
    news: mpsc::Sender<ProbeNews>,
    id: String,
    container: String,
    kind: ProbeKind,
    probe: Probe,
    place: Place,
    counter: Counter,
}

impl Task {
    /// Looked at often in its first period, without word of failures: who has just started becomes ready within
    /// milliseconds, not at the next full second.
    fn is_eager(&self) -> bool {
        self.kind == ProbeKind::Readiness && self.counter.verdict != Some(true) && self.probe.exec.is_none()
    }

    async fn run(mut self, first: Timestamp) {
        let wait = first.duration_since(self.context.clock.now());
        if wait.is_positive() {
            tokio::time::sleep(wait.unsigned_abs()).await;
        }
        let period = seconds(self.probe.period_seconds, 10).max(Duration::from_secs(1));
        let timeout = seconds(self.probe.timeout_seconds, 1).max(Duration::from_secs(1));
        let (first_period, mut pause) = (Instant::now() + period, SOON);
        loop {
            let result = run(&self.context, &self.id, &self.probe, &self.place, timeout).await;
            if result.is_err() && self.is_eager() && Instant::now() + pause < first_period {
                tokio::time::sleep(pause).await;
                pause += pause / 2;
                continue;
            }
            let verdict = self.counter.record(result.is_ok());
            let message = result.err().unwrap_or_default();
            if verdict.is_some() || !message.is_empty() {
                let (id, container, kind) = (self.id.clone(), self.container.clone(), self.kind);
                if self.news.send(ProbeNews { id, container, kind, verdict, message }).await.is_err() {
                    return;
                }
            }
            tokio::time::sleep(period).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_change_at_thresholds_and_only_then() {
        let probe = |success, failure| Probe {
            success_threshold: Some(success),
            failure_threshold: Some(failure),
            ..Probe::default()
        };
        for (success, failure, start, results, want) in [
            (1, 3, None, "1", "1"),
            (1, 3, Some(true), "0000", "..0."),
            (2, 1, Some(false), "1011", "...1"),
            (1, 2, Some(true), "01001", "...01"),
        ] {
            let mut counter = Counter::new(&probe(success, failure), start);
            let said: String = results
                .chars()
                .map(|c| match counter.record(c == '1') {
                    None => '.',
                    Some(good) => {
                        if good {
                            '1'
                        } else {
                            '0'
                        }
                    }
                })
                .collect();
            assert_eq!(said, want, "{results}");
        }
    }
}
