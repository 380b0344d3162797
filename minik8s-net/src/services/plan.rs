//! What one service means for this node: where it is reached, and where its traffic goes. No kernel in sight.

use minik8s_core::network::{Endpoint, Protocol, ServiceEntry, ServicePortEntry};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

/// An address and port behind a service.
pub(crate) type Backend = (Ipv4Addr, u16);

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

/// What happens to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Chain(String),
    Refuse,
}

/// What a chain does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Chain {
    /// One of these, any time.
    Backends(Vec<Backend>),
    /// One of these by the chains that lead there, the same one again while a client is remembered.
    Sticky(Vec<String>),
    /// This one, which the client is remembered to have for so many seconds.
    Remember { backend: Backend, seconds: u32 },
    /// Pods and the node itself go one way, everybody else another.
    Outside { inner: Target, outer: Target },
}

/// Everything about one service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ServicePlan {
    pub(crate) chains: BTreeMap<String, Chain>,
    pub(crate) fronts: BTreeMap<Front, Target>,
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
        let addresses: Vec<Ipv4Addr> = v4(&service.cluster_ips).collect();
        let external: Vec<Ipv4Addr> = v4(&service.external_ips).collect();
        if addresses.is_empty() && external.is_empty() && port.node_port == 0 {
            return;
        }
        let all = self.backends("svc", service, port, usable(&port.endpoints, |_| true));
        let local_only = service.internal_traffic_local || service.external_traffic_local;
        let local = if local_only {
            let here = |e: &Endpoint| e.node.as_deref() == Some(node);
            self.backends("local", service, port, usable(&port.endpoints, here))
        } else {
            all.clone()
        };
        let inside = if service.internal_traffic_local { local.clone() } else { all.clone() };
        let outside = match service.external_traffic_local {
            true => self.outside(service, port, all, local),
            false => all,
        };
        for ip in addresses {
            self.fronts.insert(Front::Address(ip, port.protocol, port.port), inside.clone());
        }
        for ip in external {
            self.fronts.insert(Front::Address(ip, port.protocol, port.port), outside.clone());
        }
        if port.node_port != 0 {
            self.fronts.insert(Front::NodePort(port.protocol, port.node_port), outside);
        }
        self.drop_unused();
    }

    fn backends(&mut self, kind: &str, service: &ServiceEntry, port: &ServicePortEntry, to: Vec<Backend>) -> Target {
        if to.is_empty() {
            return Target::Refuse;
        }
        let name = chain_name(kind, service, port);
        let chain = match service.affinity_seconds {
            None => Chain::Backends(to),
            Some(seconds) => {
                Chain::Sticky(to.into_iter().map(|backend| self.remember(&name, backend, seconds)).collect())
            }
        };
        self.chains.insert(name.clone(), chain);
        Target::Chain(name)
    }

    fn outside(&mut self, service: &ServiceEntry, port: &ServicePortEntry, inner: Target, outer: Target) -> Target {
        let name = chain_name("outside", service, port);
        self.chains.insert(name.clone(), Chain::Outside { inner, outer });
        Target::Chain(name)
    }

    fn remember(&mut self, chain: &str, backend: Backend, seconds: u32) -> String {
        let name = format!("{chain}/{}/{}", backend.0, backend.1);
        self.chains.insert(name.clone(), Chain::Remember { backend, seconds });
        name
    }

    /// Drops chains that no front leads to, directly or by other chains.
    fn drop_unused(&mut self) {
        let used: BTreeSet<String> = self.fronts.values().flat_map(|target| self.reachable(target)).collect();
        self.chains.retain(|name, _| used.contains(name));
    }

    /// The chains that a target leads to.
    fn reachable(&self, target: &Target) -> Vec<String> {
        let mut found: Vec<String> = target.chain().into_iter().cloned().collect();
        let mut next = 0;
        while let Some(name) = found.get(next) {
            let further: Vec<String> = match self.chains.get(name) {
                Some(Chain::Outside { inner, outer }) => {
                    inner.chain().into_iter().chain(outer.chain()).cloned().collect()
                }
                Some(Chain::Sticky(chains)) => chains.clone(),
                _ => Vec::new(),
            };
            found.extend(further);
            next += 1;
        }
        found
    }

    /// The backends that traffic for a front may reach.
    pub(crate) fn reach(&self, front: Front) -> Vec<Backend> {
        let chains = self.fronts.get(&front).map(|target| self.reachable(target)).unwrap_or_default();
        let backends = chains.iter().filter_map(|name| self.chains.get(name)).flat_map(|chain| match chain {
            Chain::Backends(backends) => backends.clone(),
            Chain::Remember { backend, .. } => vec![*backend],
            Chain::Sticky(_) | Chain::Outside { .. } => Vec::new(),
        });
        backends.collect()
    }
}

impl Target {
    fn chain(&self) -> Option<&String> {
        match self {
            Target::Chain(name) => Some(name),
            Target::Refuse => None,
        }
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

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Chain(name) => f.write_str(name),
            Target::Refuse => f.write_str("refuse"),
        }
    }
}

impl fmt::Display for ServicePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (front, target) in &self.fronts {
            writeln!(f, "{front} -> {target}")?;
        }
        for (name, chain) in &self.chains {
            match chain {
                Chain::Outside { inner, outer } => writeln!(f, "{name}: inside {inner}, outside {outer}")?,
                Chain::Backends(backends) => {
                    let all: Vec<String> = backends.iter().map(|(ip, port)| format!("{ip}:{port}")).collect();
                    writeln!(f, "{name}: {}", all.join(" "))?;
                }
                Chain::Sticky(chains) => writeln!(f, "{name}: remembered, or one of {}", chains.len())?,
                Chain::Remember { backend: (ip, port), seconds } => writeln!(f, "{name}: {ip}:{port} for {seconds} s")?,
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
        let lines = [
            "10.96.0.5:80/TCP -> svc/default/web/tcp/80",
            "*:30080/TCP -> svc/default/web/tcp/80",
            "svc/default/web/tcp/80: 10.244.0.2:8080 10.244.1.2:8080",
        ];
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
            "10.96.0.5:80/TCP -> svc/default/web/tcp/80",
            "203.0.113.7:80/TCP -> outside/default/web/tcp/80",
            "*:30080/TCP -> outside/default/web/tcp/80",
            "local/default/web/tcp/80: remembered, or one of 1",
            "local/default/web/tcp/80/10.244.0.2/8080: 10.244.0.2:8080 for 600 s",
            "outside/default/web/tcp/80: inside svc/default/web/tcp/80, outside local/default/web/tcp/80",
            "svc/default/web/tcp/80: remembered, or one of 2",
            "svc/default/web/tcp/80/10.244.0.2/8080: 10.244.0.2:8080 for 600 s",
            "svc/default/web/tcp/80/10.244.1.2/8080: 10.244.1.2:8080 for 600 s",
        ];
        check(&service, &lines);
    }

    #[test]
    fn internal_traffic_stays_on_the_node_where_it_should() {
        let mut service = ServiceEntry { internal_traffic_local: true, ..web() };
        service.ports[0].node_port = 0;
        let lines = ["10.96.0.5:80/TCP -> local/default/web/tcp/80", "local/default/web/tcp/80: 10.244.0.2:8080"];
        check(&service, &lines);
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
        let lines =
            ["10.96.0.5:80/TCP -> svc/default/web/tcp/80", "svc/default/web/tcp/80: 10.244.0.9:8080 10.244.1.2:8080"];
        check(&service, &lines);
    }

    #[test]
    fn headless_services_and_external_names_have_no_rules() {
        let mut service = ServiceEntry { cluster_ips: Vec::new(), ..web() };
        service.ports[0].node_port = 0;
        check(&service, &[]);
        assert!(ServicePlan::of(&ServiceEntry::default(), "here").chains.is_empty());
    }

    #[test]
    fn several_ports_and_protocols_are_apart() {
        let mut service = web();
        let port = ServicePortEntry { protocol: Protocol::Udp, node_port: 0, ..service.ports[0].clone() };
        service.ports.push(port);
        let plan = ServicePlan::of(&service, "here");
        assert_eq!(plan.chains.keys().collect::<Vec<_>>(), ["svc/default/web/tcp/80", "svc/default/web/udp/80"]);
        let front = Front::Address(Ipv4Addr::new(10, 96, 0, 5), Protocol::Udp, 80);
        assert_eq!(plan.reach(front).len(), 2);
    }
}
