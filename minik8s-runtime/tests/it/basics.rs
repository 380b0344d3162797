//! The main path: image in, sandbox, container, log, end, nothing left.

use crate::harness::{Harness, able};
use minik8s_core::runtime::{ContainerState, Containers, Images, RuntimeError, Sandboxes};
use minik8s_core::testkit::wait::until;
use minik8s_runtime::testing::TEST_IMAGE;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

async fn exit_code(h: &Harness, id: &str) -> i32 {
    until("the container has ended", 3 * SOON, || async {
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
        until("it is up", 3 * SOON, || async { (!lines(&h, id).is_empty()).then_some(()) }).await;
    }
    h.runtime.stop_container("polite", SOON).await.expect("stop");
    assert_eq!(exit_code(&h, "polite").await, 7);
    h.runtime.stop_container("deaf", Duration::from_millis(200)).await.expect("stop");
    assert_eq!(exit_code(&h, "deaf").await, 137);
    h.runtime.stop_container("deaf", SOON).await.expect("again");
    h.runtime.stop_container("nobody", SOON).await.expect("missing");
}

/// The group above all containers, frozen by hand: what is below cannot go on. Goes on when this is dropped.
struct Frozen {
    file: std::path::PathBuf,
    word: &'static str,
}

impl Frozen {
    fn above(h: &Harness) -> Self {
        let root = std::path::Path::new("/sys/fs/cgroup");
        let old = root.join("freezer").join(&h.config.cgroup_root).join("freezer.state");
        let new = root.join(&h.config.cgroup_root).join("cgroup.freeze");
        let (file, freeze, word) = if old.exists() { (old, "FROZEN", "THAWED") } else { (new, "1", "0") };
        std::fs::write(&file, freeze).expect("the group above is frozen");
        Self { file, word }
    }

    /// The kernel's older freezer keeps also what is killed.
    fn is_old(&self) -> bool {
        self.word == "THAWED"
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = std::fs::write(&self.file, self.word);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_resumed_is_killed_all_the_same_or_told_of() {
    if !able() {
        return;
    }
    let h = Harness::with_image().await;
    h.sandbox("pod-4").await;
    h.run("pod-4", &h.script("still", "trap '' TERM; echo up; while :; do sleep 0.05; done")).await;
    until("it is up", 3 * SOON, || async { (!lines(&h, "still").is_empty()).then_some(()) }).await;
    h.runtime.pause_container("still").await.expect("pause");
    let frozen = Frozen::above(&h);
    h.runtime.resume_container("still").await.expect_err("the group above is frozen");
    let stopped = h.runtime.stop_container("still", Duration::from_millis(100)).await;
    match frozen.is_old() {
        false => stopped.expect("SIGKILL reaches what is frozen"),
        true => {
            let told = stopped.expect_err("nothing can end it").to_string();
            assert!(told.contains("still runs after SIGKILL"), "{told}");
        }
    }
    drop(frozen);
    h.runtime.stop_container("still", SOON).await.expect("stop again");
    assert_eq!(exit_code(&h, "still").await, 137);
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
