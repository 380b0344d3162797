//! What the wire adds to a transport: pieces, back-pressure, reconnection. The verbs themselves are the suite's business.

use crate::api::{ApiError, Gvr, Object, ObjectList, Reason, Target, WatchEvent, WatchEventType};
use crate::client::*;
use crate::testkit::{StubTransport, grpc, wait};
use futures::StreamExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const MAPS: Gvr = Gvr::new("", "v1", "configmaps");
const BOUND: Duration = Duration::from_secs(60);

fn map(name: &str, revision: u64, size: usize) -> Arc<Object> {
    let data = "x".repeat(size);
    let json = format!(
        r#"{{"kind":"ConfigMap","apiVersion":"v1","metadata":{{"name":"{name}","resourceVersion":"{revision}"}},"data":{{"d":"{data}"}}}}"#
    );
    Arc::new(Object::from_json(MAPS, json.into_bytes().into()).unwrap())
}

/// Lists forty objects of 1 MB, watches without end, and counts the events that were taken.
fn big() -> (Arc<StubTransport>, Arc<AtomicUsize>) {
    let list = |_: &ListOptions| {
        let items = (0..40).map(|i| map(&format!("m{i}"), i, 1 << 20)).collect();
        Ok(ObjectList { items, revision: 77, continue_token: "more".into(), remaining: Some(3) })
    };
    let taken = Arc::new(AtomicUsize::new(0));
    let sent = taken.clone();
    let watch = move |_: &WatchOptions| {
        let sent = sent.clone();
        let events = futures::stream::iter(0..1_000_000u64).map(move |i| {
            sent.fetch_add(1, Ordering::SeqCst);
            Ok(WatchEvent::Object(WatchEventType::Added, map("m", i, 10_000)))
        });
        Ok(events.boxed())
    };
    (Arc::new(StubTransport::default().on_list(list).on_watch(watch)), taken)
}

#[tokio::test]
async fn a_list_of_any_size_arrives_whole_and_ordered() {
    let client = grpc::in_memory(big().0);
    let list = client.list(&Target::all(MAPS), &ListOptions::default()).await.unwrap();
    let names: Vec<_> = list.items.iter().map(|o| o.meta.name.clone()).collect();
    assert_eq!(names, (0..40).map(|i| format!("m{i}")).collect::<Vec<_>>());
    assert_eq!((list.revision, list.continue_token.as_str(), list.remaining), (77, "more", Some(3)));
    let none = client.delete_collection(&Target::all(MAPS), &ListOptions::default(), &DeleteOptions::default()).await;
    assert!(none.unwrap().items.is_empty(), "an empty list still has its end");
}

#[tokio::test]
async fn a_watcher_that_does_not_read_holds_the_server_back() {
    let (big, sent) = big();
    let (client, _server) = grpc::on_loopback(big).await.unwrap();
    let mut events = client.watch(&Target::all(MAPS), &WatchOptions::default()).await.unwrap();
    assert!(events.next().await.unwrap().is_ok());
    let mut before = usize::MAX;
    let held = wait::until("the server is held back", BOUND, || {
        let now = sent.load(Ordering::SeqCst);
        let same = now == before;
        before = now;
        async move { same.then_some(now) }
    })
    .await;
    assert!(held < 10_000, "a million events wait, {held} were taken");
    for _ in 0..held {
        assert!(events.next().await.unwrap().is_ok());
    }
    assert!(sent.load(Ordering::SeqCst) > held, "reading lets it go on");
}

#[tokio::test]
async fn errors_are_those_of_the_api_server_and_a_lost_server_is_unavailable_until_it_is_back() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = grpc::serve(listener, big().0);
    let config = GrpcConfig { url: format!("http://{address}"), token: "t".into(), ..GrpcConfig::default() };
    let client = GrpcTransport::new(&config).unwrap();
    let target = Target::object(MAPS, "ns", "a");
    assert_eq!(client.get(&target).await.unwrap_err(), ApiError::not_found(&MAPS, "a"));
    let mut events = client.watch(&Target::all(MAPS), &WatchOptions::default()).await.unwrap();

    drop(server);
    wait::until("the server is gone", BOUND, || async {
        let error = client.get(&target).await.unwrap_err();
        (error.reason == Reason::ServiceUnavailable).then_some(())
    })
    .await;
    let end = tokio::time::timeout(BOUND, async {
        loop {
            match events.next().await {
                Some(Ok(_)) => {}
                other => break other,
            }
        }
    });
    let end = end.await.unwrap();
    assert!(end.is_none_or(|e| e.unwrap_err().reason == Reason::ServiceUnavailable), "the watch must end");

    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    let _server = grpc::serve(listener, big().0);
    wait::until("the client is connected again", BOUND, || async {
        client.get(&target).await.unwrap_err().is_not_found().then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_cannot_work_is_refused_with_the_reason() {
    for (url, token) in [("not a url", ""), ("http://127.0.0.1:1", "line\nbreak")] {
        let config = GrpcConfig { url: url.into(), token: token.into(), ..GrpcConfig::default() };
        assert_eq!(GrpcTransport::new(&config).err().unwrap().reason, Reason::BadRequest, "{url}");
    }
    let config = GrpcConfig { url: "http://127.0.0.1:1".into(), ..GrpcConfig::default() };
    let error = GrpcTransport::new(&config).unwrap().get(&Target::object(MAPS, "ns", "a")).await.unwrap_err();
    assert_eq!(error.reason, Reason::ServiceUnavailable);
    assert!(error.message.contains("refused"), "{}", error.message);
}
