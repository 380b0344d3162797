//! Who watches what. Publishing costs one queue operation per watched prefix of the key, not per watcher; waking them is
//! left to the caller, after it has let go of its locks.

use super::limits::Limits;
use super::ring::{Next, Ring};
use super::state::narrow;
use crate::api::Revision;
use crate::store::{StoreError, WatchBatch};
use futures::Stream;
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

type Groups = HashMap<Arc<str>, Arc<Mutex<Ring>>>;

/// All running watches, grouped by prefix.
#[derive(Default)]
pub(super) struct Hub {
    /// Locked before any of the rings in it.
    groups: Mutex<Groups>,
}

/// Watchers to wake once no lock is held.
#[must_use = "watchers sleep until they are woken"]
#[derive(Default)]
pub(in crate::store) struct Wake(Vec<Waker>);

impl Wake {
    pub(in crate::store) fn merge(&mut self, other: Wake) {
        self.0.extend(other.0);
    }

    pub(in crate::store) fn wake(self) {
        self.0.into_iter().for_each(Waker::wake);
    }
}

impl Hub {
    /// Adds a watcher of `prefix` that first sees `backlog`, then every batch published from now on.
    pub(super) fn join(self: &Arc<Self>, prefix: &str, backlog: VecDeque<WatchBatch>, reached: Revision) -> Watcher {
        let mut groups = self.groups.lock();
        let (prefix, ring) = match groups.get_key_value(prefix) {
            Some((prefix, ring)) => (prefix.clone(), ring.clone()),
            None => {
                let prefix: Arc<str> = prefix.into();
                let ring = Arc::new(Mutex::new(Ring::default()));
                groups.insert(prefix.clone(), ring.clone());
                (prefix, ring)
            }
        };
        let (seat, position) = ring.lock().join(reached);
        Watcher { hub: self.clone(), ring, prefix, seat, position, backlog, ended: false }
    }

    /// Queues a commit for everyone it concerns. Called in revision order.
    pub(super) fn publish(&self, batch: &WatchBatch, limits: &Limits) -> Wake {
        let mut wake = Wake::default();
        let groups = self.groups.lock();
        if groups.is_empty() {
            return wake;
        }
        for prefix in watched_prefixes(batch, &groups) {
            if let (Some(ring), Some(part)) = (groups.get(prefix), narrow(batch, prefix)) {
                ring.lock().push(part, limits.watch_events, limits.watch_bytes, &mut wake.0);
            }
        }
        if batch.revision.is_multiple_of(limits.progress_every.max(1)) {
            mark_progress(&groups, batch.revision, limits, &mut wake.0);
        }
        wake
    }

    /// Ends every watch.
    pub(super) fn close(&self) {
        let mut wake = Wake::default();
        self.groups.lock().values().for_each(|ring| ring.lock().close(&mut wake.0));
        wake.wake();
    }
}

/// Tells quiet watchers how far they are, so that they can resume from there after history moved on.
fn mark_progress(groups: &Groups, revision: Revision, limits: &Limits, wake: &mut Vec<Waker>) {
    let mark = WatchBatch { events: Arc::new([]), revision };
    for ring in groups.values() {
        let mut ring = ring.lock();
        if ring.reached() + limits.progress_every <= revision {
            ring.push(mark.clone(), limits.watch_events, limits.watch_bytes, wake);
        }
    }
}

/// The prefixes of the batch's keys that someone watches: "", and all that end in a slash.
fn watched_prefixes<'a>(batch: &'a WatchBatch, groups: &Groups) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    for event in batch.events.iter() {
        let key: &str = &event.entry().key;
        let ends = std::iter::once(0).chain(key.match_indices('/').map(|(at, _)| at + 1));
        found.extend(ends.filter_map(|end| key.get(..end)).filter(|prefix| groups.contains_key(*prefix)));
    }
    found
}

/// One watch: what it missed, then what comes.
pub(super) struct Watcher {
    hub: Arc<Hub>,
    ring: Arc<Mutex<Ring>>,
    prefix: Arc<str>,
    seat: usize,
    position: u64,
    backlog: VecDeque<WatchBatch>,
    ended: bool,
}

impl Stream for Watcher {
    type Item = Result<WatchBatch, StoreError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.ended {
            return Poll::Ready(None);
        }
        if let Some(batch) = this.backlog.pop_front() {
            return Poll::Ready(Some(Ok(batch)));
        }
        let next = this.ring.lock().next(this.seat, this.position, cx.waker());
        let error = match next {
            Next::Wait => return Poll::Pending,
            Next::Batch(batch) => {
                this.position += 1;
                return Poll::Ready(Some(Ok(batch)));
            }
            Next::Lost => StoreError::SlowWatcher { prefix: this.prefix.to_string() },
            Next::Closed => StoreError::Unavailable { operation: "watching", cause: "the store was closed".to_owned() },
        };
        this.end();
        Poll::Ready(Some(Err(error)))
    }
}

impl Watcher {
    /// Leaves the ring, so that it need not keep anything for this watcher.
    fn end(&mut self) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let mut groups = self.hub.groups.lock();
        if self.ring.lock().leave(self.seat) {
            groups.remove(&self.prefix);
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.end();
    }
}
