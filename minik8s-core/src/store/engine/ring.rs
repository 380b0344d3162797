//! The queue that all watchers of one prefix share: each holds a position in it, so a batch is queued once however many
//! read it, and a watcher that falls off its end is cut.

use crate::api::Revision;
use crate::store::{Event, WatchBatch};
use std::collections::VecDeque;
use std::task::Waker;

/// What a watcher finds at its position.
pub(super) enum Next {
    /// The next batch.
    Batch(WatchBatch),
    /// Nothing yet; its waker was kept.
    Wait,
    /// The position is no longer kept.
    Lost,
    /// The store was closed.
    Closed,
}

/// Batches and those who wait for more.
#[derive(Default)]
pub(super) struct Ring {
    batches: VecDeque<WatchBatch>,
    /// Position of the front batch.
    first: u64,
    events: usize,
    bytes: usize,
    /// One seat per watcher, with its waker while it waits at the end.
    seats: Vec<Option<Waker>>,
    free: Vec<usize>,
    waiting: usize,
    /// Revision up to which the watchers know everything.
    reached: Revision,
    closed: bool,
}

impl Ring {
    /// Takes a seat; the watcher starts with the next batch.
    pub(super) fn join(&mut self, reached: Revision) -> (usize, u64) {
        self.reached = self.reached.max(reached);
        let seat = self.free.pop().unwrap_or_else(|| {
            self.seats.push(None);
            self.seats.len() - 1
        });
        (seat, self.end())
    }

    /// Gives the seat back. True where it was the last.
    pub(super) fn leave(&mut self, seat: usize) -> bool {
        self.waiting -= usize::from(self.seats.get_mut(seat).and_then(Option::take).is_some());
        self.free.push(seat);
        self.watchers() == 0
    }

    fn watchers(&self) -> usize {
        self.seats.len() - self.free.len()
    }

    fn end(&self) -> u64 {
        self.first + self.batches.len() as u64
    }

    pub(super) fn reached(&self) -> Revision {
        self.reached
    }

    /// Queues a batch, drops what is beyond the limits, and collects whom to wake.
    pub(super) fn push(&mut self, batch: WatchBatch, max_events: usize, max_bytes: usize, wake: &mut Vec<Waker>) {
        if self.waiting == self.watchers() {
            self.first = self.end();
            self.batches.clear();
            (self.events, self.bytes) = (0, 0);
        }
        self.reached = batch.revision;
        self.events += weight(&batch);
        self.bytes += bytes(&batch);
        self.batches.push_back(batch);
        while self.batches.len() > 1 && (self.events > max_events || self.bytes > max_bytes) {
            let Some(gone) = self.batches.pop_front() else { break };
            self.first += 1;
            self.events -= weight(&gone);
            self.bytes -= bytes(&gone);
        }
        self.wake_all(wake);
    }

    pub(super) fn close(&mut self, wake: &mut Vec<Waker>) {
        self.closed = true;
        self.wake_all(wake);
    }

    fn wake_all(&mut self, wake: &mut Vec<Waker>) {
        if self.waiting > 0 {
            wake.extend(self.seats.iter_mut().filter_map(Option::take));
            self.waiting = 0;
        }
    }

    /// The batch at `position`, or a promise to wake `waker` when there is one.
    pub(super) fn next(&mut self, seat: usize, position: u64, waker: &Waker) -> Next {
        let Some(index) = position.checked_sub(self.first) else { return Next::Lost };
        if let Some(batch) = usize::try_from(index).ok().and_then(|i| self.batches.get(i)) {
            return Next::Batch(batch.clone());
        }
        if self.closed {
            return Next::Closed;
        }
        if let Some(place) = self.seats.get_mut(seat)
            && place.replace(waker.clone()).is_none()
        {
            self.waiting += 1;
        }
        Next::Wait
    }
}

/// A progress mark takes room like an event, so that marks alone cannot grow the queue for ever.
fn weight(batch: &WatchBatch) -> usize {
    batch.events.len().max(1)
}

fn bytes(batch: &WatchBatch) -> usize {
    batch.events.iter().map(|e: &Event| e.entry().value.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Entry;
    use std::sync::Arc;

    fn batch(revision: Revision, events: usize) -> WatchBatch {
        let entry = Entry { key: "/a".into(), value: "four".into(), created: 1, revision };
        WatchBatch { events: vec![Event::Put(entry); events].into(), revision }
    }

    fn push(ring: &mut Ring, revision: Revision, events: usize) -> usize {
        let mut wake = Vec::new();
        ring.push(batch(revision, events), 4, 1000, &mut wake);
        wake.len()
    }

    #[test]
    fn all_watchers_get_the_same_allocation() {
        let mut ring = Ring::default();
        let seats = [ring.join(1), ring.join(1)];
        push(&mut ring, 2, 1);
        let events = seats.map(|(seat, position)| match ring.next(seat, position, Waker::noop()) {
            Next::Batch(batch) => batch.events,
            _ => panic!("no batch"),
        });
        assert!(Arc::ptr_eq(&events[0], &events[1]));
    }

    #[test]
    fn nothing_is_kept_while_everyone_waits() {
        let mut ring = Ring::default();
        let (seat, mut position) = ring.join(1);
        for revision in 2..100 {
            assert!(matches!(ring.next(seat, position, Waker::noop()), Next::Wait));
            // Asked again without news, it still waits only once.
            assert!(matches!(ring.next(seat, position, Waker::noop()), Next::Wait));
            assert_eq!(push(&mut ring, revision, 1), 1);
            assert_eq!(ring.batches.len(), 1);
            assert!(matches!(ring.next(seat, position, Waker::noop()), Next::Batch(b) if b.revision == revision));
            position += 1;
        }
    }

    #[test]
    fn who_falls_off_is_lost_and_others_are_not() {
        let mut ring = Ring::default();
        let (slow, start) = ring.join(1);
        let (quick, mut position) = ring.join(1);
        for revision in 2..8 {
            push(&mut ring, revision, 1);
            assert!(matches!(ring.next(quick, position, Waker::noop()), Next::Batch(_)));
            position += 1;
        }
        assert_eq!(ring.batches.len(), 4);
        assert!(matches!(ring.next(slow, start, Waker::noop()), Next::Lost));
        assert!(!ring.leave(slow));
        assert!(ring.leave(quick));
    }

    #[test]
    fn a_batch_larger_than_the_limit_is_kept_alone() {
        let mut ring = Ring::default();
        let (seat, position) = ring.join(1);
        push(&mut ring, 2, 50);
        assert!(matches!(ring.next(seat, position, Waker::noop()), Next::Batch(b) if b.events.len() == 50));
        push(&mut ring, 3, 1);
        assert_eq!((ring.batches.len(), ring.events, ring.bytes), (1, 1, 4));
    }
}
