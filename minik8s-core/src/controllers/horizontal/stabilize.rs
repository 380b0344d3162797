//! What was recommended lately holds back what is recommended now. Pure.

use super::behavior::Pace;
use jiff::{SignedDuration, Timestamp};

/// A recommendation, before anything held it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recommendation {
    /// When.
    pub at: Timestamp,
    /// How many.
    pub replicas: i32,
}

/// The recommendation that counts: the lowest of the upward window where it would grow, the highest of the downward one
/// where it would shrink.
pub fn stabilize(current: i32, desired: i32, recent: &[Recommendation], pace: &Pace, now: Timestamp) -> i32 {
    let within = |window: SignedDuration| {
        let cutoff = now.saturating_sub(window).unwrap_or(Timestamp::MIN);
        recent.iter().filter(move |r| r.at > cutoff).map(|r| r.replicas)
    };
    let lowest = within(pace.up.window).fold(desired, i32::min);
    let highest = within(pace.down.window).fold(desired, i32::max);
    current.max(lowest).min(highest)
}

/// Takes a recommendation in, and forgets those no window reaches.
pub fn remember(recent: &mut Vec<Recommendation>, new: Recommendation, pace: &Pace) {
    let window = pace.up.window.max(pace.down.window);
    let cutoff = new.at.saturating_sub(window).unwrap_or(Timestamp::MIN);
    recent.retain(|r| r.at > cutoff);
    recent.push(new);
}
