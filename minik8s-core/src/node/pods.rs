//! The pods this agent works on: one handle each, through which everyone wakes its worker.

use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::Notify;

/// The handles, by uid.
#[derive(Default)]
pub(crate) struct Pods(Mutex<HashMap<String, Arc<PodHandle>>>);

/// How a worker learns of the world. News overwrite older news: only the present counts.
pub(crate) struct PodHandle {
    slot: Mutex<Slot>,
    pub(crate) wake: Notify,
}

/// What is new for a worker.
#[derive(Clone)]
pub(crate) struct Slot {
    pub(crate) pod: Arc<Pod>,
    /// The record has gone from the API.
    pub(crate) gone: bool,
    /// The record, or an object it refers to, has changed since the worker last looked.
    pub(crate) changed: bool,
    /// The runtime's sandboxes should be listed again.
    pub(crate) doubt: bool,
    /// It takes more of the node than it may: why it has to go.
    pub(crate) evicted: Option<String>,
}

impl PodHandle {
    pub(crate) fn new(pod: Arc<Pod>) -> Arc<Self> {
        let slot = Slot { pod, gone: false, changed: false, doubt: false, evicted: None };
        Arc::new(Self { slot: Mutex::new(slot), wake: Notify::new() })
    }

    pub(crate) fn edit(&self, edit: impl FnOnce(&mut Slot)) {
        edit(&mut self.slot.lock());
        self.wake.notify_one();
    }

    /// The present state; the marks are taken down.
    pub(crate) fn look(&self) -> Slot {
        let mut slot = self.slot.lock();
        let seen = slot.clone();
        (slot.changed, slot.doubt) = (false, false);
        seen
    }

    /// A look that came to nothing: what it took down is marked again, and wakes nobody.
    pub(crate) fn put_back(&self, seen: &Slot) {
        let mut slot = self.slot.lock();
        slot.changed |= seen.changed;
        slot.doubt |= seen.doubt;
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.slot.lock().gone
    }

    pub(crate) fn pod(&self) -> Arc<Pod> {
        self.slot.lock().pod.clone()
    }
}

impl Pods {
    pub(crate) fn get(&self, uid: &str) -> Option<Arc<PodHandle>> {
        self.0.lock().get(uid).cloned()
    }

    pub(crate) fn insert(&self, uid: &str, handle: Arc<PodHandle>) {
        self.0.lock().insert(uid.to_owned(), handle);
    }

    pub(crate) fn remove(&self, uid: &str) {
        self.0.lock().remove(uid);
    }

    pub(crate) fn all(&self) -> Vec<Arc<PodHandle>> {
        self.0.lock().values().cloned().collect()
    }

    /// Lets a pod's worker look again.
    pub(crate) fn wake(&self, uid: &str) {
        if let Some(handle) = self.get(uid) {
            handle.wake.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[test]
    fn the_marks_of_a_look_that_failed_come_back_without_waking() {
        let handle = PodHandle::new(Arc::default());
        handle.edit(|slot| slot.changed = true);
        handle.wake.notified().now_or_never().unwrap();
        let seen = handle.look();
        assert!(seen.changed && !handle.look().changed);
        handle.put_back(&seen);
        assert!(handle.wake.notified().now_or_never().is_none());
        let again = handle.look();
        assert!(again.changed && !again.doubt);
    }
}
