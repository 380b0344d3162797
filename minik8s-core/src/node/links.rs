//! A node and the API servers of its cluster: which there are, and a connection to each, on which it is reached.

use super::access::NodeAccess;
use super::service::serve_link;
use crate::api::ApiResult;
use crate::client::{Client, GrpcConfig, GrpcTransport, Informer, InformerOptions, Servers};
use crate::server::presence::SERVICE;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// Where the endpoints of a slice are.
fn urls(slice: &EndpointSlice) -> impl Iterator<Item = String> {
    let ports = slice.ports.iter().flatten().filter_map(|port| u16::try_from(port.port?).ok());
    let addresses = slice.endpoints.iter().flat_map(|endpoint| &endpoint.addresses);
    let addresses: Vec<IpAddr> = addresses.filter_map(|address| address.parse().ok()).collect();
    let sockets = ports.flat_map(move |port| addresses.clone().into_iter().map(move |ip| SocketAddr::new(ip, port)));
    sockets.map(server_url)
}

/// The address of the API server that listens there.
pub(crate) fn server_url(socket: SocketAddr) -> String {
    format!("https://{socket}")
}

/// Learns which API servers there are, until `shutdown`; `told` hears each list that is another one. A Service without
/// endpoints says nothing about servers that are known.
pub(crate) async fn follow_servers(
    client: &Client,
    servers: &Servers,
    shutdown: CancellationToken,
    told: impl Fn(&[String]),
) {
    let label_selector = format!("kubernetes.io/service-name={SERVICE}");
    let options = InformerOptions { label_selector, ..InformerOptions::default() };
    let slices: Informer<EndpointSlice> = Informer::start(client.api("default"), options, shutdown);
    let mut changes = slices.subscribe();
    if !slices.synced().await {
        return;
    }
    loop {
        let all: BTreeSet<String> = slices.list().iter().flat_map(|slice| urls(slice)).collect();
        if !all.is_empty() && servers.replace(all) {
            told(&servers.all());
        }
        if changes.next().await.is_none() {
            return;
        }
    }
}

/// Keeps a connection to every API server on which it reaches `access`, until `shutdown`: to those that `config` knows
/// besides its own, as they come and go, and to `first` always.
pub(crate) async fn serve_links(
    config: &GrpcConfig,
    first: Option<&str>,
    access: Arc<dyn NodeAccess>,
    shutdown: CancellationToken,
) {
    let mut known = config.others.follow();
    let mut links: HashMap<String, DropGuard> = HashMap::new();
    let tasks = TaskTracker::new();
    loop {
        let mut wanted: BTreeSet<String> = known.borrow_and_update().iter().cloned().collect();
        match first {
            Some(first) => drop(wanted.insert(first.to_owned())),
            // Whoever is in the server's own process is reached there without a connection.
            None => drop(wanted.remove(&config.url)),
        }
        links.retain(|url, _| wanted.contains(url));
        for url in wanted {
            if links.contains_key(&url) {
                continue;
            }
            match only(config, &url) {
                Ok(transport) => {
                    let stop = shutdown.child_token();
                    tasks.spawn(serve_link(transport, access.clone(), stop.clone()));
                    links.insert(url, stop.drop_guard());
                }
                Err(error) => tracing::warn!(url, %error, "an API server cannot be reached"),
            }
        }
        if !matches!(shutdown.run_until_cancelled(known.changed()).await, Some(Ok(()))) {
            break;
        }
    }
    tasks.close();
    tasks.wait().await;
}

/// The way to this very server.
fn only(config: &GrpcConfig, url: &str) -> ApiResult<GrpcTransport> {
    GrpcTransport::new(&GrpcConfig { url: url.to_owned(), others: Servers::default(), ..config.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_and_port_of_a_slice_is_a_server() {
        let slice = serde_json::json!({"metadata": {"name": "kubernetes"}, "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.0.0.1"]}, {"addresses": ["10.0.0.2", "fd00::1"]}, {"addresses": ["host"]}],
            "ports": [{"name": "https", "port": 6443}, {"name": "none"}]});
        let slice: EndpointSlice = serde_json::from_value(slice).unwrap();
        let found: Vec<_> = urls(&slice).collect();
        assert_eq!(found, ["https://10.0.0.1:6443", "https://10.0.0.2:6443", "https://[fd00::1]:6443"]);
    }
}
