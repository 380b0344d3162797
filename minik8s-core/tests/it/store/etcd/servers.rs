//! Two API servers, and two whole clusters, on one etcd.

use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Service};
use minik8s_core::client::{Client, ElectionConfig, TypedEvent, WatchOptions};
use minik8s_core::cluster::Cluster;
use minik8s_core::controllers::CONTROLLERS_LEASE;
use minik8s_core::server::{ApiServer, Settings};
use minik8s_core::testkit::etcd::Etcd;
use minik8s_core::testkit::need::{Need, met};
use minik8s_core::testkit::wait::until;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

const BOUND: Duration = Duration::from_secs(60);

fn decode<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

/// An API server with few addresses to give.
async fn server(etcd: &Etcd) -> Client {
    let settings = Settings { service_cidr: "10.96.0.0/24".parse().unwrap(), ..Settings::default() };
    let store = Arc::new(etcd.store("/servers").await);
    Client::new(ApiServer::builder(store).settings(settings).start().await.unwrap())
}

#[tokio::test]
async fn a_write_at_one_server_reaches_the_watchers_and_readers_of_the_other() {
    if !met(&[Need::Etcd]) {
        return;
    }
    let etcd = Etcd::start(1).await;
    let (one, other) = (server(&etcd).await, server(&etcd).await);
    let (mine, theirs) = (one.api::<ConfigMap>("default"), other.api::<ConfigMap>("default"));
    let mut watch = theirs.watch(&WatchOptions::default()).await.unwrap();
    for name in ["a", "b", "c"] {
        let map: ConfigMap = decode(json!({"metadata": {"name": name}, "data": {"from": "one"}}));
        let written = mine.create(&map).await.unwrap();
        // Read at once, and as new as what was acknowledged elsewhere.
        let read = theirs.get(name).await.unwrap();
        assert_eq!(read, written);
        let event = tokio::time::timeout(BOUND, watch.next()).await.unwrap().unwrap().unwrap();
        let TypedEvent::Added(seen) = event else { panic!("expected the object, got another event") };
        assert_eq!(seen, written);
    }
    // Based on the same version, one of two writes fails.
    let mut map = theirs.get("a").await.unwrap();
    map.data = Some([("from".to_owned(), "other".to_owned())].into());
    let again = map.clone();
    theirs.update(&map).await.unwrap();
    assert!(mine.update(&again).await.unwrap_err().is_conflict());
}

#[tokio::test]
async fn two_servers_never_give_out_the_same_address_or_port() {
    if !met(&[Need::Etcd]) {
        return;
    }
    let etcd = Etcd::start(1).await;
    let servers = [server(&etcd).await, server(&etcd).await];
    let create = |n: usize| {
        let services = servers[n % 2].api::<Service>("default");
        async move {
            let spec = json!({"type": "NodePort", "selector": {"app": "x"}, "ports": [{"port": 80}]});
            services.create(&decode(json!({"metadata": {"name": format!("s{n}")}, "spec": spec}))).await.unwrap()
        }
    };
    let made: Vec<Service> = futures::stream::iter((0..200).map(create)).buffer_unordered(32).collect().await;
    let spec = |service: &Service| service.spec.clone().unwrap();
    let addresses: BTreeSet<_> = made.iter().map(|s| spec(s).cluster_ip.unwrap()).collect();
    let ports: BTreeSet<_> = made.iter().map(|s| spec(s).ports.unwrap()[0].node_port.unwrap()).collect();
    assert_eq!((addresses.len(), ports.len()), (200, 200));
}

#[tokio::test]
async fn of_two_clusters_on_one_etcd_one_runs_the_loops_and_the_other_takes_over() {
    if !met(&[Need::Etcd]) {
        return;
    }
    let etcd = Etcd::start(1).await;
    let mut clusters = Vec::new();
    for name in ["n1", "n2"] {
        let store = Arc::new(etcd.store("/clusters").await);
        let election = ElectionConfig::new(CONTROLLERS_LEASE, name);
        clusters.push(Cluster::builder().store(store).election(election).fake_node(name).start().await.unwrap());
    }
    let client = clusters[1].client();
    let deployment = json!({"metadata": {"name": "web"}, "spec": {"replicas": 3, "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "x:1"}]}}}});
    let deployments = client.api::<k8s_openapi::api::apps::v1::Deployment>("default");
    deployments.create(&decode(deployment)).await.unwrap();
    let running = async |client: &Client| {
        let pods = client.api::<Pod>("default").list(&Default::default()).await.unwrap().items;
        let runs = |p: &&Pod| p.status.as_ref().is_some_and(|s| s.phase.as_deref() == Some("Running"));
        (pods.iter().filter(runs).count(), pods.len())
    };
    until("three pods run", BOUND, async || (running(&client).await == (3, 3)).then_some(())).await;
    let nodes = client.all::<Node>().list(&Default::default()).await.unwrap();
    assert_eq!(nodes.items.len(), 2);
    // The one that leads goes; what is asked of the other is done all the same.
    let holder = async |client: &Client| {
        let leases = client.api::<k8s_openapi::api::coordination::v1::Lease>("kube-system");
        leases.get(CONTROLLERS_LEASE).await.unwrap().spec.unwrap().holder_identity.unwrap()
    };
    let leader = usize::from(holder(&client).await == "n2");
    clusters.remove(leader).stop().await;
    let client = clusters[0].client();
    let scale = json!({"spec": {"replicas": 5}});
    let deployments = client.api::<k8s_openapi::api::apps::v1::Deployment>("default");
    deployments.patch("web", minik8s_core::client::PatchType::Merge, &scale).await.unwrap();
    until("two more pods are made", BOUND, async || (running(&client).await.1 == 5).then_some(())).await;
    assert_eq!(holder(&client).await, ["n2", "n1"][leader]);
    clusters.remove(0).stop().await;
}
