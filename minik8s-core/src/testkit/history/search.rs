//! The search for an order: Wing and Gong's, which takes any call that may come next and goes back where that leads
//! nowhere, with Lowe's memory of the calls taken and the state reached, so that no situation is tried twice.
//!
//! A call without an answer could stand almost anywhere, which alone would make the search endless. It is placed only
//! right before a call that goes otherwise because of it: any order in which it stands elsewhere can do without it. And
//! as revisions only grow, no call is placed while one that was answered with a lower revision is not.

use super::register::State;
use super::{Call, Outcome, Violation};
use crate::api::Revision;
use std::collections::{BTreeSet, HashSet};

/// No call, no entry.
const NONE: usize = usize::MAX;
/// Situations after which the search gives up: a history that needs more has too many calls without an answer.
const LIMIT: usize = 2_000_000;
/// How many calls a violation shows.
const SHOWN: usize = 16;

/// Begins and ends of the calls that are not yet placed, in the order of time, as a list that calls leave and return to.
struct Timeline {
    /// The call of each entry, and whether the entry is its end.
    entries: Vec<(usize, bool)>,
    next: Vec<usize>,
    previous: Vec<usize>,
    /// The entries of each call; without an answer there is no end.
    of: Vec<(usize, usize)>,
    first: usize,
    /// The revisions that the calls which are not yet placed were answered with.
    revisions: BTreeSet<(Revision, usize)>,
    answered: Vec<Option<Revision>>,
}

impl Timeline {
    fn new(calls: &[&Call]) -> Self {
        let mut points: Vec<(u64, usize, bool)> = Vec::new();
        for (i, call) in calls.iter().enumerate() {
            points.push((call.began, i, false));
            if let Some(end) = call.ended.filter(|_| call.outcome != Outcome::Unknown) {
                points.push((end, i, true));
            }
        }
        points.sort_unstable();
        let mut of = vec![(NONE, NONE); calls.len()];
        for (at, (_, call, end)) in points.iter().enumerate() {
            if *end { of[*call].1 = at } else { of[*call].0 = at }
        }
        let count = points.len();
        let next = (1..=count).map(|i| if i == count { NONE } else { i }).collect();
        let previous = (0..count).map(|i| i.checked_sub(1).unwrap_or(NONE)).collect();
        let entries = points.into_iter().map(|(_, call, end)| (call, end)).collect();
        let answered: Vec<_> = calls.iter().map(|call| revision(call)).collect();
        let revisions = answered.iter().enumerate().filter_map(|(i, revision)| Some(((*revision)?, i))).collect();
        Self { entries, next, previous, of, first: if count == 0 { NONE } else { 0 }, revisions, answered }
    }

    fn unlink(&mut self, at: usize) {
        let (before, after) = (self.previous[at], self.next[at]);
        if before == NONE {
            self.first = after
        } else {
            self.next[before] = after
        }
        if after != NONE {
            self.previous[after] = before;
        }
    }

    fn relink(&mut self, at: usize) {
        let (before, after) = (self.previous[at], self.next[at]);
        if before == NONE {
            self.first = at
        } else {
            self.next[before] = at
        }
        if after != NONE {
            self.previous[after] = at;
        }
    }

    /// Whether some call could never be placed once this one is and the object has come to that revision.
    fn strands(&self, call: usize, floor: Revision) -> bool {
        let lowest = self.revisions.iter().find(|(_, other)| *other != call);
        lowest.is_some_and(|(revision, _)| *revision < floor)
    }

    fn take(&mut self, call: usize) {
        if let Some(revision) = self.answered[call] {
            self.revisions.remove(&(revision, call));
        }
        let (begin, end) = self.of[call];
        self.unlink(begin);
        if end != NONE {
            self.unlink(end);
        }
    }

    /// The reverse of [`Self::take`], in reverse.
    fn put_back(&mut self, call: usize) {
        if let Some(revision) = self.answered[call] {
            self.revisions.insert((revision, call));
        }
        let (begin, end) = self.of[call];
        if end != NONE {
            self.relink(end);
        }
        self.relink(begin);
    }
}

fn revision(call: &Call) -> Option<Revision> {
    match &call.outcome {
        Outcome::Is(seen) => Some(seen.revision),
        Outcome::Gone(revision) => Some(*revision),
        _ => None,
    }
}

/// Which calls are placed.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Placed(Box<[u64]>);

impl Placed {
    fn flip(&mut self, call: usize) {
        self.0[call / 64] ^= 1 << (call % 64);
    }
}

/// Whether the call placed last has no answer and makes no difference to this one, which leads to `next`.
fn is_idle(path: &[(usize, State)], calls: &[&Call], call: usize, next: &State) -> bool {
    let Some((last, before)) = path.last() else { return false };
    calls[*last].outcome == Outcome::Unknown && before.after(calls[call]).as_ref() == Some(next)
}

/// Looks for an order of the calls on one object.
pub(super) fn search(object: &str, calls: &[&Call]) -> Result<(), Violation> {
    let mut time = Timeline::new(calls);
    let mut open = calls.iter().filter(|call| call.outcome != Outcome::Unknown).count();
    let mut placed = Placed(vec![0; calls.len().div_ceil(64)].into());
    let (mut state, mut tried, mut path) = (State::default(), HashSet::new(), Vec::<(usize, State)>::new());
    let mut furthest = (0, NONE, State::default());
    let mut at = time.first;
    while open > 0 {
        let (call, is_end) = if at == NONE { (NONE, true) } else { time.entries[at] };
        if !is_end {
            let next = state.after(calls[call]).filter(|next| !time.strands(call, next.floor()));
            if let Some(next) = next.filter(|next| !is_idle(&path, calls, call, next)) {
                placed.flip(call);
                if tried.insert((placed.clone(), next.clone())) {
                    path.push((call, std::mem::replace(&mut state, next)));
                    time.take(call);
                    open -= usize::from(time.of[call].1 != NONE);
                    at = time.first;
                    continue;
                }
                placed.flip(call);
            }
            at = time.next[at];
            continue;
        }
        // A call has ended before any that could still come: what was taken last was wrong.
        if furthest.1 == NONE || path.len() > furthest.0 {
            furthest = (path.len(), call, state.clone());
        }
        if tried.len() > LIMIT {
            return Err(Violation::new(object, format!("undecided after {LIMIT} situations")));
        }
        let Some((last, before)) = path.pop() else { return Err(violation(object, calls, furthest.1, &furthest.2)) };
        state = before;
        placed.flip(last);
        time.put_back(last);
        open += usize::from(time.of[last].1 != NONE);
        at = time.next[time.of[last].0];
    }
    Ok(())
}

fn violation(object: &str, calls: &[&Call], culprit: usize, state: &State) -> Violation {
    let what = calls.get(culprit).map_or_else(|| "the calls".to_owned(), |call| format!("the call {call}"));
    let mut sorted: Vec<&&Call> = calls.iter().collect();
    sorted.sort_by_key(|call| call.began);
    let middle = calls.get(culprit).map_or(0, |call| sorted.partition_point(|other| other.began < call.began));
    let from = middle.saturating_sub(SHOWN / 2);
    let lines: Vec<String> = sorted.iter().skip(from).take(SHOWN).map(|call| format!("  {call}")).collect();
    Violation {
        object: object.to_owned(),
        why: format!("no order of the calls explains {what}; the best order before it leaves {state:?}"),
        around: lines.join("\n"),
    }
}
