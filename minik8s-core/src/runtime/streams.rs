//! Images, statistics, streams and events, as plain data.

use super::RuntimeError;
use super::pods::{ContainerId, SandboxId};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};

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

/// Bytes both ways, at the pace of the slower side. Shutting down ends what is written, and leaves what is read open.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Duplex for T {}

/// A connection to a port. Dropping it closes it.
pub type Connection = Box<dyn Duplex>;

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
