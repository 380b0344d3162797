//! Weights as a sequence: exact within every round, even within each part of it, without a lock.

use std::sync::atomic::{AtomicU64, Ordering};

/// Hands out indices by weight. In a round of as many turns as the weights add up to (after dividing by what they have
/// in common), each index comes up exactly as often as its weight; the step between turns is near the golden ratio of
/// the round and has nothing in common with it, so that parts of a round are even as well.
#[derive(Debug, Default)]
pub(super) struct Split {
    /// The weights, added up.
    ends: Vec<u64>,
    step: u64,
    turn: AtomicU64,
}

impl Split {
    pub(super) fn new(weights: &[u32]) -> Self {
        let common = weights.iter().fold(0, |a, b| gcd(a, u64::from(*b))).max(1);
        let ends: Vec<u64> = weights
            .iter()
            .scan(0, |sum, weight| {
                *sum += u64::from(*weight) / common;
                Some(*sum)
            })
            .collect();
        let total = ends.last().copied().unwrap_or_default();
        // 0.618…, the part of a round that leaves the largest gaps smallest.
        let golden = (u128::from(total) * 618_033_988 / 1_000_000_000) as u64;
        let step = (golden.max(1)..=total.max(1)).find(|step| gcd(*step, total) == 1).unwrap_or(1);
        Self { ends, step, turn: AtomicU64::new(0) }
    }

    /// The next index; `None` where no weight is above zero.
    pub(super) fn next(&self) -> Option<usize> {
        let total = *self.ends.last().filter(|total| **total > 0)?;
        if let [_] = self.ends[..] {
            return Some(0);
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % total;
        let point = (u128::from(turn) * u128::from(self.step) % u128::from(total)) as u64;
        Some(self.ends.partition_point(|end| *end <= point))
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(weights: &[u32], turns: usize) -> Vec<usize> {
        let split = Split::new(weights);
        let mut counts = vec![0; weights.len()];
        (0..turns).filter_map(|_| split.next()).for_each(|index| counts[index] += 1);
        counts
    }

    #[test]
    fn every_round_is_exact() {
        assert_eq!(counts(&[90, 10], 10), [9, 1]);
        assert_eq!(counts(&[90, 10], 10_000), [9000, 1000]);
        assert_eq!(counts(&[1, 2, 3, 0], 600), [100, 200, 300, 0]);
        assert_eq!(counts(&[5], 7), [7]);
        assert_eq!(counts(&[0, 0], 7), [0, 0]);
        assert_eq!(counts(&[0], 7), [0]);
        assert_eq!(counts(&[], 7), Vec::<usize>::new());
    }

    #[test]
    fn parts_of_a_round_are_even() {
        for weights in [[999_999, 1], [700_001, 299_999], [123_457, 876_543], [1, 1_000_000], [333_333, 666_667]] {
            let total: u32 = weights.iter().sum();
            for (index, count) in counts(&weights, 10_000).into_iter().enumerate() {
                let wanted = f64::from(weights[index]) / f64::from(total) * 10_000.0;
                assert!((count as f64 - wanted).abs() <= 20.0, "{weights:?}: {count} of {wanted}");
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn any_weights_are_kept_within_one_percent(weights in proptest::collection::vec(0u32..1_000_001, 2..6)) {
            let total: f64 = weights.iter().map(|w| f64::from(*w)).sum();
            if total > 0.0 {
                for (index, count) in counts(&weights, 10_000).into_iter().enumerate() {
                    let wanted = f64::from(weights[index]) / total * 10_000.0;
                    proptest::prop_assert!((count as f64 - wanted).abs() <= 100.0, "{weights:?}: {count} of {wanted}");
                }
            }
        }
    }
}
