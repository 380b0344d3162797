//! The state a decision is made on: all nodes, and the pods on them. Kept up to date by the driver between decisions,
//! and not changed during one.

use super::{NodeInfo, PodInfo};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// All nodes with their pods.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    nodes: BTreeMap<String, NodeInfo>,
    /// Pods whose node is not known (yet), by node name: they count as soon as it appears.
    waiting: HashMap<String, HashMap<String, Arc<PodInfo>>>,
    /// Where each pod counts.
    places: HashMap<String, String>,
    /// How many pods were placed so far; what round-robin turns on.
    cycle: u64,
}

impl Snapshot {
    /// The nodes, in order of their names.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeInfo> {
        self.nodes.values()
    }

    /// Number of nodes.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// True without nodes.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// One node.
    pub fn node(&self, name: &str) -> Option<&NodeInfo> {
        self.nodes.get(name)
    }

    /// How many pods were placed so far.
    pub fn cycle(&self) -> u64 {
        self.cycle
    }

    /// Adds a node or replaces what is known about it; the pods on it stay counted.
    pub fn put_node(&mut self, mut node: NodeInfo) {
        let pods = match self.nodes.remove(&node.name) {
            Some(old) => old.pods,
            None => self.waiting.remove(&node.name).unwrap_or_default(),
        };
        node.requested = super::Resources::default();
        node.pods = HashMap::new();
        for pod in pods.into_values() {
            node.add_pod(pod);
        }
        self.nodes.insert(node.name.clone(), node);
    }

    /// Forgets a node. Its pods are kept for the case that it comes back.
    pub fn remove_node(&mut self, name: &str) {
        if let Some(old) = self.nodes.remove(name)
            && !old.pods.is_empty()
        {
            self.waiting.insert(name.to_owned(), old.pods);
        }
    }

    /// Counts a pod on the node it names; a pod that counted elsewhere moves.
    pub fn put_pod(&mut self, pod: Arc<PodInfo>) {
        let known = self.places.insert(pod.uid.clone(), pod.node_name.clone());
        match known {
            Some(place) if place != pod.node_name => self.take_out(&pod.uid, &place),
            Some(_) => {}
            None => self.cycle += 1,
        }
        match self.nodes.get_mut(&pod.node_name) {
            Some(node) => node.add_pod(pod),
            None => {
                self.waiting.entry(pod.node_name.clone()).or_default().insert(pod.uid.clone(), pod);
            }
        }
    }

    /// No longer counts a pod.
    pub fn remove_pod(&mut self, uid: &str) {
        if let Some(place) = self.places.remove(uid) {
            self.take_out(uid, &place);
        }
    }

    fn take_out(&mut self, uid: &str, place: &str) {
        if let Some(node) = self.nodes.get_mut(place) {
            node.remove_pod(uid);
        }
        if let Some(pods) = self.waiting.get_mut(place) {
            pods.remove(uid);
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
