//! What extensions serve beside API servers is found by a Service that leads to all that live, and goes with the last.

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use minik8s_core::api::FOR_ALL_NAMESPACES;
use minik8s_core::client::{Client, DeleteOptions, ListOptions, PatchType};
use minik8s_core::cluster::{Cluster, Extension};
use minik8s_core::controllers::ControllerContext;
use minik8s_core::server::Sidecar;
use minik8s_core::store::MemoryStore;
use minik8s_core::testkit::wait;
use serde_json::json;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Notify;

const BOUND: Duration = Duration::from_secs(120);

/// Accepts connections and says nothing; breaks off when it is told to.
struct Silent(Arc<Notify>);

#[async_trait]
impl Sidecar for Silent {
    fn service(&self) -> &str {
        "silent"
    }

    fn port(&self) -> u16 {
        8080
    }

    fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], 0).into()
    }

    async fn serve(&self, listener: TcpListener, ctx: ControllerContext) {
        tokio::select! {
            biased;
            () = ctx.stop.cancelled() => {}
            () = self.0.notified() => {}
            () = async { while listener.accept().await.is_ok() {} } => {}
        }
    }
}

struct WithSilent(Arc<Notify>);

impl Extension for WithSilent {
    fn name(&self) -> &str {
        "silent"
    }

    fn sidecars(&self) -> Vec<Arc<dyn Sidecar>> {
        vec![Arc::new(Silent(self.0.clone()))]
    }
}

async fn with(store: &MemoryStore) -> (Cluster, Arc<Notify>) {
    let broken = Arc::new(Notify::new());
    let builder = Cluster::builder().store(Arc::new(store.clone())).without_controllers();
    (builder.extension(WithSilent(broken.clone())).start().await.unwrap(), broken)
}

async fn without(store: &MemoryStore) -> Cluster {
    Cluster::builder().store(Arc::new(store.clone())).without_controllers().start().await.unwrap()
}

async fn leads(client: &Client) -> BTreeSet<SocketAddr> {
    let mut found = BTreeSet::new();
    let slices = client.api::<EndpointSlice>("kube-system").list(&ListOptions::default()).await.unwrap().items;
    for slice in slices {
        let port = slice.ports.unwrap()[0].port.unwrap();
        found.extend(
            slice.endpoints.iter().map(|e| format!("{}:{port}", e.addresses[0]).parse::<SocketAddr>().unwrap()),
        );
    }
    found
}

async fn until_it_leads_to(client: &Client, count: usize, not: Option<SocketAddr>) -> BTreeSet<SocketAddr> {
    wait::until(&format!("the Service leads to {count}, and not to {not:?}"), BOUND, || async {
        let found = leads(client).await;
        (found.len() == count && not.is_none_or(|not| !found.contains(&not))).then_some(found)
    })
    .await
}

async fn service(client: &Client) -> Option<Service> {
    client.api::<Service>("kube-system").get_opt("silent").await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_service_leads_to_what_every_server_has_beside_it_and_goes_with_the_last() {
    let store = MemoryStore::new().shared();
    let (one, _keep) = with(&store).await;
    // Others permit requests of other namespaces too, and keep their Services.
    let foreign = json!({"metadata": {"name": "foreign", "labels": {FOR_ALL_NAMESPACES: "true"}},
        "spec": {"ports": [{"port": 80}]}});
    let foreign: Service = serde_json::from_value(foreign).unwrap();
    one.client().api::<Service>("kube-system").create(&foreign).await.unwrap();
    let first = *until_it_leads_to(&one.client(), 1, None).await.first().unwrap();
    let (two, _keep) = with(&store).await;
    assert!(until_it_leads_to(&two.client(), 2, None).await.contains(&first));
    let said = service(&two.client()).await.unwrap();
    assert_eq!(said.metadata.labels.unwrap()[FOR_ALL_NAMESPACES], "true");
    let spec = said.spec.unwrap();
    assert_eq!((spec.cluster_ip.as_deref(), spec.ports.unwrap()[0].port), (Some("None"), 8080));
    // A server without it takes nothing from the others, and one that stops says goodbye.
    let three = without(&store).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(leads(&three.client()).await.len(), 2);
    one.stop().await;
    until_it_leads_to(&two.client(), 1, Some(first)).await;
    // Where nobody has it any more, nothing leads there.
    two.stop().await;
    wait::until("the Service is gone", BOUND, || async { service(&three.client()).await.is_none().then_some(()) })
        .await;
    assert!(leads(&three.client()).await.is_empty());
    assert!(three.client().api::<Service>("kube-system").get_opt("foreign").await.unwrap().is_some());
    three.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_leads_there_comes_again_and_follows_to_where_it_is_started_anew() {
    let store = MemoryStore::new();
    let (one, broken) = with(&store).await;
    let client = one.client();
    let first = *until_it_leads_to(&client, 1, None).await.first().unwrap();
    let patch = json!({"metadata": {"labels": {FOR_ALL_NAMESPACES: null}}});
    client.api::<Service>("kube-system").patch("silent", PatchType::Merge, &patch).await.unwrap();
    let labelled = async || {
        wait::until("the Service says whom it is for", BOUND, || async {
            service(&client).await?.metadata.labels?.contains_key(FOR_ALL_NAMESPACES).then_some(())
        })
        .await;
    };
    labelled().await;
    client.api::<EndpointSlice>("kube-system").delete("silent", &DeleteOptions::default()).await.unwrap();
    client.api::<Service>("kube-system").delete("silent", &DeleteOptions::default()).await.unwrap();
    labelled().await;
    until_it_leads_to(&client, 1, None).await;
    broken.notify_one();
    until_it_leads_to(&client, 1, Some(first)).await;
    // A process that is gone said nothing to the next one, which takes its place on a store that nobody shares.
    drop(one);
    let next = without(&store).await;
    wait::until("the Service is gone", BOUND, || async { service(&next.client()).await.is_none().then_some(()) }).await;
    assert!(leads(&next.client()).await.is_empty());
    next.stop().await;
}
