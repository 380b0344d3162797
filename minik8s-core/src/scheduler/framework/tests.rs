//! Whole profiles over small clusters.

use super::super::{Policy, Resources};
use super::*;
use crate::testkit::scheduler::run_all;
use std::collections::BTreeMap;

fn node(name: &str, milli_cpu: i64) -> NodeInfo {
    let allocatable = Resources { milli_cpu, memory: 1 << 30, pods: 110, ..Resources::default() };
    NodeInfo { name: name.into(), allocatable, ..NodeInfo::default() }
}

fn pod(name: &str) -> PodInfo {
    let requests = Resources { milli_cpu: 100, memory: 1 << 20, ..Resources::default() };
    PodInfo { uid: name.into(), name: name.into(), namespace: "default".into(), requests, ..PodInfo::default() }
}

/// Places `count` pods one after the other; how many each node got.
fn place(policy: Policy, nodes: &[(&str, i64)], count: usize) -> BTreeMap<String, usize> {
    let scheduler = FrameworkScheduler::new(policy.profile());
    let mut snapshot = Snapshot::default();
    nodes.iter().for_each(|(name, cpu)| snapshot.put_node(node(name, *cpu)));
    let mut placed = BTreeMap::new();
    for i in 0..count {
        let mut wanted = PodInfo { owner: Some("rs".into()), ..pod(&format!("web-{i}")) };
        let Outcome::Node(choice) = scheduler.schedule(&snapshot, &wanted) else { panic!("no node for {i}") };
        *placed.entry(choice.node.clone()).or_default() += 1;
        wanted.node_name = choice.node;
        snapshot.put_pod(Arc::new(wanted));
    }
    placed
}

#[test]
fn every_policy_passes_the_suite() {
    for policy in ["Default", "roundrobin", "Random", "LeastPods", "LeastCpu", "LeastMemory"] {
        run_all(&FrameworkScheduler::new(policy.parse::<Policy>().unwrap().profile()));
    }
    assert!("Fastest".parse::<Policy>().unwrap_err().contains("RoundRobin"));
}

#[test]
fn replicas_of_a_controller_spread_over_nodes() {
    for policy in [Policy::Default, Policy::RoundRobin, Policy::LeastPods] {
        let placed = place(policy, &[("node-1", 4000), ("node-12", 4000), ("node-2", 4000)], 9);
        assert_eq!(placed.values().copied().collect::<Vec<_>>(), [3, 3, 3], "{policy:?}");
    }
}

#[test]
fn policies_prefer_what_they_are_named_after() {
    let mut snapshot = Snapshot::default();
    snapshot.put_node(node("few-pods", 1000));
    snapshot.put_node(node("much-cpu", 64000));
    let heavy = PodInfo {
        node_name: "few-pods".into(),
        requests: Resources { milli_cpu: 800, ..Resources::default() },
        ..pod("h")
    };
    snapshot.put_pod(Arc::new(heavy));
    for i in 0..3 {
        snapshot.put_pod(Arc::new(PodInfo { node_name: "much-cpu".into(), ..pod(&format!("l{i}")) }));
    }
    for (policy, expected) in [(Policy::LeastPods, "few-pods"), (Policy::LeastCpu, "much-cpu")] {
        let outcome = FrameworkScheduler::new(policy.profile()).schedule(&snapshot, &pod("new"));
        assert!(matches!(&outcome, Outcome::Node(c) if c.node == expected), "{policy:?} chose {outcome:?}");
    }
}

#[test]
fn chance_spreads_pods_and_the_seed_decides_how() {
    let nodes: Vec<(String, i64)> = (0..4).map(|i| (format!("n{i}"), 64000)).collect();
    let nodes: Vec<(&str, i64)> = nodes.iter().map(|(n, c)| (n.as_str(), *c)).collect();
    let placed = place(Policy::Random, &nodes, 200);
    assert!(placed.len() == 4 && placed.values().all(|n| *n > 20), "{placed:?}");
}

#[test]
fn why_not_counts_nodes_by_reason() {
    let mut snapshot = Snapshot::default();
    snapshot.put_node(node("small", 50));
    snapshot.put_node(node("tiny", 10));
    snapshot.put_node(NodeInfo { unschedulable: true, ..node("cordoned", 4000) });
    let scheduler = FrameworkScheduler::new(Policy::Default.profile());
    let Outcome::Unschedulable(why) = scheduler.schedule(&snapshot, &pod("web")) else { panic!("fits nowhere") };
    assert_eq!(why.to_string(), "0/3 nodes are available: 1 node(s) were unschedulable, 2 Insufficient cpu.");
    assert!(scheduler.may_help(&why, ClusterEvent::PodLeft));
    assert!(!scheduler.may_help(&why, ClusterEvent::PodPlaced));
}

#[test]
fn selectors_and_host_ports_keep_pods_off_nodes() {
    let mut snapshot = Snapshot::default();
    snapshot.put_node(NodeInfo { labels: [("disk".to_owned(), "ssd".to_owned())].into(), ..node("a", 4000) });
    snapshot.put_node(node("b", 4000));
    let scheduler = FrameworkScheduler::new(Policy::Default.profile());
    let selective = PodInfo { node_selector: [("disk".to_owned(), "ssd".to_owned())].into(), ..pod("p") };
    assert!(matches!(scheduler.schedule(&snapshot, &selective), Outcome::Node(c) if c.node == "a"));
    let port = ("".to_owned(), crate::network::Protocol::Tcp, 80);
    let with_port =
        |name: &str, on: &str| PodInfo { host_ports: vec![port.clone()], node_name: on.into(), ..pod(name) };
    snapshot.put_pod(Arc::new(with_port("x", "a")));
    assert!(matches!(scheduler.schedule(&snapshot, &with_port("y", "")), Outcome::Node(c) if c.node == "b"));
    snapshot.put_pod(Arc::new(with_port("y", "b")));
    assert!(matches!(scheduler.schedule(&snapshot, &with_port("z", "")), Outcome::Unschedulable(_)));
}

/// A change helps the pods that it makes room for, and nobody else.
#[test]
fn changes_help_exactly_those_they_make_room_for() {
    let scheduler = FrameworkScheduler::new(Policy::Default.profile());
    let labelled = |pod: PodInfo, app: &str| PodInfo { labels: [("app".to_owned(), app.to_owned())].into(), ..pod };
    let on = |pod: PodInfo, node: &str| PodInfo { node_name: node.into(), ..pod };
    let heavy = |cpu: i64| PodInfo { requests: Resources { milli_cpu: cpu, ..Resources::default() }, ..pod("w") };
    let mut snapshot = Snapshot::default();
    let rack = |name: &str, cpu| NodeInfo { labels: [("rack".to_owned(), name.to_owned())].into(), ..node(name, cpu) };
    snapshot.put_node(rack("full", 500));
    snapshot.put_node(NodeInfo { unschedulable: true, ..rack("closed", 4000) });
    snapshot.put_pod(Arc::new(on(PodInfo { priority: 5, ..heavy(400) }, "full")));
    let near: k8s_openapi::api::core::v1::Affinity = serde_json::from_value(serde_json::json!({"podAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [
            {"topologyKey": "rack", "labelSelector": {"matchLabels": {"app": "db"}}}]}}))
    .unwrap();
    let near = PodInfo { affinity: Some(Arc::new(near)), ..heavy(50) };
    let (db, web) = (labelled(on(pod("o"), "full"), "db"), labelled(on(pod("o"), "full"), "web"));
    let low = PodInfo { priority: 1, ..heavy(200) };
    let high = PodInfo { priority: 9, ..heavy(200) };
    use ClusterEvent::{NodeAdded, NodeChanged, PodLeft, PodPlaced};
    let (fit, cordon, affinity) = ("NodeResourcesFit", "NodeUnschedulable", "InterPodAffinity");
    // what it shows, the pod that waits, who refused it, what happens, where, to which pod, whether it helps
    type Row<'a> = (&'a str, &'a PodInfo, &'a [&'a str], ClusterEvent, &'a str, Option<&'a PodInfo>, bool);
    let (small, large) = (heavy(100), heavy(8000));
    let table: [Row<'_>; 15] = [
        ("there is room where a pod left", &small, &[fit, cordon], PodLeft, "full", Some(&web), true),
        ("there is none yet", &low, &[fit, cordon], PodLeft, "full", Some(&web), false),
        ("but it could displace the rest", &high, &[fit, cordon], PodLeft, "full", Some(&web), true),
        ("the node is closed all the same", &small, &[fit, cordon], PodLeft, "closed", Some(&web), false),
        ("a label is not what was missing", &low, &[fit], NodeChanged, "full", None, false),
        ("a node that is still closed", &small, &[cordon], NodeChanged, "closed", None, false),
        ("one that is open", &small, &[cordon], NodeChanged, "full", None, true),
        ("one that opens for who came before any node", &small, &[], NodeChanged, "full", None, true),
        ("and for whom others refused", &small, &["NodePorts"], NodeChanged, "full", None, true),
        ("but not for whom it is too small", &large, &[], NodeChanged, "full", None, false),
        ("a new node that is closed", &small, &[fit], NodeAdded, "closed", None, false),
        ("a new node that is too small", &large, &[fit], NodeAdded, "full", None, false),
        ("a new node that fits", &small, &[fit], NodeAdded, "full", None, true),
        ("the pod it wants to be near", &near, &[affinity], PodPlaced, "full", Some(&db), true),
        ("another one", &near, &[affinity], PodPlaced, "full", Some(&web), false),
    ];
    for (shows, waits, refused_by, event, at, other, helps) in table {
        let change = ClusterChange { event, node: snapshot.node(at), pod: other };
        assert_eq!(scheduler.helps(&snapshot, waits, refused_by, &change), helps, "{shows}");
    }
}

/// What a pod's leaving means while room is being made: nothing to those whose room is made elsewhere, or who would only
/// fit where room is kept for others.
#[test]
fn who_leaves_helps_whom_it_was_to_make_room_for() {
    let scheduler = FrameworkScheduler::new(Policy::Default.profile());
    let heavy = |name: &str, priority, on: &str| {
        let requests = Resources { milli_cpu: 500, ..Resources::default() };
        Arc::new(PodInfo { requests, priority, node_name: on.into(), ..pod(name) })
    };
    let waits =
        |name: &str, priority, at: &str| PodInfo { nominated: at.into(), ..(*heavy(name, priority, "")).clone() };
    let mut snapshot = Snapshot::default();
    for name in ["a", "b"] {
        snapshot.put_node(node(name, 1000));
        ["1", "2"].iter().for_each(|n| snapshot.put_pod(heavy(&format!("{name}{n}"), 0, name)));
    }
    let (mine, other, free) = (waits("mine", 9, "a"), waits("other", 9, "b"), waits("free", 9, ""));
    for pod in [&mine, &other] {
        snapshot.nominate(Arc::new(pod.clone()));
    }
    ["a1", "b1"].iter().for_each(|uid| snapshot.leaves(uid));
    let helped = |snapshot: &Snapshot, pod: &PodInfo, at: &str| {
        let change = ClusterChange { event: ClusterEvent::PodLeft, node: snapshot.node(at), pod: None };
        scheduler.helps(snapshot, pod, &["NodeResourcesFit"], &change)
    };
    assert!(helped(&snapshot, &free, "a"), "it could displace a2 beside the one that room is made for");
    assert!(!helped(&snapshot, &mine, "b") && !helped(&snapshot, &mine, "a"), "nobody has gone yet");
    snapshot.remove_pod("a1");
    assert!(helped(&snapshot, &mine, "a"), "its room is there");
    assert!(!helped(&snapshot, &other, "a"), "it is kept for another, and its own is being made");
    let low = waits("low", 0, "");
    assert!(!helped(&snapshot, &low, "a"), "it may displace nobody");
    snapshot.withdraw("mine");
    assert!(helped(&snapshot, &low, "a") && helped(&snapshot, &other, "a"), "it is kept no longer");
    snapshot.stays("b1");
    assert!(helped(&snapshot, &other, "b"), "who was to go for it stays: it looks again");
}
