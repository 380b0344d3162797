//! The documented behaviour, as tables.

use super::PodSpread;
use crate::scheduler::{FilterPlugin, NodeInfo, PodInfo, ScorePlugin, Snapshot};
use k8s_openapi::api::core::v1::Taint;
use serde_json::{Value, json};
use std::sync::Arc;

const SKEWED: &str = "node(s) didn't match pod topology spread constraints";
const UNLABELLED: &str = "node(s) didn't match pod topology spread constraints (missing required label)";

fn node(name: &str, zone: &str) -> NodeInfo {
    let mut labels = [("kubernetes.io/hostname".to_owned(), name.to_owned())].into_iter().collect::<Vec<_>>();
    if !zone.is_empty() {
        labels.push(("zone".into(), zone.into()));
        labels.push(("topology.kubernetes.io/zone".into(), zone.into()));
    }
    NodeInfo { name: name.into(), labels: labels.into_iter().collect(), ..NodeInfo::default() }
}

fn pod(uid: &str, node: &str, constraints: Value) -> PodInfo {
    PodInfo {
        uid: uid.into(),
        name: uid.into(),
        namespace: "default".into(),
        labels: [("app".to_owned(), "web".to_owned())].into(),
        spread: serde_json::from_value(constraints).unwrap(),
        node_name: node.into(),
        ..PodInfo::default()
    }
}

/// Pods by node: `a1 a1 b1` is two on a1 and one on b1.
fn world(nodes: &[NodeInfo], pods: &str) -> Snapshot {
    let mut snapshot = Snapshot::default();
    nodes.iter().cloned().for_each(|node| snapshot.put_node(node));
    for (n, on) in pods.split_whitespace().enumerate() {
        snapshot.put_pod(Arc::new(pod(&format!("{on}-{n}"), on, json!([]))));
    }
    snapshot
}

fn zoned() -> Vec<NodeInfo> {
    vec![node("a1", "a"), node("a2", "a"), node("b1", "b"), node("bare", "")]
}

fn verdicts(snapshot: &Snapshot, pod: &PodInfo) -> Vec<String> {
    let ready = PodSpread.prepare(pod, snapshot).expect("it has constraints");
    snapshot.nodes().map(|node| ready.refuse(node).concat()).collect()
}

fn hard(more: Value) -> Value {
    let mut constraint = json!({"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "web"}}});
    constraint.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!([constraint])
}

#[test]
fn hard_constraints_bound_the_skew() {
    // what it shows, pods that are there, the constraint, verdicts on a1, a2, b1, bare
    let table: [(&str, &str, Value, [&str; 4]); 9] = [
        ("an empty cluster", "", hard(json!({})), ["", "", "", UNLABELLED]),
        ("one zone is ahead", "a1", hard(json!({})), [SKEWED, SKEWED, "", UNLABELLED]),
        ("both have the same", "a1 b1", hard(json!({})), ["", "", "", UNLABELLED]),
        ("a larger skew", "a1", hard(json!({"maxSkew": 2})), ["", "", "", UNLABELLED]),
        ("a node without the label does not count", "bare", hard(json!({})), ["", "", "", UNLABELLED]),
        (
            "too few domains: the least is none",
            "a1 b1",
            hard(json!({"minDomains": 3})),
            [SKEWED, SKEWED, SKEWED, UNLABELLED],
        ),
        (
            "a pod that its selector does not mean adds nothing",
            "a1",
            hard(json!({"labelSelector": {"matchLabels": {"app": "other"}}})),
            ["", "", "", UNLABELLED],
        ),
        (
            "labels of its own narrow the selector",
            "a1",
            hard(json!({"matchLabelKeys": ["version"]})),
            ["", "", "", UNLABELLED],
        ),
        ("by host", "a1", hard(json!({"topologyKey": "kubernetes.io/hostname"})), [SKEWED, "", "", ""]),
    ];
    for (shows, there, constraints, expected) in table {
        let mut new = pod("new", "", constraints);
        new.labels.insert("version".into(), "2".into());
        assert_eq!(verdicts(&world(&zoned(), there), &new), expected, "{shows}");
    }
}

#[test]
fn nodes_that_the_pod_cannot_use_are_counted_as_asked() {
    let tainted = |policy: &str| {
        let taint = Taint { key: "gpu".into(), effect: "NoSchedule".into(), ..Taint::default() };
        let nodes = [node("a1", "a"), NodeInfo { taints: vec![taint], ..node("b1", "b") }];
        verdicts(&world(&nodes, "a1"), &pod("new", "", hard(json!({"nodeTaintsPolicy": policy}))))
    };
    assert_eq!(tainted("Ignore"), [SKEWED, ""], "the tainted zone is there, and empty");
    assert_eq!(tainted("Honor"), ["", ""], "there is only one zone");
    let selected = |policy: &str| {
        let mut new = pod("new", "", hard(json!({"nodeAffinityPolicy": policy})));
        new.node_selector.insert("zone".into(), "a".into());
        verdicts(&world(&[node("a1", "a"), node("b1", "b")], "a1"), &new)
    };
    assert_eq!(selected("Honor"), ["", ""]);
    assert_eq!(selected("Ignore"), [SKEWED, ""]);
}

#[test]
fn pods_that_are_about_to_go_or_live_elsewhere_do_not_count() {
    let mut snapshot = world(&zoned(), "");
    snapshot.put_pod(Arc::new(PodInfo { terminating: true, ..pod("old", "a1", json!([])) }));
    snapshot.put_pod(Arc::new(PodInfo { namespace: "other".into(), ..pod("far", "a1", json!([])) }));
    assert_eq!(verdicts(&snapshot, &pod("new", "", hard(json!({})))), ["", "", "", UNLABELLED]);
}

#[test]
fn a_prepared_filter_follows_pods_that_come_and_go() {
    let snapshot = world(&zoned(), "a1");
    let new = pod("new", "", hard(json!({})));
    let mut ready = PodSpread.prepare(&new, &snapshot).unwrap();
    let (node, there) = (snapshot.node("a1").unwrap(), pod("a1-0", "a1", json!([])));
    assert_eq!(ready.refuse(node), [SKEWED]);
    ready.count(&there, node, -1);
    assert!(ready.refuse(node).is_empty());
    ready.count(&there, node, 1);
    assert_eq!(ready.refuse(node), [SKEWED]);
}

#[test]
fn soft_constraints_and_the_defaults_prefer_the_emptiest() {
    let soft = |key: &str| hard(json!({"whenUnsatisfiable": "ScheduleAnyway", "topologyKey": key}));
    let scores = |there: &str, constraints: Value| {
        let snapshot = world(&zoned(), there);
        let new = pod("new", "", constraints);
        assert!(new.spread.is_empty() || PodSpread.prepare(&new, &snapshot).is_none(), "nothing must hold");
        PodSpread.score(&new, &snapshot.nodes().collect::<Vec<_>>(), &snapshot)
    };
    assert_eq!(scores("a1", soft("zone")), [0, 0, 100, 0], "a node in no zone is worth nothing");
    assert_eq!(scores("", soft("zone")), [100, 100, 100, 0]);
    let by_host = scores("a1 a1 a2", soft("kubernetes.io/hostname"));
    assert!(by_host[0] < by_host[1] && by_host[1] < by_host[2] && by_host[2] == by_host[3], "{by_host:?}");
    let default = scores("a1", json!([]));
    assert!(default[0] < default[1] && default[1] < default[2], "the other zone, then the other host: {default:?}");
}
