//! The node's own record: never better than the node is.

use super::world::{BOUND, NODE, World};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Node, NodeCondition};
use minik8s_core::api::git_version;
use minik8s_core::client::{DeleteOptions, PatchType, TypedEvent, WatchOptions};
use minik8s_core::testkit::{FakeOp, wait};
use serde_json::json;
use std::time::Duration;
use tokio::time::Instant;

fn ready(node: &Node) -> Option<NodeCondition> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|c| c.type_ == "Ready").cloned()
}

#[tokio::test(start_paused = true)]
async fn a_node_is_not_ready_before_its_runtime_has_answered() {
    let mut world = World::idle().await;
    let long = Duration::from_secs(50);
    world.runtime.delay(FakeOp::Capabilities, "", long);
    let mut events = world.client.all::<Node>().watch(&WatchOptions::default()).await.unwrap();
    let start = Instant::now();
    world.start();
    let mut first = None;
    loop {
        let event = tokio::time::timeout(BOUND * 2, events.next()).await.unwrap().unwrap().unwrap();
        let (TypedEvent::Added(node) | TypedEvent::Modified(node)) = event else { continue };
        let Some(ready) = ready(&node) else { continue };
        if ready.status == "True" {
            break;
        }
        first.get_or_insert(ready);
    }
    assert!(start.elapsed() >= long, "it was ready before the runtime had answered");
    let first = first.expect("a status while the runtime is silent");
    assert_eq!(first.status, "False");
    let message = first.message.unwrap();
    assert!(message.contains("the container runtime has not answered yet"), "{message}");
    assert!(world.client.all::<Node>().get(NODE).await.is_ok());
}

impl World {
    async fn ready_again(&self, before: Option<&str>) -> Node {
        wait::until("the node is ready", BOUND, || async {
            let node = self.client.all::<Node>().get_opt(NODE).await.unwrap()?;
            let new = node.metadata.uid.as_deref() != before;
            (new && ready(&node)?.status == "True").then_some(node)
        })
        .await
    }
}

/// The status is due again only after minutes.
#[tokio::test]
async fn what_others_made_of_the_status_is_put_right_at_once() {
    let world = World::new().await;
    assert!(world.config.status_period > BOUND);
    let node = world.ready_again(None).await;
    let info = node.status.unwrap().node_info.unwrap();
    assert_eq!(info.kubelet_version, git_version(), "the version that the server advertises");
    let nodes = world.client.all::<Node>();
    let silent = json!({"status": {
        "conditions": [{"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"}],
        "capacity": {"example.com/lamps": "3"},
    }});
    let seen = nodes.patch_status(NODE, PatchType::StrategicMerge, &silent).await.unwrap();
    assert_eq!(ready(&seen).unwrap().status, "Unknown");
    let again = world.ready_again(None).await;
    assert_eq!(again.metadata.uid, node.metadata.uid);
    let lamps = again.status.unwrap().capacity.unwrap()["example.com/lamps"].0.clone();
    assert_eq!(lamps, "3", "what others add stays");

    nodes.delete(NODE, &DeleteOptions::default()).await.unwrap();
    world.ready_again(node.metadata.uid.as_deref()).await;
}
