//! Tasks under way. So many at once; each on its own; dropped when nobody waits for it any more.

use crate::workflow::invoker::{Heartbeat, Invocation, Invoker};
use crate::workflow::machine::{Failure, Stimulus};
use crate::workflow::program::Millis;
use crate::workflow::size::{LARGEST, is_longer};
use parking_lot::Mutex;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, DropGuard};

/// How much is called at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallLimits {
    /// Tasks of all runs under way at once; others wait for their turn.
    pub at_once: usize,
    /// A task of a step that says no `timeoutSeconds` takes at most this long.
    pub longest: Duration,
}

impl Default for CallLimits {
    fn default() -> Self {
        Self { at_once: 256, longest: Duration::from_secs(24 * 3600) }
    }
}

/// What has happened to a run and was not looked at yet. Bounded by the run's tasks: each tells once.
pub(super) type Inbox = Arc<Mutex<Vec<Stimulus>>>;

#[derive(Clone)]
pub(super) struct Calls {
    invoker: Arc<dyn Invoker>,
    turns: Arc<Semaphore>,
    limits: CallLimits,
    stop: CancellationToken,
}

impl Calls {
    pub(super) fn new(invoker: Arc<dyn Invoker>, limits: CallLimits, stop: CancellationToken) -> Self {
        Self { invoker, turns: Arc::new(Semaphore::new(limits.at_once.max(1))), limits, stop }
    }

    /// Begins a task; `told` is called when its result is in the inbox. Dropping what this answers with drops the task.
    pub(super) fn begin(
        &self,
        call: Invocation,
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
                    if !calls.stop.is_cancelled() {
                        calls.invoker.abandon(&call).await;
                    }
                }
                result = calls.perform(&call, heartbeat) => {
                    inbox.lock().push(Stimulus::Done { key: call.key, result });
                    told();
                }
            }
        });
        stop.drop_guard()
    }

    async fn perform(&self, call: &Invocation, heartbeat: Option<Millis>) -> Result<Value, Failure> {
        let Ok(_turn) = self.turns.acquire().await else {
            return Err(Failure::new("Internal", "the controller is stopping"));
        };
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
