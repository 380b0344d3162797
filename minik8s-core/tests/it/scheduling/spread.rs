//! Pods spread over zones and nodes, on a cluster.

use super::*;

#[tokio::test(start_paused = true)]
async fn zones_stay_even_and_a_pod_that_would_break_that_waits_for_a_node() {
    let mut world = World::new(&[("node-1", "a"), ("node-2", "a"), ("node-3", "b")]).await;
    let even = json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone",
        "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "web"}}}]});
    let mut in_b = 0;
    for i in 0..6 {
        let name = format!("web-{i}");
        world.pod(&name, "web", even.clone()).await;
        in_b += usize::from(world.place_of(&name).await == "node-3");
    }
    assert_eq!(in_b, 3, "half of them, though the zone has one node of three");
    let mut wide = even.clone();
    wide["topologySpreadConstraints"][0]["minDomains"] = 3.into();
    world.pod("wide", "web", wide).await;
    world.refused("wide", "0/3 nodes are available: 3 node(s) didn't match pod topology spread constraints.").await;
    world.node("node-4", "c").await;
    assert_eq!(world.place_of("wide").await, "node-4");
}

#[tokio::test(start_paused = true)]
async fn pods_that_say_nothing_are_spread_by_default() {
    let world = World::new(&[("node-1", "a"), ("node-2", "a"), ("node-3", "b"), ("node-4", "b")]).await;
    let mut places = Vec::new();
    for i in 0..4 {
        let name = format!("web-{i}");
        world.pod(&name, "web", json!({})).await;
        places.push(world.place_of(&name).await);
    }
    places.sort();
    assert_eq!(places, ["node-1", "node-2", "node-3", "node-4"]);
}
