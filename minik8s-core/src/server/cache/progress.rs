//! How far the caches have come, and who waits for it.

use crate::api::Revision;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::oneshot;

/// The newest revision that every cache shows.
#[derive(Default)]
pub(crate) struct Progress {
    reached: AtomicU64,
    waiters: Mutex<BTreeMap<Revision, Vec<oneshot::Sender<()>>>>,
}

impl Progress {
    /// The newest revision reached.
    pub(crate) fn reached(&self) -> Revision {
        self.reached.load(Ordering::Acquire)
    }

    /// Moves on and wakes those whose revision is reached.
    pub(crate) fn advance(&self, revision: Revision) {
        let mut waiters = self.waiters.lock();
        if revision <= self.reached() {
            return;
        }
        self.reached.store(revision, Ordering::Release);
        let later = waiters.split_off(&(revision + 1));
        let done = std::mem::replace(&mut *waiters, later);
        drop(waiters);
        for waiter in done.into_values().flatten() {
            // A waiter that gave up is fine.
            let _ = waiter.send(());
        }
    }

    /// Returns once `revision` is reached. Cancelling is safe.
    pub(crate) async fn wait(&self, revision: Revision) {
        let arrival = {
            let mut waiters = self.waiters.lock();
            if self.reached() >= revision {
                return;
            }
            let (tell, arrival) = oneshot::channel();
            waiters.entry(revision).or_default().push(tell);
            arrival
        };
        // The sender is dropped only together with the server.
        let _ = arrival.await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn waiters_wake_at_their_revision_and_not_before() {
        let progress = Progress::default();
        progress.advance(3);
        progress.wait(3).await;
        let mut waiting = Box::pin(progress.wait(5));
        assert!(waiting.as_mut().now_or_never().is_none());
        progress.advance(4);
        assert!(waiting.as_mut().now_or_never().is_none());
        progress.advance(7);
        assert!(waiting.as_mut().now_or_never().is_some());
        progress.advance(6);
        assert_eq!(progress.reached(), 7);
    }
}
