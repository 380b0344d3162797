//! What the API server promises beyond single requests: under load, with faults, across restarts.

mod fanout;
mod faults;
mod histories;
mod limits;
mod lost_store;
mod presence;
mod sidecars;

use minik8s_core::api::{Gvr, Target};
use minik8s_core::client::{Payload, Transport, WriteOptions};
use minik8s_core::server::{ApiServer, ApiServerBuilder, WatchSettings};
use minik8s_core::store::MemoryStore;
use serde_json::{Value, json};
use std::sync::Arc;

/// A server on a fresh memory store.
pub(crate) fn builder() -> ApiServerBuilder {
    ApiServer::builder(Arc::new(MemoryStore::new())).seed(7)
}

/// ConfigMaps of the namespace `default`.
pub(crate) fn maps() -> Target {
    Target::in_namespace(Gvr::new("", "v1", "configmaps"), "default")
}

/// One ConfigMap.
pub(crate) fn map(name: &str) -> Target {
    Target { name: Some(name.to_owned()), ..maps() }
}

pub(crate) fn body(value: &Value) -> Payload {
    Payload::Json(serde_json::to_vec(value).unwrap().into())
}

/// Makes a ConfigMap and returns its revision.
pub(crate) async fn make(server: &ApiServer, name: &str) -> u64 {
    let object = json!({"metadata": {"name": name}, "data": {"k": "v"}});
    server.create(&maps(), body(&object), &WriteOptions::default()).await.unwrap().object.revision
}

/// Changes a ConfigMap and returns its revision.
pub(crate) async fn change(server: &ApiServer, name: &str, value: &str) -> u64 {
    let object = json!({"metadata": {"name": name}, "data": {"k": value}});
    server.update(&map(name), body(&object), &WriteOptions::default()).await.unwrap().object.revision
}

/// Small histories and queues.
pub(crate) fn small(history: usize, queue: usize) -> WatchSettings {
    WatchSettings { history, queue, ..WatchSettings::default() }
}
