//! What is remembered of a container: it travels inside containerd's own record, and in a file beside it for the case
//! that containerd's record vanishes.

use crate::config::hex;
use crate::log_driver::Order;
use containerd_client::services::v1::Container;
use minik8s_core::runtime::{ContainerSpec, Labels};
use prost_types::Any;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::path::PathBuf;

/// Key of the extension that holds the record.
pub(crate) const EXTENSION: &str = "minik8s.container";
/// Label by which containers of a sandbox are found.
pub(crate) const SANDBOX_LABEL: &str = "minik8s.io/sandbox";

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) version: u32,
    pub(crate) id: String,
    pub(crate) sandbox: String,
    pub(crate) image: String,
    pub(crate) image_id: String,
    pub(crate) labels: Labels,
    pub(crate) log_path: PathBuf,
    pub(crate) log_max_bytes: u64,
    pub(crate) log_max_files: u32,
    pub(crate) tty: bool,
    pub(crate) stdin: bool,
    pub(crate) stop_signal: String,
    pub(crate) cgroup: String,
    pub(crate) created_at: i64,
}

impl Record {
    pub(crate) fn new(sandbox: &str, spec: &ContainerSpec, cgroup: String, created_at: i64) -> Self {
        Self {
            version: 1,
            id: spec.id.clone(),
            sandbox: sandbox.to_owned(),
            image: spec.image.clone(),
            labels: spec.labels.clone(),
            log_path: spec.log_path.clone(),
            log_max_bytes: spec.log_max_bytes,
            log_max_files: spec.log_max_files,
            tty: spec.tty,
            stdin: spec.stdin,
            cgroup,
            created_at,
            ..Self::default()
        }
    }

    pub(crate) fn of(container: &Container) -> Option<Self> {
        serde_json::from_slice(&container.extensions.get(EXTENSION)?.value).ok()
    }

    pub(crate) fn to_extension(&self) -> Any {
        Any { type_url: EXTENSION.to_owned(), value: serde_json::to_vec(self).unwrap_or_default() }
    }

    /// The log driver's order; `None` where nobody wants the log.
    pub(crate) fn log_order(&self) -> Option<Order> {
        (!self.log_path.as_os_str().is_empty()).then(|| Order {
            path: self.log_path.clone(),
            max_bytes: self.log_max_bytes,
            max_files: self.log_max_files,
            eager: self.tty || self.stdin,
            fifos: None,
        })
    }
}

/// containerd takes at most 76 characters, letters and digits with single separators between; other ids are hashed.
pub(crate) fn containerd_id(id: &str) -> String {
    let plain = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric());
    if id.len() <= 76 && id.split(['.', '_', '-']).all(plain) {
        return id.to_owned();
    }
    let digest = Sha256::digest(id.as_bytes());
    format!("h{}", &hex(&digest)[..48])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_containerd_refuses_are_hashed() {
        assert_eq!(containerd_id("0f-web-0_1.x"), "0f-web-0_1.x");
        for id in ["a--b", "-a", "a/b", &"x".repeat(77), ""] {
            let hashed = containerd_id(id);
            assert!(hashed.len() == 49 && hashed.starts_with('h'), "{id:?} {hashed}");
        }
        assert_ne!(containerd_id("a--b"), containerd_id("a--c"));
    }

    #[test]
    fn records_survive_the_trip_through_containerd() {
        let spec = ContainerSpec { id: "c".into(), tty: true, log_path: "/l".into(), ..ContainerSpec::default() };
        let record = Record::new("pod", &spec, "/minik8s/c".into(), 7);
        let extensions = [(EXTENSION.to_owned(), record.to_extension())].into();
        assert_eq!(Record::of(&Container { extensions, ..Container::default() }), Some(record.clone()));
        assert!(record.log_order().is_some_and(|o| o.eager));
    }
}
