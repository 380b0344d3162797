//! What all parts of one agent share.

use super::config::NodeConfig;
use super::images::PullLocks;
use super::pods::Pods;
use super::refs::Refs;
use super::spec::{Facts, NodeSize};
use super::volumes::Roots;
use crate::client::{Backoff, Client, EventRecorder, EventType, Informer, reference_of};
use crate::clock::SharedClock;
use crate::network::{ServiceTable, SharedNetwork};
use crate::runtime::{RuntimeCapabilities, SharedRuntime};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Pod, Service};
use parking_lot::RwLock;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use tokio::sync::watch;

/// See the [module](self).
pub(crate) struct Context {
    pub(crate) config: NodeConfig,
    pub(crate) client: Client,
    pub(crate) runtime: SharedRuntime,
    pub(crate) network: SharedNetwork,
    pub(crate) clock: SharedClock,
    pub(crate) events: EventRecorder,
    pub(crate) refs: Refs,
    pub(crate) services: Informer<Service>,
    pub(crate) pods: Arc<Pods>,
    pub(crate) pulls: PullLocks,
    pub(crate) capabilities: RwLock<RuntimeCapabilities>,
    /// The range of the node's pods, where somebody else decided.
    pub(crate) range: OnceLock<IpNet>,
    /// True once the node's record exists.
    pub(crate) registered: watch::Sender<bool>,
    /// The services as the network was told of them; `None` until they are known.
    pub(crate) table: watch::Sender<Option<Arc<ServiceTable>>>,
    /// Waits between tries at what must work in the end.
    pub(crate) retry: Backoff,
}

impl Context {
    pub(crate) fn runtime_version(&self) -> String {
        self.capabilities.read().version.clone()
    }

    /// `containerd` of `containerd://1.6.20`.
    pub(crate) fn scheme(&self) -> String {
        let version = self.runtime_version();
        version.split("://").next().unwrap_or_default().to_owned()
    }

    /// Probes over the network find something to talk to.
    pub(crate) fn real_processes(&self) -> bool {
        self.capabilities.read().real_processes
    }

    pub(crate) fn roots(&self, uid: &str) -> Roots {
        Roots { pod: self.config.pods_dir().join(uid) }
    }

    /// `<data>/logs/<namespace>_<name>_<uid>`
    pub(crate) fn pod_logs(&self, namespace: &str, name: &str, uid: &str) -> PathBuf {
        self.config.logs_dir().join(format!("{namespace}_{name}_{uid}"))
    }

    pub(crate) fn facts(&self, pod_ips: Vec<IpAddr>) -> Facts {
        let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let capacity = &self.config.capacity;
        Facts {
            pod_ips,
            host_ips: self.config.addresses.clone(),
            node: NodeSize {
                milli_cpu: number(capacity.milli_cpu),
                memory: number(capacity.memory_bytes),
                ephemeral: number(capacity.ephemeral_bytes),
            },
        }
    }

    pub(crate) fn normal(&self, pod: &Pod, reason: &str, note: impl Into<String>) {
        self.events.event(&reference_of(pod), EventType::Normal, reason, note);
    }

    pub(crate) fn warning(&self, pod: &Pod, reason: &str, note: impl Into<String>) {
        self.events.event(&reference_of(pod), EventType::Warning, reason, note);
    }
}
