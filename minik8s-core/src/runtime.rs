//! The contract of a container runtime: sandboxes, containers, images, streams, statistics and events.
//!
//! The node agent is its only caller. A runtime keeps its own records (labels on containers, files beside them), so
//! that an agent killed at any instant finds everything again through the `list` calls; it never asks the API.
//! Every call is idempotent: making what exists returns it, removing what is gone succeeds.

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Identity of a sandbox: the pod's uid.
pub type SandboxId = String;
/// Identity of a container, chosen by the agent: unique on the node, stable over retries of the same attempt.
pub type ContainerId = String;

/// Labels the agent puts on sandboxes and containers and finds again after a restart.
pub type Labels = BTreeMap<String, String>;

/// What a sandbox should be: the namespaces the containers of one pod share.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// Identity, the pod's uid.
    pub id: SandboxId,
    /// Host name inside.
    pub hostname: String,
    /// Use the host's network namespace.
    pub host_network: bool,
    /// Use the host's PID namespace.
    pub host_pid: bool,
    /// Use the host's IPC namespace.
    pub host_ipc: bool,
    /// Containers see one another's processes (needs a pause process).
    pub share_pids: bool,
    /// Kernel parameters of the pod's namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// Path below the runtime's root cgroup, such as `burstable/pod<uid>`.
    pub cgroup_parent: String,
    /// Limits of the pod as a whole.
    pub resources: Resources,
    /// Kept with the sandbox.
    pub labels: Labels,
}

/// A sandbox that exists.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxInfo {
    /// Version of this record, for `recover` across upgrades.
    pub version: u32,
    /// What was asked for.
    pub spec: SandboxSpec,
    /// The network namespace to attach, `None` for the host's own.
    pub netns: Option<PathBuf>,
    /// False where part of it is missing (say, after a reboot): remove it and make it again.
    pub ready: bool,
    /// Unix milliseconds.
    pub created_at: i64,
}

/// What a process may use. Zero means unlimited or default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Relative weight, 2..=262144 (the meaning of cgroup v1 `cpu.shares`; converted on v2).
    pub cpu_shares: u64,
    /// CPU time per period in microseconds.
    pub cpu_quota_us: i64,
    /// Length of a period in microseconds.
    pub cpu_period_us: u64,
    /// Bytes of memory, swap included.
    pub memory_bytes: i64,
    /// `-1000..=1000`
    pub oom_score_adj: i32,
}

/// A directory or file of the host shown inside a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Path on the host.
    pub source: PathBuf,
    /// Path inside.
    pub target: PathBuf,
    /// No writes through it.
    pub read_only: bool,
    /// `private` (false) or `rslave` propagation (true).
    pub propagate: bool,
}

/// Who the process is and what it may do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Security {
    /// User id; `None` takes the image's user.
    pub user: Option<i64>,
    /// Group id; `None` takes the image's group.
    pub group: Option<i64>,
    /// More groups.
    pub supplemental_groups: Vec<i64>,
    /// All capabilities, all devices.
    pub privileged: bool,
    /// The root file system is read-only.
    pub read_only_root: bool,
    /// Sets `no_new_privs`.
    pub no_new_privileges: bool,
    /// Capabilities added to the default set (`NET_ADMIN`, or `ALL`).
    pub add_capabilities: Vec<String>,
    /// Capabilities dropped from it (`KILL`, or `ALL`).
    pub drop_capabilities: Vec<String>,
    /// Refuse to run as user 0.
    pub run_as_non_root: bool,
    /// Only `supplemental_groups`: memberships in the image's `/etc/group` do not count.
    #[serde(default)]
    pub strict_groups: bool,
    /// Which system calls it may make. Privileged processes may make all.
    #[serde(default)]
    pub seccomp: Seccomp,
}

/// A filter of system calls.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seccomp {
    /// All calls.
    #[default]
    Unconfined,
    /// Those that ordinary programs make, more with more capabilities.
    RuntimeDefault,
    /// As this file says: the `linux.seccomp` part of an OCI specification as JSON. Read when the container is made.
    Profile(PathBuf),
}

/// What a container should be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// Identity.
    pub id: ContainerId,
    /// Image, as [`Images::image`] knows it.
    pub image: String,
    /// Replaces the image's entrypoint where it is not empty.
    pub command: Vec<String>,
    /// Replaces the image's cmd where it is not empty (and, with `command`, always).
    pub args: Vec<String>,
    /// Added to the image's environment, in order.
    pub env: Vec<(String, String)>,
    /// Working directory; empty takes the image's.
    pub working_dir: String,
    /// What is mounted into it.
    pub mounts: Vec<Mount>,
    /// What it may use.
    pub resources: Resources,
    /// Who it is.
    pub security: Security,
    /// A terminal for the main process.
    pub tty: bool,
    /// Keep standard input open.
    pub stdin: bool,
    /// File that receives the output in CRI format (`<RFC 3339 nanoseconds> stdout|stderr F|P <line>`); rotated by the
    /// runtime as `path.1`, … beyond `log_max_bytes`. The writer outlives the agent.
    pub log_path: PathBuf,
    /// Size at which the log file is rotated.
    pub log_max_bytes: u64,
    /// How many files are kept, the current one included.
    pub log_max_files: u32,
    /// Kept with the container.
    pub labels: Labels,
}

/// Where a container is in its life. It only moves forward.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerState {
    /// Made, not started.
    #[default]
    Created,
    /// Its process runs.
    Running,
    /// Its process ended.
    Exited(Exit),
}

/// How a process ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Exit code; 128 + signal where a signal ended it.
    pub code: i32,
    /// The kernel killed it for memory.
    pub oom_killed: bool,
    /// Unix milliseconds.
    pub finished_at: i64,
}

/// A container that exists.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerInfo {
    /// Identity.
    pub id: ContainerId,
    /// The sandbox it lives in.
    pub sandbox: SandboxId,
    /// Image it was made from, and that image's content digest (`sha256:…`).
    pub image: String,
    /// Digest of the image's configuration.
    pub image_id: String,
    /// Where it is in its life.
    pub state: ContainerState,
    /// Unix milliseconds, 0 before.
    pub created_at: i64,
    /// Unix milliseconds, 0 before.
    pub started_at: i64,
    /// Process id on the host while it runs.
    pub pid: Option<u32>,
    /// Its log file.
    pub log_path: PathBuf,
    /// As given.
    pub labels: Labels,
}

/// An image that is here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageInfo {
    /// Names it is known by, normalised (`docker.io/library/nginx:1.25`).
    pub names: Vec<String>,
    /// Digest of its configuration: the image's identity.
    pub id: String,
    /// Digests of manifests, `name@sha256:…`.
    pub repo_digests: Vec<String>,
    /// Bytes on disk.
    pub size: u64,
    /// The user its processes run as, as the configuration spells it.
    pub user: String,
}

/// Credentials for a registry. `Debug` hides them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RegistryAuth {
    /// User name.
    pub username: String,
    /// Password or token.
    pub password: String,
}

impl std::fmt::Debug for RegistryAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RegistryAuth(hidden)")
    }
}

/// How far a pull has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PullProgress {
    /// What is happening: `resolving`, `downloading`, `unpacking`, `done`.
    pub phase: &'static str,
    /// Bytes here so far.
    pub bytes: u64,
    /// Bytes in all, 0 while unknown.
    pub total: u64,
}

/// What a process used so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerStats {
    /// Unix milliseconds of the reading.
    pub at: i64,
    /// CPU time since its start, in nanoseconds.
    pub cpu_ns: u64,
    /// Memory that cannot be reclaimed, in bytes.
    pub memory_working_set: u64,
    /// All memory, in bytes.
    pub memory_usage: u64,
    /// Processes.
    pub pids: u64,
}

/// A command to run inside a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecSpec {
    /// Program and arguments.
    pub command: Vec<String>,
    /// With a terminal: stderr is merged into stdout.
    pub tty: bool,
    /// Standard input is wanted.
    pub stdin: bool,
}

/// Size of a terminal in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// A running command or an attached container. Dropping `stdin` closes standard input; dropping the whole session
/// kills a command, and merely leaves an attached container.
#[derive(Debug)]
pub struct StreamSession {
    /// Bytes for standard input, where it was asked for.
    pub stdin: Option<mpsc::Sender<Bytes>>,
    /// What it prints; closed when both outputs have ended.
    pub output: mpsc::Receiver<Output>,
    /// New sizes of its terminal.
    pub resize: Option<mpsc::Sender<TerminalSize>>,
    /// Its exit code, after all output.
    pub exit: oneshot::Receiver<Result<i32, RuntimeError>>,
}

/// A piece of output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// From standard output.
    Stdout(Bytes),
    /// From standard error.
    Stderr(Bytes),
}

/// Something happened to a container. A lost event costs nothing but time: the agent also lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuntimeEvent {
    /// A container changed its state, or went.
    Container {
        /// Its sandbox.
        sandbox: SandboxId,
        /// Itself.
        id: ContainerId,
    },
    /// Events may have been lost (the runtime restarted, a queue ran over): list everything.
    Resync,
}

/// Why a runtime refused.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// The thing named does not exist.
    #[error("{what} {name} not found")]
    NotFound {
        /// `image`, `container`, `sandbox`.
        what: &'static str,
        /// Which one.
        name: String,
    },
    /// The image's name cannot be read.
    #[error("invalid image name {name:?}: {cause}")]
    InvalidImageName {
        /// As given.
        name: String,
        /// Why.
        cause: String,
    },
    /// The image could not be pulled.
    #[error("failed to pull {image}: {cause}")]
    Pull {
        /// As given.
        image: String,
        /// Why: unknown name, no access, no network, digest mismatch.
        cause: String,
    },
    /// The container could not be made or started: its command is missing, a mount does not exist, …
    #[error("failed to {operation} container {id}: {cause}")]
    Container {
        /// `create` or `start`.
        operation: &'static str,
        /// Which one.
        id: String,
        /// Why.
        cause: String,
    },
    /// The call does not fit the state, such as exec in an exited container.
    #[error("{name} is {state}, cannot {operation}")]
    WrongState {
        /// Which one.
        name: String,
        /// Its state.
        state: &'static str,
        /// What was asked for.
        operation: &'static str,
    },
    /// Not something this implementation can do; see [`RuntimeCapabilities`].
    #[error("not supported by this runtime: {0}")]
    Unsupported(&'static str),
    /// The call's arguments break a rule.
    #[error("invalid request: {0}")]
    Invalid(String),
    /// The runtime cannot answer now.
    #[error("runtime unavailable while {operation}: {cause}")]
    Unavailable {
        /// What was being done.
        operation: &'static str,
        /// Why it failed.
        cause: String,
    },
}

/// Result of a runtime call.
pub type RuntimeResult<T> = Result<T, RuntimeError>;

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

/// Commands in containers, and their terminals.
#[async_trait]
pub trait Streams: Send + Sync {
    /// Runs a command beside the main process.
    async fn exec(&self, id: &str, spec: ExecSpec) -> RuntimeResult<StreamSession>;
    /// Joins the main process's output (and input, where the container was made with `stdin`).
    async fn attach(&self, id: &str, stdin: bool) -> RuntimeResult<StreamSession>;
}

/// A directory in memory, for a pod's containers to share.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryVolume {
    /// Where it is to be; made where it is missing.
    pub directory: PathBuf,
    /// Bytes it may hold; 0 takes the kernel's default.
    pub size: u64,
    /// Group that owns it, and whatever is made in it.
    pub group: Option<u32>,
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
