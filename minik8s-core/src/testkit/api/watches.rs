//! Watches: where they start, what they show, how they end.

use super::World;
use crate::api::{Reason, WatchEvent, WatchEventType};
use crate::client::WatchOptions;
use futures::StreamExt;
use serde_json::json;
use std::time::Duration;

pub(super) async fn a_watch_goes_on_from_a_list(w: &World) {
    w.map("old", &json!({})).await;
    let revision = w.revision("configmaps").await;
    w.map("a", &json!({})).await;
    let options = WatchOptions { resource_version: Some(revision), ..WatchOptions::default() };
    let mut watch = w.watch("configmaps", options).await;
    w.merge("configmaps", "a", &json!({"data": {"k": "2"}})).await.unwrap();
    w.delete("configmaps", "old").await.unwrap();
    let mut last = revision;
    for want in [(WatchEventType::Added, "a"), (WatchEventType::Modified, "a"), (WatchEventType::Deleted, "old")] {
        let (kind, object) = watch.object().await;
        assert_eq!((kind, object.meta.name.as_str()), want);
        assert!(object.revision > last, "revisions grow");
        last = object.revision;
    }
}

pub(super) async fn a_watch_without_revision_begins_with_the_state(w: &World) {
    w.map("a", &json!({})).await;
    w.map("b", &json!({})).await;
    for resource_version in [None, Some(0)] {
        let mut watch = w.watch("configmaps", WatchOptions { resource_version, ..WatchOptions::default() }).await;
        assert_eq!((watch.next().await, watch.next().await), ("ADDED a".to_owned(), "ADDED b".to_owned()));
        w.merge("configmaps", "a", &json!({"data": {"at": format!("{resource_version:?}")}})).await.unwrap();
        assert_eq!(watch.next().await, "MODIFIED a");
    }
}

pub(super) async fn a_streaming_list_ends_with_a_bookmark(w: &World) {
    w.map("a", &json!({})).await;
    let options = WatchOptions { send_initial_events: true, bookmarks: true, ..WatchOptions::default() };
    let mut watch = w.watch("configmaps", options).await;
    assert_eq!(watch.next().await, "ADDED a");
    let mark = watch.raw().await.unwrap().unwrap();
    let WatchEvent::Bookmark { revision, initial_done: true } = mark else { panic!("wanted the mark, got {mark:?}") };
    let made = w.map("b", &json!({})).await;
    assert!(made["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap() > revision);
    assert_eq!(watch.next().await, "ADDED b");
}

pub(super) async fn objects_enter_and_leave_a_selection(w: &World) {
    let labels = |app: &str| json!({"metadata": {"labels": {"app": app}}});
    w.map("a", &json!({"app": "web"})).await;
    let before = w.map("b", &json!({"app": "web2"})).await;
    let options = WatchOptions { label_selector: "app=web".into(), ..WatchOptions::default() };
    let mut watch = w.watch("configmaps", options).await;
    assert_eq!(watch.next().await, "ADDED a");
    w.merge("configmaps", "b", &labels("web")).await.unwrap();
    assert_eq!(watch.next().await, "ADDED b");
    w.merge("configmaps", "b", &json!({"data": {"k": "2"}})).await.unwrap();
    assert_eq!(watch.next().await, "MODIFIED b");
    let left = w.merge("configmaps", "b", &labels("web2")).await.unwrap();
    let (kind, object) = watch.object().await;
    let shown = object.value().unwrap();
    assert_eq!((kind, shown["metadata"]["labels"]["app"].as_str()), (WatchEventType::Deleted, Some("web")));
    assert_eq!(shown["metadata"]["resourceVersion"], left["metadata"]["resourceVersion"], "old content, new revision");
    assert_eq!(shown["metadata"]["uid"], before["metadata"]["uid"]);
    w.merge("configmaps", "b", &json!({"data": {"k": "3"}})).await.unwrap();
    w.delete("configmaps", "b").await.unwrap();
    w.delete("configmaps", "a").await.unwrap();
    assert_eq!(watch.next().await, "DELETED a");
}

pub(super) async fn deletions_carry_the_last_state_and_a_new_revision(w: &World) {
    let made = w.map("a", &json!({"app": "web"})).await;
    let options = WatchOptions { resource_version: Some(w.revision("configmaps").await), ..WatchOptions::default() };
    let mut watch = w.watch("configmaps", options).await;
    w.delete("configmaps", "a").await.unwrap();
    let (kind, object) = watch.object().await;
    let shown = object.value().unwrap();
    assert_eq!((kind, &shown["data"]), (WatchEventType::Deleted, &made["data"]));
    assert_ne!(shown["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);
    assert_eq!(shown["metadata"]["resourceVersion"].as_str(), Some(object.revision.to_string().as_str()));
}

pub(super) async fn a_watch_ends_at_its_timeout(w: &World) {
    let timeout = Some(Duration::from_millis(200));
    let mut watch = w.watch("configmaps", WatchOptions { timeout, ..WatchOptions::default() }).await;
    assert!(watch.raw().await.is_none(), "it ends without an error");
    let bookmarks = WatchOptions { timeout, bookmarks: true, ..WatchOptions::default() };
    let mut watch = w.watch("configmaps", bookmarks).await;
    assert_eq!(watch.next().await, "BOOKMARK");
    assert!(watch.raw().await.is_none());
}

/// Such a revision is of a store that was lost or restored: silence would be taken for peace.
pub(super) async fn a_watch_from_another_history_is_told_to_list(w: &World) {
    let future = w.revision("configmaps").await + 1_000_000;
    let options = WatchOptions { resource_version: Some(future), ..WatchOptions::default() };
    let error = match w.transport.watch(&w.all("configmaps"), &options).await {
        Err(error) => error,
        Ok(mut events) => events.next().await.expect("it is not silent").expect_err("it is refused"),
    };
    assert_eq!(error.reason, Reason::Expired, "{error}");
    let endless = WatchOptions { timeout: Some(Duration::from_secs(u64::MAX)), ..WatchOptions::default() };
    drop(w.transport.watch(&w.all("configmaps"), &endless).await.expect("no time is too long"));
}

pub(super) async fn a_watch_of_one_object_sees_only_that(w: &World) {
    w.map("a", &json!({})).await;
    let fields = WatchOptions { field_selector: "metadata.name=a".into(), ..WatchOptions::default() };
    let mut watch = w.watch("configmaps", fields).await;
    assert_eq!(watch.next().await, "ADDED a");
    w.map("a2", &json!({})).await;
    w.merge("configmaps", "a", &json!({"data": {"k": "2"}})).await.unwrap();
    assert_eq!(watch.next().await, "MODIFIED a");
}

pub(super) async fn a_nodes_watch_sees_its_own_pods_only(w: &World) {
    let (one, twelve) = (format!("{}-1", w.namespace), format!("{}-12", w.namespace));
    let fields =
        |node: &str| WatchOptions { field_selector: format!("spec.nodeName={node}"), ..WatchOptions::default() };
    let unbound = WatchOptions { field_selector: "spec.nodeName=".into(), ..WatchOptions::default() };
    let mut of_one = w.watch("pods", fields(&one)).await;
    let mut of_none = w.watch("pods", unbound).await;
    for (pod, node) in [("a", &twelve), ("b", &one)] {
        w.pod(pod).await;
        assert_eq!(of_none.next().await, format!("ADDED {pod}"));
        let binding = json!({"metadata": {"name": pod}, "target": {"kind": "Node", "name": node}});
        w.create_at(&w.one("pods", pod).sub("binding"), &binding).await.unwrap();
        assert_eq!(of_none.next().await, format!("DELETED {pod}"), "it is no longer unbound");
    }
    assert_eq!(of_one.next().await, "ADDED b", "the pod of the other node does not show");
    let running = json!({"status": {"phase": "Running"}});
    let status = w.one("pods", "b").sub("status");
    w.patch(&status, crate::client::PatchType::Merge, &running).await.unwrap();
    assert_eq!(of_one.next().await, "MODIFIED b");
}
