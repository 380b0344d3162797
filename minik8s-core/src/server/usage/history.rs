//! The readings of a node that a rate is made of.

use super::rate::{NodeRates, rates};
use crate::node::NodeUsage;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// Rates are made over at least this, where there are readings for it: over less they jump.
const WINDOW: Duration = Duration::from_millis(900);
/// What lies further back says nothing of now.
const STALE: Duration = Duration::from_secs(30);
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
        self.0.retain(|(at, _)| now.duration_since(*at) <= STALE);
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
        assert_eq!(window(60_000), None, "nobody had looked for long");
    }
}
