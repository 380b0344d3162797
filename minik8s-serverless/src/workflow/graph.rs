//! What can be said of a program without running it: which steps nobody reaches, and which never come to an end.

use super::program::Program;
use std::collections::{BTreeMap, BTreeSet};

/// Steps that no way from the start leads to, in the order they were written.
pub(super) fn unreachable(program: &Program) -> Vec<&str> {
    let mut seen = BTreeSet::new();
    let mut ahead = vec![program.start.as_str()];
    while let Some(name) = ahead.pop() {
        if let Some(step) = program.steps.get(name).filter(|_| seen.insert(name)) {
            ahead.extend(step.successors());
        }
    }
    program.order.iter().map(String::as_str).filter(|name| !seen.contains(name)).collect()
}

/// Steps from which no way leads to an end, in the order they were written.
pub(super) fn endless(program: &Program) -> Vec<&str> {
    let mut before: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for step in program.steps.values() {
        step.successors().into_iter().for_each(|next| before.entry(next).or_default().push(&step.name));
    }
    let mut ends: BTreeSet<&str> = BTreeSet::new();
    let mut back: Vec<&str> = program.steps.values().filter(|s| s.may_end()).map(|s| s.name.as_str()).collect();
    while let Some(name) = back.pop() {
        if ends.insert(name) {
            back.extend(before.get(name).into_iter().flatten());
        }
    }
    program.order.iter().map(String::as_str).filter(|name| !ends.contains(name)).collect()
}
