//! The documented behaviour, as tables. Nodes `a1`, `a2` are in zone `a`, `b1` in zone `b`, `bare` in none.

use super::*;
use crate::scheduler::{FrameworkScheduler, Outcome, Policy, Resources, Scheduler};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

const NEAR: &str = "node(s) didn't match pod affinity rules";
const APART: &str = "node(s) didn't match pod anti-affinity rules";
const UNWELCOME: &str = "node(s) didn't satisfy existing pods anti-affinity rules";

fn labels(text: &str) -> BTreeMap<String, String> {
    text.split(',').filter_map(|pair| pair.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

fn world() -> Snapshot {
    let mut snapshot = Snapshot::default();
    for (name, zone) in [("a1", "zone=a"), ("a2", "zone=a"), ("b1", "zone=b"), ("bare", "")] {
        let allocatable = Resources { milli_cpu: 4000, memory: 1 << 32, pods: 110, ..Resources::default() };
        let mut labels = labels(zone);
        labels.insert("host".into(), name.into());
        snapshot.put_node(NodeInfo { name: name.into(), labels, allocatable, ..NodeInfo::default() });
    }
    snapshot.put_namespace("default", labels("team=one"));
    snapshot.put_namespace("other", labels("team=two"));
    snapshot
}

/// `namespace/name` with these labels and this affinity, on a node or on none.
fn pod(key: &str, has: &str, affinity: Value, node: &str) -> PodInfo {
    let (namespace, name) = key.split_once('/').unwrap();
    PodInfo {
        uid: key.into(),
        namespace: namespace.into(),
        name: name.into(),
        labels: labels(has),
        affinity: (!affinity.is_null()).then(|| Arc::new(serde_json::from_value(affinity).unwrap())),
        node_name: node.into(),
        ..PodInfo::default()
    }
}

fn term(key: &str, app: &str) -> Value {
    json!({"topologyKey": key, "labelSelector": {"matchLabels": {"app": app}}})
}

fn required(kind: &str, terms: Value) -> Value {
    json!({kind: {"requiredDuringSchedulingIgnoredDuringExecution": terms}})
}

fn preferred(kind: &str, weight: i64, term: Value) -> Value {
    json!({kind: {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": weight, "podAffinityTerm": term}]}})
}

/// The reason of each node, in order of their names; empty where the pod may run.
fn verdicts(snapshot: &Snapshot, pod: &PodInfo) -> Vec<String> {
    let Some(ready) = InterPodAffinity.prepare(pod, snapshot) else { return vec![String::new(); snapshot.len()] };
    snapshot.nodes().map(|node| ready.refuse(node).concat()).collect()
}

#[test]
fn required_terms_keep_pods_near_and_apart() {
    let with = |extra: Value| {
        let mut term = term("zone", "db");
        term.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        json!([term])
    };
    // what it shows, the pod's labels, its affinity, the verdicts on a1, a2, b1, bare
    let table: Vec<(&str, &str, Value, [&str; 4])> = vec![
        ("near a zone's pods", "app=web", required("podAffinity", json!([term("zone", "db")])), ["", "", NEAR, NEAR]),
        ("near a host's pods", "app=web", required("podAffinity", json!([term("host", "db")])), ["", NEAR, NEAR, NEAR]),
        ("nobody to be near", "app=web", required("podAffinity", json!([term("zone", "x")])), [NEAR; 4]),
        ("the first of its group", "app=x", required("podAffinity", json!([term("zone", "x")])), ["", "", "", NEAR]),
        (
            "all terms must hold, and mean the same pod",
            "app=web",
            required("podAffinity", json!([term("zone", "db"), term("zone", "cache")])),
            [NEAR; 4],
        ),
        (
            "apart from a zone's pods; a node without the label is in no zone",
            "app=web",
            required("podAntiAffinity", json!([term("zone", "db")])),
            [APART, APART, "", ""],
        ),
        (
            "each term of anti-affinity refuses alone",
            "app=web",
            required("podAntiAffinity", json!([term("host", "db"), term("host", "cache")])),
            [APART, "", APART, ""],
        ),
        (
            "another namespace",
            "app=web",
            required("podAffinity", with(json!({"namespaces": ["other"]}))),
            [NEAR, NEAR, "", NEAR],
        ),
        (
            "namespaces by label",
            "app=web",
            required("podAntiAffinity", with(json!({"namespaceSelector": {"matchLabels": {"team": "two"}}}))),
            ["", "", APART, ""],
        ),
        (
            "all namespaces",
            "app=web",
            required("podAntiAffinity", with(json!({"namespaceSelector": {}}))),
            [APART, APART, APART, ""],
        ),
        (
            "a missing selector means no pod",
            "app=web",
            required("podAntiAffinity", json!([{"topologyKey": "zone"}])),
            ["", "", "", ""],
        ),
        (
            "only those of the same version",
            "app=web,version=2",
            required("podAntiAffinity", with(json!({"matchLabelKeys": ["version", "missing"]}))),
            ["", "", "", ""],
        ),
        (
            "only those of another version",
            "app=web,version=2",
            required("podAntiAffinity", with(json!({"mismatchLabelKeys": ["version"]}))),
            [APART, APART, "", ""],
        ),
    ];
    let mut snapshot = world();
    for (key, has, node) in [
        ("default/db", "app=db,version=1", "a1"),
        ("default/cache", "app=cache", "b1"),
        ("other/db", "app=db,version=1", "b1"),
    ] {
        snapshot.put_pod(Arc::new(pod(key, has, Value::Null, node)));
    }
    for (shows, has, affinity, expected) in table {
        assert_eq!(verdicts(&snapshot, &pod("default/new", has, affinity, "")), expected, "{shows}");
    }
}

#[test]
fn pods_that_are_there_keep_others_away() {
    let mut snapshot = world();
    let alone = required("podAntiAffinity", json!([term("zone", "web")]));
    snapshot.put_pod(Arc::new(pod("default/hermit", "app=hermit", alone, "a2")));
    assert_eq!(verdicts(&snapshot, &pod("default/w", "app=web", Value::Null, "")), [UNWELCOME, UNWELCOME, "", ""]);
    assert_eq!(verdicts(&snapshot, &pod("default/x", "app=x", Value::Null, "")), ["", "", "", ""]);
    assert_eq!(verdicts(&snapshot, &pod("other/w", "app=web", Value::Null, "")), ["", "", "", ""], "its own namespace");
    snapshot.remove_pod("default/hermit");
    assert_eq!(verdicts(&snapshot, &pod("default/w", "app=web", Value::Null, "")), ["", "", "", ""]);
}

#[test]
fn a_prepared_filter_follows_pods_that_come_and_go() {
    let mut snapshot = world();
    let apart = required("podAntiAffinity", json!([term("host", "web")]));
    let there = pod("default/w1", "app=web", apart.clone(), "a1");
    snapshot.put_pod(Arc::new(there.clone()));
    let new = pod("default/w2", "app=web", apart, "");
    let mut ready = InterPodAffinity.prepare(&new, &snapshot).unwrap();
    let node = snapshot.node("a1").unwrap();
    assert_eq!(ready.refuse(node), [APART]);
    ready.count(&there, node, -1);
    assert!(ready.refuse(node).is_empty());
    ready.count(&there, node, 1);
    assert_eq!(ready.refuse(node), [APART]);
}

#[test]
fn preferences_draw_near_and_apart_from_both_sides() {
    let scores = |there: &PodInfo, new: &PodInfo| {
        let mut snapshot = world();
        snapshot.put_pod(Arc::new(there.clone()));
        InterPodAffinity.score(new, &snapshot.nodes().collect::<Vec<_>>(), &snapshot)
    };
    let plain = pod("default/db", "app=db", Value::Null, "a1");
    let new = |affinity| pod("default/web", "app=web", affinity, "");
    assert_eq!(scores(&plain, &new(preferred("podAffinity", 10, term("zone", "db")))), [100, 100, 0, 0]);
    assert_eq!(scores(&plain, &new(preferred("podAntiAffinity", 10, term("host", "db")))), [0, 100, 100, 100]);
    assert_eq!(scores(&plain, &new(Value::Null)), [0; 4]);
    let fond = |affinity| pod("default/db", "app=db", affinity, "b1");
    assert_eq!(scores(&fond(preferred("podAffinity", 5, term("zone", "web"))), &new(Value::Null)), [0, 0, 100, 0]);
    assert_eq!(
        scores(&fond(preferred("podAntiAffinity", 5, term("zone", "web"))), &new(Value::Null)),
        [100, 100, 0, 100]
    );
    assert_eq!(scores(&fond(required("podAffinity", json!([term("zone", "web")]))), &new(Value::Null)), [0, 0, 100, 0]);
}

#[test]
fn the_reasons_are_counted_in_the_words_of_the_real_scheduler() {
    let mut snapshot = world();
    let scheduler = FrameworkScheduler::new(Policy::Default.profile());
    for node in ["a1", "a2", "b1", "bare"] {
        snapshot.put_pod(Arc::new(pod(&format!("default/{node}"), "app=web", Value::Null, node)));
    }
    let alone = pod("default/new", "app=web", required("podAntiAffinity", json!([term("host", "web")])), "");
    let Outcome::Unschedulable(why) = scheduler.schedule(&snapshot, &alone) else { panic!("there is no room") };
    assert_eq!(why.to_string(), format!("0/4 nodes are available: 4 {APART}."));
}
