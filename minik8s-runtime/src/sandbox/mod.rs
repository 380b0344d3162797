//! Sandboxes: the namespaces that the containers of a pod share, pinned by bind mounts so that no process has to hold
//! them.

mod lifecycle;
mod namespaces;
mod pause;
mod record;
mod shared_pids;
mod spares;
mod sysctls;

pub(crate) use record::SandboxStore;
pub(crate) use spares::{MOST_SPARES, keep_spares};

use std::path::PathBuf;

/// Namespaces to join, `None` where the host's own is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Joined {
    pub(crate) net: Option<PathBuf>,
    pub(crate) ipc: Option<PathBuf>,
    pub(crate) uts: Option<PathBuf>,
    /// The pod's shared one; without it a container gets one of its own.
    pub(crate) pid: Option<PathBuf>,
    /// Shared memory of the pod; `None` takes the host's.
    pub(crate) shm: Option<PathBuf>,
}
