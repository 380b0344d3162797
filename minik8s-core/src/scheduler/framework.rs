//! Filter, then score: a scheduler made of plug-ins.

use super::{Choice, Diagnosis, NodeInfo, Outcome, PodInfo, Scheduler, Snapshot};
use std::borrow::Cow;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// Changes of the cluster that may make room for a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClusterEvent {
    /// A node appeared.
    NodeAdded,
    /// A node's labels, taints, capacity or cordon changed.
    NodeChanged,
    /// A pod left a node.
    PodLeft,
    /// A pod was placed on a node.
    PodPlaced,
}

/// Refuses nodes on which a pod cannot run.
pub trait FilterPlugin: Send + Sync + 'static {
    /// Name, for messages and configuration.
    fn name(&self) -> &'static str;

    /// Refuses the node by returning why: short phrases that read well after a count
    /// (`Insufficient cpu`, `node(s) were unschedulable`). Empty means: the pod may run there.
    fn refuse(&self, pod: &PodInfo, node: &NodeInfo, snapshot: &Snapshot) -> Vec<Cow<'static, str>>;

    /// Which changes may turn a refusal around; others do not wake the pod.
    fn turned_by(&self) -> &'static [ClusterEvent] {
        &[ClusterEvent::NodeAdded, ClusterEvent::NodeChanged]
    }
}

/// Says how good a node is.
pub trait ScorePlugin: Send + Sync + 'static {
    /// Name, for configuration.
    fn name(&self) -> &'static str;

    /// Scores of the nodes that passed the filters, one each and in their order: 0 (worst) to 100 (best).
    fn score(&self, pod: &PodInfo, nodes: &[&NodeInfo], snapshot: &Snapshot) -> Vec<i64>;
}

/// A score plug-in and how much it counts.
#[derive(Clone)]
pub struct Weighted {
    /// The plug-in.
    pub plugin: Arc<dyn ScorePlugin>,
    /// Its weight.
    pub weight: i64,
}

/// A named set of plug-ins.
#[derive(Clone)]
pub struct Profile {
    /// The name pods ask for with `spec.schedulerName`.
    pub name: String,
    /// Filters, cheap ones first: the first that refuses a node ends its case.
    pub filters: Vec<Arc<dyn FilterPlugin>>,
    /// Scores.
    pub scores: Vec<Weighted>,
    /// Where chance comes from when nodes are equally good.
    pub seed: u64,
}

impl Profile {
    /// The same profile with one more filter.
    pub fn filter(mut self, plugin: impl FilterPlugin) -> Self {
        self.filters.push(Arc::new(plugin));
        self
    }

    /// The same profile with one more score.
    pub fn score(mut self, weight: i64, plugin: impl ScorePlugin) -> Self {
        self.scores.push(Weighted { plugin: Arc::new(plugin), weight });
        self
    }

    /// The same profile under another name.
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }
}

/// A [`Scheduler`] that runs a [`Profile`].
#[derive(Clone)]
pub struct FrameworkScheduler {
    profile: Profile,
}

impl FrameworkScheduler {
    /// A scheduler of this profile.
    pub fn new(profile: Profile) -> Self {
        Self { profile }
    }

    fn refusal(&self, pod: &PodInfo, node: &NodeInfo, snapshot: &Snapshot) -> Option<(&'static str, Vec<Cow<'static, str>>)> {
        self.profile.filters.iter().find_map(|filter| {
            let reasons = filter.refuse(pod, node, snapshot);
            (!reasons.is_empty()).then(|| (filter.name(), reasons))
        })
    }

    fn totals(&self, pod: &PodInfo, nodes: &[&NodeInfo], snapshot: &Snapshot) -> Vec<i64> {
        let mut totals = vec![0; nodes.len()];
        for Weighted { plugin, weight } in &self.profile.scores {
            for (total, score) in totals.iter_mut().zip(plugin.score(pod, nodes, snapshot)) {
                *total += weight * score.clamp(0, 100);
            }
        }
        totals
    }

    /// Orders equally good nodes by chance, the same chance for the same pod, node and seed.
    fn lot(&self, pod: &PodInfo, node: &NodeInfo) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.profile.seed, &pod.uid, &pod.name, &node.name).hash(&mut hasher);
        hasher.finish()
    }
}

impl Scheduler for FrameworkScheduler {
    fn name(&self) -> &str {
        &self.profile.name
    }

    fn schedule(&self, snapshot: &Snapshot, pod: &PodInfo) -> Outcome {
        let mut diagnosis = Diagnosis::default();
        let mut feasible = Vec::new();
        for node in snapshot.nodes() {
            match self.refusal(pod, node, snapshot) {
                None => feasible.push(node),
                Some(why) => {
                    diagnosis.nodes.insert(node.name.clone(), why);
                }
            }
        }
        let totals = match feasible.len() {
            0 | 1 => vec![0; feasible.len()],
            _ => self.totals(pod, &feasible, snapshot),
        };
        let best = feasible.iter().zip(totals).max_by_key(|(node, total)| (*total, self.lot(pod, node)));
        match best {
            None => Outcome::Unschedulable(diagnosis),
            Some((node, score)) => Outcome::Node(Choice {
                node: node.name.clone(),
                score,
                feasible: feasible.len(),
                considered: snapshot.len(),
            }),
        }
    }

    fn may_help(&self, diagnosis: &Diagnosis, event: ClusterEvent) -> bool {
        diagnosis.nodes.is_empty()
            || event == ClusterEvent::NodeAdded
            || diagnosis.filters().any(|name| {
                self.profile.filters.iter().any(|f| f.name() == name && f.turned_by().contains(&event))
            })
    }
}
