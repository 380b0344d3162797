//! Tables of the decisions.

use super::decide::*;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn set(replicas: i32) -> ReplicaSet {
    let value = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "web", "generation": 3},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "minReadySeconds": 10,
            "template": {"metadata": {"labels": {"app": "web", "tier": "front"}}}}});
    serde_json::from_value(value).unwrap()
}

fn pod(name: &str, node: &str, phase: &str, ready_since: Option<i64>, extra: Value) -> Replica {
    let ready = if ready_since.is_some() { "True" } else { "False" };
    let since = ready_since.unwrap_or(0);
    let mut value = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "web", "tier": "front"}, "creationTimestamp": at(100).to_string()},
        "spec": {"nodeName": node, "containers": []},
        "status": {"phase": phase, "conditions": [
            {"type": "Ready", "status": ready, "lastTransitionTime": at(since).to_string()}]}});
    json_patch::merge(&mut value, &extra);
    Replica { pod: Arc::new(serde_json::from_value(value).unwrap()), lost: false }
}

fn simple(name: &str) -> Replica {
    pod(name, "n1", "Running", Some(1), json!({}))
}

#[test]
fn makes_and_deletes_the_difference() {
    let three: Vec<_> = ["a", "b", "c"].map(simple).to_vec();
    assert_eq!(plan(&set(3), &three), Plan::default());
    assert_eq!(plan(&set(5), &three), Plan { create: 2, delete: vec![] });
    assert_eq!(plan(&set(2), &three).delete.len(), 1);
    assert_eq!(plan(&set(0), &three).delete.len(), 3);
    assert_eq!(plan(&set(100_000), &three).create, 500);
}

#[test]
fn what_is_missed_least_goes_first() {
    let cost = |n: &str| json!({"metadata": {"annotations": {"controller.kubernetes.io/pod-deletion-cost": n}}});
    let restarts = json!({"status": {"containerStatuses": [
        {"name": "c", "restartCount": 4, "image": "i", "imageID": "", "ready": true}]}});
    let young = json!({"metadata": {"creationTimestamp": at(900).to_string()}});
    let replicas = [
        pod("steady", "n1", "Running", Some(10), json!({})),
        pod("restarted", "n2", "Running", Some(10), restarts),
        pod("young", "n3", "Running", Some(10), young),
        pod("ready-later", "n4", "Running", Some(500), json!({})),
        pod("crowded-1", "n5", "Running", Some(10), json!({})),
        pod("crowded-2", "n5", "Running", Some(10), json!({})),
        pod("cheap", "n6", "Running", Some(10), cost("-5")),
        pod("precious", "n5", "Running", Some(10), cost("9")),
        pod("not-ready", "n7", "Running", None, json!({})),
        pod("pending", "n8", "Pending", None, json!({})),
        pod("unassigned", "", "Pending", None, json!({})),
        Replica { lost: true, ..pod("lost", "n9", "Running", Some(10), json!({})) },
    ];
    let order: Vec<_> =
        plan(&set(0), &replicas).delete.into_iter().map(|i| replicas[i].pod.metadata.name.clone().unwrap()).collect();
    let want = [
        "unassigned",
        "pending",
        "lost",
        "not-ready",
        "cheap",
        "crowded-1",
        "crowded-2",
        "ready-later",
        "restarted",
        "young",
        "steady",
        "precious",
    ];
    assert_eq!(order, want);
}

#[test]
fn status_counts_what_is_true_and_knows_when_it_changes() {
    let unlabelled = json!({"metadata": {"labels": {"tier": null}}});
    let replicas = [
        pod("a", "n", "Running", Some(50), json!({})),
        pod("b", "n", "Running", Some(95), json!({})),
        pod("c", "n", "Running", Some(93), unlabelled),
        pod("d", "n", "Pending", None, json!({})),
        Replica { lost: true, ..pod("e", "n", "Running", Some(50), json!({})) },
    ];
    let (status, next) = status(&set(5), &replicas, 2, None, at(100));
    assert_eq!(
        (status.replicas, status.fully_labeled_replicas, status.ready_replicas, status.available_replicas),
        (5, Some(4), Some(3), Some(1))
    );
    assert_eq!((status.observed_generation, status.terminating_replicas), (Some(3), Some(2)));
    assert_eq!(next, Some(Duration::from_secs(3)), "c will be available then");
}

#[test]
fn a_failure_is_a_condition_until_it_is_over() {
    let mut set = set(1);
    let (first, _) = status(&set, &[], 0, Some("quota"), at(5));
    let condition = first.conditions.clone().unwrap().remove(0);
    assert_eq!((condition.type_.as_str(), condition.message.as_deref()), ("ReplicaFailure", Some("quota")));
    set.status = Some(first.clone());
    let (again, _) = status(&set, &[], 0, Some("quota"), at(50));
    assert!(says_the_same(Some(&first), &again), "the time of the transition stays");
    let (over, _) = status(&set, &[], 0, None, at(60));
    assert!(over.conditions.is_none() && !says_the_same(Some(&first), &over));
}

#[test]
fn absent_numbers_are_zeros() {
    let old: Pod = Pod::default();
    assert!(!super::super::is_ready(&old));
    let (new, _) = status(&set(0), &[], 0, None, at(0));
    let stored = k8s_openapi::api::apps::v1::ReplicaSetStatus { observed_generation: Some(3), ..Default::default() };
    assert!(says_the_same(Some(&stored), &new));
    assert!(!says_the_same(None, &new));
}
