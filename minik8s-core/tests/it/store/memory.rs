//! The memory store under the suite.

use minik8s_core::store::{MemoryStore, Store};
use minik8s_core::testkit::store::run_all;
use std::sync::Arc;

#[tokio::test]
async fn memory_store_conforms() {
    run_all(|| async { Arc::new(MemoryStore::new()) as Arc<dyn Store> }).await;
}
