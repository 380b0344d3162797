//! The contract of a container runtime: sandboxes, containers, images, streams, statistics and events.
//!
//! The node agent is its only caller. A runtime keeps its own records (labels on containers, files beside them), so
//! that an agent killed at any instant finds everything again through the `list` calls; it never asks the API.
//! Every call is idempotent: making what exists returns it, removing what is gone succeeds.

mod error;
mod pods;
mod streams;

pub use error::{RuntimeError, RuntimeResult};
pub use pods::{
    ContainerId, ContainerInfo, ContainerSpec, ContainerState, DeviceNode, Exit, Labels, MemoryVolume, Mount,
    Resources, SandboxId, SandboxInfo, SandboxSpec, Seccomp, Security,
};
pub use streams::{
    Connection, ContainerStats, Duplex, ExecSpec, ImageInfo, Output, PullProgress, RegistryAuth, RuntimeEvent,
    StreamSession, TerminalSize,
};

use async_trait::async_trait;
use futures::stream::BoxStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// What an implementation can do beyond the required.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeCapabilities {
    /// Name and version, as `kubectl get nodes -o wide` shows it: `containerd://1.6.20`.
    pub version: String,
    /// Containers run real processes with addresses of their own (false for fakes).
    pub real_processes: bool,
    /// `SandboxSpec::share_pids` is honoured.
    pub share_pids: bool,
}

/// The namespaces the containers of a pod share.
#[async_trait]
pub trait Sandboxes: Send + Sync {
    /// Makes the sandbox, or returns the one of that id. Its network namespace exists, with loopback up, and nothing else.
    async fn run_sandbox(&self, spec: &SandboxSpec) -> RuntimeResult<SandboxInfo>;
    /// Kills and removes every container in it, then unpins its namespaces. Missing is success.
    async fn remove_sandbox(&self, id: &str) -> RuntimeResult<()>;
    /// Every sandbox, also those only half there.
    async fn sandboxes(&self) -> RuntimeResult<Vec<SandboxInfo>>;
}

/// Processes with a file system of their own.
#[async_trait]
pub trait Containers: Send + Sync {
    /// Makes a container without starting it. Of an existing id: returns `Ok` where the sandbox is the same.
    ///
    /// # Errors
    /// `NotFound` for the image or the sandbox, `Container` for a specification that cannot work.
    async fn create_container(&self, sandbox: &str, spec: &ContainerSpec) -> RuntimeResult<()>;
    /// Starts its process. Running already is success; exited is `WrongState`. Where it cannot be started (no such
    /// program), the error says why, and the container has ended with code 128.
    async fn start_container(&self, id: &str) -> RuntimeResult<()>;
    /// Sends SIGTERM (or the image's stop signal), waits up to `grace`, then kills the whole container. Returns after
    /// the end. Missing or ended is success. Calls may overlap: the shortest grace wins.
    async fn stop_container(&self, id: &str, grace: Duration) -> RuntimeResult<()>;
    /// Freezes all its processes: they keep their memory and sockets and get no time until they are resumed. Returns once
    /// they stand still. Paused already is success.
    ///
    /// # Errors
    /// `NotFound` for the missing, `WrongState` for one that does not run.
    async fn pause_container(&self, id: &str) -> RuntimeResult<()>;
    /// Lets them go on. Not paused, ended or missing is success; a stop or a removal does it by itself.
    async fn resume_container(&self, id: &str) -> RuntimeResult<()>;
    /// Kills it where it runs, removes it and its writable layer; its log stays. Missing is success.
    async fn remove_container(&self, id: &str) -> RuntimeResult<()>;
    /// Containers of one sandbox, or all.
    async fn containers(&self, sandbox: Option<&str>) -> RuntimeResult<Vec<ContainerInfo>>;
    /// One container.
    async fn container(&self, id: &str) -> RuntimeResult<Option<ContainerInfo>>;
    /// What it used. `NotFound` for the missing, `WrongState` for one that does not run.
    async fn stats(&self, id: &str) -> RuntimeResult<ContainerStats>;
}

/// Images.
#[async_trait]
pub trait Images: Send + Sync {
    /// The image of that name, digest or id, where it is here.
    async fn image(&self, name: &str) -> RuntimeResult<Option<ImageInfo>>;
    /// All of them.
    async fn images(&self) -> RuntimeResult<Vec<ImageInfo>>;
    /// Fetches an image: every digest is verified, layers come in parallel, and only a complete image becomes visible.
    async fn pull(
        &self,
        name: &str,
        auth: Option<&RegistryAuth>,
        progress: Option<mpsc::Sender<PullProgress>>,
    ) -> RuntimeResult<ImageInfo>;
    /// Takes in an OCI or docker archive (`docker save`, `oci-archive`), plain or gzipped; `name` overrides its own.
    async fn import(&self, archive: PathBuf, name: Option<&str>) -> RuntimeResult<Vec<ImageInfo>>;
    /// Forgets a name; the content goes with the last name. Missing is success.
    async fn remove_image(&self, name: &str) -> RuntimeResult<()>;
}

/// Commands in containers, their terminals, and connections to what listens there.
#[async_trait]
pub trait Streams: Send + Sync {
    /// Runs a command beside the main process.
    async fn exec(&self, id: &str, spec: ExecSpec) -> RuntimeResult<StreamSession>;
    /// Joins the main process's output (and input, where the container was made with `stdin`).
    async fn attach(&self, id: &str, stdin: bool) -> RuntimeResult<StreamSession>;
    /// Connects to a TCP port of loopback as the sandbox's containers see it: 127.0.0.1, then ::1. The connection is
    /// made when this returns, whoever listens there.
    ///
    /// # Errors
    /// `NotFound` for the sandbox, `Refused` where nobody listens.
    async fn connect(&self, sandbox: &str, port: u16) -> RuntimeResult<Connection>;
}

/// Volumes that need the kernel's help. A runtime without real processes may leave them plain directories.
#[async_trait]
pub trait Volumes: Send + Sync {
    /// Mounts a file system in memory, writable for all. There already is success, and changes nothing.
    async fn mount_memory(&self, volume: &MemoryVolume) -> RuntimeResult<()>;
    /// Unmounts everything below `directory`, with its content. Missing is success.
    async fn unmount_below(&self, directory: &Path) -> RuntimeResult<()>;
}

/// A container runtime: all the roles together.
#[async_trait]
pub trait Runtime: Sandboxes + Containers + Images + Streams + Volumes + 'static {
    /// What this implementation can do.
    async fn capabilities(&self) -> RuntimeResult<RuntimeCapabilities>;
    /// Changes from now on. The stream ends only with the runtime object; outages show as [`RuntimeEvent::Resync`].
    async fn events(&self) -> RuntimeResult<BoxStream<'static, RuntimeEvent>>;
}

/// A shared runtime.
pub type SharedRuntime = Arc<dyn Runtime>;
