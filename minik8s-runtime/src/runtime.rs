//! [`ContainerdRuntime`]: the contract's calls, each handed to the module that knows.

use crate::cgroup::Cgroups;
use crate::config::ContainerdConfig;
use crate::connection::{Connection, Tolerate, unavailable};
use crate::containers::{ContainerFiles, Record};
use crate::images::ImageStore;
use crate::locks::KeyedLocks;
use crate::sandbox::{MOST_SPARES, SandboxStore};
use crate::spec::Accounts;
use containerd_client::services::v1 as api;
use containerd_client::types::Mount;
use minik8s_core::runtime::{RuntimeError, RuntimeEvent, RuntimeResult};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::broadcast;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Code;

/// Events that a subscriber may be behind before it is told to list anew.
const EVENT_BACKLOG: usize = 1024;

/// A runtime on a containerd. Cheap to clone; the last clone ends the event loop, and takes away what was made ahead.
#[derive(Clone)]
pub struct ContainerdRuntime {
    pub(crate) inner: Arc<Inner>,
    _last: Arc<Last>,
}

/// What ends with the last clone.
struct Last {
    inner: Arc<Inner>,
    _loops: DropGuard,
}

impl Drop for Last {
    fn drop(&mut self) {
        self.inner.sandboxes.spares().close();
    }
}

pub(crate) struct Inner {
    pub(crate) config: ContainerdConfig,
    pub(crate) connection: Connection,
    pub(crate) version: String,
    pub(crate) log_driver: PathBuf,
    pub(crate) cgroups: Cgroups,
    /// Scores of the memory killer below this are not ours to give.
    pub(crate) lowest_oom_score: i32,
    pub(crate) images: ImageStore,
    pub(crate) sandboxes: SandboxStore,
    /// Serialises calls on one container or sandbox.
    pub(crate) locks: KeyedLocks,
    /// Read while a sandbox is made, written while the last one's traces are removed.
    pub(crate) population: tokio::sync::RwLock<()>,
    /// Records by containerd id; containerd holds the canonical copies, which never change.
    pub(crate) records: Mutex<HashMap<String, Arc<Record>>>,
    /// Root file systems of containers made but not yet started, which spares a call at start.
    pub(crate) prepared: Mutex<HashMap<String, Vec<Mount>>>,
    /// Account files by chain id.
    pub(crate) accounts: Mutex<HashMap<String, Arc<Accounts>>>,
    pub(crate) events: broadcast::Sender<RuntimeEvent>,
}

impl ContainerdRuntime {
    /// Connects to containerd and starts to follow its events. Whatever an earlier runtime with the same directories
    /// left is found again.
    ///
    /// # Errors
    /// Where containerd does not answer, the directories cannot be made, or more spares are asked for than there may be.
    pub async fn connect(config: ContainerdConfig) -> RuntimeResult<Self> {
        if config.spare_sandboxes > MOST_SPARES {
            let why = format!("{} spare sandboxes: at most {MOST_SPARES}", config.spare_sandboxes);
            return Err(RuntimeError::Invalid(why));
        }
        let local =
            |e: std::io::Error| RuntimeError::Unavailable { operation: "preparing directories", cause: e.to_string() };
        for dir in [&config.root, &config.state] {
            std::fs::create_dir_all(dir).map_err(local)?;
        }
        let log_driver = config.log_driver_program().map_err(local)?;
        let connection = Connection::open(&config.socket, &config.namespace).await?;
        let version = connection.version().version(()).await.map_err(unavailable("asking containerd's version"))?;
        make_namespace(&connection, &config.namespace).await?;
        let inner = Arc::new(Inner {
            version: version.into_inner().version,
            log_driver,
            cgroups: Cgroups::of_this_machine(),
            lowest_oom_score: crate::oom::lowest_score(),
            images: ImageStore::new(connection.clone(), &config),
            sandboxes: SandboxStore::new(&config.root, &config.state, config.spare_sandboxes),
            locks: KeyedLocks::default(),
            population: tokio::sync::RwLock::default(),
            records: Mutex::default(),
            prepared: Mutex::default(),
            accounts: Mutex::default(),
            events: broadcast::channel(EVENT_BACKLOG).0,
            connection,
            config,
        });
        let stop = CancellationToken::new();
        tokio::spawn(crate::events::follow(inner.clone(), stop.clone()));
        tokio::spawn(crate::sandbox::keep_spares(inner.clone(), stop.clone()));
        Ok(Self { _last: Arc::new(Last { inner: inner.clone(), _loops: stop.drop_guard() }), inner })
    }
}

async fn make_namespace(connection: &Connection, name: &str) -> RuntimeResult<()> {
    let namespace = api::Namespace { name: name.to_owned(), ..Default::default() };
    let request = api::CreateNamespaceRequest { namespace: Some(namespace) };
    let made = connection.namespaces().create(connection.request(request)).await;
    made.tolerate(Code::AlreadyExists).map_err(unavailable("making a containerd namespace"))?;
    Ok(())
}

impl Inner {
    pub(crate) fn files(&self, cid: &str) -> ContainerFiles {
        ContainerFiles::new(&self.config.root, cid)
    }

    /// Runs blocking work off the async threads.
    pub(crate) async fn blocking<T, F>(self: &Arc<Self>, work: F) -> RuntimeResult<T>
    where
        T: Send + 'static,
        F: FnOnce(&Self) -> RuntimeResult<T> + Send + 'static,
    {
        let this = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&this)).await;
        done.map_err(|e| RuntimeError::Unavailable { operation: "working on files", cause: e.to_string() })?
    }
}

pub(crate) fn now() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
