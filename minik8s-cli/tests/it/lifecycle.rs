//! Starting, stopping, killing and removing the whole thing.

use super::harness::{Kind, Up, minik8s, until};
use minik8s_core::testkit::need::{self, Need};
use minik8s_runtime::PrivateContainerd;

const POD: &str =
    "apiVersion: v1\nkind: Pod\nmetadata: {name: one}\nspec: {containers: [{name: c, image: 'example.org/x:1'}]}\n";

#[test]
fn it_says_when_it_is_ready_and_where_its_kubeconfig_is() {
    let Some(mut up) = Up::start(Kind::Fake) else { return };
    let words: Vec<&str> = up.ready.split_whitespace().collect();
    assert_eq!((words[0], words[3], words[5]), ("ready", "in", "ms"), "{}", up.ready);
    assert!(words[1].starts_with("https://127.0.0.1:"));
    let path = words[2].strip_prefix("kubeconfig=").unwrap().to_owned();
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(up.stop(), "SIGTERM is a clean end");
}

#[test]
fn objects_survive_a_stop_and_a_kill() {
    let Some(mut up) = Up::start(Kind::Fake) else { return };
    up.apply("pod.yaml", POD);
    let uid = up.minik8s(&["get", "pod", "one", "-o", "jsonpath={.metadata.uid}"]).ok();
    for kill in [false, true] {
        if kill {
            up.kill()
        } else {
            assert!(up.stop())
        }
        up.run();
        assert_eq!(up.minik8s(&["get", "pod", "one", "-o", "jsonpath={.metadata.uid}"]).ok(), uid);
        until("the pod runs", 60, || up.minik8s(&["get", "pod", "one"]).out.contains("Running"));
    }
}

#[test]
fn a_second_cluster_on_the_same_data_is_refused() {
    let Some(up) = Up::start(Kind::Fake) else { return };
    let told = up.minik8s(&["up", "--listen", "127.0.0.1:0", "--runtime", "fake", "--network", "noop"]).refused();
    assert!(told.contains("runs already"), "{told}");
}

#[test]
fn down_stops_what_runs_and_is_idempotent() {
    let Some(up) = Up::start(Kind::Fake) else { return };
    assert!(up.minik8s(&["down"]).ok().contains("stopping process"));
    up.minik8s(&["down"]).ok();
    assert!(up.minik8s(&["get", "pods"]).refused().contains("minik8s up"));
    assert!(minik8s(&["down", "--data-dir", "/no/such/directory"]).ok().contains("nothing to remove"));
}

#[test]
fn down_keeps_its_hands_off_what_it_did_not_make() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().display().to_string();
    std::fs::write(dir.path().join("thesis.txt"), "x").unwrap();
    let told = minik8s(&["down", "--purge", "--data-dir", &home]).refused();
    assert!(told.contains("thesis.txt"), "{told}");
    let told = minik8s(&["up", "--data-dir", &home, "--runtime", "fake", "--network", "noop"]).refused();
    assert!(told.contains("holds other things"), "{told}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "something was made");
}

#[test]
fn purging_what_ran_no_cluster_ends_the_containerd_of_its_images() {
    if !need::met(&[Need::Root, Need::Program("containerd"), Need::Program("runc")]) {
        return;
    }
    let dir = tempfile::Builder::new().prefix("mk8s-it").tempdir().unwrap();
    let data = dir.path().join("data");
    let text = data.display().to_string();
    minik8s(&["image", "list", "--data-dir", &text]).ok();
    let daemon = PrivateContainerd::find(data.join("containerd")).expect("it runs on").pid();
    minik8s(&["down", "--purge", "--data-dir", &text]).ok();
    assert!(!data.exists());
    // Whoever inherited it takes its time to reap it.
    until("the daemon is gone", 60, || !std::path::Path::new(&format!("/proc/{daemon}")).exists());
}
