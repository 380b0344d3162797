//! The recent changes of a resource: a bounded history that watches resume from and that shows the recent past.

use super::change::Change;
use crate::api::Revision;
use std::collections::VecDeque;
use std::sync::Arc;

/// Position of a change in a resource's endless sequence of changes.
pub(crate) type Sequence = u64;

/// A bounded history.
pub(crate) struct Ring {
    changes: VecDeque<Arc<Change>>,
    first: Sequence,
    /// Every change after this revision is in the ring.
    floor: Revision,
    capacity: usize,
}

impl Ring {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { changes: VecDeque::new(), first: 0, floor: 0, capacity: capacity.max(1) }
    }

    /// Says that the ring knows every change after `revision`, and none before.
    pub(crate) fn restart(&mut self, revision: Revision) {
        self.first = self.end();
        self.changes.clear();
        self.floor = revision;
    }

    pub(crate) fn push(&mut self, change: Arc<Change>) {
        if self.changes.len() == self.capacity
            && let Some(oldest) = self.changes.pop_front()
        {
            self.first += 1;
            self.floor = self.floor.max(oldest.revision);
        }
        self.changes.push_back(change);
    }

    /// Nothing is known of what was between the changes so far and `revision`.
    pub(crate) fn skip_to(&mut self, revision: Revision) {
        self.floor = self.floor.max(revision);
    }

    /// The changes, newest first.
    pub(crate) fn newest_first(&self) -> impl Iterator<Item = &Arc<Change>> {
        self.changes.iter().rev()
    }

    /// The position after the newest change.
    pub(crate) fn end(&self) -> Sequence {
        self.first + self.changes.len() as Sequence
    }

    /// The revision of the newest change.
    pub(crate) fn newest(&self) -> Option<Revision> {
        self.changes.back().map(|c| c.revision)
    }

    /// The position of the first change after `revision`, and `None` where some of them are forgotten.
    pub(crate) fn after(&self, revision: Revision) -> Option<Sequence> {
        if revision < self.floor {
            return None;
        }
        Some(self.first + self.changes.partition_point(|c| c.revision <= revision) as Sequence)
    }

    /// Up to `max` changes from a position on, and `None` where that one is forgotten.
    pub(crate) fn read(&self, from: Sequence, max: usize) -> Option<Vec<Arc<Change>>> {
        let skip = usize::try_from(from.checked_sub(self.first)?).ok()?;
        Some(self.changes.iter().skip(skip).take(max).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(capacity: usize, revisions: &[Revision]) -> Ring {
        let mut ring = Ring::new(capacity);
        ring.restart(10);
        for revision in revisions {
            ring.push(Arc::new(Change::new("k".into(), *revision, None, None)));
        }
        ring
    }

    #[test]
    fn positions_follow_revisions_and_the_forgotten_is_said_so() {
        let ring = ring(3, &[11, 12, 12, 15]);
        assert_eq!(ring.after(10), None);
        assert_eq!(ring.after(11), Some(1));
        assert_eq!(ring.after(12), Some(3));
        assert_eq!(ring.after(14), Some(3));
        assert_eq!(ring.after(99), Some(4));
        assert_eq!(ring.end(), 4);
    }

    #[test]
    fn reading_goes_on_where_it_stopped_or_says_it_fell_behind() {
        let ring = ring(3, &[11, 12, 13, 14]);
        let revisions = |from| ring.read(from, 2).map(|c| c.iter().map(|c| c.revision).collect::<Vec<_>>());
        assert_eq!(revisions(0), None);
        assert_eq!(revisions(1), Some(vec![12, 13]));
        assert_eq!(revisions(3), Some(vec![14]));
        assert_eq!(revisions(4), Some(vec![]));
    }
}
