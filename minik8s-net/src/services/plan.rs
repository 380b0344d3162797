//! What one service means for this node: where it is reached, and where its traffic goes. No kernel in sight.

use minik8s_core::network::{Endpoint, Protocol, ServiceEntry, ServicePortEntry};
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

/// An address and port behind a service.
pub(crate) type Backend = (Ipv4Addr, u16);

/// So many backends take turns at most.
pub(crate) const MOST: usize = (1 << 15) - 1;

/// Something that traffic is addressed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Front {
    /// A virtual or external address.
    Address(Ipv4Addr, Protocol, u16),
    /// A port of every address of the node.
    NodePort(Protocol, u16),
}

impl Front {
    pub(crate) fn protocol(self) -> Protocol {
        match self {
            Front::Address(_, protocol, _) | Front::NodePort(protocol, _) => protocol,
        }
    }
}

/// Backends that take turns. Where there are none, clients are refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pool {
    pub(crate) backends: Vec<Backend>,
    /// Where clients come to the same one again.
    pub(crate) sticky: Option<Sticky>,
}

/// How clients are remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sticky {
    /// Names the chain.
    pub(crate) name: String,
    pub(crate) seconds: u32,
}

/// Where the traffic of a front goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ways {
    pub(crate) inside: Arc<Pool>,
    /// For clients that are neither pods nor the node itself, where they go elsewhere.
    pub(crate) outside: Option<Arc<Pool>>,
}

/// Everything about one service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ServicePlan {
    pub(crate) fronts: BTreeMap<Front, Ways>,
}

impl ServicePlan {
    /// The plan of a service for `node`.
    pub(crate) fn of(service: &ServiceEntry, node: &str) -> Self {
        let mut plan = Self::default();
        for port in &service.ports {
            plan.add_port(service, port, node);
        }
        plan
    }

    fn add_port(&mut self, service: &ServiceEntry, port: &ServicePortEntry, node: &str) {
        let sticky =
            |kind| service.affinity_seconds.map(|seconds| Sticky { name: chain_name(kind, service, port), seconds });
        let pool = |kind, backends| Arc::new(Pool { backends, sticky: sticky(kind) });
        let all = pool("svc", usable(&port.endpoints, |_| true));
        let local = match service.internal_traffic_local || service.external_traffic_local {
            true => pool("local", usable(&port.endpoints, |e| e.node.as_deref() == Some(node))),
            false => all.clone(),
        };
        let inside = if service.internal_traffic_local { local.clone() } else { all.clone() };
        let inner = Ways { inside, outside: None };
        let outside = (service.external_traffic_local && local.backends != all.backends).then_some(local);
        let outer = Ways { inside: all, outside };
        for ip in v4(&service.cluster_ips) {
            self.fronts.insert(Front::Address(ip, port.protocol, port.port), inner.clone());
        }
        for ip in v4(&service.external_ips) {
            self.fronts.insert(Front::Address(ip, port.protocol, port.port), outer.clone());
        }
        if port.node_port != 0 {
            self.fronts.insert(Front::NodePort(port.protocol, port.node_port), outer);
        }
    }

    /// The backends that traffic for a front may reach.
    pub(crate) fn reach(&self, front: Front) -> Vec<Backend> {
        let ways = self.fronts.get(&front);
        ways.into_iter().flat_map(Ways::pools).flat_map(|(_, pool)| pool.backends.clone()).collect()
    }
}

impl Ways {
    /// The pools, and whether they are for those from outside alone.
    pub(crate) fn pools(&self) -> impl Iterator<Item = (bool, &Pool)> {
        [(false, &*self.inside)].into_iter().chain(self.outside.iter().map(|pool| (true, &**pool)))
    }
}

/// Endpoints that take traffic; where there is none, those that are leaving but still answer.
fn usable(endpoints: &[Endpoint], wanted: impl Fn(&Endpoint) -> bool) -> Vec<Backend> {
    let pick = |good: fn(&Endpoint) -> bool| {
        let mut found: Vec<Backend> = endpoints
            .iter()
            .filter(|e| good(e) && wanted(e))
            .filter_map(|e| match e.ip {
                IpAddr::V4(ip) => Some((ip, e.port)),
                IpAddr::V6(_) => None,
            })
            .collect();
        found.sort_unstable();
        found.dedup();
        found.truncate(MOST);
        found
    };
    let ready = pick(|e| e.ready);
    if ready.is_empty() { pick(|e| e.serving) } else { ready }
}

fn v4(addresses: &[IpAddr]) -> impl Iterator<Item = Ipv4Addr> {
    addresses.iter().filter_map(|ip| match ip {
        IpAddr::V4(ip) => Some(*ip),
        IpAddr::V6(_) => None,
    })
}

/// Readable in `nft list`, and no longer than the kernel takes: both names have 63 characters at most.
fn chain_name(kind: &str, service: &ServiceEntry, port: &ServicePortEntry) -> String {
    let protocol = port.protocol.as_str().to_ascii_lowercase();
    format!("{kind}/{}/{}/{protocol}/{}", service.namespace, service.name, port.port)
}

impl fmt::Display for Front {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Front::Address(ip, protocol, port) => write!(f, "{ip}:{port}/{}", protocol.as_str()),
            Front::NodePort(protocol, port) => write!(f, "*:{port}/{}", protocol.as_str()),
        }
    }
}

impl fmt::Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.backends.is_empty() {
            return f.write_str("refuse");
        }
        let all: Vec<String> = self.backends.iter().map(|(ip, port)| format!("{ip}:{port}")).collect();
        f.write_str(&all.join(" "))?;
        self.sticky.as_ref().map_or(Ok(()), |sticky| write!(f, " for {} s", sticky.seconds))
    }
}

impl fmt::Display for ServicePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (front, ways) in &self.fronts {
            for (outside, pool) in ways.pools() {
                writeln!(f, "{front}{} -> {pool}", if outside { " from outside" } else { "" })?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(ip: &str, node: &str, ready: bool, serving: bool) -> Endpoint {
        let (ip, node) = (ip.parse().unwrap(), Some(node.to_owned()));
        Endpoint { ip, port: 8080, hostname: None, node, ready, serving }
    }

    fn web() -> ServiceEntry {
        ServiceEntry {
            namespace: "default".into(),
            name: "web".into(),
            cluster_ips: vec!["10.96.0.5".parse().unwrap(), "fd00::5".parse().unwrap()],
            ports: vec![ServicePortEntry {
                port: 80,
                node_port: 30080,
                endpoints: vec![
                    endpoint("10.244.1.2", "there", true, true),
                    endpoint("10.244.0.2", "here", true, true),
                    endpoint("10.244.0.9", "here", false, true),
                    endpoint("fd00::9", "here", true, true),
                ],
                ..ServicePortEntry::default()
            }],
            ..ServiceEntry::default()
        }
    }

    #[track_caller]
    fn check(service: &ServiceEntry, lines: &[&str]) {
        let text = ServicePlan::of(service, "here").to_string();
        assert_eq!(text.lines().collect::<Vec<_>>(), lines);
    }

    #[test]
    fn all_fronts_lead_to_all_ready_endpoints() {
        let lines =
            ["10.96.0.5:80/TCP -> 10.244.0.2:8080 10.244.1.2:8080", "*:30080/TCP -> 10.244.0.2:8080 10.244.1.2:8080"];
        check(&web(), &lines);
    }

    #[test]
    fn external_traffic_stays_on_the_node_where_it_should() {
        let service = ServiceEntry {
            external_traffic_local: true,
            external_ips: vec!["203.0.113.7".parse().unwrap()],
            affinity_seconds: Some(600),
            ..web()
        };
        let lines = [
            "10.96.0.5:80/TCP -> 10.244.0.2:8080 10.244.1.2:8080 for 600 s",
            "203.0.113.7:80/TCP -> 10.244.0.2:8080 10.244.1.2:8080 for 600 s",
            "203.0.113.7:80/TCP from outside -> 10.244.0.2:8080 for 600 s",
            "*:30080/TCP -> 10.244.0.2:8080 10.244.1.2:8080 for 600 s",
            "*:30080/TCP from outside -> 10.244.0.2:8080 for 600 s",
        ];
        check(&service, &lines);
    }

    #[test]
    fn internal_traffic_stays_on_the_node_where_it_should() {
        let mut service = ServiceEntry { internal_traffic_local: true, ..web() };
        service.ports[0].node_port = 0;
        check(&service, &["10.96.0.5:80/TCP -> 10.244.0.2:8080"]);
    }

    #[test]
    fn without_endpoints_traffic_is_refused() {
        let mut service = web();
        service.ports[0].endpoints.clear();
        check(&service, &["10.96.0.5:80/TCP -> refuse", "*:30080/TCP -> refuse"]);
    }

    #[test]
    fn where_none_is_ready_those_still_serving_are_used() {
        let mut service = web();
        service.ports[0].endpoints.iter_mut().for_each(|e| e.ready = false);
        service.ports[0].endpoints[1].serving = false;
        service.ports[0].node_port = 0;
        check(&service, &["10.96.0.5:80/TCP -> 10.244.0.9:8080 10.244.1.2:8080"]);
    }

    #[test]
    fn headless_services_and_external_names_have_no_rules() {
        let mut service = ServiceEntry { cluster_ips: Vec::new(), ..web() };
        service.ports[0].node_port = 0;
        check(&service, &[]);
        assert!(ServicePlan::of(&ServiceEntry::default(), "here").fronts.is_empty());
    }

    #[test]
    fn several_ports_and_protocols_are_apart() {
        let mut service = web();
        let port = ServicePortEntry { protocol: Protocol::Udp, node_port: 0, ..service.ports[0].clone() };
        service.ports.push(port);
        let plan = ServicePlan::of(&service, "here");
        assert_eq!(plan.fronts.len(), 3);
        let front = Front::Address(Ipv4Addr::new(10, 96, 0, 5), Protocol::Udp, 80);
        assert_eq!(plan.reach(front).len(), 2);
    }
}
