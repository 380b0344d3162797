//! Sandboxes, containers and volumes: what is asked for, and what is there.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

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

/// A device of the host that a container may use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceNode {
    /// Where it is on the host.
    pub host: PathBuf,
    /// Where it is in the container.
    pub path: PathBuf,
}

/// What a container should be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// Identity.
    pub id: ContainerId,
    /// Image, as [`Images::image`](super::Images::image) knows it.
    pub image: String,
    /// Replaces the image's entrypoint where it is not empty.
    pub command: Vec<String>,
    /// Replaces the image's cmd where it is not empty (and, with `command`, always).
    pub args: Vec<String>,
    /// Added to the image's environment, in order.
    pub env: Vec<(String, String)>,
    /// Directories that are added behind what variables list, with colons between: a variable, and one directory.
    #[serde(default)]
    pub paths: Vec<(String, String)>,
    /// Working directory; empty takes the image's.
    pub working_dir: String,
    /// What is mounted into it.
    pub mounts: Vec<Mount>,
    /// What it may use.
    pub resources: Resources,
    /// Devices of the host beside those that every container has.
    #[serde(default)]
    pub devices: Vec<DeviceNode>,
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
    /// It runs, and none of its processes gets any time.
    #[serde(default)]
    pub paused: bool,
    /// Process id on the host while it runs.
    pub pid: Option<u32>,
    /// Its log file.
    pub log_path: PathBuf,
    /// As given.
    pub labels: Labels,
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
