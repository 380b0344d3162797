//! The node's own record: never better than the node is.

use super::world::{BOUND, NODE, World};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Node, NodeCondition};
use minik8s_core::client::{TypedEvent, WatchOptions};
use minik8s_core::testkit::FakeOp;
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
        let TypedEvent::Added(node) | TypedEvent::Modified(node) = event else { continue };
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
