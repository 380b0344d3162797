//! What every store of this crate has in common: the map with its history, the watchers, the checking of commits and
//! expiry. The stores differ only in what they do between deciding a commit and applying it: the memory store nothing,
//! the embedded one a durable log.

mod expiry;
mod hub;
mod limits;
mod plan;
mod ring;
mod slot;
mod state;

pub use limits::Limits;

pub(super) use expiry::Expiry;
pub(super) use hub::Wake;
pub(super) use plan::{Overlay, Plan, View, plan, validate, validate_prefix};
#[cfg(feature = "etcd")]
pub(super) use state::narrow;
pub(super) use state::{Change, State};

use super::{
    Commit, Entry, RangePage, RangeRequest, StoreCapabilities, StoreError, WatchBatch, WatchStart, WatchStream,
};
use crate::api::Revision;
use futures::StreamExt;
use hub::Hub;
use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::collections::VecDeque;
use std::sync::Arc;

/// Largest value, as in etcd.
const MAX_VALUE: usize = 3 << 19;

/// State, watchers and expiry of one store.
pub(super) struct Engine {
    /// Locked before the hub. Held for writing while a commit is applied and queued for watchers, never across a wait.
    state: RwLock<State>,
    hub: Arc<Hub>,
    pub(super) expiry: Arc<Expiry>,
    limits: Limits,
}

impl Engine {
    pub(super) fn new(state: State, limits: Limits) -> Self {
        Self { state: RwLock::new(state), hub: Arc::default(), expiry: Arc::default(), limits }
    }

    pub(super) fn capabilities(&self, durable: bool) -> StoreCapabilities {
        StoreCapabilities {
            durable,
            history: true,
            expiry: true,
            shared: false,
            max_value: MAX_VALUE,
            max_ops: usize::MAX,
        }
    }

    pub(super) fn validate(&self, commit: &Commit) -> Result<(), StoreError> {
        validate(commit, MAX_VALUE)
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read()
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write()
    }

    pub(super) fn get(&self, key: &str) -> Option<Entry> {
        self.state.read().get(key)
    }

    pub(super) fn range(&self, request: &RangeRequest) -> Result<RangePage, StoreError> {
        validate_prefix(&request.prefix)?;
        self.state.read().range(request)
    }

    pub(super) fn revision(&self) -> Revision {
        self.state.read().revision()
    }

    pub(super) fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.state.write().compact(revision)
    }

    /// Starts a watch: what it missed and its place among the watchers are fixed under one lock, so nothing falls between.
    pub(super) fn watch(&self, prefix: &str, start: WatchStart) -> Result<WatchStream, StoreError> {
        validate_prefix(prefix)?;
        let state = self.state.read();
        let backlog = match start {
            WatchStart::Now => VecDeque::new(),
            WatchStart::After(revision) => state.since(prefix, revision)?,
            WatchStart::Initial => VecDeque::from([state.initial(prefix)]),
        };
        Ok(self.hub.join(prefix, backlog, state.revision()).boxed())
    }

    /// Applies a decided commit and queues it for its watchers, who are to be woken when the lock is gone.
    pub(super) fn apply(&self, state: &mut State, plan: Plan) -> Wake {
        let batch: WatchBatch = state.apply(plan.revision, plan.changes);
        state.trim(&self.limits);
        for (key, lifetime) in plan.lifetimes {
            self.expiry.add(key, plan.revision, lifetime);
        }
        self.hub.publish(&batch, &self.limits)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.expiry.close();
        self.hub.close();
    }
}
