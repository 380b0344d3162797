//! One change of one object, as every watcher sees it from its own angle.

use super::Filter;
use crate::api::{Object, Revision, WatchEvent, WatchEventType};
use crate::server::encode;
use crate::store::Key;
use std::sync::{Arc, OnceLock};

/// An object before and after a commit. Shared by the history and all watchers.
pub(crate) struct Change {
    pub(crate) key: Key,
    pub(crate) revision: Revision,
    pub(crate) before: Option<Arc<Object>>,
    pub(crate) after: Option<Arc<Object>>,
    /// The old content with the new revision, made when the first watcher needs it.
    last: OnceLock<Arc<Object>>,
}

impl Change {
    pub(crate) fn new(key: Key, revision: Revision, before: Option<Arc<Object>>, after: Option<Arc<Object>>) -> Self {
        Self { key, revision, before, after, last: OnceLock::new() }
    }

    /// What a watcher with this filter is told. An object that leaves the selection counts as deleted, one that enters
    /// it as added.
    pub(crate) fn event(&self, filter: &Filter) -> Option<WatchEvent> {
        let was = self.before.as_ref().filter(|o| filter.matches(o));
        let is = self.after.as_ref().filter(|o| filter.matches(o));
        let (kind, object) = match (was, is) {
            (None, None) => return None,
            (None, Some(new)) => (WatchEventType::Added, new.clone()),
            (Some(_), Some(new)) => (WatchEventType::Modified, new.clone()),
            (Some(old), None) => (WatchEventType::Deleted, self.last_state(old)),
        };
        Some(WatchEvent::Object(kind, object))
    }

    fn last_state(&self, old: &Arc<Object>) -> Arc<Object> {
        self.last.get_or_init(|| Arc::new(encode::at_revision(old, self.revision))).clone()
    }
}
