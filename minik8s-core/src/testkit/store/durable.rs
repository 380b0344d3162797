//! What a store that claims to be durable keeps over a reopen.

use super::expiry::put_for;
use super::scope::Scope;
use crate::store::{Event, StoreError, WatchStart};
use std::time::Duration;

pub(super) async fn a_reopened_store_has_its_data_and_revision(s: &mut Scope) {
    s.create("a", "one").await.unwrap();
    s.put("a", "two").await;
    s.create("b", "").await.unwrap();
    s.create("gone", "x").await.unwrap();
    s.delete("gone").await;
    let before = s.list("").await;
    s.reopen().await;
    let after = s.list("").await;
    assert_eq!((after.entries, after.revision), (before.entries, before.revision));
    assert_eq!(s.get("gone").await, None);
    assert!(s.put("a", "three").await > before.revision);
    let error = s.create("b", "again").await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict { current: Some(_), .. }), "{error}");
}

pub(super) async fn a_reopened_store_does_not_lose_events_silently(s: &mut Scope) {
    let start = s.create("a", "0").await.unwrap();
    let missed = [s.put("a", "1").await, s.put("a", "2").await];
    s.reopen().await;
    match s.store().watch(&s.prefix(""), WatchStart::After(start)).await {
        Err(StoreError::Compacted { .. }) => {}
        Err(other) => panic!("a resumed watch must be served or be told Compacted, not: {other}"),
        Ok(stream) => {
            drop(stream);
            let mut watch = s.watch("", WatchStart::After(start)).await;
            let revisions: Vec<_> = watch.events(2).await.iter().map(|e| e.entry().revision).collect();
            assert_eq!(revisions, missed);
        }
    }
}

pub(super) async fn a_reopened_store_stays_compacted(s: &mut Scope) {
    let first = s.create("a", "one").await.unwrap();
    let second = s.put("a", "two").await;
    s.store().compact(second).await.unwrap();
    s.reopen().await;
    assert!(matches!(s.list_at(first).await, Err(StoreError::Compacted { .. })));
    assert_eq!(s.text("a").await.unwrap(), "two");
}

pub(super) async fn lifetimes_end_after_a_reopen(s: &mut Scope) {
    put_for(s, "a", "brief", Duration::from_millis(300)).await.unwrap();
    s.reopen().await;
    let mut watch = s.watch("", WatchStart::Initial).await;
    let state = watch.next().await.unwrap();
    if !state.events.is_empty() {
        let events = watch.events(1).await;
        assert!(matches!(&events[0], Event::Delete(e) if e.key == s.key("a")), "{events:?}");
    }
    assert_eq!(s.get("a").await, None);
}
