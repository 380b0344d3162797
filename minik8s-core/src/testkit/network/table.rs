//! Tables of services in few words.

use super::bed::TestPod;
use crate::network::{Endpoint, Protocol, ServiceEntry, ServicePortEntry, ServiceTable};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

/// A service in the making: what is said of endpoints holds for the port named last.
#[derive(Clone, Debug)]
pub(super) struct Service(ServiceEntry);

/// A table of services.
pub(super) fn table(services: impl IntoIterator<Item = Service>) -> ServiceTable {
    let entries = services.into_iter().map(|Service(entry)| entry);
    ServiceTable { services: entries.map(|e| ((e.namespace.clone(), e.name.clone()), Arc::new(e))).collect() }
}

impl Service {
    /// Port 80 of a virtual address, TCP.
    pub(super) fn new(name: &str, address: Ipv4Addr) -> Self {
        let mut service = Self::headless(name);
        service.0.cluster_ips = vec![address.into()];
        service
    }

    pub(super) fn headless(name: &str) -> Self {
        let port = ServicePortEntry { port: 80, ..ServicePortEntry::default() };
        Self(ServiceEntry {
            namespace: "default".to_owned(),
            name: name.to_owned(),
            ports: vec![port],
            ..ServiceEntry::default()
        })
    }

    pub(super) fn external(name: &str, host: &str) -> Self {
        let mut service = Self::headless(name);
        service.0.ports.clear();
        service.0.external_name = Some(host.to_owned());
        service
    }

    fn last(&mut self) -> &mut ServicePortEntry {
        self.0.ports.last_mut().expect("a port")
    }

    pub(super) fn port(mut self, port: u16, protocol: Protocol) -> Self {
        let name = format!("port-{port}-{}", protocol.as_str().to_lowercase());
        self.0.ports.push(ServicePortEntry { name, port, protocol, ..ServicePortEntry::default() });
        self
    }

    pub(super) fn udp(mut self) -> Self {
        self.last().protocol = Protocol::Udp;
        self
    }

    /// The last port by UDP as well.
    pub(super) fn both_protocols(mut self) -> Self {
        let port = ServicePortEntry { protocol: Protocol::Udp, name: "udp".to_owned(), ..self.last().clone() };
        self.0.ports.push(port);
        self
    }

    pub(super) fn node_port(mut self, port: u16) -> Self {
        self.last().node_port = port;
        self
    }

    pub(super) fn external_ip(mut self, address: Ipv4Addr) -> Self {
        self.0.external_ips.push(address.into());
        self
    }

    pub(super) fn affinity(mut self, seconds: u32) -> Self {
        self.0.affinity_seconds = Some(seconds);
        self
    }

    pub(super) fn external_local(mut self) -> Self {
        self.0.external_traffic_local = true;
        self
    }

    pub(super) fn internal_local(mut self) -> Self {
        self.0.internal_traffic_local = true;
        self
    }

    pub(super) fn backed_at(mut self, addresses: &[&str]) -> Self {
        for address in addresses {
            let ip = address.parse().expect("an address");
            self.last().endpoints.push(endpoint(ip, "here"));
        }
        self
    }

    pub(super) fn backed_by(self, pods: &[TestPod]) -> Self {
        self.backed_on(pods, "here")
    }

    pub(super) fn backed_on(mut self, pods: &[TestPod], node: &str) -> Self {
        let endpoints = pods.iter().map(|pod| endpoint(pod.ip(), node));
        self.last().endpoints.extend(endpoints);
        self
    }
}

fn endpoint(ip: IpAddr, node: &str) -> Endpoint {
    Endpoint { node: Some(node.to_owned()), ..Endpoint::new(ip, 8080) }
}
