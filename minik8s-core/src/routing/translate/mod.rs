//! From the kinds to [`RouteSet`], and what keeps an object from working. Pure: the same objects make the same routes,
//! in the controllers and at every node.

mod backends;
mod conflicts;
mod dns;
mod gateways;
mod http_route;
mod ingress;
mod path_route;
mod plan;
#[cfg(test)]
mod tests;

pub use gateways::ListenerState;
pub use http_route::AttachedRoute;
pub(crate) use plan::duration;

use super::{Owner, RouteSet};
use crate::api::PathRoute;
use crate::api::gateway::{Dns, Gateway, GatewayClass, HttpRoute, ReferenceGrant};
use backends::Backends;
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Who serves the classes of Ingresses that say so.
pub const INGRESS_CONTROLLER: &str = "minik8s.io/gateway";
/// Who serves the classes of Gateways that say so.
pub const CONTROLLER_NAME: &str = "minik8s.io/gateway";
/// Name of the classes that a cluster begins with.
pub const DEFAULT_CLASS: &str = "minik8s";
/// Annotation of nodes that run a gateway; its value is a [`GatewayPlace`].
pub const GATEWAY_ANNOTATION: &str = "minik8s.io/gateway";

/// Namespace and name.
pub type Key = (String, String);

/// Where a gateway runs, and the ports it listens at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GatewayPlace {
    /// The port of routes that name none.
    pub http: Option<u16>,
    /// The same, with TLS.
    pub https: Option<u16>,
    /// All ports at which it listens.
    pub ports: Vec<u16>,
}

/// What keeps an object, or a part of it, from working.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// One word, as conditions have it.
    pub reason: &'static str,
    /// A sentence that names what it is about.
    pub message: String,
}

impl Problem {
    pub(super) fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// Everything routes are made of.
#[derive(Clone, Default)]
pub struct World {
    /// Ingresses.
    pub ingresses: Vec<Arc<Ingress>>,
    /// Their classes.
    pub ingress_classes: Vec<Arc<IngressClass>>,
    /// Gateways.
    pub gateways: Vec<Arc<Gateway>>,
    /// Their classes.
    pub gateway_classes: Vec<Arc<GatewayClass>>,
    /// Routes of Gateways.
    pub http_routes: Vec<Arc<HttpRoute>>,
    /// Leave to refer to other namespaces.
    pub grants: Vec<Arc<ReferenceGrant>>,
    /// Hosts with paths.
    pub dns: Vec<Arc<Dns>>,
    /// Paths that lead to Services whatever the host.
    pub path_routes: Vec<Arc<PathRoute>>,
    /// Services.
    pub services: Vec<Arc<Service>>,
    /// Namespaces, for their labels.
    pub namespaces: Vec<Arc<Namespace>>,
    /// What is wrong with the Secrets that certificates come from; `None` where nobody looked.
    pub certificates: Option<BTreeMap<Key, Result<(), String>>>,
}

/// What became of an Ingress, a Dns, or a route as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteState {
    /// What does not work; the rest does.
    pub problems: Vec<Problem>,
}

/// What the kinds come to.
#[derive(Clone, Debug, Default)]
pub struct Translation {
    /// What gateways follow.
    pub routes: RouteSet,
    /// Ingresses that are served here.
    pub ingresses: BTreeMap<Key, RouteState>,
    /// All Dns.
    pub dns: BTreeMap<Key, RouteState>,
    /// All PathRoutes.
    pub path_routes: BTreeMap<Key, RouteState>,
    /// Gateways that are served here, with their listeners.
    pub gateways: BTreeMap<Key, Vec<ListenerState>>,
    /// Routes with a parent that is served here.
    pub http_routes: BTreeMap<Key, Vec<AttachedRoute>>,
    /// Rules that an older object has already made, by the object that lost.
    pub conflicts: BTreeMap<Owner, Vec<Problem>>,
}

/// What the kinds come to.
pub fn translate(world: &World) -> Translation {
    let backends = Backends::new(world);
    let mut made = Translation::default();
    ingress::translate(world, &backends, &mut made);
    dns::translate(world, &backends, &mut made);
    path_route::translate(world, &mut made);
    gateways::translate(world, &backends, &mut made);
    http_route::translate(world, &backends, &mut made);
    made.conflicts = conflicts::find(&made.routes.rules);
    made
}

fn key_of(meta: &ObjectMeta) -> Key {
    (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

/// The name of a cookie that nobody named: each rule has its own, as what it leads to has.
fn cookie_name(owner: &Owner, place: (usize, usize)) -> String {
    let Owner { kind, namespace, name, .. } = owner;
    let hash = Sha256::digest(format!("{kind}/{namespace}/{name}/{}/{}", place.0, place.1));
    let hex: String = hash.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    format!("minik8s-{hex}")
}

/// What clients cannot know of an object.
fn secret_of(meta: &ObjectMeta) -> String {
    meta.uid.clone().unwrap_or_default()
}

fn owner(kind: &'static str, meta: &ObjectMeta) -> Owner {
    let (namespace, name) = key_of(meta);
    let created = meta.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second());
    Owner { created, namespace, name, kind }
}
