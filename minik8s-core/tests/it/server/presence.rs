//! The Service `kubernetes` leads to the API servers that live, and to no other.

use k8s_openapi::api::core::v1::Endpoints;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use minik8s_core::client::{Client, ListOptions};
use minik8s_core::server::ApiServer;
use minik8s_core::store::MemoryStore;
use minik8s_core::testkit::wait;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

async fn server(store: &MemoryStore, address: &str) -> (Arc<ApiServer>, CancellationToken) {
    let builder = ApiServer::builder(Arc::new(store.clone())).advertise(address.parse().unwrap());
    let (server, stop) = (builder.start().await.unwrap(), CancellationToken::new());
    let (present, ending) = (server.clone(), stop.clone());
    tokio::spawn(async move { present.keep_presence(ending).await });
    (server, stop)
}

/// Where the Service leads, by either kind of endpoints.
async fn leads(server: &Arc<ApiServer>) -> [BTreeSet<String>; 2] {
    let client = Client::new(server.clone());
    let endpoints = client.api::<Endpoints>("default").get("kubernetes").await.unwrap();
    let mut found = [BTreeSet::new(), BTreeSet::new()];
    for subset in endpoints.subsets.into_iter().flatten() {
        let port = subset.ports.unwrap()[0].port;
        found[0].extend(subset.addresses.unwrap().iter().map(|address| format!("{}:{port}", address.ip)));
    }
    for slice in client.api::<EndpointSlice>("default").list(&ListOptions::default()).await.unwrap().items {
        let port = slice.ports.unwrap()[0].port.unwrap();
        found[1].extend(slice.endpoints.iter().map(|endpoint| format!("{}:{port}", endpoint.addresses[0])));
    }
    found
}

async fn versions(server: &Arc<ApiServer>) -> Vec<Option<String>> {
    let client = Client::new(server.clone());
    let endpoints = client.api::<Endpoints>("default").get("kubernetes").await.unwrap();
    let slices = client.api::<EndpointSlice>("default").list(&ListOptions::default()).await.unwrap().items;
    let metas = std::iter::once(endpoints.metadata).chain(slices.into_iter().map(|slice| slice.metadata));
    metas.map(|meta| meta.resource_version).collect()
}

async fn until_it_leads_to(server: &Arc<ApiServer>, wanted: &[&str]) {
    let wanted: BTreeSet<String> = wanted.iter().map(|address| (*address).to_owned()).collect();
    wait::until(&format!("the Service leads to {wanted:?}"), Duration::from_secs(60), || async {
        leads(server).await.iter().all(|found| *found == wanted).then_some(())
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn it_leads_to_every_server_that_lives_and_to_the_last_one_for_ever() {
    let store = MemoryStore::new().shared();
    let (one, stop_one) = server(&store, "10.0.0.1:6443").await;
    let (two, stop_two) = server(&store, "10.0.0.2:6443").await;
    let (three, stop_three) = server(&store, "10.0.0.3:7443").await;
    until_it_leads_to(&one, &["10.0.0.1:6443", "10.0.0.2:6443", "10.0.0.3:7443"]).await;
    // It stays that way, each word is renewed in time, and nothing is written that says the same.
    tokio::time::sleep(Duration::from_secs(20)).await;
    let before = versions(&one).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(versions(&one).await, before);
    until_it_leads_to(&two, &["10.0.0.1:6443", "10.0.0.2:6443", "10.0.0.3:7443"]).await;
    // One says goodbye, one is never heard of again.
    stop_three.cancel();
    until_it_leads_to(&two, &["10.0.0.1:6443", "10.0.0.2:6443"]).await;
    one.shutdown();
    drop((one, three, stop_one));
    until_it_leads_to(&two, &["10.0.0.2:6443"]).await;
    stop_two.cancel();
    tokio::time::sleep(Duration::from_secs(120)).await;
    until_it_leads_to(&two, &["10.0.0.2:6443"]).await;
}

#[tokio::test(start_paused = true)]
async fn addresses_of_either_family_come_and_go() {
    let store = MemoryStore::new().shared();
    let (four, stop_four) = server(&store, "10.0.0.1:6443").await;
    let (six, _stop_six) = server(&store, "[fd00::1]:6443").await;
    until_it_leads_to(&six, &["10.0.0.1:6443", "fd00::1:6443"]).await;
    stop_four.cancel();
    until_it_leads_to(&six, &["fd00::1:6443"]).await;
    four.shutdown();
    let (again, _stop) = server(&store, "10.0.0.1:6443").await;
    until_it_leads_to(&again, &["10.0.0.1:6443", "fd00::1:6443"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_server_alone_on_its_store_writes_its_address_once() {
    let store = MemoryStore::new();
    let (one, _stop) = server(&store, "10.0.0.1:6443").await;
    until_it_leads_to(&one, &["10.0.0.1:6443"]).await;
    let before = minik8s_core::store::Store::revision(&store).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(minik8s_core::store::Store::revision(&store).await.unwrap(), before);
}
