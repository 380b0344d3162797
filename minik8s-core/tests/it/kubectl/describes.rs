//! Describing things, events included.

use super::{DEPLOYMENT, set_status, start};
use minik8s_core::api::Gvr;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn pods_with_their_events() {
    let Some((_served, kubectl)) = start().await else { return };
    kubectl.ok(&["run", "p", "--image=busybox", "--labels=app=p"]).await;
    let uid = kubectl.ok(&["get", "pod", "p", "-o", "jsonpath={.metadata.uid}"]).await;
    let event = json!({
        "kind": "Event", "apiVersion": "v1", "metadata": {"name": "p.1"}, "type": "Warning", "reason": "FailedScheduling",
        "message": "0/1 nodes are available", "count": 1, "source": {"component": "default-scheduler"},
        "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:00:00Z",
        "involvedObject": {"kind": "Pod", "apiVersion": "v1", "namespace": "default", "name": "p", "uid": uid},
    });
    kubectl.ok_with_input(&["create", "-f", "-"], &event.to_string()).await;
    let text = kubectl.ok(&["describe", "pod", "p"]).await;
    for part in ["Name:             p\n", "busybox", "FailedScheduling", "0/1 nodes are available"] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
    let events = kubectl.ok(&["get", "events"]).await;
    assert!(events.contains("FailedScheduling") && events.contains("pod/p"), "{events}");
    let of_pod = kubectl.ok(&["events", "--for", "pod/p"]).await;
    assert!(of_pod.contains("FailedScheduling"), "{of_pod}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes() {
    let Some((served, kubectl)) = start().await else { return };
    kubectl.ok_with_input(&["create", "-f", "-"], "apiVersion: v1\nkind: Node\nmetadata: {name: n1}\n").await;
    let status = json!({
        "capacity": {"cpu": "2", "memory": "4Gi", "pods": "110"}, "allocatable": {"cpu": "2", "memory": "4Gi", "pods": "110"},
        "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "ready",
            "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
        "nodeInfo": {"kubeletVersion": "v1.33.0", "osImage": "Debian", "kernelVersion": "6.1", "containerRuntimeVersion": "fake://1",
            "architecture": "amd64", "operatingSystem": "linux", "bootID": "", "machineID": "", "systemUUID": "", "kubeProxyVersion": ""},
    });
    set_status(&served, Gvr::new("", "v1", "nodes"), "n1", &status).await;
    let text = kubectl.ok(&["describe", "node", "n1"]).await;
    for part in ["Name:               n1\n", "KubeletReady", "Allocated resources:"] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
    let table = kubectl.ok(&["get", "nodes", "-o", "wide"]).await;
    assert!(table.contains(" Ready ") && table.contains("fake://1"), "{table}");
    assert_eq!(kubectl.ok(&["cordon", "n1"]).await, "node/n1 cordoned\n");
    assert!(kubectl.ok(&["get", "nodes"]).await.contains("Ready,SchedulingDisabled"));
    assert_eq!(kubectl.ok(&["uncordon", "n1"]).await, "node/n1 uncordoned\n");
    assert_eq!(kubectl.ok(&["taint", "node", "n1", "a=b:NoSchedule"]).await, "node/n1 tainted\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn deployments_services_and_the_rest() {
    let Some((_served, kubectl)) = start().await else { return };
    kubectl.ok_with_input(&["create", "-f", "-"], DEPLOYMENT).await;
    kubectl.ok(&["expose", "deploy", "web", "--port=80"]).await;
    kubectl.ok(&["create", "configmap", "c", "--from-literal=a=1"]).await;
    let cases: [(&[&str], &[&str]); 5] = [
        (&["describe", "deploy", "web"], &["Selector:", "app=web", "nginx:1.25", "StrategyType:"]),
        (&["describe", "svc", "web"], &["Selector:", "app=web", "IP:", "Port:"]),
        (&["describe", "cm", "c"], &["a:\n----\n1\n"]),
        (&["describe", "ns", "default"], &["Status:       Active"]),
        (&["describe", "sa", "default"], &["Name:                default"]),
    ];
    for (command, parts) in cases {
        let text = kubectl.ok(command).await;
        for part in parts {
            assert!(text.contains(part), "{command:?}: no {part:?} in\n{text}");
        }
    }
}
