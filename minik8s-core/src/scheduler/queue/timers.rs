//! Pods in the order of the instants at which they are due.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::time::Instant;

/// A pod, and when it is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Due {
    at: Instant,
    uid: Arc<str>,
}

impl Due {
    pub(super) fn new(at: Instant, uid: &Arc<str>) -> Self {
        Self { at, uid: uid.clone() }
    }

    /// The only way to the instant, so that tests can count who looks.
    fn at(&self) -> Instant {
        #[cfg(test)]
        looks::LOOKS.with(|looks| looks.set(looks.get() + 1));
        self.at
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at(), &self.uid).cmp(&(other.at(), &other.uid))
    }
}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Pods by when they are due. Everything costs the logarithm of their number.
#[derive(Debug, Default)]
pub(super) struct Timers(BTreeSet<Due>);

impl Timers {
    pub(super) fn insert(&mut self, due: Due) {
        self.0.insert(due);
    }

    pub(super) fn remove(&mut self, due: &Due) {
        self.0.remove(due);
    }

    /// When the first is due.
    pub(super) fn first(&self) -> Option<Instant> {
        self.0.first().map(Due::at)
    }

    /// The first that is due by now. It stays.
    pub(super) fn due(&self, now: Instant) -> Option<Arc<str>> {
        self.0.first().filter(|due| due.at() <= now).map(|due| due.uid.clone())
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
pub(super) mod looks {
    use std::cell::Cell;

    thread_local!(pub(super) static LOOKS: Cell<usize> = const { Cell::new(0) });

    /// How often somebody looks at when a pod is due while `action` runs.
    pub(in super::super) fn during<T>(action: impl FnOnce() -> T) -> (T, usize) {
        let before = LOOKS.get();
        let result = action();
        (result, LOOKS.get() - before)
    }
}
