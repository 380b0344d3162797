//! Near some pods and away from others, on a cluster.

use super::*;
use minik8s_core::client::PatchType;

const ZONE: &str = "topology.kubernetes.io/zone";
const HOST: &str = "kubernetes.io/hostname";

fn required(kind: &str, key: &str, more: Value) -> Value {
    let mut term = json!({"topologyKey": key, "labelSelector": {"matchLabels": {"app": "db"}}});
    term.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}})
}

#[tokio::test(start_paused = true)]
async fn pods_are_placed_by_what_runs_where_and_wait_until_it_does() {
    let world = World::new(&[("node-1", "a"), ("node-2", "b")]).await;
    world.pod("near", "web", required("podAffinity", ZONE, json!({}))).await;
    world.refused("near", "0/2 nodes are available: 2 node(s) didn't match pod affinity rules.").await;
    let alone = required("podAntiAffinity", HOST, json!({}));
    world.pod("db-1", "db", alone.clone()).await;
    let first = world.place_of("db-1").await;
    assert_eq!(world.place_of("near").await, first, "the zones have one node each");
    world.pod("db-2", "db", alone.clone()).await;
    assert_ne!(world.place_of("db-2").await, first);
    world.pod("db-3", "db", alone).await;
    world.refused("db-3", "0/2 nodes are available: 2 node(s) didn't match pod anti-affinity rules.").await;
    world.pod("db-4", "db", json!({})).await;
    world.refused("db-4", "0/2 nodes are available: 2 node(s) didn't satisfy existing pods anti-affinity rules.").await;
    world.client.api::<Pod>("default").delete("db-2", &Default::default()).await.unwrap();
    wait::until("one of them has the room", BOUND, || async {
        let pods = world.client.api::<Pod>("default").list(&ListOptions::default()).await.unwrap().items;
        let placed = pods.iter().filter(|p| p.spec.as_ref().is_some_and(|s| s.node_name.is_some()));
        (placed.count() >= 3).then_some(())
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn namespaces_are_found_by_labels_that_may_come_later() {
    let world = World::new(&[("node-1", "a")]).await;
    world.create::<Namespace>(json!({"metadata": {"name": "data"}})).await;
    let elsewhere = json!({"metadata": {"name": "db", "namespace": "data", "labels": {"app": "db"}},
        "spec": {"containers": [{"name": "c", "image": "db:1"}]}});
    world.create::<Pod>(elsewhere).await;
    let wanted = required("podAffinity", ZONE, json!({"namespaceSelector": {"matchLabels": {"team": "two"}}}));
    world.pod("near", "web", wanted).await;
    world.refused("near", "0/1 nodes are available: 1 node(s) didn't match pod affinity rules.").await;
    let team = json!({"metadata": {"labels": {"team": "two"}}});
    world.client.all::<Namespace>().patch("data", PatchType::Merge, &team).await.unwrap();
    assert_eq!(world.place_of("near").await, "node-1");
}
