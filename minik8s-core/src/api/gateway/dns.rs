//! `Dns`: a host whose paths lead to Services.

use crate::resource;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use serde::{Deserialize, Serialize};

/// A host whose paths lead to Services of its namespace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Dns {
    /// Names and the rest.
    pub metadata: ObjectMeta,
    /// What is wanted.
    pub spec: DnsSpec,
    /// What is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<DnsStatus>,
}

resource!(Dns, "minik8s.io", "v1alpha1", "Dns", "dns", k8s_openapi::NamespaceResourceScope);

/// What a [`Dns`] wants.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DnsSpec {
    /// The name that is to lead to the paths.
    pub host: String,
    /// Where they lead.
    pub paths: Vec<DnsPath>,
}

/// One path of a [`Dns`], with all that is below it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DnsPath {
    /// `/path`; empty for all.
    pub path: String,
    /// The Service.
    pub service_name: String,
    /// Its port.
    pub service_port: i32,
}

/// What became of a [`Dns`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DnsStatus {
    /// Addresses at which the host is served.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    /// `Ready`, with what keeps it from being so.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}
