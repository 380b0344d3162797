//! Who follows a resource. Watchers that ask for one exact value of a field are found by it, so that a node's watch
//! costs nothing when another node's pod changes.

use super::change::Change;
use super::filter::{Filter, field};
use super::ring::Sequence;
use crate::api::WatchEvent;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::mpsc;

/// An event, and where the change that it tells of stands.
pub(crate) struct Queued {
    pub(crate) event: WatchEvent,
    pub(crate) sequence: Sequence,
}

struct Follower {
    filter: Arc<Filter>,
    queue: mpsc::Sender<Queued>,
}

/// Names a watcher.
pub(crate) type Id = u64;

/// The watchers that are up to date.
#[derive(Default)]
pub(crate) struct Fanout {
    next: Id,
    followers: HashMap<Id, Follower>,
    unindexed: Vec<Id>,
    by_field: HashMap<String, HashMap<String, Vec<Id>>>,
}

impl Fanout {
    /// Adds a watcher, which gets every matching change from now on, until its queue is full.
    pub(crate) fn join(&mut self, filter: Arc<Filter>, capacity: usize) -> (Id, mpsc::Receiver<Queued>) {
        let (queue, events) = mpsc::channel(capacity.max(1));
        let id = self.next;
        self.next += 1;
        match filter.trigger() {
            Some((path, value)) => {
                let values = self.by_field.entry(path.to_owned()).or_default();
                values.entry(value.to_owned()).or_default().push(id);
            }
            None => self.unindexed.push(id),
        }
        self.followers.insert(id, Follower { filter, queue });
        (id, events)
    }

    /// Hands a change to everyone it concerns. Whoever has no room, or is gone, is dropped: closing the queue tells
    /// it to catch up from the history.
    pub(crate) fn tell(&mut self, change: &Change, sequence: Sequence) {
        if self.followers.is_empty() {
            return;
        }
        let mut lost = Vec::new();
        for id in self.concerned(change) {
            let Some(follower) = self.followers.get(&id) else { continue };
            let Some(event) = change.event(&follower.filter) else { continue };
            if follower.queue.try_send(Queued { event, sequence }).is_err() {
                lost.push(id);
            }
        }
        for id in lost {
            self.leave(id);
        }
    }

    fn concerned(&self, change: &Change) -> Vec<Id> {
        let mut ids = self.unindexed.clone();
        for (path, values) in &self.by_field {
            let was = change.before.as_ref().and_then(|o| field(o, path));
            let is = change.after.as_ref().and_then(|o| field(o, path));
            let found = |value: Option<&str>| value.and_then(|v| values.get(v)).into_iter().flatten();
            ids.extend(found(is));
            if was != is {
                ids.extend(found(was));
            }
        }
        ids
    }

    /// Forgets a watcher.
    pub(crate) fn leave(&mut self, id: Id) {
        let Some(follower) = self.followers.remove(&id) else { return };
        let Some((path, value)) = follower.filter.trigger() else {
            return self.unindexed.retain(|other| *other != id);
        };
        let Some(values) = self.by_field.get_mut(path) else { return };
        if let Some(ids) = values.get_mut(value) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                values.remove(value);
            }
        }
        if values.is_empty() {
            self.by_field.remove(path);
        }
    }
}
