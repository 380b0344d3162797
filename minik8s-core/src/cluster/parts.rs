//! Starting the parts, in order: server, front, controllers and scheduler, nodes.

use super::{Cluster, ClusterBuilder, ClusterError, Extension};
use crate::api::schema::Schemas;
use crate::client::{Client, ClientIdentity, ElectionConfig, GrpcConfig};
use crate::clock::SharedClock;
use crate::controllers::certificates::Signer;
use crate::controllers::{
    self, CONTROLLERS_LEASE, Controller, ControllerManager, ControllerMetrics, ControllersConfig, SCHEDULER_LEASE,
};
use crate::network::SharedNetwork;
use crate::node::{
    Companion, NodeAccess, NodeAgent, NodeConfig, NodeDirectory, follow_servers, serve_links, server_url,
};
use crate::runtime::SharedRuntime;
use crate::scheduler::{SchedulerConfig, SchedulerLoop};
use crate::server::auth::{Authenticator, BootstrapTokens, User};
use crate::server::grpc::GrpcServices;
use crate::server::kubeconfig::Kubeconfig;
use crate::server::listen::{Front, serve};
use crate::server::rest::{RestConfig, RestService};
use crate::server::tls::{Authority, Pki, ServerNames};
use crate::server::{ApiServer, ApiServerBuilder, Peers, sidecar};
#[cfg(feature = "testkit")]
use ipnet::Ipv4Net;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What one node is made of.
pub(super) struct NodeParts {
    pub(super) config: NodeConfig,
    pub(super) runtime: SharedRuntime,
    pub(super) network: SharedNetwork,
    pub(super) companions: Vec<Arc<dyn Companion>>,
    /// Something that must live as long as the node.
    pub(super) keep: Option<Box<dyn Send + Sync>>,
}

pub(super) async fn start(mut builder: ClusterBuilder) -> Result<Cluster, ClusterError> {
    if let Some(ranges) = builder.pod_ranges {
        ranges.check(builder.server.settings.service_cidr)?;
    }
    let (shutdown, tasks, nodes) = (CancellationToken::new(), TaskTracker::new(), NodeDirectory::default());
    // Whatever fails below, what has started by then stops.
    let on_drop = shutdown.clone().drop_guard();
    let addresses: Vec<SocketAddr> = builder.listeners.iter().filter_map(|l| l.local_addr().ok()).collect();
    let advertise = addresses.iter().find_map(|a| advertised(*a, builder.advertise, &builder.nodes));
    let server = builder.server.clone().nodes(nodes.clone()).metric_resolution(builder.resolution());
    let server = start_server(server, &builder.extensions, advertise).await?;
    let metrics = server.metrics().clone();
    std::mem::take(&mut builder.metrics).into_iter().for_each(|add| metrics.register(add));
    let doors = builder.extensions.iter().flat_map(|extension| extension.doors()).collect();
    let rest = RestService::new(RestConfig { shutdown: shutdown.clone(), doors, ..RestConfig::of(&server) });
    let pki = listen(&mut builder, &server, &rest, &shutdown, &tasks).await?;
    let kubeconfig = pki.as_ref().zip(addresses.first()).map(|(pki, address)| kubeconfig(pki, *address));
    let authority = pki.map(|pki| pki.authority().clone());
    let (present, ending) = (server.clone(), shutdown.clone());
    tasks.spawn(async move { present.keep_presence(ending).await });
    let counted = ControllerMetrics::default();
    server.metrics().register(|registry| counted.register(registry));
    if builder.controllers {
        start_loops(&builder, &server, authority.clone(), &counted, &shutdown, &tasks);
    }
    let beside = builder.extensions.iter().flat_map(|extension| extension.sidecars()).collect();
    let observed = (builder.server.clock.clone(), counted);
    tasks.spawn(sidecar::run(server.clone(), beside, observed.clone(), shutdown.clone()));
    start_attendants(&builder.extensions, &server, authority.as_ref(), observed, &shutdown, &tasks)?;
    for parts in std::mem::take(&mut builder.nodes) {
        let agent = start_node(parts, &server, &nodes, &builder.server.clock, &shutdown, &tasks);
        if let Some(authority) = &authority {
            let (server, authority, shutdown) = (server.clone(), authority.clone(), shutdown.clone());
            tasks.spawn(async move { reach_from_others(&server, &authority, agent, shutdown).await });
        }
    }
    let address = addresses.first().copied();
    Ok(Cluster { server, rest, metrics, address, kubeconfig, authority, shutdown, tasks, _on_drop: on_drop })
}

async fn start_server(
    mut server: ApiServerBuilder,
    extensions: &[Arc<dyn Extension>],
    advertise: Option<SocketAddr>,
) -> Result<Arc<ApiServer>, ClusterError> {
    let mut schemas = Schemas::builtin();
    for extension in extensions {
        extension
            .schemas(&mut schemas)
            .map_err(|source| ClusterError::Schema { extension: extension.name().to_owned(), source })?;
        server = extension.kinds().into_iter().fold(server, |s, kind| s.kind(kind));
    }
    server = server.schemas(schemas);
    if let Some(address) = advertise {
        server = server.advertise(address);
    }
    server.start().await.map_err(ClusterError::Server)
}

/// Where pods reach the API: a loopback address is the pod's own there, and "all addresses" means the node's.
fn advertised(address: SocketAddr, chosen: Option<IpAddr>, nodes: &[NodeParts]) -> Option<SocketAddr> {
    let ip = match address.ip() {
        ip if ip.is_loopback() => return None,
        ip if ip.is_unspecified() => chosen.or_else(|| nodes.first()?.config.addresses.first().copied())?,
        ip => ip,
    };
    Some(SocketAddr::new(ip, address.port()))
}

/// Serves on the listeners, where there are any.
async fn listen(
    builder: &mut ClusterBuilder,
    server: &Arc<ApiServer>,
    rest: &RestService,
    shutdown: &CancellationToken,
    tasks: &TaskTracker,
) -> Result<Option<Pki>, ClusterError> {
    let listeners = std::mem::take(&mut builder.listeners);
    let addresses: Vec<SocketAddr> = listeners.iter().filter_map(|l| l.local_addr().ok()).collect();
    if addresses.is_empty() {
        return Ok(None);
    }
    let now = builder.server.clock.now();
    let names = ServerNames::standard(&builder.server.settings.cluster_domain, builder.server.settings.api_address())
        .with(std::mem::take(&mut builder.names))
        .with(addresses.iter().map(|address| address.ip().to_string()))
        .with(server.advertise.map(|address| address.ip().to_string()));
    let shared = match builder.server.store.capabilities().shared {
        true => Some(Authority::shared(builder.server.store.as_ref(), builder.pki.as_deref(), now).await?),
        false => None,
    };
    let pki = match (&builder.pki, shared) {
        (Some(directory), _) => Pki::open(directory, &names, now)?,
        (None, Some(authority)) => Pki::of(authority, &names, now)?,
        (None, None) => Pki::in_memory(&names, now)?,
    };
    let grpc = GrpcServices::of(server, rest.authorizer(), shutdown.clone());
    let authenticator = Authenticator::default().with_source(BootstrapTokens::of(server));
    let front = Front::new(rest.clone(), authenticator).with_grpc(grpc);
    for listener in listeners {
        tasks.spawn(serve(listener, pki.server_config()?, front.clone(), shutdown.clone()));
    }
    Ok(Some(pki))
}

/// What the administrator needs, where the server is at this address.
fn kubeconfig(pki: &Pki, address: SocketAddr) -> Kubeconfig {
    Kubeconfig {
        name: "minik8s".to_owned(),
        server: format!("https://{}", reachable(address)),
        ca_certificate: pki.ca_certificate().to_owned(),
        user: pki.admin().clone(),
    }
}

/// An address one can connect to: "all addresses" is reached on loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = if address.ip().is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { address.ip() };
    SocketAddr::new(ip, address.port())
}

fn start_loops(
    builder: &ClusterBuilder,
    server: &Arc<ApiServer>,
    authority: Option<Authority>,
    metrics: &ControllerMetrics,
    shutdown: &CancellationToken,
    tasks: &TaskTracker,
) {
    let ca = authority.as_ref().map(|a| a.certificate().to_owned()).unwrap_or_default();
    let signer = authority.map(|authority| Signer { life: builder.certificate_life, ..Signer::new(authority) });
    let nodes = builder.node_failures.clone();
    let defaults = ControllersConfig::new(Arc::new(server.registry().clone()));
    let horizontal = builder.horizontal.clone();
    let config = ControllersConfig { ca, signer, nodes, horizontal, pod_ranges: builder.pod_ranges, ..defaults };
    let mut all = controllers::all(&config);
    all.extend(builder.extensions.iter().flat_map(|extension| extension.controllers()));
    let schedulers = SchedulerConfig { schedulers: builder.schedulers.clone(), ..SchedulerConfig::default() };
    let scheduler: Arc<dyn Controller> = Arc::new(SchedulerLoop::new(schedulers));
    let (client, clock) = (Client::new(server.clone()), builder.server.clock.clone());
    for (lease, loops) in [(CONTROLLERS_LEASE, all), (SCHEDULER_LEASE, vec![scheduler])] {
        let manager = ControllerManager::new(client.clone(), clock.clone(), loops).counted(metrics.clone());
        let election = election(builder, lease);
        tasks.spawn(manager.lead(election, shutdown.clone()));
    }
}

/// What extensions run beside every API server.
fn start_attendants(
    extensions: &[Arc<dyn Extension>],
    server: &Arc<ApiServer>,
    authority: Option<&Authority>,
    (clock, metrics): (SharedClock, ControllerMetrics),
    shutdown: &CancellationToken,
    tasks: &TaskTracker,
) -> Result<(), ClusterError> {
    let peers = match authority {
        Some(authority) => Peers::new(authority.certificate(), server.advertise).map_err(ClusterError::Server)?,
        None => Peers::default(),
    };
    let attendants: Vec<_> = extensions.iter().flat_map(|extension| extension.attendants(&peers)).collect();
    if attendants.is_empty() {
        return Ok(());
    }
    let client = Client::new(server.clone());
    let (follower, stop) = (client.clone(), shutdown.clone());
    tasks.spawn(async move { peers.follow(&follower, stop).await });
    let manager = ControllerManager::new(client, clock, attendants).counted(metrics);
    tasks.spawn(manager.run(shutdown.clone()));
    Ok(())
}

/// What the loops stand for election with, where others may run them too.
fn election(builder: &ClusterBuilder, lease: &str) -> Option<ElectionConfig> {
    let shared = builder.server.store.capabilities().shared;
    let config = builder.election.clone().or_else(|| shared.then(|| ElectionConfig::of_process(lease)))?;
    Some(ElectionConfig { name: lease.to_owned(), ..config })
}

/// Nodes fail and recover on their own: this only starts them.
fn start_node(
    parts: NodeParts,
    server: &Arc<ApiServer>,
    nodes: &NodeDirectory,
    clock: &SharedClock,
    shutdown: &CancellationToken,
    tasks: &TaskTracker,
) -> (String, Arc<dyn NodeAccess>) {
    let NodeParts { config, runtime, network, companions, keep } = parts;
    let name = config.name.clone();
    let client = Client::new(server.clone()).with_manager("kubelet");
    let agent = NodeAgent::builder(config, client, runtime, network);
    let agent = agent.clock(clock.clone()).companions(companions).build();
    let access = agent.access();
    nodes.register(name.clone(), access.clone());
    let shutdown = shutdown.clone();
    tasks.spawn(async move {
        agent.run(shutdown).await;
        drop(keep);
    });
    (name, access)
}

/// Lets the other API servers on the store reach a node of this process, as they reach every other node.
async fn reach_from_others(
    server: &Arc<ApiServer>,
    authority: &Authority,
    (node, access): (String, Arc<dyn NodeAccess>),
    shutdown: CancellationToken,
) {
    let Some(own) = server.advertise.filter(|_| server.store.capabilities().shared) else { return };
    let identity = authority.issue_client(&User::of_node(&node), server.clock().now()).ok();
    let identity = identity.and_then(|id| ClientIdentity::new(&id.certificate, &id.key).ok());
    let Some(identity) = identity else {
        return tracing::warn!(node, "no certificate can be made for the node: other API servers do not reach it");
    };
    let config = GrpcConfig {
        url: server_url(own),
        ca: authority.certificate().as_bytes().to_vec(),
        identity: Some(identity),
        ..GrpcConfig::default()
    };
    let client = Client::new(server.clone());
    let servers = follow_servers(&client, &config.others, shutdown.clone(), |_| {});
    tokio::join!(servers, serve_links(&config, None, access, shutdown.clone()));
}

#[cfg(feature = "testkit")]
impl NodeParts {
    /// A node that pretends, beside others.
    pub(super) fn fake(name: &str, others: &[Self], runtime: Arc<crate::testkit::FakeRuntime>) -> Self {
        let range = Self::fake_range(name, others);
        let directory = tempfile::Builder::new().prefix("minik8s-node").tempdir();
        let path = directory.as_ref().map_or_else(|_| std::env::temp_dir().join(name), |d| d.path().to_owned());
        let config = NodeConfig { pod_cidr: Some(range.into()), ..NodeConfig::new(name, path) };
        let network = Arc::new(crate::network::NoopNetwork::new(range));
        let keep = directory.ok().map(|d| Box::new(d) as Box<dyn Send + Sync>);
        Self { config, runtime, network, companions: Vec::new(), keep }
    }

    /// Each node its own range, as on real ones: out of 10.128.0.0/9 by its name, so that clusters on one store differ.
    fn fake_range(name: &str, others: &[Self]) -> Ipv4Net {
        let hash = name.bytes().fold(0_u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
        let place = |index: u32| Ipv4Net::new_assert(((10 << 24) | (1 << 23) | ((index & 0x7fff) << 8)).into(), 24);
        let free = |range: &Ipv4Net| others.iter().all(|other| other.config.pod_cidr != Some((*range).into()));
        (0..=0x7fff).map(|step| place(hash.wrapping_add(step))).find(free).unwrap_or_else(|| place(hash))
    }
}
