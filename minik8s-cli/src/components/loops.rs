//! The scheduler and the controllers as processes of their own. Several of each may run: one leads.

use super::Verbosity;
use crate::args::{JobOptions, Ranges};
use crate::output::say;
use crate::up::{self, Autoscaling, LostNodes, Scheduling, told_to_end};
use anyhow::{Context, Result};
use clap::Parser;
use jiff::Timestamp;
use minik8s_core::client::{Client, ElectionConfig, GrpcTransport};
use minik8s_core::clock::SystemClock;
use minik8s_core::cluster::Extension;
use minik8s_core::controllers::certificates::Signer;
use minik8s_core::controllers::{
    self, CONTROLLERS_LEASE, Controller, ControllerManager, ControllersConfig, SCHEDULER_LEASE,
};
use minik8s_core::scheduler::{SchedulerConfig, SchedulerLoop};
use minik8s_core::server::kubeconfig::Kubeconfig;
use minik8s_core::server::tls::Authority;
use minik8s_core::server::{Peers, Registry, serve_page};
use minik8s_serverless::Serverless;
use minik8s_serverless::registry::Registry as Images;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// What both are told.
#[derive(Debug, clap::Args)]
pub(super) struct Common {
    #[command(flatten)]
    pub(super) verbosity: Verbosity,
    /// How the API is reached: the file that minik8s-apiserver left for this component
    #[arg(long, value_name = "FILE")]
    kubeconfig: PathBuf,
    /// Where /metrics and /healthz are served, which the API server reads and leads Prometheus to
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:0")]
    metrics_address: SocketAddr,
}

/// The scheduler of minik8s: places pods on nodes. Several may run; one leads.
#[derive(Debug, Parser)]
#[command(name = "minik8s-scheduler", version)]
pub(super) struct Scheduler {
    #[command(flatten)]
    pub(super) common: Common,
    #[command(flatten)]
    scheduling: Scheduling,
}

/// The controllers of minik8s: make the cluster what its objects say. Several may run; one leads.
#[derive(Debug, Parser)]
#[command(name = "minik8s-controller-manager", version)]
pub(super) struct Controllers {
    #[command(flatten)]
    pub(super) common: Common,
    /// Directory of the cluster's CA, which signs nodes' certificates [default: none are signed, and nobody can join]
    #[arg(long, value_name = "DIR")]
    pki: Option<PathBuf>,
    /// The data directory of minik8s-apiserver, which serves from it the output of jobs and the images of functions that
    /// are made here [default: jobs are not followed, and no images are made]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    #[command(flatten)]
    ranges: Ranges,
    #[command(flatten)]
    lost_nodes: LostNodes,
    #[command(flatten)]
    autoscaling: Autoscaling,
    #[command(flatten)]
    jobs: JobOptions,
}

pub(super) async fn scheduler(options: &Scheduler) -> Result<()> {
    let schedulers = options.scheduling.schedulers()?;
    let scheduler = SchedulerLoop::new(SchedulerConfig { schedulers, ..SchedulerConfig::default() });
    run(&options.common, SCHEDULER_LEASE, vec![Arc::new(scheduler)]).await
}

pub(super) async fn controllers(options: &Controllers) -> Result<()> {
    let signer = match &options.pki {
        Some(directory) if directory.join("ca.key").is_file() => {
            Some(Signer::new(Authority::open(directory, Timestamp::now())?))
        }
        Some(directory) => anyhow::bail!(
            "{} holds no CA: --pki is the directory pki in the data directory of minik8s-apiserver",
            directory.display()
        ),
        None => None,
    };
    let (mut serverless, registry) = (Serverless::new(), Registry::builtin());
    if let Some(data) = &options.data_dir {
        serverless = serverless.registry(Images::open(data.join("registry"))?);
    }
    let jobs = up::jobs(options.data_dir.as_deref().unwrap_or(Path::new("")), &options.jobs, Path::new("/dev"));
    serverless.kinds().iter().chain(&jobs.kinds()).for_each(|kind| registry.add(kind));
    let config = ControllersConfig {
        ca: Kubeconfig::read(&options.common.kubeconfig)?.ca_certificate,
        signer,
        nodes: options.lost_nodes.node_failures(),
        horizontal: options.autoscaling.config(),
        pod_ranges: Some(options.ranges.pods()),
        ..ControllersConfig::new(Arc::new(registry))
    };
    let mut loops = controllers::all(&config);
    loops.extend(serverless.controllers());
    loops.extend(serverless.neighbours(Peers::new(&config.ca, None)?));
    loops.extend(options.data_dir.iter().flat_map(|_| jobs.controllers()));
    run(&options.common, CONTROLLERS_LEASE, loops).await
}

async fn run(common: &Common, lease: &str, loops: Vec<Arc<dyn Controller>>) -> Result<()> {
    let kubeconfig = Kubeconfig::read(&common.kubeconfig).context(
        "say how the API is reached with --kubeconfig: minik8s-apiserver leaves the file in its data directory",
    )?;
    let client = Client::new(Arc::new(GrpcTransport::new(&kubeconfig.grpc()?)?));
    let stop = CancellationToken::new();
    let manager = ControllerManager::new(client, Arc::new(SystemClock), loops);
    let listener = TcpListener::bind(common.metrics_address).await.with_context(|| {
        format!("cannot serve metrics at {}; choose another address with --metrics-address", common.metrics_address)
    })?;
    let election = ElectionConfig { metrics: Some(listener.local_addr()?), ..ElectionConfig::of_process(lease) };
    let metrics = manager.metrics().clone();
    tokio::spawn(serve_page(listener, move |page| metrics.register(page), stop.clone()));
    let running = tokio::spawn(manager.lead(Some(election), stop.clone()));
    let end = told_to_end()?;
    say(&format!("running with {}", kubeconfig.server));
    end.await;
    stop.cancel();
    running.await.context("the loops broke off")
}
