//! The watch cache: the newest version of every object, and the recent changes, in front of the store.
//!
//! One pump follows the whole store and feeds one [`ResourceCache`] per stored resource, so that every commit moves
//! all of them: a reader who needs the state at some revision waits for [`Progress`] and then reads memory. Objects
//! are kept once, as `Arc<Object>`; lists, watchers and the history share them. Nothing here writes to the store.

mod change;
mod fanout;
mod filter;
mod objects;
mod page;
mod progress;
mod pump;
mod resource;
mod ring;
mod watcher;

pub(crate) use filter::Filter;
pub(crate) use page::{Page, PageRequest};
pub(crate) use progress::Progress;
pub(crate) use pump::Pump;
pub(crate) use resource::{ResourceCache, StoredResource};
pub(crate) use watcher::{WatchPlan, WatchStartAt, Watcher};

use super::encode::Fields;
use crate::api::{Meta, Revision};
use crate::store::Key;
use arc_swap::ArcSwap;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Sizes and times of the watch cache.
#[derive(Clone, Copy, Debug)]
pub struct WatchSettings {
    /// How many changes of each resource are kept for watches that resume.
    pub history: usize,
    /// How many events wait for one watcher before it has to catch up from the history.
    pub queue: usize,
    /// How often watchers that asked for bookmarks get one.
    pub bookmark_every: Duration,
    /// How long a read waits for the cache to reach the revision it needs.
    pub read_wait: Duration,
}

impl Default for WatchSettings {
    fn default() -> Self {
        Self { history: 4096, queue: 256, bookmark_every: Duration::from_secs(60), read_wait: Duration::from_secs(10) }
    }
}

/// What a writer knows about the bytes it is about to commit, so that the pump need not decode them again.
pub(crate) struct Prepared {
    pub(crate) stored: Bytes,
    pub(crate) meta: Meta,
    pub(crate) fields: Fields,
}

/// All caches, by the prefix of their keys.
pub(crate) struct Caches {
    by_prefix: ArcSwap<HashMap<String, Arc<ResourceCache>>>,
    pub(crate) progress: Progress,
    prepared: Mutex<HashMap<Key, Prepared>>,
    pub(crate) settings: WatchSettings,
    /// The store is being followed; false while its watch is broken.
    following: watch::Sender<bool>,
}

impl Caches {
    pub(crate) fn new(resources: impl IntoIterator<Item = StoredResource>, settings: WatchSettings) -> Self {
        let caches = resources.into_iter().map(|r| (r.prefix.clone(), Arc::new(ResourceCache::new(r, &settings))));
        Self {
            by_prefix: ArcSwap::from_pointee(caches.collect()),
            progress: Progress::default(),
            prepared: Mutex::default(),
            settings,
            following: watch::Sender::new(false),
        }
    }

    /// Whether what happens in the store arrives here.
    pub(crate) fn follows(&self) -> bool {
        *self.following.borrow()
    }

    /// Tells when that changes.
    pub(crate) fn following(&self) -> watch::Receiver<bool> {
        self.following.subscribe()
    }

    fn set_following(&self, following: bool) {
        self.following.send_replace(following);
    }

    /// The cache of the keys under `prefix`.
    pub(crate) fn get(&self, prefix: &str) -> Option<Arc<ResourceCache>> {
        self.by_prefix.load().get(prefix).cloned()
    }

    /// All caches.
    pub(crate) fn all(&self) -> Arc<HashMap<String, Arc<ResourceCache>>> {
        self.by_prefix.load_full()
    }

    /// Leaves what is known about a value for the pump. The guard takes it back.
    pub(crate) fn prepare(&self, key: Key, prepared: Prepared) -> PreparedGuard<'_> {
        self.prepared.lock().insert(key.clone(), prepared);
        PreparedGuard { caches: self, key }
    }

    /// What a writer left about these very bytes.
    fn take_prepared(&self, key: &Key, value: &Bytes) -> Option<Prepared> {
        let mut all = self.prepared.lock();
        if all.get(key).is_some_and(|p| p.stored == *value) { all.remove(key) } else { None }
    }

    /// The newest revision all caches have reached.
    pub(crate) fn reached(&self) -> Revision {
        self.progress.reached()
    }
}

/// Removes what [`Caches::prepare`] left, where the pump did not take it.
pub(crate) struct PreparedGuard<'a> {
    caches: &'a Caches,
    key: Key,
}

impl Drop for PreparedGuard<'_> {
    fn drop(&mut self) {
        self.caches.prepared.lock().remove(&self.key);
    }
}
