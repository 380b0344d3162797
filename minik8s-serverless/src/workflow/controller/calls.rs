//! Tasks under way. So many at once, in lanes of workflows; each on its own; dropped when nobody waits for it any more.
//! A task that is a job only watches it, for hours: jobs take no turns of calls, but some of their own.

use crate::lanes::Turns;
use crate::workflow::invoker::{Heartbeat, Invocation, Invoker};
use crate::workflow::machine::{Failure, Stimulus};
use crate::workflow::program::Millis;
use crate::workflow::size::{LARGEST, is_longer};
use crate::workflow::work;
use parking_lot::Mutex;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::{CancellationToken, DropGuard};

/// How much is called at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallLimits {
    /// Calls of all runs under way at once; others wait for their turn. Of these, a workflow has at most half of what the
    /// others leave.
    pub at_once: usize,
    /// Jobs of all runs (`job`, `gpuJob`) that are made and followed at once, shared in the same way: they only wait.
    pub jobs: usize,
    /// A task of a step that says no `timeoutSeconds` takes at most this long.
    pub longest: Duration,
}

impl Default for CallLimits {
    fn default() -> Self {
        Self { at_once: 1024, jobs: 16_384, longest: Duration::from_secs(24 * 3600) }
    }
}

/// What has happened to a run and was not looked at yet. Bounded by the run's tasks: each tells once.
pub(super) type Inbox = Arc<Mutex<Vec<Stimulus>>>;

#[derive(Clone)]
pub(super) struct Calls {
    invoker: Arc<dyn Invoker>,
    turns: Arc<Turns>,
    jobs: Arc<Turns>,
    limits: CallLimits,
    stop: CancellationToken,
}

impl Calls {
    pub(super) fn new(invoker: Arc<dyn Invoker>, limits: CallLimits, stop: CancellationToken) -> Self {
        Self { invoker, turns: Turns::new(limits.at_once), jobs: Turns::new(limits.jobs), limits, stop }
    }

    /// Begins a task in the lane of its workflow; `told` is called when its result is in the inbox. Dropping what this
    /// answers with drops the task.
    pub(super) fn begin(
        &self,
        call: Invocation,
        lane: String,
        heartbeat: Option<Millis>,
        inbox: Inbox,
        told: impl FnOnce() + Send + 'static,
    ) -> DropGuard {
        let stop = self.stop.child_token();
        let (calls, dropped) = (self.clone(), stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = dropped.cancelled() => {
                    let abandoned = calls.invoker.abandon(&call);
                    calls.stop.run_until_cancelled(abandoned).await;
                }
                result = calls.perform(&call, &lane, heartbeat) => {
                    inbox.lock().push(Stimulus::Done { key: call.key, result });
                    told();
                }
            }
        });
        stop.drop_guard()
    }

    async fn perform(&self, call: &Invocation, lane: &str, heartbeat: Option<Millis>) -> Result<Value, Failure> {
        let turns = if work::of(&call.target).is_some() { &self.jobs } else { &self.turns };
        let _turn = turns.take(lane).await;
        let alive = Heartbeat::default();
        let silence = heartbeat.map(|h| Duration::from_millis(h.unsigned_abs()));
        let result = tokio::select! {
            biased;
            result = self.invoker.invoke(call, &alive) => result,
            () = silent(&alive, silence) => {
                let seconds = silence.unwrap_or_default().as_secs_f64();
                Err(Failure::new("HeartbeatTimeout", format!("nothing was heard of the task for {seconds} s")))
            }
            () = tokio::time::sleep(self.limits.longest) => Err(Failure::new("Timeout", "the task took longer than any may")),
        };
        match result {
            Ok(value) if is_longer(&value, LARGEST) => {
                Err(Failure::new("TooLarge", format!("the answer is larger than {} MiB", LARGEST >> 20)))
            }
            other => other,
        }
    }
}

/// Comes back when nothing was heard for so long.
async fn silent(alive: &Heartbeat, longest: Option<Duration>) {
    let Some(longest) = longest else { return std::future::pending().await };
    while tokio::time::timeout(longest, alive.heard()).await.is_ok() {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workflow::program::Target;
    use crate::workflow::spec::{FunctionRef, JobSpec};
    use async_trait::async_trait;
    use serde_json::json;
    use tokio::sync::mpsc;

    /// Says what has begun, and never ends it.
    struct Hanging(mpsc::UnboundedSender<String>);

    #[async_trait]
    impl Invoker for Hanging {
        async fn invoke(&self, call: &Invocation, _: &Heartbeat) -> Result<Value, Failure> {
            let _ = self.0.send(call.key.clone());
            std::future::pending().await
        }
    }

    fn call(key: &str, target: Target) -> Invocation {
        let (namespace, run) = ("default".to_owned(), "r".to_owned());
        Invocation { key: key.to_owned(), namespace, run, step: "s".to_owned(), target, input: json!(null) }
    }

    #[tokio::test]
    async fn neither_jobs_nor_another_workflow_keep_calls_from_their_turn() {
        let (begun, mut told) = mpsc::unbounded_channel();
        let limits = CallLimits { at_once: 4, ..CallLimits::default() };
        let calls = Calls::new(Arc::new(Hanging(begun)), limits, CancellationToken::new());
        let inbox = Inbox::default();
        let begin =
            |key: &str, lane: &str, target| calls.begin(call(key, target), lane.to_owned(), None, inbox.clone(), || ());
        let function = || Target::Function(FunctionRef::default());
        let mut guards: Vec<_> =
            (0..9).map(|n| begin(&format!("job{n}"), "default/a", Target::Job(JobSpec::default()))).collect();
        for n in 0..9 {
            assert_eq!(told.recv().await, Some(format!("job{n}")));
        }
        guards.extend((0..9).map(|n| begin(&format!("a{n}"), "default/a", function())));
        guards.push(begin("b0", "default/b", function()));
        let mut order = Vec::new();
        for _ in 0..3 {
            order.push(told.recv().await.unwrap());
        }
        assert_eq!(order, ["a0", "a1", "b0"], "half is for others");
        assert!(told.try_recv().is_err());
        // What is not waited for any more gives its turn back.
        drop(guards.remove(9));
        assert_eq!(told.recv().await.as_deref(), Some("a2"));
        assert!(inbox.lock().is_empty());
    }
}
