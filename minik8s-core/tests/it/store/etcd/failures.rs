//! etcd dies, loses its leader, stands still; what was acknowledged stays, and what is not known is not claimed.

use futures::StreamExt;
use minik8s_core::store::{
    Commit, EtcdOptions, EtcdStore, Event, Op, RangeRequest, Store, StoreError, WatchStart, WatchStream,
};
use minik8s_core::testkit::etcd::Etcd;
use minik8s_core::testkit::need::{Need, met};
use minik8s_core::testkit::wait::until;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const BOUND: Duration = Duration::from_secs(60);
const WRITERS: usize = 4;

async fn put(store: &EtcdStore, key: &str, value: &str) -> Result<u64, StoreError> {
    let op = Op::Put { key: key.into(), value: value.to_owned().into(), ttl: None };
    store.commit(Commit { when: vec![], ops: vec![op] }).await
}

/// Writes 1, 2, 3… to one key, each until it is acknowledged, and says how far it is. Stops at `count`.
async fn write(store: EtcdStore, key: String, count: u64, acknowledged: Arc<AtomicU64>) {
    for n in 1..=count {
        until("a write is acknowledged", BOUND, async || match put(&store, &key, &n.to_string()).await {
            Ok(_) => Some(()),
            Err(StoreError::Unknown(_) | StoreError::Unavailable { .. }) => None,
            Err(other) => panic!("a write failed: {other}"),
        })
        .await;
        acknowledged.store(n, Ordering::SeqCst);
    }
}

/// Follows `/w/` over every break, until each writer's last value was seen; every value that was seen, per key.
async fn follow(store: EtcdStore, mut reached: u64, count: u64) -> BTreeMap<String, Vec<u64>> {
    let mut seen = BTreeMap::<String, Vec<u64>>::new();
    let finished = |seen: &BTreeMap<String, Vec<u64>>| {
        seen.len() == WRITERS && seen.values().all(|values| values.last() == Some(&count))
    };
    while !finished(&seen) {
        let mut watch =
            until("the watch resumes", BOUND, async || store.watch("/w/", WatchStart::After(reached)).await.ok()).await;
        while let Some(Ok(batch)) = tokio::time::timeout(BOUND, watch.next()).await.expect("news in time") {
            assert!(batch.revision >= reached, "a watch went back");
            reached = batch.revision;
            for event in batch.events.iter() {
                let value = std::str::from_utf8(&event.entry().value).unwrap().parse().unwrap();
                seen.entry(event.entry().key.to_string()).or_default().push(value);
            }
            if finished(&seen) {
                break;
            }
        }
    }
    seen
}

/// Writers and a watcher at work; `disturb` is called once they are under way.
async fn under_load(etcd: &mut Etcd, count: u64, disturb: impl AsyncFnOnce(&mut Etcd)) {
    let options = EtcdOptions { request_timeout: Duration::from_secs(2), ..etcd.options("/load") };
    let store = EtcdStore::connect(options).await.unwrap();
    let start = store.revision().await.unwrap();
    let watcher = tokio::spawn(follow(store.clone(), start, count));
    let acknowledged: Vec<Arc<AtomicU64>> = (0..WRITERS).map(|_| Arc::default()).collect();
    let writers: Vec<_> = acknowledged
        .iter()
        .enumerate()
        .map(|(i, acknowledged)| tokio::spawn(write(store.clone(), format!("/w/{i}"), count, acknowledged.clone())))
        .collect();
    until("all write", BOUND, async || acknowledged.iter().all(|n| n.load(Ordering::SeqCst) > 5).then_some(())).await;
    disturb(etcd).await;
    for writer in writers {
        tokio::time::timeout(BOUND, writer).await.expect("writers must go on").unwrap();
    }
    let seen = tokio::time::timeout(BOUND, watcher).await.expect("the watcher must go on").unwrap();
    for (key, mut values) in seen {
        // A write whose answer was lost may have happened, and then again.
        values.dedup();
        assert_eq!(values, (1..=count).collect::<Vec<_>>(), "{key}");
    }
    let all = store.range(RangeRequest { prefix: "/w/".to_owned(), ..RangeRequest::default() }).await.unwrap();
    assert_eq!(all.entries.len(), WRITERS);
    assert!(all.entries.iter().all(|e| e.value == count.to_string()));
}

#[tokio::test]
async fn no_acknowledged_write_is_lost_when_etcd_is_killed_under_load() {
    if !met(&[Need::Etcd]) {
        return;
    }
    let mut etcd = Etcd::start(1).await;
    under_load(&mut etcd, 60, async |etcd| {
        etcd.kill(0);
        etcd.restart(0).await;
    })
    .await;
}

#[tokio::test]
async fn writers_and_watchers_go_on_when_the_leader_of_three_dies() {
    if !met(&[Need::Etcd]) {
        return;
    }
    let mut etcd = Etcd::start(3).await;
    under_load(&mut etcd, 40, async |etcd| {
        let leader = etcd.leader().await;
        etcd.kill(leader);
    })
    .await;
}

#[tokio::test]
async fn a_write_into_a_frozen_etcd_is_unknown_and_one_into_nothing_is_not_done() {
    if !met(&[Need::Etcd]) {
        return;
    }
    let mut etcd = Etcd::start(1).await;
    let options = EtcdOptions { request_timeout: Duration::from_secs(1), ..etcd.options("/frozen") };
    let store = EtcdStore::connect(options).await.unwrap();
    until("a value is there", BOUND, async || put(&store, "/a", "before").await.ok()).await;
    etcd.freeze(0);
    let frozen = put(&store, "/a", "during").await;
    let read = store.get("/a").await;
    etcd.thaw(0);
    assert!(matches!(frozen, Err(StoreError::Unknown(_))), "{frozen:?}");
    assert!(matches!(read, Err(StoreError::Unavailable { .. })), "{read:?}");
    until("etcd answers again", BOUND, async || put(&store, "/b", "after").await.ok()).await;
    let value = until("it is read", BOUND, async || store.get("/a").await.ok()).await.unwrap().value;
    assert!(value == "before" || value == "during", "{value:?}");
    etcd.kill(0);
    // The first request may meet the dying connection; those that follow find none at all.
    until("nothing listens", BOUND, async || match put(&store, "/c", "never").await {
        Err(StoreError::Unavailable { .. }) => Some(()),
        Err(StoreError::Unknown(_)) => None,
        other => panic!("a write to nobody: {other:?}"),
    })
    .await;
    etcd.restart(0).await;
    until("etcd answers again", BOUND, async || store.get("/a").await.ok()).await;
}

async fn next(watch: &mut WatchStream) -> Result<Vec<Event>, StoreError> {
    loop {
        let batch = tokio::time::timeout(BOUND, watch.next()).await.expect("news in time").expect("no end")?;
        if !batch.events.is_empty() {
            return Ok(batch.events.to_vec());
        }
    }
}

#[tokio::test]
async fn a_watch_goes_on_over_compaction_and_one_from_before_it_does_not() {
    if !met(&[Need::Etcd]) {
        return;
    }
    let etcd = Etcd::start(1).await;
    let store = etcd.store("/compaction").await;
    let first = put(&store, "/a", "1").await.unwrap();
    let mut watch = store.watch("/", WatchStart::After(first)).await.unwrap();
    for n in 2..30_u64 {
        let revision = put(&store, "/a", &n.to_string()).await.unwrap();
        store.compact(revision).await.unwrap();
        assert_eq!(next(&mut watch).await.unwrap()[0].entry().revision, revision);
    }
    let error = store.watch("/", WatchStart::After(first)).await.err();
    let newest = store.revision().await.unwrap();
    assert!(
        matches!(error, Some(StoreError::Compacted { requested, oldest }) if requested == first && oldest == newest)
    );
}

#[tokio::test]
async fn history_is_forgotten_after_a_period_and_no_sooner() {
    if !met(&[Need::Etcd]) {
        return;
    }
    let etcd = Etcd::start(1).await;
    let compact_every = Some(Duration::from_millis(300));
    let store = EtcdStore::connect(EtcdOptions { compact_every, ..etcd.options("/forget") }).await.unwrap();
    let first = put(&store, "/a", "1").await.unwrap();
    put(&store, "/a", "2").await.unwrap();
    let at = |at| RangeRequest { prefix: "/".to_owned(), at: Some(at), ..RangeRequest::default() };
    let gone = until("the first revision is forgotten", BOUND, async || store.range(at(first)).await.err()).await;
    assert!(matches!(gone, StoreError::Compacted { .. }), "{gone}");
    // What is newest is never forgotten.
    let newest = store.revision().await.unwrap();
    assert_eq!(store.range(at(newest)).await.unwrap().entries[0].value, "2");
}

#[tokio::test]
async fn clusters_that_share_an_etcd_do_not_see_each_other_but_their_revisions() {
    if !met(&[Need::Etcd]) {
        return;
    }
    let etcd = Etcd::start(1).await;
    let (a, ab) = (etcd.store("/a").await, etcd.store("/ab").await);
    let mut watch = a.watch("", WatchStart::Now).await.unwrap();
    let foreign = put(&ab, "/x", "theirs").await.unwrap();
    let mark = tokio::time::timeout(BOUND, watch.next()).await.unwrap().unwrap().unwrap();
    assert!(mark.events.is_empty() && mark.revision == foreign, "{mark:?}");
    assert_eq!(a.get("/x").await.unwrap(), None);
    assert!(a.range(RangeRequest::default()).await.unwrap().entries.is_empty());
    let own = put(&a, "/x", "ours").await.unwrap();
    assert_eq!(next(&mut watch).await.unwrap()[0].entry().revision, own);
    assert_eq!(ab.get("/x").await.unwrap().unwrap().value, "theirs");
}

#[tokio::test]
async fn a_lifetime_is_given_again_when_its_shared_lease_was_revoked() {
    if !met(&[Need::Etcd]) {
        return;
    }
    let etcd = Etcd::start(1).await;
    let store = etcd.store("/leases").await;
    let hour = Some(Duration::from_secs(3600));
    let brief =
        |key: &str| Commit { when: vec![], ops: vec![Op::Put { key: key.into(), value: "x".into(), ttl: hour }] };
    store.commit(brief("/a")).await.unwrap();
    store.commit(brief("/b")).await.unwrap();
    let mut client = etcd_client::Client::connect(etcd.endpoints(), None).await.unwrap();
    let leases = client.leases().await.unwrap();
    assert_eq!(leases.leases().len(), 1, "keys of one lifetime share a lease");
    client.lease_revoke(leases.leases()[0].id()).await.unwrap();
    assert_eq!(store.get("/a").await.unwrap(), None);
    store.commit(brief("/c")).await.unwrap();
    assert!(store.get("/c").await.unwrap().is_some());
}
