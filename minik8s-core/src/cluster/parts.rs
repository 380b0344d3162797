//! Starting the parts, in order: server, front, controllers and scheduler, nodes.

use super::{Cluster, ClusterBuilder, ClusterError};
use crate::api::schema::Schemas;
use crate::client::Client;
use crate::controllers::{self, ControllerManager, ControllersConfig};
use crate::node::NodeDirectory;
use crate::scheduler::{SchedulerConfig, SchedulerLoop};
use crate::server::auth::Authenticator;
use crate::server::kubeconfig::Kubeconfig;
use crate::server::listen::{Front, serve};
use crate::server::rest::{RestConfig, RestService};
use crate::server::tls::{Pki, ServerNames};
use crate::server::{ApiServer, grpc};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(super) async fn start(mut builder: ClusterBuilder) -> Result<Cluster, ClusterError> {
    let (shutdown, tasks, nodes) = (CancellationToken::new(), TaskTracker::new(), NodeDirectory::default());
    // Whatever fails below, what has started by then stops.
    let on_drop = shutdown.clone().drop_guard();
    let address = builder.listener.as_ref().and_then(|l| l.local_addr().ok());
    let server = start_server(&builder, &nodes, address).await?;
    let metrics = server.metrics().clone();
    let rest = RestService::new(RestConfig {
        nodes: nodes.clone(),
        clock: builder.clock.clone(),
        metrics: metrics.clone(),
        shutdown: shutdown.clone(),
        ..RestConfig::new(server.clone(), server.registry().clone())
    });
    let kubeconfig = listen(&mut builder, &server, &rest, &shutdown, &tasks)?;
    if builder.controllers {
        let ca = kubeconfig.as_ref().map(|k| k.ca_certificate.clone()).unwrap_or_default();
        start_loops(&builder, &server, ca, &shutdown, &tasks);
    }
    Ok(Cluster { server, rest, metrics, address, kubeconfig, shutdown, tasks, _on_drop: on_drop })
}

async fn start_server(
    builder: &ClusterBuilder,
    nodes: &NodeDirectory,
    address: Option<SocketAddr>,
) -> Result<Arc<ApiServer>, ClusterError> {
    let mut schemas = Schemas::builtin();
    let mut server = ApiServer::builder(builder.store.clone())
        .clock(builder.clock.clone())
        .settings(builder.settings.clone())
        .nodes(nodes.clone());
    for extension in &builder.extensions {
        extension
            .schemas(&mut schemas)
            .map_err(|source| ClusterError::Schema { extension: extension.name().to_owned(), source })?;
        server = extension.kinds().into_iter().fold(server, |s, kind| s.kind(kind));
    }
    server = builder.admission.iter().cloned().fold(server, |s, rule| s.admission(rule));
    if let Some(seed) = builder.seed {
        server = server.seed(seed);
    }
    if let Some(address) = address {
        server = server.advertise(address);
    }
    server.start().await.map_err(ClusterError::Server)
}

/// Serves on the listener, where there is one.
fn listen(
    builder: &mut ClusterBuilder,
    server: &Arc<ApiServer>,
    rest: &RestService,
    shutdown: &CancellationToken,
    tasks: &TaskTracker,
) -> Result<Option<Kubeconfig>, ClusterError> {
    let Some(listener) = builder.listener.take() else { return Ok(None) };
    let Ok(address) = listener.local_addr() else { return Ok(None) };
    let now = builder.clock.now();
    let names = ServerNames::standard(&builder.settings.cluster_domain, builder.settings.api_address())
        .with(std::mem::take(&mut builder.names))
        .with([address.ip().to_string()]);
    let pki = match &builder.pki {
        Some(directory) => Pki::open(directory, &names, now)?,
        None => Pki::in_memory(&names, now)?,
    };
    let front = Front::new(rest.clone(), Authenticator::default()).with_grpc(grpc::service(server.clone()));
    tasks.spawn(serve(listener, pki.server_config()?, front, shutdown.clone()));
    Ok(Some(Kubeconfig {
        name: "minik8s".to_owned(),
        server: format!("https://{}", reachable(address)),
        ca_certificate: pki.ca_certificate().to_owned(),
        user: pki.admin().clone(),
    }))
}

/// An address one can connect to: "all addresses" is reached on loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = if address.ip().is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { address.ip() };
    SocketAddr::new(ip, address.port())
}

fn start_loops(
    builder: &ClusterBuilder,
    server: &Arc<ApiServer>,
    ca: String,
    shutdown: &CancellationToken,
    tasks: &TaskTracker,
) {
    let config = ControllersConfig { ca, ..ControllersConfig::new(Arc::new(server.registry().clone())) };
    let schedulers = SchedulerConfig { schedulers: builder.schedulers.clone(), ..SchedulerConfig::default() };
    let mut all = controllers::all(&config);
    all.push(Arc::new(SchedulerLoop::new(schedulers)));
    all.extend(builder.extensions.iter().flat_map(|extension| extension.controllers()));
    let manager = ControllerManager::new(Client::new(server.clone()), builder.clock.clone(), all);
    tasks.spawn(manager.run(shutdown.clone()));
}
