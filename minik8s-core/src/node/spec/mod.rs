//! From a pod's record to what the runtime is asked for: environment, resources, identity, files. Data to data.

mod container;
mod env;
mod files;
mod resources;
mod sandbox;
mod security;
mod service_env;
mod sysctls;

pub(crate) use container::{ContainerInput, container_spec, expanded_sub_path};
pub(crate) use env::{Facts, field};
pub(crate) use files::{hosts_file, resolv_conf};
pub(crate) use resources::{NodeSize, pod_resources, qos_class, resource_field};
pub(crate) use sandbox::{hostname, sandbox_spec};
pub(crate) use security::{SeccompRules, fs_group};
pub(crate) use sysctls::forbidden_sysctl;

use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The objects a pod refers to, as they are now. Absent names do not exist.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sources {
    pub(crate) config_maps: BTreeMap<String, Arc<ConfigMap>>,
    pub(crate) secrets: BTreeMap<String, Arc<Secret>>,
    /// Services of the pod's namespace, and the API's own.
    pub(crate) services: Vec<Arc<Service>>,
}

/// A record that asks for something that is not there; `CreateContainerConfigError`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct ConfigError(pub(crate) String);

impl ConfigError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}
