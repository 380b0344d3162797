//! Random histories against a model that is too simple to be wrong: one full copy of the map per revision.

use futures::{FutureExt, StreamExt};
use minik8s_core::store::{
    Commit, EmbeddedOptions, EmbeddedStore, Entry, Event, MemoryStore, Op, Precondition, RangeRequest, Store,
    StoreError, WatchStart,
};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;

const KEYS: [&str; 6] = ["/a/1", "/a/2", "/a/2/x", "/ab/1", "/b/1", "/c"];
const PREFIXES: [&str; 5] = ["", "/", "/a/", "/a/2/", "/nothing/"];

#[derive(Clone, Debug)]
enum Step {
    Commit { when: Vec<(usize, Expect)>, ops: Vec<(usize, Option<u8>)> },
    Compact { back: u64 },
    Reopen,
}

#[derive(Clone, Copy, Debug)]
enum Expect {
    Absent,
    Current,
    Stale,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let expect = prop_oneof![Just(Expect::Absent), Just(Expect::Current), Just(Expect::Stale)];
    let when = prop::collection::vec((0..KEYS.len(), expect), 0..2);
    let ops = prop::collection::vec((0..KEYS.len(), prop::option::weighted(0.7, any::<u8>())), 0..4);
    let step = prop_oneof![
        12 => (when, ops).prop_map(|(when, ops)| Step::Commit { when, ops }),
        1 => (0..5_u64).prop_map(|back| Step::Compact { back }),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..40)
}

/// Every revision's map, and every revision's events.
struct Model {
    states: BTreeMap<u64, BTreeMap<String, Entry>>,
    events: Vec<(u64, Vec<Event>)>,
    compacted: u64,
}

impl Model {
    fn new() -> Self {
        Self { states: BTreeMap::from([(1, BTreeMap::new())]), events: Vec::new(), compacted: 0 }
    }

    fn revision(&self) -> u64 {
        *self.states.last_key_value().unwrap().0
    }

    fn now(&self) -> &BTreeMap<String, Entry> {
        self.states.last_key_value().unwrap().1
    }

    fn precondition(&self, key: &str, expect: Expect) -> Precondition {
        let current = self.now().get(key).map_or(7, |e| e.revision);
        match expect {
            Expect::Absent => Precondition::Absent(key.into()),
            Expect::Current => Precondition::At(key.into(), current),
            Expect::Stale => Precondition::At(key.into(), current - 1),
        }
    }

    fn commit(&mut self, commit: &Commit) -> Result<u64, Option<Entry>> {
        for precondition in &commit.when {
            let (key, wanted) = match precondition {
                Precondition::Absent(key) => (key, None),
                Precondition::At(key, revision) => (key, Some(*revision)),
            };
            let current = self.now().get(&**key);
            if current.map(|e| e.revision) != wanted {
                return Err(current.cloned());
            }
        }
        let (mut next, mut events, revision) = (self.now().clone(), Vec::new(), self.revision() + 1);
        for op in &commit.ops {
            match op {
                Op::Put { key, value, .. } => {
                    let created = next.get(&**key).map_or(revision, |e| e.created);
                    let entry = Entry { key: key.clone(), value: value.clone(), created, revision };
                    next.insert(key.to_string(), entry.clone());
                    events.push(Event::Put(entry));
                }
                Op::Delete { key } => {
                    events.extend(next.remove(&**key).map(|entry| Event::Delete(Entry { revision, ..entry })));
                }
            }
        }
        if !events.is_empty() {
            self.states.insert(revision, next);
            self.events.push((revision, events));
        }
        Ok(self.revision())
    }
}

/// The commit that a step stands for; a key's later operations are left out, for keys must be distinct.
fn commit(model: &Model, when: &[(usize, Expect)], ops: &[(usize, Option<u8>)]) -> Commit {
    let mut distinct: Vec<(usize, Option<u8>)> = Vec::new();
    for op in ops {
        if distinct.iter().all(|(key, _)| key != &op.0) {
            distinct.push(*op);
        }
    }
    let op = |(key, value): (usize, Option<u8>)| match value {
        Some(value) => Op::Put { key: KEYS[key].into(), value: vec![value].into(), ttl: None },
        None => Op::Delete { key: KEYS[key].into() },
    };
    let when = when.iter().map(|(key, expect)| model.precondition(KEYS[*key], *expect)).collect();
    Commit { when, ops: distinct.into_iter().map(op).collect() }
}

async fn apply(store: &dyn Store, model: &mut Model, step: &Step) {
    match step {
        Step::Commit { when, ops } => {
            let commit = commit(model, when, ops);
            match (store.commit(commit.clone()).await, model.commit(&commit)) {
                (Ok(revision), Ok(expected)) => assert_eq!(revision, expected),
                (Err(StoreError::Conflict { current, .. }), Err(expected)) => assert_eq!(current, expected),
                (got, expected) => panic!("{commit:?} gave {got:?}, expected {expected:?}"),
            }
        }
        Step::Compact { back } => {
            let floor = model.revision().saturating_sub(*back);
            store.compact(floor).await.unwrap();
            model.compacted = model.compacted.max(floor);
        }
        Step::Reopen => {}
    }
}

/// Everything that can be read must be what the model says, at every revision that is still kept.
async fn compare(store: &dyn Store, model: &Model, may_have_forgotten: bool) {
    assert_eq!(store.revision().await.unwrap(), model.revision());
    for key in KEYS {
        assert_eq!(store.get(key).await.unwrap().as_ref(), model.now().get(key));
    }
    for (at, state) in &model.states {
        for prefix in PREFIXES {
            let request = RangeRequest { prefix: prefix.to_owned(), at: Some(*at), ..RangeRequest::default() };
            match store.range(request).await {
                Ok(page) => {
                    assert!(*at >= model.compacted, "{at} is compacted");
                    let expected = state.values().filter(|e| e.key.starts_with(prefix));
                    assert!(page.entries.iter().eq(expected), "{prefix} at {at}: {:?}", page.entries);
                    assert_eq!(watched(store, prefix, *at).await, events_after(model, prefix, *at));
                }
                Err(StoreError::Compacted { .. }) => {
                    assert!(*at < model.compacted || (may_have_forgotten && *at < model.revision()), "{at} is kept");
                }
                Err(other) => panic!("{other}"),
            }
        }
    }
}

async fn watched(store: &dyn Store, prefix: &str, after: u64) -> Vec<Event> {
    let mut stream = store.watch(prefix, WatchStart::After(after)).await.unwrap();
    let mut seen = Vec::new();
    while let Some(Some(batch)) = stream.next().now_or_never() {
        seen.extend(batch.unwrap().events.iter().cloned());
    }
    seen
}

fn events_after(model: &Model, prefix: &str, after: u64) -> Vec<Event> {
    let later = model.events.iter().filter(|(revision, _)| *revision > after).flat_map(|(_, events)| events);
    later.filter(|e| e.entry().key.starts_with(prefix)).cloned().collect()
}

async fn check_memory(steps: Vec<Step>) {
    let (store, mut model) = (MemoryStore::new(), Model::new());
    for step in &steps {
        apply(&store, &mut model, step).await;
    }
    compare(&store, &model, false).await;
}

async fn check_embedded(steps: Vec<Step>, snapshot_after: u64) {
    let directory = tempfile::tempdir().unwrap();
    let open = |path: &Path| {
        let path = path.to_owned();
        let options = EmbeddedOptions { snapshot_after, ..EmbeddedOptions::default() };
        async move { EmbeddedStore::open_with(path, options).await.unwrap() }
    };
    let (mut store, mut model) = (open(directory.path()).await, Model::new());
    for step in &steps {
        apply(&store, &mut model, step).await;
        if matches!(step, Step::Reopen) {
            drop(store);
            store = open(directory.path()).await;
        }
    }
    compare(&store, &model, snapshot_after < 1 << 20).await;
    drop(store);
    compare(&open(directory.path()).await, &model, snapshot_after < 1 << 20).await;
}

fn run(check: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(check);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn memory_store_follows_the_model(steps in steps()) {
        run(check_memory(steps));
    }

    #[test]
    fn embedded_store_follows_the_model(steps in steps()) {
        run(check_embedded(steps, 16 << 20));
    }

    #[test]
    fn embedded_store_follows_the_model_through_snapshots(steps in steps()) {
        run(check_embedded(steps, 1));
    }
}
