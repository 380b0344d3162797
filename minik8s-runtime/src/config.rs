//! How the containerd runtime is told where things are.

use minik8s_core::client::Servers;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Settings of a [`ContainerdRuntime`](crate::ContainerdRuntime).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerdConfig {
    /// containerd's gRPC socket.
    pub socket: PathBuf,
    /// Directory of the runtime's own records; survives reboots.
    pub root: PathBuf,
    /// Directory of what a reboot may take: pinned namespaces, FIFOs, runc's state. Keep it short.
    pub state: PathBuf,
    /// containerd namespace: everything the runtime owns lives in it.
    pub namespace: String,
    /// Snapshotter for root file systems.
    pub snapshotter: String,
    /// Cgroup below which every pod lives.
    pub cgroup_root: String,
    /// Program that writes container logs; see [`log_driver`](crate::log_driver). `None` takes `minik8s-logger` beside
    /// the running program, or the running program itself, which must then call
    /// [`log_driver::run_if_asked`](crate::log_driver::run_if_asked) first of all.
    pub log_driver: Option<PathBuf>,
    /// Registries spoken to without TLS, as `host:port`. Those on `localhost` and `127.0.0.1` are where no certificate
    /// is kept for them.
    pub plain_http: Vec<String>,
    /// Directories with certificates of CAs that sign for registries, one directory per registry, as Docker and
    /// containerd keep them: `<directory>/<host:port>/*.crt`, PEM. Read at each pull.
    pub registry_certs: Vec<PathBuf>,
    /// Registries that are somewhere else than their name says, by their name. Certificates are kept under the name.
    pub mirrors: BTreeMap<String, Mirror>,
    /// How many sandboxes' namespaces are kept ready, so that a pod does not wait for the kernel to make them; 0 for none,
    /// at most 64. The first are made after the first sandbox; they have no id and no address, and are in no list. They go
    /// with the runtime's last clone; those of one that was killed are found again. A pod that uses the machine's network or
    /// IPC takes none. A spare has the machine's defaults for network parameters as they were when it was made.
    pub spare_sandboxes: usize,
}

/// Where a registry is: at `first`, and at the others if that does not give what is asked for.
#[derive(Clone, Debug, Default)]
pub struct Mirror {
    /// `host:port`
    pub first: String,
    /// URLs, which may change.
    pub others: Servers,
}

impl PartialEq for Mirror {
    fn eq(&self, other: &Self) -> bool {
        self.first == other.first && self.others.all() == other.others.all()
    }
}

impl Eq for Mirror {}

impl Mirror {
    /// Each place once, as `host:port`: the one that was good last comes first.
    pub(crate) fn places(&self, last: Option<&String>) -> Vec<String> {
        let others = self.others.all();
        let others = others.iter().map(|url| url.trim_start_matches("https://").trim_end_matches('/'));
        let mut places: Vec<String> = Vec::new();
        for place in std::iter::once(&*self.first).chain(others) {
            if !places.iter().any(|known| known == place) {
                places.push(place.to_owned());
            }
        }
        // The order of the others stays.
        places.sort_by_key(|place| Some(place) != last);
        places
    }
}

/// Where machines keep the certificates of registries.
pub(crate) const REGISTRY_CERTS: [&str; 2] = ["/etc/docker/certs.d", "/etc/containerd/certs.d"];
/// Spares unless somebody says otherwise.
const SPARES: usize = 2;

impl ContainerdConfig {
    /// Settings for the containerd at `socket`, with records below `root` and defaults for the rest.
    pub fn new(socket: impl Into<PathBuf>, root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        Self {
            socket: socket.into(),
            state: state_dir(&root),
            root,
            namespace: "minik8s".to_owned(),
            snapshotter: "overlayfs".to_owned(),
            cgroup_root: "minik8s".to_owned(),
            log_driver: None,
            plain_http: Vec::new(),
            registry_certs: REGISTRY_CERTS.map(PathBuf::from).into(),
            mirrors: BTreeMap::new(),
            spare_sandboxes: SPARES,
        }
    }

    pub(crate) fn log_driver_program(&self) -> std::io::Result<PathBuf> {
        if let Some(program) = &self.log_driver {
            return Ok(program.clone());
        }
        let this = std::env::current_exe()?;
        let beside = this.with_file_name("minik8s-logger");
        Ok(if beside.is_file() { beside } else { this })
    }
}

/// A short volatile directory that belongs to `dir`: unix socket paths must stay below 108 bytes.
pub(crate) fn state_dir(dir: &Path) -> PathBuf {
    let digest = Sha256::digest(dir.as_os_str().as_encoded_bytes());
    Path::new("/run/minik8s").join(hex(&digest[..6]))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_is_asked_where_it_was_good_last_then_where_it_is_said_to_be_then_elsewhere() {
        let others = Servers::new(["https://10.0.0.1:6443", "https://10.0.0.2:6443", "https://10.0.0.3:6443"]);
        let mirror = Mirror { first: "10.0.0.2:6443".to_owned(), others: others.clone() };
        assert_eq!(mirror.places(None), ["10.0.0.2:6443", "10.0.0.1:6443", "10.0.0.3:6443"]);
        let last = "10.0.0.3:6443".to_owned();
        assert_eq!(mirror.places(Some(&last)), ["10.0.0.3:6443", "10.0.0.2:6443", "10.0.0.1:6443"]);
        others.replace(["https://10.0.0.1:6443"]);
        assert_eq!(mirror.places(Some(&last)), ["10.0.0.2:6443", "10.0.0.1:6443"], "who is gone is not asked");
    }

    #[test]
    fn state_directories_are_short_and_differ() {
        let (a, b) = (state_dir(Path::new("/a/long/data/directory")), state_dir(Path::new("/b")));
        assert_ne!(a, b);
        assert!(a.as_os_str().len() < 40, "{a:?}");
    }
}
