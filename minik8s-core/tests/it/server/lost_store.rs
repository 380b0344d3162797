//! An API server that lives but cannot follow its store any more.

use k8s_openapi::api::core::v1::Namespace;
use minik8s_core::client::{Client, GrpcConfig, GrpcTransport, Servers};
use minik8s_core::server::auth::User;
use minik8s_core::store::{FaultRates, FaultStore, MemoryStore};
use minik8s_core::testkit::served::Served;
use minik8s_core::testkit::wait;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

const BOUND: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_server_that_lost_its_store_sends_those_away_who_would_see_what_is_old() {
    let memory = MemoryStore::new().shared();
    let faults = FaultStore::new(Arc::new(memory.clone()));
    let patience = Duration::from_millis(200);
    let lost = Served::start_on(Arc::new(faults.clone()), None, |builder| builder.store_patience(patience)).await;
    let other = Served::start_on(Arc::new(memory), Some(&lost.pki), |builder| builder).await;
    let others = Servers::new([format!("https://{}", other.address)]);
    let config = GrpcConfig { others, ..lost.grpc_config(&User::new("root", &["system:masters"])) };
    let client = Client::new(Arc::new(GrpcTransport::new(&config).unwrap()));
    let kept = client.clone();
    client.all::<Namespace>().get("default").await.unwrap();
    faults.set_rates(FaultRates { refuse: 1.0, ..FaultRates::default() });
    faults.cut_watches();
    let news = serde_json::from_value(json!({"metadata": {"name": "news"}})).unwrap();
    Client::new(other.server.clone()).all::<Namespace>().create(&news).await.unwrap();
    // Only the other server can know of it.
    let known = async || kept.all::<Namespace>().get("news").await.ok().map(drop);
    wait::until("the client is at the other server", BOUND, known).await;
    faults.heal();
    let known = async || Client::new(lost.server.clone()).all::<Namespace>().get("news").await.ok().map(drop);
    wait::until("the first has found the store", BOUND, known).await;
    let config = lost.grpc_config(&User::new("root", &["system:masters"]));
    let back = Client::new(Arc::new(GrpcTransport::new(&config).unwrap()));
    let taken = async || back.all::<Namespace>().get("news").await.ok().map(drop);
    wait::until("the first takes clients again", BOUND, taken).await;
}
