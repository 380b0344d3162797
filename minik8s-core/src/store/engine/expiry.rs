//! Keys that vanish after their lifetime. Deletions go through the store's own `commit`, each with the precondition that
//! the key was not written since, so expiry is an ordinary writer like any other.

use crate::api::Revision;
use crate::store::{Commit, Key, Op, Precondition, StoreError};
use futures::future::join_all;
use parking_lot::Mutex;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// How many keys expire concurrently, so that a group commit takes them at once.
const AT_ONCE: usize = 256;
/// When to try again what the store could not do.
const RETRY: Duration = Duration::from_secs(1);

type Due = (Instant, Revision, Key);

/// What expires when.
#[derive(Default)]
pub(in crate::store) struct Expiry {
    heap: Mutex<BinaryHeap<Reverse<Due>>>,
    /// Signalled when something may be due earlier, or the store closes.
    changed: Notify,
    running: AtomicBool,
    closed: AtomicBool,
}

impl Expiry {
    pub(in crate::store) fn add(&self, key: Key, revision: Revision, lifetime: Duration) {
        let mut heap = self.heap.lock();
        let due = Instant::now() + lifetime;
        let first = heap.peek().is_none_or(|Reverse((soonest, _, _))| due < *soonest);
        heap.push(Reverse((due, revision, key)));
        if first {
            self.changed.notify_one();
        }
    }

    pub(in crate::store) fn is_empty(&self) -> bool {
        self.heap.lock().is_empty()
    }

    /// What waits to expire, with the time left.
    pub(in crate::store) fn pending(&self) -> Vec<(Key, Revision, Duration)> {
        let now = Instant::now();
        let left =
            |Reverse((at, revision, key)): &Reverse<Due>| (key.clone(), *revision, at.saturating_duration_since(now));
        self.heap.lock().iter().map(left).collect()
    }

    pub(in crate::store) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.changed.notify_one();
    }

    fn take_due(&self) -> Vec<(Revision, Key)> {
        let now = Instant::now();
        let mut heap = self.heap.lock();
        let mut due = Vec::new();
        while due.len() < AT_ONCE && heap.peek().is_some_and(|Reverse((at, _, _))| *at <= now) {
            due.extend(heap.pop().map(|Reverse((_, revision, key))| (revision, key)));
        }
        due
    }

    /// Waits until something is due. False where the store closed.
    async fn wait(&self) -> bool {
        loop {
            if self.closed.load(Ordering::Acquire) {
                return false;
            }
            let soonest = self.heap.lock().peek().map(|Reverse((at, _, _))| *at);
            match soonest {
                Some(at) if at <= Instant::now() => return true,
                Some(at) => {
                    let _ = tokio::time::timeout_at(at, self.changed.notified()).await;
                }
                None => self.changed.notified().await,
            }
        }
    }

    /// Starts the task that expires keys through `commit`, unless it runs. `commit` gives `None` once the store is gone.
    ///
    /// # Errors
    /// `Invalid` outside of a tokio runtime: there is nothing that could wait.
    pub(in crate::store) fn start<C, F>(self: &Arc<Self>, commit: C) -> Result<(), StoreError>
    where
        C: Fn(Commit) -> Option<F> + Send + Sync + 'static,
        F: Future<Output = Result<Revision, StoreError>> + Send + 'static,
    {
        if self.running.load(Ordering::Acquire) {
            return Ok(());
        }
        let runtime = tokio::runtime::Handle::try_current()
            .map_err(|_| StoreError::Invalid("a lifetime needs a running tokio runtime".to_owned()))?;
        if !self.running.swap(true, Ordering::AcqRel) {
            runtime.spawn(run(Running(self.clone()), commit));
        }
        Ok(())
    }
}

/// Marks the task as running until it ends, also where its runtime is shut down under it.
struct Running(Arc<Expiry>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.store(false, Ordering::Release);
    }
}

async fn run<C, F>(running: Running, commit: C)
where
    C: Fn(Commit) -> Option<F>,
    F: Future<Output = Result<Revision, StoreError>>,
{
    let expiry = &running.0;
    while expiry.wait().await {
        let due = expiry.take_due();
        let deletions = due.into_iter().map(|(revision, key)| {
            let deletion = commit(deletion(&key, revision));
            async move {
                match deletion?.await {
                    Ok(_) | Err(StoreError::Conflict { .. }) => {}
                    Err(_) => expiry.add(key, revision, RETRY),
                }
                Some(())
            }
        });
        if join_all(deletions).await.contains(&None) {
            return;
        }
    }
}

fn deletion(key: &Key, revision: Revision) -> Commit {
    Commit { when: vec![Precondition::At(key.clone(), revision)], ops: vec![Op::Delete { key: key.clone() }] }
}
