//! The main path: image in, sandbox, container, log, end, nothing left.

use crate::harness::{Harness, able};
use minik8s_core::runtime::{ContainerState, Containers, Images, RuntimeError, Sandboxes};
use minik8s_core::testkit::wait::until;
use minik8s_runtime::testing::TEST_IMAGE;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

async fn exit_code(h: &Harness, id: &str) -> i32 {
    until("the container has ended", SOON, || async {
        match h.runtime.container(id).await.expect("container")?.state {
            ContainerState::Exited(exit) => Some(exit.code),
            _ => None,
        }
    })
    .await
}

fn lines(h: &Harness, id: &str) -> Vec<String> {
    let text = std::fs::read_to_string(h.dir.path().join("logs").join(id).with_extension("log")).unwrap_or_default();
    text.lines().filter_map(|l| l.split_once(' ').map(|(_, rest)| rest.to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_runs_logs_and_ends() {
    if !able() {
        return;
    }
    let h = Harness::with_image().await;
    let image = h.runtime.image(TEST_IMAGE).await.expect("image").expect("image is there");
    assert_eq!(image.names, [TEST_IMAGE]);
    h.sandbox("pod-1").await;
    h.run("pod-1", &h.script("c1", "echo out; echo err >&2; hostname; exit 3")).await;
    assert_eq!(exit_code(&h, "c1").await, 3);
    let mut seen = lines(&h, "c1");
    seen.sort();
    assert_eq!(seen, ["stderr F err", "stdout F out", "stdout F pod-1"]);
    h.runtime.remove_sandbox("pod-1").await.expect("remove");
    assert_eq!(h.runtime.containers(None).await.expect("list"), []);
    assert_eq!(h.runtime.sandboxes().await.expect("list"), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_is_polite_then_kills() {
    if !able() {
        return;
    }
    let h = Harness::with_image().await;
    h.sandbox("pod-2").await;
    h.run("pod-2", &h.script("polite", "trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done")).await;
    h.run("pod-2", &h.script("deaf", "trap '' TERM; echo up; while :; do sleep 0.05; done")).await;
    for id in ["polite", "deaf"] {
        until("it is up", SOON, || async { (!lines(&h, id).is_empty()).then_some(()) }).await;
    }
    h.runtime.stop_container("polite", SOON).await.expect("stop");
    assert_eq!(exit_code(&h, "polite").await, 7);
    h.runtime.stop_container("deaf", Duration::from_millis(200)).await.expect("stop");
    assert_eq!(exit_code(&h, "deaf").await, 137);
    h.runtime.stop_container("deaf", SOON).await.expect("again");
    h.runtime.stop_container("nobody", SOON).await.expect("missing");
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_name_the_thing() {
    if !able() {
        return;
    }
    let h = Harness::with_image().await;
    h.sandbox("pod-3").await;
    let mut spec = h.script("c", "true");
    spec.command = vec!["/no/such/program".into()];
    h.runtime.create_container("pod-3", &spec).await.expect("create");
    let error = h.runtime.start_container("c").await.expect_err("no program").to_string();
    assert!(error.contains("/no/such/program"), "{error}");
    let missing = h.runtime.create_container("pod-9", &h.script("d", "true")).await.expect_err("no sandbox");
    assert!(matches!(missing, RuntimeError::NotFound { what: "sandbox", .. }), "{missing}");
    spec.image = "no/such:image".into();
    spec.id = "e".into();
    let missing = h.runtime.create_container("pod-3", &spec).await.expect_err("no image");
    assert!(matches!(missing, RuntimeError::NotFound { what: "image", .. }), "{missing}");
}
