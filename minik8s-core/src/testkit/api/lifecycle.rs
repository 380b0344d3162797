//! How objects go: finalizers, preconditions, propagation, namespaces, whole collections.

use super::World;
use super::world::body;
use crate::api::{Reason, Target};
use crate::client::{
    DeleteOptions, DeletePreconditions, Deleted, ListOptions, Propagation, WatchOptions, WriteOptions,
};
use serde_json::json;

pub(super) async fn finalizers_hold_an_object(w: &World) {
    let object = json!({"metadata": {"name": "fin", "finalizers": ["example.com/f"]}});
    w.create("configmaps", &object).await.unwrap();
    let Deleted::Marked(marked) = w.delete("configmaps", "fin").await.unwrap() else { panic!("it must be held") };
    let meta = marked.value().unwrap()["metadata"].clone();
    assert!(meta["deletionTimestamp"].is_string() && meta["deletionGracePeriodSeconds"] == 0, "{meta}");
    let again = w.delete("configmaps", "fin").await.unwrap();
    assert!(matches!(again, Deleted::Marked(o) if o.revision == marked.revision), "a second deletion changes nothing");
    w.merge("configmaps", "fin", &json!({"data": {"k": "v"}})).await.unwrap();
    let more = json!({"metadata": {"finalizers": ["example.com/f", "example.com/g"]}});
    let error = w.merge("configmaps", "fin", &more).await.unwrap_err();
    let text = "ConfigMap \"fin\" is invalid: metadata.finalizers: Forbidden: no new finalizers can be added if the \
                object is being deleted, found new finalizers []string{\"example.com/g\"}";
    assert_eq!((error.reason, error.message.as_str()), (Reason::Invalid, text));
    let mut watch = w.watch("configmaps", WatchOptions::default()).await;
    assert_eq!(watch.next().await, "ADDED fin");
    let last = w.merge("configmaps", "fin", &json!({"metadata": {"finalizers": null}})).await.unwrap();
    assert_eq!(last["data"]["k"], "v");
    assert_eq!(watch.next().await, "DELETED fin");
    assert_eq!(w.get("configmaps", "fin").await.unwrap_err().reason, Reason::NotFound);
}

pub(super) async fn preconditions_guard_a_deletion(w: &World) {
    let made = w.map("a", &json!({})).await;
    let uid = made["metadata"]["uid"].as_str().unwrap().to_owned();
    let with = |uid: Option<&str>, version: Option<&str>| DeleteOptions {
        preconditions: DeletePreconditions {
            uid: uid.map(str::to_owned),
            resource_version: version.map(str::to_owned),
        },
        ..DeleteOptions::default()
    };
    let target = w.one("configmaps", "a");
    let error = w.transport.delete(&target, &with(Some("xxx"), None)).await.unwrap_err();
    let text = format!(
        "Operation cannot be fulfilled on ConfigMap \"a\": the UID in the precondition (xxx) does not match the UID in \
         record ({uid}). The object might have been deleted and then recreated"
    );
    assert_eq!((error.reason, error.message, error.details.kind.as_str()), (Reason::Conflict, text, "ConfigMap"));
    let error = w.transport.delete(&target, &with(None, Some("1"))).await.unwrap_err();
    assert!(error.message.contains("the ResourceVersion in the precondition (1) does not match"), "{error}");
    let dry = DeleteOptions { dry_run: true, ..DeleteOptions::default() };
    assert!(matches!(w.transport.delete(&target, &dry).await.unwrap(), Deleted::Gone(_)));
    assert_eq!(w.get("configmaps", "a").await.unwrap(), made, "a dry run deletes nothing");
    let version = made["metadata"]["resourceVersion"].as_str();
    assert!(matches!(w.transport.delete(&target, &with(Some(&uid), version)).await.unwrap(), Deleted::Gone(_)));
    let error = w.delete("configmaps", "a").await.unwrap_err();
    assert_eq!(error.reason, Reason::NotFound, "deleting twice");
}

pub(super) async fn propagation_is_written_as_a_finalizer(w: &World) {
    for (name, propagation, finalizer) in
        [("f", Propagation::Foreground, "foregroundDeletion"), ("o", Propagation::Orphan, "orphan")]
    {
        w.map(name, &json!({})).await;
        let options = DeleteOptions { propagation: Some(propagation), ..DeleteOptions::default() };
        let Deleted::Marked(marked) = w.transport.delete(&w.one("configmaps", name), &options).await.unwrap() else {
            panic!("{name} must wait for the garbage collector")
        };
        assert_eq!(marked.meta.finalizers, [finalizer]);
        w.merge("configmaps", name, &json!({"metadata": {"finalizers": null}})).await.unwrap();
    }
    w.map("b", &json!({})).await;
    let options = DeleteOptions { propagation: Some(Propagation::Background), ..DeleteOptions::default() };
    assert!(matches!(w.transport.delete(&w.one("configmaps", "b"), &options).await.unwrap(), Deleted::Gone(_)));
    assert!(w.picked("configmaps", "", "").await.unwrap().is_empty());
}

pub(super) async fn a_namespace_goes_when_it_is_finalized(w: &World) {
    let name = w.namespace.clone();
    let target = Target { name: Some(name.clone()), ..w.all("namespaces") };
    let made = w.transport.get(&target).await.unwrap().value().unwrap();
    assert_eq!((&made["spec"], &made["status"]), (&json!({"finalizers": ["kubernetes"]}), &json!({"phase": "Active"})));
    assert_eq!(made["metadata"]["labels"]["kubernetes.io/metadata.name"].as_str(), Some(name.as_str()));
    let deleted = w.transport.delete(&target, &DeleteOptions::default()).await.unwrap();
    let Deleted::Marked(marked) = deleted else { panic!("it must wait for its content") };
    assert_eq!(marked.value().unwrap()["status"]["phase"], "Terminating");
    let error = w.create("configmaps", &json!({"metadata": {"name": "b"}})).await.unwrap_err();
    let text = format!(
        "configmaps \"b\" is forbidden: unable to create new content in namespace {name} because it is being terminated"
    );
    assert_eq!((error.reason, error.message), (Reason::Forbidden, text));
    assert_eq!(error.details.causes[0].reason, "NamespaceTerminating");
    let mut finalized = marked.value().unwrap();
    finalized["spec"] = json!({});
    let finalize = target.clone().sub("finalize");
    w.transport.update(&finalize, body(&finalized), &WriteOptions::default()).await.unwrap();
    assert_eq!(w.transport.get(&target).await.unwrap_err().reason, Reason::NotFound);
}

pub(super) async fn deletecollection_deletes_what_it_picks(w: &World) {
    for (name, app) in [("a", "web"), ("b", "web"), ("c", "web2")] {
        w.map(name, &json!({"app": app})).await;
    }
    let list = ListOptions { label_selector: "app=web".into(), ..ListOptions::default() };
    let all = w.all("configmaps");
    let gone = w.transport.delete_collection(&all, &list, &DeleteOptions::default()).await.unwrap();
    assert_eq!(gone.items.len(), 2);
    assert_eq!(w.picked("configmaps", "", "").await.unwrap(), ["c"]);
}
