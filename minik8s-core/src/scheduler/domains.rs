//! Counts by topology domain: nodes that share the value of a label.

use super::NodeInfo;
use std::collections::HashMap;

/// Amounts by label and its value.
#[derive(Clone, Debug, Default)]
pub(super) struct Domains(HashMap<String, HashMap<String, i64>>);

impl Domains {
    /// Adds to the domain that the node is in; nodes without the label are in none.
    pub(super) fn add(&mut self, key: &str, node: &NodeInfo, by: i64) {
        let Some(value) = node.labels.get(key) else { return };
        if !self.0.contains_key(key) {
            self.0.insert(key.to_owned(), HashMap::new());
        }
        let Some(values) = self.0.get_mut(key) else { return };
        match values.get_mut(value) {
            Some(amount) => *amount += by,
            None => drop(values.insert(value.clone(), by)),
        }
    }

    /// The amount in the node's domain; `None` for a node without the label.
    pub(super) fn at(&self, key: &str, node: &NodeInfo) -> Option<i64> {
        let value = node.labels.get(key)?;
        Some(self.0.get(key).and_then(|values| values.get(value)).copied().unwrap_or_default())
    }

    /// The sum over all domains that the node is in.
    pub(super) fn total(&self, node: &NodeInfo) -> i64 {
        self.0.keys().filter_map(|key| self.at(key, node)).sum()
    }

    /// True where some domain that the node is in has an amount above zero.
    pub(super) fn any(&self, node: &NodeInfo) -> bool {
        self.0.keys().any(|key| self.at(key, node).is_some_and(|amount| amount > 0))
    }

    /// True where nothing is counted anywhere.
    pub(super) fn is_zero(&self) -> bool {
        self.0.values().flat_map(HashMap::values).all(|amount| *amount == 0)
    }
}
