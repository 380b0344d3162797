//! What a gateway has counted of one backend of a route, small enough to be told to the cluster.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How many classes of durations there are: up to 1 ms, 2 ms, 4 ms, and so on; the last has no end.
const CLASSES: usize = 18;

/// What a gateway has counted since a canary began.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CanaryTally {
    /// Which canary of the route.
    pub id: String,
    /// By `namespace/name` of the Service.
    pub services: BTreeMap<String, Tally>,
}

/// What a gateway has counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Requests that were answered.
    pub requests: u64,
    /// Those whose answer was a failure of the backend's: 5xx, such a status of gRPC, or one that broke off.
    pub errors: u64,
    /// How many took how long until the answer began.
    pub times: Vec<u64>,
}

impl Default for Tally {
    fn default() -> Self {
        Self { requests: 0, errors: 0, times: vec![0; CLASSES] }
    }
}

impl Tally {
    /// The class of a duration.
    pub fn place(millis: u64) -> usize {
        let bits = u64::BITS - millis.saturating_sub(1).leading_zeros();
        if millis <= 1 { 0 } else { (bits as usize).min(CLASSES - 1) }
    }

    /// Counts another's as well.
    pub fn add(&mut self, other: &Tally) {
        self.requests += other.requests;
        self.errors += other.errors;
        for (mine, theirs) in self.times.iter_mut().zip(&other.times) {
            *mine += theirs;
        }
    }

    /// Without what was counted before.
    #[must_use]
    pub fn less(&self, before: &Tally) -> Tally {
        let zero = std::iter::repeat(&0);
        Tally {
            requests: self.requests.saturating_sub(before.requests),
            errors: self.errors.saturating_sub(before.errors),
            times: self.times.iter().zip(before.times.iter().chain(zero)).map(|(a, b)| a.saturating_sub(*b)).collect(),
        }
    }

    /// A duration, in milliseconds, that more than one request in a hundred exceeded; a power of two. `None` where none
    /// took longer than one.
    pub fn slower_than_99_percent(&self) -> Option<u64> {
        let all: u64 = self.times.iter().sum();
        let mut slower = 0;
        for (class, count) in self.times.iter().enumerate().rev() {
            slower += count;
            if slower * 100 > all {
                return class.checked_sub(1).map(|below| 1 << below);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_fall_into_powers_of_two() {
        let places = [0, 1, 2, 3, 4, 5, 8, 9, 1000, u64::MAX].map(Tally::place);
        assert_eq!(places, [0, 0, 1, 2, 2, 3, 3, 4, 10, CLASSES - 1]);
        let mut tally = Tally::default();
        tally.times[3] = 99;
        tally.times[10] = 1;
        assert_eq!(tally.slower_than_99_percent(), Some(4), "one in a hundred is not more than one in a hundred");
        tally.times[10] = 2;
        assert_eq!(tally.slower_than_99_percent(), Some(512));
        assert_eq!(Tally::default().slower_than_99_percent(), None);
    }
}
