//! The concrete backends, as the arguments of `up` or its record name them. The only place that does.

use super::data::private_directory;
use super::record::{Others, Record};
use crate::args::{JobOptions, NetworkKind, NodeOptions, RuntimeKind};
use anyhow::{Context, Result, bail};
use ipnet::{IpNet, Ipv4Net};
use minik8s_core::devices::Gpus;
use minik8s_core::network::{Assigned, NetworkError, NetworkResult, NoopNetwork, SharedNetwork};
use minik8s_core::node::NodeConfig;
use minik8s_core::runtime::SharedRuntime;
use minik8s_core::testkit::FakeRuntime;
use minik8s_gpu::GpuExtension;
use minik8s_gpu::local::LocalConfig;
use minik8s_net::{BridgeConfig, BridgeNetwork, Hosts, OverlayConfig};
use minik8s_runtime::{ContainerdConfig, ContainerdRuntime, Mirror, PrivateContainerd};
use minik8s_serverless::registry::HOST;
use nix::sys::socket::{setsockopt, sockopt};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket};

/// Connections that may wait to be taken.
const BACKLOG: u32 = 1024;

/// The machine's name, as the kernel has it.
pub(crate) fn host_name() -> String {
    let name = nix::unistd::gethostname().ok().and_then(|n| n.into_string().ok()).unwrap_or_default();
    let name: String =
        name.to_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect();
    let name = name.trim_matches(['-', '.']).to_owned();
    if name.is_empty() { "node".to_owned() } else { name }
}

/// Every address of this machine but those of loopback links.
pub(crate) fn own_addresses() -> Vec<IpAddr> {
    let all = nix::ifaddrs::getifaddrs().into_iter().flatten();
    let ip = |storage: nix::sys::socket::SockaddrStorage| {
        let v4 = storage.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
        v4.or_else(|| storage.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
    };
    all.filter_map(|link| link.address.and_then(ip)).filter(|ip| !ip.is_loopback()).collect()
}

/// The address this machine would use to reach others.
pub(crate) fn main_address() -> Option<IpAddr> {
    let usual = NodeConfig::new("", "").addresses.first().copied().filter(|ip| !ip.is_loopback());
    usual.or_else(|| own_addresses().into_iter().find(IpAddr::is_ipv4))
}

/// What is needed to reach the pods of other machines, which reach this one at `address`.
pub(crate) fn others(cluster_cidr: Ipv4Net, address: Option<IpAddr>) -> Result<Others> {
    match address {
        Some(IpAddr::V4(address)) => Ok(Others { cluster_cidr, address }),
        Some(IpAddr::V6(address)) => {
            bail!("pods of other machines are reached over IPv4, not {address}: name one with --node-ip")
        }
        None => bail!("this machine has no address but loopback: give it one, or name it with --node-ip"),
    }
}

/// Batch jobs, whose output is kept in the data directory.
pub(crate) fn jobs(data: &Path, options: &JobOptions, gpus: &Path) -> GpuExtension {
    match options.local_jobs {
        true => {
            GpuExtension::with_local(data.join("jobs"), |place| LocalConfig::new(place).with_gpus(Gpus::discover(gpus)))
        }
        false => GpuExtension::new(data.join("jobs")),
    }
}

/// Where the node agent keeps volumes and logs.
pub(crate) fn node_dir(data: &Path) -> PathBuf {
    data.join("node")
}

fn containerd_dir(data: &Path) -> PathBuf {
    data.join("containerd")
}

pub(crate) fn node_config(options: &NodeOptions, record: &Record, data: &Path) -> Result<NodeConfig> {
    let mut config = NodeConfig {
        seccomp_profiles: data.join("seccomp"),
        lease_period: Duration::from_secs(options.lease_period),
        lease_duration: Duration::from_secs(options.lease_period.saturating_mul(4)),
        seccomp_default: options.seccomp_default,
        log_max_bytes: options.log_max_bytes,
        log_max_files: options.log_max_files,
        gpus: Some(Gpus::discover(&options.gpus)),
        pod_cidr: record.pod_cidr.map(IpNet::V4),
        ..NodeConfig::new(&record.node, node_dir(data))
    };
    if let Some(address) = options.node_ip.or_else(main_address) {
        config.addresses = vec![address];
    }
    super::node_manifest::apply(options, &mut config)?;
    Ok(config)
}

/// Deletes the volumes and logs of pods that are gone.
pub(crate) async fn remove_volumes(runtime: Option<&SharedRuntime>, data: &Path) -> Result<()> {
    let directory = node_dir(data);
    if let Some(runtime) = runtime {
        runtime.unmount_below(&directory).await?;
    }
    match std::fs::remove_dir_all(&directory) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("cannot delete {}", directory.display()))
        }
        _ => Ok(()),
    }
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
    config.registry_certs.splice(0..0, [data.join("certs.d"), data.join(REGISTRY_CERTS)]);
    Ok(config)
}

/// Where it stands who signs for the cluster's registry; what users know of others stands beside it.
pub(crate) const REGISTRY_CERTS: &str = "registry-certs";

/// Whom this machine trusts to sign for the cluster's registry.
pub(crate) fn trust_registry(data: &Path, registry: &str, ca: &str) -> Result<()> {
    let directory = data.join(REGISTRY_CERTS).join(registry);
    let written = std::fs::create_dir_all(&directory).and_then(|()| std::fs::write(directory.join("ca.crt"), ca));
    written.with_context(|| format!("cannot write to {}", directory.display()))
}

/// The node's runtime. The API servers, where they are known, have the images of functions.
pub(crate) async fn runtime(record: &Record, data: &Path, api: Option<Mirror>, spares: u8) -> Result<SharedRuntime> {
    if record.runtime == RuntimeKind::Fake {
        return Ok(Arc::new(FakeRuntime::default()));
    }
    let (data, socket) = (data.to_owned(), record.containerd.clone());
    // Waits for a process to come up: not on a thread that others need.
    let mut config = tokio::task::spawn_blocking(move || containerd_config(&data, socket.as_deref())).await??;
    config.mirrors.extend(api.map(|api| (HOST.to_owned(), api)));
    config.spare_sandboxes = spares.into();
    Ok(Arc::new(ContainerdRuntime::connect(config).await?))
}

/// The node's network. One whose range the cluster gives is made when it has.
pub(crate) fn network(record: &Record, data: &Path, hosts: &Arc<Hosts>) -> Result<SharedNetwork> {
    if let Some(pods) = record.pod_cidr {
        return Ok(network_of(record, data, pods, hosts)?);
    }
    let (record, data, hosts) = (record.clone(), data.to_owned(), hosts.clone());
    Ok(Arc::new(Assigned::new(move |range| match range {
        IpNet::V4(pods) => {
            // For `down`, which asks nobody.
            let known = Record { pod_cidr: Some(pods), ..record.clone() };
            if let Err(error) = known.write(&data) {
                tracing::warn!(%error, "cannot note the range of this machine's pods");
            }
            network_of(&record, &data, pods, &hosts)
        }
        IpNet::V6(_) => Err(NetworkError::Unsupported("ranges of IPv6 addresses")),
    })))
}

fn network_of(record: &Record, data: &Path, pods: Ipv4Net, hosts: &Arc<Hosts>) -> NetworkResult<SharedNetwork> {
    if record.network == NetworkKind::Noop {
        return Ok(Arc::new(NoopNetwork::new(pods)));
    }
    let config = BridgeConfig {
        node: record.node.clone(),
        cluster_cidr: record.others.map_or(pods, |others| others.cluster_cidr),
        service_cidr: record.service_cidr,
        overlay: record.others.map(|others| OverlayConfig::new(others.address)),
        hosts: hosts.clone(),
        ..bridge_config(pods, data)
    };
    Ok(Arc::new(BridgeNetwork::new(config)?))
}

fn bridge_config(pods: Ipv4Net, data: &Path) -> BridgeConfig {
    BridgeConfig { pod_cidr: pods, ..BridgeConfig::new(data.join("network")) }
}

/// Where the name server of a machine with these pods is.
pub(crate) fn name_server(pods: Ipv4Net, data: &Path) -> std::net::Ipv4Addr {
    bridge_config(pods, data).gateway()
}

/// A second door to an API that listens on loopback, which is not the host's inside of a pod: the bridge's own address.
/// It may be bound before there is a bridge, and outlives one that is made anew.
pub(crate) fn door_for_pods(record: &Record, data: &Path, api: SocketAddr) -> Result<Option<TcpListener>> {
    let Some(pods) = record.pod_cidr else { return Ok(None) };
    if record.network != NetworkKind::Bridge || !api.ip().is_loopback() {
        return Ok(None);
    }
    let address = SocketAddr::new(bridge_config(pods, data).gateway().into(), api.port());
    let listen = || {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        setsockopt(&socket, sockopt::IpFreebind, &true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    let listener: std::io::Result<TcpListener> = listen();
    let listener = listener.with_context(|| {
        format!("cannot listen on {address}, where pods reach the API; choose another port with --listen IP:PORT")
    })?;
    Ok(Some(listener))
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
