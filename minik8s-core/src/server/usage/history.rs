//! The readings of a node that a rate is made of.

use super::rate::{NodeRates, rates};
use crate::node::NodeUsage;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// Rates are made over at least this, where there are readings for it: over less they jump.
const WINDOW: Duration = Duration::from_millis(900);
/// What lies further back says nothing of now.
const STALE: Duration = Duration::from_secs(120);
/// A node's clock that went so much faster or slower than time was set meanwhile: no rate over that is true.
const STEP: i128 = 2_000;
/// Somebody who asks twice a second leaves this many within a window.
const KEPT: usize = 8;

/// Some readings, the oldest first.
#[derive(Default)]
pub(super) struct History(VecDeque<(Instant, NodeUsage)>);

impl History {
    /// True where nothing in it can be compared with any more.
    pub(super) fn is_stale(&self, now: Instant) -> bool {
        self.0.back().is_none_or(|(at, _)| now.duration_since(*at) > STALE)
    }

    /// Takes a reading in; `None` where there is none before it that it could be compared with.
    pub(super) fn add(&mut self, now: Instant, reading: NodeUsage) -> Option<NodeRates> {
        self.0.retain(|(at, older)| {
            let passed = now.duration_since(*at);
            passed <= STALE && !stepped(older, &reading, passed)
        });
        let far = self.0.iter().rev().find(|(at, _)| now.duration_since(*at) >= WINDOW);
        let base = far.or_else(|| self.0.front());
        let made = base.map(|(_, older)| rates(older, &reading));
        self.0.push_back((now, reading));
        while self.0.len() > KEPT {
            self.0.pop_front();
        }
        made
    }
}

/// True where a node's clock was set between two readings.
fn stepped(older: &NodeUsage, newer: &NodeUsage, passed: Duration) -> bool {
    let (Some(before), Some(after)) = (wall(older), wall(newer)) else { return false };
    let said = i128::from(after) - i128::from(before);
    (said - passed.as_millis() as i128).abs() > STEP
}

/// When a reading was made, by the node's clock.
fn wall(reading: &NodeUsage) -> Option<i64> {
    let containers = reading.containers.iter().map(|c| c.stats.at).max();
    reading.machine.as_ref().map(|machine| machine.at).or(containers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::MachineUsage;

    #[test]
    fn the_window_is_long_enough_and_not_of_the_past() {
        let start = Instant::now();
        let mut history = History::default();
        let mut window = |at_ms: u64| {
            let machine = MachineUsage { at: at_ms as i64, ..MachineUsage::default() };
            let reading = NodeUsage { machine: Some(machine), ..NodeUsage::default() };
            let made = history.add(start + Duration::from_millis(at_ms), reading)?;
            made.machine.map(|rate| rate.window)
        };
        assert_eq!(window(0), None, "nothing to compare with");
        assert_eq!(window(400), Some(400), "the first answer");
        assert_eq!(window(1_000), Some(1_000));
        assert_eq!(window(1_900), Some(900), "the nearest that is far enough");
        assert_eq!(window(16_900), Some(15_000), "asked four times a minute");
        assert_eq!(window(116_900), Some(100_000), "asked now and then");
        assert_eq!(window(300_000), None, "nobody had looked for long");
    }

    #[test]
    fn over_a_step_of_the_clock_there_is_no_rate() {
        for step in [-3_600_000, -3_000, 3_000, 3_600_000] {
            let (start, mut history) = (Instant::now(), History::default());
            let mut window = |passed: u64, at: i64| {
                let reading =
                    NodeUsage { machine: Some(MachineUsage { at, ..Default::default() }), ..Default::default() };
                Some(history.add(start + Duration::from_millis(passed), reading)?.machine?.window)
            };
            assert_eq!((window(0, 0), window(5_000, 5_500)), (None, Some(5_500)), "a little is no step");
            assert_eq!(window(15_000, 15_000 + step), None, "{step}");
            assert_eq!(window(16_000, 16_000 + step), Some(1_000), "{step}: from there on");
        }
    }
}
