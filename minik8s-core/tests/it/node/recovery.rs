//! The agent dies, the machine reboots, others meddle.

use super::world::{BOUND, World, condition, first, one, uid};
use k8s_openapi::api::core::v1::Pod;
use minik8s_core::client::{DeleteOptions, DeletePreconditions, PatchType};
use minik8s_core::testkit::{FakeOp, wait};
use serde_json::json;

#[tokio::test]
async fn a_new_agent_adopts_what_runs_and_keeps_the_counts() {
    let mut world = World::new().await;
    world.create("p", one("web:1", &[])).await;
    let pod = world.running("p").await;
    world.runtime.exit(&format!("{}-c-0", uid(&pod)), 1);
    let again = |pod: &Pod| first(pod).restart_count == 1 && condition(pod, "Ready") == Some(true);
    world.until("p", "runs again", again).await;
    let starts = world.runtime.count(FakeOp::Start, "");
    world.kill().await;
    world.start();
    let id = format!("{}-c-1", uid(&pod));
    world.create("q", one("web:1", &[])).await;
    world.running("q").await;
    let pod = world.running("p").await;
    assert_eq!((first(&pod).restart_count, first(&pod).container_id), (1, Some(format!("fake://{id}"))));
    assert_eq!(world.runtime.count(FakeOp::Start, ""), starts + 1, "only q was started");
    assert_eq!(world.runtime.count(FakeOp::Stop, ""), 0);
}

#[tokio::test]
async fn what_happened_while_no_agent_lived_is_caught_up() {
    let mut world = World::new().await;
    for name in ["crashed", "deleted", "forced", "vanished"] {
        world.create(name, one("web:1", &[])).await;
    }
    let mut ids = std::collections::BTreeMap::new();
    for name in ["crashed", "deleted", "forced", "vanished"] {
        ids.insert(name, format!("{}-c-0", uid(&world.running(name).await)));
    }
    world.kill().await;
    world.runtime.exit(&ids["crashed"], 1);
    world.runtime.vanish(&ids["vanished"]);
    world.delete("deleted", None).await;
    world.delete("forced", Some(0)).await;
    world.create("new", one("web:1", &[])).await;
    world.start();
    world.running("new").await;
    world.gone("deleted").await;
    for name in ["crashed", "vanished"] {
        let again = |pod: &Pod| first(pod).restart_count == 1 && condition(pod, "Ready") == Some(true);
        world.until(name, "runs again", again).await;
    }
    wait::until("the orphan is ended", BOUND, || async { (world.runtime.sandbox_ids().len() == 3).then_some(()) })
        .await;
}

#[tokio::test]
async fn a_container_removed_behind_our_back_comes_back() {
    let world = World::new().await;
    world.create("p", one("web:1", &[])).await;
    let pod = world.running("p").await;
    world.runtime.vanish(&format!("{}-c-0", uid(&pod)));
    let again = |pod: &Pod| first(pod).restart_count == 1 && condition(pod, "Ready") == Some(true);
    world.until("p", "runs again", again).await;
}

#[tokio::test]
async fn a_pod_deleted_by_force_is_ended_on_the_node() {
    let world = World::new().await;
    world.create("p", one("web:1", &[])).await;
    let pod = world.running("p").await;
    let preconditions = DeletePreconditions { uid: Some(uid(&pod)), resource_version: None };
    let options = DeleteOptions { grace_period_seconds: Some(0), preconditions, ..DeleteOptions::default() };
    world.client.api::<Pod>("default").delete("p", &options).await.unwrap();
    world.clean().await;
    let new = world.create("p", one("web:1", &[])).await;
    let running = world.running("p").await;
    assert_eq!(uid(&new), uid(&running));
}

#[tokio::test]
async fn pods_come_back_after_a_reboot() {
    let mut world = World::new().await;
    world.create("p", one("web:1", &[])).await;
    let pod = world.running("p").await;
    world.kill().await;
    world.runtime.reboot();
    world.start();
    let again = |pod: &Pod| first(pod).restart_count == 1 && condition(pod, "Ready") == Some(true);
    let pod2 = world.until("p", "runs again", again).await;
    assert_eq!(uid(&pod), uid(&pod2));
    assert_eq!(world.runtime.sandbox_ids(), [uid(&pod)]);
}

#[tokio::test]
async fn lost_events_cost_nothing_but_time() {
    let world = World::new().await;
    world.create("p", one("web:1", &[])).await;
    world.running("p").await;
    world.runtime.reboot();
    let again = |pod: &Pod| first(pod).restart_count == 1 && condition(pod, "Ready") == Some(true);
    world.until("p", "runs again", again).await;
}

/// The agent lives, but its machine is cut off; meanwhile the cluster gives it up. Nothing that is no longer its own
/// may be left, what still is goes on undisturbed, and says so again.
#[tokio::test]
async fn a_node_that_was_cut_off_ends_what_is_no_longer_its_own() {
    let world = World::new().await;
    let mut pods = std::collections::BTreeMap::new();
    for name in ["kept", "forced", "renewed", "leaving"] {
        world.create(name, one("web:1", &[])).await;
        pods.insert(name, world.running(name).await);
    }
    let starts = world.runtime.count(FakeOp::Start, "");
    world.line.sever(true);
    world.line.hold(true);
    for name in ["kept", "forced", "renewed", "leaving"] {
        let given_up =
            json!({"status": {"conditions": [{"type": "Ready", "status": "False", "reason": "NodeNotReady"}]}});
        let api = world.client.api::<Pod>("default");
        api.patch_status(name, PatchType::StrategicMerge, &given_up).await.unwrap();
    }
    world.delete("forced", Some(0)).await;
    world.delete("renewed", Some(0)).await;
    world.create("renewed", one("web:2", &[])).await;
    world.delete("leaving", None).await;
    assert_eq!(world.runtime.sandbox_ids().len(), 4, "it cannot know");

    world.line.sever(false);
    world.line.hold(false);
    world.gone("leaving").await;
    let kept = world.running("kept").await;
    assert_eq!(first(&kept).restart_count, 0);
    let renewed = world.running("renewed").await;
    assert_ne!(uid(&renewed), uid(&pods["renewed"]));
    let mut ours = vec![uid(&kept), uid(&renewed)];
    ours.sort();
    wait::until("only what is its own is left", BOUND, || async {
        let mut left = world.runtime.sandbox_ids();
        left.sort();
        (left == ours).then_some(())
    })
    .await;
    assert_eq!(world.runtime.count(FakeOp::Start, ""), starts + 1, "what it kept went on");
}
