//! Constraints as they are worked with: selectors read, defaults filled in.

use crate::api::{LabelOp, Selector};
use crate::scheduler::domains;
use crate::scheduler::plugins::{node_affinity, taints};
use crate::scheduler::terms::with_own;
use crate::scheduler::{NodeInfo, PodInfo, Snapshot};
use k8s_openapi::api::core::v1::TopologySpreadConstraint;

pub(super) const HOSTNAME: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";

/// Which pods a constraint counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Counted {
    /// Those with these labels.
    Selected(Selector),
    /// Those of the same controller, or with the same labels.
    Alike,
}

/// One constraint of a pod.
#[derive(Clone, Debug)]
pub(super) struct Constraint {
    pub(super) key: String,
    pub(super) max_skew: i64,
    pub(super) min_domains: usize,
    counted: Counted,
    /// Nodes that the pod's node selector and affinity exclude are in no domain.
    honors_affinity: bool,
    /// Nodes with taints that the pod does not tolerate are in no domain.
    honors_taints: bool,
}

/// The pod's constraints that say this about nodes that do not fulfil them.
pub(super) fn of(pod: &PodInfo, when_unsatisfiable: &str) -> Vec<Constraint> {
    let wanted = pod.spread.iter().filter(|c| c.when_unsatisfiable == when_unsatisfiable);
    wanted.map(|c| Constraint::read(pod, c)).collect()
}

/// What pods without constraints are spread by.
pub(super) fn defaults() -> Vec<Constraint> {
    let soft = |key: &str, max_skew| Constraint {
        key: key.to_owned(),
        max_skew,
        min_domains: 1,
        counted: Counted::Alike,
        honors_affinity: true,
        honors_taints: false,
    };
    vec![soft(HOSTNAME, 3), soft(ZONE, 5)]
}

impl Constraint {
    fn read(pod: &PodInfo, given: &TopologySpreadConstraint) -> Self {
        let selector = Selector::from_typed(given.label_selector.as_ref()).unwrap_or_else(|_| Selector::nothing());
        let selector = with_own(selector, pod, LabelOp::In, given.match_label_keys.as_deref());
        let honors = |policy: &Option<String>, default| policy.as_deref().map_or(default, |p| p == "Honor");
        Self {
            key: given.topology_key.clone(),
            max_skew: given.max_skew.into(),
            min_domains: given.min_domains.and_then(|n| usize::try_from(n).ok()).unwrap_or(1),
            counted: Counted::Selected(selector),
            honors_affinity: honors(&given.node_affinity_policy, true),
            honors_taints: honors(&given.node_taints_policy, false),
        }
    }

    /// True where `other` counts for `pod`. Pods that are about to go do not.
    pub(super) fn counts(&self, pod: &PodInfo, other: &PodInfo) -> bool {
        !other.terminating && self.means(pod, other)
    }

    /// True where `other` counts for `pod` as long as it stays.
    pub(super) fn means(&self, pod: &PodInfo, other: &PodInfo) -> bool {
        pod.namespace == other.namespace
            && match &self.counted {
                Counted::Selected(selector) => selector.matches(&other.labels),
                Counted::Alike => alike(pod, other),
            }
    }

    /// True where both are about the same pods.
    pub(super) fn counts_the_same(&self, other: &Self) -> bool {
        self.counted == other.counted
    }

    /// True where the node's domain is one that pods may be spread over.
    pub(super) fn includes(&self, pod: &PodInfo, node: &NodeInfo) -> bool {
        (!self.honors_affinity || node_affinity::allowed(pod, node))
            && (!self.honors_taints || taints::first_untolerated(pod, node).is_none())
    }

    /// How many pods that count are on each node, by slot.
    pub(super) fn on_nodes(&self, pod: &PodInfo, snapshot: &Snapshot) -> Vec<i64> {
        let mut found = vec![0; snapshot.slots()];
        for (_, places) in snapshot.peers_in(&pod.namespace).filter(|(other, _)| self.counts(pod, other)) {
            for (slot, count) in places {
                if let Some(there) = found.get_mut(*slot) {
                    *there += count;
                }
            }
        }
        found
    }
}

fn alike(pod: &PodInfo, other: &PodInfo) -> bool {
    match (&pod.owner, &other.owner) {
        (Some(mine), Some(theirs)) => mine == theirs,
        (None, None) => !pod.labels.is_empty() && pod.labels == other.labels,
        _ => false,
    }
}

/// A node without one of the keys is in no domain of any of the constraints.
pub(super) fn has_all_keys(constraints: &[Constraint], node: &NodeInfo) -> bool {
    constraints.iter().all(|c| domains::has(&c.key, node))
}
