//! The gateway of this machine's node: which ports it gets.

use super::record::Record;
use crate::args::{NetworkKind, NodeOptions};
use anyhow::{Result, anyhow};
use minik8s_core::cluster::ClusterBuilder;
use minik8s_core::node::Companion;
use minik8s_net::Hosts;
use minik8s_net::gateway::{GatewayConfig, GatewayMetrics, NodeGateway, Sockets};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use tokio::net::TcpListener;

/// Ports of a gateway that nobody chose others for.
const HTTP: u16 = 80;
const HTTPS: u16 = 443;
/// Connections that may wait to be accepted.
const BACKLOG: u32 = 4096;
/// Threads of a gateway, at most: more requests than so many can serve come to no node.
const LANES: usize = 16;

/// A gateway beside a node's pods.
pub(super) struct NodesGateway {
    pub(super) companion: Arc<dyn Companion>,
}

impl NodesGateway {
    /// Opens the gateway's ports, before anything else is made. A port that nobody chose and that is taken is left out;
    /// one that was chosen must be free.
    pub(super) fn open(options: &NodeOptions, record: &Record, hosts: &Arc<Hosts>, sockets: &Sockets) -> Result<Self> {
        let http = listen(options, record, options.gateway_http_port, HTTP, "--gateway-http-port", sockets)?;
        let https = listen(options, record, options.gateway_https_port, HTTPS, "--gateway-https-port", sockets)?;
        let port = |listener: &Option<TcpListener>| listener.as_ref()?.local_addr().ok().map(|address| address.port());
        let config = GatewayConfig {
            http_port: port(&http),
            https_port: port(&https),
            access_log: options.gateway_access_log,
            lanes: std::thread::available_parallelism().map_or(1, usize::from).min(LANES),
            sockets: Some(sockets.clone()),
            ..GatewayConfig::default()
        };
        let mut gateway = NodeGateway::new(config.clone(), GatewayMetrics::default(), address(options), hosts.clone());
        if !options.gateway_domains.is_empty() {
            let plain = |domain: &String| domain.trim_matches('.').to_ascii_lowercase();
            gateway = gateway.shared_domains(options.gateway_domains.iter().map(plain).collect());
        }
        for (listener, port, tls) in [(http, config.http_port, false), (https, config.https_port, true)] {
            if let (Some(listener), Some(port)) = (listener, port) {
                gateway = gateway.listener(listener, port, tls);
            }
        }
        Ok(Self { companion: Arc::new(gateway) })
    }

    /// Part of the node that was added last.
    pub(super) fn join(self, builder: ClusterBuilder) -> ClusterBuilder {
        builder.companion(self.companion)
    }
}

fn address(options: &NodeOptions) -> IpAddr {
    options.gateway_address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
}

fn listen(
    options: &NodeOptions,
    record: &Record,
    chosen: Option<u16>,
    usual: u16,
    flag: &str,
    sockets: &Sockets,
) -> Result<Option<TcpListener>> {
    // Pretended pods answer nobody.
    let off = options.no_gateway || (record.network == NetworkKind::Noop && chosen.is_none());
    if off || chosen == Some(0) {
        return Ok(None);
    }
    let address = SocketAddr::new(address(options), chosen.unwrap_or(usual));
    match (sockets.listen(address, BACKLOG), chosen) {
        (Ok(listener), _) => Ok(Some(listener)),
        (Err(error), None) => {
            tracing::warn!(%error, "the gateway does not listen at {address}; choose another port with {flag}");
            Ok(None)
        }
        (Err(error), Some(_)) => {
            Err(anyhow!(error)
                .context(format!("the gateway cannot listen at {address}; choose another port with {flag}")))
        }
    }
}
