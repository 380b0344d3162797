//! What a subscriber has not taken yet: one entry per object, however often it changed meanwhile.
//!
//! A queue of every change would have to be long or to overflow, and who overflows reads everything anew, which makes a
//! slow subscriber slower. Folded by object, a backlog is never longer than the objects that changed; only far beyond
//! that the subscriber is told to look again.

use super::Change;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use tokio::sync::Notify;

/// So many objects may wait; then looking at the list is cheaper than being told of each.
pub(super) const LIMIT: usize = 16_384;

/// What happened to an object since the subscriber heard of it: it may have gone, and come again as another one.
struct Pending<K> {
    /// Who went and was told of before.
    known: Option<Arc<K>>,
    /// Who came and went meanwhile, in order. The list that the subscriber looked at may have shown them.
    brief: VecDeque<Arc<K>>,
    applied: Option<(Option<Arc<K>>, Arc<K>)>,
}

impl<K> Default for Pending<K> {
    fn default() -> Self {
        Self { known: None, brief: VecDeque::new(), applied: None }
    }
}

impl<K> Pending<K> {
    /// Takes a change in; true where that makes it longer.
    fn fold(&mut self, change: Change<K>) -> bool {
        match change {
            // The version known before is the one that the subscriber was told.
            Change::Applied { old, new } => match &mut self.applied {
                Some((_, newest)) => *newest = new,
                none => *none = Some((old, new)),
            },
            Change::Deleted(last) => match self.applied.take() {
                Some((None, _)) => {
                    self.brief.push_back(last);
                    return true;
                }
                _ => self.known = Some(last),
            },
            Change::Resync => {}
        }
        false
    }

    /// The oldest change.
    fn take(&mut self) -> Option<Change<K>> {
        let gone = self.known.take().or_else(|| self.brief.pop_front());
        let applied = || self.applied.take().map(|(old, new)| Change::Applied { old, new });
        gone.map(Change::Deleted).or_else(applied)
    }

    fn is_empty(&self) -> bool {
        self.known.is_none() && self.brief.is_empty() && self.applied.is_none()
    }
}

struct State<K> {
    /// Keys in the order of their first change.
    order: VecDeque<Arc<str>>,
    pending: HashMap<Arc<str>, Pending<K>>,
    /// Objects that came and went under names that wait anyway.
    brief: usize,
    /// Too much was missed.
    lagged: bool,
}

/// A subscriber's backlog.
pub(super) struct Backlog<K> {
    state: Mutex<State<K>>,
    more: Notify,
}

impl<K> Default for Backlog<K> {
    fn default() -> Self {
        let state = State { order: VecDeque::new(), pending: HashMap::new(), brief: 0, lagged: false };
        Self { state: Mutex::new(state), more: Notify::new() }
    }
}

impl<K> Backlog<K> {
    pub(super) fn put(&self, key: &Arc<str>, change: Change<K>) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if state.lagged {
            return;
        }
        match state.pending.get_mut(key) {
            Some(pending) => state.brief += usize::from(pending.fold(change)),
            None => {
                let mut pending = Pending::default();
                pending.fold(change);
                state.pending.insert(key.clone(), pending);
                state.order.push_back(key.clone());
            }
        }
        if state.order.len() + state.brief > LIMIT {
            *state = State { order: VecDeque::new(), pending: HashMap::new(), brief: 0, lagged: true };
        }
        drop(guard);
        self.more.notify_one();
    }

    /// The next change, where there is one.
    pub(super) fn try_take(&self) -> Option<Change<K>> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if std::mem::take(&mut state.lagged) {
            return Some(Change::Resync);
        }
        let key = state.order.front()?.clone();
        let pending = state.pending.get_mut(&key)?;
        let briefs = pending.brief.len();
        let change = pending.take();
        state.brief -= briefs - pending.brief.len();
        if pending.is_empty() {
            state.pending.remove(&key);
            state.order.pop_front();
        }
        change
    }

    /// The next change. Dropping the future loses nothing.
    pub(super) async fn take(&self) -> Change<K> {
        loop {
            if let Some(change) = self.try_take() {
                return change;
            }
            // A permit stays for a change that comes between the look and the wait.
            self.more.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(key: &str) -> Arc<str> {
        Arc::from(key)
    }

    fn applied(old: Option<u32>, new: u32) -> Change<u32> {
        Change::Applied { old: old.map(Arc::new), new: Arc::new(new) }
    }

    fn drain(backlog: &Backlog<u32>) -> Vec<String> {
        std::iter::from_fn(|| backlog.try_take())
            .map(|change| match change {
                Change::Applied { old, new } => format!("{:?}>{new}", old.as_deref()),
                Change::Deleted(old) => format!("-{old}"),
                Change::Resync => "resync".to_owned(),
            })
            .collect()
    }

    #[test]
    fn changes_of_an_object_are_told_as_one_and_objects_in_order() {
        let backlog = Backlog::default();
        backlog.put(&key("a"), applied(Some(1), 2));
        backlog.put(&key("b"), applied(None, 10));
        backlog.put(&key("a"), applied(Some(2), 3));
        assert_eq!(drain(&backlog), ["Some(1)>3", "None>10"]);
        backlog.put(&key("a"), applied(Some(3), 4));
        assert_eq!(drain(&backlog), ["Some(3)>4"], "what was told is told from");
    }

    #[test]
    fn who_went_and_came_again_is_told_as_both() {
        let backlog = Backlog::default();
        backlog.put(&key("a"), applied(Some(1), 2));
        backlog.put(&key("a"), Change::Deleted(Arc::new(2)));
        backlog.put(&key("a"), applied(None, 7));
        backlog.put(&key("a"), applied(Some(7), 8));
        assert_eq!(drain(&backlog), ["-2", "None>8"]);
        backlog.put(&key("a"), applied(Some(8), 9));
        backlog.put(&key("a"), Change::Deleted(Arc::new(9)));
        assert_eq!(drain(&backlog), ["-9"]);
        backlog.put(&key("a"), Change::Deleted(Arc::new(9)));
        for uid in [20, 30, 40] {
            backlog.put(&key("a"), applied(None, uid));
            backlog.put(&key("a"), Change::Deleted(Arc::new(uid)));
        }
        backlog.put(&key("a"), applied(None, 50));
        assert_eq!(drain(&backlog), ["-9", "-20", "-30", "-40", "None>50"], "whoever went is told");
    }

    #[test]
    fn a_deletion_taken_before_the_rest_loses_nothing() {
        let backlog = Backlog::default();
        backlog.put(&key("a"), Change::Deleted(Arc::new(1)));
        backlog.put(&key("a"), applied(None, 2));
        assert!(matches!(backlog.try_take(), Some(Change::Deleted(_))));
        backlog.put(&key("a"), applied(Some(2), 3));
        assert_eq!(drain(&backlog), ["None>3"]);
    }

    #[test]
    fn beyond_the_limit_everything_is_to_be_looked_at_again() {
        let backlog = Backlog::default();
        for i in 0..=LIMIT {
            backlog.put(&key(&i.to_string()), applied(None, 0));
        }
        backlog.put(&key("later"), applied(None, 1));
        assert_eq!(drain(&backlog), ["resync"]);
        backlog.put(&key("later"), applied(Some(1), 2));
        assert_eq!(drain(&backlog), ["Some(1)>2"], "what comes after the word counts again");
    }
}
