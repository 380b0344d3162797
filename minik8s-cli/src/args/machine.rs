//! What is typed to run a cluster, or this machine's part in one, and to take it down.

use crate::up::{Autoscaling, LostNodes, Scheduling, Tolerations};
use clap::{Args as ClapArgs, Subcommand, ValueEnum};
use ipnet::Ipv4Net;
use minik8s_core::controllers::PodRanges;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// Where a cluster of this machine keeps its things.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct DataDir {
    /// Directory of the cluster's data
    #[arg(long, value_name = "DIR", env = "MINIK8S_DATA_DIR", default_value = "/var/lib/minik8s")]
    pub(crate) data_dir: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StoreKind {
    /// Nothing survives a restart
    Memory,
    /// A directory on this machine
    Embedded,
    /// An etcd that several control planes share; see --etcd-endpoints
    Etcd,
}

/// Where etcd is, for `--store etcd`.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct Etcd {
    /// Addresses of etcd's members, such as https://10.0.0.1:2379; separated by commas, or given again
    #[arg(long, value_name = "URL", value_delimiter = ',', help_heading = "etcd")]
    pub(crate) etcd_endpoints: Vec<String>,
    /// Certificate authority of etcd's members, for https
    #[arg(long, value_name = "FILE", help_heading = "etcd")]
    pub(crate) etcd_ca: Option<PathBuf>,
    /// Certificate to show to etcd
    #[arg(long, value_name = "FILE", requires = "etcd_key", help_heading = "etcd")]
    pub(crate) etcd_cert: Option<PathBuf>,
    /// Key of that certificate
    #[arg(long, value_name = "FILE", requires = "etcd_cert", help_heading = "etcd")]
    pub(crate) etcd_key: Option<PathBuf>,
    /// What this cluster's keys begin with; clusters that share an etcd need different ones
    #[arg(long, value_name = "PREFIX", default_value = "/minik8s", help_heading = "etcd")]
    pub(crate) etcd_prefix: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub(crate) enum RuntimeKind {
    /// Real containers
    Containerd,
    /// Pretended containers; needs no root
    Fake,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub(crate) enum NetworkKind {
    /// A bridge, service rules and cluster DNS
    Bridge,
    /// Addresses without packets; needs no root
    Noop,
}

/// What an API server is told.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct ControlPlane {
    #[command(flatten)]
    pub(crate) data: DataDir,
    /// Address of the API; port 0 takes a free one [default: 0.0.0.0:6443, for `minik8s up` 127.0.0.1:6443]
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) listen: Option<SocketAddr>,
    /// Address at which other machines reach this one [default: the one it would use to reach others]
    #[arg(long, value_name = "IP")]
    pub(crate) advertise_address: Option<IpAddr>,
    /// More names and addresses under which clients reach the API; separated by commas, or given again
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) tls_san: Vec<String>,
    /// Where the cluster's state lives
    #[arg(long, value_enum, default_value_t = StoreKind::Embedded)]
    pub(crate) store: StoreKind,
    #[command(flatten)]
    pub(crate) etcd: Etcd,
    /// Virtual addresses of Services
    #[arg(long, value_name = "CIDR", default_value = "10.96.0.0/16")]
    pub(crate) service_cidr: Ipv4Net,
    #[command(flatten)]
    pub(crate) ranges: Ranges,
    /// A server that knows metrics beyond those of pods, for autoscalers: plain HTTP, in the words of custom.metrics.k8s.io
    /// and external.metrics.k8s.io
    #[arg(long, value_name = "URL", help_heading = "Autoscaling")]
    pub(crate) metrics_adapter: Option<String>,
    /// Over how long a time usage of cpu is averaged, such as 5s [default: the time between two looks at an autoscaler where
    /// that is known here, 15s elsewhere]
    #[arg(long, value_name = "DURATION", value_parser = crate::up::period, help_heading = "Autoscaling")]
    pub(crate) metric_resolution: Option<Duration>,
    #[command(flatten)]
    pub(crate) workflows: super::workflow::WorkflowOptions,
    #[command(flatten)]
    pub(crate) tolerations: Tolerations,
}

/// Addresses of pods.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct Ranges {
    /// Addresses of all pods; machines that join are given a part of them
    #[arg(long, value_name = "CIDR", default_value = "10.244.0.0/16")]
    pub(crate) cluster_cidr: Ipv4Net,
    /// Length of the prefix of one machine's part of them
    #[arg(long, value_name = "BITS", default_value_t = 24)]
    pub(crate) node_cidr_mask_size: u8,
}

impl Ranges {
    /// As the controller takes them, which hands out the parts.
    pub(crate) fn pods(&self) -> PodRanges {
        PodRanges { cluster: self.cluster_cidr.trunc(), node_prefix: self.node_cidr_mask_size }
    }
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Up {
    #[command(flatten)]
    pub(crate) control: ControlPlane,
    /// Run a control plane alone: no pods run on this machine
    #[arg(long)]
    pub(crate) without_node: bool,
    #[command(flatten)]
    pub(crate) node: NodeOptions,
    /// Addresses of this machine's pods [default: the first part of the cluster's]
    #[arg(long, value_name = "CIDR")]
    pub(crate) pod_cidr: Option<Ipv4Net>,
    #[command(flatten)]
    pub(crate) scheduling: Scheduling,
    #[command(flatten)]
    pub(crate) lost_nodes: LostNodes,
    #[command(flatten)]
    pub(crate) autoscaling: Autoscaling,
    #[command(flatten)]
    pub(crate) jobs: super::job::JobOptions,
}

/// What this machine's node is made of.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct NodeOptions {
    /// What runs containers
    #[arg(long, value_enum, default_value_t = RuntimeKind::Containerd, help_heading = "Node")]
    pub(crate) runtime: RuntimeKind,
    /// What connects pods
    #[arg(long, value_enum, default_value_t = NetworkKind::Bridge, help_heading = "Node")]
    pub(crate) network: NetworkKind,
    /// Port at which the gateway serves Ingresses and Dns without TLS; 0 for none [default: 80, where it is free]
    #[arg(long, value_name = "PORT", help_heading = "Gateway")]
    pub(crate) gateway_http_port: Option<u16>,
    /// The same, with TLS [default: 443, where it is free]
    #[arg(long, value_name = "PORT", help_heading = "Gateway")]
    pub(crate) gateway_https_port: Option<u16>,
    /// Address at which the gateway opens its ports [default: all of this machine]
    #[arg(long, value_name = "IP", help_heading = "Gateway")]
    pub(crate) gateway_address: Option<IpAddr>,
    /// Run no gateway on this machine; names still lead to those of other machines
    #[arg(long, help_heading = "Gateway", conflicts_with_all = ["gateway_http_port", "gateway_https_port"])]
    pub(crate) no_gateway: bool,
    /// Domains of which hosts of Ingresses, HTTPRoutes and Dns resolve in all namespaces and not only in their own; '*' for
    /// all [default: minik8s, example, test, internal, local, lan, home.arpa, localhost]
    #[arg(long, value_name = "DOMAIN", value_delimiter = ',', help_heading = "Gateway")]
    pub(crate) gateway_domains: Vec<String>,
    /// Log each request that passes the gateway
    #[arg(long, help_heading = "Gateway")]
    pub(crate) gateway_access_log: bool,
    /// Use this containerd instead of starting a private one
    #[arg(long, value_name = "SOCKET", help_heading = "Node")]
    pub(crate) containerd: Option<PathBuf>,
    /// Name of this machine's node [default: the host name]
    #[arg(long, value_name = "NAME", help_heading = "Node")]
    pub(crate) node_name: Option<String>,
    /// Address of this machine's node [default: the one it would use to reach others]
    #[arg(long, value_name = "IP", help_heading = "Node")]
    pub(crate) node_ip: Option<IpAddr>,
    /// A label of the node, KEY=VALUE; separated by commas, or given again
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',', help_heading = "Node")]
    pub(crate) node_label: Vec<String>,
    /// A taint that the node is born with, KEY[=VALUE]:EFFECT; separated by commas, or given again
    #[arg(long, value_name = "TAINT", value_delimiter = ',', help_heading = "Node")]
    pub(crate) node_taint: Vec<String>,
    /// A manifest of kind Node, whose name, labels and taints the node gets
    #[arg(long, value_name = "FILE", help_heading = "Node")]
    pub(crate) node_manifest: Option<PathBuf>,
    /// Where device nodes of graphics processors are (nvidia0, nvidia1, ...), which pods ask for as nvidia.com/gpu
    #[arg(long, value_name = "DIR", default_value = "/dev", help_heading = "Node")]
    pub(crate) gpus: PathBuf,
    /// How often the node says that it lives; less than half of the cluster's --node-monitor-grace-period
    #[arg(long, value_name = "SECONDS", default_value_t = 10, help_heading = "Node",
        value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) lease_period: u64,
    /// How many sandboxes are made ahead, so that pods start sooner; 0 for none
    #[arg(long, value_name = "N", default_value_t = 2, help_heading = "Node",
        value_parser = clap::value_parser!(u8).range(..=64))]
    pub(crate) spare_sandboxes: u8,
    /// Containers that name no seccomp profile get the customary one instead of none
    #[arg(long, help_heading = "Node")]
    pub(crate) seccomp_default: bool,
    /// Size in bytes at which a container's log is rotated
    #[arg(long, value_name = "N", default_value_t = 10 << 20, value_parser = clap::value_parser!(u64).range(1..), help_heading = "Node")]
    pub(crate) log_max_bytes: u64,
    /// How many files of a container's log are kept
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..), help_heading = "Node")]
    pub(crate) log_max_files: u32,
}

/// A machine that joins.
#[derive(Debug, ClapArgs)]
pub(crate) struct Agent {
    #[command(flatten)]
    pub(crate) data: DataDir,
    /// Address of the cluster's API, such as https://10.0.0.1:6443
    #[arg(long, value_name = "URL", env = "MINIK8S_SERVER")]
    pub(crate) server: String,
    /// What `minik8s token create` printed; needed once. Other users of this machine can read arguments: the
    /// environment or --token-file keep it to yourself
    #[arg(long, value_name = "TOKEN", env = "MINIK8S_TOKEN", hide_env_values = true, conflicts_with = "token_file")]
    pub(crate) token: Option<String>,
    /// A file that holds the token
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) node: NodeOptions,
    /// Addresses of this machine's pods [default: the cluster assigns them]
    #[arg(long, value_name = "CIDR")]
    pub(crate) pod_cidr: Option<Ipv4Net>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Make a token with which machines may join, and print it
    Create {
        /// How long it is good, such as 30m, 24h or 7d; 0 for ever
        #[arg(long, value_name = "DURATION", default_value = "24h")]
        ttl: String,
        /// What it is for
        #[arg(long, value_name = "TEXT", default_value = "")]
        description: String,
        /// Print the whole command to run on the machine that joins
        #[arg(long)]
        print_join_command: bool,
    },
    /// Show tokens; never their secrets
    #[command(alias = "ls")]
    List,
    /// Revoke tokens; machines that have joined stay
    #[command(visible_alias = "delete")]
    Revoke {
        /// The part before the point
        #[arg(required = true, value_name = "ID")]
        ids: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Dns {
    /// Ask the cluster's name server on this machine for the addresses of a name
    Resolve {
        #[command(flatten)]
        data: DataDir,
        /// The name, such as web.default.svc.cluster.local or the host of an Ingress
        name: String,
    },
    /// Let this machine itself find the cluster's names: its name server becomes the first of this machine's
    HostSetup(HostSetup),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct HostSetup {
    #[command(flatten)]
    pub(crate) data: DataDir,
    /// The configuration to change
    #[arg(long, value_name = "FILE", default_value = "/etc/resolv.conf")]
    pub(crate) resolv_conf: PathBuf,
    /// Print what it would be, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Take it back; `minik8s down` does so too
    #[arg(long)]
    pub(crate) undo: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Down {
    #[command(flatten)]
    pub(crate) data: DataDir,
    /// Also delete the data directory: all objects, keys and images
    #[arg(long)]
    pub(crate) purge: bool,
}
