//! Exponential back-off with jitter.

use std::time::Duration;

/// How long to wait after the n-th failure in a row: `base · 2ⁿ⁻¹`, at most `max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Wait after the first failure.
    pub base: Duration,
    /// Longest wait.
    pub max: Duration,
}

impl Backoff {
    /// A back-off from `base` to `max`.
    pub const fn new(base: Duration, max: Duration) -> Self {
        Self { base, max }
    }

    /// The wait after `failures` failures in a row; none after none.
    pub fn delay(&self, failures: u32) -> Duration {
        match failures.checked_sub(1) {
            None => Duration::ZERO,
            Some(doublings) => {
                let factor = 1u32.checked_shl(doublings).filter(|_| doublings < 31).unwrap_or(u32::MAX);
                self.base.checked_mul(factor).map_or(self.max, |d| d.min(self.max))
            }
        }
    }

    /// As [`delay`](Self::delay), spread over its upper half by `fraction` (0 to 1), so that those who failed together
    /// do not come back together.
    pub fn jittered(&self, failures: u32, fraction: f64) -> Duration {
        let full = self.delay(failures);
        full / 2 + (full / 2).mul_f64(fraction.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_maximum_and_never_overflows() {
        let backoff = Backoff::new(Duration::from_millis(5), Duration::from_secs(1));
        let table = [(0, 0), (1, 5), (2, 10), (3, 20), (8, 640), (9, 1000), (40, 1000), (u32::MAX, 1000)];
        for (failures, millis) in table {
            assert_eq!(backoff.delay(failures), Duration::from_millis(millis), "after {failures}");
        }
    }

    #[test]
    fn jitter_stays_in_the_upper_half() {
        let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        assert_eq!(backoff.jittered(1, 0.0), Duration::from_millis(50));
        assert_eq!(backoff.jittered(1, 1.0), Duration::from_millis(100));
        assert_eq!(backoff.jittered(0, 0.7), Duration::ZERO);
    }
}
