//! Images: names, content, unpacking, archives, building, pulling.

mod archive;
mod build;
mod config;
mod content;
mod import;
mod list;
mod manifest;
mod pull;
mod reference;
mod registry_certs;
mod remote;
mod unpack;

pub use build::{BuildError, ImageBuilder};
pub(crate) use config::{Execution, ImageConfig};
pub use reference::{ImageName, normalize};
pub use remote::RemoteImage;

use crate::Mirror;
use crate::connection::Connection;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

/// The images of one containerd namespace.
pub(crate) struct ImageStore {
    connection: Connection,
    snapshotter: String,
    plain_http: Vec<String>,
    registry_certs: Vec<PathBuf>,
    mirrors: BTreeMap<String, Mirror>,
    /// Which place of a registry was good last.
    last: Mutex<HashMap<String, String>>,
    /// Where archives are spooled.
    spool: PathBuf,
    /// What a manifest's digest stands for never changes, so it is read once.
    known: Mutex<HashMap<String, Arc<Image>>>,
    /// One pull per image at a time, with the time of its success: who waited for it need not pull again.
    pulls: Mutex<HashMap<String, LastPull>>,
}

type LastPull = Arc<tokio::sync::Mutex<Option<tokio::time::Instant>>>;

/// An image as containers need it.
#[derive(Debug)]
pub(crate) struct Image {
    /// Digest of its configuration: its identity.
    pub(crate) id: String,
    pub(crate) config: ImageConfig,
    /// Name of the snapshot with all its layers.
    pub(crate) chain_id: String,
    pub(crate) size: u64,
}

impl ImageStore {
    pub(crate) fn new(connection: Connection, config: &crate::ContainerdConfig) -> Self {
        Self {
            connection,
            snapshotter: config.snapshotter.clone(),
            plain_http: config.plain_http.clone(),
            registry_certs: config.registry_certs.clone(),
            mirrors: config.mirrors.clone(),
            last: Mutex::default(),
            spool: config.root.join("spool"),
            known: Mutex::default(),
            pulls: Mutex::default(),
        }
    }
}
