//! Waiting for things: watches, deletions, conditions, roll-outs.

use super::{DEPLOYMENT, deployments, pods, set_status, start};
use serde_json::json;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout};

const BOUND: Duration = Duration::from_secs(30);

fn lines(child: &mut Child) -> Lines<BufReader<ChildStdout>> {
    BufReader::new(child.stdout.take().unwrap()).lines()
}

async fn line_with(lines: &mut Lines<BufReader<ChildStdout>>, text: &str) {
    let found = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.contains(text) {
                return;
            }
        }
        panic!("the command ended without saying {text:?}");
    };
    tokio::time::timeout(BOUND, found).await.unwrap_or_else(|_| panic!("never said {text:?}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_shows_changes() {
    let Some((served, kubectl)) = start().await else { return };
    kubectl.ok(&["run", "p", "--image=busybox"]).await;
    let mut child = kubectl.start(&["get", "pods", "-w", "--no-headers"], false);
    let mut shown = lines(&mut child);
    line_with(&mut shown, "Pending").await;
    set_status(&served, pods(), "p", &json!({"phase": "Running"})).await;
    line_with(&mut shown, "Running").await;
    kubectl.ok(&["run", "q", "--image=busybox"]).await;
    line_with(&mut shown, "q ").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_is_waited_for() {
    let Some((_served, kubectl)) = start().await else { return };
    kubectl.ok(&["run", "p", "--image=busybox"]).await;
    assert_eq!(kubectl.ok(&["delete", "pod", "p"]).await, "pod \"p\" deleted\n");
    assert_eq!(kubectl.run(&["get", "pod", "p"]).await.code, 1);
    let held = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: held, finalizers: [test/hold]}\n";
    kubectl.ok_with_input(&["create", "-f", "-"], held).await;
    let mut child = kubectl.start(&["delete", "cm", "held"], false);
    let mut said = lines(&mut child);
    line_with(&mut said, "deleted").await;
    kubectl.ok(&["patch", "cm", "held", "--type=merge", "-p", r#"{"metadata":{"finalizers":null}}"#]).await;
    let status = tokio::time::timeout(BOUND, child.wait()).await.expect("the deletion ends").unwrap();
    assert!(status.success());
    kubectl.ok(&["create", "configmap", "one", "--from-literal=a=1"]).await;
    kubectl.ok(&["label", "cm", "one", "g=x"]).await;
    assert_eq!(kubectl.ok(&["delete", "cm", "-l", "g=x"]).await, "configmap \"one\" deleted\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_are_waited_for() {
    let Some((served, kubectl)) = start().await else { return };
    kubectl.ok(&["run", "p", "--image=busybox"]).await;
    let wait = ["wait", "pod/p", "--for=condition=Ready", "--timeout=30s"];
    let child = kubectl.start(&wait, false);
    let ready = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
    set_status(&served, pods(), "p", &ready).await;
    let output = tokio::time::timeout(BOUND, child.wait_with_output()).await.unwrap().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "pod/p condition met\n");
    let phase = ["wait", "pod/p", "--for=jsonpath={.status.phase}=Running", "--timeout=30s"];
    assert_eq!(kubectl.ok(&phase).await, "pod/p condition met\n");
    let late = kubectl.run(&["wait", "pod/p", "--for=condition=Other", "--timeout=1s"]).await;
    assert!(late.code == 1 && late.stderr.contains("timed out"), "{}", late.stderr);
}

fn revision(number: u32, image: &str, uid: &str) -> String {
    format!(
        "apiVersion: apps/v1
kind: ReplicaSet
metadata:
  name: web-{number}
  labels: {{app: web, pod-template-hash: h{number}}}
  annotations: {{deployment.kubernetes.io/revision: \"{number}\"}}
  ownerReferences:
  - {{apiVersion: apps/v1, kind: Deployment, name: web, uid: {uid}, controller: true, blockOwnerDeletion: true}}
spec:
  replicas: 0
  selector:
    matchLabels: {{app: web, pod-template-hash: h{number}}}
  template:
    metadata:
      labels: {{app: web, pod-template-hash: h{number}}}
    spec:
      containers:
      - name: main
        image: {image}
"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn roll_outs_are_followed_and_undone() {
    let Some((served, kubectl)) = start().await else { return };
    kubectl.ok_with_input(&["create", "-f", "-"], DEPLOYMENT).await;
    let child = kubectl.start(&["rollout", "status", "deploy/web", "--timeout=30s"], false);
    let done = json!({
        "observedGeneration": 1, "replicas": 2, "updatedReplicas": 2, "readyReplicas": 2, "availableReplicas": 2,
        "conditions": [{"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"}],
    });
    set_status(&served, deployments(), "web", &done).await;
    let output = tokio::time::timeout(BOUND, child.wait_with_output()).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("deployment \"web\" successfully rolled out"), "{said}");
    let uid = kubectl.ok(&["get", "deploy", "web", "-o", "jsonpath={.metadata.uid}"]).await;
    for (number, image) in [(1, "nginx:1.24"), (2, "nginx:1.25")] {
        kubectl.ok_with_input(&["create", "-f", "-"], &revision(number, image, &uid)).await;
    }
    kubectl.ok(&["annotate", "deploy", "web", "deployment.kubernetes.io/revision=2"]).await;
    let history = kubectl.ok(&["rollout", "history", "deploy/web"]).await;
    assert!(history.lines().any(|l| l.starts_with("1 ")) && history.lines().any(|l| l.starts_with("2 ")), "{history}");
    assert_eq!(kubectl.ok(&["rollout", "undo", "deploy/web"]).await, "deployment.apps/web rolled back\n");
    let image = ["get", "deploy", "web", "-o", "jsonpath={.spec.template.spec.containers[0].image}"];
    assert_eq!(kubectl.ok(&image).await, "nginx:1.24");
}
