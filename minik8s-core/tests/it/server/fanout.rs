//! Many events to many watchers; watchers that do not keep up.

use super::{builder, change, make, maps, small};
use futures::StreamExt;
use futures::future::join_all;
use minik8s_core::api::{Reason, WatchEvent};
use minik8s_core::client::{Transport, WatchOptions, WatchStream};
use std::time::Duration;

const BOUND: Duration = Duration::from_secs(120);

/// The revisions that a watch shows, up to and including `last`.
async fn revisions(mut watch: WatchStream, last: u64) -> Vec<u64> {
    let mut seen = Vec::new();
    while seen.last() != Some(&last) {
        match watch.next().await {
            Some(Ok(WatchEvent::Object(_, object))) => seen.push(object.revision),
            other => panic!("wanted an object after {:?}, got {other:?}", seen.last()),
        }
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_events_reach_a_hundred_watchers_without_gap_or_duplicate_in_order() {
    const EVENTS: usize = 10_000;
    let server = builder().watch_settings(small(2 * EVENTS, 256)).start().await.unwrap();
    let names: Vec<String> = (0..20).map(|n| format!("m{n}")).collect();
    let mut start = 0;
    for name in &names {
        start = make(&server, name).await;
    }
    let options = WatchOptions { resource_version: Some(start), ..WatchOptions::default() };
    let target = maps();
    let watches = join_all((0..100).map(|_| server.watch(&target, &options))).await;
    let writers = names.iter().map(|name| {
        let server = &server;
        async move {
            let mut written = Vec::new();
            for n in 0..EVENTS / 20 {
                written.push(change(server, name, &n.to_string()).await);
            }
            written
        }
    });
    let mut written = join_all(writers).await.concat();
    written.sort_unstable();
    assert_eq!(written.len(), EVENTS);
    let last = written[EVENTS - 1];
    let watchers = watches.into_iter().map(|watch| tokio::spawn(revisions(watch.unwrap(), last)));
    let all = tokio::time::timeout(BOUND, join_all(watchers)).await.unwrap();
    for seen in all {
        assert!(seen.unwrap() == written, "every watcher sees every event once, in order");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_watcher_is_cut_and_nobody_waits_for_it() {
    let server = builder().watch_settings(small(32, 8)).start().await.unwrap();
    let start = make(&server, "a").await;
    let options = WatchOptions { resource_version: Some(start), ..WatchOptions::default() };
    let mut slow = server.watch(&maps(), &options).await.unwrap();
    change(&server, "a", "first").await;
    assert!(matches!(slow.next().await, Some(Ok(_))), "it is live");
    let mut last = 0;
    for n in 0..200 {
        last = change(&server, "a", &n.to_string()).await;
    }
    let mut seen = Vec::new();
    let error = loop {
        match slow.next().await.unwrap() {
            Ok(WatchEvent::Object(_, object)) => seen.push(object.revision),
            Ok(other) => panic!("unexpected {other:?}"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.reason, Reason::Expired);
    assert!(error.message.starts_with("too old resource version: "), "{error}");
    assert!(seen.len() < 200 && seen.is_sorted(), "it saw the beginning, in order: {seen:?}");
    assert!(slow.next().await.is_none(), "the watch ends after its error");
    let again = server.watch(&maps(), &WatchOptions::default()).await.unwrap();
    assert_eq!(revisions(again, last).await, [last], "it lists again and goes on");
    let old = server.watch(&maps(), &options).await.unwrap().next().await;
    assert!(matches!(old, Some(Err(e)) if e.is_gone()), "the old revision is forgotten");
    let page = server.metrics().render().unwrap();
    assert!(page.contains("apiserver_watch_cut_total{group=\"\",resource=\"configmaps\"} 2"), "{page}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_that_falls_behind_its_queue_catches_up_from_the_history() {
    let server = builder().watch_settings(small(4096, 4)).start().await.unwrap();
    let start = make(&server, "a").await;
    let options = WatchOptions { resource_version: Some(start), ..WatchOptions::default() };
    let mut watch = server.watch(&maps(), &options).await.unwrap();
    let mut written = vec![change(&server, "a", "first").await];
    let first = watch.next().await;
    assert!(matches!(first, Some(Ok(WatchEvent::Object(_, o))) if o.revision == written[0]), "it is live");
    for n in 0..500 {
        written.push(change(&server, "a", &n.to_string()).await);
    }
    assert_eq!(revisions(watch, written[500]).await, written[1..]);
}

#[tokio::test(start_paused = true)]
async fn bookmarks_come_in_time_and_miss_nothing() {
    let server = builder().start().await.unwrap();
    let options = WatchOptions { bookmarks: true, ..WatchOptions::default() };
    let mut watch = server.watch(&maps(), &options).await.unwrap();
    let began = tokio::time::Instant::now();
    let Some(Ok(WatchEvent::Bookmark { revision, initial_done: false })) = watch.next().await else {
        panic!("wanted a bookmark")
    };
    assert_eq!(began.elapsed().as_secs(), 60);
    let written = make(&server, "a").await;
    assert!(written > revision);
    assert_eq!(revisions(watch, written).await, [written]);
}
