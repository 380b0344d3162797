//! How many pods may go at once, as far as preemption heeds it: a PodDisruptionBudget is kept where that is possible.

use super::PodInfo;
use crate::api::Selector;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What matters of a budget here.
#[derive(Clone, Debug, PartialEq)]
pub struct Budget {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// The pods that it covers.
    pub selector: Selector,
    /// How many of them may go now.
    pub allowed: i32,
    /// Pods that have been let go already, by name.
    pub let_go: BTreeSet<String>,
}

impl Budget {
    /// Reads a budget.
    pub fn from_object(budget: &PodDisruptionBudget) -> Self {
        let meta = &budget.metadata;
        let selector = budget.spec.as_ref().and_then(|s| s.selector.as_ref());
        let selector = selector.and_then(|s| Selector::from_typed(Some(s)).ok());
        let status = budget.status.as_ref();
        Self {
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            selector: selector.unwrap_or_else(Selector::nothing),
            allowed: status.map_or(0, |s| s.disruptions_allowed),
            let_go: status.iter().flat_map(|s| s.disrupted_pods.iter().flat_map(|pods| pods.keys().cloned())).collect(),
        }
    }

    fn counts_on(&self, pod: &PodInfo) -> bool {
        // As upstream's scheduler has it, though for evictions an empty selector covers all pods.
        !self.selector.is_everything() && self.selector.matches(&pod.labels) && !self.let_go.contains(&pod.name)
    }
}

/// All budgets.
#[derive(Clone, Debug, Default)]
pub(super) struct Budgets(BTreeMap<String, BTreeMap<String, Budget>>);

impl Budgets {
    pub(super) fn put(&mut self, budget: Budget) {
        self.0.entry(budget.namespace.clone()).or_default().insert(budget.name.clone(), budget);
    }

    pub(super) fn remove(&mut self, namespace: &str, name: &str) {
        if let Some(budgets) = self.0.get_mut(namespace) {
            budgets.remove(name);
            if budgets.is_empty() {
                self.0.remove(namespace);
            }
        }
    }

    /// Those of the pods, should they go one after the other, with whom a budget would be overdrawn; by uid.
    pub(super) fn overdrawn(&self, pods: &[Arc<PodInfo>]) -> BTreeSet<String> {
        let mut spent: BTreeMap<(&str, &str), i32> = BTreeMap::new();
        let mut overdrawn = BTreeSet::new();
        if self.0.is_empty() {
            return overdrawn;
        }
        for pod in pods.iter().filter(|pod| !pod.labels.is_empty()) {
            let budgets = self.0.get(&pod.namespace).into_iter().flat_map(BTreeMap::values);
            for budget in budgets.filter(|budget| budget.counts_on(pod)) {
                let spent = spent.entry((&budget.namespace, &budget.name)).or_default();
                *spent += 1;
                if *spent > budget.allowed {
                    overdrawn.insert(pod.uid.clone());
                }
            }
        }
        overdrawn
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn budget(name: &str, app: Option<&str>, allowed: i32, let_go: &[&str]) -> Budget {
        let selector = app.map(|app| json!({"matchLabels": {"app": app}}));
        let let_go: BTreeMap<_, _> = let_go.iter().map(|pod| (*pod, "2026-01-01T00:00:00Z")).collect();
        let value = json!({"metadata": {"name": name, "namespace": "ns"}, "spec": {"selector": selector}, "status": {
            "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0, "disruptionsAllowed": allowed,
            "disruptedPods": let_go}});
        Budget::from_object(&serde_json::from_value(value).unwrap())
    }

    #[test]
    fn who_comes_too_late_overdraws() {
        let pod = |uid: &str, namespace: &str, app: &str| {
            let labels = [("app".to_owned(), app.to_owned())].into();
            let (uid, namespace) = (uid.to_owned(), namespace.to_owned());
            Arc::new(PodInfo { name: uid.clone(), uid, namespace, labels, ..PodInfo::default() })
        };
        let pods = [pod("a", "ns", "web"), pod("b", "ns", "web"), pod("c", "ns", "db"), pod("d", "other", "web")];
        let told = |budgets: Vec<Budget>| {
            let mut all = Budgets::default();
            budgets.into_iter().for_each(|b| all.put(b));
            all.overdrawn(&pods).into_iter().collect::<Vec<_>>().join(",")
        };
        assert_eq!(told(vec![]), "");
        assert_eq!(told(vec![budget("x", Some("web"), 1, &[])]), "b");
        assert_eq!(told(vec![budget("x", Some("web"), 0, &["a"])]), "b", "what was let go does not count twice");
        assert_eq!(told(vec![budget("x", Some("web"), 2, &[]), budget("y", Some("db"), 0, &[])]), "c");
        assert_eq!(told(vec![budget("x", None, 0, &[])]), "", "no selector covers nothing");
        let mut all = Budgets::default();
        all.put(budget("x", Some("web"), 0, &[]));
        all.remove("ns", "x");
        assert!(all.0.is_empty());
    }
}
