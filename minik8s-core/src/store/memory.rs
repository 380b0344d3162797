//! A store that lives and dies with its process: for tests, simulations and clusters that need not survive a restart.

use super::engine::{Engine, State, plan};
use super::{
    Commit, Entry, Limits, Op, RangePage, RangeRequest, Store, StoreCapabilities, StoreError, WatchStart, WatchStream,
};
use crate::api::Revision;
use async_trait::async_trait;
use std::sync::Arc;

/// Keeps everything in memory. Cloning gives another handle to the same store.
///
/// ```
/// use minik8s_core::store::{Commit, MemoryStore, Op, Store};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), minik8s_core::store::StoreError> {
/// let store = MemoryStore::new();
/// let put = Op::Put { key: "/registry/pods/default/web-0".into(), value: "{}".into(), ttl: None };
/// let revision = store.commit(Commit { when: vec![], ops: vec![put] }).await?;
/// let entry = store.get("/registry/pods/default/web-0").await?;
/// assert_eq!(entry.map(|e| e.revision), Some(revision));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct MemoryStore {
    engine: Arc<Engine>,
    shared: bool,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::with_limits(Limits::default())
    }

    /// An empty store with other bounds than the default ones.
    pub fn with_limits(limits: Limits) -> Self {
        Self { engine: Arc::new(Engine::new(State::new(), limits)), shared: false }
    }

    /// Says that several control planes in this process use the store, each by a handle of its own, so that they agree
    /// on who leads and know of each other.
    #[must_use]
    pub fn shared(self) -> Self {
        Self { shared: true, ..self }
    }

    /// Sees to it that lifetimes of this commit end.
    fn start_expiry(&self, commit: &Commit) -> Result<(), StoreError> {
        if !commit.ops.iter().any(|op| matches!(op, Op::Put { ttl: Some(_), .. })) {
            return Ok(());
        }
        let engine = Arc::downgrade(&self.engine);
        self.engine.expiry.start(move |commit| {
            let engine = engine.upgrade()?;
            Some(async move { commit_now(&engine, &commit) })
        })
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

fn commit_now(engine: &Engine, commit: &Commit) -> Result<Revision, StoreError> {
    let mut state = engine.write();
    let Some(plan) = plan(&*state, commit)? else { return Ok(state.revision()) };
    let revision = plan.revision;
    let wake = engine.apply(&mut state, plan);
    drop(state);
    wake.wake();
    Ok(revision)
}

#[async_trait]
impl Store for MemoryStore {
    fn capabilities(&self) -> StoreCapabilities {
        StoreCapabilities { shared: self.shared, ..self.engine.capabilities(false) }
    }

    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        Ok(self.engine.get(key))
    }

    async fn range(&self, request: RangeRequest) -> Result<RangePage, StoreError> {
        self.engine.range(&request)
    }

    async fn commit(&self, commit: Commit) -> Result<Revision, StoreError> {
        self.engine.validate(&commit)?;
        self.start_expiry(&commit)?;
        commit_now(&self.engine, &commit)
    }

    async fn watch(&self, prefix: &str, start: WatchStart) -> Result<WatchStream, StoreError> {
        self.engine.watch(prefix, start)
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.engine.compact(revision)
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        Ok(self.engine.revision())
    }
}
