//! Manifests and indexes: which blobs an image consists of.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub(super) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(super) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(super) const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub(super) const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// A blob and what it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    pub(super) media_type: String,
    pub(super) digest: String,
    pub(super) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) platform: Option<Platform>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) annotations: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Platform {
    #[serde(default)]
    pub(super) os: String,
    #[serde(default)]
    pub(super) architecture: String,
}

/// A manifest or an index: the two are told apart by what they hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Manifest {
    pub(super) schema_version: u32,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) media_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) config: Option<Descriptor>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) layers: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) manifests: Vec<Descriptor>,
}

impl Manifest {
    /// The entry of an index for this machine; an entry without a platform serves all.
    pub(super) fn for_this_machine(&self) -> Option<&Descriptor> {
        let fits = |d: &&Descriptor| {
            d.platform.as_ref().is_some_and(|p| p.os == "linux" && p.architecture == machine_architecture())
        };
        self.manifests.iter().find(fits).or_else(|| self.manifests.iter().find(|d| d.platform.is_none()))
    }

    /// Labels that tell the garbage collector what this manifest needs.
    pub(super) fn gc_labels(&self) -> Vec<(String, String)> {
        let config = self.config.iter().map(|c| ("containerd.io/gc.ref.content.config".to_owned(), c.digest.clone()));
        let layer = |(n, d): (usize, &Descriptor)| (format!("containerd.io/gc.ref.content.l.{n}"), d.digest.clone());
        let entry = |(n, d): (usize, &Descriptor)| (format!("containerd.io/gc.ref.content.m.{n}"), d.digest.clone());
        config
            .chain(self.layers.iter().enumerate().map(layer))
            .chain(self.manifests.iter().enumerate().map(entry))
            .collect()
    }
}

/// This machine's architecture in the words of images.
pub(super) fn machine_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(digest: &str, platform: Option<(&str, &str)>) -> Descriptor {
        let platform = platform.map(|(os, arch)| Platform { os: os.into(), architecture: arch.into() });
        Descriptor { digest: digest.into(), platform, ..Descriptor::default() }
    }

    #[test]
    fn an_index_answers_for_this_machine() {
        let here = machine_architecture();
        let index = |manifests| Manifest { manifests, ..Manifest::default() };
        let many = index(vec![entry("w", Some(("windows", here))), entry("l", Some(("linux", here)))]);
        assert_eq!(many.for_this_machine().map(|d| d.digest.as_str()), Some("l"));
        assert_eq!(index(vec![entry("x", None)]).for_this_machine().map(|d| d.digest.as_str()), Some("x"));
        assert_eq!(index(vec![entry("o", Some(("linux", "other")))]).for_this_machine(), None);
    }

    #[test]
    fn the_collector_learns_of_every_blob() {
        let text = r#"{"schemaVersion":2,"config":{"mediaType":"c","digest":"sha256:c","size":1},
            "layers":[{"mediaType":"l","digest":"sha256:l","size":2}]}"#;
        let manifest: Manifest = serde_json::from_str(text).expect("manifest");
        let labels = manifest.gc_labels();
        assert_eq!(labels[0], ("containerd.io/gc.ref.content.config".into(), "sha256:c".into()));
        assert_eq!(labels[1], ("containerd.io/gc.ref.content.l.0".into(), "sha256:l".into()));
    }
}
