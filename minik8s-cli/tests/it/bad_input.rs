//! Mistakes a person makes: each is told with the thing's name and what to do, ends with a non-zero code, and leaves
//! nothing half made.

use super::harness::{Kind, Up, minik8s};
use std::net::TcpListener;

/// name, manifest, parts of the message
const MANIFESTS: &[(&str, &str, &[&str])] = &[
    ("unknown kind", "apiVersion: v1\nkind: Pdo\nmetadata: {name: x}\n", &["Pdo", "did you mean", "Pod"]),
    (
        "kind in the wrong group",
        "apiVersion: v1\nkind: Deployment\nmetadata: {name: x}\n",
        &["Deployment", "apiVersion: apps/v1"],
    ),
    (
        "unknown field",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec:\n  containers:\n  - name: c\n    image: i\n    imagee: j\n",
        &["imagee", "unknown field", ":8"],
    ),
    (
        "wrong type",
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\nspec:\n  replicas: many\n  selector: {matchLabels: {a: b}}\n  template:\n    metadata: {labels: {a: b}}\n    spec: {containers: [{name: c, image: i}]}\n",
        &["replicas"],
    ),
    (
        "no image",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec:\n  containers:\n  - name: c\n",
        &["spec.containers[0].image", "Required value"],
    ),
    (
        "selector does not match the template",
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\nspec:\n  selector: {matchLabels: {app: web}}\n  template:\n    metadata: {labels: {app: web2}}\n    spec: {containers: [{name: c, image: i}]}\n",
        &["selector", "does not match template"],
    ),
    (
        "port out of range",
        "apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec:\n  ports:\n  - port: 70000\n",
        &["spec.ports[0].port", "70000", "between 1 and 65535"],
    ),
    (
        "broken YAML",
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: x\n   labels: {}\n",
        &["broken", "not valid YAML", ":5"],
    ),
    ("no name", "apiVersion: v1\nkind: Pod\nspec: {}\n", &["metadata.name is missing"]),
    ("empty", "# nothing\n", &["no objects"]),
];

#[test]
fn mistakes_in_manifests_are_told() {
    let Some(up) = Up::start(Kind::Fake) else { return };
    let before = up.minik8s(&["get", "all", "-o", "name"]).ok();
    for (name, manifest, parts) in MANIFESTS {
        let path = up.files().join("broken.yaml");
        std::fs::write(&path, manifest).unwrap();
        let told = up.minik8s(&["apply", "-f", &path.display().to_string()]).refused();
        for part in *parts {
            assert!(told.contains(part), "{name}: {part:?} is not in\n{told}");
        }
        assert!(told.contains("broken.yaml"), "{name}: the file is not named in\n{told}");
    }
    assert_eq!(up.minik8s(&["get", "all", "-o", "name"]).ok(), before, "something was made");
}

#[test]
fn a_name_too_long_is_told_and_the_objects_before_it_are_not_made() {
    let Some(up) = Up::start(Kind::Fake) else { return };
    let long = "n".repeat(254);
    let text = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: good}}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {long}}}\n"
    );
    let told = up.minik8s_with(&["apply", "-f", "-"], &text).refused();
    assert!(told.contains("253") && told.contains("metadata.name"), "{told}");
    assert!(up.minik8s(&["get", "configmap", "good"]).refused().contains("not found"));
}

#[test]
fn empty_standard_input_and_missing_files_are_told() {
    let Some(up) = Up::start(Kind::Fake) else { return };
    assert!(up.minik8s_with(&["apply", "-f", "-"], "").refused().contains("standard input"));
    assert!(up.minik8s(&["apply", "-f", "/no/such.yaml"]).refused().contains("/no/such.yaml"));
}

#[test]
fn mistakes_in_commands_are_told() {
    let Some(up) = Up::start(Kind::Fake) else { return };
    // arguments, part of the message
    let table: &[(&[&str], &str)] = &[
        (&["get", "podz"], "did you mean"),
        (&["get", "pods", "-o", "xml"], "known are table"),
        (&["get", "pod", "nope"], "pods \"nope\" not found"),
        (&["delete", "pods"], "--all"),
        (&["logs", "nope"], "not found"),
        (&["exec", "nope", "--", "ls"], "not found"),
        (&["scale", "deploy/nope", "--replicas", "3"], "not found"),
        (&["scale", "deploy", "--replicas", "3"], "deployment/NAME"),
        (&["rollout", "status", "pod/x"], "Deployments"),
        (&["get", "pods", "-o", "jsonpath={.a"], "never closed"),
    ];
    for (args, part) in table {
        let told = up.minik8s(args).refused();
        assert!(told.contains(part), "{args:?}: {part:?} is not in\n{told}");
    }
}

#[test]
fn an_address_in_use_is_told() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data").display().to_string();
    let told =
        minik8s(&["up", "--data-dir", &data, "--listen", &address, "--runtime", "fake", "--network", "noop"]).refused();
    assert!(told.contains(&address) && told.contains("--listen"), "{told}");
    assert!(!dir.path().join("data/instance.json").exists(), "something was made");
}

#[test]
fn no_cluster_no_containerd_and_overlapping_ranges_are_told() {
    let told = minik8s(&["get", "pods", "--kubeconfig", "/no/such"]).refused();
    assert!(told.contains("/no/such"), "{told}");
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data").display().to_string();
    let up = |more: &[&str]| {
        let mut args = vec!["up", "--data-dir", &data, "--listen", "127.0.0.1:0"];
        args.extend(more);
        minik8s(&args).refused()
    };
    let fakes = ["--runtime", "fake", "--network", "noop"];
    let told = up(&[&fakes[..], &["--pod-cidr", "10.96.3.0/24"]].concat());
    assert!(told.contains("overlap"), "{told}");
    let told = up(&[&fakes[..], &["--service-cidr", "ten"]].concat());
    assert!(told.contains("--service-cidr"), "{told}");
    let told = up(&[&fakes[..], &["--scheduler-policy", "Best"]].concat());
    assert!(told.contains("LeastPods"), "{told}");
    let told = up(&[&fakes[..], &["--store", "etcd"]].concat());
    assert!(told.contains("--etcd-endpoints http://"), "{told}");
    let told = up(&[&fakes[..], &["--etcd-endpoints", "http://127.0.0.1:1"]].concat());
    assert!(told.contains("without --store etcd"), "{told}");
    let told = up(&["--runtime", "fake"]);
    assert!(told.contains("--network noop") || told.contains("root"), "{told}");
    if minik8s_core::testkit::need::Need::Root.missing().is_none() {
        let told = up(&["--containerd", "/no/such.sock"]);
        assert!(told.contains("/no/such.sock"), "{told}");
    }
    assert!(!dir.path().join("data/instance.json").exists(), "something was made");
}

/// As another user, and with an empty search path: what a machine without root or containerd says.
#[test]
fn not_root_and_no_containerd_are_told() {
    use minik8s_core::testkit::need::{Need, met};
    use std::os::unix::process::CommandExt;
    use std::process::Command;
    if !met(&[Need::Root]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("minik8s");
    std::fs::copy(env!("CARGO_BIN_EXE_minik8s"), &program).unwrap();
    std::process::Command::new("chmod").args(["-R", "a+rx"]).arg(dir.path()).status().unwrap();
    let output =
        Command::new(&program).args(["up", "--data-dir", "/tmp/never"]).uid(65534).gid(65534).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && told.contains("`sudo`"), "{told}");
    assert!(!std::path::Path::new("/tmp/never").exists());
    let output = Command::new(&program).args(["up", "--data-dir", "/tmp/never"]).env("PATH", "/none").output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && told.contains("containerd is not installed"), "{told}");
    assert!(!std::path::Path::new("/tmp/never").exists());
}

#[test]
fn a_namespace_beside_the_one_asked_for_is_told() {
    let Some(up) = Up::start(Kind::Fake) else { return };
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x, namespace: kube-system}\n";
    for command in ["apply", "delete"] {
        let told = up.minik8s_with(&[command, "-n", "default", "-f", "-"], text).refused();
        assert!(told.contains("You must pass '--namespace=kube-system'"), "{told}");
    }
    assert!(up.minik8s(&["get", "configmap", "x", "-n", "kube-system"]).refused().contains("not found"));
    up.minik8s_with(&["apply", "-n", "kube-system", "-f", "-"], text).ok();
}

#[test]
fn a_deletion_that_was_cut_short_can_be_repeated() {
    let Some(up) = Up::start(Kind::Fake) else { return };
    let one = |name: &str| format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\n---\n");
    let all = one("a") + &one("b") + &one("c");
    up.minik8s_with(&["apply", "-f", "-"], &all).ok();
    up.minik8s(&["delete", "configmap", "c"]).ok();
    let told = up.minik8s_with(&["delete", "-f", "-"], &all).refused();
    assert!(told.contains("\"c\" not found"), "{told}");
    for name in ["a", "b"] {
        assert!(up.minik8s(&["get", "configmap", name]).refused().contains("not found"), "{name} is still there");
    }
}
