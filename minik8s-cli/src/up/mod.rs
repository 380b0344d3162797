//! `up` and `down`: the composition of a cluster on this machine from the library's parts, and its removal.

mod data;
mod down;
mod parts;
mod preflight;
mod record;
mod store;
mod tuning;

pub(crate) use down::down;
pub(crate) use parts::containerd_config;
pub(crate) use tuning::Tuning;

use crate::args::Up;
use crate::output::say;
use anyhow::{Context, Result};
use minik8s_core::cluster::{Cluster, ClusterBuilder};
use minik8s_core::scheduler::{FrameworkScheduler, Policy};
use minik8s_core::server::Settings;
use record::{Lock, Record};
use std::path::Path;
use std::time::Instant;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// Runs a cluster until SIGTERM or SIGINT. Containers go on after that.
pub(crate) async fn up(options: &Up) -> Result<()> {
    let began = Instant::now();
    let policy: Policy = options.scheduler_policy.parse().map_err(anyhow::Error::msg)?;
    let settings = Settings {
        service_cidr: preflight::cidr("--service-cidr", &options.service_cidr)?,
        ..options.tuning.settings(Settings::default())
    };
    preflight::check(options)?;
    let data = &options.data.data_dir;
    data::private_directory(data)?;
    let _lock = Lock::take(data)?;
    // Bound before anything is made, so that a taken address leaves nothing behind.
    let listener = TcpListener::bind(options.listen).await.with_context(|| {
        format!(
            "cannot listen on {}; choose another address with --listen IP:PORT (port 0 takes a free one)",
            options.listen
        )
    })?;
    let record = Record {
        runtime: options.runtime,
        network: options.network,
        containerd: options.containerd.clone(),
        node: options.node_name.clone().unwrap_or_else(parts::host_name),
        pod_cidr: options.pod_cidr.clone(),
        service_cidr: options.service_cidr.clone(),
    };
    let for_pods = parts::door_for_pods(&record, data, listener.local_addr()?)?;
    record.write(data)?;
    let builder = Cluster::builder()
        .store(store::open(options, data).await?)
        .settings(settings)
        .node_failures(options.tuning.node_failures())
        .scheduler(FrameworkScheduler::new(policy.profile()))
        .listen(listener)
        .pki(data.join("pki"));
    let builder = match for_pods {
        Some(listener) => builder.listen(listener),
        None => builder,
    };
    let cluster = add_node(builder, options, &record, data).await?.start().await?;
    serve(cluster, data, began).await
}

async fn add_node(builder: ClusterBuilder, options: &Up, record: &Record, data: &Path) -> Result<ClusterBuilder> {
    let (runtime, network) = tokio::try_join!(parts::runtime(record, data), parts::network(record, data))?;
    Ok(builder.node(parts::node_config(options, record, data), runtime, network))
}

async fn serve(cluster: Cluster, data: &Path, began: Instant) -> Result<()> {
    let path = data.join("admin.kubeconfig");
    let (Some(kubeconfig), Some(_)) = (cluster.kubeconfig(), cluster.address()) else {
        anyhow::bail!("the cluster does not listen");
    };
    kubeconfig.write(&path)?;
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    say(&format!("ready {} kubeconfig={} in {} ms", kubeconfig.server, path.display(), began.elapsed().as_millis()));
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    tracing::info!("stopping; containers go on");
    cluster.stop().await;
    Ok(())
}
