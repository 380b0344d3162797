//! The program's own commands on a running cluster.

use super::harness::{Kind, Up, minik8s, until};

const WEB: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: server, image: 'example.org/web:1', env: [{name: A, value: '1'}]}
      - {name: helper, image: 'example.org/helper:1'}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
";

#[test]
fn apply_creates_keeps_and_changes() {
    let Some(up) = Up::start(Kind::Fake) else { return };
    let said = up.apply("web.yaml", WEB);
    assert_eq!(said, "deployment.apps/web created\nservice/web created\n");
    let address = up.minik8s(&["get", "svc", "web", "-o", "jsonpath={.spec.clusterIP}"]).ok();
    assert_eq!(up.apply("web.yaml", WEB), "deployment.apps/web unchanged\nservice/web unchanged\n");
    // A container, a variable and a label go; the image changes; what the server allocated stays.
    let changed = WEB
        .replace("      - {name: helper, image: 'example.org/helper:1'}\n", "")
        .replace(", env: [{name: A, value: '1'}]", "")
        .replace("web:1", "web:2")
        .replace("{name: web, labels: {app: web}}", "{name: web}");
    assert_eq!(up.apply("web.yaml", &changed), "deployment.apps/web configured\nservice/web unchanged\n");
    let get = |path: &str| up.minik8s(&["get", "deploy", "web", "-o", &format!("jsonpath={path}")]).ok();
    assert_eq!(get("{.spec.template.spec.containers[*].name}"), "server");
    assert_eq!(get("{.spec.template.spec.containers[0].image}"), "example.org/web:2");
    assert_eq!(get("{.spec.template.spec.containers[0].env}"), "");
    assert_eq!(get("{.metadata.labels}"), "");
    assert_eq!(up.minik8s(&["get", "svc", "web", "-o", "jsonpath={.spec.clusterIP}"]).ok(), address);
}

#[test]
fn a_dry_run_changes_nothing() {
    let Some(up) = Up::start(Kind::Fake) else { return };
    let said = up.minik8s_with(&["apply", "--dry-run", "-f", "-"], WEB).ok();
    assert!(said.contains("created (dry run)"), "{said}");
    assert!(up.minik8s(&["get", "deploy", "web"]).refused().contains("not found"));
}

#[test]
fn directories_and_lists_are_applied_and_deleted() {
    let Some(up) = Up::start(Kind::Fake) else { return };
    let dir = up.files().join("many");
    std::fs::create_dir(&dir).unwrap();
    let list = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: ConfigMap, metadata: {name: a}}\n- {apiVersion: v1, kind: ConfigMap, metadata: {name: b}}\n";
    std::fs::write(dir.join("1.yaml"), list).unwrap();
    std::fs::write(dir.join("2.json"), r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"}}"#).unwrap();
    std::fs::write(dir.join("readme.txt"), "not a manifest").unwrap();
    let path = dir.display().to_string();
    let said = up.minik8s(&["apply", "-f", &path]).ok();
    assert_eq!(said, "configmap/a created\nconfigmap/b created\nconfigmap/c created\n");
    let names = up.minik8s(&["get", "cm", "a", "b", "c", "-o", "name"]).ok();
    assert_eq!(names, "configmap/a\nconfigmap/b\nconfigmap/c\n");
    let said = up.minik8s(&["delete", "-f", &path]).ok();
    assert_eq!(said.lines().count(), 3, "{said}");
    assert!(up.minik8s(&["get", "cm", "a"]).refused().contains("not found"));
}

#[test]
fn scaling_rolling_out_and_going_back() {
    let Some(up) = Up::start(Kind::Fake) else { return };
    up.apply("web.yaml", WEB);
    let done = |revision: &str| {
        let said = up.minik8s(&["rollout", "status", "deploy/web", "--timeout", "60"]).ok();
        assert!(said.contains("is rolled out"), "{revision}: {said}");
    };
    done("1");
    assert_eq!(up.minik8s(&["scale", "deploy/web", "--replicas", "4"]).ok(), "deployment.apps/web scaled\n");
    done("1, scaled");
    up.apply("web.yaml", &WEB.replace("web:1", "web:2"));
    done("2");
    let history = up.minik8s(&["rollout", "history", "deploy/web"]).ok();
    assert!(history.contains("example.org/web:1") && history.contains("example.org/web:2"), "{history}");
    let said = up.minik8s(&["rollout", "undo", "deploy/web"]).ok();
    assert!(said.contains("rolled back to revision 1"), "{said}");
    done("3");
    let image = up.minik8s(&["get", "deploy", "web", "-o", "jsonpath={.spec.template.spec.containers[0].image}"]).ok();
    assert_eq!(image, "example.org/web:1");
    up.minik8s(&["rollout", "restart", "deploy/web"]).ok();
    done("restarted");
    let told = up.minik8s(&["rollout", "undo", "deploy/web", "--to-revision", "99"]).refused();
    assert!(told.contains("no such earlier revision"), "{told}");
}

#[test]
fn tables_descriptions_and_versions_read_well() {
    let Some(up) = Up::start(Kind::Fake) else { return };
    up.apply("web.yaml", WEB);
    up.minik8s(&["rollout", "status", "deploy/web", "--timeout", "60"]).ok();
    let all = up.minik8s(&["get", "all"]).ok();
    for part in ["pod/web-", "service/web", "deployment.apps/web", "replicaset.apps/web-", "NAME", "2/2"] {
        assert!(all.contains(part), "{part:?} is not in\n{all}");
    }
    let wide = up.minik8s(&["get", "pods", "-o", "wide", "-A"]).ok();
    assert!(wide.contains("NAMESPACE") && wide.contains("node-1") && wide.contains("10.244."), "{wide}");
    let pod = up.minik8s(&["get", "pods", "-l", "app=web", "-o", "jsonpath={.items[0].metadata.name}"]).ok();
    let told = up.minik8s(&["describe", "pod", &pod]).ok();
    assert!(told.contains("Scheduled") && told.contains("Pod IP: 10.244."), "{told}");
    let logs = up.minik8s(&["logs", &pod, "-c", "server"]).ok();
    assert!(!logs.is_empty());
    let ran = up.minik8s(&["exec", &pod, "-c", "server", "--", "echo", "hello"]).ok();
    assert!(ran.contains("hello"), "{ran}");
    let version = up.minik8s(&["version"]).ok();
    assert!(version.contains("minik8s") && version.contains("v1."), "{version}");
    until("the node is ready", 60, || up.minik8s(&["get", "nodes"]).out.contains("Ready"));
}

#[test]
fn help_version_and_completion_need_no_cluster() {
    assert!(minik8s(&["version", "--client"]).ok().starts_with("minik8s"));
    assert!(minik8s(&["--help"]).ok().contains("rollout"));
    for shell in ["bash", "zsh", "fish"] {
        assert!(minik8s(&["completion", shell]).ok().contains("minik8s"), "{shell}");
    }
}
