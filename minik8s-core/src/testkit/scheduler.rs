//! What every [`Scheduler`] must do, as named cases. Run them against your own: [`run_all`].

use super::suite::Tally;
use crate::scheduler::{NodeInfo, Outcome, PodInfo, Resources, Scheduler, Snapshot};
use k8s_openapi::api::core::v1::Taint;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::sync::Arc;

/// A named case.
pub type Case = (&'static str, fn(&dyn Scheduler));

/// All cases.
pub const CASES: &[Case] = &[
    ("no_nodes_is_unschedulable", no_nodes),
    ("a_node_too_small_is_never_chosen", too_small),
    ("a_cordoned_or_tainted_node_is_never_chosen", cordoned_and_tainted),
    ("every_refused_node_has_a_reason", reasons),
    ("the_same_snapshot_gives_the_same_node", deterministic),
    ("nothing_is_over_committed_over_random_workloads", never_over_committed),
];

/// Runs every case.
///
/// # Panics
/// Where cases fail, with the name of each.
pub fn run_all(scheduler: &dyn Scheduler) {
    let mut tally = Tally::new("scheduler");
    for (name, case) in CASES {
        tally.check(name, || case(scheduler));
    }
    tally.finish();
}

fn node(name: &str, milli_cpu: i64) -> NodeInfo {
    let allocatable = Resources { milli_cpu, memory: 1 << 30, pods: 20, ..Resources::default() };
    NodeInfo { name: name.into(), allocatable, ..NodeInfo::default() }
}

fn pod(uid: &str, milli_cpu: i64) -> PodInfo {
    let requests = Resources { milli_cpu, ..Resources::default() };
    PodInfo { uid: uid.into(), name: uid.into(), namespace: "default".into(), requests, ..PodInfo::default() }
}

fn no_nodes(scheduler: &dyn Scheduler) {
    let outcome = scheduler.schedule(&Snapshot::default(), &pod("a", 100));
    assert!(matches!(outcome, Outcome::Unschedulable(_)), "{outcome:?}");
}

fn too_small(scheduler: &dyn Scheduler) {
    let mut snapshot = Snapshot::default();
    snapshot.put_node(node("small", 99));
    let outcome = scheduler.schedule(&snapshot, &pod("a", 100));
    assert!(matches!(outcome, Outcome::Unschedulable(_)), "{outcome:?}");
}

fn cordoned_and_tainted(scheduler: &dyn Scheduler) {
    let mut snapshot = Snapshot::default();
    snapshot.put_node(NodeInfo { unschedulable: true, ..node("cordoned", 4000) });
    let taint = Taint { key: "k".into(), effect: "NoSchedule".into(), ..Taint::default() };
    snapshot.put_node(NodeInfo { taints: vec![taint], ..node("tainted", 4000) });
    snapshot.put_node(node("free", 4000));
    for i in 0..10 {
        match scheduler.schedule(&snapshot, &pod(&format!("p{i}"), 100)) {
            Outcome::Node(choice) => assert_eq!(choice.node, "free"),
            other => panic!("expected the free node, got {other:?}"),
        }
    }
}

fn reasons(scheduler: &dyn Scheduler) {
    let mut snapshot = Snapshot::default();
    for i in 0..5 {
        snapshot.put_node(node(&format!("n{i}"), 50));
    }
    let Outcome::Unschedulable(diagnosis) = scheduler.schedule(&snapshot, &pod("a", 100)) else {
        panic!("nothing fits, yet a node was chosen");
    };
    assert_eq!(diagnosis.nodes.len(), 5);
    assert!(diagnosis.nodes.values().all(|(_, reasons)| !reasons.is_empty()));
    assert!(diagnosis.to_string().starts_with("0/5 nodes are available: "), "{diagnosis}");
}

fn deterministic(scheduler: &dyn Scheduler) {
    let mut snapshot = Snapshot::default();
    for i in 0..20 {
        snapshot.put_node(node(&format!("n{i}"), 1000));
    }
    let first = scheduler.schedule(&snapshot, &pod("a", 100));
    for _ in 0..5 {
        assert_eq!(scheduler.schedule(&snapshot, &pod("a", 100)), first);
    }
}

fn never_over_committed(scheduler: &dyn Scheduler) {
    for seed in 0..20 {
        let mut chance = StdRng::seed_from_u64(seed);
        let mut snapshot = Snapshot::default();
        for i in 0..chance.random_range(1..6) {
            snapshot.put_node(node(&format!("n{i}"), chance.random_range(200..2000)));
        }
        for i in 0..60 {
            let mut wanted = pod(&format!("p{i}"), chance.random_range(0..700));
            if let Outcome::Node(choice) = scheduler.schedule(&snapshot, &wanted) {
                wanted.node_name = choice.node;
                snapshot.put_pod(Arc::new(wanted));
            }
            if chance.random_range(0..4) == 0 {
                snapshot.remove_pod(&format!("p{}", chance.random_range(0..=i)));
            }
            for n in snapshot.nodes() {
                let (used, have) = (&n.requested, &n.allocatable);
                assert!(used.milli_cpu <= have.milli_cpu && used.pods <= have.pods, "seed {seed}: {} is over", n.name);
            }
        }
    }
}
