//! Reading pods: the questions every part of the agent asks of a specification.

use crate::api::NODE_NOT_READY;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodSpec, PodStatus};
use std::sync::LazyLock;

/// Annotation of pods, `true` where their containers are to stand still: they keep what they have, and the pod is not
/// ready meanwhile.
pub const PAUSED: &str = "minik8s.io/paused";

/// What becomes of a container whose process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

impl RestartPolicy {
    pub(crate) fn of(pod: &Pod) -> Self {
        match spec(pod).restart_policy.as_deref() {
            Some("Never") => Self::Never,
            Some("OnFailure") => Self::OnFailure,
            _ => Self::Always,
        }
    }

    pub(crate) fn restarts(self, code: i32) -> bool {
        match self {
            Self::Always => true,
            Self::OnFailure => code != 0,
            Self::Never => false,
        }
    }
}

/// True where the cluster has given the pod up, as its node was not heard of: what the record says is not from here.
pub(crate) fn is_given_up(pod: &Pod) -> bool {
    let mut conditions = status(pod).conditions.iter().flatten();
    conditions.any(|c| c.type_ == "Ready" && c.reason.as_deref() == Some(NODE_NOT_READY))
}

/// True where its containers are to be paused.
pub(crate) fn is_to_pause(pod: &Pod) -> bool {
    let annotations = pod.metadata.annotations.as_ref();
    annotations.and_then(|all| all.get(PAUSED)).is_some_and(|value| value == "true")
}

/// The role of a container within its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Runs to its end before the next one.
    Init,
    /// Starts in the order of the init containers, and stays.
    Sidecar,
    Main,
}

pub(crate) fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

pub(crate) fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

pub(crate) fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or_default()
}

/// `namespace/name`
pub(crate) fn key(pod: &Pod) -> String {
    format!("{}/{}", namespace(pod), name(pod))
}

pub(crate) fn spec(pod: &Pod) -> &PodSpec {
    static EMPTY: LazyLock<PodSpec> = LazyLock::new(PodSpec::default);
    pod.spec.as_ref().unwrap_or(&EMPTY)
}

pub(crate) fn status(pod: &Pod) -> &PodStatus {
    static EMPTY: LazyLock<PodStatus> = LazyLock::new(PodStatus::default);
    pod.status.as_ref().unwrap_or(&EMPTY)
}

/// Init containers and sidecars, then main containers.
pub(crate) fn containers(pod: &Pod) -> impl Iterator<Item = (Role, &Container)> {
    inits(pod).map(|c| (init_role(c), c)).chain(mains(pod).map(|c| (Role::Main, c)))
}

pub(crate) fn inits(pod: &Pod) -> impl DoubleEndedIterator<Item = &Container> {
    spec(pod).init_containers.iter().flatten()
}

pub(crate) fn mains(pod: &Pod) -> impl Iterator<Item = &Container> {
    spec(pod).containers.iter()
}

pub(crate) fn init_role(container: &Container) -> Role {
    if container.restart_policy.as_deref() == Some("Always") { Role::Sidecar } else { Role::Init }
}

pub(crate) fn find<'a>(pod: &'a Pod, container: &str) -> Option<(Role, &'a Container)> {
    containers(pod).find(|(_, c)| c.name == container)
}

/// The status the API has of a container.
pub(crate) fn recorded<'a>(pod: &'a Pod, container: &str) -> Option<&'a ContainerStatus> {
    let status = status(pod);
    let all = status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten());
    all.into_iter().find(|c| c.name == container)
}

/// `Succeeded` or `Failed`: nothing runs in it ever again.
pub(crate) fn is_terminal(pod: &Pod) -> bool {
    matches!(status(pod).phase.as_deref(), Some("Succeeded" | "Failed"))
}

/// When its deletion was asked for to be complete.
pub(crate) fn deletion(pod: &Pod) -> Option<Timestamp> {
    pod.metadata.deletion_timestamp.as_ref().map(|t| t.0)
}

/// Seconds its containers get to end by themselves.
pub(crate) fn grace_seconds(pod: &Pod) -> u64 {
    let own = spec(pod).termination_grace_period_seconds.unwrap_or(30);
    u64::try_from(pod.metadata.deletion_grace_period_seconds.unwrap_or(own)).unwrap_or(0)
}
