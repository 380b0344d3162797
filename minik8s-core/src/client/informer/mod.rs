//! Informers: a local, indexed copy of a collection that follows the API.
//!
//! An informer lists once, then watches from there. A broken watch resumes from the last revision seen; where that is
//! no longer kept, the informer lists again and tells the difference. Each object is decoded once and shared.

mod backlog;
mod cache;
mod driver;
#[cfg(test)]
mod tests;

use super::{Api, ApiResource, SharedTransport};
use crate::api::{ApiResult, Object, Revision, Target};
use backlog::Backlog;
use cache::Cache;
use driver::{Driver, Source};
use parking_lot::{Mutex, RwLock};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

/// What an informer follows of its collection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct InformerOptions {
    /// `app=web,tier in (a,b)`; empty for all.
    pub label_selector: String,
    /// `spec.nodeName=n1`; empty for all.
    pub field_selector: String,
}

/// What happened to an object.
#[derive(Debug)]
pub enum Change<K> {
    /// It came to be, or changed.
    Applied {
        /// The version known before.
        old: Option<Arc<K>>,
        /// The version now.
        new: Arc<K>,
    },
    /// It went; this is the last version known.
    Deleted(Arc<K>),
    /// The subscriber lagged so far behind that it missed changes: look at the whole list again.
    Resync,
}

impl<K> Clone for Change<K> {
    fn clone(&self) -> Self {
        match self {
            Change::Applied { old, new } => Change::Applied { old: old.clone(), new: new.clone() },
            Change::Deleted(old) => Change::Deleted(old.clone()),
            Change::Resync => Change::Resync,
        }
    }
}

/// A local copy of a collection. Cheap to clone; the copy is followed until the last clone is dropped, or the token
/// that it was started with is cancelled. Keys are `namespace/name`, or the bare name of cluster-scoped objects.
pub struct Informer<K> {
    inner: Arc<Inner<K>>,
}

impl<K> Clone for Informer<K> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

struct Inner<K> {
    shared: Arc<Shared<K>>,
    stopped: CancellationToken,
    _stop: DropGuard,
}

/// What the driver writes and everyone else reads.
struct Shared<K> {
    cache: RwLock<Cache<K>>,
    subscribers: Mutex<Vec<Weak<Backlog<K>>>>,
    synced: watch::Sender<bool>,
    /// What the copy has caught up with; set after the copy.
    revision: AtomicU64,
    /// What subscribers were told all about; set after they were.
    told: AtomicU64,
}

impl<K: ApiResource> Informer<K> {
    /// Starts to follow the objects of `api`. Must be called within a Tokio runtime.
    pub fn start(api: Api<K>, options: InformerOptions, stop: CancellationToken) -> Self {
        let source = Source { transport: api.client().transport().clone(), target: api.target(), options };
        Self::spawn(source, |object| object.decode().map(Arc::new), stop)
    }
}

impl Informer<Object> {
    /// Starts to follow a collection without decoding more than metadata: for code that is about all kinds.
    pub fn start_objects(
        transport: SharedTransport,
        target: Target,
        options: InformerOptions,
        stop: CancellationToken,
    ) -> Self {
        Self::spawn(Source { transport, target, options }, |object| Ok(object.clone()), stop)
    }
}

impl<K: Send + Sync + 'static> Informer<K> {
    fn spawn(source: Source, decode: fn(&Arc<Object>) -> ApiResult<Arc<K>>, stop: CancellationToken) -> Self {
        let shared = Arc::new(Shared {
            cache: RwLock::default(),
            subscribers: Mutex::default(),
            synced: watch::Sender::new(false),
            revision: AtomicU64::new(0),
            told: AtomicU64::new(0),
        });
        let stopped = stop.child_token();
        tokio::spawn(Driver::new(source, decode, shared.clone()).run(stopped.clone()));
        let inner = Inner { shared, stopped: stopped.clone(), _stop: stopped.drop_guard() };
        Self { inner: Arc::new(inner) }
    }

    /// The object of that key.
    pub fn get(&self, key: &str) -> Option<Arc<K>> {
        self.inner.shared.cache.read().get(key)
    }

    /// All objects, in key order.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.inner.shared.cache.read().list()
    }

    /// The objects of one namespace, in key order.
    pub fn list_in(&self, namespace: &str) -> Vec<Arc<K>> {
        self.inner.shared.cache.read().list_in(namespace)
    }

    /// The objects that stand under `key` in an index; none where there is no such index.
    pub fn list_by(&self, index: &str, key: &str) -> Vec<Arc<K>> {
        self.inner.shared.cache.read().list_by(index, key)
    }

    /// Adds an index, now or later. Names are shared by everyone who shares the informer: the first of a name wins.
    pub fn add_index(&self, name: &'static str, keys: impl Fn(&K) -> Vec<String> + Send + Sync + 'static) {
        self.inner.shared.cache.write().add_index(name, Arc::new(keys));
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.inner.shared.cache.read().len()
    }

    /// True where there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Waits until the first list is in. False where the informer was stopped before.
    pub async fn synced(&self) -> bool {
        let mut synced = self.inner.shared.synced.subscribe();
        tokio::select! {
            biased;
            done = synced.wait_for(|done| *done) => done.is_ok(),
            () = self.inner.stopped.cancelled() => false,
        }
    }

    /// True once the first list is in.
    pub fn is_synced(&self) -> bool {
        *self.inner.shared.synced.borrow()
    }

    /// The copy shows every change up to this revision: whoever wrote at a revision can tell here whether the copy has
    /// seen it.
    pub fn revision(&self) -> Revision {
        self.inner.shared.revision.load(Ordering::Acquire)
    }

    /// The changes from now on, after they are in the copy. What is there already is not told: subscribe first, then
    /// [`list`](Self::list). Changes of an object that were not taken yet are told as one, from the version that was
    /// told last to the newest.
    pub fn subscribe(&self) -> Changes<K> {
        let backlog = Arc::new(Backlog::default());
        self.inner.shared.subscribers.lock().push(Arc::downgrade(&backlog));
        Changes { backlog, informer: self.clone() }
    }
}

impl<K> Shared<K> {
    /// Tells every subscriber, and forgets those that have gone.
    fn tell(&self, key: &Arc<str>, change: &Change<K>) {
        self.subscribers.lock().retain(|subscriber| match subscriber.upgrade() {
            Some(backlog) => {
                backlog.put(key, change.clone());
                true
            }
            None => false,
        });
    }
}

/// A bounded subscription to an informer's changes.
pub struct Changes<K> {
    backlog: Arc<Backlog<K>>,
    informer: Informer<K>,
}

impl<K: Send + Sync + 'static> Changes<K> {
    /// The next change, and `None` once the informer has stopped. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Change<K>> {
        tokio::select! {
            biased;
            change = self.backlog.take() => Some(change),
            () = self.informer.inner.stopped.cancelled() => None,
        }
    }

    /// The next change, where there is one now.
    pub fn try_next(&mut self) -> Option<Change<K>> {
        self.backlog.try_take()
    }

    /// Every change up to this revision was put into the subscription. Whoever asks, and then finds nothing more to take,
    /// has taken them all.
    pub fn told(&self) -> Revision {
        self.informer.inner.shared.told.load(Ordering::Acquire)
    }

    /// The informer it comes from.
    pub fn informer(&self) -> &Informer<K> {
        &self.informer
    }
}
