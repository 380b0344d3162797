//! Nodes are closed, emptied and opened again.

use super::harness::{Kind, Up, until};

const ALONE: &str = "apiVersion: v1
kind: Pod
metadata: {name: alone, labels: {app: alone}}
spec:
  containers: [{name: c, image: 'example.org/app:1'}]
  volumes: [{name: scratch, emptyDir: {}}]
";

const WEB: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: 'example.org/web:1'}]}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: web}
spec: {minAvailable: 2, selector: {matchLabels: {app: web}}}
";

#[test]
fn nodes_are_cordoned_and_opened_again() {
    let Some(up) = Up::start(Kind::Fake) else { return };
    until("the node is there", 60, || up.minik8s(&["get", "node", "node-1"]).code == 0);
    assert_eq!(up.minik8s(&["cordon", "node-1", "--dry-run"]).ok(), "node/node-1 cordoned (dry run)\n");
    assert_eq!(up.minik8s(&["cordon", "node-1"]).ok(), "node/node-1 cordoned\n");
    assert_eq!(up.minik8s(&["cordon", "-l", "kubernetes.io/os=linux"]).ok(), "node/node-1 already cordoned\n");
    assert!(up.minik8s(&["get", "nodes"]).ok().contains("SchedulingDisabled"));
    up.apply("alone.yaml", ALONE);
    until("a pod finds no node", 60, || {
        up.minik8s(&["describe", "pod", "alone"]).out.contains("1 node(s) were unschedulable")
    });
    assert_eq!(up.minik8s(&["uncordon", "node-1"]).ok(), "node/node-1 uncordoned\n");
    until("it finds one", 60, || up.minik8s(&["get", "pod", "alone"]).out.contains("Running"));
    let missing = up.minik8s(&["cordon", "node-7"]).refused();
    assert!(missing.contains("nodes \"node-7\" not found"), "{missing}");
    let none = up.minik8s(&["cordon", "-l", "zone=nowhere"]).refused();
    assert!(none.contains("no node has the labels \"zone=nowhere\""), "{none}");
    assert!(up.minik8s(&["cordon"]).refused().contains("NODE"));
}

#[test]
fn a_drain_says_what_keeps_it_and_empties_the_node() {
    let Some(up) = Up::start(Kind::Fake) else { return };
    up.apply("alone.yaml", ALONE);
    up.apply("web.yaml", WEB);
    up.minik8s(&["rollout", "status", "deploy/web", "--timeout", "60"]).ok();
    until("the other one runs", 60, || up.minik8s(&["get", "pod", "alone"]).out.contains("Running"));

    let refused = up.minik8s(&["drain", "node-1"]).refused();
    assert!(refused.contains("default/alone; allow it with --force"), "{refused}");
    assert!(refused.contains("default/alone; allow it with --delete-emptydir-data"), "{refused}");
    assert!(up.minik8s(&["get", "pod", "alone"]).out.contains("Running"), "nothing was evicted");

    until("the budget is looked at", 60, || {
        up.minik8s(&["get", "pdb", "web", "-o", "jsonpath={.status.currentHealthy}"]).out == "2"
    });
    let drain = ["drain", "node-1", "--force", "--delete-emptydir-data", "--grace-period", "1"];
    let stuck = up.minik8s(&[&drain[..], &["--timeout", "3s"]].concat()).refused();
    for part in
        ["has to wait: The disruption budget web needs 2 healthy pods and has 2 currently", "is not empty after 3 s"]
    {
        assert!(stuck.contains(part), "{part:?} is not in\n{stuck}");
    }
    until("what had no budget is gone", 60, || {
        let told = up.minik8s(&["get", "pod", "alone"]);
        told.code != 0 && told.err.contains("not found")
    });

    let dry = up.minik8s(&[&drain[..], &["--dry-run", "--pod-selector", "app=other"]].concat()).ok();
    assert_eq!(dry, "node/node-1 already cordoned (dry run)\nnode/node-1 drained (dry run)\n");
    up.minik8s(&["delete", "pdb", "web"]).ok();
    let said = up.minik8s(&[&drain[..], &["--timeout", "60"]].concat()).ok();
    assert_eq!(said.matches("evicting pod default/web-").count(), 2, "{said}");
    assert!(said.ends_with("node/node-1 drained\n"), "{said}");
    let left = up.minik8s(&["get", "pods", "-o", "jsonpath={.items[*].spec.nodeName}"]).ok();
    assert_eq!(left.trim(), "", "those that replace them find no node");
}
