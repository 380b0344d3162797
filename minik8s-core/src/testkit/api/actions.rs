//! Sub-resources that act: binding, eviction, scale, tokens; and the grace of pods.

use super::World;
use crate::api::{Gvr, Reason, Target};
use crate::client::{DeleteOptions, Deleted, PatchType};
use serde_json::{Value, json};

fn binding(pod: &str, node: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node}})
}

async fn bind(w: &World, pod: &str, node: &str) {
    w.create_at(&w.one("pods", pod).sub("binding"), &binding(pod, node)).await.unwrap();
}

pub(super) async fn a_pod_is_bound_once(w: &World) {
    w.pod("p").await;
    let target = w.one("pods", "p").sub("binding");
    let status = w.create_at(&target, &binding("p", "n1")).await.unwrap();
    assert_eq!((status["kind"].as_str(), status["status"].as_str()), (Some("Status"), Some("Success")));
    let pod = w.get("pods", "p").await.unwrap();
    assert_eq!(pod["spec"]["nodeName"], "n1");
    let condition = &pod["status"]["conditions"][0];
    assert_eq!((condition["type"].as_str(), condition["status"].as_str()), (Some("PodScheduled"), Some("True")));
    assert_eq!(w.picked("pods", "", "spec.nodeName=n1").await.unwrap(), ["p"]);
    let error = w.create_at(&target, &binding("p", "n2")).await.unwrap_err();
    let text = "Operation cannot be fulfilled on pods/binding \"p\": pod p is already assigned to node \"n1\"";
    assert_eq!((error.reason, error.message.as_str()), (Reason::Conflict, text));
    w.pod("q").await;
    let legacy = Target::in_namespace(Gvr::new("", "v1", "bindings"), &w.namespace);
    w.create_at(&legacy, &binding("q", "n2")).await.unwrap();
    assert_eq!(w.get("pods", "q").await.unwrap()["spec"]["nodeName"], "n2");
}

pub(super) async fn a_binding_for_another_of_the_same_name_is_refused(w: &World) {
    w.pod("p").await;
    let target = w.one("pods", "p").sub("binding");
    for metadata in [json!({"name": "p", "uid": "of-before"}), json!({"name": "p", "resourceVersion": "1"})] {
        let mut late = binding("p", "n1");
        late["metadata"] = metadata;
        assert_eq!(w.create_at(&target, &late).await.unwrap_err().reason, Reason::Conflict, "{late}");
    }
    let pod = w.get("pods", "p").await.unwrap();
    assert_eq!(pod["spec"].get("nodeName"), None);
    let mut right = binding("p", "n1");
    right["metadata"] = json!({"name": "p", "uid": pod["metadata"]["uid"]});
    w.create_at(&target, &right).await.unwrap();
}

pub(super) async fn a_scheduled_pod_goes_with_grace(w: &World) {
    w.pod("p").await;
    bind(w, "p", "n1").await;
    let target = w.one("pods", "p");
    let grace = |seconds| DeleteOptions { grace_period_seconds: seconds, ..DeleteOptions::default() };
    let Deleted::Marked(marked) = w.transport.delete(&target, &grace(None)).await.unwrap() else { panic!("grace") };
    assert_eq!(marked.meta.deletion_grace_period_seconds, Some(30));
    let Deleted::Marked(shorter) = w.transport.delete(&target, &grace(Some(5))).await.unwrap() else { panic!("grace") };
    assert_eq!(shorter.meta.deletion_grace_period_seconds, Some(5));
    assert!(shorter.meta.deletion_timestamp < marked.meta.deletion_timestamp);
    let Deleted::Marked(kept) = w.transport.delete(&target, &grace(Some(60))).await.unwrap() else { panic!("grace") };
    assert_eq!(kept.revision, shorter.revision, "grace never grows");
    assert!(matches!(w.transport.delete(&target, &grace(Some(0))).await.unwrap(), Deleted::Gone(_)));
    assert_eq!(w.get("pods", "p").await.unwrap_err().reason, Reason::NotFound);
    w.pod("unscheduled").await;
    let gone = w.delete("pods", "unscheduled").await.unwrap();
    assert!(matches!(gone, Deleted::Gone(o) if o.meta.deletion_timestamp.is_some()));
}

pub(super) async fn eviction_deletes(w: &World) {
    let eviction = |name: &str| json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": w.namespace}});
    w.pod("p").await;
    bind(w, "p", "n1").await;
    let status = w.create_at(&w.one("pods", "p").sub("eviction"), &eviction("p")).await.unwrap();
    assert_eq!(status["status"], "Success");
    assert!(w.get("pods", "p").await.unwrap()["metadata"]["deletionTimestamp"].is_string());
    let error = w.create_at(&w.one("pods", "nope").sub("eviction"), &eviction("nope")).await.unwrap_err();
    assert_eq!((error.reason, error.message.as_str()), (Reason::NotFound, "pods \"nope\" not found"));
}

pub(super) async fn scale_reads_and_writes_replicas(w: &World) {
    let deployment = json!({"metadata": {"name": "d"}, "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "g"}},
        "template": {"metadata": {"labels": {"app": "g"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    w.create("deployments", &deployment).await.unwrap();
    let target = w.one("deployments", "d").sub("scale");
    let scale = w.transport.get(&target).await.unwrap().value().unwrap();
    assert_eq!((scale["kind"].as_str(), scale["apiVersion"].as_str()), (Some("Scale"), Some("autoscaling/v1")));
    assert_eq!(
        (&scale["spec"], &scale["status"]),
        (&json!({"replicas": 1}), &json!({"replicas": 0, "selector": "app=g"}))
    );
    let scaled = w.patch(&target, PatchType::Merge, &json!({"spec": {"replicas": 3}})).await.unwrap();
    assert_eq!(scaled["spec"]["replicas"], 3);
    let shown = w.get("deployments", "d").await.unwrap();
    assert_eq!((shown["spec"]["replicas"].as_i64(), shown["metadata"]["generation"].as_i64()), (Some(3), Some(2)));
    let mut stale = scale;
    stale["spec"]["replicas"] = json!(9);
    assert_eq!(w.update_at(&target, &stale).await.unwrap_err().reason, Reason::Conflict);
    let foreign = json!({"metadata": {"name": "d", "uid": "x"}, "spec": {"replicas": 9}});
    for error in [w.update_at(&target, &foreign).await, w.patch(&target, PatchType::Merge, &foreign).await] {
        let error = error.unwrap_err();
        assert_eq!(error.reason, Reason::Conflict);
        assert!(error.message.contains("Precondition failed: UID in precondition: x, UID in object meta: "), "{error}");
    }
    let error = w.patch(&target, PatchType::Merge, &json!({"spec": {"replicas": -1}})).await.unwrap_err();
    assert_eq!(error.reason, Reason::Invalid);
}

pub(super) async fn tokens_are_refused_clearly(w: &World) {
    w.create("serviceaccounts", &json!({"metadata": {"name": "sa"}})).await.unwrap();
    let token = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let error = w.create_at(&w.one("serviceaccounts", "sa").sub("token"), &token).await.unwrap_err();
    assert!(error.message.contains("token"), "{error}");
}
