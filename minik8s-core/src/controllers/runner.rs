//! The frame of a controller: changes of informers become keys in a queue, workers take them out.

use super::ControllerContext;
use crate::api::ApiResult;
use crate::client::{Change, Changes, Informer, WorkQueue};
use async_trait::async_trait;
use futures::FutureExt;
use std::fmt::Display;
use std::hash::Hash;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{debug, error, warn};

/// How a reconciliation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing to do until something changes.
    Done,
    /// Look again after this long, whether something changes or not.
    After(Duration),
}

/// Brings one object, named by its key, closer to what it says it should be.
#[async_trait]
pub trait Reconciler: Send + Sync + 'static {
    /// What names an object.
    type Key: Hash + Eq + Clone + Display + Send + Sync + 'static;

    /// Looks at one object and acts. Never runs twice at once for a key. An error brings the key back after its
    /// back-off.
    async fn reconcile(&self, key: &Self::Key) -> ApiResult<Outcome>;
}

/// Feeds every object of an informer, and from then on every change, to `each`, in the background until `ctx.stop`.
/// Where changes were missed, every object is fed again, and then [`Change::Resync`]: what was missed may be deletions,
/// so that it must bring back whatever waits for one.
pub fn pump<K: Send + Sync + 'static>(
    ctx: &ControllerContext,
    informer: &Informer<K>,
    each: impl Fn(&Change<K>) + Send + Sync + 'static,
) {
    let mut changes = informer.subscribe();
    let stop = ctx.stop.clone();
    tokio::spawn(async move {
        let every = |changes: &Changes<K>| {
            let all = changes.informer().list().into_iter();
            all.for_each(|new| each(&Change::Applied { old: None, new }));
        };
        every(&changes);
        loop {
            let change = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                change = changes.next() => change,
            };
            match change {
                None => return,
                Some(change) => {
                    if matches!(change, Change::Resync) {
                        every(&changes);
                    }
                    each(&change);
                }
            }
        }
    });
}

/// Runs workers over a queue until `ctx.stop`. Errors bring keys back after a back-off, panics as well: they are
/// contained to the key.
pub async fn run_workers<R: Reconciler>(
    ctx: &ControllerContext,
    queue: &WorkQueue<R::Key>,
    workers: usize,
    reconciler: Arc<R>,
) {
    let mut running = JoinSet::new();
    for _ in 0..workers {
        running.spawn(work(ctx.clone(), queue.clone(), reconciler.clone()));
    }
    while running.join_next().await.is_some() {}
}

async fn work<R: Reconciler>(ctx: ControllerContext, queue: WorkQueue<R::Key>, reconciler: Arc<R>) {
    loop {
        let key = tokio::select! {
            biased;
            () = ctx.stop.cancelled() => return,
            key = queue.next() => key,
        };
        let start = Instant::now();
        let end = AssertUnwindSafe(reconciler.reconcile(&key)).catch_unwind().await;
        let result = settle(&ctx, &queue, &key, end);
        ctx.metrics.reconciled(&ctx.name, result, start.elapsed());
        queue.done(&key);
    }
}

type Ended = Result<ApiResult<Outcome>, Box<dyn std::any::Any + Send>>;

fn settle<K: Hash + Eq + Clone + Display>(
    ctx: &ControllerContext,
    queue: &WorkQueue<K>,
    key: &K,
    end: Ended,
) -> &'static str {
    match end {
        Ok(Ok(outcome)) => {
            queue.forget(key);
            if let Outcome::After(delay) = outcome {
                queue.add_after(key.clone(), delay);
            }
            return "ok";
        }
        Ok(Err(error)) if error.is_conflict() || error.is_not_found() => {
            // Someone was faster: the informer will have caught up by the time the key comes back.
            debug!(controller = %ctx.name, %key, %error, "will look again");
        }
        Ok(Err(error)) => warn!(controller = %ctx.name, %key, %error, "reconciliation failed, will try again"),
        Err(_) => {
            error!(controller = %ctx.name, %key, "reconciliation panicked, will try again");
            queue.add_rate_limited(key.clone());
            return "panic";
        }
    }
    queue.add_rate_limited(key.clone());
    "error"
}
