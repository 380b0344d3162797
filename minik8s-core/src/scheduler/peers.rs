//! Pods on nodes, those that are alike counted together: whoever asks how many pods with certain labels run where looks
//! at each kind of pod once, not at each pod.

use super::PodInfo;
use super::terms::PodTerms;
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// How many pods are on which node, by the node's slot.
pub type Places = HashMap<usize, i64>;

/// What others see of a pod, with one such pod as the sample.
#[derive(Clone, Debug)]
struct Alike(Arc<PodInfo>);

impl Hash for Alike {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.0.labels, &self.0.owner).hash(state);
    }
}

impl PartialEq for Alike {
    fn eq(&self, other: &Self) -> bool {
        let (a, b) = (&self.0, &other.0);
        Arc::ptr_eq(a, b)
            || (&a.namespace, &a.labels, &a.owner, a.terminating) == (&b.namespace, &b.labels, &b.owner, b.terminating)
                && a.affinity == b.affinity
    }
}

impl Eq for Alike {}

/// Pods that are alike: where they are, and what they say about others.
#[derive(Clone, Debug)]
pub(super) struct Kin {
    pub(super) places: Places,
    /// `None` where they say nothing.
    pub(super) terms: Option<Arc<PodTerms>>,
}

/// Every kin of pods, by namespace.
#[derive(Clone, Debug, Default)]
pub(super) struct Peers {
    by_namespace: HashMap<String, HashMap<Alike, Kin>>,
    /// Those with terms about other pods.
    choosy: HashSet<Alike>,
}

impl Peers {
    pub(super) fn add(&mut self, pod: &Arc<PodInfo>, slot: usize) {
        let namespace = match self.by_namespace.get_mut(&pod.namespace) {
            Some(known) => known,
            None => self.by_namespace.entry(pod.namespace.clone()).or_default(),
        };
        let kin = namespace.entry(Alike(pod.clone())).or_insert_with(|| {
            let terms = PodTerms::of(pod).map(Arc::new);
            if terms.is_some() {
                self.choosy.insert(Alike(pod.clone()));
            }
            Kin { places: Places::new(), terms }
        });
        *kin.places.entry(slot).or_default() += 1;
    }

    pub(super) fn remove(&mut self, pod: &Arc<PodInfo>, slot: usize) {
        let Some(namespace) = self.by_namespace.get_mut(&pod.namespace) else { return };
        let key = Alike(pod.clone());
        let Some(kin) = namespace.get_mut(&key) else { return };
        if let Some(count) = kin.places.get_mut(&slot) {
            *count -= 1;
            if *count <= 0 {
                kin.places.remove(&slot);
            }
        }
        if kin.places.is_empty() {
            namespace.remove(&key);
            self.choosy.remove(&key);
        }
        if namespace.is_empty() {
            self.by_namespace.remove(&pod.namespace);
        }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (&PodInfo, &Places)> {
        self.by_namespace.values().flatten().map(|(alike, kin)| (alike.0.as_ref(), &kin.places))
    }

    pub(super) fn in_namespace<'a>(
        &'a self,
        namespace: &str,
    ) -> impl Iterator<Item = (&'a PodInfo, &'a Places)> + use<'a> {
        self.by_namespace.get(namespace).into_iter().flatten().map(|(alike, kin)| (alike.0.as_ref(), &kin.places))
    }

    pub(super) fn choosy(&self) -> impl Iterator<Item = (&PodInfo, &Kin)> {
        self.choosy
            .iter()
            .filter_map(|alike| Some((alike.0.as_ref(), self.by_namespace.get(&alike.0.namespace)?.get(alike)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(uid: &str, namespace: &str, app: &str) -> Arc<PodInfo> {
        let labels = [("app".to_owned(), app.to_owned())].into();
        Arc::new(PodInfo { uid: uid.into(), namespace: namespace.into(), labels, ..PodInfo::default() })
    }

    #[test]
    fn pods_that_are_alike_are_counted_together_and_leave_nothing_behind() {
        let mut peers = Peers::default();
        let pods = [pod("a", "x", "web"), pod("b", "x", "web"), pod("c", "x", "db"), pod("d", "y", "web")];
        pods.iter().zip([0, 0, 0, 7]).for_each(|(pod, slot)| peers.add(pod, slot));
        let count = |peers: &Peers| peers.in_namespace("x").map(|(_, places)| places[&0]).collect::<Vec<_>>();
        let mut counts = count(&peers);
        counts.sort_unstable();
        assert_eq!(counts, [1, 2]);
        assert_eq!(peers.all().count(), 3);
        pods.iter().zip([0, 0, 0, 7]).for_each(|(pod, slot)| peers.remove(pod, slot));
        assert!(peers.by_namespace.is_empty() && peers.choosy.is_empty());
    }
}
