//! Watches: one line per event, sent at once.

use super::{CONFIG_MAPS, Http, TABLE};
use bytes::BytesMut;
use http::Method;
use http_body_util::BodyExt;
use minik8s_core::server::rest::Body;
use serde_json::{Value, json};
use std::time::Duration;

/// The events of a running watch.
struct Events {
    body: Body,
    buffer: BytesMut,
}

impl Events {
    async fn start(http: &Http, query: &str, accept: &str) -> Self {
        let path = format!("{CONFIG_MAPS}?watch=true{query}");
        let response = http.send(Method::GET, &path, &[("accept", accept)], "").await;
        assert_eq!(response.status(), 200);
        Self { body: response.into_body(), buffer: BytesMut::new() }
    }

    /// The next event, or `None` at the end of the watch.
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                return Some(serde_json::from_slice(&self.buffer.split_to(end + 1)).unwrap());
            }
            let frame = tokio::time::timeout(Duration::from_secs(60), self.body.frame()).await.expect("an event");
            self.buffer.extend_from_slice(&frame?.unwrap().into_data().unwrap());
        }
    }

    async fn expect(&mut self, kind: &str) -> Value {
        let event = self.next().await.expect("an event");
        assert_eq!(event["type"], kind, "{event}");
        event["object"].clone()
    }
}

#[tokio::test]
async fn a_watch_tells_every_change() {
    let http = Http::new().await;
    http.config_map("one", r#"{"g":"l"}"#).await;
    let mut events = Events::start(&http, "&labelSelector=g%3Dl", "").await;
    assert_eq!(events.expect("ADDED").await["kind"], "ConfigMap");
    http.config_map("two", r#"{"g":"l"}"#).await;
    assert_eq!(events.expect("ADDED").await["metadata"]["name"], "two");
    let path = format!("{CONFIG_MAPS}/one");
    let merge = [("content-type", "application/merge-patch+json")];
    http.call(Method::PATCH, &path, &merge, r#"{"data":{"a":"2"}}"#).await;
    assert_eq!(events.expect("MODIFIED").await["data"]["a"], "2");
    // Leaving the selector looks like a deletion.
    http.call(Method::PATCH, &path, &merge, r#"{"metadata":{"labels":{"g":"other"}}}"#).await;
    assert_eq!(events.expect("DELETED").await["metadata"]["name"], "one");
    http.call(Method::DELETE, &format!("{CONFIG_MAPS}/two"), &[], "").await;
    assert_eq!(events.expect("DELETED").await["metadata"]["name"], "two");
}

#[tokio::test]
async fn a_watch_goes_on_from_a_revision_and_ends_in_time() {
    let http = Http::new().await;
    http.config_map("one", "{}").await;
    let revision = http.get(CONFIG_MAPS).await.json()["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    http.config_map("two", "{}").await;
    let query = format!("&resourceVersion={revision}&timeoutSeconds=1&fieldSelector=metadata.name%3Dtwo");
    let mut events = Events::start(&http, &query, "").await;
    assert_eq!(events.expect("ADDED").await["metadata"]["name"], "two");
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn a_revision_that_is_gone_is_told_as_an_event() {
    let http = Http::new().await;
    for index in 0..3 {
        http.config_map(&format!("m{index}"), "{}").await;
    }
    let mut events = Events::start(&http, "&resourceVersion=1", "").await;
    let first = events.next().await.expect("an event");
    // A server that still has revision 1 tells what followed it; one that does not says so.
    if first["type"] == "ERROR" {
        assert_eq!((&first["object"]["code"], &first["object"]["reason"]), (&json!(410), &json!("Expired")));
        assert_eq!(events.next().await, None);
    } else {
        assert_eq!(first["type"], "ADDED");
    }
}

#[tokio::test]
async fn a_streaming_list_marks_its_end() {
    let http = Http::new().await;
    http.config_map("one", r#"{"g":"l"}"#).await;
    let query =
        "&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan&labelSelector=g%3Dl";
    let mut events = Events::start(&http, query, "").await;
    events.expect("ADDED").await;
    let mark = events.expect("BOOKMARK").await;
    assert_eq!(mark["metadata"]["annotations"], json!({"k8s.io/initial-events-end": "true"}));
    assert_eq!((&mark["kind"], &mark["metadata"]["creationTimestamp"]), (&json!("ConfigMap"), &Value::Null));
    let refused = http.get(&format!("{CONFIG_MAPS}?watch=true&sendInitialEvents=true")).await;
    assert_eq!(refused.code, 422);
}

#[tokio::test]
async fn only_the_first_table_of_a_watch_has_columns() {
    let http = Http::new().await;
    http.config_map("one", r#"{"g":"l"}"#).await;
    let mut events = Events::start(&http, "&labelSelector=g%3Dl", TABLE).await;
    let first = events.expect("ADDED").await;
    assert_eq!((&first["kind"], &first["rows"][0]["cells"][0]), (&json!("Table"), &json!("one")));
    assert_eq!(first["columnDefinitions"].as_array().unwrap().len(), 3);
    http.config_map("two", r#"{"g":"l"}"#).await;
    let second = events.expect("ADDED").await;
    assert_eq!((&second["columnDefinitions"], &second["rows"][0]["cells"][0]), (&Value::Null, &json!("two")));
}

#[tokio::test]
async fn a_watch_may_be_asked_for_in_the_path() {
    let http = Http::new().await;
    http.config_map("one", "{}").await;
    http.config_map("other", "{}").await;
    let path = "/api/v1/watch/namespaces/default/configmaps/one?timeoutSeconds=1";
    let text = http.get(path).await.text();
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains(r#""name":"one""#), "{text}");
    // A watch of an object by its name is not a watch.
    let plain = http.get(&format!("{CONFIG_MAPS}/one?watch=true")).await.json();
    assert_eq!(plain["kind"], "ConfigMap");
}

#[tokio::test]
async fn a_selector_that_cannot_be_is_refused_before_the_watch() {
    let http = Http::new().await;
    let answer = http.get(&format!("{CONFIG_MAPS}?watch=true&labelSelector=a%3D%3D%3Db")).await;
    assert_eq!((answer.code, &answer.json()["reason"]), (400, &json!("BadRequest")));
    let field = http.get(&format!("{CONFIG_MAPS}?watch=true&fieldSelector=spec.foo%3Dx")).await;
    assert_eq!((field.code, &field.json()["message"]), (400, &json!("field label not supported: spec.foo")));
}
