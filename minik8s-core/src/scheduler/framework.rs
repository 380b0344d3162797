//! Filter, then score: a scheduler made of plug-ins.

#[cfg(test)]
mod tests;

use super::preemption::is_waiting;
use super::{Choice, Diagnosis, NoRoom, NodeInfo, Outcome, PodInfo, Preemption, Scheduler, Snapshot};
use std::borrow::Cow;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// Changes of the cluster that may make room for a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClusterEvent {
    /// A node appeared.
    NodeAdded,
    /// A node's labels, taints, capacity or cordon changed.
    NodeChanged,
    /// A pod left a node.
    PodLeft,
    /// A pod was placed on a node.
    PodPlaced,
    /// A namespace's labels changed.
    NamespaceChanged,
}

impl ClusterEvent {
    /// Every event.
    pub const ALL: [Self; 5] =
        [Self::NodeAdded, Self::NodeChanged, Self::PodLeft, Self::PodPlaced, Self::NamespaceChanged];
}

/// One such change.
#[derive(Clone, Copy, Debug)]
pub struct ClusterChange<'a> {
    /// What happened.
    pub event: ClusterEvent,
    /// The node it happened to, or on, as it is now; `None` where that is not known.
    pub node: Option<&'a NodeInfo>,
    /// The pod that was placed or left; `None` where more than that has changed.
    pub pod: Option<&'a PodInfo>,
}

/// Why a node is refused: short phrases that read well after a count (`Insufficient cpu`, `node(s) were
/// unschedulable`). Empty means: the pod may run there.
pub type Reasons = Vec<Cow<'static, str>>;

/// Refuses nodes on which a pod cannot run. A filter that looks at nothing but pod and node implements
/// [`refuse`](Self::refuse); one that looks at other nodes implements [`prepare`](Self::prepare).
pub trait FilterPlugin: Send + Sync + 'static {
    /// Name, for messages and configuration.
    fn name(&self) -> &'static str;

    /// Refuses the node by returning why.
    fn refuse(&self, _pod: &PodInfo, _node: &NodeInfo, _snapshot: &Snapshot) -> Reasons {
        Vec::new()
    }

    /// Called once per pod, before nodes are looked at: finds out what is the same for all of them. `None` where the
    /// filter would refuse none.
    fn prepare<'a>(&'a self, pod: &'a PodInfo, snapshot: &'a Snapshot) -> Option<Box<dyn PodFilter + 'a>> {
        Some(self.for_each_node(pod, snapshot))
    }

    /// [`refuse`](Self::refuse) as a prepared filter.
    fn for_each_node<'a>(&'a self, pod: &'a PodInfo, snapshot: &'a Snapshot) -> Box<dyn PodFilter + 'a> {
        Box::new(Unprepared(move |node: &NodeInfo| self.refuse(pod, node, snapshot)))
    }

    /// Which changes may turn a refusal around; others do not wake the pod.
    fn turned_by(&self) -> &'static [ClusterEvent] {
        &[ClusterEvent::NodeAdded, ClusterEvent::NodeChanged]
    }

    /// Whether this change, of one of those kinds, may turn a refusal around. Must not miss any that does.
    fn hint(&self, pod: &PodInfo, change: &ClusterChange<'_>, snapshot: &Snapshot) -> bool {
        change.node.is_none_or(|node| self.refuse(pod, node, snapshot).is_empty())
    }
}

/// A filter made ready for one pod.
pub trait PodFilter {
    /// Refuses the node by returning why.
    fn refuse(&self, node: &NodeInfo) -> Reasons;

    /// From now on as though `other` were on the node (`by` is 1) or no longer on it (-1). What the node itself says
    /// about its pods is the caller's to change.
    fn count(&mut self, _other: &PodInfo, _node: &NodeInfo, _by: i64) {}
}

struct Unprepared<F>(F);

impl<F: Fn(&NodeInfo) -> Reasons> PodFilter for Unprepared<F> {
    fn refuse(&self, node: &NodeInfo) -> Reasons {
        (self.0)(node)
    }
}

/// The filters of a profile, made ready for one pod.
pub(super) struct Prepared<'a> {
    pod: &'a PodInfo,
    snapshot: &'a Snapshot,
    filters: Vec<(&'static str, Box<dyn PodFilter + 'a>)>,
}

impl Prepared<'_> {
    /// The first filter that refuses the node, and why. Room that is being made for other pods, not less important
    /// ones, counts as taken; and the pod must fit without them as well, as they may never come.
    pub(super) fn refusal(&mut self, node: &NodeInfo) -> Option<(&'static str, Reasons)> {
        self.refusal_beside_nominees(node).or_else(|| self.refusal_now(node))
    }

    /// From now on as though `other` were on the node, or no longer.
    pub(super) fn count(&mut self, other: &PodInfo, node: &NodeInfo, by: i64) {
        self.filters.iter_mut().for_each(|(_, filter)| filter.count(other, node, by));
    }

    fn refusal_now(&self, node: &NodeInfo) -> Option<(&'static str, Reasons)> {
        self.filters.iter().find_map(|(name, filter)| {
            let reasons = filter.refuse(node);
            (!reasons.is_empty()).then_some((*name, reasons))
        })
    }

    fn refusal_beside_nominees(&mut self, node: &NodeInfo) -> Option<(&'static str, Reasons)> {
        let pod = self.pod;
        let nominees = self.snapshot.nominated(&node.name)?.values();
        let before: Vec<_> = nominees.filter(|n| n.priority >= pod.priority && n.uid != pod.uid).collect();
        if before.is_empty() {
            return None;
        }
        let mut trial = node.clone();
        for nominee in &before {
            trial.add_pod((*nominee).clone());
            self.count(nominee, node, 1);
        }
        let refusal = self.refusal_now(&trial);
        before.iter().for_each(|nominee| self.count(nominee, node, -1));
        refusal
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

/// How many nodes that fit are enough to choose among; the search ends there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enough {
    /// All nodes are looked at.
    All,
    /// This share of the nodes, in hundredths, and a hundred at least.
    Percent(u8),
    /// A hundred, or half of the nodes where there are few down to a twentieth where there are very many, whichever is
    /// more: as upstream's `percentageOfNodesToScore` has it by default.
    Adaptive,
}

impl Enough {
    fn of(self, nodes: usize) -> usize {
        match self {
            Self::All => nodes,
            Self::Percent(percent) => (nodes * usize::from(percent) / 100).max(100),
            Self::Adaptive => (nodes * 50usize.saturating_sub(nodes / 125).max(5) / 100).max(100),
        }
    }
}

/// The next node to look at is this many slots further: a prime, so that every node has its turn, and far, so that
/// nodes with names of a kind do not come one after the other.
const STRIDE: usize = 7919;

/// A named set of plug-ins.
#[derive(Clone)]
pub struct Profile {
    /// The name pods ask for with `spec.schedulerName`.
    pub name: String,
    /// Filters, cheap ones first: the first that refuses a node ends its case.
    pub filters: Vec<Arc<dyn FilterPlugin>>,
    /// Scores.
    pub scores: Vec<Weighted>,
    /// How many nodes that fit are enough to choose among.
    pub enough: Enough,
    /// Its pods may displace less important ones.
    pub preempts: bool,
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

    pub(super) fn prepare<'a>(&'a self, pod: &'a PodInfo, snapshot: &'a Snapshot) -> Prepared<'a> {
        let filters = self.profile.filters.iter();
        let filters = filters.filter_map(|f| Some((f.name(), f.prepare(pod, snapshot)?))).collect();
        Prepared { pod, snapshot, filters }
    }

    /// Filters whose refusals an event may turn around.
    pub(super) fn turned_by(&self, event: ClusterEvent) -> impl Iterator<Item = &'static str> {
        self.profile.filters.iter().filter(move |f| f.turned_by().contains(&event)).map(|f| f.name())
    }

    /// The nodes that pass the filters, until there are enough, and why the others did not.
    fn search<'a>(&self, snapshot: &'a Snapshot, pod: &PodInfo) -> Found<'a> {
        let mut filters = self.prepare(pod, snapshot);
        let enough = self.profile.enough.of(snapshot.len());
        let mut found = Found::default();
        let nominated = snapshot.nomination(&pod.uid).and_then(|name| snapshot.node(name));
        if let Some(node) = nominated.filter(|node| filters.refusal(node).is_none()) {
            found.feasible.push(node);
            return found;
        }
        for node in in_turn(snapshot, enough) {
            match filters.refusal(node) {
                None => found.feasible.push(node),
                Some(why) => found.refused.push((node, why)),
            }
            if found.feasible.len() == enough {
                break;
            }
        }
        found
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
    fn lots(&self, pod: &PodInfo) -> impl Fn(&NodeInfo) -> u64 + use<> {
        let mut hasher = DefaultHasher::new();
        (self.profile.seed, &pod.uid, &pod.name).hash(&mut hasher);
        let of_pod = hasher.finish();
        // The finish of SplitMix64: every bit of either depends on all bits of both.
        move |node| {
            let mixed = (node.lot ^ of_pod).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        }
    }
}

/// What came of looking at nodes.
#[derive(Default)]
struct Found<'a> {
    feasible: Vec<&'a NodeInfo>,
    /// The others that were looked at, and why they were refused.
    refused: Vec<(&'a NodeInfo, (&'static str, Reasons))>,
}

impl Found<'_> {
    fn diagnosis(self) -> Diagnosis {
        Diagnosis { nodes: self.refused.into_iter().map(|(node, why)| (node.name.clone(), why)).collect() }
    }
}

/// Every node once. Where fewer are enough, each pod begins where the one before it may have ended.
fn in_turn(snapshot: &Snapshot, enough: usize) -> Box<dyn Iterator<Item = &NodeInfo> + '_> {
    let slots = snapshot.slots();
    if enough >= snapshot.len() {
        return Box::new(snapshot.nodes());
    }
    let stride = if slots.is_multiple_of(STRIDE) { 1 } else { STRIDE };
    let start = (snapshot.cycle() as usize % slots).wrapping_mul(enough) % slots;
    Box::new((0..slots).filter_map(move |i| snapshot.at((start + i) * stride % slots)))
}

/// True where displacing others on the node of a change may be worth a look. Who waits for room that is being made looks
/// for no other, unless its very node has changed.
fn may_displace(snapshot: &Snapshot, pod: &PodInfo, change: &ClusterChange<'_>) -> bool {
    let Some(node) = change.node else { return false };
    let changed =
        change.event == ClusterEvent::NodeChanged && snapshot.nomination(&pod.uid) == Some(node.name.as_str());
    let waits = !changed && is_waiting(snapshot, pod, |_| true);
    !waits && node.pods.values().any(|other| other.priority < pod.priority)
}

/// True where everybody who had to go for this pod has gone from the node of a change. It is looked at even where there is
/// no room for it after all: it must not go on keeping others from the node.
fn is_free(snapshot: &Snapshot, pod: &PodInfo, change: &ClusterChange<'_>) -> bool {
    let made = snapshot.nomination(&pod.uid).is_some_and(|made| change.node.is_some_and(|node| node.name == made));
    made && !is_waiting(snapshot, pod, |_| true)
}

/// The node as it will be with the pods for which room is being made there and that come before this one; `None` where
/// there are none.
fn beside_nominees(snapshot: &Snapshot, pod: &PodInfo, node: &NodeInfo) -> Option<NodeInfo> {
    let nominees = snapshot.nominated(&node.name)?.values();
    let mut before = nominees.filter(|n| n.priority >= pod.priority && n.uid != pod.uid).peekable();
    before.peek()?;
    let mut trial = node.clone();
    before.for_each(|nominee| trial.add_pod(nominee.clone()));
    Some(trial)
}

impl Scheduler for FrameworkScheduler {
    fn name(&self) -> &str {
        &self.profile.name
    }

    fn schedule(&self, snapshot: &Snapshot, pod: &PodInfo) -> Outcome {
        let found = self.search(snapshot, pod);
        let considered = found.feasible.len() + found.refused.len();
        let feasible = &found.feasible;
        let totals = match feasible.len() {
            0 | 1 => vec![0; feasible.len()],
            _ => self.totals(pod, feasible, snapshot),
        };
        let lot = self.lots(pod);
        let best = feasible.iter().zip(totals).max_by_key(|(node, total)| (*total, lot(node)));
        match best {
            None => Outcome::Unschedulable(found.diagnosis()),
            Some((node, score)) => {
                Outcome::Node(Choice { node: node.name.clone(), score, feasible: feasible.len(), considered })
            }
        }
    }

    fn may_help(&self, diagnosis: &Diagnosis, event: ClusterEvent) -> bool {
        // A node may be closed to everybody when it comes, and open later: no filter that refused the pod before speaks of it.
        diagnosis.nodes.is_empty()
            || matches!(event, ClusterEvent::NodeAdded | ClusterEvent::NodeChanged)
            || self.turned_by(event).any(|filter| diagnosis.filters().any(|name| name == filter))
    }

    fn helps(&self, snapshot: &Snapshot, pod: &PodInfo, refused_by: &[&str], change: &ClusterChange<'_>) -> bool {
        let event = change.event;
        if event == ClusterEvent::PodLeft && is_free(snapshot, pod, change) {
            return true;
        }
        let displaces = !pod.never_preempts && self.profile.preempts && may_displace(snapshot, pod, change);
        // Room that is being made for others, who come first, is none.
        let beside = change.node.and_then(|node| beside_nominees(snapshot, pod, node));
        let change = ClusterChange { node: beside.as_ref().or(change.node), ..*change };
        let open = |f: &dyn FilterPlugin| {
            f.hint(pod, &change, snapshot) || (displaces && f.turned_by().contains(&ClusterEvent::PodLeft))
        };
        let mut filters = self.profile.filters.iter().map(AsRef::as_ref);
        if event == ClusterEvent::NodeAdded {
            return filters.all(open);
        }
        let takes = |node: &NodeInfo| {
            let room = |f: &dyn FilterPlugin| displaces && f.turned_by().contains(&ClusterEvent::PodLeft);
            self.profile.filters.iter().map(AsRef::as_ref).all(|f| room(f) || f.refuse(pod, node, snapshot).is_empty())
        };
        if event == ClusterEvent::NodeChanged && change.node.is_some_and(takes) {
            return true;
        }
        // What the change cannot turn around must not be in the way on the very node.
        let on_node = matches!(event, ClusterEvent::NodeChanged | ClusterEvent::PodLeft);
        let elsewhere = |f: &dyn FilterPlugin| {
            let turned = f.turned_by().contains(&event);
            turned || !on_node || change.node.is_none_or(|node| f.refuse(pod, node, snapshot).is_empty())
        };
        let turned = |f: &dyn FilterPlugin| f.turned_by().contains(&event) && refused_by.contains(&f.name());
        filters.clone().all(elsewhere) && filters.any(|f| turned(f) && open(f))
    }

    fn preempt(&self, snapshot: &Snapshot, pod: &PodInfo, why: &Diagnosis) -> Result<Preemption, NoRoom> {
        if self.profile.preempts { self.make_room(snapshot, pod, why) } else { Err(NoRoom::Unsupported) }
    }
}
