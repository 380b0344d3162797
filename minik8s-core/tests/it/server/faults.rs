//! A store that fails: watches go on, readers see what was written, and no write is reported wrongly.

use super::{body, change, make, map, maps};
use futures::StreamExt;
use minik8s_core::api::{Reason, WatchEvent, WatchEventType};
use minik8s_core::client::{DeleteOptions, ListOptions, Transport, WatchOptions, WriteOptions};
use minik8s_core::server::ApiServer;
use minik8s_core::store::{Commit, Fault, FaultStore, Key, MemoryStore, Op, Store};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

async fn faulty() -> (Arc<ApiServer>, FaultStore, MemoryStore) {
    let memory = MemoryStore::new();
    let faults = FaultStore::new(Arc::new(memory.clone()));
    let server = ApiServer::builder(Arc::new(faults.clone())).seed(7).start().await.unwrap();
    (server, faults, memory)
}

fn key(name: &str) -> Key {
    format!("/registry/core/configmaps/default/{name}").into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_store_watch_is_resumed_without_gap_or_duplicate() {
    let (server, faults, _) = faulty().await;
    let start = make(&server, "a").await;
    let options = WatchOptions { resource_version: Some(start), ..WatchOptions::default() };
    let mut watch = server.watch(&maps(), &options).await.unwrap();
    let mut written = Vec::new();
    for n in 0..100 {
        if n % 10 == 3 {
            faults.next_watch(Fault::Refuse);
            faults.cut_watches();
        }
        written.push(change(&server, "a", &n.to_string()).await);
    }
    for want in written {
        let event = tokio::time::timeout(Duration::from_secs(20), watch.next()).await.unwrap();
        assert!(matches!(event, Some(Ok(WatchEvent::Object(_, o))) if o.revision == want));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compacted_store_is_read_again_and_watchers_get_the_differences() {
    let (server, faults, memory) = faulty().await;
    for name in ["a", "b", "same"] {
        make(&server, name).await;
    }
    let mut watch = server.watch(&maps(), &WatchOptions::default()).await.unwrap();
    for _ in 0..3 {
        assert!(matches!(watch.next().await, Some(Ok(WatchEvent::Object(WatchEventType::Added, _)))));
    }
    for _ in 0..4 {
        faults.next_watch(Fault::Refuse);
    }
    faults.cut_watches();
    let b = memory.get(&key("b")).await.unwrap().unwrap().value;
    let text = String::from_utf8(b.to_vec()).unwrap();
    let changed = text.replace("\"k\":\"v\"", "\"k\":\"w\"");
    let new = text.replace("\"name\":\"b\"", "\"name\":\"c\"");
    assert!(changed != text && new != text, "{text}");
    let put = |name: &str, value: String| Op::Put { key: key(name), value: value.into(), ttl: None };
    for op in [Op::Delete { key: key("a") }, put("b", changed), put("c", new)] {
        memory.commit(Commit { when: vec![], ops: vec![op] }).await.unwrap();
    }
    memory.compact(memory.revision().await.unwrap()).await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..3 {
        let event = tokio::time::timeout(Duration::from_secs(20), watch.next()).await.unwrap();
        let Some(Ok(WatchEvent::Object(kind, object))) = event else { panic!("wanted an object, got {event:?}") };
        seen.push((kind, object.meta.name.clone()));
    }
    seen.sort_by(|a, b| a.1.cmp(&b.1));
    let want = [(WatchEventType::Deleted, "a"), (WatchEventType::Modified, "b"), (WatchEventType::Added, "c")];
    assert_eq!(seen, want.map(|(kind, name)| (kind, name.to_owned())));
    let list = server.list(&maps(), &ListOptions::default()).await.unwrap();
    assert_eq!(list.items.iter().map(|o| o.meta.name.as_str()).collect::<Vec<_>>(), ["b", "c", "same"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_reply_is_told_from_a_lost_request() {
    let (server, faults, _) = faulty().await;
    let object = json!({"metadata": {"name": "a"}, "data": {"k": "v"}});
    faults.next_commit(Fault::LoseReply);
    let written = server.create(&maps(), body(&object), &WriteOptions::default()).await.unwrap();
    assert_eq!(server.get(&map("a")).await.unwrap().revision, written.object.revision);
    faults.next_commit(Fault::LoseReply);
    server.delete(&map("a"), &DeleteOptions::default()).await.unwrap();
    assert_eq!(server.get(&map("a")).await.unwrap_err().reason, Reason::NotFound);
    faults.next_commit(Fault::LoseRequest);
    let error = server.create(&maps(), body(&object), &WriteOptions::default()).await.unwrap_err();
    assert_eq!(error.reason, Reason::Timeout);
    assert_eq!(server.get(&map("a")).await.unwrap_err().reason, Reason::NotFound);
    faults.next_commit(Fault::Refuse);
    let error = server.create(&maps(), body(&object), &WriteOptions::default()).await.unwrap_err();
    assert_eq!(error.reason, Reason::ServiceUnavailable);
    make(&server, "a").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_server_finds_the_state_of_the_first() {
    let memory = MemoryStore::new();
    let first = ApiServer::builder(Arc::new(memory.clone())).start().await.unwrap();
    make(&first, "a").await;
    let before = first.list(&maps(), &ListOptions::default()).await.unwrap();
    drop(first);
    let second = ApiServer::builder(Arc::new(memory)).start().await.unwrap();
    let after = second.list(&maps(), &ListOptions::default()).await.unwrap();
    assert_eq!(after.revision, before.revision, "starting again writes nothing");
    assert_eq!(after.items[0].json, before.items[0].json);
    assert_eq!(after.items[0].meta, before.items[0].meta);
}
