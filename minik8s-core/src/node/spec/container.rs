//! What one life of a container should be.

use super::env::{environment, expand};
use super::resources::container_resources;
use super::sandbox::pod_labels;
use super::security::{SeccompRules, security};
use super::{ConfigError, Facts, Sources};
use crate::node::{ids, pod};
use crate::runtime::{ContainerSpec, Mount};
use k8s_openapi::api::core::v1::{Container, Pod};
use std::path::PathBuf;

/// Everything a specification is made from.
pub(crate) struct ContainerInput<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) container: &'a Container,
    pub(crate) attempt: u32,
    pub(crate) step: u32,
    pub(crate) sources: &'a Sources,
    pub(crate) facts: &'a Facts,
    pub(crate) log_path: PathBuf,
    pub(crate) log_max_bytes: u64,
    pub(crate) log_max_files: u32,
    pub(crate) seccomp: SeccompRules<'a>,
}

/// Without mounts; those need the volumes.
pub(crate) fn container_spec(input: &ContainerInput<'_>, mounts: Vec<Mount>) -> Result<ContainerSpec, ConfigError> {
    let ContainerInput { pod, container, .. } = input;
    let env = environment(pod, container, input.sources, input.facts)?;
    let expanded = |words: &Option<Vec<String>>| words.iter().flatten().map(|word| expand(word, &env)).collect();
    let mut labels = pod_labels(pod);
    labels.extend([
        (ids::CONTAINER_NAME.to_owned(), container.name.clone()),
        (ids::ATTEMPT.to_owned(), input.attempt.to_string()),
        (ids::BACKOFF_STEP.to_owned(), input.step.to_string()),
        (ids::IMAGE.to_owned(), container.image.clone().unwrap_or_default()),
    ]);
    Ok(ContainerSpec {
        id: ids::container_id(pod::uid(pod), &container.name, input.attempt),
        image: container.image.clone().unwrap_or_default(),
        command: expanded(&container.command),
        args: expanded(&container.args),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        mounts,
        devices: Vec::new(),
        paths: Vec::new(),
        resources: container_resources(pod, container, &input.facts.node),
        security: security(pod, container, input.seccomp)?,
        tty: container.tty.unwrap_or(false),
        stdin: container.stdin.unwrap_or(false),
        log_path: input.log_path.clone(),
        log_max_bytes: input.log_max_bytes,
        log_max_files: input.log_max_files,
        labels,
        env,
    })
}

/// A sub-path with its `$(NAME)` references replaced; unknown names are an error there.
pub(crate) fn expanded_sub_path(input: &ContainerInput<'_>, path: &str) -> Result<String, ConfigError> {
    let env = environment(input.pod, input.container, input.sources, input.facts)?;
    let text = expand(path, &env);
    if text.contains("$(") {
        return Err(ConfigError::new(format!("subPathExpr {path:?} names a variable that is not set")));
    }
    Ok(text)
}
