//! What a ReplicaSet needs: which pods to make, which to delete first, what its status says. Pure.

use super::super::pods::{is_available, is_ready, phase, ready_since, until_available};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::cmp::{Ordering, Reverse};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Largest number of pods made or deleted in one go.
const BURST: usize = 500;
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// A pod of the set, and whether its node is silent: then the pod counts as not ready, whatever it last said.
#[derive(Clone, Debug)]
pub struct Replica {
    /// The pod.
    pub pod: Arc<Pod>,
    /// Its node is lost.
    pub lost: bool,
}

impl Replica {
    fn ready(&self) -> bool {
        !self.lost && is_ready(&self.pod)
    }
}

/// What is to be done.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// How many pods to make.
    pub create: usize,
    /// Which pods to delete, by their place in the input.
    pub delete: Vec<usize>,
}

/// Compares the wanted number with the active pods.
pub fn plan(set: &ReplicaSet, active: &[Replica]) -> Plan {
    let want = usize::try_from(wanted(set)).unwrap_or(0);
    if active.len() <= want {
        return Plan { create: (want - active.len()).min(BURST), delete: Vec::new() };
    }
    let surplus = (active.len() - want).min(BURST);
    Plan { create: 0, delete: first_to_go(active).into_iter().take(surplus).collect() }
}

/// How many pods the set wants.
pub fn wanted(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
}

/// The pods in the order in which they may go: what is missed least comes first.
fn first_to_go(active: &[Replica]) -> Vec<usize> {
    let node = |r: &Replica| r.pod.spec.as_ref().and_then(|s| s.node_name.clone()).filter(|n| !n.is_empty());
    let mut on_node: HashMap<Option<String>, usize> = HashMap::new();
    for replica in active {
        *on_node.entry(node(replica)).or_default() += 1;
    }
    let mut order: Vec<usize> = (0..active.len()).collect();
    order.sort_by(|&a, &b| {
        let (a, b) = (&active[a], &active[b]);
        let crowd = |r: &Replica| on_node.get(&node(r)).copied().unwrap_or(0);
        node(a)
            .is_some()
            .cmp(&node(b).is_some())
            .then_with(|| liveliness(a).cmp(&liveliness(b)))
            .then_with(|| a.ready().cmp(&b.ready()))
            .then_with(|| deletion_cost(&a.pod).cmp(&deletion_cost(&b.pod)))
            .then_with(|| crowd(b).cmp(&crowd(a)))
            .then_with(|| younger(ready_since(&a.pod), ready_since(&b.pod)))
            .then_with(|| restarts(&b.pod).cmp(&restarts(&a.pod)))
            .then_with(|| younger(created(&a.pod), created(&b.pod)))
            .then_with(|| a.pod.metadata.name.cmp(&b.pod.metadata.name))
    });
    order
}

fn liveliness(replica: &Replica) -> u8 {
    match phase(&replica.pod) {
        "Pending" => 0,
        "Running" if !replica.lost => 2,
        _ => 1,
    }
}

fn deletion_cost(pod: &Pod) -> i32 {
    let annotation = pod.metadata.annotations.as_ref().and_then(|a| a.get(DELETION_COST));
    annotation.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// The later one first; one that has no time is the youngest.
fn younger(a: Option<Timestamp>, b: Option<Timestamp>) -> Ordering {
    Reverse(a.unwrap_or(Timestamp::MAX)).cmp(&Reverse(b.unwrap_or(Timestamp::MAX)))
}

fn created(pod: &Pod) -> Option<Timestamp> {
    pod.metadata.creation_timestamp.as_ref().map(|t| t.0)
}

fn restarts(pod: &Pod) -> i32 {
    let containers = pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten());
    containers.into_iter().map(|c| c.restart_count).max().unwrap_or(0)
}

/// What the status says now, and when it will say something else although nothing changed.
pub fn status(
    set: &ReplicaSet,
    active: &[Replica],
    terminating: usize,
    failure: Option<&str>,
    now: Timestamp,
) -> (ReplicaSetStatus, Option<Duration>) {
    let spec = set.spec.as_ref();
    let min_ready = spec.and_then(|s| s.min_ready_seconds).unwrap_or(0);
    let template = spec.and_then(|s| s.template.as_ref()).and_then(|t| t.metadata.as_ref());
    let template = template.and_then(|m| m.labels.as_ref());
    let labelled = |r: &&Replica| {
        let labels = r.pod.metadata.labels.as_ref();
        template.into_iter().flatten().all(|(k, v)| labels.and_then(|l| l.get(k)) == Some(v))
    };
    let ready = || active.iter().filter(|r| r.ready());
    let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
    let available = ready().filter(|r| is_available(&r.pod, min_ready, now)).count();
    let old = set.status.clone().unwrap_or_default();
    let conditions = conditions(old.conditions, failure, now);
    let status = ReplicaSetStatus {
        replicas: count(active.len()),
        fully_labeled_replicas: Some(count(active.iter().filter(labelled).count())),
        ready_replicas: Some(count(ready().count())),
        available_replicas: Some(count(available)),
        terminating_replicas: Some(count(terminating)),
        observed_generation: set.metadata.generation,
        conditions: (!conditions.is_empty()).then_some(conditions),
    };
    let waits = ready().filter_map(|r| until_available(&r.pod, min_ready, now)).filter(|left| !left.is_zero());
    (status, waits.min())
}

fn conditions(
    old: Option<Vec<ReplicaSetCondition>>,
    failure: Option<&str>,
    now: Timestamp,
) -> Vec<ReplicaSetCondition> {
    let (before, mut others): (Vec<_>, Vec<_>) = old.into_iter().flatten().partition(|c| c.type_ == "ReplicaFailure");
    if let Some(message) = failure {
        let since = before.into_iter().find(|c| c.status == "True").and_then(|c| c.last_transition_time);
        others.push(ReplicaSetCondition {
            type_: "ReplicaFailure".into(),
            status: "True".into(),
            reason: Some("FailedCreate".into()),
            message: Some(message.to_owned()),
            last_transition_time: Some(since.unwrap_or(Time(now))),
        });
    }
    others
}

/// True where a status says nothing new: absent numbers are zeros.
pub fn says_the_same(old: Option<&ReplicaSetStatus>, new: &ReplicaSetStatus) -> bool {
    let Some(old) = old else { return false };
    let filled = |s: &ReplicaSetStatus| ReplicaSetStatus {
        fully_labeled_replicas: Some(s.fully_labeled_replicas.unwrap_or(0)),
        ready_replicas: Some(s.ready_replicas.unwrap_or(0)),
        available_replicas: Some(s.available_replicas.unwrap_or(0)),
        terminating_replicas: Some(s.terminating_replicas.unwrap_or(0)),
        ..s.clone()
    };
    filled(old) == filled(new)
}
