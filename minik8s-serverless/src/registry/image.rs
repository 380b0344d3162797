//! Manifests and configurations of images, as far as laying something on top of one needs them.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Media type of manifests.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of layers that are not compressed.
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// What leads to a blob.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Descriptor {
    /// What it is.
    pub media_type: String,
    /// Its digest.
    pub digest: String,
    /// Its bytes.
    pub size: u64,
    /// Whatever else stands there.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// A manifest, or an index of manifests.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Manifest {
    /// 2.
    pub schema_version: u32,
    /// What it is.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// The configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<Descriptor>,
    /// The layers, the lowest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<Descriptor>,
    /// Of an index.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub manifests: Vec<Descriptor>,
}

impl Manifest {
    /// A manifest's bytes; `None` for what is none.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok().filter(|m: &Self| m.schema_version == 2)
    }

    /// The digests it leads to.
    pub fn refers(&self) -> Vec<String> {
        self.config.iter().chain(&self.layers).chain(&self.manifests).map(|d| d.digest.clone()).collect()
    }
}
