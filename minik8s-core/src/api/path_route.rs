//! `PathRoute`: paths that lead to Services whatever the host, and whose requests may be held until somebody is there to
//! take them. For controllers that bring up endpoints when they are needed; they are told by [`Demand`](super::Demand).

use crate::resource;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use serde::{Deserialize, Serialize};

/// Label (`"true"`) of Services of `kube-system` that take requests of all namespaces' routes
/// ([`deferred`](PathRouteSpec::deferred)): whoever may write Services there says so, and nobody else can.
pub const FOR_ALL_NAMESPACES: &str = "minik8s.io/for-all-namespaces";

/// A path, with all below it, that leads to Services of its namespace at every gateway.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PathRoute {
    /// Names and the rest.
    pub metadata: ObjectMeta,
    /// What is wanted.
    pub spec: PathRouteSpec,
    /// What became of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<PathRouteStatus>,
}

resource!(PathRoute, "minik8s.io", "v1alpha1", "PathRoute", "pathroutes", k8s_openapi::NamespaceResourceScope);

/// What became of a [`PathRoute`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PathRouteStatus {
    /// `Accepted`, once there has been something wrong with it: a route that says nothing is served.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// What a [`PathRoute`] wants.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PathRouteSpec {
    /// The path.
    pub path: String,
    /// What backends see instead of it; the path itself where it is empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub rewrite: String,
    /// Who gets the requests.
    pub backends: Vec<PathBackend>,
    /// Requests wait where nobody can take them, instead of being refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,
    /// Who gets those that need not be waited for instead, as they came: a POST to the very path that says `Prefer:
    /// respond-async`. A Service of `kube-system` that has the label [`FOR_ALL_NAMESPACES`]; its weight means nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deferred: Option<PathBackend>,
    /// How long a request may take until its answer begins; 0 for any time.
    pub timeout_seconds: i64,
    /// Largest body of requests; 0 for any.
    pub max_body_bytes: i64,
}

/// A Service and its share.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PathBackend {
    /// The Service.
    pub service: String,
    /// Its port.
    pub port: i32,
    /// Its share; 0 gets nothing.
    pub weight: i32,
}

/// How requests wait. One gateway keeps to it by itself: it knows nothing of the others' requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Hold {
    /// How many may wait for one backend; more are refused (429).
    pub queue: i32,
    /// How long one may wait (then 504).
    pub patience_seconds: i64,
    /// Requests that one endpoint gets at once; 0 for any number.
    pub concurrency: i32,
}
