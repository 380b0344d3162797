//! Objects: made, read, changed and deleted.

use super::{CONFIG_MAPS, Http};
use http::Method;
use serde_json::json;

const ONE: &str = "/api/v1/namespaces/default/configmaps/one";

#[tokio::test]
async fn an_object_is_made_read_replaced_and_deleted() {
    let http = Http::new().await;
    let made = http.config_map("one", "{}").await;
    assert!(made["metadata"]["uid"].is_string() && made["metadata"]["creationTimestamp"].is_string());
    let read = http.get(ONE).await;
    assert_eq!((read.code, read.header("content-type")), (200, "application/json"));
    assert!(read.text().starts_with(r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"#), "{}", read.text());
    let mut changed = read.json();
    changed["data"]["a"] = "2".into();
    // No Content-Type at all means JSON.
    let put = http.call(Method::PUT, ONE, &[], &changed.to_string()).await;
    assert_eq!((put.code, &put.json()["data"]["a"]), (200, &json!("2")));
    let gone = http.call(Method::DELETE, ONE, &[], "").await.json();
    assert_eq!(gone["status"], "Success");
    assert_eq!(gone["details"], json!({"name": "one", "kind": "configmaps", "uid": made["metadata"]["uid"]}));
    assert_eq!(http.get(ONE).await.code, 404);
}

#[tokio::test]
async fn bodies_may_be_yaml() {
    let http = Http::new().await;
    let body = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: one\ndata:\n  a: \"1\"\n";
    let made = http.call(Method::POST, CONFIG_MAPS, &[("content-type", "application/yaml")], body).await;
    assert_eq!((made.code, &made.json()["data"]), (201, &json!({"a": "1"})));
    let yaml = http.get_as(ONE, "application/yaml").await;
    assert_eq!(yaml.header("content-type"), "application/yaml");
    assert!(yaml.text().contains("kind: ConfigMap\n"), "{}", yaml.text());
}

#[tokio::test]
async fn patches_of_every_type() {
    let http = Http::new().await;
    http.config_map("one", "{}").await;
    let patch = async |content_type: &str, body: &str| {
        http.call(Method::PATCH, ONE, &[("content-type", content_type)], body).await
    };
    let json_patch = r#"[{"op":"replace","path":"/data/a","value":"json"}]"#;
    let cases = [
        ("application/json-patch+json", json_patch, "json"),
        ("application/merge-patch+json", r#"{"data":{"a":"merge"}}"#, "merge"),
        ("application/strategic-merge-patch+json", r#"{"data":{"a":"strategic"}}"#, "strategic"),
    ];
    for (content_type, body, expected) in cases {
        let answer = patch(content_type, body).await;
        assert_eq!((answer.code, &answer.json()["data"]["a"]), (200, &json!(expected)), "{content_type}");
    }
    let unknown = patch("application/json", "{}").await;
    assert_eq!((unknown.code, &unknown.json()["message"]), (415, &json!("415: Unsupported Media Type")));
}

#[tokio::test]
async fn unknown_fields_are_told_in_a_header() {
    let http = Http::new().await;
    let body = r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"one"},"bogus":1}"#;
    let answer = http.post(CONFIG_MAPS, body).await;
    assert_eq!((answer.code, answer.header("warning")), (201, r#"299 - "unknown field \"bogus\"""#));
    let strict = http.post(&format!("{CONFIG_MAPS}?fieldValidation=Strict"), body).await;
    assert_eq!(strict.code, 400, "{}", strict.text());
}

#[tokio::test]
async fn deletion_options_come_in_the_body() {
    let http = Http::new().await;
    http.config_map("one", "{}").await;
    let delete = async |body: &str| http.call(Method::DELETE, ONE, &[("content-type", "application/json")], body).await;
    let dry = delete(r#"{"kind":"DeleteOptions","apiVersion":"v1","dryRun":["All"]}"#).await;
    assert_eq!(dry.code, 200);
    assert_eq!(http.get(ONE).await.code, 200);
    let other = delete(r#"{"preconditions":{"uid":"xxx"}}"#).await;
    assert_eq!((other.code, &other.json()["reason"]), (409, &json!("Conflict")));
    assert_eq!(delete("{}").await.code, 200);
}

#[tokio::test]
async fn a_collection_is_deleted_by_selector() {
    let http = Http::new().await;
    for (name, labels) in [("one", r#"{"g":"x"}"#), ("two", r#"{"g":"x"}"#), ("three", r#"{"g":"y"}"#)] {
        http.config_map(name, labels).await;
    }
    let path = format!("{CONFIG_MAPS}?&labelSelector=g%3Dx");
    // Some clients announce JSON and send nothing.
    let answer = http.call(Method::DELETE, &path, &[("content-type", "application/json")], "").await;
    assert_eq!(answer.json()["items"].as_array().unwrap().len(), 2);
    assert_eq!(http.get(&format!("{CONFIG_MAPS}/three")).await.code, 200);
    assert_eq!(http.get(ONE).await.code, 404);
}
