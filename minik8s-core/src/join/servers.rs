//! A node and the API servers of its cluster: it goes to another one when the one it uses does not answer, and lets all
//! of them reach it.

use super::Membership;
use crate::client::{Client, GrpcConfig, GrpcTransport, Informer, InformerOptions};
use crate::node::{NodeAccess, serve_link};
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
    sockets.map(|socket| format!("https://{socket}"))
}

impl Membership {
    /// Learns which API servers there are, as long as `shutdown` lets it, and keeps it for the next start: the server
    /// that this machine was told of may be gone by then.
    pub(super) async fn follow_servers(&self, shutdown: CancellationToken) {
        let client = Client::new(Arc::new(self.transport()));
        let label_selector = format!("kubernetes.io/service-name={SERVICE}");
        let options = InformerOptions { label_selector, ..InformerOptions::default() };
        let slices: Informer<EndpointSlice> = Informer::start(client.api("default"), options, shutdown);
        let mut changes = slices.subscribe();
        if !slices.synced().await {
            return;
        }
        loop {
            let urls: BTreeSet<String> = slices.list().iter().flat_map(|slice| urls(slice)).collect();
            // A Service without endpoints says nothing about servers that are known.
            if !urls.is_empty()
                && self.config.others.replace(urls.iter().cloned())
                && let Err(error) = self.credentials.keep_servers(&urls.into_iter().collect::<Vec<_>>())
            {
                tracing::warn!(%error, "the next start will not know all API servers");
            }
            if changes.next().await.is_none() {
                return;
            }
        }
    }

    /// Keeps a connection to every API server on which it reaches `access`, until `shutdown`.
    pub(super) async fn serve_links(&self, access: Arc<dyn NodeAccess>, shutdown: CancellationToken) {
        let mut known = self.config.others.follow();
        let mut links: HashMap<String, DropGuard> = HashMap::new();
        let tasks = TaskTracker::new();
        loop {
            let mut wanted: BTreeSet<String> = known.borrow_and_update().iter().cloned().collect();
            wanted.insert(self.config.url.clone());
            links.retain(|url, _| wanted.contains(url));
            for url in wanted {
                if links.contains_key(&url) {
                    continue;
                }
                match self.transport_to(&url) {
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
    fn transport_to(&self, url: &str) -> crate::api::ApiResult<GrpcTransport> {
        let others = crate::client::Servers::default();
        GrpcTransport::new(&GrpcConfig { url: url.to_owned(), others, ..self.config.clone() })
    }
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
