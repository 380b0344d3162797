//! Names: common prefixes, the same name in two namespaces, and what a name may be.

use super::World;
use crate::api::{Gvr, Reason, Target};
use crate::client::WatchOptions;
use serde_json::json;

pub(super) async fn names_with_a_common_prefix_stay_apart(w: &World) {
    w.make_namespace(&format!("{}2", w.namespace)).await;
    w.map("svc", &json!({"app": "web"})).await;
    w.map("svc2", &json!({"app": "web2"})).await;
    let elsewhere = Target::in_namespace(Gvr::new("", "v1", "configmaps"), format!("{}2", w.namespace));
    w.create_at(&elsewhere, &json!({"metadata": {"name": "svc", "labels": {"app": "web"}}})).await.unwrap();
    assert_eq!(w.picked("configmaps", "", "").await.unwrap(), ["svc", "svc2"]);
    assert_eq!(w.picked("configmaps", "app=web", "").await.unwrap(), ["svc"]);
    let mut watch = w.watch_at(&w.one("configmaps", "svc"), WatchOptions::default()).await;
    assert_eq!(watch.next().await, "ADDED svc");
    w.merge("configmaps", "svc2", &json!({"data": {"k": "2"}})).await.unwrap();
    w.delete("configmaps", "svc").await.unwrap();
    assert_eq!(watch.next().await, "DELETED svc");
    assert_eq!(w.picked("configmaps", "", "").await.unwrap(), ["svc2"]);
}

pub(super) async fn two_namespaces_hold_the_same_names(w: &World) {
    let other = format!("{}-other", w.namespace);
    w.make_namespace(&other).await;
    let elsewhere = Target::in_namespace(Gvr::new("", "v1", "configmaps"), &other);
    let here = w.map("same", &json!({})).await;
    let there = w.create_at(&elsewhere, &json!({"metadata": {"name": "same"}})).await.unwrap();
    assert_ne!(here["metadata"]["uid"], there["metadata"]["uid"]);
    w.delete("configmaps", "same").await.unwrap();
    let left = Target { name: Some("same".into()), ..elsewhere };
    assert_eq!(w.transport.get(&left).await.unwrap().value().unwrap(), there);
}

pub(super) async fn bad_names_name_the_field(w: &World) {
    let error = w.create("configmaps", &json!({"metadata": {"name": "Bad_Name"}})).await.unwrap_err();
    assert_eq!(error.reason, Reason::Invalid);
    let start = "ConfigMap \"Bad_Name\" is invalid: metadata.name: Invalid value: \"Bad_Name\": a lowercase RFC 1123 subdomain must";
    assert!(error.message.starts_with(start), "{error}");
    let cause = &error.details.causes[0];
    assert_eq!((cause.reason.as_str(), cause.field.as_str()), ("FieldValueInvalid", "metadata.name"));
    assert_eq!((error.details.name.as_str(), error.details.kind.as_str()), ("Bad_Name", "ConfigMap"));
    let error = w.create("configmaps", &json!({"metadata": {}})).await.unwrap_err();
    let text = "ConfigMap \"\" is invalid: metadata.name: Required value: name or generateName is required";
    assert_eq!(error.message, text);
    let error = w.create("configmaps", &json!({"metadata": {"name": "x".repeat(254)}})).await.unwrap_err();
    assert!(error.message.contains("must be no more than 253"), "{error}");
    let error = w.create("namespaces", &json!({"metadata": {"name": "a.b"}})).await.unwrap_err();
    assert!(error.message.contains("RFC 1123 label"), "{error}");
}
