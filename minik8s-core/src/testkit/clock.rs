//! A clock that follows Tokio's time: a test that pauses and advances the one moves the other.

use crate::clock::Clock;
use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// Shows `start` plus what has passed of Tokio's time since.
#[derive(Clone, Copy, Debug)]
pub struct TokioClock {
    start: Timestamp,
    since: Instant,
}

impl TokioClock {
    /// A clock that shows `start` now.
    pub fn starting_at(start: Timestamp) -> Self {
        Self { start, since: Instant::now() }
    }
}

impl Default for TokioClock {
    fn default() -> Self {
        Self { start: Timestamp::now(), since: Instant::now() }
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        let passed = SignedDuration::try_from(self.since.elapsed()).unwrap_or_default();
        self.start.saturating_add(passed).unwrap_or(self.start)
    }
}
