//! `Demand`: what a node's gateway is asked for by requests that may be held. Written by the gateway at once when a
//! request waits and nobody is there to take it, about once a second while there is load, and not while there is none.

use crate::resource;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use serde::{Deserialize, Serialize};

/// What a node's gateway is asked for. It has the node's name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Demand {
    /// Names and the rest.
    pub metadata: ObjectMeta,
    /// What was seen.
    pub spec: DemandSpec,
}

resource!(Demand, "minik8s.io", "v1alpha1", "Demand", "demands", k8s_openapi::ClusterResourceScope);

/// What a gateway has seen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DemandSpec {
    /// When it was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<MicroTime>,
    /// Backends with requests; one that is missing has none.
    pub backends: Vec<BackendDemand>,
}

/// What is asked of one port of a Service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BackendDemand {
    /// Namespace of the Service.
    pub namespace: String,
    /// Its name.
    pub service: String,
    /// Its port.
    pub port: i32,
    /// Requests that wait now.
    pub waiting: i64,
    /// Requests that endpoints work on now.
    pub active: i64,
    /// Requests at once, waiting and being worked on, on the average since the report before.
    pub concurrency: f64,
    /// Requests that came since the report before, per second.
    pub rate: f64,
}
