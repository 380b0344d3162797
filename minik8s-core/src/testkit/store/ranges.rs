//! Reading many keys.

use super::scope::{Scope, put_op, text};
use crate::store::{RangeRequest, StoreError};
use std::collections::BTreeSet;

fn page(s: &Scope, after: Option<String>, limit: usize) -> RangeRequest {
    RangeRequest { prefix: s.prefix(""), after, limit, at: None }
}

pub(super) async fn a_range_is_ordered_by_key(s: &mut Scope) {
    for name in ["c", "a", "b/z", "b", "a/b"] {
        s.create(name, name).await.unwrap();
    }
    let names: Vec<_> = s.list("").await.entries.iter().map(|e| s.name(e)).collect();
    assert_eq!(names, ["a", "a/b", "b", "b/z", "c"]);
    let inner: Vec<_> = s.list("b/").await.entries.iter().map(|e| s.name(e)).collect();
    assert_eq!(inner, ["b/z"]);
}

pub(super) async fn a_prefix_is_not_a_substring(s: &mut Scope) {
    for name in ["a/1", "ab/2", "x/a/3", "a"] {
        s.create(name, name).await.unwrap();
    }
    let names: Vec<_> = s.list("a/").await.entries.iter().map(|e| s.name(e)).collect();
    assert_eq!(names, ["a/1"]);
}

pub(super) async fn a_prefix_without_a_slash_is_invalid(s: &mut Scope) {
    let request = RangeRequest { prefix: s.prefix("a"), ..RangeRequest::default() };
    assert!(matches!(s.range(request).await, Err(StoreError::Invalid(_))));
}

pub(super) async fn a_range_of_nothing_is_empty_at_the_newest_revision(s: &mut Scope) {
    let revision = s.create("a", "1").await.unwrap();
    let page = s.list("nothing/").await;
    assert_eq!((page.entries.len(), page.remaining, page.revision), (0, 0, revision));
}

pub(super) async fn pages_are_complete_and_say_what_remains(s: &mut Scope) {
    let ops: Vec<_> = (0..10).map(|i| put_op(&s.key(&format!("k{i}")), "v")).collect();
    s.apply(&[], &ops).await.unwrap();
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = s.range(page(s, after, 3)).await.unwrap();
        seen.extend(page.entries.iter().map(|e| s.name(e)));
        assert_eq!(page.remaining, 10 - seen.len());
        if page.remaining == 0 {
            break;
        }
        assert_eq!(page.entries.len(), 3);
        after = page.entries.last().map(|e| e.key.to_string());
    }
    assert_eq!(seen, (0..10).map(|i| format!("k{i}")).collect::<Vec<_>>());
    let beyond = s.range(page(s, Some(s.prefix("k9")), 3)).await.unwrap();
    assert_eq!((beyond.entries.len(), beyond.remaining), (0, 0));
}

pub(super) async fn pages_at_one_revision_do_not_see_later_commits(s: &mut Scope) {
    for name in ["a", "b", "c", "d"] {
        s.create(name, "old").await.unwrap();
    }
    let first = s.range(page(s, None, 2)).await.unwrap();
    s.delete("c").await;
    s.put("d", "new").await;
    s.create("e", "new").await.unwrap();
    let rest = RangeRequest { at: Some(first.revision), ..page(s, Some(s.prefix("b")), 0) };
    let rest = s.range(rest).await.unwrap();
    let expected = [("c", "old"), ("d", "old")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    assert_eq!((s.texts(&rest), rest.revision, rest.remaining), (expected.to_vec(), first.revision, 0));
}

pub(super) async fn a_range_is_one_snapshot_while_others_write(s: &mut Scope) {
    let keys: Vec<_> = (0..50).map(|i| s.key(&format!("k{i:02}"))).collect();
    let store = s.store().clone();
    let writer = tokio::spawn(async move {
        for round in 0..100 {
            let ops = keys.iter().map(|key| put_op(key, &round.to_string())).collect();
            store.commit(crate::store::Commit { when: Vec::new(), ops }).await.unwrap();
            tokio::task::yield_now().await;
        }
    });
    while !writer.is_finished() {
        let page = s.list("").await;
        let values: BTreeSet<_> = page.entries.iter().map(text).collect();
        assert!(values.len() <= 1, "a torn snapshot: {values:?}");
        assert!(page.entries.is_empty() || page.entries.len() == 50);
        assert!(page.entries.iter().all(|e| e.revision <= page.revision));
        tokio::task::yield_now().await;
    }
    writer.await.unwrap();
    // The task's handle of the store is gone with it.
}
