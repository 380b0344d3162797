//! Looking at things.

use super::{DEPLOYMENT, pods, set_status, start};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn versions_and_resources() {
    let Some((_served, kubectl)) = start().await else { return };
    let version: Value = serde_json::from_str(&kubectl.ok(&["version", "-o", "json"]).await).unwrap();
    assert!(version["serverVersion"]["gitVersion"].as_str().unwrap().contains("+minik8s-"), "{version}");
    let skew = kubectl.run(&["version"]).await;
    assert!(!skew.stderr.contains("WARNING"), "{}", skew.stderr);
    let resources = kubectl.ok(&["api-resources"]).await;
    for line in ["configmaps cm v1 true ConfigMap", "namespaces ns v1 false Namespace"] {
        let words = |l: &str| l.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(resources.lines().any(|l| words(l) == line), "no {line:?} in\n{resources}");
    }
    assert!(kubectl.ok(&["api-versions"]).await.lines().any(|l| l == "v1"));
    assert_eq!(kubectl.ok(&["get", "--raw", "/readyz"]).await, "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn getting_in_every_form() {
    let Some((_served, kubectl)) = start().await else { return };
    let table = kubectl.ok(&["get", "ns"]).await;
    assert!(table.starts_with("NAME"), "{table}");
    assert!(table.lines().any(|l| l.starts_with("default ") && l.contains("Active")), "{table}");
    kubectl.ok(&["create", "configmap", "one", "--from-literal=a=1"]).await;
    assert_eq!(kubectl.ok(&["get", "cm", "one", "-o", "name"]).await, "configmap/one\n");
    assert_eq!(kubectl.ok(&["get", "cm", "one", "-o", "jsonpath={.data.a}"]).await, "1");
    assert!(kubectl.ok(&["get", "cm", "one", "-o", "yaml"]).await.contains("kind: ConfigMap"));
    let list: Value = serde_json::from_str(&kubectl.ok(&["get", "cm", "-A", "-o", "json"]).await).unwrap();
    assert_eq!(list["kind"], "List");
    let columns = kubectl.ok(&["get", "cm", "-o", "custom-columns=N:.metadata.name", "--no-headers"]).await;
    assert!(columns.lines().any(|l| l == "one"));
    assert_eq!(kubectl.ok(&["get", "cm", "-l", "no=such"]).await, "");
    let paged = kubectl.ok(&["get", "ns", "--chunk-size=1", "-o", "name"]).await;
    assert!(paged.lines().count() > 1, "{paged}");
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_are_told() {
    let Some((_served, kubectl)) = start().await else { return };
    let missing = kubectl.run(&["get", "cm", "nope"]).await;
    assert_eq!(missing.stderr, "Error from server (NotFound): configmaps \"nope\" not found\n");
    let unknown = kubectl.run(&["get", "gizmos"]).await;
    assert_eq!(unknown.stderr, "error: the server doesn't have a resource type \"gizmos\"\n");
    let strict = kubectl
        .run_with_input(&["create", "-f", "-"], "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\nbogus: 1\n")
        .await;
    assert!(strict.stderr.contains("unknown field \"bogus\""), "{}", strict.stderr);
    let kind = "apiVersion: example.com/v1\nkind: Gizmo\nmetadata: {name: x}\n";
    let unknown = kubectl.run_with_input(&["apply", "-f", "-"], kind).await;
    assert!(
        unknown.stderr.contains("no matches for kind \"Gizmo\" in version \"example.com/v1\""),
        "{}",
        unknown.stderr
    );
    let broken = kubectl.run_with_input(&["apply", "-f", "-"], "a: b: c\n").await;
    assert!(broken.code != 0 && broken.stderr.contains("error"), "{}", broken.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_and_deployments_in_tables() {
    let Some((served, kubectl)) = start().await else { return };
    kubectl.ok_with_input(&["create", "-f", "-"], DEPLOYMENT).await;
    let wide = kubectl.ok(&["get", "deploy", "-o", "wide"]).await;
    let header: Vec<&str> = wide.lines().next().unwrap_or_default().split_whitespace().collect();
    let expected = ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE", "CONTAINERS", "IMAGES", "SELECTOR"];
    assert_eq!(header, expected);
    assert!(wide.contains("nginx:1.25") && wide.contains("app=web"), "{wide}");
    kubectl.ok(&["run", "p", "--image=busybox"]).await;
    let status = json!({
        "phase": "Running", "podIP": "10.1.0.7",
        "containerStatuses": [{"name": "p", "ready": true, "restartCount": 0, "image": "busybox", "imageID": "",
            "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}],
    });
    set_status(&served, pods(), "p", &status).await;
    let table = kubectl.ok(&["get", "pods", "-o", "wide"]).await;
    let row: Vec<&str> = table.lines().nth(1).unwrap_or_default().split_whitespace().collect();
    assert_eq!(&row[..4], ["p", "1/1", "Running", "0"], "{table}");
    assert!(row.contains(&"10.1.0.7"), "{table}");
    let all = kubectl.ok(&["get", "all"]).await;
    assert!(all.contains("pod/p ") && all.contains("deployment.apps/web "), "{all}");
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_are_explained() {
    let Some((_served, kubectl)) = start().await else { return };
    let explained = kubectl.ok(&["explain", "pod.spec.containers"]).await;
    assert!(
        explained.contains("KIND:       Pod") && explained.contains("FIELD: containers <[]Container>"),
        "{explained}"
    );
    assert!(explained.contains("  image\t<string>"), "{explained}");
    let deployment = kubectl.ok(&["explain", "deploy"]).await;
    assert!(deployment.contains("GROUP:      apps") && deployment.contains("  spec\t<DeploymentSpec>"), "{deployment}");
    let missing = kubectl.run(&["explain", "pod.spec.nope"]).await;
    assert!(missing.stderr.contains("field \"nope\" does not exist"), "{}", missing.stderr);
}
