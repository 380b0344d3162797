//! Priority classes, and pods that make room for others, on a cluster.

use super::*;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::scheduling::v1::PriorityClass;

fn cpu(amount: &str, class: &str) -> Value {
    json!({"containers": [{"name": "c", "image": "app:1", "resources": {"requests": {"cpu": amount}}}],
        "priorityClassName": class})
}

impl World {
    async fn class(&self, name: &str, value: i32, policy: &str) {
        let class = json!({"metadata": {"name": name}, "value": value, "preemptionPolicy": policy});
        self.create::<PriorityClass>(class).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_important_pod_displaces_the_least_important_one() {
    let world = World::new(&[("node-1", "a")]).await;
    world.class("low", 1, "PreemptLowerPriority").await;
    world.class("middle", 5, "PreemptLowerPriority").await;
    world.class("high", 10, "PreemptLowerPriority").await;
    world.class("patient", 10, "Never").await;
    for (name, class) in [("low", "low"), ("middle", "middle")] {
        world.pod(name, "web", cpu("4", class)).await;
        world.place_of(name).await;
    }
    world.pod("patient", "web", cpu("3", "patient")).await;
    let why = "0/1 nodes are available: 1 Insufficient cpu. preemption: not eligible due to preemptionPolicy=Never.";
    world.refused("patient", why).await;
    world.client.api::<Pod>("default").delete("patient", &Default::default()).await.unwrap();
    let high = world.pod("high", "web", cpu("3", "high")).await;
    world.event("low", "Preempted", &format!("Preempted by pod {} on node node-1", high.metadata.uid.unwrap())).await;
    assert_eq!(world.place_of("high").await, "node-1");
    let pods = world.client.api::<Pod>("default");
    assert!(pods.get_opt("low").await.unwrap().is_none() && pods.get_opt("middle").await.unwrap().is_some());
    assert_eq!(pods.get("high").await.unwrap().status.unwrap().nominated_node_name, None, "it is there");
    world.pod("late", "web", cpu("8", "low")).await;
    let hopeless = "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 No preemption \
                    victims found for incoming pod.";
    world.refused("late", hopeless).await;
}

#[tokio::test(start_paused = true)]
async fn the_room_is_kept_while_victims_take_their_time() {
    let mut world = World::new(&[("node-1", "a")]).await;
    world.class("high", 10, "PreemptLowerPriority").await;
    world.pod("old", "web", cpu("8", "")).await;
    world.place_of("old").await;
    // A node that went silent never confirms that its pods are gone.
    world.nodes.clear();
    world.pod("high", "web", cpu("8", "high")).await;
    let pods = world.client.api::<Pod>("default");
    wait::until("room is being made on the node", BOUND, || async {
        let high = pods.get("high").await.unwrap().status?;
        let old = pods.get("old").await.unwrap();
        (high.nominated_node_name? == "node-1" && old.metadata.deletion_grace_period_seconds? == 30).then_some(())
    })
    .await;
    let now = minik8s_core::client::DeleteOptions { grace_period_seconds: Some(0), ..Default::default() };
    world.pod("other", "web", cpu("1", "")).await;
    pods.delete("old", &now).await.unwrap();
    assert_eq!(world.place_of("high").await, "node-1");
    world.refused("other", "0/1 nodes are available: 1 Insufficient cpu.").await;
}

#[tokio::test(start_paused = true)]
async fn classes_are_resolved_and_unknown_ones_refused() {
    let world = World::new(&[]).await;
    let classes = world.client.all::<PriorityClass>();
    for (name, value) in [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)] {
        assert_eq!(classes.get(name).await.unwrap().value, value);
    }
    let pods = world.client.api::<Pod>("default");
    let unknown: Pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": cpu("1", "none")})).unwrap();
    let error = pods.create(&unknown).await.unwrap_err();
    assert_eq!(error.message, "pods \"p\" is forbidden: no PriorityClass with name none was found");
    world.create::<PriorityClass>(json!({"metadata": {"name": "usual"}, "value": 3, "globalDefault": true})).await;
    wait::until("the default class is known", BOUND, || async {
        let pod = world.create::<Pod>(json!({"metadata": {"generateName": "p-", "namespace": "default"},
            "spec": {"containers": [{"name": "c", "image": "i"}]}}));
        let spec = pod.await.spec.unwrap();
        (spec.priority == Some(3) && spec.priority_class_name.as_deref() == Some("usual")).then_some(())
    })
    .await;
    let second = serde_json::from_value(json!({"metadata": {"name": "other"}, "value": 4, "globalDefault": true}));
    let error = classes.create(&second.unwrap()).await.unwrap_err();
    assert!(error.message.contains("PriorityClass usual is already marked as default"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_budget_decides_who_makes_room() {
    let world = World::new(&[("node-1", "a"), ("node-2", "b")]).await;
    world.class("low", 1, "PreemptLowerPriority").await;
    world.class("middle", 5, "PreemptLowerPriority").await;
    world.class("high", 10, "PreemptLowerPriority").await;
    for (name, class) in [("guarded", "low"), ("free", "middle")] {
        world.pod(name, name, cpu("6", class)).await;
        world.place_of(name).await;
    }
    let status = json!({"disruptionsAllowed": 0, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1});
    let budget = json!({"metadata": {"name": "b", "namespace": "default"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "guarded"}}}, "status": status});
    world.create::<PodDisruptionBudget>(budget).await;
    // Whatever else can happen has happened after this: the scheduler has seen the budget.
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.pod("high", "web", cpu("6", "high")).await;
    let place = world.place_of("high").await;
    let pods = world.client.api::<Pod>("default");
    assert!(pods.get_opt("free").await.unwrap().is_none(), "the more important one had to go");
    assert_ne!(pods.get("guarded").await.unwrap().spec.unwrap().node_name, Some(place));
}

/// Of paused time far less than after which every pod is tried again whatever happens.
#[tokio::test(start_paused = true)]
async fn room_of_one_who_does_not_come_is_another_ones() {
    let mut world = World::new(&[("node-1", "a")]).await;
    world.class("high", 10, "PreemptLowerPriority").await;
    world.pod("old", "web", cpu("8", "")).await;
    world.place_of("old").await;
    // The node confirms nothing: the room is being made until the pod is deleted here.
    world.nodes.clear();
    let pods = world.client.api::<Pod>("default");
    world.pod("first", "web", cpu("8", "high")).await;
    wait::until("room is made for the first", BOUND, || async {
        (pods.get("first").await.unwrap().status?.nominated_node_name? == "node-1").then_some(())
    })
    .await;
    world.pod("second", "web", cpu("8", "high")).await;
    world.refused("second", "0/1 nodes are available: 1 Insufficient cpu.").await;
    let now = minik8s_core::client::DeleteOptions { grace_period_seconds: Some(0), ..Default::default() };
    pods.delete("first", &now).await.unwrap();
    pods.delete("old", &now).await.unwrap();
    assert_eq!(world.place_of("second").await, "node-1");
}

/// Each waits for its own room: as victims go one by one, so do those come that they went for.
#[tokio::test(start_paused = true)]
async fn victims_that_go_one_by_one_let_one_in_each() {
    let names = ["node-1", "node-2", "node-3"];
    let mut world = World::new(&names.map(|name| (name, "a"))).await;
    world.class("high", 10, "PreemptLowerPriority").await;
    for name in ["old-1", "old-2", "old-3"] {
        world.pod(name, "web", cpu("8", "")).await;
        world.place_of(name).await;
    }
    world.nodes.clear();
    let pods = world.client.api::<Pod>("default");
    for name in ["new-1", "new-2", "new-3"] {
        world.pod(name, "web", cpu("8", "high")).await;
    }
    let nominated = async |name: &str| pods.get(name).await.unwrap().status.and_then(|s| s.nominated_node_name);
    wait::until("room is made on every node", BOUND, || async {
        let mut all = Vec::new();
        for name in ["new-1", "new-2", "new-3"] {
            all.push(nominated(name).await?);
        }
        all.sort();
        (all == names).then_some(())
    })
    .await;
    let now = minik8s_core::client::DeleteOptions { grace_period_seconds: Some(0), ..Default::default() };
    for old in ["old-2", "old-3", "old-1"] {
        let at = pods.get(old).await.unwrap().spec.unwrap().node_name.unwrap();
        let mut whose = None;
        for name in ["new-1", "new-2", "new-3"] {
            if nominated(name).await.as_deref() == Some(&at) {
                whose = Some(name);
            }
        }
        let whose = whose.unwrap_or_else(|| panic!("room on {at} is nobody's"));
        pods.delete(old, &now).await.unwrap();
        assert_eq!(world.place_of(whose).await, at, "{whose}");
    }
}
