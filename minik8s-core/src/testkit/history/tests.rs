//! Histories made by hand: what must be accepted, and what must not.

use super::*;

/// Calls as `(client, op, outcome)` with begin and end; an end of 0 means that no answer came.
fn history(calls: &[(u64, u64, Op, Outcome)]) -> Result<(), Violation> {
    let calls: Vec<Call> = calls
        .iter()
        .enumerate()
        .map(|(i, (began, ended, op, outcome))| Call {
            client: format!("c{i}").into(),
            object: "x".into(),
            op: op.clone(),
            began: *began,
            ended: (*ended > 0).then_some(*ended),
            outcome: outcome.clone(),
            during: None,
        })
        .collect();
    linearizable(&calls)
}

fn content(value: &str) -> Option<Content> {
    Some([("k".to_owned(), value.to_owned())].into())
}

fn is(revision: Revision, value: &str) -> Outcome {
    Outcome::Is(Seen { revision, uid: Some("u".into()), content: content(value) })
}

fn create(value: &str) -> Op {
    Op::Create(content(value))
}

fn update(value: &str, at: Option<Revision>) -> Op {
    Op::Update(content(value), When { revision: at, uid: None })
}

fn set(key: &str, value: &str) -> Op {
    Op::Patch(Some([(key.to_owned(), Some(value.to_owned()))].into()), When::default())
}

fn delete() -> Op {
    Op::Delete(When::default())
}

#[test]
fn one_after_the_other_is_accepted() {
    history(&[
        (1, 2, Op::Get, Outcome::Missing),
        (3, 4, create("a"), is(5, "a")),
        (5, 6, create("b"), Outcome::Exists),
        (7, 8, update("b", Some(5)), is(6, "b")),
        (9, 10, update("c", Some(5)), Outcome::Conflict),
        (11, 12, delete(), Outcome::Gone(7)),
        (13, 14, delete(), Outcome::Missing),
        (15, 16, create("d"), is(9, "d")),
    ])
    .unwrap();
}

#[test]
fn calls_at_the_same_time_may_have_happened_in_any_order() {
    history(&[
        (1, 10, create("a"), is(5, "a")),
        (2, 9, Op::Get, Outcome::Missing),
        (3, 4, Op::Get, is(6, "b")),
        (3, 8, update("b", None), is(6, "b")),
        (5, 7, update("c", Some(6)), is(7, "c")),
    ])
    .unwrap();
}

#[test]
fn a_call_without_an_answer_may_happen_late_or_never() {
    let start = (1, 2, create("a"), is(5, "a"));
    history(&[
        start.clone(),
        (3, 0, update("b", Some(5)), Outcome::Unknown),
        (4, 5, Op::Get, is(5, "a")),
        (6, 7, Op::Get, is(8, "b")),
    ])
    .unwrap();
    history(&[start.clone(), (3, 4, delete(), Outcome::Unknown), (5, 6, Op::Get, is(5, "a"))]).unwrap();
    history(&[start.clone(), (3, 4, delete(), Outcome::Unknown), (5, 6, Op::Get, Outcome::Missing)]).unwrap();
    // Once seen it has happened, and cannot be undone.
    let undone = [
        start,
        (3, 4, update("b", Some(5)), Outcome::Unknown),
        (5, 6, Op::Get, is(8, "b")),
        (7, 8, Op::Get, is(5, "a")),
    ];
    history(&undone).unwrap_err();
}

#[test]
fn a_stale_read_is_refused() {
    let error =
        history(&[(1, 2, create("a"), is(5, "a")), (3, 4, update("b", None), is(6, "b")), (5, 6, Op::Get, is(5, "a"))])
            .unwrap_err();
    assert!(error.to_string().contains("Get"), "{error}");
    history(&[(1, 2, create("a"), is(5, "a")), (3, 4, Op::Get, Outcome::Missing)]).unwrap_err();
}

#[test]
fn reads_that_go_back_are_refused_even_beside_the_write() {
    history(&[
        (1, 2, create("a"), is(5, "a")),
        (3, 20, update("b", None), is(6, "b")),
        (4, 5, Op::Get, is(6, "b")),
        (6, 7, Op::Get, is(5, "a")),
    ])
    .unwrap_err();
}

#[test]
fn a_lost_update_is_refused() {
    // Both were told that they changed version 5.
    history(&[
        (1, 2, create("a"), is(5, "a")),
        (3, 6, update("b", Some(5)), is(6, "b")),
        (4, 7, update("c", Some(5)), is(7, "c")),
    ])
    .unwrap_err();
    // Two patches of different keys: the later one must show both.
    let patches = |second: Content| {
        let both = Outcome::Is(Seen { revision: 7, uid: None, content: Some(second) });
        let first = [("k", "a"), ("x", "1")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        history(&[
            (1, 2, create("a"), is(5, "a")),
            (3, 6, set("x", "1"), Outcome::Is(Seen { revision: 6, uid: None, content: Some(first) })),
            (4, 7, set("y", "2"), both),
        ])
    };
    let of = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    patches(of(&[("k", "a"), ("x", "1"), ("y", "2")])).unwrap();
    patches(of(&[("k", "a"), ("y", "2")])).unwrap_err();
}

#[test]
fn a_deleted_object_does_not_come_back() {
    history(&[(1, 2, create("a"), is(5, "a")), (3, 4, delete(), Outcome::Gone(6)), (5, 6, Op::Get, is(5, "a"))])
        .unwrap_err();
    history(&[
        (1, 2, create("a"), is(5, "a")),
        (3, 4, delete(), Outcome::Gone(6)),
        (5, 6, update("b", None), is(7, "b")),
    ])
    .unwrap_err();
    // Nor does one thing go twice, though all who asked for it at the time may be told that it went.
    history(&[(1, 2, create("a"), is(5, "a")), (3, 6, delete(), Outcome::Gone(6)), (4, 7, delete(), Outcome::Gone(7))])
        .unwrap_err();
    history(&[(1, 2, create("a"), is(5, "a")), (3, 6, delete(), Outcome::Gone(6)), (4, 7, delete(), Outcome::Gone(6))])
        .unwrap();
}

#[test]
fn revisions_only_grow() {
    history(&[(1, 2, create("a"), is(5, "a")), (3, 4, update("b", None), is(4, "b"))]).unwrap_err();
    history(&[(1, 2, create("a"), is(5, "a")), (3, 4, delete(), Outcome::Gone(6)), (5, 6, create("b"), is(6, "b"))])
        .unwrap_err();
}

#[test]
fn a_conflict_where_all_was_as_wanted_is_refused() {
    history(&[(1, 2, create("a"), is(5, "a")), (3, 4, update("b", Some(5)), Outcome::Conflict)]).unwrap_err();
    let other = Op::Delete(When { revision: None, uid: Some("other".into()) });
    history(&[(1, 2, create("a"), is(5, "a")), (3, 4, other.clone(), Outcome::Conflict)]).unwrap();
    history(&[(1, 2, create("a"), is(5, "a")), (3, 4, other, Outcome::Gone(6))]).unwrap_err();
}

#[test]
fn many_calls_at_once_are_searched_in_bounded_time() {
    let mut calls = vec![(1, 2, create("0"), is(2, "0"))];
    for n in 1..200u64 {
        // Twelve at any time, none of which knows its place.
        calls.push((2 + n, 2 + n + 12, update(&n.to_string(), None), is(2 + n, &n.to_string())));
        if n % 16 == 0 {
            calls.push((2 + n, 0, update(&format!("lost {n}"), None), Outcome::Unknown));
        }
    }
    history(&calls).unwrap();
    calls.push((500, 501, Op::Get, is(100, "98")));
    history(&calls).unwrap_err();
}

#[test]
fn lists_and_watches_are_held_against_the_store() {
    use crate::api::WatchEventType::{Added, Deleted};
    use crate::store::{Entry, Event, WatchBatch};
    let entry = |key: &str, created, revision| Entry { key: key.into(), value: "{}".into(), created, revision };
    let mut log = StoreLog::default();
    for (revision, event) in [
        (1, Event::Put(entry("/p/a", 1, 1))),
        (2, Event::Put(entry("/p/b", 2, 2))),
        (3, Event::Delete(entry("/p/a", 1, 3))),
    ] {
        log.add(&WatchBatch { events: [event].into(), revision });
    }
    let list = |revision, items: &[(&str, Revision)]| {
        let items = items.iter().map(|(key, at)| ((*key).to_owned(), *at)).collect();
        let (client, prefix) = ("c".into(), "/p/".into());
        let seen = ListSeen {
            client,
            prefix,
            selective: false,
            page: (false, false),
            fresh: true,
            revision,
            items,
            during: Some((2, 3)),
        };
        let recorder = Recorder::default();
        recorder.notes.lock().lists.push(seen);
        log.explains(&recorder)
    };
    list(2, &[("/p/a", 1), ("/p/b", 2)]).unwrap();
    list(3, &[("/p/b", 2)]).unwrap();
    list(1, &[("/p/a", 1)]).unwrap_err();
    list(3, &[("/p/a", 1), ("/p/b", 2)]).unwrap_err();
    list(2, &[("/p/b", 2)]).unwrap_err();
    let watch = |reached, events: &[(Revision, &str, crate::api::WatchEventType)]| {
        let events = events.iter().map(|(at, key, kind)| (*at, (*key).to_owned(), *kind)).collect();
        let seen =
            WatchSeen { client: "c".into(), prefix: "/p/".into(), selective: false, after: Some(1), events, reached };
        let recorder = Recorder::default();
        recorder.notes.lock().watches.push(Arc::new(Mutex::new(seen)));
        log.explains(&recorder)
    };
    watch(3, &[(2, "/p/b", Added), (3, "/p/a", Deleted)]).unwrap();
    watch(2, &[(2, "/p/b", Added)]).unwrap();
    watch(3, &[(2, "/p/b", Added)]).unwrap_err();
    watch(3, &[(3, "/p/a", Deleted)]).unwrap_err();
    watch(3, &[(2, "/p/b", Added), (2, "/p/b", Added), (3, "/p/a", Deleted)]).unwrap_err();
}
