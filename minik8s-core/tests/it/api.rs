//! The API server under the conformance suite of the API: on each store, with faults that must not show, and over gRPC.

use minik8s_core::server::ApiServer;
use minik8s_core::store::{EmbeddedStore, FaultRates, FaultStore, MemoryStore, Store};
use minik8s_core::testkit::api::run_all;
use minik8s_core::testkit::grpc;
use std::sync::Arc;
use std::time::Duration;

async fn server(store: Arc<dyn Store>) -> Arc<ApiServer> {
    ApiServer::builder(store).seed(1).start().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_passes_the_suite_in_process() {
    run_all(server(Arc::new(MemoryStore::new())).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_passes_the_suite_over_grpc() {
    let server = server(Arc::new(MemoryStore::new())).await;
    run_all(Arc::new(grpc::in_memory(server))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_passes_the_suite_on_the_embedded_store() {
    let directory = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(directory.path()).await.unwrap();
    run_all(server(Arc::new(store)).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delays_cut_watches_and_lost_answers_of_the_store_do_not_show() {
    let rates =
        FaultRates { lose_reply: 0.1, cut_watch: 0.02, delay: Duration::from_millis(3), ..FaultRates::default() };
    for seed in [1, 2] {
        let store = FaultStore::seeded(Arc::new(MemoryStore::new()), seed, FaultRates::default());
        let server = server(Arc::new(store.clone())).await;
        store.set_rates(rates);
        run_all(server).await;
    }
}
