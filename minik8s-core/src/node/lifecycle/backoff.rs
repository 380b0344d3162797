//! How long to wait before trying again.

use jiff::{SignedDuration, Timestamp};
use std::time::Duration;

/// Exponential: the first repetition is immediate (restarts) or after `base` (failures), then doubling up to `max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Backoff {
    pub(crate) base: Duration,
    pub(crate) max: Duration,
    /// A life this long makes good for all failures before.
    pub(crate) reset: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { base: Duration::from_secs(10), max: Duration::from_secs(300), reset: Duration::from_secs(600) }
    }
}

impl Backoff {
    /// The wait before the restart of a container whose present life is the `step`-th short one in a row.
    pub(crate) fn restart(&self, step: u32) -> Duration {
        if step == 0 { Duration::ZERO } else { self.failure(step) }
    }

    /// The wait after the `count`-th failure in a row.
    pub(crate) fn failure(&self, count: u32) -> Duration {
        let factor = 1_u32.checked_shl(count.saturating_sub(1)).unwrap_or(u32::MAX);
        self.base.saturating_mul(factor).min(self.max)
    }

    /// The step that counts for a life that lasted from `started` to `finished`.
    pub(crate) fn effective_step(&self, step: u32, started: Timestamp, finished: Timestamp) -> u32 {
        if finished.duration_since(started) >= signed(self.reset) { 0 } else { step }
    }
}

pub(crate) fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

/// `at + by`, at the end of time where that overflows.
pub(crate) fn later(at: Timestamp, by: Duration) -> Timestamp {
    at.saturating_add(signed(by)).unwrap_or(Timestamp::MAX)
}

/// From unix milliseconds, as runtimes count.
pub(crate) fn from_millis(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(millis).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_five_minutes_and_a_long_life_resets() {
        let backoff = Backoff::default();
        let waits: Vec<u64> = (0..8).map(|step| backoff.restart(step).as_secs()).collect();
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(backoff.failure(1).as_secs(), 10);
        assert_eq!(backoff.failure(200).as_secs(), 300);
        let start = Timestamp::UNIX_EPOCH;
        assert_eq!(backoff.effective_step(4, start, later(start, Duration::from_secs(599))), 4);
        assert_eq!(backoff.effective_step(4, start, later(start, Duration::from_secs(600))), 0);
    }
}
