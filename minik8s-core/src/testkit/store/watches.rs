//! Following changes.

use super::scope::{Scope, put_op, text};
use crate::api::Revision;
use crate::store::{Event, Op, StoreError, WatchStart};
use futures::future::join_all;
use std::sync::Arc;

fn revisions(events: &[Event]) -> Vec<Revision> {
    events.iter().map(|e| e.entry().revision).collect()
}

pub(super) async fn a_watch_from_now_sees_only_what_comes(s: &mut Scope) {
    s.create("a", "before").await.unwrap();
    let mut watch = s.watch("", WatchStart::Now).await;
    let revision = s.put("a", "after").await;
    let batch = watch.batch().await;
    assert_eq!(batch.revision, revision);
    assert_eq!(text(batch.events[0].entry()), "after");
}

pub(super) async fn a_watch_from_a_revision_sees_everything_after_it(s: &mut Scope) {
    let start = s.create("a", "0").await.unwrap();
    let missed = [s.put("a", "1").await, s.put("b", "2").await, s.delete("a").await];
    let mut watch = s.watch("", WatchStart::After(start)).await;
    let live = s.put("c", "3").await;
    let events = watch.events(4).await;
    assert_eq!(revisions(&events), [missed.as_slice(), &[live]].concat());
}

pub(super) async fn a_watch_from_the_newest_revision_sees_what_comes(s: &mut Scope) {
    let newest = s.create("a", "0").await.unwrap();
    let mut watch = s.watch("", WatchStart::After(newest)).await;
    let next = s.put("a", "1").await;
    assert_eq!(watch.batch().await.revision, next);
}

pub(super) async fn an_initial_watch_sees_the_state_and_then_changes(s: &mut Scope) {
    s.create("a", "1").await.unwrap();
    s.create("b", "2").await.unwrap();
    s.create("gone", "x").await.unwrap();
    let last = s.delete("gone").await;
    let mut watch = s.watch("", WatchStart::Initial).await;
    let live = s.put("c", "3").await;
    let state = watch.next().await.unwrap();
    assert!(state.events.iter().all(|e| matches!(e, Event::Put(_))));
    let values: Vec<_> = state.events.iter().map(|e| text(e.entry())).collect();
    assert_eq!((values, state.revision), (vec!["1".to_owned(), "2".to_owned()], last));
    assert_eq!(watch.batch().await.revision, live);
}

pub(super) async fn an_initial_watch_of_nothing_says_so(s: &mut Scope) {
    let now = s.revision().await;
    let mut watch = s.watch("", WatchStart::Initial).await;
    let state = watch.next().await.unwrap();
    assert_eq!((state.events.len(), state.revision), (0, now));
    let created = s.create("a", "1").await.unwrap();
    assert_eq!(watch.batch().await.revision, created);
}

pub(super) async fn a_watch_of_the_future_is_refused(s: &mut Scope) {
    let error = s.watch_error(WatchStart::After(s.revision().await + 1000)).await;
    assert!(matches!(error, StoreError::Future { .. }), "{error}");
}

pub(super) async fn a_watch_prefix_without_a_slash_is_invalid(s: &mut Scope) {
    let error = s.store().watch(&s.prefix("a"), WatchStart::Now).await.err();
    assert!(matches!(error, Some(StoreError::Invalid(_))));
}

pub(super) async fn a_watch_prefix_is_not_a_substring(s: &mut Scope) {
    let mut watch = s.watch("a/", WatchStart::Now).await;
    for name in ["ab/1", "x/a/2", "a"] {
        s.create(name, name).await.unwrap();
    }
    let wanted = s.create("a/3", "yes").await.unwrap();
    assert_eq!(watch.batch().await.revision, wanted);
}

pub(super) async fn a_commit_arrives_as_one_batch(s: &mut Scope) {
    s.create("gone", "x").await.unwrap();
    let mut watch = s.watch("", WatchStart::Now).await;
    let ops = [put_op(&s.key("a"), "1"), Op::Delete { key: s.key("gone") }, put_op(&s.key("b"), "2")];
    let revision = s.apply(&[], &ops).await.unwrap();
    let batch = watch.batch().await;
    assert_eq!(batch.revision, revision);
    assert_eq!(revisions(&batch.events), [revision; 3]);
}

pub(super) async fn a_batch_holds_only_what_is_watched(s: &mut Scope) {
    let start = s.revision().await;
    let mut live = s.watch("in/", WatchStart::Now).await;
    let ops = [put_op(&s.key("in/a"), "1"), put_op(&s.key("out/b"), "2"), put_op(&s.key("in/c"), "3")];
    s.apply(&[], &ops).await.unwrap();
    let mut replayed = s.watch("in/", WatchStart::After(start)).await;
    for watch in [&mut live, &mut replayed] {
        let names: Vec<_> = watch.batch().await.events.iter().map(|e| s.name(e.entry())).collect();
        assert_eq!(names, ["in/a", "in/c"]);
    }
}

pub(super) async fn puts_tell_creation_from_change(s: &mut Scope) {
    let mut watch = s.watch("", WatchStart::Now).await;
    let created = s.create("a", "1").await.unwrap();
    let changed = s.put("a", "2").await;
    let events = watch.events(2).await;
    let seen: Vec<_> = events.iter().map(|e| (e.entry().created, e.entry().revision)).collect();
    assert_eq!(seen, [(created, created), (created, changed)]);
}

pub(super) async fn a_delete_event_carries_the_last_value_and_the_new_revision(s: &mut Scope) {
    let created = s.create("a", "first").await.unwrap();
    s.put("a", "last").await;
    let mut watch = s.watch("", WatchStart::Now).await;
    let deleted = s.delete("a").await;
    let events = watch.events(1).await;
    let Event::Delete(entry) = &events[0] else { panic!("expected a delete, got {events:?}") };
    assert_eq!((text(entry).as_str(), entry.created, entry.revision), ("last", created, deleted));
    let mut replayed = s.watch("", WatchStart::After(deleted - 1)).await;
    assert_eq!(replayed.events(1).await, events);
}

pub(super) async fn a_refused_commit_makes_no_event(s: &mut Scope) {
    s.create("a", "1").await.unwrap();
    let mut watch = s.watch("", WatchStart::Now).await;
    s.create("a", "2").await.unwrap_err();
    s.delete("nothing").await;
    let next = s.put("b", "3").await;
    assert_eq!(watch.batch().await.revision, next);
}

/// Writes `count` values of a key, one after the other, and returns their revisions.
async fn write_many(s: &Scope, name: &str, count: usize) -> Vec<Revision> {
    let mut revisions = Vec::new();
    for i in 0..count {
        revisions.push(s.put(name, &i.to_string()).await);
        tokio::task::yield_now().await;
    }
    revisions
}

pub(super) async fn order_equals_revision_order_under_concurrent_writers(s: &mut Scope) {
    let mut watch = s.watch("", WatchStart::Now).await;
    let names: Vec<_> = (0..10).map(|i| format!("k{i}")).collect();
    let mut written = join_all(names.iter().map(|name| write_many(s, name, 50))).await.concat();
    written.sort_unstable();
    assert_eq!(revisions(&watch.events(500).await), written);
}

pub(super) async fn a_reconnecting_watch_has_no_gap_and_no_duplicate(s: &mut Scope) {
    let mut reached = s.revision().await;
    let this = &*s;
    let writing = async move {
        let (a, b) = tokio::join!(write_many(this, "a", 150), write_many(this, "b", 150));
        let mut written = [a, b].concat();
        written.sort_unstable();
        written
    };
    let reading = async move {
        let mut seen = Vec::new();
        while seen.len() < 300 {
            let mut watch = this.watch("", WatchStart::After(reached)).await;
            for _ in 0..20 {
                if seen.len() == 300 {
                    break;
                }
                let batch = watch.batch().await;
                seen.extend(revisions(&batch.events));
                reached = batch.revision;
            }
        }
        seen
    };
    let (written, seen) = tokio::join!(writing, reading);
    assert_eq!(seen, written);
}

pub(super) async fn many_watchers_see_the_same(s: &mut Scope) {
    let start = s.revision().await;
    let mut watches = join_all((0..50).map(|i| {
        let start = if i % 2 == 0 { WatchStart::Now } else { WatchStart::After(start) };
        s.watch("", start)
    }))
    .await;
    let written = write_many(s, "a", 40).await;
    for watch in &mut watches {
        assert_eq!(revisions(&watch.events(40).await), written);
    }
}

/// How many events a watcher may miss before any store must have cut it.
const FLOOD: usize = 34 * 512;

pub(super) async fn a_slow_watcher_is_cut_and_nobody_waits_for_it(s: &mut Scope) {
    let mut slow = s.watch("", WatchStart::Now).await;
    let mut quick = s.watch("", WatchStart::Now).await;
    let each = s.store().capabilities().max_ops.min(512);
    for round in 0..FLOOD / each {
        let ops: Vec<_> = (0..each).map(|i| put_op(&s.key(&format!("k{i}")), &round.to_string())).collect();
        s.apply(&[], &ops).await.unwrap();
        assert_eq!(quick.events(each).await.len(), each);
    }
    let error = loop {
        if let Err(error) = slow.next().await {
            break error;
        }
    };
    assert!(matches!(error, StoreError::SlowWatcher { .. }), "{error}");
}

pub(super) async fn a_dropped_watch_disturbs_nobody(s: &mut Scope) {
    let dropped = s.watch("", WatchStart::Now).await;
    let mut kept = s.watch("", WatchStart::Now).await;
    s.put("a", "1").await;
    drop(dropped);
    let second = s.put("a", "2").await;
    assert_eq!(kept.events(2).await[1].entry().revision, second);
    let mut anew = s.watch("", WatchStart::Now).await;
    let third = s.put("a", "3").await;
    assert_eq!(anew.batch().await.revision, third);
}

pub(super) async fn a_quiet_watch_learns_of_progress(s: &mut Scope) {
    let start = s.revision().await;
    let mut quiet = s.watch("quiet/", WatchStart::Now).await;
    let store = Arc::clone(s.store());
    let key = s.key("busy/a");
    let busy = tokio::spawn(async move {
        loop {
            let ops = vec![put_op(&key, "x")];
            store.commit(crate::store::Commit { when: Vec::new(), ops }).await.unwrap();
            tokio::task::yield_now().await;
        }
    });
    let mark = quiet.next().await.unwrap();
    busy.abort();
    let _ = busy.await;
    assert!(mark.events.is_empty() && mark.revision > start, "{mark:?}");
}
