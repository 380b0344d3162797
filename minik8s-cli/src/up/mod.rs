//! `up`, `server`, `agent` and `down`: the composition of a cluster, or of this machine's part in one, from the library's
//! parts, and its removal.

mod agent;
mod data;
mod down;
mod gateway;
mod handover;
mod host_dns;
mod node_manifest;
mod parts;
mod preflight;
mod record;
mod store;
mod tuning;

pub(crate) use agent::agent;
pub(crate) use down::down;
pub(crate) use host_dns::dns;
pub(crate) use parts::{containerd_config, jobs};
pub(crate) use tuning::{Autoscaling, LostNodes, Scheduling, Tolerations, period};

use crate::args::{ControlPlane, JobOptions, NodeOptions, StoreKind, Up};
use crate::output::say;
use anyhow::{Context, Result};
use gateway::NodesGateway;
use ipnet::Ipv4Net;
use minik8s_core::cluster::{Cluster, ClusterBuilder};
use minik8s_core::server::Settings;
use minik8s_core::server::auth::{CONTROLLERS, SCHEDULER, User};
use minik8s_net::gateway::Sockets;
use minik8s_runtime::Mirror;
use minik8s_serverless::Serverless;
use minik8s_serverless::functions::Unpacker;
use minik8s_serverless::registry::{HOST, Registry};
use record::{Lock, Record};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// Where the API listens if nobody says.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Door {
    /// For this machine alone.
    Loopback,
    /// For other machines too.
    All,
}

impl Door {
    fn address(self) -> SocketAddr {
        let ip = match self {
            Door::Loopback => Ipv4Addr::LOCALHOST,
            Door::All => Ipv4Addr::UNSPECIFIED,
        };
        SocketAddr::new(ip.into(), 6443)
    }
}

/// Runs a cluster until SIGTERM or SIGINT. Containers go on after that.
pub(crate) async fn up(options: &Up, door: Door) -> Result<()> {
    let began = Instant::now();
    let sockets = handover::inherited();
    let schedulers = options.scheduling.schedulers()?;
    preflight::check(options)?;
    let data = &options.control.data.data_dir;
    let (mut builder, api, lock) = control_plane(&options.control, options.node.node_ip, door).await?;
    builder = builder.node_failures(options.lost_nodes.node_failures()).schedulers(schedulers);
    builder = builder.horizontal(options.autoscaling.config()).extension(parts::jobs(
        data,
        &options.jobs,
        &options.node.gpus,
    ));
    if !options.without_node {
        let record = own_record(options, door, api)?;
        let for_pods = parts::door_for_pods(&record, data, api)?;
        record.write(data)?;
        builder = for_pods.into_iter().fold(builder, ClusterBuilder::listen);
        builder = add_node(builder, &options.node, &record, data, (api, &sockets)).await?;
    }
    let cluster = builder.store(store::open(&options.control, data).await?).start().await?;
    serve(cluster, data, began, lock, &sockets).await
}

/// What the node beside a control plane is. One that others join has the first part of the cluster's range, but where
/// there may be several such, on one store, each is given its own.
fn own_record(options: &Up, door: Door, api: SocketAddr) -> Result<Record> {
    let ranges = options.control.ranges.pods();
    let first = Ipv4Net::new(ranges.cluster.network(), ranges.node_prefix)?;
    // Behind a loopback address nobody else can be, and pods need a door whose address is known beforehand.
    let one_of_several =
        matches!((door, options.control.store), (Door::All, StoreKind::Etcd)) && !api.ip().is_loopback();
    let pods = options.pod_cidr.map(|range| range.trunc()).or_else(|| (!one_of_several).then_some(first));
    let mut record = Record::new(&options.node, pods, options.control.service_cidr.trunc())?;
    if let Door::All = door {
        let address = options.node.node_ip.or_else(parts::main_address);
        record.others = Some(parts::others(ranges.cluster, address)?);
    }
    Ok(record)
}

/// Runs an API server alone, and leaves behind what the other components need to find it.
pub(crate) async fn apiserver(options: &ControlPlane, door: Door) -> Result<()> {
    let began = Instant::now();
    preflight::control_plane(options)?;
    let data = &options.data.data_dir;
    let (builder, _, lock) = control_plane(options, None, door).await?;
    let builder = builder.extension(parts::jobs(data, &JobOptions::default(), data)).without_controllers();
    let cluster = builder.store(store::open(options, data).await?).start().await?;
    for (file, user) in [("scheduler", SCHEDULER), ("controller-manager", CONTROLLERS)] {
        if let Some(kubeconfig) = cluster.kubeconfig_of(&User::new(user, &[]))? {
            kubeconfig.write(&data.join(format!("{file}.kubeconfig")))?;
        }
    }
    serve(cluster, data, began, lock, &Sockets::default()).await
}

/// A cluster that listens, with nothing behind it yet; where; and the right to use its data directory.
async fn control_plane(
    options: &ControlPlane,
    node_ip: Option<IpAddr>,
    door: Door,
) -> Result<(ClusterBuilder, SocketAddr, Lock)> {
    let settings = Settings {
        service_cidr: options.service_cidr.trunc().into(),
        pod_cidr: Some(options.ranges.cluster_cidr.trunc().into()),
        ..options.tolerations.settings(Settings::default())
    };
    let data = &options.data.data_dir;
    data::private_directory(data)?;
    let lock = Lock::take(data)?;
    let address = options.listen.unwrap_or_else(|| door.address());
    // Bound before anything is made, so that a taken address leaves nothing behind.
    let listener = TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address}; choose another address with --listen IP:PORT (port 0 takes a free one)")
    })?;
    let address = listener.local_addr()?;
    let mut builder = match &options.metrics_adapter {
        Some(url) => Cluster::builder().metrics_adapter(url)?,
        None => Cluster::builder(),
    };
    if let Some(resolution) = options.metric_resolution {
        builder = builder.metric_resolution(resolution);
    }
    builder = builder
        .settings(settings)
        .pod_ranges(options.ranges.pods())
        .server_names(options.tls_san.iter().cloned())
        .pki(data.join("pki"))
        .listen(listener);
    let chosen = options.advertise_address.or(node_ip).or_else(parts::main_address);
    let own = if address.ip().is_unspecified() { chosen } else { Some(address.ip()) };
    let registry = Registry::open(data.join("registry"))?;
    let front = options.workflows.front(own);
    let serverless = front.into_iter().fold(Serverless::new(), Serverless::front);
    let serverless =
        serverless.registry(registry).workflows(options.workflows.workflows()).triggers(options.workflows.triggers());
    let metrics = serverless.metrics();
    builder = builder.extension(serverless).metrics(move |page| metrics.register(page));
    if address.ip().is_unspecified() {
        builder = builder.server_names(parts::own_addresses().iter().map(ToString::to_string));
        builder = chosen.into_iter().fold(builder, ClusterBuilder::advertise);
    }
    Ok((builder, address, lock))
}

async fn add_node(
    builder: ClusterBuilder,
    options: &NodeOptions,
    record: &Record,
    data: &Path,
    (api, sockets): (SocketAddr, &Sockets),
) -> Result<ClusterBuilder> {
    let hosts = Arc::default();
    let gateway = NodesGateway::open(options, record, &hosts, sockets)?;
    let own = Mirror { first: reachable(api), ..Mirror::default() };
    let runtime = parts::runtime(record, data, Some(own), options.spare_sandboxes).await?;
    let network = parts::network(record, data, &hosts)?;
    let unpacker = Arc::new(Unpacker::new(runtime.clone()));
    let builder = builder.node(parts::node_config(options, record, data)?, runtime, network);
    Ok(gateway.join(builder).companion(unpacker))
}

/// Where this machine's runtime finds the API server.
fn reachable(api: SocketAddr) -> String {
    let ip = if api.ip().is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { api.ip() };
    SocketAddr::new(ip, api.port()).to_string()
}

async fn serve(cluster: Cluster, data: &Path, began: Instant, lock: Lock, sockets: &Sockets) -> Result<()> {
    let path = data.join("admin.kubeconfig");
    let (Some(kubeconfig), Some(_)) = (cluster.kubeconfig(), cluster.address()) else {
        anyhow::bail!("the cluster does not listen");
    };
    kubeconfig.write(&path)?;
    parts::trust_registry(data, HOST, &kubeconfig.ca_certificate)?;
    let end = told_to_end()?;
    say(&format!("ready {} kubeconfig={} in {} ms", kubeconfig.server, path.display(), began.elapsed().as_millis()));
    let end = end.await;
    tracing::info!("stopping; containers go on");
    cluster.stop().await;
    drop(lock);
    match end {
        End::Stop => Ok(()),
        End::Again => Err(handover::again(sockets)),
    }
}

/// What a process is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// To end (SIGTERM, SIGINT).
    Stop,
    /// To begin anew without losing anybody who connects meanwhile (SIGUSR2).
    Again,
}

/// Ends with the first signal from here on that says so.
pub(crate) fn told_to_end() -> Result<impl Future<Output = End>> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut again = signal(SignalKind::user_defined2())?;
    Ok(async move {
        tokio::select! {
            _ = term.recv() => End::Stop,
            _ = int.recv() => End::Stop,
            _ = again.recv() => End::Again,
        }
    })
}
