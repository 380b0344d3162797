//! What goes wrong shows, and heals.

use super::world::{BOUND, World, first, one, uid, waiting_reason};
use minik8s_core::runtime::RuntimeError;
use minik8s_core::testkit::{FakeOp, Script, Which, wait};
use serde_json::json;

#[tokio::test]
async fn images_that_cannot_be_had_say_why() {
    let world = World::new().await;
    world.create("far", one("registry.invalid/x:1", &[])).await;
    world.create("odd", one("UPPER/case", &[])).await;
    let mut never = one("local:1", &[]);
    never["containers"][0]["imagePullPolicy"] = json!("Never");
    world.create("never", never).await;
    let pod = world
        .until("far", "fails to pull", |pod| {
            matches!(waiting_reason(pod).as_deref(), Some("ErrImagePull" | "ImagePullBackOff"))
        })
        .await;
    assert!(first(&pod).state.unwrap().waiting.unwrap().message.unwrap().contains("no such host"));
    world.waiting("far", "ImagePullBackOff").await;
    world.waiting("odd", "InvalidImageName").await;
    world.waiting("never", "ErrImageNeverPull").await;
    world.delete("far", None).await;
    world.gone("far").await;
}

#[tokio::test]
async fn a_pull_that_fails_is_tried_again() {
    let world = World::idle().await;
    let error = RuntimeError::Pull { image: "web:1".into(), cause: "no route".into() };
    world.runtime.fail(FakeOp::Pull, "web:1", Some(3), error);
    let mut world = world;
    world.start();
    world.create("p", one("web:1", &[])).await;
    world.running("p").await;
    assert_eq!(world.runtime.count(FakeOp::Pull, "web:1"), 4);
}

#[tokio::test]
async fn crashes_back_off_and_are_counted() {
    let world = World::new().await;
    world.runtime.script(Which::Any, Script::exits(7).prints("oh no"));
    let mut spec = one("web:1", &[]);
    spec["containers"][0]["terminationMessagePolicy"] = json!("FallbackToLogsOnError");
    world.create("p", spec).await;
    let pod = world
        .until("p", "is in a crash loop", |pod| {
            first(pod).restart_count >= 3 && waiting_reason(pod).as_deref() == Some("CrashLoopBackOff")
        })
        .await;
    let status = first(&pod);
    let last = status.last_state.unwrap().terminated.unwrap();
    assert_eq!((last.exit_code, last.message.as_deref()), (7, Some("oh no")));
    wait::until("the present life and the one before are kept", BOUND, || async {
        (world.runtime.snapshot().len() == 2).then_some(())
    })
    .await;
}

#[tokio::test]
async fn sandboxes_containers_and_starts_that_fail_are_tried_again() {
    let mut world = World::idle().await;
    let down = || RuntimeError::Unavailable { operation: "testing", cause: "down".into() };
    let broken = || RuntimeError::Container { operation: "start", id: "x".into(), cause: "exec format error".into() };
    world.runtime.fail(FakeOp::RunSandbox, "", Some(2), down());
    world.runtime.fail(FakeOp::Create, "", Some(2), down());
    world.runtime.fail(FakeOp::Start, "", Some(2), broken());
    world.runtime.fail(FakeOp::Containers, "", Some(2), down());
    world.start();
    world.create("p", one("web:1", &[])).await;
    world.running("p").await;
    world.runtime.fail(FakeOp::Stop, "", Some(2), down());
    world.runtime.fail(FakeOp::RemoveSandbox, "", Some(2), down());
    world.delete("p", Some(0)).await;
    world.gone("p").await;
    world.clean().await;
}

#[tokio::test]
async fn a_program_that_does_not_exist_is_reported() {
    let world = World::new().await;
    world.create("p", one("web:1", &["/no-such-program"])).await;
    let pod = world.waiting("p", "CrashLoopBackOff").await;
    let last = first(&pod).last_state.unwrap().terminated.unwrap();
    assert_eq!((last.exit_code, last.reason.as_deref()), (128, Some("StartError")));
}

#[tokio::test]
async fn running_as_root_is_refused_where_it_must_not_be() {
    let world = World::new().await;
    let mut spec = one("web:1", &[]);
    spec["securityContext"] = json!({"runAsNonRoot": true});
    world.create("p", spec).await;
    let pod = world.waiting("p", "CreateContainerConfigError").await;
    assert!(first(&pod).state.unwrap().waiting.unwrap().message.unwrap().contains("runAsNonRoot"));
}

#[tokio::test]
async fn a_pod_whose_volume_outgrows_its_limit_is_evicted() {
    let world = World::new().await;
    let spec = |limit: &str| {
        let mut spec = one("web:1", &[]);
        spec["volumes"] = json!([{"name": "scratch", "emptyDir": {"sizeLimit": limit}}]);
        spec["containers"][0]["volumeMounts"] = json!([{"name": "scratch", "mountPath": "/scratch"}]);
        spec["terminationGracePeriodSeconds"] = json!(1);
        spec
    };
    for (name, limit) in [("greedy", "64Ki"), ("modest", "64Mi")] {
        let pod = world.create(name, spec(limit)).await;
        world.running(name).await;
        let file = world.config.data_dir.join("pods").join(uid(&pod)).join("volumes/scratch/file");
        std::fs::write(file, vec![7; 200_000]).unwrap();
    }
    let pod = world.phase("greedy", "Failed").await;
    let status = pod.status.unwrap();
    assert_eq!(status.reason.as_deref(), Some("Evicted"));
    let message = status.message.unwrap();
    assert!(message.contains("\"scratch\" exceeds the limit \"64Ki\""), "{message}");
    world.running("modest").await;
}
