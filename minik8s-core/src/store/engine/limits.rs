//! How much a store keeps for those who look back or read slowly.

/// Bounds of history and of watchers. The defaults suit a cluster of thousands of pods.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Events kept for watches and reads of the past; the oldest commits are forgotten first.
    pub history_events: usize,
    /// Bytes of replaced and deleted values kept for the same.
    pub history_bytes: usize,
    /// Events that a watcher may lag behind before it is cut.
    pub watch_events: usize,
    /// Bytes of values that a watcher may lag behind before it is cut.
    pub watch_bytes: usize,
    /// A quiet watch gets a progress mark after about this many commits elsewhere.
    pub progress_every: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            history_events: 100_000,
            history_bytes: 16 << 20,
            watch_events: 16_384,
            watch_bytes: 64 << 20,
            progress_every: 128,
        }
    }
}
