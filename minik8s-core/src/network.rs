//! The contract of a network: addresses for pods, reachability of services, names.
//!
//! Level-triggered: the caller hands over the **whole desired state**; the plugin makes the machine match it,
//! incrementally and atomically, and may be asked again at any time. It touches only links, tables, chains and
//! namespaces that carry its own name.

mod assigned;
pub mod noop;
pub mod pool;

pub use assigned::Assigned;
pub use noop::NoopNetwork;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// A pod that wants to be on the network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodAttachment {
    /// The pod's uid: the identity of the attachment.
    pub id: String,
    /// Namespace, for messages.
    pub namespace: String,
    /// Name, for messages.
    pub name: String,
    /// The network namespace to put an interface into.
    pub netns: PathBuf,
    /// Ports of the host that lead to the pod.
    pub host_ports: Vec<HostPort>,
}

/// A port of the host that leads to a port of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HostPort {
    /// Address of the host, `None` for all.
    pub host_ip: Option<IpAddr>,
    /// Port on the host.
    pub host_port: u16,
    /// Port in the pod.
    pub container_port: u16,
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// As the API spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
            Protocol::Sctp => "SCTP",
        }
    }

    /// What the API spells; unknown words are TCP, the API's default.
    pub fn parse(text: &str) -> Self {
        match text {
            "UDP" => Protocol::Udp,
            "SCTP" => Protocol::Sctp,
            _ => Protocol::Tcp,
        }
    }
}

/// A pod that is on the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodNetwork {
    /// The pod's uid.
    pub id: String,
    /// Its addresses, the main one first.
    pub ips: Vec<IpAddr>,
}

/// Everything about services that a node's network must realise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceTable {
    /// By `(namespace, name)`. Entries are shared between versions of the table: an unchanged service is the same
    /// pointer, so that a plugin can find what changed without looking inside.
    pub services: BTreeMap<(String, String), Arc<ServiceEntry>>,
}

/// One service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceEntry {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Virtual addresses; empty for headless services and external names.
    pub cluster_ips: Vec<IpAddr>,
    /// Addresses outside that lead here as well.
    pub external_ips: Vec<IpAddr>,
    /// The name it stands for (`type: ExternalName`).
    pub external_name: Option<String>,
    /// Its ports, each with its own endpoints.
    pub ports: Vec<ServicePortEntry>,
    /// Seconds a client stays with its endpoint (`sessionAffinity: ClientIP`), where it does.
    pub affinity_seconds: Option<u32>,
    /// Names cover endpoints that are not ready, too.
    pub publish_not_ready: bool,
    /// Traffic from outside goes only to endpoints of the node it arrived at.
    pub external_traffic_local: bool,
    /// Traffic from inside goes only to endpoints of the node it starts from.
    pub internal_traffic_local: bool,
}

/// One port of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServicePortEntry {
    /// Name; empty where the service has only one.
    pub name: String,
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// Port of the virtual address.
    pub port: u16,
    /// Port on every node, 0 for none.
    pub node_port: u16,
    /// Where traffic goes.
    pub endpoints: Vec<Endpoint>,
}

/// One place traffic can go.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    /// Address.
    pub ip: IpAddr,
    /// Port there.
    pub port: u16,
    /// Its own name within the service (`hostname` of the pod), where it has one.
    pub hostname: Option<String>,
    /// The node it is on.
    pub node: Option<String>,
    /// It takes traffic.
    pub ready: bool,
    /// It is going away, but still answers: used where nothing is ready.
    pub serving: bool,
}

impl Endpoint {
    /// A place that takes traffic, without a name or a node.
    pub fn new(ip: impl Into<IpAddr>, port: u16) -> Self {
        Self { ip: ip.into(), port, hostname: None, node: None, ready: true, serving: true }
    }
}

/// Another node, whose pods are to be reached from here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Node name.
    pub node: String,
    /// Address of the node.
    pub address: IpAddr,
    /// Range its pods have.
    pub pod_cidr: ipnet::IpNet,
}

/// What the agent tells pods about names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsConfig {
    /// Servers for resolv.conf; empty means: use the host's own file.
    pub servers: Vec<IpAddr>,
    /// Domain of the cluster, `cluster.local`.
    pub domain: String,
}

/// What an implementation can do beyond the required.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetworkCapabilities {
    /// Pods get interfaces that carry packets (false for fakes).
    pub real_packets: bool,
    /// There may be other nodes: `sync_peers` makes their pods reachable.
    pub overlay: bool,
    /// Attachments are known again after the process was killed.
    pub durable: bool,
    /// It does not know its range by itself: [`NetworkPlugin::set_range`] comes before `setup`.
    pub assigned: bool,
}

/// Why a network refused.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// No address left.
    #[error("no free address in {range}, {used} in use")]
    Exhausted {
        /// The range.
        range: String,
        /// How many are taken.
        used: usize,
    },
    /// The pod's network namespace does not exist.
    #[error("network namespace {path} of pod {pod} does not exist")]
    NoNamespace {
        /// The pod, `namespace/name`.
        pod: String,
        /// Where it should be.
        path: PathBuf,
    },
    /// Nobody said yet which addresses the pods of this node have.
    #[error(
        "this node has no range of addresses for its pods yet; the controllers of the cluster give one to each node, \
         where they are told out of what"
    )]
    NoRange,
    /// Something of that name or range is there, and is not ours.
    #[error("{what} {name} is already in use by something else: {hint}")]
    Taken {
        /// `link`, `range`, `port`.
        what: &'static str,
        /// Which.
        name: String,
        /// The way out.
        hint: String,
    },
    /// The kernel refused.
    #[error("failed to {operation} {object}: {cause}")]
    Kernel {
        /// What was being done.
        operation: &'static str,
        /// To what.
        object: String,
        /// Why it failed.
        cause: String,
    },
    /// Not something this implementation can do; see [`NetworkCapabilities`].
    #[error("not supported by this network: {0}")]
    Unsupported(&'static str),
    /// Several steps of a teardown failed; the others were done.
    #[error("teardown left {} problems: {}", .0.len(), .0.join("; "))]
    Teardown(Vec<String>),
}

/// Result of a network call.
pub type NetworkResult<T> = Result<T, NetworkError>;

/// A node's network.
#[async_trait]
pub trait NetworkPlugin: Send + Sync + 'static {
    /// What this implementation can do.
    fn capabilities(&self) -> NetworkCapabilities;

    /// What pods should be told about names.
    fn dns(&self) -> DnsConfig;

    /// Says which addresses the pods of this node have; again after every start, and before `setup`.
    ///
    /// # Errors
    /// `Unsupported` where the range is part of the configuration ([`NetworkCapabilities::assigned`] is false); `Taken`
    /// where another range was said before, or this one is no good here.
    async fn set_range(&self, range: ipnet::IpNet) -> NetworkResult<()> {
        let _ = range;
        Err(NetworkError::Unsupported("another range: it has one of its own"))
    }

    /// Makes what all pods need (bridge, tables, forwarding, the name server). Idempotent; repairs what is missing.
    async fn setup(&self) -> NetworkResult<()>;

    /// Gives the pod an interface and an address. Attaching again returns the same answer and repairs what is missing.
    ///
    /// # Errors
    /// `Exhausted`, `NoNamespace`, `Kernel`. After an error nothing is left behind.
    async fn attach(&self, pod: &PodAttachment) -> NetworkResult<PodNetwork>;

    /// Takes interface, address and host ports away. Missing, or with its namespace already gone, is success.
    async fn detach(&self, id: &str) -> NetworkResult<()>;

    /// Every attachment on record, also those of pods long gone: the agent detaches strays.
    async fn attachments(&self) -> NetworkResult<Vec<PodNetwork>>;

    /// Makes rules and names match `table`, in one transaction.
    async fn sync_services(&self, table: Arc<ServiceTable>) -> NetworkResult<()>;

    /// Makes the ways to pods of other nodes match `peers`, all of them but this node itself: what is new is added, what
    /// is gone is removed, what is as it should be is not touched, so that no connection notices. Pods of different nodes
    /// see each other under their own addresses. A peer whose range overlaps with that of this node or of an earlier peer
    /// is left out; the others are not kept waiting for it. Remembered, and repaired by [`NetworkPlugin::setup`].
    ///
    /// # Errors
    /// `Unsupported` for any peer without [`NetworkCapabilities::overlay`]; `Taken`, `Kernel`.
    async fn sync_peers(&self, peers: &[Peer]) -> NetworkResult<()>;

    /// Removes everything `setup`, `attach` and the `sync` calls made. Collects errors and goes on.
    async fn teardown(&self) -> NetworkResult<()>;
}

/// A shared network.
pub type SharedNetwork = Arc<dyn NetworkPlugin>;
