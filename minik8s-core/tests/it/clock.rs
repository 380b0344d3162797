//! The clock of a cluster jumps: what was promised by the clock must not end, and nobody may be taken for dead.

use jiff::SignedDuration;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use minik8s_core::client::ListOptions;
use minik8s_core::clock::ManualClock;
use minik8s_core::cluster::Cluster;
use minik8s_core::testkit::wait;
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

const BOUND: Duration = Duration::from_secs(60);

async fn pods(cluster: &Cluster) -> Option<BTreeSet<String>> {
    let pods = cluster.client().api::<Pod>("default").list(&ListOptions::default()).await.ok()?.items;
    let ready = |pod: &Pod| pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Running");
    pods.iter().all(ready).then(|| pods.iter().filter_map(|pod| pod.metadata.uid.clone()).collect())
}

async fn ready(cluster: &Cluster) -> usize {
    let nodes = cluster.client().all::<Node>().list(&ListOptions::default()).await.unwrap().items;
    let is_ready = |node: &Node| {
        let conditions = node.status.iter().flat_map(|s| s.conditions.iter().flatten());
        conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True")
    };
    nodes.iter().filter(|node| is_ready(node)).count()
}

#[tokio::test]
async fn an_hour_forward_and_back_ends_nothing() {
    let clock = Arc::new(ManualClock::new("2026-01-01T12:00:00Z".parse().unwrap()));
    let cluster = Cluster::builder().clock(clock.clone()).fake_node("n1").fake_node("n2").start().await.unwrap();
    let deployment = json!({"metadata": {"name": "web"}, "spec": {"replicas": 4, "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    let deployment: Deployment = serde_json::from_value(deployment).unwrap();
    cluster.client().api::<Deployment>("default").create(&deployment).await.unwrap();
    let before = wait::until("four pods run", BOUND, || async { pods(&cluster).await.filter(|p| p.len() == 4) }).await;
    for (name, hours) in [("forward", 1), ("back", -2), ("again", 1)] {
        clock.advance(SignedDuration::from_hours(hours));
        // An hour is more than any grace: whoever believed the clock would act on it at once.
        let map = json!({"metadata": {"name": name}, "data": {}});
        cluster.client().api::<ConfigMap>("default").create(&serde_json::from_value(map).unwrap()).await.unwrap();
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(ready(&cluster).await, 2, "after the jump {name}");
        assert_eq!(pods(&cluster).await, Some(before.clone()), "after the jump {name}");
    }
    let scaled = json!({"spec": {"replicas": 6}});
    let api = cluster.client().api::<Deployment>("default");
    api.patch("web", minik8s_core::client::PatchType::Merge, &scaled).await.unwrap();
    wait::until("six pods run", BOUND, || async { pods(&cluster).await.filter(|p| p.len() == 6) }).await;
    cluster.stop().await;
}
