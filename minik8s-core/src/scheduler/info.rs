//! Pods and nodes as the scheduler sees them: what matters, decoded once.

use super::Resources;
use super::topology::NodeTopology;
use crate::network::Protocol;
use k8s_openapi::api::core::v1::{Affinity, Node, Pod, Taint, Toleration, TopologySpreadConstraint};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// What a pod without requests counts as (as upstream's scheduler has it).
const ASSUMED_CPU: i64 = 100;
const ASSUMED_MEMORY: i64 = 200 << 20;

/// A pod, reduced to what placement depends on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodInfo {
    /// Identity.
    pub uid: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// The node it is bound to, or was assumed on; empty while pending. In a pod to place: the node it insists on.
    pub node_name: String,
    /// What it asks for.
    pub requests: Resources,
    /// Ports of the host it wants: address (empty for all), protocol, port.
    pub host_ports: Vec<(String, Protocol, u16)>,
    /// `spec.nodeSelector`.
    pub node_selector: BTreeMap<String, String>,
    /// `spec.affinity`.
    pub affinity: Option<Arc<Affinity>>,
    /// `spec.tolerations`.
    pub tolerations: Vec<Toleration>,
    /// `spec.topologySpreadConstraints`.
    pub spread: Vec<TopologySpreadConstraint>,
    /// `spec.priority`.
    pub priority: i32,
    /// `spec.preemptionPolicy: Never`: it waits for room, and makes none.
    pub never_preempts: bool,
    /// `status.nominatedNodeName`: the node on which room is being made for it.
    pub nominated: String,
    /// It is being deleted.
    pub terminating: bool,
    /// When its node began to run it.
    pub started: Option<jiff::Timestamp>,
    /// Uid of the controller that owns it, for spreading.
    pub owner: Option<String>,
    /// `spec.schedulerName`.
    pub scheduler_name: String,
}

impl PodInfo {
    /// Reads a pod.
    pub fn from_pod(pod: &Pod) -> Self {
        let meta = &pod.metadata;
        let spec = pod.spec.as_ref();
        let owner = meta.owner_references.iter().flatten().find(|o| o.controller == Some(true)).map(|o| o.uid.clone());
        let mut info = Self {
            uid: meta.uid.clone().unwrap_or_default(),
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            labels: meta.labels.clone().unwrap_or_default(),
            owner,
            terminating: meta.deletion_timestamp.is_some(),
            ..Self::default()
        };
        if let Some(spec) = spec {
            info.node_name = spec.node_name.clone().unwrap_or_default();
            info.requests = Resources::of_pod(spec);
            info.node_selector = spec.node_selector.clone().unwrap_or_default();
            info.affinity = spec.affinity.clone().map(Arc::new);
            info.tolerations = spec.tolerations.clone().unwrap_or_default();
            info.spread = spec.topology_spread_constraints.clone().unwrap_or_default();
            info.priority = spec.priority.unwrap_or_default();
            info.never_preempts = spec.preemption_policy.as_deref() == Some("Never");
            info.scheduler_name = spec.scheduler_name.clone().unwrap_or_else(|| "default-scheduler".into());
            info.host_ports = host_ports(spec);
        }
        if let Some(status) = &pod.status {
            info.nominated = status.nominated_node_name.clone().unwrap_or_default();
            info.started = status.start_time.as_ref().map(|at| at.0);
        }
        info
    }

    /// CPU and memory it is taken to use where shares are compared: a pod that asks for nothing is not for free.
    pub(super) fn busy(&self) -> (i64, i64) {
        let or = |requests: i64, guess: i64| if requests == 0 { guess } else { requests };
        (or(self.requests.milli_cpu, ASSUMED_CPU), or(self.requests.memory, ASSUMED_MEMORY))
    }

    /// True where the other version of the pod asks for the same, whatever became of it.
    pub(super) fn asks_the_same(&self, other: &Self) -> bool {
        // Every field is named, so that a new one is thought about.
        let Self {
            uid,
            namespace,
            name,
            labels,
            node_name,
            requests,
            host_ports,
            node_selector,
            affinity,
            tolerations,
            spread,
            priority,
            never_preempts,
            nominated: _,
            terminating,
            started: _,
            owner,
            scheduler_name,
        } = self;
        (uid, namespace, name, node_name) == (&other.uid, &other.namespace, &other.name, &other.node_name)
            && (labels, requests, host_ports) == (&other.labels, &other.requests, &other.host_ports)
            && (node_selector, affinity) == (&other.node_selector, &other.affinity)
            && (tolerations, spread, owner) == (&other.tolerations, &other.spread, &other.owner)
            && (priority, never_preempts) == (&other.priority, &other.never_preempts)
            && (terminating, scheduler_name) == (&other.terminating, &other.scheduler_name)
    }

    /// `namespace/name`
    pub fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

fn host_ports(spec: &k8s_openapi::api::core::v1::PodSpec) -> Vec<(String, Protocol, u16)> {
    let sidecars = spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
    ports
        .filter_map(|p| {
            let port = u16::try_from(p.host_port?).ok().filter(|p| *p > 0)?;
            let ip = p.host_ip.clone().filter(|ip| ip != "0.0.0.0").unwrap_or_default();
            Some((ip, Protocol::parse(p.protocol.as_deref().unwrap_or_default()), port))
        })
        .collect()
}

/// A node, and what runs on it.
#[derive(Clone, Debug, Default)]
pub struct NodeInfo {
    /// Name.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Taints.
    pub taints: Vec<Taint>,
    /// Cordoned.
    pub unschedulable: bool,
    /// What it offers to pods.
    pub allocatable: Resources,
    /// What the pods on it asked for; kept by [`Snapshot`](super::Snapshot).
    pub requested: Resources,
    /// Thousandths of a CPU and bytes of memory, with a guess for pods that ask for none, so that such pods spread too;
    /// kept by [`Snapshot`](super::Snapshot).
    pub busy: (i64, i64),
    /// Where the snapshot keeps it; given by [`Snapshot`](super::Snapshot), the same for as long as the node is known.
    pub slot: usize,
    /// Numbers for its topology labels; given by [`Snapshot`](super::Snapshot).
    pub topology: NodeTopology,
    /// Orders it by chance among nodes that are equally good; given by [`Snapshot`](super::Snapshot).
    pub lot: u64,
    /// The pods on it, by uid; kept by [`Snapshot`](super::Snapshot).
    pub pods: HashMap<String, Arc<PodInfo>>,
}

impl NodeInfo {
    /// Reads a node. What runs on it is added by the snapshot.
    pub fn from_node(node: &Node) -> Self {
        let spec = node.spec.as_ref();
        let status = node.status.as_ref();
        let allocatable = status.and_then(|s| s.allocatable.as_ref().or(s.capacity.as_ref()));
        Self {
            name: node.metadata.name.clone().unwrap_or_default(),
            labels: node.metadata.labels.clone().unwrap_or_default(),
            taints: spec.and_then(|s| s.taints.clone()).unwrap_or_default(),
            unschedulable: spec.and_then(|s| s.unschedulable).unwrap_or_default(),
            allocatable: allocatable.map(Resources::from_map).unwrap_or_default(),
            ..Self::default()
        }
    }

    pub(super) fn add_pod(&mut self, pod: Arc<PodInfo>) {
        self.remove_pod(&pod.uid);
        self.requested.add(&pod.requests);
        self.requested.pods += 1;
        let busy = pod.busy();
        self.busy = (self.busy.0 + busy.0, self.busy.1 + busy.1);
        self.pods.insert(pod.uid.clone(), pod);
    }

    pub(super) fn remove_pod(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let old = self.pods.remove(uid)?;
        self.requested.subtract(&old.requests);
        self.requested.pods -= 1;
        let busy = old.busy();
        self.busy = (self.busy.0 - busy.0, self.busy.1 - busy.1);
        Some(old)
    }
}
