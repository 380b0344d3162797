//! Reading and writing single keys and several at once.

use super::scope::{Scope, commit, put_op, text};
use crate::store::{Entry, Op, Precondition, StoreError};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::join_all;
use std::sync::Arc;

/// The entry that a conflict reports.
fn conflict(error: &StoreError) -> Option<&Entry> {
    match error {
        StoreError::Conflict { current, .. } => current.as_ref(),
        other => panic!("expected a conflict, got: {other}"),
    }
}

pub(super) async fn a_missing_key_reads_as_none(s: &mut Scope) {
    assert_eq!(s.get("nothing").await, None);
}

pub(super) async fn a_created_key_reads_back_with_its_revision(s: &mut Scope) {
    let revision = s.create("a", "one").await.unwrap();
    let entry = s.get("a").await.unwrap();
    assert_eq!((text(&entry).as_str(), entry.created, entry.revision), ("one", revision, revision));
    assert_eq!(entry.key, s.key("a"));
    assert!(revision > 1 && s.revision().await >= revision);
}

pub(super) async fn creating_an_existing_key_conflicts_with_what_is_there(s: &mut Scope) {
    s.create("a", "one").await.unwrap();
    let error = s.create("a", "two").await.unwrap_err();
    assert_eq!(conflict(&error), s.get("a").await.as_ref());
    assert_eq!(s.text("a").await.unwrap(), "one");
}

pub(super) async fn an_update_keeps_the_creation_revision(s: &mut Scope) {
    let created = s.create("a", "one").await.unwrap();
    let updated = s.update("a", created, "two").await.unwrap();
    let entry = s.get("a").await.unwrap();
    assert!(updated > created);
    assert_eq!((text(&entry).as_str(), entry.created, entry.revision), ("two", created, updated));
}

pub(super) async fn an_update_of_a_stale_revision_conflicts_with_the_current_one(s: &mut Scope) {
    let first = s.create("a", "one").await.unwrap();
    s.update("a", first, "two").await.unwrap();
    let error = s.update("a", first, "three").await.unwrap_err();
    assert_eq!(conflict(&error), s.get("a").await.as_ref());
    assert_eq!(s.text("a").await.unwrap(), "two");
}

pub(super) async fn an_update_of_a_missing_key_conflicts_with_nothing(s: &mut Scope) {
    let error = s.update("a", s.revision().await, "one").await.unwrap_err();
    assert_eq!(conflict(&error), None);
    assert!(matches!(error, StoreError::Conflict { key, .. } if key == s.key("a")));
    assert_eq!(s.get("a").await, None);
}

pub(super) async fn a_delete_removes_the_key(s: &mut Scope) {
    let created = s.create("a", "one").await.unwrap();
    assert!(s.delete("a").await > created);
    assert_eq!(s.get("a").await, None);
    assert!(s.list("").await.entries.is_empty());
}

pub(super) async fn a_delete_of_a_stale_revision_conflicts(s: &mut Scope) {
    let first = s.create("a", "one").await.unwrap();
    let second = s.update("a", first, "two").await.unwrap();
    let delete = [Op::Delete { key: s.key("a") }];
    let error = s.apply(&[Precondition::At(s.key("a"), first)], &delete).await.unwrap_err();
    assert_eq!(conflict(&error), s.get("a").await.as_ref());
    s.apply(&[Precondition::At(s.key("a"), second)], &delete).await.unwrap();
    assert_eq!(s.get("a").await, None);
    let error = s.apply(&[Precondition::At(s.key("a"), second)], &delete).await.unwrap_err();
    assert_eq!(conflict(&error), None);
}

pub(super) async fn a_delete_of_a_missing_key_changes_nothing(s: &mut Scope) {
    let before = s.revision().await;
    assert_eq!(s.delete("nothing").await, before);
    assert_eq!(s.revision().await, before);
}

pub(super) async fn a_key_created_again_has_a_new_creation_revision(s: &mut Scope) {
    s.create("a", "one").await.unwrap();
    s.delete("a").await;
    let again = s.create("a", "two").await.unwrap();
    let entry = s.get("a").await.unwrap();
    assert_eq!((entry.created, entry.revision), (again, again));
}

pub(super) async fn a_commit_is_all_or_nothing(s: &mut Scope) {
    s.create("there", "old").await.unwrap();
    let before = s.revision().await;
    let when = [Precondition::Absent(s.key("new")), Precondition::Absent(s.key("there"))];
    let ops = [put_op(&s.key("new"), "x"), Op::Delete { key: s.key("there") }];
    let error = s.apply(&when, &ops).await.unwrap_err();
    assert!(matches!(&error, StoreError::Conflict { key, .. } if *key == s.key("there")));
    assert_eq!(s.get("new").await, None);
    assert_eq!(s.text("there").await.unwrap(), "old");
    assert_eq!(s.revision().await, before);
}

pub(super) async fn all_keys_of_a_commit_carry_its_revision(s: &mut Scope) {
    s.create("gone", "x").await.unwrap();
    let ops = [put_op(&s.key("a"), "1"), Op::Delete { key: s.key("gone") }, put_op(&s.key("b"), "2")];
    let revision = s.apply(&[], &ops).await.unwrap();
    assert_eq!(s.get("a").await.unwrap().revision, revision);
    assert_eq!(s.get("b").await.unwrap().revision, revision);
    assert_eq!(s.get("gone").await, None);
    assert_eq!(s.revision().await, revision);
}

pub(super) async fn an_empty_commit_checks_its_preconditions_and_makes_no_revision(s: &mut Scope) {
    let revision = s.create("a", "one").await.unwrap();
    assert_eq!(s.apply(&[Precondition::At(s.key("a"), revision)], &[]).await.unwrap(), revision);
    let error = s.apply(&[Precondition::Absent(s.key("a"))], &[]).await.unwrap_err();
    assert_eq!(conflict(&error).map(|e| e.revision), Some(revision));
    assert_eq!(s.revision().await, revision);
}

pub(super) async fn the_same_key_twice_in_a_commit_is_invalid(s: &mut Scope) {
    let ops = [put_op(&s.key("a"), "1"), put_op(&s.key("b"), "2"), Op::Delete { key: s.key("a") }];
    assert!(matches!(s.apply(&[], &ops).await, Err(StoreError::Invalid(_))));
    assert_eq!(s.get("b").await, None);
}

pub(super) async fn an_empty_key_is_invalid(s: &mut Scope) {
    assert!(matches!(s.apply(&[], &[put_op(&"".into(), "1")]).await, Err(StoreError::Invalid(_))));
}

pub(super) async fn a_value_over_the_limit_is_refused_and_one_at_the_limit_is_not(s: &mut Scope) {
    let limit = s.store().capabilities().max_value;
    let put = |size| Op::Put { key: s.key("big"), value: Bytes::from(vec![b'x'; size]), ttl: None };
    let error = s.apply(&[], &[put_op(&s.key("a"), "1"), put(limit + 1)]).await.unwrap_err();
    assert!(matches!(error, StoreError::TooLarge { size, limit: said, .. } if size == limit + 1 && said == limit));
    assert_eq!(s.get("a").await, None);
    s.apply(&[], &[put(limit)]).await.unwrap();
    assert_eq!(s.get("big").await.unwrap().value.len(), limit);
}

pub(super) async fn a_commit_of_too_many_operations_is_refused_and_one_of_just_enough_is_not(s: &mut Scope) {
    // Where there is no bound, a thousand stand for any number.
    let limit = s.store().capabilities().max_ops;
    let enough: Vec<_> = (0..limit.min(1000)).map(|i| put_op(&s.key(&format!("k{i}")), "v")).collect();
    if limit < 1000 {
        let more: Vec<_> = enough.iter().cloned().chain([put_op(&s.key("one-more"), "v")]).collect();
        assert!(matches!(s.apply(&[], &more).await, Err(StoreError::Invalid(why)) if why.contains(&limit.to_string())));
        assert!(s.list("").await.entries.is_empty());
        let when: Vec<_> = (0..=limit).map(|i| Precondition::Absent(s.key(&i.to_string()))).collect();
        assert!(matches!(s.apply(&when, &[]).await, Err(StoreError::Invalid(_))));
    }
    s.apply(&[], &enough).await.unwrap();
    assert_eq!(s.list("").await.entries.len(), enough.len());
}

pub(super) async fn any_bytes_are_a_value(s: &mut Scope) {
    let all: Bytes = (0..=255).collect();
    for value in [Bytes::new(), all] {
        s.apply(&[], &[Op::Put { key: s.key("a"), value: value.clone(), ttl: None }]).await.unwrap();
        assert_eq!(s.get("a").await.unwrap().value, value);
    }
}

pub(super) async fn the_revision_strictly_grows_across_keys(s: &mut Scope) {
    let mut last = s.revision().await;
    for i in 0..20 {
        let revision = s.put(&format!("k{}", i % 3), &i.to_string()).await;
        assert!(revision > last, "{revision} after {last}");
        last = revision;
    }
}

pub(super) async fn a_hundred_concurrent_increments_lose_none(s: &mut Scope) {
    s.create("counter", "0").await.unwrap();
    let this = &*s;
    join_all((0..100).map(|_| increment(this))).await;
    assert_eq!(s.text("counter").await.unwrap(), "100");
}

/// Reads, adds one, writes with the revision read; as often as it takes.
async fn increment(s: &Scope) {
    loop {
        let entry = s.get("counter").await.unwrap();
        let next = text(&entry).parse::<u32>().unwrap() + 1;
        match s.update("counter", entry.revision, &next.to_string()).await {
            Ok(_) => return,
            Err(StoreError::Conflict { .. }) => {}
            Err(other) => panic!("increment failed: {other}"),
        }
    }
}

pub(super) async fn a_dropped_commit_happened_as_a_whole_or_not_at_all(s: &mut Scope) {
    for round in 0..20 {
        let (a, b) = (s.key(&format!("{round}/a")), s.key(&format!("{round}/b")));
        let store = Arc::clone(s.store());
        let ops = [put_op(&a, "1"), put_op(&b, "1")];
        // Polled once, then dropped wherever it stands.
        let _ = store.commit(commit(&[], &ops)).now_or_never();
    }
    // An acknowledged write comes after whatever the dropped ones became.
    s.put("barrier", "1").await;
    for round in 0..20 {
        let pair = (s.get(&format!("{round}/a")).await, s.get(&format!("{round}/b")).await);
        assert_eq!(pair.0.map(|e| e.revision), pair.1.map(|e| e.revision), "half of commit {round} is visible");
    }
}
