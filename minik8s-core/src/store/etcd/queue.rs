//! What a watch has delivered and its reader has not taken yet. Bounded: a reader that does not read is cut.

use crate::api::Revision;
use crate::store::{Limits, StoreError, WatchBatch};
use futures::Stream;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use tokio_util::sync::{CancellationToken, DropGuard};

#[derive(Default)]
struct Waiting {
    batches: VecDeque<WatchBatch>,
    events: usize,
    bytes: usize,
    end: Option<StoreError>,
    ended: bool,
    waker: Option<Waker>,
}

/// The writing end.
pub(super) struct Feeder {
    waiting: Arc<Mutex<Waiting>>,
    limits: Limits,
    prefix: String,
    /// Cancelled when the reader is gone.
    gone: CancellationToken,
}

/// The reading end: the watch as its user sees it.
pub(super) struct Reader {
    waiting: Arc<Mutex<Waiting>>,
    _gone: DropGuard,
}

/// Both ends of a queue that begins with `first`.
pub(super) fn queue(prefix: &str, limits: &Limits, first: Option<WatchBatch>) -> (Feeder, Reader) {
    let waiting = Arc::new(Mutex::new(Waiting { batches: first.into_iter().collect(), ..Waiting::default() }));
    let gone = CancellationToken::new();
    let reader = Reader { waiting: waiting.clone(), _gone: gone.clone().drop_guard() };
    (Feeder { waiting, limits: limits.clone(), prefix: prefix.to_owned(), gone }, reader)
}

impl Feeder {
    /// Returns when nobody reads any more.
    pub(super) async fn abandoned(&self) {
        self.gone.cancelled().await;
    }

    /// Queues a batch. False where the reader was cut.
    pub(super) fn push(&self, batch: WatchBatch) -> bool {
        let mut waiting = self.waiting.lock();
        waiting.events += batch.events.len();
        waiting.bytes += bytes(&batch);
        waiting.batches.push_back(batch);
        let behind = waiting.events > self.limits.watch_events || waiting.bytes > self.limits.watch_bytes;
        if behind && waiting.batches.len() > 1 {
            waiting.batches.clear();
            waiting.end = Some(StoreError::SlowWatcher { prefix: self.prefix.clone() });
        }
        let open = waiting.end.is_none();
        wake(waiting);
        open
    }

    /// Says that nothing is missing up to a revision. Marks that nobody has read yet become one.
    pub(super) fn mark(&self, revision: Revision) {
        let mut waiting = self.waiting.lock();
        match waiting.batches.back_mut() {
            Some(last) if last.events.is_empty() => last.revision = revision,
            _ => waiting.batches.push_back(WatchBatch { events: Arc::new([]), revision }),
        }
        wake(waiting);
    }

    /// Ends the watch once its reader has read what is queued.
    pub(super) fn end(&self, error: StoreError) {
        let mut waiting = self.waiting.lock();
        waiting.end.get_or_insert(error);
        wake(waiting);
    }
}

fn wake(mut waiting: parking_lot::MutexGuard<'_, Waiting>) {
    let waker = waiting.waker.take();
    drop(waiting);
    if let Some(waker) = waker {
        waker.wake();
    }
}

fn bytes(batch: &WatchBatch) -> usize {
    batch.events.iter().map(|e| e.entry().value.len()).sum()
}

impl Stream for Reader {
    type Item = Result<WatchBatch, StoreError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut waiting = self.waiting.lock();
        if let Some(batch) = waiting.batches.pop_front() {
            waiting.events = waiting.events.saturating_sub(batch.events.len());
            waiting.bytes = waiting.bytes.saturating_sub(bytes(&batch));
            return Poll::Ready(Some(Ok(batch)));
        }
        if waiting.ended {
            return Poll::Ready(None);
        }
        if let Some(error) = waiting.end.clone() {
            waiting.ended = true;
            return Poll::Ready(Some(Err(error)));
        }
        waiting.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Entry, Event};
    use futures::{FutureExt, StreamExt};

    fn batch(revision: Revision, events: usize) -> WatchBatch {
        let entry = Entry { key: "/a".into(), value: "four".into(), created: 1, revision };
        WatchBatch { events: vec![Event::Put(entry); events].into(), revision }
    }

    fn limits() -> Limits {
        Limits { watch_events: 4, ..Limits::default() }
    }

    #[tokio::test]
    async fn who_does_not_read_is_cut_and_who_reads_is_not() {
        let (feeder, mut reader) = queue("/", &limits(), Some(batch(1, 50)));
        assert!(reader.next().await.unwrap().is_ok());
        for revision in 2..20 {
            assert!(feeder.push(batch(revision, 1)));
            assert_eq!(reader.next().await.unwrap().unwrap().revision, revision);
        }
        assert!((20..24).all(|revision| feeder.push(batch(revision, 1))));
        assert!(!feeder.push(batch(24, 1)));
        assert!(matches!(reader.next().await, Some(Err(StoreError::SlowWatcher { .. }))));
        assert!(reader.next().await.is_none());
    }

    #[tokio::test]
    async fn marks_that_nobody_read_become_one() {
        let (feeder, mut reader) = queue("/", &limits(), None);
        (2..100).for_each(|revision| feeder.mark(revision));
        assert_eq!(reader.next().await.unwrap().unwrap().revision, 99);
        assert!(reader.next().now_or_never().is_none());
        drop(reader);
        feeder.abandoned().await;
    }
}
