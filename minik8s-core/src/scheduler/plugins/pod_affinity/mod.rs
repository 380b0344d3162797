//! `spec.affinity.podAffinity` and `podAntiAffinity`: near some pods, away from others. What counts is found out once
//! per pod, by topology domain; a node then costs a few look-ups.

#[cfg(test)]
mod tests;

use crate::scheduler::domains::{self, Domains};
use crate::scheduler::terms::{PodTerms, Term};
use crate::scheduler::{
    ClusterChange, ClusterEvent, FilterPlugin, NodeInfo, Places, PodFilter, PodInfo, Reasons, ScorePlugin, Snapshot,
};

/// Refuses nodes in domains that required terms exclude, those of pods that are there already included; prefers the
/// domains that preferences name, both the pod's and those of others about it.
#[derive(Clone, Copy, Debug, Default)]
pub struct InterPodAffinity;

/// How much another pod's required affinity for this one counts as a preference (upstream's `hardPodAffinityWeight`).
const REQUIRED_BY_OTHERS: i64 = 1;

struct Ready<'a> {
    pod: &'a PodInfo,
    snapshot: &'a Snapshot,
    terms: PodTerms,
    /// Pods that all terms of the required affinity mean.
    near: Domains,
    /// By term of the required anti-affinity: pods that it means. Terms may share a key, so that each counts alone.
    apart: Vec<Domains>,
    /// Pods that do not want this one near.
    unwelcome: Domains,
    /// The pod is one that its own affinity means.
    means_itself: bool,
}

impl FilterPlugin for InterPodAffinity {
    fn name(&self) -> &'static str {
        "InterPodAffinity"
    }

    fn prepare<'a>(&'a self, pod: &'a PodInfo, snapshot: &'a Snapshot) -> Option<Box<dyn PodFilter + 'a>> {
        let terms = PodTerms::of(pod).unwrap_or_default();
        if terms.near.is_empty() && terms.apart.is_empty() && snapshot.choosy().next().is_none() {
            return None;
        }
        let means_itself = !terms.near.is_empty() && terms.near.iter().all(|term| term.means(pod, snapshot));
        let apart = vec![Domains::default(); terms.apart.len()];
        let (near, unwelcome) = Default::default();
        let mut ready = Ready { pod, snapshot, terms, near, apart, unwelcome, means_itself };
        ready.look_around();
        Some(Box::new(ready))
    }

    fn turned_by(&self) -> &'static [ClusterEvent] {
        &ClusterEvent::ALL
    }

    /// Pods that one of the two means.
    fn hint(&self, pod: &PodInfo, change: &ClusterChange<'_>, snapshot: &Snapshot) -> bool {
        let Some(other) = change.pod else { return true };
        let mine = PodTerms::of(pod).unwrap_or_default();
        let theirs = PodTerms::of(other).unwrap_or_default().apart;
        mine.near.iter().chain(&mine.apart).any(|term| term.means(other, snapshot))
            || theirs.iter().any(|term| term.means(pod, snapshot))
    }
}

impl Ready<'_> {
    fn look_around(&mut self) {
        let snapshot = self.snapshot;
        let wanted = self.terms.near.iter().chain(&self.terms.apart);
        for (other, places) in candidates(wanted.collect::<Vec<_>>().as_slice(), snapshot) {
            if all_mean(&self.terms.near, other, snapshot) {
                let keys = self.terms.near.iter().map(|term| term.key.as_str());
                keys.for_each(|key| spread_over(&mut self.near, key, places, snapshot, 1));
            }
            for (term, domains) in self.terms.apart.iter().zip(&mut self.apart) {
                if term.means(other, snapshot) {
                    spread_over(domains, &term.key, places, snapshot, 1);
                }
            }
        }
        for (_, kin) in snapshot.choosy() {
            for term in kin.terms.iter().flat_map(|terms| &terms.apart).filter(|t| t.means(self.pod, snapshot)) {
                spread_over(&mut self.unwelcome, &term.key, &kin.places, snapshot, 1);
            }
        }
    }

    fn near_enough(&self, node: &NodeInfo) -> bool {
        let terms = &self.terms.near;
        if !terms.iter().all(|term| domains::has(&term.key, node)) {
            return false;
        }
        let met = terms.iter().all(|term| self.near.at(&term.key, node).is_some_and(|count| count > 0));
        // The first pod of a group has nobody to be near to but itself.
        met || self.means_itself && self.near.is_zero()
    }

    fn far_enough(&self, node: &NodeInfo) -> bool {
        let mut terms = self.terms.apart.iter().zip(&self.apart);
        terms.all(|(term, domains)| domains.at(&term.key, node).is_none_or(|count| count <= 0))
    }
}

impl PodFilter for Ready<'_> {
    fn refuse(&self, node: &NodeInfo) -> Reasons {
        if !self.near_enough(node) {
            return vec!["node(s) didn't match pod affinity rules".into()];
        }
        if !self.far_enough(node) {
            return vec!["node(s) didn't match pod anti-affinity rules".into()];
        }
        if self.unwelcome.any(node) {
            return vec!["node(s) didn't satisfy existing pods anti-affinity rules".into()];
        }
        Vec::new()
    }

    fn count(&mut self, other: &PodInfo, node: &NodeInfo, by: i64) {
        if all_mean(&self.terms.near, other, self.snapshot) {
            self.terms.near.iter().for_each(|term| self.near.add(&term.key, node, by));
        }
        for (term, domains) in self.terms.apart.iter().zip(&mut self.apart) {
            if term.means(other, self.snapshot) {
                domains.add(&term.key, node, by);
            }
        }
        let theirs = PodTerms::of(other).unwrap_or_default().apart;
        for term in theirs.iter().filter(|term| term.means(self.pod, self.snapshot)) {
            self.unwelcome.add(&term.key, node, by);
        }
    }
}

fn all_mean(terms: &[Term], other: &PodInfo, snapshot: &Snapshot) -> bool {
    !terms.is_empty() && terms.iter().all(|term| term.means(other, snapshot))
}

/// The pods that terms may mean: those of one namespace where none looks beyond it.
fn candidates<'a>(terms: &[&Term], snapshot: &'a Snapshot) -> Box<dyn Iterator<Item = (&'a PodInfo, &'a Places)> + 'a> {
    let Some(first) = terms.first() else { return Box::new(std::iter::empty()) };
    match first.only_namespace().filter(|one| terms.iter().all(|term| term.only_namespace() == Some(*one))) {
        Some(namespace) => Box::new(snapshot.peers_in(namespace)),
        None => Box::new(snapshot.peers()),
    }
}

/// Adds `each` for every pod, in the domain it is in.
fn spread_over(domains: &mut Domains, key: &str, places: &Places, snapshot: &Snapshot, each: i64) {
    for (slot, count) in places {
        if let Some(node) = snapshot.at(*slot) {
            domains.add(key, node, count * each);
        }
    }
}

/// What the pod's preferences, and those of others about it, make of each domain.
fn preferences(pod: &PodInfo, snapshot: &Snapshot) -> Domains {
    let mut domains = Domains::default();
    let terms = PodTerms::of(pod).unwrap_or_default();
    let signed = |terms: &[Term], sign: i64| terms.iter().map(|t| (t.clone(), t.weight * sign)).collect::<Vec<_>>();
    let mine = [signed(&terms.rather_near, 1), signed(&terms.rather_apart, -1)].concat();
    let wanted: Vec<&Term> = mine.iter().map(|(term, _)| term).collect();
    for (other, places) in candidates(&wanted, snapshot) {
        for (term, weight) in mine.iter().filter(|(term, _)| term.means(other, snapshot)) {
            spread_over(&mut domains, &term.key, places, snapshot, *weight);
        }
    }
    for (_, kin) in snapshot.choosy() {
        let Some(terms) = &kin.terms else { continue };
        let lists = [(&terms.near, REQUIRED_BY_OTHERS), (&terms.rather_near, 1), (&terms.rather_apart, -1)];
        for (list, sign) in lists {
            for term in list.iter().filter(|term| term.means(pod, snapshot)) {
                spread_over(&mut domains, &term.key, &kin.places, snapshot, term.weight * sign);
            }
        }
    }
    domains
}

impl ScorePlugin for InterPodAffinity {
    fn name(&self) -> &'static str {
        "InterPodAffinity"
    }

    fn score(&self, pod: &PodInfo, nodes: &[&NodeInfo], snapshot: &Snapshot) -> Vec<i64> {
        if pod.affinity.is_none() && snapshot.choosy().next().is_none() {
            return vec![0; nodes.len()];
        }
        let domains = preferences(pod, snapshot);
        super::stretched(&nodes.iter().map(|node| domains.total(node)).collect::<Vec<_>>())
    }
}
