//! Create, get, update, and what the server fills in.

use super::World;
use super::world::body;
use crate::api::{Gvr, Reason, Target};
use crate::client::{Payload, WriteOptions};
use serde_json::json;

pub(super) async fn create_fills_identity_and_get_shows_it(w: &World) {
    let made = w.map("a", &json!({"app": "web"})).await;
    let meta = &made["metadata"];
    assert_eq!((made["kind"].as_str(), made["apiVersion"].as_str()), (Some("ConfigMap"), Some("v1")));
    assert_eq!((meta["name"].as_str(), meta["namespace"].as_str()), (Some("a"), Some(w.namespace.as_str())));
    assert!(meta["uid"].as_str().is_some_and(|uid| uid.len() == 36), "{meta}");
    assert!(meta["creationTimestamp"].as_str().is_some_and(|at| at.ends_with('Z')), "{meta}");
    assert!(meta["resourceVersion"].as_str().is_some_and(|v| v.parse::<u64>().is_ok()), "{meta}");
    assert_eq!(w.get("configmaps", "a").await.unwrap(), made);
    let object = w.transport.get(&w.one("configmaps", "a")).await.unwrap();
    let text = std::str::from_utf8(&object.json).unwrap();
    assert!(text.starts_with(r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"#), "{text}");
}

pub(super) async fn create_twice_is_refused(w: &World) {
    w.map("a", &json!({})).await;
    let error = w.create("configmaps", &json!({"metadata": {"name": "a"}})).await.unwrap_err();
    assert_eq!(error.reason, Reason::AlreadyExists);
    assert_eq!(error.message, "configmaps \"a\" already exists");
    assert_eq!((error.details.name.as_str(), error.details.kind.as_str()), ("a", "configmaps"));
}

pub(super) async fn create_needs_a_living_namespace(w: &World) {
    let nowhere = Target::in_namespace(Gvr::new("", "v1", "configmaps"), "no-such-place");
    let error = w.create_at(&nowhere, &json!({"metadata": {"name": "a"}})).await.unwrap_err();
    assert_eq!((error.reason, error.message.as_str()), (Reason::NotFound, "namespaces \"no-such-place\" not found"));
    let other = json!({"metadata": {"name": "a", "namespace": "other"}});
    let error = w.create("configmaps", &other).await.unwrap_err();
    let text = "the namespace of the provided object does not match the namespace sent on the request";
    assert_eq!((error.reason, error.message.as_str()), (Reason::BadRequest, text));
}

pub(super) async fn create_refuses_a_revision_and_ignores_foreign_identity(w: &World) {
    let object = json!({"metadata": {"name": "a", "resourceVersion": "5"}});
    let error = w.create("configmaps", &object).await.unwrap_err();
    assert_eq!(error.message, "resourceVersion should not be set on objects to be created");
    let object = json!({"metadata": {"name": "a", "uid": "mine", "creationTimestamp": "2001-01-01T00:00:00Z"}});
    let made = w.create("configmaps", &object).await.unwrap();
    assert_ne!(made["metadata"]["uid"], "mine");
    assert_ne!(made["metadata"]["creationTimestamp"], "2001-01-01T00:00:00Z");
}

pub(super) async fn generated_names_differ(w: &World) {
    let object = json!({"metadata": {"generateName": "gen-"}});
    let first = w.create("configmaps", &object).await.unwrap();
    let second = w.create("configmaps", &object).await.unwrap();
    let name = first["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("gen-") && name.len() == 9, "{name}");
    assert_ne!(first["metadata"]["name"], second["metadata"]["name"]);
}

pub(super) async fn dry_run_changes_nothing(w: &World) {
    let dry = WriteOptions { dry_run: true, ..WriteOptions::default() };
    let object = json!({"metadata": {"name": "a"}, "data": {"k": "v"}});
    let written = w.transport.create(&w.all("configmaps"), body(&object), &dry).await.unwrap();
    let value = written.object.value().unwrap();
    assert!(value["metadata"].get("resourceVersion").is_none() && value["metadata"].get("uid").is_some(), "{value}");
    assert_eq!(w.get("configmaps", "a").await.unwrap_err().reason, Reason::NotFound);
    let made = w.map("a", &json!({})).await;
    let mut changed = made.clone();
    changed["data"]["k"] = json!("other");
    w.transport.update(&w.one("configmaps", "a"), body(&changed), &dry).await.unwrap();
    let again = w.transport.create(&w.all("configmaps"), body(&object), &dry).await.unwrap_err();
    assert_eq!(again.reason, Reason::AlreadyExists);
    assert_eq!(w.get("configmaps", "a").await.unwrap(), made);
}

pub(super) async fn update_honours_the_revision_and_keeps_it_without_change(w: &World) {
    let made = w.map("a", &json!({})).await;
    assert_eq!(w.update("configmaps", "a", &made).await.unwrap(), made, "nothing changed");
    let mut changed = made.clone();
    changed["data"]["k"] = json!("2");
    let second = w.update("configmaps", "a", &changed).await.unwrap();
    assert_ne!(second["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);
    let error = w.update("configmaps", "a", &changed).await.unwrap_err();
    let text = "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your \
                changes to the latest version and try again";
    assert_eq!((error.reason, error.message.as_str()), (Reason::Conflict, text));
    changed["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    assert_eq!(w.update("configmaps", "a", &changed).await.unwrap(), second, "no revision, no precondition");
}

pub(super) async fn update_checks_name_namespace_and_uid(w: &World) {
    w.map("a", &json!({})).await;
    let error = w.update("configmaps", "a", &json!({"metadata": {"name": "b"}})).await.unwrap_err();
    assert_eq!(error.message, "the name of the object (b) does not match the name on the URL (a)");
    let error = w.update("configmaps", "nope", &json!({"metadata": {"name": "nope"}})).await.unwrap_err();
    assert_eq!((error.reason, error.message.as_str()), (Reason::NotFound, "configmaps \"nope\" not found"));
    w.pod("p").await;
    let foreign = |name: &str| json!({"metadata": {"name": name, "uid": "x"}, "status": {"phase": "Running"}});
    let status = w.one("pods", "p").sub("status");
    for refused in [w.update("configmaps", "a", &foreign("a")).await, w.update_at(&status, &foreign("p")).await] {
        let error = refused.unwrap_err();
        assert_eq!(error.reason, Reason::Conflict);
        assert!(error.message.contains("Precondition failed: UID in precondition: x, UID in object meta: "), "{error}");
    }
    assert_eq!(w.get("pods", "p").await.unwrap()["status"]["phase"], "Pending");
}

pub(super) async fn unknown_resources_and_bodies_are_told_apart(w: &World) {
    let unknown = Target::in_namespace(Gvr::new("", "v1", "nope"), &w.namespace);
    let error = w.transport.list(&unknown, &Default::default()).await.unwrap_err();
    let text = "the server could not find the requested resource";
    assert_eq!((error.reason, error.message.as_str()), (Reason::NotFound, text));
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}});
    let error = w.create("configmaps", &secret).await.unwrap_err();
    let text = "Secret in version \"v1\" cannot be handled as a ConfigMap: converting (v1.Secret) to \
                (core.ConfigMap): unknown conversion";
    assert_eq!((error.reason, error.message.as_str()), (Reason::BadRequest, text));
    let broken = Payload::Json("{bad json".into());
    let error = w.transport.create(&w.all("configmaps"), broken, &WriteOptions::default()).await.unwrap_err();
    assert_eq!(error.reason, Reason::BadRequest);
}

pub(super) async fn status_and_the_rest_change_apart(w: &World) {
    let pod = w.pod("p").await;
    let mut changed = pod.clone();
    changed["status"] = json!({"phase": "Running"});
    assert_eq!(w.update("pods", "p", &changed).await.unwrap(), pod, "the status is not the main resource's");
    changed["metadata"]["labels"] = json!({"a": "b"});
    let status = w.update_at(&w.one("pods", "p").sub("status"), &changed).await.unwrap();
    assert_eq!(status["status"]["phase"], "Running");
    assert!(status["metadata"].get("labels").is_none(), "only the status is the sub-resource's");
    assert_eq!(status["spec"], pod["spec"]);
}

pub(super) async fn generation_counts_changes_of_the_spec(w: &World) {
    let deployment = json!({"metadata": {"name": "d"}, "spec": {"replicas": 0, "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    let made = w.create("deployments", &deployment).await.unwrap();
    assert_eq!(made["metadata"]["generation"], 1);
    let labelled = w.merge("deployments", "d", &json!({"metadata": {"labels": {"x": "y"}}})).await.unwrap();
    assert_eq!(labelled["metadata"]["generation"], 1);
    let scaled = w.merge("deployments", "d", &json!({"spec": {"replicas": 2}})).await.unwrap();
    assert_eq!(scaled["metadata"]["generation"], 2);
    let status = w.one("deployments", "d").sub("status");
    let status = w.patch(&status, crate::client::PatchType::Merge, &json!({"status": {"replicas": 1}})).await.unwrap();
    assert_eq!((status["metadata"]["generation"].as_i64(), status["status"]["replicas"].as_i64()), (Some(2), Some(1)));
}
