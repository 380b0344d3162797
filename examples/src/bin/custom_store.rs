//! A store of one's own: it wraps another and counts what is written by kind of object. It passes the same conformance
//! suite as the built-in ones, and a cluster runs on it.

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use anyhow::Result;
use async_trait::async_trait;
use k8s_openapi::api::core::v1::ConfigMap;
use minik8s_core::api::Revision;
use minik8s_core::cluster::Cluster;
use minik8s_core::store::{
    Commit, Entry, MemoryStore, Op, RangePage, RangeRequest, Store, StoreCapabilities, StoreError, WatchStart,
    WatchStream,
};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Counts the puts that reach the store within.
struct CountingStore<S> {
    within: S,
    puts: Mutex<BTreeMap<String, usize>>,
}

impl<S> CountingStore<S> {
    fn new(within: S) -> Self {
        Self { within, puts: Mutex::default() }
    }

    fn counts(&self) -> BTreeMap<String, usize> {
        self.puts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn count(&self, commit: &Commit) {
        let mut puts = self.puts.lock().unwrap_or_else(PoisonError::into_inner);
        for op in &commit.ops {
            // Keys read /registry/<group>/<resource>/…
            if let Op::Put { key, .. } = op
                && let Some(resource) = key.split('/').nth(3)
            {
                *puts.entry(resource.to_owned()).or_default() += 1;
            }
        }
    }
}

#[async_trait]
impl<S: Store> Store for CountingStore<S> {
    fn capabilities(&self) -> StoreCapabilities {
        self.within.capabilities()
    }

    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        self.within.get(key).await
    }

    async fn range(&self, request: RangeRequest) -> Result<RangePage, StoreError> {
        self.within.range(request).await
    }

    async fn commit(&self, commit: Commit) -> Result<Revision, StoreError> {
        let revision = self.within.commit(commit.clone()).await?;
        self.count(&commit);
        Ok(revision)
    }

    async fn watch(&self, prefix: &str, start: WatchStart) -> Result<WatchStream, StoreError> {
        self.within.watch(prefix, start).await
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.within.compact(revision).await
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        self.within.revision().await
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let store = Arc::new(CountingStore::new(MemoryStore::default()));
    let cluster = Cluster::builder().store(store.clone()).start().await?;
    let maps = cluster.client().api::<ConfigMap>("default");
    for i in 0..5 {
        let map: ConfigMap = serde_json::from_value(serde_json::json!({"metadata": {"name": format!("map-{i}")}}))?;
        maps.create(&map).await?;
    }
    cluster.stop().await;
    for (resource, puts) in store.counts() {
        println!("{resource}: {puts} written");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn passes_the_suite() {
        let open = || async { Arc::new(CountingStore::new(MemoryStore::default())) as Arc<dyn Store> };
        minik8s_core::testkit::store::run_all(open).await;
    }
}
