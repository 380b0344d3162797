//! Whose turn it is: each trigger has a lane with room for so many calls at once, and lanes take turns. A trigger whose
//! target is slow therefore waits for itself alone. Pure.

use std::collections::{HashMap, VecDeque};

#[derive(Clone, Copy, PartialEq)]
enum Member {
    Waiting,
    Running,
    /// It is under way, and somebody asked for it since that began.
    Again,
}

#[derive(Default)]
struct Lane {
    waiting: VecDeque<String>,
    /// What waits or is under way.
    members: HashMap<String, Member>,
    running: usize,
    room: usize,
    /// It stands in `turns`.
    in_turn: bool,
}

impl Lane {
    fn may_go(&self) -> bool {
        !self.waiting.is_empty() && self.running < self.room
    }

    fn wait(&mut self, delivery: &str) {
        self.members.insert(delivery.to_owned(), Member::Waiting);
        self.waiting.push_back(delivery.to_owned());
    }
}

/// Lanes by name, of deliveries by name. As many names as there are deliveries to make.
pub(super) struct Lanes {
    lanes: HashMap<String, Lane>,
    /// Lanes in which something may go.
    turns: VecDeque<String>,
    running: usize,
    at_once: usize,
}

impl Lanes {
    /// Lanes in which so many may be under way at once, all together.
    pub(super) fn new(at_once: usize) -> Self {
        Self { lanes: HashMap::new(), turns: VecDeque::new(), running: 0, at_once: at_once.max(1) }
    }

    /// Lets a delivery wait in its lane, which has room for so many at once. One that waits is there once; one that is
    /// under way comes again when it is done: whoever asks may have seen what that one has not.
    pub(super) fn add(&mut self, name: &str, room: usize, delivery: &str) {
        let lane = self.lanes.entry(name.to_owned()).or_default();
        lane.room = room.max(1);
        if let Some(member) = lane.members.get_mut(delivery) {
            if *member == Member::Running {
                *member = Member::Again;
            }
        } else {
            lane.wait(delivery);
        }
        self.turn(name);
    }

    /// The next delivery to make, and its lane.
    pub(super) fn next(&mut self) -> Option<(String, String)> {
        while self.running < self.at_once {
            let name = self.turns.pop_front()?;
            let Some(lane) = self.lanes.get_mut(&name) else { continue };
            lane.in_turn = false;
            if !lane.may_go() {
                continue;
            }
            let Some(delivery) = lane.waiting.pop_front() else { continue };
            lane.members.insert(delivery.clone(), Member::Running);
            lane.running += 1;
            self.running += 1;
            self.turn(&name);
            return Some((name, delivery));
        }
        None
    }

    /// A delivery is not under way any more.
    pub(super) fn done(&mut self, name: &str, delivery: &str) {
        let Some(lane) = self.lanes.get_mut(name) else { return };
        if lane.members.remove(delivery) == Some(Member::Again) {
            lane.wait(delivery);
        }
        lane.running = lane.running.saturating_sub(1);
        self.running = self.running.saturating_sub(1);
        if lane.members.is_empty() && !lane.in_turn {
            self.lanes.remove(name);
        } else {
            self.turn(name);
        }
    }

    fn turn(&mut self, name: &str) {
        let Some(lane) = self.lanes.get_mut(name).filter(|lane| lane.may_go() && !lane.in_turn) else { return };
        lane.in_turn = true;
        self.turns.push_back(name.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(lanes: &mut Lanes) -> Vec<String> {
        std::iter::from_fn(|| lanes.next()).map(|(_, delivery)| delivery).collect()
    }

    #[test]
    fn lanes_take_turns_and_none_has_more_than_its_room() {
        let mut lanes = Lanes::new(100);
        for delivery in ["a1", "a2", "a3", "a1"] {
            lanes.add("a", 2, delivery);
        }
        for delivery in ["b1", "b2", "b3"] {
            lanes.add("b", 3, delivery);
        }
        assert_eq!(drain(&mut lanes), ["a1", "b1", "a2", "b2", "b3"]);
        lanes.done("a", "a1");
        assert_eq!(drain(&mut lanes), ["a3"]);
        lanes.done("a", "a2");
        lanes.add("a", 2, "a2");
        assert_eq!(drain(&mut lanes), ["a2"], "it may come again");
    }

    #[test]
    fn what_is_asked_for_while_it_is_under_way_comes_again_once() {
        let mut lanes = Lanes::new(100);
        lanes.add("a", 2, "a1");
        assert_eq!(drain(&mut lanes), ["a1"]);
        lanes.add("a", 2, "a1");
        lanes.add("a", 2, "a1");
        assert!(drain(&mut lanes).is_empty(), "never twice at once");
        lanes.done("a", "a1");
        assert_eq!(drain(&mut lanes), ["a1"]);
        lanes.done("a", "a1");
        assert!(drain(&mut lanes).is_empty());
        assert!(lanes.lanes.is_empty() && lanes.running == 0);
    }

    #[test]
    fn all_together_have_a_limit_and_nothing_is_forgotten() {
        let mut lanes = Lanes::new(2);
        for lane in ["a", "b", "c"] {
            for n in 0..3 {
                lanes.add(lane, 3, &format!("{lane}{n}"));
            }
        }
        let mut all = Vec::new();
        while let Some((lane, delivery)) = lanes.next() {
            if lanes.running == 2 {
                assert!(lanes.next().is_none());
            }
            lanes.done(&lane, &delivery);
            all.push(delivery);
        }
        assert_eq!(all, ["a0", "b0", "c0", "a1", "b1", "c1", "a2", "b2", "c2"]);
        assert!(lanes.lanes.is_empty() && lanes.turns.is_empty() && lanes.running == 0);
    }
}
