//! Numbers for the values of the labels that pods are spread by most: a look at a number costs less than one at a text,
//! and a decision looks at thousands of nodes.

use std::collections::{BTreeMap, HashMap};

/// The labels whose values have numbers.
const KEYS: [&str; 3] = ["topology.kubernetes.io/zone", "kubernetes.io/hostname", "topology.kubernetes.io/region"];

/// The number of a label that is not there. Zero is for nodes that no snapshot has seen.
const ABSENT: u32 = 1;

/// The numbers of a node's values, in the order of the keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeTopology([u32; KEYS.len()]);

/// Where a node is, as far as a label with numbers says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// It does not have the label.
    Nowhere,
    /// In the domain of this number.
    Domain(usize),
}

/// Where a label's numbers stand; `None` for one that has none.
pub(super) fn index_of(key: &str) -> Option<usize> {
    KEYS.iter().position(|known| *known == key)
}

impl NodeTopology {
    /// Where the node is by the key of that index; `None` where no snapshot has seen it.
    pub(super) fn place(&self, index: usize) -> Option<Place> {
        match self.0.get(index).copied()? {
            0 => None,
            ABSENT => Some(Place::Nowhere),
            number => Some(Place::Domain(number as usize)),
        }
    }
}

/// Which values have which numbers, while nodes have them.
#[derive(Clone, Debug, Default)]
pub(super) struct Topology([Values; KEYS.len()]);

#[derive(Clone, Debug, Default)]
struct Values {
    /// Number, and how many nodes have it.
    known: HashMap<String, (u32, usize)>,
    free: Vec<u32>,
}

impl Topology {
    /// Numbers for a node's labels; to be given back by [`leave`](Self::leave).
    pub(super) fn enter(&mut self, labels: &BTreeMap<String, String>) -> NodeTopology {
        let mut numbers = [ABSENT; KEYS.len()];
        for ((key, values), number) in KEYS.iter().zip(&mut self.0).zip(&mut numbers) {
            if let Some(value) = labels.get(*key) {
                *number = values.enter(value);
            }
        }
        NodeTopology(numbers)
    }

    /// A node with these labels is no more.
    pub(super) fn leave(&mut self, labels: &BTreeMap<String, String>) {
        for (key, values) in KEYS.iter().zip(&mut self.0) {
            if let Some(value) = labels.get(*key) {
                values.leave(value);
            }
        }
    }
}

impl Values {
    fn enter(&mut self, value: &str) -> u32 {
        if let Some((number, nodes)) = self.known.get_mut(value) {
            *nodes += 1;
            return *number;
        }
        let next = u32::try_from(self.known.len()).unwrap_or(u32::MAX - 2) + ABSENT + 1;
        let number = self.free.pop().unwrap_or(next);
        self.known.insert(value.to_owned(), (number, 1));
        number
    }

    fn leave(&mut self, value: &str) {
        let Some((number, nodes)) = self.known.get_mut(value) else { return };
        *nodes -= 1;
        if *nodes == 0 {
            self.free.push(*number);
            self.known.remove(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_their_number_while_a_node_has_them() {
        let zone = |value: &str| BTreeMap::from([(KEYS[0].to_owned(), value.to_owned())]);
        let mut topology = Topology::default();
        let number = |value: &str, topology: &mut Topology| match topology.enter(&zone(value)).place(0) {
            Some(Place::Domain(number)) => number,
            other => panic!("{other:?}"),
        };
        let (a, b) = (number("a", &mut topology), number("b", &mut topology));
        assert!(a != b && number("a", &mut topology) == a);
        topology.leave(&zone("a"));
        assert_eq!(number("a", &mut topology), a, "one still had it");
        topology.leave(&zone("b"));
        assert_eq!(number("c", &mut topology), b, "it is given out again");
        let (d, e) = (number("d", &mut topology), number("b", &mut topology));
        assert!(![a, b].contains(&d) && ![a, b, d].contains(&e));
        let bare = topology.enter(&BTreeMap::new());
        assert_eq!((bare.place(0), NodeTopology::default().place(0)), (Some(Place::Nowhere), None));
    }
}
