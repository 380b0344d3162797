//! Decides what a commit changes, without changing it: pure, so that one commit can be checked against others that are
//! not applied yet.

use super::state::{Change, State};
use crate::api::Revision;
use crate::store::{Commit, Entry, Key, Op, Precondition, StoreError};
use std::collections::{HashMap, HashSet};
use std::time::Duration;

/// The newest state that a commit is checked against.
pub(in crate::store) trait View {
    fn revision(&self) -> Revision;
    fn current(&self, key: &str) -> Option<Entry>;
}

impl View for State {
    fn revision(&self) -> Revision {
        State::revision(self)
    }

    fn current(&self, key: &str) -> Option<Entry> {
        self.get(key)
    }
}

/// A checked commit with its revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::store) struct Plan {
    pub(in crate::store) revision: Revision,
    pub(in crate::store) changes: Vec<Change>,
    /// Keys that vanish again, and after how long.
    pub(in crate::store) lifetimes: Vec<(Key, Duration)>,
}

/// Most bytes of keys and values in one commit.
const MAX_COMMIT: usize = 64 << 20;

/// Refuses what is wrong whatever the state.
pub(in crate::store) fn validate(commit: &Commit, max_value: usize) -> Result<(), StoreError> {
    let (mut seen, mut total) = (HashSet::new(), 0);
    for op in &commit.ops {
        let (Op::Put { key, .. } | Op::Delete { key }) = op;
        if key.is_empty() {
            return Err(StoreError::Invalid("a key must not be empty".to_owned()));
        }
        if commit.ops.len() > 1 && !seen.insert(key) {
            return Err(StoreError::Invalid(format!("key {key} occurs twice in one commit")));
        }
        let size = if let Op::Put { value, .. } = op { value.len() } else { 0 };
        if size > max_value {
            return Err(StoreError::TooLarge { key: key.clone(), size, limit: max_value });
        }
        total += key.len() + size;
    }
    if total > MAX_COMMIT {
        return Err(StoreError::Invalid(format!("a commit of {total} bytes is larger than {MAX_COMMIT}: split it")));
    }
    Ok(())
}

/// Refuses prefixes that would match half a name.
pub(in crate::store) fn validate_prefix(prefix: &str) -> Result<(), StoreError> {
    if prefix.is_empty() || prefix.ends_with('/') {
        return Ok(());
    }
    Err(StoreError::Invalid(format!("prefix {prefix} must end in a slash")))
}

/// The changes of a commit under the next revision, and `None` where it changes nothing.
pub(in crate::store) fn plan(view: &impl View, commit: &Commit) -> Result<Option<Plan>, StoreError> {
    for precondition in &commit.when {
        check(view, precondition)?;
    }
    let revision = view.revision() + 1;
    let changes: Vec<Change> = commit.ops.iter().filter_map(|op| change(view, op, revision)).collect();
    if changes.is_empty() {
        return Ok(None);
    }
    let lifetimes = commit.ops.iter().filter_map(lifetime).collect();
    Ok(Some(Plan { revision, changes, lifetimes }))
}

fn check(view: &impl View, precondition: &Precondition) -> Result<(), StoreError> {
    let (Precondition::Absent(key) | Precondition::At(key, _)) = precondition;
    let current = view.current(key);
    let holds = match precondition {
        Precondition::Absent(_) => current.is_none(),
        Precondition::At(_, revision) => current.as_ref().is_some_and(|e| e.revision == *revision),
    };
    if holds { Ok(()) } else { Err(StoreError::Conflict { key: key.clone(), current }) }
}

fn change(view: &impl View, op: &Op, revision: Revision) -> Option<Change> {
    match op {
        Op::Put { key, value, .. } => {
            let created = view.current(key).map_or(revision, |e| e.created);
            Some(Change::Put(Entry { key: key.clone(), value: value.clone(), created, revision }))
        }
        Op::Delete { key } => Some(Change::Delete(Entry { revision, ..view.current(key)? })),
    }
}

fn lifetime(op: &Op) -> Option<(Key, Duration)> {
    match op {
        Op::Put { key, ttl: Some(ttl), .. } => Some((key.clone(), *ttl)),
        _ => None,
    }
}

/// Plans that are decided but not applied, on top of the state.
pub(in crate::store) struct Overlay<'a, V> {
    base: &'a V,
    revision: Revision,
    keys: HashMap<Key, Option<Entry>>,
}

impl<'a, V: View> Overlay<'a, V> {
    pub(in crate::store) fn new(base: &'a V) -> Self {
        Self { base, revision: base.revision(), keys: HashMap::new() }
    }

    pub(in crate::store) fn add(&mut self, plan: &Plan) {
        self.revision = plan.revision;
        for change in &plan.changes {
            match change {
                Change::Put(entry) => self.keys.insert(entry.key.clone(), Some(entry.clone())),
                Change::Delete(entry) => self.keys.insert(entry.key.clone(), None),
            };
        }
    }
}

impl<V: View> View for Overlay<'_, V> {
    fn revision(&self) -> Revision {
        self.revision
    }

    fn current(&self, key: &str) -> Option<Entry> {
        self.keys.get(key).cloned().unwrap_or_else(|| self.base.current(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn commits_are_bounded_as_a_whole() {
        let value = Bytes::from(vec![0; 1 << 20]);
        let put = |n: u32| Op::Put { key: n.to_string().into(), value: value.clone(), ttl: None };
        let commit = |count: u32| Commit { when: vec![], ops: (0..count).map(put).collect() };
        assert!(validate(&commit(63), 1 << 20).is_ok());
        assert!(matches!(validate(&commit(64), 1 << 20), Err(StoreError::Invalid(_))));
        assert!(matches!(validate(&commit(1), (1 << 20) - 1), Err(StoreError::TooLarge { .. })));
    }

    #[test]
    fn prefixes_are_empty_or_end_in_a_slash() {
        assert!(["", "/", "/a/"].iter().all(|prefix| validate_prefix(prefix).is_ok()));
        assert!(["/a", "a", "/a/b"].iter().all(|prefix| validate_prefix(prefix).is_err()));
    }
}
