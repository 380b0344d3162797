//! A node's network: a bridge that is the node's place in the range of its pods, and a pair of links for each pod.
//!
//! Pods get one end of a pair, an address of the node's range with a full-length prefix, and a default route to the
//! bridge's address; the other end stays beside the bridge, not on it, with a route to the pod. Traffic between pods is
//! routed by the host, never switched past it, so replies always meet the connection tracking that translated the
//! request; and no packet pays for a bridge that it only passes through, nor for netfilter being called there once more.

mod attach;
mod setup;

use crate::config::BridgeConfig;
use crate::dns::{DnsServer, Names, Upstreams, Zone};
use crate::kernel::failed;
use crate::ledger::{Ledger, Record};
use crate::link::Links;
use crate::services::{PodRules, ServiceRules, Surroundings};
use async_trait::async_trait;
use minik8s_core::network::pool::AddressPool;
use minik8s_core::network::{
    DnsConfig, HostPort, NetworkCapabilities, NetworkError, NetworkPlugin, NetworkResult, Peer, PodAttachment,
    PodNetwork, ServiceTable,
};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fs::File;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OnceCell;

/// Bridge, addresses, service rules and names of one machine. Cheap to make; [`NetworkPlugin::setup`] acts.
#[derive(Debug)]
pub struct BridgeNetwork {
    config: BridgeConfig,
    links: OnceCell<Links>,
    rules: ServiceRules,
    names: Arc<Names>,
    server: tokio::sync::Mutex<Option<DnsServer>>,
    /// The canonical copy of who has which address; the files follow it.
    ledger: Mutex<Ledger>,
    /// One at a time for each pod.
    busy: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    /// The nodes that the kernel was last told of, and the turn to tell it; `None` until somebody said.
    peers: tokio::sync::Mutex<Option<Vec<Peer>>>,
    /// Held from setup on: tells a second process that this bridge is alive.
    lock: Mutex<Option<nix::fcntl::Flock<File>>>,
}

/// How often, and how far apart, a taken port is tried again.
const PORT_TRIES: u32 = 50;
const PORT_WAIT: Duration = Duration::from_millis(20);

/// Starts the name server. The one of a network object that ends at this moment gives its port back only when its tasks
/// are gone, so a taken port is tried again for a second before somebody else is blamed.
async fn start_names(address: SocketAddr, names: &Arc<Names>) -> std::io::Result<DnsServer> {
    for _ in 0..PORT_TRIES {
        match DnsServer::start(address, names.clone()).await {
            Err(error) if error.kind() == ErrorKind::AddrInUse => tokio::time::sleep(PORT_WAIT).await,
            other => return other,
        }
    }
    DnsServer::start(address, names.clone()).await
}

impl BridgeNetwork {
    /// A network that knows the allocations which a predecessor left in the state directory.
    ///
    /// # Errors
    /// An impossible configuration; a state directory that cannot be read.
    pub fn new(config: BridgeConfig) -> NetworkResult<Self> {
        config.check()?;
        let ledger = Ledger::open(config.state_dir.clone(), AddressPool::new(config.pod_cidr))
            .map_err(failed("open", config.state_dir.display().to_string()))?;
        let names = names(&config);
        ledger.records().for_each(|record| names.zone().askers().add(record.ip, &record.namespace));
        let rules = ServiceRules::new(surroundings(&config));
        ledger.records().for_each(|record| rules.note_pod(&record.id, pod_rules(record)));
        Ok(Self {
            config,
            links: OnceCell::new(),
            rules,
            names: Arc::new(names),
            server: tokio::sync::Mutex::default(),
            ledger: Mutex::new(ledger),
            busy: Mutex::default(),
            peers: tokio::sync::Mutex::default(),
            lock: Mutex::default(),
        })
    }

    /// What it was told.
    pub fn config(&self) -> &BridgeConfig {
        &self.config
    }

    pub(crate) fn peers(&self) -> &tokio::sync::Mutex<Option<Vec<Peer>>> {
        &self.peers
    }

    pub(crate) async fn links(&self) -> NetworkResult<&Links> {
        self.links.get_or_try_init(|| async { Links::here().map_err(failed("open", "a netlink socket")) }).await
    }

    /// Where the name server listens, once it is set up.
    pub async fn dns_address(&self) -> Option<SocketAddr> {
        self.server.lock().await.as_ref().map(DnsServer::address)
    }

    async fn serve_names(&self) -> NetworkResult<()> {
        let Some(port) = self.config.dns_port else { return Ok(()) };
        let mut server = self.server.lock().await;
        if server.is_none() {
            let address = SocketAddr::from((self.config.gateway(), port));
            let started = start_names(address, &self.names).await;
            *server = Some(started.map_err(|error| {
                match error.kind() {
                    ErrorKind::AddrInUse => NetworkError::Taken {
                        what: "port",
                        name: address.to_string(),
                        hint: "another name server of this machine has it; let that listen at its own addresses only"
                            .to_owned(),
                    },
                    _ => failed("listen at", address.to_string())(error),
                }
            })?);
        }
        Ok(())
    }

    fn turn(&self, id: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut busy = self.busy.lock();
        busy.retain(|_, turn| Arc::strong_count(turn) > 1);
        busy.entry(id.to_owned()).or_default().clone()
    }
}

fn surroundings(config: &BridgeConfig) -> Surroundings {
    Surroundings {
        table: config.table(),
        group: config.link_group(),
        gateway: config.gateway(),
        tunnel: config.overlay.map(|overlay| (overlay.address, overlay.port)),
        node: config.node.clone(),
        pods: config.pod_cidr.trunc(),
        cluster: config.cluster_cidr.trunc(),
        services: config.service_cidr.trunc(),
    }
}

fn names(config: &BridgeConfig) -> Names {
    let gateway = config.gateway();
    let ranges = vec![config.cluster_cidr, config.pod_cidr, config.service_cidr];
    let zone = Zone::new(&config.domain, gateway, ranges).with_hosts(config.hosts.clone());
    Names::new(zone, Upstreams::new(config.upstreams.clone(), gateway.into()))
}

/// A port of all addresses may be spelled in several ways, of which the first counts.
fn pod_rules(record: &Record) -> PodRules {
    let mut host_ports: Vec<HostPort> = Vec::new();
    for port in &record.host_ports {
        let port = HostPort { host_ip: port.host_ip.filter(|ip| !ip.is_unspecified()), ..*port };
        let same = |p: &HostPort| (p.host_ip, p.host_port, p.protocol) == (port.host_ip, port.host_port, port.protocol);
        if !host_ports.iter().any(same) {
            host_ports.push(port);
        }
    }
    PodRules { ip: record.ip, host_ports }
}

#[async_trait]
impl NetworkPlugin for BridgeNetwork {
    fn capabilities(&self) -> NetworkCapabilities {
        let overlay = self.config.overlay.is_some();
        NetworkCapabilities { real_packets: true, overlay, durable: true, assigned: false }
    }

    fn dns(&self) -> DnsConfig {
        let servers = self.config.dns_port.map(|_| IpAddr::V4(self.config.gateway())).into_iter().collect();
        DnsConfig { servers, domain: self.config.domain.clone() }
    }

    async fn setup(&self) -> NetworkResult<()> {
        self.make_bridge().await?;
        self.repair_peers().await?;
        self.rules.ensure().await?;
        self.serve_names().await
    }

    async fn attach(&self, pod: &PodAttachment) -> NetworkResult<PodNetwork> {
        let turn = self.turn(&pod.id);
        let _turn = turn.lock().await;
        self.connect(pod).await
    }

    async fn detach(&self, id: &str) -> NetworkResult<()> {
        let turn = self.turn(id);
        let _turn = turn.lock().await;
        self.disconnect(id).await
    }

    async fn attachments(&self) -> NetworkResult<Vec<PodNetwork>> {
        Ok(self.ledger.lock().records().map(Record::network).collect())
    }

    async fn sync_services(&self, table: Arc<ServiceTable>) -> NetworkResult<()> {
        self.names.swap(self.names.zone().with(table.clone()));
        self.rules.sync(table).await
    }

    async fn sync_peers(&self, peers: &[Peer]) -> NetworkResult<()> {
        self.match_peers(peers).await
    }

    async fn teardown(&self) -> NetworkResult<()> {
        self.server.lock().await.take();
        self.names.swap(self.names.zone().with(Arc::default()));
        let mut problems = self.remove_peers().await;
        problems.extend(self.remove_links().await);
        problems.extend(self.rules.remove().await.err().map(|error| error.to_string()));
        problems.extend(self.remove_state());
        if problems.is_empty() { Ok(()) } else { Err(NetworkError::Teardown(problems)) }
    }
}
