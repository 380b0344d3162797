//! The door from the API server to a node: logs, exec, attach, ports, usage. A node registers it under its name; in one process it
//! is the agent itself, across machines a connection that the node opened.

use crate::api::{ApiError, ApiResult, Reason};
use crate::runtime::{Connection, ContainerStats, ExecSpec, StreamSession};
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use parking_lot::RwLock;
use std::collections::HashMap;
use std::sync::Arc;

/// A container of a pod, as a request names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerRef {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// Uid of the pod.
    pub uid: String,
    /// Name of the container.
    pub container: String,
}

/// A pod, as a request names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodRef {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub pod: String,
    /// Uid.
    pub uid: String,
}

/// A volume of a pod, as a request names it: one of those that containers of the pod write into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeRef {
    /// The pod.
    pub pod: PodRef,
    /// Name of the volume.
    pub volume: String,
}

/// Which files of a volume are meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilesWish {
    /// Patterns of paths below the volume, as [`Beneath::visit`](crate::beneath::Beneath::visit) has them.
    pub patterns: Vec<String>,
    /// So many at most.
    pub most: u32,
    /// With digests.
    pub digests: bool,
}

/// A plain file in a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeFile {
    /// Its path below the volume.
    pub path: String,
    /// Its size in bytes.
    pub size: u64,
    /// SHA-256 of its content, in lower-case hexadecimal digits; empty where nobody asked for it, and
    /// where files are larger than 8 GiB together.
    pub sha256: String,
}

/// What a running container has used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerUsage {
    /// Which.
    pub container: ContainerRef,
    /// Unix milliseconds.
    pub started_at: i64,
    /// How much, and when it was read.
    pub stats: ContainerStats,
}

/// What a machine has used as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MachineUsage {
    /// Unix milliseconds of the reading.
    pub at: i64,
    /// CPU time since it started, in nanoseconds.
    pub cpu_ns: u64,
    /// Memory that cannot be reclaimed, in bytes.
    pub memory_working_set: u64,
    /// All memory in use, in bytes.
    pub memory_usage: u64,
}

/// What a node has used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeUsage {
    /// The machine as a whole; `None` where containers are all there is to measure, as on nodes that pretend.
    pub machine: Option<MachineUsage>,
    /// Its running containers.
    pub containers: Vec<ContainerUsage>,
}

/// Which lines of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Go on as lines appear.
    pub follow: bool,
    /// Of the instance before the present one.
    pub previous: bool,
    /// Only the last so many lines.
    pub tail_lines: Option<u64>,
    /// Only lines since then (unix nanoseconds).
    pub since: Option<i64>,
    /// Each line begins with its time.
    pub timestamps: bool,
    /// At most so many bytes.
    pub limit_bytes: Option<u64>,
}

/// What the API server may ask of a node.
#[async_trait]
pub trait NodeAccess: Send + Sync + 'static {
    /// A container's log, as bytes of text lines.
    async fn logs(
        &self,
        container: &ContainerRef,
        options: LogOptions,
    ) -> ApiResult<BoxStream<'static, ApiResult<Bytes>>>;
    /// Runs a command in a container.
    async fn exec(&self, container: &ContainerRef, spec: ExecSpec) -> ApiResult<StreamSession>;
    /// Joins a container's main process.
    async fn attach(&self, container: &ContainerRef, stdin: bool) -> ApiResult<StreamSession>;
    /// Connects to a TCP port of the pod's loopback. The connection ends with an error where the way to the node does.
    async fn port_forward(&self, pod: &PodRef, port: u16) -> ApiResult<Connection>;
    /// What the node and its running containers have used.
    async fn stats(&self) -> ApiResult<NodeUsage>;
    /// What runs beside the pods counts, as a page of Prometheus; empty where nothing does.
    async fn metrics(&self) -> ApiResult<String> {
        Ok(String::new())
    }
    /// Plain files in a volume, in order of their paths. Links are not followed: containers may write what they like.
    /// `NotFound` where the volume is not there, not yet or not any more.
    async fn volume_files(&self, _: &VolumeRef, _: &FilesWish) -> ApiResult<Vec<VolumeFile>> {
        Err(no_volumes())
    }
    /// Up to `most` bytes of a plain file in a volume, from an offset; none at its end, and where there is no such file.
    async fn read_volume(&self, _: &VolumeRef, _path: &str, _from: u64, _most: u64) -> ApiResult<Bytes> {
        Err(no_volumes())
    }
}

/// The refusal of whoever has no way to volumes of pods.
pub(crate) fn no_volumes() -> ApiError {
    ApiError::new(Reason::MethodNotAllowed, "files of pods' volumes are not to be had here")
}

/// The ways to one node, the newest last.
type Ways = Vec<Arc<dyn NodeAccess>>;

/// The nodes that can be reached now, by name. A node may be reached in several ways, of which the newest counts.
#[derive(Clone, Default)]
pub struct NodeDirectory(Arc<RwLock<HashMap<String, Ways>>>);

impl NodeDirectory {
    /// Registers a way to a node.
    pub fn register(&self, node: impl Into<String>, access: Arc<dyn NodeAccess>) {
        self.0.write().entry(node.into()).or_default().push(access);
    }

    /// Registers a way to a node for as long as the answer lives.
    pub(crate) fn lend(&self, node: String, access: Arc<dyn NodeAccess>) -> Lent {
        self.register(node.clone(), access.clone());
        Lent { nodes: self.clone(), node, access }
    }

    /// Forgets every way to a node.
    pub fn remove(&self, node: &str) {
        self.0.write().remove(node);
    }

    /// The way to a node.
    ///
    /// # Errors
    /// `ServiceUnavailable` where the node has no connection.
    pub fn find(&self, node: &str) -> ApiResult<Arc<dyn NodeAccess>> {
        self.0.read().get(node).and_then(|ways| ways.last()).cloned().ok_or_else(|| {
            ApiError::new(Reason::ServiceUnavailable, format!("node {node:?} is not connected to this API server"))
        })
    }
}

/// A way to a node that is registered while this lives.
pub(crate) struct Lent {
    nodes: NodeDirectory,
    node: String,
    access: Arc<dyn NodeAccess>,
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut nodes = self.nodes.0.write();
        // Other ways to the node stay.
        let Some(ways) = nodes.get_mut(&self.node) else { return };
        ways.retain(|way| !Arc::ptr_eq(way, &self.access));
        if ways.is_empty() {
            nodes.remove(&self.node);
        }
    }
}
