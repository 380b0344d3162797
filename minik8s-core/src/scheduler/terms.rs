//! What a pod says about other pods in its affinity and anti-affinity, read once.

use super::{PodInfo, Snapshot};
use crate::api::{LabelOp, Requirement, Selector};
use k8s_openapi::api::core::v1::{PodAffinityTerm, WeightedPodAffinityTerm};

/// Pods meant by a term, and the domain in which they count.
#[derive(Clone, Debug)]
pub(super) struct Term {
    selector: Selector,
    namespaces: Vec<String>,
    namespace_selector: Selector,
    /// Label of nodes; nodes with the same value are one domain.
    pub(super) key: String,
    /// 1 to 100 in preferences; 1 in what is required.
    pub(super) weight: i64,
}

/// The terms of a pod.
#[derive(Clone, Debug, Default)]
pub(super) struct PodTerms {
    pub(super) near: Vec<Term>,
    pub(super) apart: Vec<Term>,
    pub(super) rather_near: Vec<Term>,
    pub(super) rather_apart: Vec<Term>,
}

impl PodTerms {
    /// `None` for a pod that says nothing about others.
    pub(super) fn of(pod: &PodInfo) -> Option<Self> {
        let affinity = pod.affinity.as_ref()?;
        let mut out = Self::default();
        if let Some(near) = &affinity.pod_affinity {
            out.near = required(pod, near.required_during_scheduling_ignored_during_execution.as_deref());
            out.rather_near = preferred(pod, near.preferred_during_scheduling_ignored_during_execution.as_deref());
        }
        if let Some(apart) = &affinity.pod_anti_affinity {
            out.apart = required(pod, apart.required_during_scheduling_ignored_during_execution.as_deref());
            out.rather_apart = preferred(pod, apart.preferred_during_scheduling_ignored_during_execution.as_deref());
        }
        let all = [&out.near, &out.apart, &out.rather_near, &out.rather_apart];
        if all.iter().all(|terms| terms.is_empty()) { None } else { Some(out) }
    }
}

fn required(pod: &PodInfo, terms: Option<&[PodAffinityTerm]>) -> Vec<Term> {
    terms.unwrap_or_default().iter().map(|term| Term::read(pod, term, 1)).collect()
}

fn preferred(pod: &PodInfo, terms: Option<&[WeightedPodAffinityTerm]>) -> Vec<Term> {
    let terms = terms.unwrap_or_default().iter();
    terms.map(|term| Term::read(pod, &term.pod_affinity_term, term.weight.into())).collect()
}

impl Term {
    /// A term that no label can fulfil selects nothing: validation refused it.
    fn read(pod: &PodInfo, term: &PodAffinityTerm, weight: i64) -> Self {
        let mut namespaces = term.namespaces.clone().unwrap_or_default();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.push(pod.namespace.clone());
        }
        let selector = Selector::from_typed(term.label_selector.as_ref()).unwrap_or_else(|_| Selector::nothing());
        let same = with_own(selector, pod, LabelOp::In, term.match_label_keys.as_deref());
        Self {
            selector: with_own(same, pod, LabelOp::NotIn, term.mismatch_label_keys.as_deref()),
            namespaces,
            namespace_selector: Selector::from_typed(term.namespace_selector.as_ref())
                .unwrap_or_else(|_| Selector::nothing()),
            key: term.topology_key.clone(),
            weight,
        }
    }

    /// True where the term means this pod.
    pub(super) fn means(&self, other: &PodInfo, snapshot: &Snapshot) -> bool {
        self.selector.matches(&other.labels)
            && (self.namespaces.contains(&other.namespace)
                || self.namespace_selector.is_everything()
                || snapshot.namespace(&other.namespace).is_some_and(|labels| self.namespace_selector.matches(labels)))
    }

    /// The only namespace in which there can be pods that it means, where there is just one.
    pub(super) fn only_namespace(&self) -> Option<&str> {
        match self.namespaces.as_slice() {
            [one] if self.namespace_selector.is_nothing() => Some(one),
            _ => None,
        }
    }
}

/// The selector, and for each of these labels that the pod has itself, that others have its value (or another).
pub(super) fn with_own(selector: Selector, pod: &PodInfo, op: LabelOp, keys: Option<&[String]>) -> Selector {
    let own = keys.unwrap_or_default().iter().filter_map(|key| {
        let value = pod.labels.get(key)?;
        Requirement::new(key, op, [value.clone()]).ok()
    });
    let own: Vec<Requirement> = own.collect();
    if own.is_empty() || selector.is_nothing() {
        return selector;
    }
    Selector::new(selector.requirements().iter().cloned().chain(own).collect())
}
