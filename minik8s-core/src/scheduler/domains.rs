//! Counts by topology domain: nodes that share the value of a label.

use super::NodeInfo;
use super::topology::{Place, index_of};
use std::collections::{HashMap, HashSet};

/// Amounts by label and its value.
#[derive(Clone, Debug, Default)]
pub(super) struct Domains(Vec<Amounts>);

/// The amounts of one label.
#[derive(Clone, Debug)]
struct Amounts {
    key: String,
    /// Where the values have numbers: by number.
    index: Option<usize>,
    by_number: Vec<i64>,
    by_value: HashMap<String, i64>,
}

impl Amounts {
    fn new(key: &str) -> Self {
        Self { key: key.to_owned(), index: index_of(key), by_number: Vec::new(), by_value: HashMap::new() }
    }

    fn place(&self, node: &NodeInfo) -> Option<Place> {
        node.topology.place(self.index?)
    }

    fn add(&mut self, node: &NodeInfo, by: i64) {
        match self.place(node) {
            Some(Place::Nowhere) => {}
            Some(Place::Domain(number)) => {
                if self.by_number.len() <= number {
                    self.by_number.resize(number + 1, 0);
                }
                self.by_number[number] += by;
            }
            None => {
                let Some(value) = node.labels.get(&self.key) else { return };
                match self.by_value.get_mut(value) {
                    Some(amount) => *amount += by,
                    None => drop(self.by_value.insert(value.clone(), by)),
                }
            }
        }
    }

    /// The amount in the node's domain; `None` for a node without the label.
    fn at(&self, node: &NodeInfo) -> Option<i64> {
        match self.place(node) {
            Some(Place::Nowhere) => None,
            Some(Place::Domain(number)) => Some(self.by_number.get(number).copied().unwrap_or_default()),
            None => node.labels.get(&self.key).map(|value| self.by_value.get(value).copied().unwrap_or_default()),
        }
    }
}

impl Domains {
    /// Adds to the domain that the node is in; nodes without the label are in none.
    pub(super) fn add(&mut self, key: &str, node: &NodeInfo, by: i64) {
        let known = self.0.iter().position(|amounts| amounts.key == key);
        let at = known.unwrap_or_else(|| {
            self.0.push(Amounts::new(key));
            self.0.len() - 1
        });
        self.0[at].add(node, by);
    }

    /// The amount in the node's domain; `None` for a node without the label.
    pub(super) fn at(&self, key: &str, node: &NodeInfo) -> Option<i64> {
        match self.0.iter().find(|amounts| amounts.key == key) {
            Some(amounts) => amounts.at(node),
            None => has(key, node).then_some(0),
        }
    }

    /// The sum over all domains that the node is in.
    pub(super) fn total(&self, node: &NodeInfo) -> i64 {
        self.0.iter().filter_map(|amounts| amounts.at(node)).sum()
    }

    /// True where some domain that the node is in has an amount above zero.
    pub(super) fn any(&self, node: &NodeInfo) -> bool {
        self.0.iter().any(|amounts| amounts.at(node).is_some_and(|amount| amount > 0))
    }

    /// True where nothing is counted anywhere.
    pub(super) fn is_zero(&self) -> bool {
        let all = |amounts: &Amounts| {
            amounts.by_number.iter().all(|amount| *amount == 0) && amounts.by_value.values().all(|amount| *amount == 0)
        };
        self.0.iter().all(all)
    }
}

/// True where the node has the label.
pub(super) fn has(key: &str, node: &NodeInfo) -> bool {
    match index_of(key).and_then(|index| node.topology.place(index)) {
        Some(place) => place != Place::Nowhere,
        None => node.labels.contains_key(key),
    }
}

/// In how many domains the nodes are.
pub(super) fn different(key: &str, nodes: &[&NodeInfo]) -> usize {
    let index = index_of(key);
    let mut numbers: Vec<bool> = Vec::new();
    let mut values: HashSet<&str> = HashSet::new();
    for node in nodes {
        match index.and_then(|index| node.topology.place(index)) {
            Some(Place::Nowhere) => {}
            Some(Place::Domain(number)) => {
                if numbers.len() <= number {
                    numbers.resize(number + 1, false);
                }
                numbers[number] = true;
            }
            None => values.extend(node.labels.get(key).map(String::as_str)),
        }
    }
    numbers.into_iter().filter(|seen| *seen).count() + values.len()
}
