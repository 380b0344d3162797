//! Reading the past, and its end.

use super::scope::Scope;
use crate::store::{StoreError, WatchStart};

/// What the contract says of a store without history.
pub(super) async fn assert_refused(s: &Scope) {
    let revision = s.put("a", "1").await;
    assert!(matches!(s.list_at(revision).await, Err(StoreError::Unsupported(_))));
}

pub(super) async fn the_past_reads_as_it_was(s: &mut Scope) {
    let empty = s.revision().await;
    let first = s.create("a", "one").await.unwrap();
    let second = s.create("b", "two").await.unwrap();
    let third = s.put("a", "three").await;
    let fourth = s.delete("b").await;
    let fifth = s.create("b", "five").await.unwrap();
    let expected: [(u64, &[(&str, &str)]); 6] = [
        (empty, &[]),
        (first, &[("a", "one")]),
        (second, &[("a", "one"), ("b", "two")]),
        (third, &[("a", "three"), ("b", "two")]),
        (fourth, &[("a", "three")]),
        (fifth, &[("a", "three"), ("b", "five")]),
    ];
    for (at, entries) in expected {
        let page = s.list_at(at).await.unwrap();
        let seen = s.texts(&page);
        let seen: Vec<_> = seen.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!((seen.as_slice(), page.revision), (entries, at));
    }
    let old = &s.list_at(third).await.unwrap().entries[0];
    assert_eq!((old.created, old.revision), (first, third));
}

pub(super) async fn the_future_cannot_be_read(s: &mut Scope) {
    let revision = s.put("a", "1").await;
    let error = s.list_at(revision + 1000).await.unwrap_err();
    assert!(
        matches!(error, StoreError::Future { requested, newest } if requested == revision + 1000 && newest >= revision)
    );
}

pub(super) async fn compacted_revisions_are_refused(s: &mut Scope) {
    let first = s.create("a", "one").await.unwrap();
    let second = s.put("a", "two").await;
    s.put("a", "three").await;
    s.store().compact(second).await.unwrap();
    let error = s.list_at(first).await.unwrap_err();
    assert!(matches!(error, StoreError::Compacted { requested, oldest } if requested == first && oldest >= second));
    let page = s.list_at(second).await.unwrap();
    assert_eq!(s.texts(&page), [("a".to_owned(), "two".to_owned())]);
}

pub(super) async fn compaction_keeps_the_newest_values(s: &mut Scope) {
    s.create("kept", "old").await.unwrap();
    s.create("changed", "one").await.unwrap();
    s.create("gone", "x").await.unwrap();
    s.put("changed", "two").await;
    let last = s.delete("gone").await;
    let before = s.list("").await;
    s.store().compact(last).await.unwrap();
    assert_eq!(s.list("").await.entries, before.entries);
    assert_eq!(s.get("gone").await, None);
    assert_eq!(s.revision().await, last);
    s.create("gone", "again").await.unwrap();
}

pub(super) async fn compaction_twice_is_fine_and_of_the_future_is_not(s: &mut Scope) {
    let revision = s.put("a", "1").await;
    let newest = s.put("a", "2").await;
    s.store().compact(newest).await.unwrap();
    s.store().compact(newest).await.unwrap();
    s.store().compact(revision).await.unwrap();
    let error = s.store().compact(newest + 1000).await.unwrap_err();
    assert!(matches!(error, StoreError::Future { .. }), "{error}");
    assert_eq!(s.text("a").await.unwrap(), "2");
}

pub(super) async fn a_watch_from_a_compacted_revision_is_refused(s: &mut Scope) {
    let first = s.create("a", "one").await.unwrap();
    s.put("a", "two").await;
    let third = s.put("a", "three").await;
    s.store().compact(third).await.unwrap();
    let error = s.watch_error(WatchStart::After(first)).await;
    assert!(matches!(error, StoreError::Compacted { .. }), "{error}");
    let mut watch = s.watch("", WatchStart::After(third)).await;
    let fourth = s.put("a", "four").await;
    assert_eq!(watch.batch().await.revision, fourth);
}
