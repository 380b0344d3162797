//! Reading one's own writes: a controller that has written must not decide again before its informer shows the write.

use super::Outcome;
use crate::api::Revision;
use crate::client::Informer;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

/// After this long an expectation is given up: the server may have lost its history.
const GIVE_UP: Duration = Duration::from_secs(300);

/// What to do where something is not seen yet: the change that shows it brings the key back, unless it was missed.
pub const UNSEEN: Outcome = Outcome::After(Duration::from_secs(10));

/// What was written for each key and must be seen before the next decision. Nothing is counted: a write carries its
/// revision, and an informer knows the revision up to which its copy is complete.
#[derive(Default)]
pub struct Expectations {
    pending: Mutex<HashMap<String, Pending>>,
}

#[derive(Clone)]
struct Pending {
    revision: Revision,
    /// Key and uid of deleted objects: the answer to a deletion may carry the revision before it.
    deleted: Vec<(String, String)>,
    since: Instant,
}

impl Default for Pending {
    fn default() -> Self {
        Self { revision: 0, deleted: Vec::new(), since: Instant::now() }
    }
}

impl Expectations {
    /// Notes that something was created or changed for `key`.
    pub fn wrote(&self, key: &str, revision: Revision) {
        let mut pending = self.pending.lock();
        let entry = pending.entry(key.to_owned()).or_default();
        entry.revision = entry.revision.max(revision);
        entry.since = Instant::now();
    }

    /// As [`wrote`](Self::wrote), with the revision as objects carry it.
    pub fn wrote_version(&self, key: &str, resource_version: Option<&str>) {
        if let Some(revision) = resource_version.and_then(|v| v.parse().ok()) {
            self.wrote(key, revision);
        }
    }

    /// Notes that an object, of that informer key and uid, was deleted for `key`.
    pub fn deleted(&self, key: &str, object: &str, uid: &str) {
        let mut pending = self.pending.lock();
        let entry = pending.entry(key.to_owned()).or_default();
        entry.deleted.push((object.to_owned(), uid.to_owned()));
        entry.since = Instant::now();
    }

    /// Forgets a key whose object is gone.
    pub fn forget(&self, key: &str) {
        self.pending.lock().remove(key);
    }

    /// True where `informer` shows everything that was written for `key`. `uid_if_live` tells the uid of a cached object
    /// that is not being deleted.
    pub fn seen<K: Send + Sync + 'static>(
        &self,
        key: &str,
        informer: &Informer<K>,
        uid_if_live: impl Fn(&K) -> Option<String>,
    ) -> bool {
        let Some(entry) = self.pending.lock().get(key).cloned() else { return true };
        let still_live = |(object, uid): &(String, String)| {
            informer.get(object).and_then(|o| uid_if_live(&o)).is_some_and(|live| live == *uid)
        };
        let seen = informer.revision() >= entry.revision && !entry.deleted.iter().any(still_live);
        if seen || entry.since.elapsed() > GIVE_UP {
            self.pending.lock().remove(key);
            return true;
        }
        false
    }
}
