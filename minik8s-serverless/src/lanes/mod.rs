//! Whose turn it is, where many share what can be done at once: each lane has room for so many, lanes take turns, and none
//! takes more than half of what the others leave. Who is slow therefore waits for itself alone.
//!
//! [`Lanes`] is pure; [`Crew`] does work by key in lanes, [`Turns`] lets callers wait for theirs.

mod crew;
mod turns;

pub(crate) use crew::{Crew, Errand};
pub(crate) use turns::Turns;

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
    /// In order; those that left before their turn are among them for a while.
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

    fn wait(&mut self, key: &str) {
        self.members.insert(key.to_owned(), Member::Waiting);
        self.waiting.push_back(key.to_owned());
    }

    /// The first that waits is under way.
    fn begin(&mut self) -> Option<String> {
        while self.running < self.room {
            let key = self.waiting.pop_front()?;
            if let Some(member) = self.members.get_mut(&key).filter(|member| **member == Member::Waiting) {
                *member = Member::Running;
                self.running += 1;
                return Some(key);
            }
        }
        None
    }

    /// Those that left are not kept for long.
    fn tidy(&mut self) {
        if self.waiting.len() > 2 * self.members.len() + 16 {
            let members = &self.members;
            self.waiting.retain(|key| members.get(key) == Some(&Member::Waiting));
        }
    }
}

/// Lanes by name, of what is to be done by key. As many keys as somebody asked for and did not take back.
pub(crate) struct Lanes {
    lanes: HashMap<String, Lane>,
    /// Lanes in which something waits and has room.
    turns: VecDeque<String>,
    running: usize,
    at_once: usize,
}

impl Lanes {
    /// Lanes in which so many may be under way at once, all together.
    pub(crate) fn new(at_once: usize) -> Self {
        Self { lanes: HashMap::new(), turns: VecDeque::new(), running: 0, at_once: at_once.max(1) }
    }

    /// Lets a key wait in its lane, which has room for so many at once. One that waits is there once; one that is under
    /// way comes again when it is done: whoever asks may have seen what that one has not.
    pub(crate) fn add(&mut self, name: &str, room: usize, key: &str) {
        let lane = self.lanes.entry(name.to_owned()).or_default();
        lane.room = room.max(1);
        if let Some(member) = lane.members.get_mut(key) {
            if *member == Member::Running {
                *member = Member::Again;
            }
        } else {
            lane.wait(key);
        }
        self.turn(name);
    }

    /// The next key to begin, and its lane.
    pub(crate) fn next(&mut self) -> Option<(String, String)> {
        // Each lane is looked at once: one that has its share keeps its place for when there is more.
        for _ in 0..self.turns.len() {
            let free = self.at_once.saturating_sub(self.running);
            if free == 0 {
                return None;
            }
            let name = self.turns.pop_front()?;
            let Some(lane) = self.lanes.get_mut(&name) else { continue };
            lane.in_turn = false;
            let begun = if lane.running < free { lane.begin() } else { None };
            if lane.members.is_empty() {
                self.lanes.remove(&name);
            } else {
                self.turn(&name);
            }
            if let Some(key) = begun {
                self.running += 1;
                return Some((name, key));
            }
        }
        None
    }

    /// A key is not under way any more.
    pub(crate) fn done(&mut self, name: &str, key: &str) {
        let Some(lane) = self.lanes.get_mut(name) else { return };
        if lane.members.remove(key) == Some(Member::Again) {
            lane.wait(key);
        }
        lane.running = lane.running.saturating_sub(1);
        self.running = self.running.saturating_sub(1);
        self.settle(name);
    }

    /// A key is not wanted any more, whether it waits or is under way.
    pub(crate) fn leave(&mut self, name: &str, key: &str) {
        let Some(lane) = self.lanes.get_mut(name) else { return };
        match lane.members.get(key) {
            Some(Member::Waiting) => {
                lane.members.remove(key);
                lane.tidy();
                self.settle(name);
            }
            Some(_) => self.done(name, key),
            None => {}
        }
    }

    fn settle(&mut self, name: &str) {
        if self.lanes.get(name).is_some_and(|lane| lane.members.is_empty() && !lane.in_turn) {
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
        std::iter::from_fn(|| lanes.next()).map(|(_, key)| key).collect()
    }

    #[test]
    fn lanes_take_turns_and_none_has_more_than_its_room() {
        let mut lanes = Lanes::new(100);
        for key in ["a1", "a2", "a3", "a1"] {
            lanes.add("a", 2, key);
        }
        for key in ["b1", "b2", "b3"] {
            lanes.add("b", 3, key);
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
        while let Some(first) = lanes.next() {
            let second = lanes.next();
            assert!(second.is_none() || lanes.next().is_none());
            for (lane, key) in [Some(first), second].into_iter().flatten() {
                lanes.done(&lane, &key);
                all.push(key);
            }
        }
        assert_eq!(all, ["a0", "b0", "c0", "a1", "b1", "c1", "a2", "b2", "c2"]);
        assert!(lanes.lanes.is_empty() && lanes.turns.is_empty() && lanes.running == 0);
    }

    #[test]
    fn nobody_takes_more_than_half_of_what_others_leave() {
        let mut lanes = Lanes::new(16);
        let add = |lanes: &mut Lanes, lane: &str| (0..20).for_each(|n| lanes.add(lane, 100, &format!("{lane}{n}")));
        let mut taken = Vec::new();
        for lane in ["a", "b", "c", "d"] {
            add(&mut lanes, lane);
            taken.push(drain(&mut lanes).len());
        }
        assert_eq!(taken, [8, 4, 2, 1]);
        add(&mut lanes, "e");
        assert_eq!(drain(&mut lanes), ["e0"], "there is one for who comes last");
        assert!(drain(&mut lanes).is_empty(), "all are taken");
        // What is given back goes to who has least.
        lanes.done("a", "a0");
        assert_eq!(drain(&mut lanes).len(), 0, "each that could go has as many as are left");
        lanes.add("f", 100, "f0");
        assert_eq!(drain(&mut lanes), ["f0"]);
        for n in 0..4 {
            lanes.done("b", &format!("b{n}"));
        }
        assert!(!drain(&mut lanes).is_empty());
    }

    #[test]
    fn who_leaves_is_passed_over_and_not_kept() {
        let mut lanes = Lanes::new(2);
        for n in 0..1000 {
            lanes.add("a", 1, &n.to_string());
        }
        assert_eq!(drain(&mut lanes), ["0"]);
        (1..999).rev().for_each(|n| lanes.leave("a", &n.to_string()));
        assert!(lanes.lanes["a"].waiting.len() < 100);
        lanes.leave("a", "0");
        assert_eq!(drain(&mut lanes), ["999"]);
        lanes.leave("a", "none");
        lanes.leave("a", "999");
        lanes.add("a", 1, "1");
        lanes.leave("a", "1");
        assert!(drain(&mut lanes).is_empty());
        assert!(lanes.lanes.is_empty() && lanes.turns.is_empty() && lanes.running == 0);
    }
}
