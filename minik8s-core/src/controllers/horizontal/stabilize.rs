//! What was recommended lately holds back what is recommended now. Pure.

use super::behavior::Pace;
use jiff::SignedDuration;
use std::time::Duration;
use tokio::time::Instant;

/// A recommendation, before anything held it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recommendation {
    /// When; windows are of time that passed, whatever the clock is set to.
    pub at: Instant,
    /// How many.
    pub replicas: i32,
}

/// The recommendation that counts: the lowest of the upward window where it would grow, the highest of the downward one
/// where it would shrink.
pub fn stabilize(current: i32, desired: i32, recent: &[Recommendation], pace: &Pace, now: Instant) -> i32 {
    let within = |window: SignedDuration| {
        let window = length(window);
        recent.iter().filter(move |r| now.duration_since(r.at) < window).map(|r| r.replicas)
    };
    let lowest = within(pace.up.window).fold(desired, i32::min);
    let highest = within(pace.down.window).fold(desired, i32::max);
    current.max(lowest).min(highest)
}

/// Takes a recommendation in, and forgets those no window reaches.
pub fn remember(recent: &mut Vec<Recommendation>, new: Recommendation, pace: &Pace) {
    let window = length(pace.up.window.max(pace.down.window));
    recent.retain(|r| new.at.duration_since(r.at) < window);
    recent.push(new);
}

fn length(window: SignedDuration) -> Duration {
    Duration::try_from(window).unwrap_or_default()
}
