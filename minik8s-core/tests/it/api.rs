//! The API server under the conformance suite of the API.

use minik8s_core::server::ApiServer;
use minik8s_core::store::MemoryStore;
use minik8s_core::testkit::api::run_all;
use std::sync::Arc;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_passes_the_suite_in_process() {
    let server = ApiServer::builder(Arc::new(MemoryStore::new())).seed(1).start().await.unwrap();
    run_all(server).await;
}
