//! What an agent is told about its node, and what it finds out about the machine.

use crate::api::git_version;
use crate::devices::Gpus;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Taint;
use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What the node offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeCapacity {
    /// Thousandths of a CPU.
    pub milli_cpu: u64,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Bytes of disk for images, logs and volumes.
    pub ephemeral_bytes: u64,
    /// How many pods.
    pub pods: u32,
}

impl NodeCapacity {
    /// What this machine has, with the disk that holds `data_dir`, and 110 pods.
    pub fn detect(data_dir: &Path) -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
        Self {
            milli_cpu: cpus * 1000,
            memory_bytes: memory_bytes().unwrap_or(0),
            ephemeral_bytes: disk_bytes(data_dir).unwrap_or(0),
            pods: 110,
        }
    }
}

fn memory_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// The size of the file system of the nearest directory that exists.
fn disk_bytes(dir: &Path) -> Option<u64> {
    let there = dir.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let stat = rustix::fs::statvfs(there).ok()?;
    Some(stat.f_blocks * stat.f_frsize)
}

/// Everything an agent can be told. [`NodeConfig::new`] fills it for the machine it runs on.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Name of the node.
    pub name: String,
    /// Labels beside those every node has (host name, operating system, architecture).
    pub labels: BTreeMap<String, String>,
    /// Annotations of its record.
    pub annotations: BTreeMap<String, String>,
    /// Taints the node registers with.
    pub taints: Vec<Taint>,
    /// Host name of the machine.
    pub hostname: String,
    /// Addresses of the node, the main one first.
    pub addresses: Vec<IpAddr>,
    /// What it offers.
    pub capacity: NodeCapacity,
    /// Graphics processors for containers that ask for `nvidia.com/gpu`; those of the machine are [`Gpus::discover`]'s.
    pub gpus: Option<Gpus>,
    /// Addresses of its pods, where this is decided here and not by a controller.
    pub pod_cidr: Option<IpNet>,
    /// Where pods' files, volumes and logs lie. One agent per directory.
    pub data_dir: PathBuf,
    /// Where seccomp profiles of type `Localhost` are looked up.
    pub seccomp_profiles: PathBuf,
    /// Containers that name no seccomp profile get the runtime's. As in Kubernetes they are unconfined unless this is set.
    pub seccomp_default: bool,
    /// Path below the runtime's root cgroup under which pods are put; empty for the root itself.
    pub cgroup_root: String,
    /// How often the node says it lives.
    pub lease_period: Duration,
    /// How long one such word counts.
    pub lease_duration: Duration,
    /// How often the node's status is written though nothing changed.
    pub status_period: Duration,
    /// How often volumes on disk are measured that have a limit.
    pub volume_period: Duration,
    /// Size at which a container's log is rotated.
    pub log_max_bytes: u64,
    /// How many files of a log are kept.
    pub log_max_files: u32,
    /// First wait between restarts of a failing container; doubles each time.
    pub backoff_base: Duration,
    /// Longest wait between restarts.
    pub backoff_max: Duration,
    /// A life this long makes good for failures before.
    pub backoff_reset: Duration,
    /// The host's resolver configuration.
    pub resolv_conf: PathBuf,
    /// Version the node reports; that of the server unless said.
    pub version: String,
}

impl NodeConfig {
    /// The configuration of a node on this machine, with its files below `data_dir`.
    pub fn new(name: impl Into<String>, data_dir: impl Into<PathBuf>) -> Self {
        let data_dir = data_dir.into();
        Self {
            name: name.into(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            taints: Vec::new(),
            hostname: hostname(),
            addresses: vec![main_address()],
            capacity: NodeCapacity::detect(&data_dir),
            gpus: None,
            pod_cidr: None,
            seccomp_profiles: data_dir.join("seccomp"),
            seccomp_default: false,
            data_dir,
            cgroup_root: String::new(),
            lease_period: Duration::from_secs(10),
            lease_duration: Duration::from_secs(40),
            status_period: Duration::from_secs(300),
            volume_period: Duration::from_secs(10),
            log_max_bytes: 10 << 20,
            log_max_files: 5,
            backoff_base: Duration::from_secs(10),
            backoff_max: Duration::from_secs(300),
            backoff_reset: Duration::from_secs(600),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            version: git_version(),
        }
    }

    pub(crate) fn pods_dir(&self) -> PathBuf {
        self.data_dir.join("pods")
    }

    pub(crate) fn logs_dir(&self) -> PathBuf {
        self.data_dir.join("logs")
    }

    pub(crate) fn backoff(&self) -> super::lifecycle::Backoff {
        super::lifecycle::Backoff { base: self.backoff_base, max: self.backoff_max, reset: self.backoff_reset }
    }
}

fn hostname() -> String {
    read("/proc/sys/kernel/hostname").unwrap_or_else(|| "localhost".to_owned())
}

/// The address this machine would use to reach others. Nothing is sent.
fn main_address() -> IpAddr {
    let ask = || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
        socket.local_addr().ok().map(|address| address.ip())
    };
    ask().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

/// A one-line file of the system.
pub(crate) fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// What the machine says about its system: name, value of `/etc/os-release`.
pub(crate) fn os_image() -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    line.map_or_else(|| "Linux".to_owned(), |name| name.trim_matches('"').to_owned())
}

/// The architecture, as Go and so Kubernetes spell it.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
