//! The concrete backends, as the arguments of `up` or its record name them. The only place that does.

use super::record::Record;
use crate::args::{NetworkKind, RuntimeKind};
use anyhow::{Context, Result};
use ipnet::Ipv4Net;
use minik8s_core::network::{NoopNetwork, SharedNetwork};
use minik8s_core::node::NodeConfig;
use minik8s_core::runtime::SharedRuntime;
use minik8s_core::testkit::FakeRuntime;
use minik8s_net::{BridgeConfig, BridgeNetwork};
use minik8s_runtime::{ContainerdConfig, ContainerdRuntime, PrivateContainerd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The machine's name, as the kernel has it.
pub(crate) fn host_name() -> String {
    let name = nix::unistd::gethostname().ok().and_then(|n| n.into_string().ok()).unwrap_or_default();
    let name: String =
        name.to_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect();
    let name = name.trim_matches(['-', '.']).to_owned();
    if name.is_empty() { "node".to_owned() } else { name }
}

/// Makes a directory that only its owner may look into: it will hold keys.
pub(crate) fn private_directory(path: &Path) -> Result<()> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.with_context(|| format!("cannot make the data directory {}; choose another with --data-dir", path.display()))?;
    let mode = std::fs::metadata(path)?.permissions().mode();
    if mode & 0o077 != 0 {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))
            .with_context(|| format!("cannot close {} to others", path.display()))?;
    }
    Ok(())
}

/// Where the node agent keeps volumes and logs.
pub(crate) fn node_dir(data: &Path) -> PathBuf {
    data.join("node")
}

fn containerd_dir(data: &Path) -> PathBuf {
    data.join("containerd")
}

pub(crate) fn node_config(record: &Record, data: &Path) -> NodeConfig {
    NodeConfig {
        memory_dir: memory_dir(data),
        pod_cidr: record.pod_cidr.parse().ok(),
        ..NodeConfig::new(&record.node, node_dir(data))
    }
}

/// Memory-backed volumes of this data directory, apart from those of any other.
fn memory_dir(data: &Path) -> Option<PathBuf> {
    let memory = Path::new("/dev/shm");
    let name = data.display().to_string().replace('/', "-");
    memory.is_dir().then(|| memory.join(format!("minik8s{name}")))
}

/// Deletes the volumes and logs of pods that are gone.
pub(crate) fn remove_volumes(record: &Record, data: &Path) -> Result<()> {
    let directories = [node_config(record, data).memory_dir, Some(node_dir(data))];
    for directory in directories.into_iter().flatten() {
        match std::fs::remove_dir_all(&directory) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(e).with_context(|| format!("cannot delete {}", directory.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Settings for the containerd that was named, or for the private one, which is started where it does not run.
pub(crate) fn containerd_config(data: &Path, socket: Option<&Path>) -> Result<ContainerdConfig> {
    let mut config = match socket {
        Some(socket) => ContainerdConfig::new(socket, data.join("runtime")),
        None => {
            private_directory(data)?;
            PrivateContainerd::start(containerd_dir(data))?.config()
        }
    };
    config.registry_certs.insert(0, data.join("certs.d"));
    Ok(config)
}

pub(crate) async fn runtime(record: &Record, data: &Path) -> Result<SharedRuntime> {
    if record.runtime == RuntimeKind::Fake {
        return Ok(Arc::new(FakeRuntime::default()));
    }
    let (data, socket) = (data.to_owned(), record.containerd.clone());
    // Waits for a process to come up: not on a thread that others need.
    let config = tokio::task::spawn_blocking(move || containerd_config(&data, socket.as_deref())).await??;
    Ok(Arc::new(ContainerdRuntime::connect(config).await?))
}

pub(crate) async fn network(record: &Record, data: &Path) -> Result<SharedNetwork> {
    let ipv4 = |text: &str| text.parse::<Ipv4Net>().with_context(|| format!("{text} is not a range of IPv4 addresses"));
    let pods = ipv4(&record.pod_cidr)?;
    if record.network == NetworkKind::Noop {
        return Ok(Arc::new(NoopNetwork::new(pods)));
    }
    let config = BridgeConfig {
        node: record.node.clone(),
        pod_cidr: pods,
        cluster_cidr: pods,
        service_cidr: ipv4(&record.service_cidr)?,
        ..BridgeConfig::new(data.join("network"))
    };
    Ok(Arc::new(BridgeNetwork::new(config)?))
}

/// Ends the private containerd; with `purge`, its images and everything it left go too.
pub(crate) fn stop_private(data: &Path, purge: bool) -> Result<()> {
    match PrivateContainerd::find(containerd_dir(data)) {
        Some(containerd) if purge => containerd.destroy()?,
        Some(containerd) => containerd.stop()?,
        None => {}
    }
    Ok(())
}
