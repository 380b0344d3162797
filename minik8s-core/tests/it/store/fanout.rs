//! Ten thousand events to a hundred watchers: every one of them, once, in order.

use futures::StreamExt;
use futures::future::join_all;
use minik8s_core::store::{Commit, EmbeddedStore, MemoryStore, Op, Store, WatchStart};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

const WATCHERS: usize = 100;
const WRITERS: usize = 100;
const WRITES: usize = 100;
const EVENTS: usize = WRITERS * WRITES;

/// What a watcher saw: revision, key and value of each event.
type Seen = Vec<(u64, String, usize)>;

async fn watch(store: Arc<dyn Store>) -> tokio::task::JoinHandle<Seen> {
    let mut stream = store.watch("/registry/pods/", WatchStart::Now).await.unwrap();
    tokio::spawn(async move {
        let mut seen = Seen::new();
        while seen.len() < EVENTS {
            let batch = stream.next().await.unwrap().unwrap();
            for entry in batch.events.iter().map(|event| event.entry()) {
                assert_eq!(entry.revision, batch.revision);
                let value = std::str::from_utf8(&entry.value).unwrap().parse().unwrap();
                seen.push((entry.revision, entry.key.to_string(), value));
            }
        }
        seen
    })
}

async fn write(store: Arc<dyn Store>, writer: usize) -> Vec<u64> {
    let mut revisions = Vec::new();
    for n in 0..WRITES {
        let key = format!("/registry/pods/default/web-{writer}").into();
        let op = Op::Put { key, value: n.to_string().into(), ttl: None };
        revisions.push(store.commit(Commit { when: vec![], ops: vec![op] }).await.unwrap());
    }
    revisions
}

async fn run(store: Arc<dyn Store>) {
    let watchers = join_all((0..WATCHERS).map(|_| watch(store.clone()))).await;
    let writers = (0..WRITERS).map(|writer| tokio::spawn(write(store.clone(), writer)));
    let mut written: Vec<u64> = join_all(writers).await.into_iter().flat_map(Result::unwrap).collect();
    written.sort_unstable();
    let all = tokio::time::timeout(Duration::from_secs(120), join_all(watchers)).await.expect("watchers are stuck");
    for seen in all.into_iter().map(Result::unwrap) {
        assert!(seen.iter().map(|(revision, _, _)| *revision).eq(written.iter().copied()), "a gap or a duplicate");
        let mut next: HashMap<&str, usize> = HashMap::new();
        for (_, key, value) in &seen {
            let next = next.entry(key).or_default();
            assert_eq!(value, next, "{key} out of order");
            *next += 1;
        }
        assert!(next.len() == WRITERS && next.values().all(|count| *count == WRITES));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_store_serves_ten_thousand_events_to_a_hundred_watchers() {
    run(Arc::new(MemoryStore::new())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded_store_serves_ten_thousand_events_to_a_hundred_watchers() {
    let directory = tempfile::tempdir().unwrap();
    run(Arc::new(EmbeddedStore::open(directory.path()).await.unwrap())).await;
}
