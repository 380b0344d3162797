//! Patches: what they change, and how they meet.

use super::World;
use crate::api::Reason;
use crate::client::PatchType;
use futures::future::join_all;
use serde_json::json;

pub(super) async fn merge_and_json_patches_change_parts(w: &World) {
    w.map("a", &json!({"app": "web"})).await;
    let merged = w.merge("configmaps", "a", &json!({"data": {"k": null, "n": "1"}})).await.unwrap();
    assert_eq!(merged["data"], json!({"n": "1"}));
    let target = w.one("configmaps", "a");
    let ops = json!([{"op": "test", "path": "/data/n", "value": "1"}, {"op": "add", "path": "/data/m", "value": "2"}]);
    let patched = w.patch(&target, PatchType::Json, &ops).await.unwrap();
    assert_eq!(patched["data"], json!({"n": "1", "m": "2"}));
    let wrong = json!([{"op": "test", "path": "/data/n", "value": "zz"}]);
    let error = w.patch(&target, PatchType::Json, &wrong).await.unwrap_err();
    assert_eq!(error.reason, Reason::Invalid);
    let error = w.patch(&w.one("configmaps", "nope"), PatchType::Json, &wrong).await.unwrap_err();
    assert_eq!(error.reason, Reason::NotFound);
}

pub(super) async fn a_patch_that_names_a_revision_honours_it(w: &World) {
    let made = w.map("a", &json!({})).await;
    let at = |version: &str, data: &str| json!({"metadata": {"resourceVersion": version}, "data": {"k": data}});
    let error = w.merge("configmaps", "a", &at("1", "2")).await.unwrap_err();
    assert_eq!(error.reason, Reason::Conflict);
    let version = made["metadata"]["resourceVersion"].as_str().unwrap();
    assert_eq!(w.merge("configmaps", "a", &at(version, "2")).await.unwrap()["data"]["k"], "2");
    let same = w.merge("configmaps", "a", &json!({"data": {"k": "2"}})).await.unwrap();
    assert_eq!(same, w.get("configmaps", "a").await.unwrap(), "nothing changed");
}

pub(super) async fn concurrent_patches_lose_nothing(w: &World) {
    w.map("a", &json!({})).await;
    let target = w.one("configmaps", "a");
    let patches = (0..32).map(|n| {
        let patch = json!({"data": {format!("n{n}"): "x"}});
        let target = &target;
        async move { w.patch(target, PatchType::Merge, &patch).await }
    });
    for patched in join_all(patches).await {
        patched.unwrap();
    }
    let data = w.get("configmaps", "a").await.unwrap()["data"].clone();
    assert_eq!(data.as_object().unwrap().len(), 33);
}

pub(super) async fn identity_cannot_be_patched(w: &World) {
    w.map("a", &json!({})).await;
    let error = w.merge("configmaps", "a", &json!({"metadata": {"uid": "abc"}})).await.unwrap_err();
    let text = "ConfigMap \"a\" is invalid: metadata.uid: Invalid value: \"abc\": field is immutable";
    assert_eq!((error.reason, error.message.as_str()), (Reason::Invalid, text));
    let pod = w.pod("p").await;
    let status = w.one("pods", "p").sub("status");
    let running = |uid: &str| json!({"metadata": {"uid": uid}, "status": {"phase": "Running"}});
    for kind in [PatchType::Merge, PatchType::StrategicMerge] {
        let error = w.patch(&status, kind, &running("abc")).await.unwrap_err();
        assert_eq!(error.reason, Reason::Invalid);
    }
    assert_eq!(w.get("pods", "p").await.unwrap(), pod, "a status meant for another pod changed nothing");
    let own = running(pod["metadata"]["uid"].as_str().unwrap());
    assert_eq!(w.patch(&status, PatchType::StrategicMerge, &own).await.unwrap()["status"]["phase"], "Running");
    let error = w.merge("configmaps", "a", &json!({"metadata": {"name": "b"}})).await.unwrap_err();
    assert_eq!(error.reason, Reason::BadRequest);
}
