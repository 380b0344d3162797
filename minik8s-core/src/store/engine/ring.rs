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
