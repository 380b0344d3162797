//! What must hold: no domain may be ahead of the emptiest one by more than the skew.

use super::PodSpread;
use super::constraint::{self, Constraint};
use crate::scheduler::{ClusterChange, ClusterEvent, FilterPlugin, NodeInfo, PodFilter, PodInfo, Reasons, Snapshot};
use std::collections::{BTreeMap, HashMap};

const SKEWED: &str = "node(s) didn't match pod topology spread constraints";
const UNLABELLED: &str = "node(s) didn't match pod topology spread constraints (missing required label)";

/// Pods by domain, and domains by how many pods they have, so that the emptiest is found at once.
#[derive(Default)]
struct Tally {
    pods: HashMap<String, i64>,
    domains: BTreeMap<i64, usize>,
}

impl Tally {
    fn add(&mut self, domain: &str, by: i64) {
        match self.pods.get_mut(domain) {
            Some(pods) => {
                let before = *pods;
                *pods += by;
                let after = *pods;
                self.moved(before, after);
            }
            None => {
                self.pods.insert(domain.to_owned(), by);
                *self.domains.entry(by).or_default() += 1;
            }
        }
    }

    fn moved(&mut self, before: i64, after: i64) {
        if let Some(count) = self.domains.get_mut(&before) {
            *count -= 1;
            if *count == 0 {
                self.domains.remove(&before);
            }
        }
        *self.domains.entry(after).or_default() += 1;
    }

    /// Pods in the emptiest domain; none where there are fewer domains than wanted.
    fn least(&self, min_domains: usize) -> i64 {
        let least = self.domains.first_key_value().map_or(0, |(pods, _)| *pods);
        if self.pods.len() < min_domains { 0 } else { least }
    }
}

struct Ready<'a> {
    pod: &'a PodInfo,
    constraints: Vec<(Constraint, Tally)>,
    /// For each constraint whether the pod counts itself.
    itself: Vec<i64>,
}

impl FilterPlugin for PodSpread {
    fn name(&self) -> &'static str {
        "PodTopologySpread"
    }

    fn prepare<'a>(&'a self, pod: &'a PodInfo, snapshot: &'a Snapshot) -> Option<Box<dyn PodFilter + 'a>> {
        let constraints = constraint::of(pod, "DoNotSchedule");
        if constraints.is_empty() {
            return None;
        }
        let on_nodes: Vec<_> = constraints.iter().map(|c| c.on_nodes(pod, snapshot)).collect();
        let mut tallies: Vec<Tally> = constraints.iter().map(|_| Tally::default()).collect();
        for node in snapshot.nodes().filter(|node| constraint::has_all_keys(&constraints, node)) {
            for ((constraint, pods), tally) in constraints.iter().zip(&on_nodes).zip(&mut tallies) {
                if let Some(domain) = node.labels.get(&constraint.key).filter(|_| constraint.includes(pod, node)) {
                    tally.add(domain, pods.get(node.slot).copied().unwrap_or_default());
                }
            }
        }
        let itself = constraints.iter().map(|c| i64::from(c.counts(pod, pod))).collect();
        Some(Box::new(Ready { pod, constraints: constraints.into_iter().zip(tallies).collect(), itself }))
    }

    fn turned_by(&self) -> &'static [ClusterEvent] {
        &[ClusterEvent::NodeAdded, ClusterEvent::NodeChanged, ClusterEvent::PodLeft, ClusterEvent::PodPlaced]
    }

    /// Pods that count move the domains against each other, nodes make and unmake them.
    fn hint(&self, pod: &PodInfo, change: &ClusterChange<'_>, _: &Snapshot) -> bool {
        let constraints = || constraint::of(pod, "DoNotSchedule");
        change.pod.is_none_or(|other| constraints().iter().any(|c| c.means(pod, other)))
    }
}

/// True where one more pod (or none, where it does not count itself) leaves the domain within the skew.
fn fits(constraint: &Constraint, tally: &Tally, domain: &str, itself: i64) -> bool {
    let there = tally.pods.get(domain).copied().unwrap_or_default();
    there + itself - tally.least(constraint.min_domains) <= constraint.max_skew
}

impl PodFilter for Ready<'_> {
    fn refuse(&self, node: &NodeInfo) -> Reasons {
        for ((constraint, tally), itself) in self.constraints.iter().zip(&self.itself) {
            match node.labels.get(&constraint.key) {
                None => return vec![UNLABELLED.into()],
                Some(domain) if !fits(constraint, tally, domain, *itself) => return vec![SKEWED.into()],
                Some(_) => {}
            }
        }
        Vec::new()
    }

    fn count(&mut self, other: &PodInfo, node: &NodeInfo, by: i64) {
        if !self.constraints.iter().all(|(c, _)| node.labels.contains_key(&c.key)) {
            return;
        }
        for (constraint, tally) in &mut self.constraints {
            if let Some(domain) = node.labels.get(&constraint.key)
                && constraint.counts(self.pod, other)
                && constraint.includes(self.pod, node)
            {
                tally.add(domain, by);
            }
        }
    }
}
