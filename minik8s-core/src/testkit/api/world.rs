//! What a case works with: a transport, a namespace of its own, and short words for the verbs.

use crate::api::{ApiError, ApiResult, Gvr, Object, Revision, Target, WatchEvent, WatchEventType};
use crate::client::{
    DeleteOptions, Deleted, ListOptions, PatchType, Payload, SharedTransport, WatchOptions, WatchStream, WriteOptions,
};
use futures::StreamExt;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// No event takes longer than this to arrive.
const SOON: Duration = Duration::from_secs(20);

/// A transport, and a namespace of the case's own.
pub struct World {
    /// The transport under test.
    pub transport: SharedTransport,
    /// The namespace of the case.
    pub namespace: String,
}

fn gvr(resource: &'static str) -> Gvr {
    match resource {
        "deployments" | "replicasets" => Gvr::new("apps", "v1", resource),
        "leases" => Gvr::new("coordination.k8s.io", "v1", resource),
        "endpointslices" => Gvr::new("discovery.k8s.io", "v1", resource),
        "events.events.k8s.io" => Gvr::new("events.k8s.io", "v1", "events"),
        _ => Gvr::new("", "v1", resource),
    }
}

/// JSON as a request's body.
pub(super) fn body(value: &Value) -> Payload {
    Payload::Json(serde_json::to_vec(value).expect("JSON encodes").into())
}

impl World {
    /// A world with a fresh namespace.
    ///
    /// # Panics
    /// Where the namespace cannot be made.
    pub async fn new(transport: SharedTransport, case: &str) -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let short: String = case.replace('_', "-").chars().take(40).collect();
        let namespace = format!("{}-{number}", short.trim_end_matches('-'));
        let world = Self { transport, namespace };
        world.make_namespace(&world.namespace).await;
        world
    }

    /// Makes a namespace.
    pub(super) async fn make_namespace(&self, name: &str) {
        let object = json!({"metadata": {"name": name}});
        self.create_at(&Target::all(gvr("namespaces")), &object).await.expect("a namespace can be made");
    }

    /// The collection of a resource in the case's namespace.
    pub(super) fn all(&self, resource: &'static str) -> Target {
        match resource {
            "namespaces" | "nodes" => Target::all(gvr(resource)),
            _ => Target::in_namespace(gvr(resource), &self.namespace),
        }
    }

    /// An object in the case's namespace.
    pub(super) fn one(&self, resource: &'static str, name: &str) -> Target {
        Target { name: Some(name.to_owned()), ..self.all(resource) }
    }

    pub(super) async fn create_at(&self, target: &Target, object: &Value) -> ApiResult<Value> {
        self.transport.create(target, body(object), &WriteOptions::default()).await?.object.value()
    }

    pub(super) async fn create(&self, resource: &'static str, object: &Value) -> ApiResult<Value> {
        self.create_at(&self.all(resource), object).await
    }

    /// A ConfigMap with labels.
    pub(super) async fn map(&self, name: &str, labels: &Value) -> Value {
        let object = json!({"metadata": {"name": name, "labels": labels}, "data": {"k": "v"}});
        self.create("configmaps", &object).await.expect("a ConfigMap can be made")
    }

    /// A pod of one container.
    pub(super) async fn pod(&self, name: &str) -> Value {
        let object = json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
        self.create("pods", &object).await.expect("a pod can be made")
    }

    pub(super) async fn get(&self, resource: &'static str, name: &str) -> ApiResult<Value> {
        self.transport.get(&self.one(resource, name)).await?.value()
    }

    pub(super) async fn update(&self, resource: &'static str, name: &str, object: &Value) -> ApiResult<Value> {
        self.update_at(&self.one(resource, name), object).await
    }

    pub(super) async fn update_at(&self, target: &Target, object: &Value) -> ApiResult<Value> {
        self.transport.update(target, body(object), &WriteOptions::default()).await?.object.value()
    }

    pub(super) async fn patch(&self, target: &Target, kind: PatchType, patch: &Value) -> ApiResult<Value> {
        self.transport.patch(target, kind, body(patch), &WriteOptions::default()).await?.object.value()
    }

    pub(super) async fn merge(&self, resource: &'static str, name: &str, patch: &Value) -> ApiResult<Value> {
        self.patch(&self.one(resource, name), PatchType::Merge, patch).await
    }

    pub(super) async fn delete(&self, resource: &'static str, name: &str) -> ApiResult<Deleted> {
        self.transport.delete(&self.one(resource, name), &DeleteOptions::default()).await
    }

    /// The names a list shows, and its revision.
    pub(super) async fn names(
        &self,
        resource: &'static str,
        options: &ListOptions,
    ) -> ApiResult<(Vec<String>, Revision)> {
        let list = self.transport.list(&self.all(resource), options).await?;
        Ok((list.items.iter().map(|o| o.meta.name.clone()).collect(), list.revision))
    }

    /// The names that selectors pick.
    pub(super) async fn picked(&self, resource: &'static str, labels: &str, fields: &str) -> ApiResult<Vec<String>> {
        let options =
            ListOptions { label_selector: labels.into(), field_selector: fields.into(), ..ListOptions::default() };
        self.names(resource, &options).await.map(|(names, _)| names)
    }

    /// The newest revision of a collection.
    pub(super) async fn revision(&self, resource: &'static str) -> Revision {
        self.names(resource, &ListOptions::default()).await.expect("a collection can be listed").1
    }

    /// Follows a collection.
    pub(super) async fn watch(&self, resource: &'static str, options: WatchOptions) -> Changes {
        self.watch_at(&self.all(resource), options).await
    }

    pub(super) async fn watch_at(&self, target: &Target, options: WatchOptions) -> Changes {
        Changes(self.transport.watch(target, &options).await.expect("a collection can be watched"))
    }
}

/// A running watch, read event by event.
pub struct Changes(WatchStream);

impl Changes {
    /// The next event, as `ADDED name`; panics where none comes.
    pub(super) async fn next(&mut self) -> String {
        describe(&self.raw().await.expect("the watch goes on").expect("the watch has no error"))
    }

    /// The next object and what happened to it.
    pub(super) async fn object(&mut self) -> (WatchEventType, std::sync::Arc<Object>) {
        match self.raw().await {
            Some(Ok(WatchEvent::Object(kind, object))) => (kind, object),
            other => panic!("wanted an object, got {other:?}"),
        }
    }

    /// The next item of the stream; panics where none comes in time.
    pub(super) async fn raw(&mut self) -> Option<Result<WatchEvent, ApiError>> {
        tokio::time::timeout(SOON, self.0.next()).await.expect("an event comes in time")
    }
}

fn describe(event: &WatchEvent) -> String {
    match event {
        WatchEvent::Object(WatchEventType::Added, o) => format!("ADDED {}", o.meta.name),
        WatchEvent::Object(WatchEventType::Modified, o) => format!("MODIFIED {}", o.meta.name),
        WatchEvent::Object(WatchEventType::Deleted, o) => format!("DELETED {}", o.meta.name),
        WatchEvent::Object(WatchEventType::Bookmark, _) => "BOOKMARK".to_owned(),
        WatchEvent::Bookmark { initial_done: true, .. } => "BOOKMARK initial".to_owned(),
        WatchEvent::Bookmark { .. } => "BOOKMARK".to_owned(),
    }
}
