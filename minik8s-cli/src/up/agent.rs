//! `agent`: this machine joins a cluster, and runs a node of it.

use super::gateway::NodesGateway;
use super::handover;
use super::record::{Lock, Record};
use super::{End, data, node_manifest, parts, preflight, told_to_end};
use crate::args::Agent;
use crate::output::say;
use anyhow::{Context, Result, bail};
use ipnet::IpNet;
use minik8s_core::client::Client;
use minik8s_core::clock::SystemClock;
use minik8s_core::controllers::certificates::AGENT_KEY;
use minik8s_core::join::{ClusterFacts, JoinConfig, JoinToken, Membership};
use minik8s_core::node::{Companion, NodeAgent, NodeConfig};
use minik8s_runtime::Mirror;
use minik8s_serverless::functions::Unpacker;
use minik8s_serverless::registry::HOST;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use tokio_util::sync::CancellationToken;

/// Runs the node until SIGTERM or SIGINT. Containers go on after that.
pub(crate) async fn agent(options: &Agent) -> Result<()> {
    let (began, sockets) = (Instant::now(), handover::inherited());
    preflight::node(&options.node)?;
    let data = &options.data.data_dir;
    data::private_directory(data)?;
    let lock = Lock::take(data)?;
    let node = node_manifest::name(&options.node)?;
    // What was typed wrongly is told before anyone is asked.
    node_manifest::apply(&options.node, &mut NodeConfig::new(&node, data))?;
    let join = JoinConfig { token: token(options)?, ..JoinConfig::new(&options.server, &node, data.join("pki")) };
    let membership = Membership::open(&join, Arc::new(SystemClock)).await?;
    let record = record(options, &membership, data).await?;
    record.write(data)?;
    parts::trust_registry(data, HOST, &String::from_utf8_lossy(membership.ca()))?;
    let hosts = Arc::default();
    let gateway = NodesGateway::open(&options.node, &record, &hosts, &sockets)?;
    let images = Mirror { first: api_of(&options.server), others: membership.servers().clone() };
    let runtime = parts::runtime(&record, data, Some(images), options.node.spare_sandboxes).await?;
    let network = parts::network(&record, data, &hosts)?;
    let mut config = parts::node_config(&options.node, &record, data)?;
    config.annotations.insert(AGENT_KEY.to_owned(), membership.key_digest().to_owned());
    let client = Client::new(Arc::new(membership.transport())).with_manager("kubelet");
    let companions: [Arc<dyn Companion>; 2] = [gateway.companion, Arc::new(Unpacker::new(runtime.clone()))];
    let agent = NodeAgent::builder(config, client, runtime, network).companions(companions).build();
    let end = told_to_end()?;
    say(&format!("joined {} as node {node} in {} ms", options.server, began.elapsed().as_millis()));
    let stop = CancellationToken::new();
    let running = membership.run(agent, stop.clone());
    tokio::pin!(running);
    let end = tokio::select! {
        end = end => end,
        () = &mut running => End::Stop,
    };
    tracing::info!("stopping; containers go on");
    stop.cancel();
    running.await;
    drop(lock);
    match end {
        End::Stop => Ok(()),
        End::Again => Err(handover::again(&sockets)),
    }
}

/// `host:port` of the API server, where it keeps images too.
fn api_of(server: &str) -> String {
    server.trim_start_matches("https://").trim_end_matches('/').to_owned()
}

fn token(options: &Agent) -> Result<Option<JoinToken>> {
    let text = match (&options.token, &options.token_file) {
        (Some(text), _) => text.clone(),
        (None, Some(path)) => {
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?
        }
        (None, None) => return Ok(None),
    };
    Ok(Some(text.parse()?))
}

/// What this machine's part in the cluster is. Where the cluster is away, what it was the last time.
async fn record(options: &Agent, membership: &Membership, data: &Path) -> Result<Record> {
    let before = Record::read(data)?;
    let (services, pods) = match (membership.cluster().await, before) {
        (Ok(ClusterFacts { service_cidr: IpNet::V4(services), pod_cidr, .. }), _) => (services, pod_cidr),
        (Ok(facts), _) => {
            bail!("this cluster's Services have addresses of IPv6, {}: only IPv4 is known here", facts.service_cidr)
        }
        (Err(error), Some(before)) => {
            tracing::warn!(%error, "the cluster does not answer; going on with what is known");
            (before.service_cidr, before.others.map(|others| others.cluster_cidr.into()))
        }
        (Err(error), None) => return Err(error).context("cannot learn what this cluster is made of"),
    };
    let mut record = Record::new(&options.node, options.pod_cidr, services)?;
    if let Some(IpNet::V4(cluster)) = pods {
        record.others = Some(parts::others(cluster, options.node.node_ip.or_else(parts::main_address))?);
    }
    Ok(record)
}
