//! The state a decision is made on: all nodes, and the pods on them. Kept up to date by the driver between decisions,
//! and not changed during one.

use super::budgets::Budgets;
use super::peers::{Peers, Places};
use super::topology::Topology;
use super::{Budget, NodeInfo, PodInfo};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// All nodes with their pods.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Where each node stands in `slots`, in order of their names.
    names: BTreeMap<String, usize>,
    /// The nodes. A node keeps its slot, so that what is counted by slot stays true while others come and go.
    slots: Vec<Option<NodeInfo>>,
    free: Vec<usize>,
    /// Pods whose node is not known (yet), by node name: they count as soon as it appears.
    waiting: HashMap<String, HashMap<String, Arc<PodInfo>>>,
    /// Where each pod counts.
    places: HashMap<String, String>,
    /// The pods on known nodes once more, those that are alike counted together.
    peers: Peers,
    /// Labels of namespaces, by name.
    namespaces: HashMap<String, BTreeMap<String, String>>,
    budgets: Budgets,
    topology: Topology,
    /// Pods for which room is being made, by node and uid: the canonical copy.
    nominated: HashMap<String, HashMap<String, Arc<PodInfo>>>,
    /// The node on which room is made for each of them.
    nominations: HashMap<String, String>,
    /// Pods that were told to go, by uid: until they have gone, or it turns out that they stay.
    leaving: HashSet<String>,
    /// How many pods were placed so far; what round-robin turns on.
    cycle: u64,
}

impl Snapshot {
    /// The nodes, in order of their names.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeInfo> {
        self.names.values().filter_map(|slot| self.at(*slot))
    }

    /// Number of nodes.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// True without nodes.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// One node.
    pub fn node(&self, name: &str) -> Option<&NodeInfo> {
        self.at(*self.names.get(name)?)
    }

    /// One pod, where it is on a node that is known.
    pub fn pod(&self, uid: &str) -> Option<&PodInfo> {
        self.node(self.places.get(uid)?)?.pods.get(uid).map(Arc::as_ref)
    }

    /// The node in a slot (see [`NodeInfo::slot`]).
    pub fn at(&self, slot: usize) -> Option<&NodeInfo> {
        self.slots.get(slot)?.as_ref()
    }

    /// How many slots there are, empty ones included.
    pub(super) fn slots(&self) -> usize {
        self.slots.len()
    }

    /// How many pods were placed so far.
    pub fn cycle(&self) -> u64 {
        self.cycle
    }

    /// Labels of a namespace; none where it is not known.
    pub fn namespace(&self, name: &str) -> Option<&BTreeMap<String, String>> {
        self.namespaces.get(name)
    }

    /// Adds a namespace or replaces its labels.
    pub fn put_namespace(&mut self, name: &str, labels: BTreeMap<String, String>) {
        self.namespaces.insert(name.to_owned(), labels);
    }

    /// Forgets a namespace.
    pub fn remove_namespace(&mut self, name: &str) {
        self.namespaces.remove(name);
    }

    /// Adds a disruption budget, or replaces what is known about it.
    pub fn put_budget(&mut self, budget: Budget) {
        self.budgets.put(budget);
    }

    /// Forgets a disruption budget.
    pub fn remove_budget(&mut self, namespace: &str, name: &str) {
        self.budgets.remove(namespace, name);
    }

    pub(super) fn budgets(&self) -> &Budgets {
        &self.budgets
    }

    /// Pods that are alike to others, with the slots of the nodes they are on and how many are on each. One per kin
    /// stands for all.
    pub fn peers(&self) -> impl Iterator<Item = (&PodInfo, &Places)> {
        self.peers.all()
    }

    /// The same, of one namespace.
    pub fn peers_in<'a>(&'a self, namespace: &str) -> impl Iterator<Item = (&'a PodInfo, &'a Places)> + use<'a> {
        self.peers.in_namespace(namespace)
    }

    /// The same, of the pods that have terms about other pods.
    pub(super) fn choosy(&self) -> impl Iterator<Item = (&PodInfo, &super::peers::Kin)> {
        self.peers.choosy()
    }

    /// The pods for which room is being made on a node, by uid.
    pub fn nominated(&self, node: &str) -> Option<&HashMap<String, Arc<PodInfo>>> {
        if self.nominated.is_empty() { None } else { self.nominated.get(node) }
    }

    /// The node on which room is being made for a pod.
    pub fn nomination(&self, uid: &str) -> Option<&str> {
        self.nominations.get(uid).map(String::as_str)
    }

    /// Keeps room for a pod on the node it is nominated for, and on no other.
    pub fn nominate(&mut self, pod: Arc<PodInfo>) {
        self.withdraw(&pod.uid);
        if !pod.nominated.is_empty() {
            self.nominations.insert(pod.uid.clone(), pod.nominated.clone());
            self.nominated.entry(pod.nominated.clone()).or_default().insert(pod.uid.clone(), pod);
        }
    }

    /// Keeps no room for a pod any more.
    pub fn withdraw(&mut self, uid: &str) {
        let Some(node) = self.nominations.remove(uid) else { return };
        if let Some(pods) = self.nominated.get_mut(&node) {
            pods.remove(uid);
            if pods.is_empty() {
                self.nominated.remove(&node);
            }
        }
    }

    /// True where a pod is about to go: it is being deleted, or was told to go and that is on its way.
    pub fn is_leaving(&self, pod: &PodInfo) -> bool {
        pod.terminating || self.leaving.contains(&pod.uid)
    }

    /// A pod was told to go.
    pub fn leaves(&mut self, uid: &str) {
        self.leaving.insert(uid.to_owned());
    }

    /// A pod that was told to go does not.
    pub fn stays(&mut self, uid: &str) {
        self.leaving.remove(uid);
    }

    /// Adds a node or replaces what is known about it; the pods on it stay counted.
    pub fn put_node(&mut self, mut node: NodeInfo) {
        let known = self.names.get(&node.name).copied();
        let slot = known.or_else(|| self.free.pop()).unwrap_or(self.slots.len());
        if slot == self.slots.len() {
            self.slots.push(None);
        }
        node.slot = slot;
        node.topology = self.topology.enter(&node.labels);
        let mut hasher = DefaultHasher::new();
        node.name.hash(&mut hasher);
        node.lot = hasher.finish();
        node.requested = super::Resources::default();
        node.busy = (0, 0);
        node.pods = HashMap::new();
        let Some(place) = self.slots.get_mut(slot) else { return };
        match place.take() {
            Some(old) => {
                self.topology.leave(&old.labels);
                old.pods.into_values().for_each(|pod| node.add_pod(pod));
            }
            None => {
                self.names.insert(node.name.clone(), slot);
                for pod in self.waiting.remove(&node.name).unwrap_or_default().into_values() {
                    self.peers.add(&pod, slot);
                    node.add_pod(pod);
                }
            }
        }
        *place = Some(node);
    }

    /// Forgets a node. Its pods are kept for the case that it comes back.
    pub fn remove_node(&mut self, name: &str) {
        let Some(slot) = self.names.remove(name) else { return };
        let Some(old) = self.slots.get_mut(slot).and_then(Option::take) else { return };
        self.free.push(slot);
        self.topology.leave(&old.labels);
        old.pods.values().for_each(|pod| self.peers.remove(pod, slot));
        if !old.pods.is_empty() {
            self.waiting.insert(name.to_owned(), old.pods);
        }
    }

    /// Counts a pod on the node it names; a pod that counted elsewhere moves.
    pub fn put_pod(&mut self, pod: Arc<PodInfo>) {
        self.withdraw(&pod.uid);
        match self.places.insert(pod.uid.clone(), pod.node_name.clone()) {
            Some(place) => self.take_out(&pod.uid, &place),
            None => self.cycle += 1,
        }
        let slot = self.names.get(&pod.node_name).copied();
        match slot.and_then(|slot| self.slots.get_mut(slot)?.as_mut()) {
            Some(node) => {
                self.peers.add(&pod, node.slot);
                node.add_pod(pod);
            }
            None => {
                self.waiting.entry(pod.node_name.clone()).or_default().insert(pod.uid.clone(), pod);
            }
        }
    }

    /// No longer counts a pod, and keeps no room for it.
    pub fn remove_pod(&mut self, uid: &str) {
        self.withdraw(uid);
        self.leaving.remove(uid);
        if let Some(place) = self.places.remove(uid) {
            self.take_out(uid, &place);
        }
    }

    fn take_out(&mut self, uid: &str, place: &str) {
        let slot = self.names.get(place).copied();
        if let Some(node) = slot.and_then(|slot| self.slots.get_mut(slot)?.as_mut())
            && let Some(old) = node.remove_pod(uid)
        {
            self.peers.remove(&old, node.slot);
        }
        if let Some(pods) = self.waiting.get_mut(place) {
            pods.remove(uid);
            if pods.is_empty() {
                self.waiting.remove(place);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Resources;
    use super::*;

    fn pod(uid: &str, node: &str, cpu: i64) -> Arc<PodInfo> {
        let requests = Resources { milli_cpu: cpu, ..Resources::default() };
        Arc::new(PodInfo { uid: uid.into(), node_name: node.into(), requests, ..PodInfo::default() })
    }

    fn node(name: &str) -> NodeInfo {
        NodeInfo { name: name.into(), ..NodeInfo::default() }
    }

    #[test]
    fn counting_is_idempotent_and_follows_moves() {
        let mut s = Snapshot::default();
        s.put_node(node("node-1"));
        s.put_node(node("node-12"));
        s.put_pod(pod("a", "node-1", 100));
        s.put_pod(pod("a", "node-1", 150));
        assert_eq!(s.node("node-1").unwrap().requested.milli_cpu, 150);
        s.put_pod(pod("a", "node-12", 150));
        assert_eq!(s.node("node-1").unwrap().requested, Resources::default());
        assert_eq!(s.node("node-12").unwrap().requested.pods, 1);
        s.remove_pod("a");
        s.remove_pod("a");
        assert_eq!(s.node("node-12").unwrap().requested, Resources::default());
    }

    #[test]
    fn pods_of_a_node_seen_late_or_again_still_count() {
        let mut s = Snapshot::default();
        s.put_pod(pod("a", "late", 100));
        s.put_node(node("late"));
        assert_eq!(s.node("late").unwrap().requested.milli_cpu, 100);
        s.remove_node("late");
        s.put_node(node("late"));
        s.put_node(node("late"));
        assert_eq!(s.node("late").unwrap().requested.milli_cpu, 100);
    }
}
