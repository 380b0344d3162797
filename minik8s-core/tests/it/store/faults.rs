//! The fault layer: under the suite while it is quiet, and doing what it says when it is not.

use futures::StreamExt;
use minik8s_core::store::{
    Commit, Fault, FaultRates, FaultStore, MemoryStore, Op, RangeRequest, Store, StoreError, WatchStart,
};
use minik8s_core::testkit::store::run_all;
use std::sync::Arc;
use std::time::Duration;

fn store() -> FaultStore {
    FaultStore::new(Arc::new(MemoryStore::new()))
}

fn put(key: &str) -> Commit {
    Commit { when: vec![], ops: vec![Op::Put { key: key.into(), value: "x".into(), ttl: None }] }
}

fn is_unavailable<T>(result: Result<T, StoreError>) -> bool {
    matches!(result, Err(StoreError::Unavailable { .. }))
}

#[tokio::test]
async fn a_fault_store_without_faults_conforms() {
    run_all(|| async { Arc::new(store()) as Arc<dyn Store> }).await;
}

#[tokio::test]
async fn a_refused_commit_changed_nothing_and_a_lost_reply_did() {
    let store = store();
    for (fault, happened) in [(Fault::Refuse, false), (Fault::LoseRequest, false), (Fault::LoseReply, true)] {
        let key = format!("/{fault:?}");
        store.next_commit(fault);
        match store.commit(put(&key)).await.unwrap_err() {
            StoreError::Unavailable { .. } => assert_eq!(fault, Fault::Refuse),
            StoreError::Unknown(_) => assert_ne!(fault, Fault::Refuse),
            other => panic!("{fault:?} gave {other}"),
        }
        assert_eq!(store.get(&key).await.unwrap().is_some(), happened, "{fault:?}");
    }
    store.commit(put("/after")).await.unwrap();
}

#[tokio::test]
async fn scripted_faults_come_in_order_and_only_once() {
    let store = store();
    store.next_read(Fault::Refuse);
    store.next_read(Fault::Refuse);
    store.next_watch(Fault::Refuse);
    assert!(is_unavailable(store.get("/a").await));
    assert!(is_unavailable(store.range(RangeRequest::default()).await));
    assert!(store.revision().await.is_ok());
    assert!(is_unavailable(store.watch("/", WatchStart::Now).await.map(|_| ())));
    assert!(store.watch("/", WatchStart::Now).await.is_ok());
}

#[tokio::test]
async fn a_cut_watch_closes_with_an_error_and_a_new_one_resumes() {
    let store = store();
    let mut watch = store.watch("/", WatchStart::Now).await.unwrap();
    let first = store.commit(put("/a")).await.unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap().revision, first);
    store.cut_watches();
    let second = store.commit(put("/a")).await.unwrap();
    assert!(is_unavailable(watch.next().await.unwrap()));
    assert!(watch.next().await.is_none());
    let mut watch = store.watch("/", WatchStart::After(first)).await.unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap().revision, second);
}

#[tokio::test(start_paused = true)]
async fn a_delayed_commit_happens_later() {
    let store = store();
    store.next_commit(Fault::Delay(Duration::from_secs(60)));
    let start = tokio::time::Instant::now();
    store.commit(put("/a")).await.unwrap();
    assert!(start.elapsed() >= Duration::from_secs(60));
}

/// Which of a hundred commits fail, and how.
async fn outcomes(seed: u64) -> Vec<Option<bool>> {
    let rates = FaultRates { refuse: 0.2, lose_reply: 0.2, ..FaultRates::default() };
    let store = FaultStore::seeded(Arc::new(MemoryStore::new()), seed, rates);
    let mut outcomes = Vec::new();
    for i in 0..100 {
        let error = store.commit(put(&format!("/{i}"))).await.err();
        outcomes.push(error.map(|e| matches!(e, StoreError::Unknown(_))));
    }
    store.heal();
    for i in 0..100 {
        store.commit(put(&format!("/{i}"))).await.unwrap();
    }
    outcomes
}

#[tokio::test]
async fn the_same_seed_gives_the_same_faults_until_healed() {
    let first = outcomes(7).await;
    assert_eq!(first, outcomes(7).await);
    assert_ne!(first, outcomes(8).await);
    assert!([None, Some(true), Some(false)].iter().all(|kind| first.contains(kind)));
}

#[tokio::test]
async fn watches_that_break_by_chance_lose_nothing_when_resumed() {
    let rates = FaultRates { cut_watch: 0.3, ..FaultRates::default() };
    let store = FaultStore::seeded(Arc::new(MemoryStore::new()), 1, rates);
    let mut reached = store.revision().await.unwrap();
    let mut written = Vec::new();
    for _ in 0..200 {
        written.push(store.commit(put("/a")).await.unwrap());
    }
    let (mut seen, mut cuts) = (Vec::new(), 0);
    while seen.len() < written.len() {
        let mut watch = store.watch("/", WatchStart::After(reached)).await.unwrap();
        while let Some(Ok(batch)) = watch.next().await {
            seen.push(batch.revision);
            reached = batch.revision;
            if seen.len() == written.len() {
                break;
            }
        }
        cuts += 1;
    }
    assert_eq!(seen, written);
    assert!(cuts > 10, "only {cuts} cuts");
}
