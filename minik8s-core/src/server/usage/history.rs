//! The readings of a node that a rate is made of.

use super::rate::{NodeRates, rates};
use crate::node::NodeUsage;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// Over less, rates jump: a reading so near is compared with only where there is no other.
const WINDOW: Duration = Duration::from_millis(900);
/// Rates are made over up to this, where nobody says and there are readings for it, however often somebody asks.
pub(crate) const RESOLUTION: Duration = Duration::from_secs(15);
/// So many readings are kept of the time that rates are made over.
const KEPT: u32 = 5;
/// What lies further back says nothing of now.
const STALE: Duration = Duration::from_secs(120);
/// A node's clock that went so much faster or slower than time was set meanwhile: no rate over that is true.
const STEP: i128 = 2_000;

/// Some readings.
pub(super) struct History {
    /// The oldest first.
    readings: VecDeque<(Instant, NodeUsage)>,
    span: Duration,
}

impl History {
    /// Whose rates are made over so long a time.
    pub(super) fn over(span: Duration) -> Self {
        Self { readings: VecDeque::new(), span: span.max(WINDOW) }
    }

    /// True where nothing in it can be compared with any more.
    pub(super) fn is_stale(&self, now: Instant) -> bool {
        self.readings.back().is_none_or(|(at, _)| now.duration_since(*at) > STALE)
    }

    /// Takes a reading in; `None` where there is none before it that it could be compared with.
    pub(super) fn add(&mut self, now: Instant, reading: NodeUsage) -> Option<NodeRates> {
        self.readings.retain(|(at, older)| {
            let passed = now.duration_since(*at);
            passed <= STALE && !stepped(older, &reading, passed)
        });
        let age = |of: &(Instant, NodeUsage)| now.duration_since(of.0);
        // What is too far back goes once something nearer can take its place.
        while self.readings.front().is_some_and(|of| age(of) > self.span)
            && self.readings.get(1).is_some_and(|of| age(of) >= WINDOW)
        {
            self.readings.pop_front();
        }
        let made = self.readings.front().map(|(_, older)| rates(older, &reading));
        if self.readings.back().is_none_or(|of| age(of) >= self.span / KEPT) {
            self.readings.push_back((now, reading));
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
        let mut history = History::over(RESOLUTION);
        let mut window = |at_ms: u64| {
            let machine = MachineUsage { at: at_ms as i64, ..MachineUsage::default() };
            let reading = NodeUsage { machine: Some(machine), ..NodeUsage::default() };
            let made = history.add(start + Duration::from_millis(at_ms), reading)?;
            made.machine.map(|rate| rate.window)
        };
        assert_eq!(window(0), None, "nothing to compare with");
        assert_eq!(window(400), Some(400), "the first answer");
        assert_eq!(window(1_000), Some(1_000));
        assert_eq!(window(1_900), Some(1_900), "the oldest there is");
        let each_second: Vec<_> = (3..=40).filter_map(|s| window(s * 1_000)).collect();
        assert!(each_second[10..].iter().all(|w| (12_000..=15_000).contains(w)), "{each_second:?}");
        assert_eq!(window(55_000), Some(16_000), "asked four times a minute");
        assert_eq!(window(155_000), Some(100_000), "asked now and then");
        assert_eq!(window(300_000), None, "nobody had looked for long");
    }

    #[test]
    fn a_short_time_is_asked_for_by_who_must_react_soon() {
        let (start, mut history) = (Instant::now(), History::over(Duration::from_secs(2)));
        let windows: Vec<_> = (0..60)
            .filter_map(|second| {
                let machine = MachineUsage { at: second * 1_000, ..MachineUsage::default() };
                let reading = NodeUsage { machine: Some(machine), ..NodeUsage::default() };
                history.add(start + Duration::from_secs(second.unsigned_abs()), reading)?.machine.map(|m| m.window)
            })
            .collect();
        assert!(windows[2..].iter().all(|window| *window == 2_000), "{windows:?}");
        assert!(history.readings.len() <= 1 + KEPT as usize, "{}", history.readings.len());
    }

    #[test]
    fn over_a_step_of_the_clock_there_is_no_rate() {
        for step in [-3_600_000, -3_000, 3_000, 3_600_000] {
            let (start, mut history) = (Instant::now(), History::over(RESOLUTION));
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
