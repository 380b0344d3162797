//! The ordered map with its history: every key's recent versions, and every recent commit's events.

use super::limits::Limits;
use super::slot::{Slot, Version};
use crate::api::Revision;
use crate::store::{Entry, Event, Key, RangePage, RangeRequest, StoreError, WatchBatch};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

/// One commit in history.
#[derive(Debug)]
struct Record {
    batch: WatchBatch,
    /// Bytes of the values that this commit replaced or removed: kept only for history's sake.
    superseded: usize,
}

/// A change that was checked and has its revision; applying it cannot fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::store) enum Change {
    /// The entry is written.
    Put(Entry),
    /// The entry, as it last was, goes.
    Delete(Entry),
}

/// Keys, their versions and the history of commits.
#[derive(Debug, Default)]
pub(in crate::store) struct State {
    keys: BTreeMap<Key, Slot>,
    history: VecDeque<Record>,
    events: usize,
    superseded: usize,
    revision: Revision,
    compacted: Revision,
    /// A snapshot is being read at this revision: versions that it needs stay, whoever compacts.
    pub(in crate::store) pinned: Option<Revision>,
}

impl State {
    /// An empty state. The first revision is 1, because clients of Kubernetes read "0" as "any".
    pub(in crate::store) fn new() -> Self {
        Self { revision: 1, ..Self::default() }
    }

    pub(in crate::store) fn revision(&self) -> Revision {
        self.revision
    }

    pub(in crate::store) fn get(&self, key: &str) -> Option<Entry> {
        let (key, slot) = self.keys.get_key_value(key)?;
        entry(key, slot.live_at(self.revision)?)
    }

    /// Puts an entry of a snapshot in place; `finish_load` ends the loading.
    pub(in crate::store) fn load(&mut self, entry: Entry) {
        let version = Version { revision: entry.revision, created: entry.created, value: Some(entry.value) };
        self.keys.insert(entry.key, Slot::One(version));
    }

    /// Says which revision the loaded entries stand for; nothing before it can be read.
    pub(in crate::store) fn finish_load(&mut self, revision: Revision) {
        self.revision = revision;
        self.compacted = revision;
    }

    pub(in crate::store) fn range(&self, request: &RangeRequest) -> Result<RangePage, StoreError> {
        let at = request.at.unwrap_or(self.revision);
        self.check_readable(at)?;
        let mut live = self.live(&request.prefix, request.after.as_deref(), at);
        let limit = if request.limit == 0 { usize::MAX } else { request.limit };
        let entries: Vec<Entry> = live.by_ref().take(limit).filter_map(|(key, v)| entry(key, v)).collect();
        Ok(RangePage { entries, revision: at, remaining: live.count() })
    }

    fn live<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
        at: Revision,
    ) -> impl Iterator<Item = (&'a Key, &'a Version)> + 'a {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        self.keys
            .range::<str, _>((start, Bound::Unbounded))
            .take_while(move |(key, _)| key.starts_with(prefix))
            .filter_map(move |(key, slot)| Some((key, slot.live_at(at)?)))
    }

    /// Up to `count` entries as they were at a pinned revision, also where that is compacted for others.
    pub(in crate::store) fn step(&self, at: Revision, after: Option<&str>, count: usize) -> Vec<Entry> {
        self.live("", after, at).take(count).filter_map(|(key, v)| entry(key, v)).collect()
    }

    /// The present entries of a prefix as one batch of puts.
    pub(in crate::store) fn initial(&self, prefix: &str) -> WatchBatch {
        let live = self.live(prefix, None, self.revision);
        let events = live.filter_map(|(key, v)| entry(key, v)).map(Event::Put).collect();
        WatchBatch { events, revision: self.revision }
    }

    /// Every commit after `start` that touches the prefix.
    pub(in crate::store) fn since(&self, prefix: &str, start: Revision) -> Result<VecDeque<WatchBatch>, StoreError> {
        self.check_readable(start)?;
        let first = self.history.partition_point(|r| r.batch.revision <= start);
        Ok(self.history.range(first..).filter_map(|r| narrow(&r.batch, prefix)).collect())
    }

    fn check_readable(&self, at: Revision) -> Result<(), StoreError> {
        if at < self.compacted {
            return Err(StoreError::Compacted { requested: at, oldest: self.compacted });
        }
        if at > self.revision {
            return Err(StoreError::Future { requested: at, newest: self.revision });
        }
        Ok(())
    }

    /// Applies a commit's changes under its revision and returns what watchers see of it.
    pub(in crate::store) fn apply(&mut self, revision: Revision, changes: Vec<Change>) -> WatchBatch {
        let mut superseded = 0;
        let events: Arc<[Event]> = changes
            .into_iter()
            .map(|change| {
                superseded += self.set(&change);
                match change {
                    Change::Put(entry) => Event::Put(entry),
                    Change::Delete(entry) => Event::Delete(entry),
                }
            })
            .collect();
        let batch = WatchBatch { events, revision };
        self.revision = revision;
        self.events += batch.events.len();
        self.superseded += superseded;
        self.history.push_back(Record { batch: batch.clone(), superseded });
        batch
    }

    /// Adds the version that a change makes; returns the size of the value it supersedes.
    fn set(&mut self, change: &Change) -> usize {
        let (Change::Put(entry) | Change::Delete(entry)) = change;
        let value = matches!(change, Change::Put(_)).then(|| entry.value.clone());
        let version = Version { revision: entry.revision, created: entry.created, value };
        let Some(slot) = self.keys.get_mut(&entry.key) else {
            self.keys.insert(entry.key.clone(), Slot::One(version));
            return 0;
        };
        let replaced = slot.versions().last().and_then(|v| v.value.as_ref()).map_or(0, Bytes::len);
        slot.push(version);
        replaced
    }

    /// Forgets history up to `floor`: reads at `floor` still work, reads before it do not.
    pub(in crate::store) fn compact(&mut self, floor: Revision) -> Result<(), StoreError> {
        if floor > self.revision {
            return Err(StoreError::Future { requested: floor, newest: self.revision });
        }
        self.compacted = self.compacted.max(floor);
        self.forget_while(|state, oldest| oldest <= state.compacted);
        Ok(())
    }

    /// Forgets the oldest commits until history is within its limits; the newest commit always stays.
    pub(in crate::store) fn trim(&mut self, limits: &Limits) {
        self.forget_while(|state, oldest| {
            let too_much = state.events > limits.history_events || state.superseded > limits.history_bytes;
            oldest <= state.compacted || (too_much && oldest < state.revision)
        });
    }

    fn forget_while(&mut self, may_go: impl Fn(&Self, Revision) -> bool) {
        while let Some(oldest) = self.history.front().map(|r| r.batch.revision) {
            if !may_go(self, oldest) || self.pinned.is_some_and(|pinned| oldest > pinned) {
                break;
            }
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some(record) = self.history.pop_front() else { return };
        self.events -= record.batch.events.len();
        self.superseded -= record.superseded;
        self.compacted = self.compacted.max(record.batch.revision);
        for event in record.batch.events.iter() {
            let key = &event.entry().key;
            if self.keys.get_mut(key).is_some_and(|slot| !slot.prune(record.batch.revision)) {
                self.keys.remove(key);
            }
        }
    }
}

fn entry(key: &Key, version: &Version) -> Option<Entry> {
    let value = version.value.clone()?;
    Some(Entry { key: key.clone(), value, created: version.created, revision: version.revision })
}

/// What a watcher of `prefix` sees of a commit: the shared batch itself where all of it matches.
pub(in crate::store) fn narrow(batch: &WatchBatch, prefix: &str) -> Option<WatchBatch> {
    let matching = batch.events.iter().filter(|e| e.entry().key.starts_with(prefix)).count();
    if matching == 0 {
        return None;
    }
    if matching == batch.events.len() {
        return Some(batch.clone());
    }
    let events = batch.events.iter().filter(|e| e.entry().key.starts_with(prefix)).cloned().collect();
    Some(WatchBatch { events, revision: batch.revision })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::engine::plan::{Overlay, View, plan};
    use crate::store::{Commit, Op, Precondition};

    fn put(key: &str, size: usize) -> Op {
        Op::Put { key: key.into(), value: vec![b'x'; size].into(), ttl: None }
    }

    fn apply(state: &mut State, ops: Vec<Op>) {
        let plan = plan(state, &Commit { when: vec![], ops }).unwrap().unwrap();
        state.apply(plan.revision, plan.changes);
    }

    fn limits(history_events: usize, history_bytes: usize) -> Limits {
        Limits { history_events, history_bytes, ..Limits::default() }
    }

    #[test]
    fn history_is_trimmed_by_events_and_by_superseded_bytes() {
        for limits in [limits(10, usize::MAX), limits(usize::MAX, 1000)] {
            let mut state = State::new();
            for _ in 0..100 {
                apply(&mut state, vec![put("/a", 100)]);
                state.trim(&limits);
            }
            assert_eq!((state.revision, state.history.len(), state.compacted), (101, 10, 91));
            assert_eq!(state.keys["/a"].versions().len(), 11);
            assert!(state.since("/", 90).is_err());
            assert_eq!(state.since("/", 91).unwrap().len(), 10);
        }
    }

    #[test]
    fn new_keys_cost_no_superseded_bytes() {
        let mut state = State::new();
        for i in 0..100 {
            apply(&mut state, vec![put(&format!("/{i}"), 100)]);
            state.trim(&limits(usize::MAX, 1000));
        }
        assert_eq!((state.superseded, state.history.len()), (0, 100));
    }

    #[test]
    fn deleted_keys_leave_nothing_behind_once_forgotten() {
        let mut state = State::new();
        apply(&mut state, vec![put("/a", 1), put("/b", 1)]);
        apply(&mut state, vec![Op::Delete { key: "/a".into() }]);
        apply(&mut state, vec![put("/b", 2)]);
        assert_eq!(state.keys.len(), 2);
        state.compact(4).unwrap();
        assert_eq!(state.keys.len(), 1);
        assert!(matches!(state.keys["/b"], Slot::One(_)));
        assert_eq!((state.events, state.superseded, state.history.len()), (0, 0, 0));
    }

    #[test]
    fn a_pinned_revision_survives_compaction_until_it_is_let_go() {
        let mut state = State::new();
        apply(&mut state, vec![put("/a", 1)]);
        state.pinned = Some(2);
        apply(&mut state, vec![put("/a", 2)]);
        apply(&mut state, vec![Op::Delete { key: "/a".into() }]);
        state.compact(4).unwrap();
        assert!(matches!(state.since("/", 2), Err(StoreError::Compacted { oldest: 4, .. })));
        let pinned = state.step(2, None, 10);
        assert_eq!(pinned.iter().map(|e| e.value.len()).collect::<Vec<_>>(), [1]);
        state.pinned = None;
        state.trim(&Limits::default());
        assert!(state.keys.is_empty() && state.history.is_empty());
    }

    #[test]
    fn a_commit_is_checked_against_those_decided_before_it() {
        let state = State::new();
        let mut ahead = Overlay::new(&state);
        let create = Commit { when: vec![Precondition::Absent("/a".into())], ops: vec![put("/a", 1)] };
        let first = plan(&ahead, &create).unwrap().unwrap();
        ahead.add(&first);
        assert_eq!((first.revision, ahead.revision(), state.revision()), (2, 2, 1));
        let error = plan(&ahead, &create).unwrap_err();
        assert!(matches!(error, StoreError::Conflict { current: Some(e), .. } if e.revision == 2));
        let delete =
            Commit { when: vec![Precondition::At("/a".into(), 2)], ops: vec![Op::Delete { key: "/a".into() }] };
        ahead.add(&plan(&ahead, &delete).unwrap().unwrap());
        assert_eq!(plan(&ahead, &create).unwrap().unwrap().revision, 4);
        assert!(plan(&ahead, &delete).is_err());
    }
}
