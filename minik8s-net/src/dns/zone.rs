//! What the names of a cluster mean. An immutable snapshot that looks things up in the table of services itself, so
//! that a change of the table costs nothing here.
//!
//! Follows the Kubernetes specification of DNS-based service discovery, version 1.1.0.

use super::{Askers, Hosts};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use minik8s_core::network::{Endpoint, ServiceEntry, ServicePortEntry, ServiceTable};
use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, OnceLock};

/// Seconds that answers may be kept, good and bad ones alike.
pub(super) const TTL: u32 = 5;

/// What the zone says about a question.
#[derive(Debug, PartialEq)]
pub(super) enum Answer {
    /// Not of this cluster: ask elsewhere.
    Elsewhere,
    /// There is no such name.
    NoName,
    /// It is not known yet what names there are.
    NotYet,
    /// The name, and what it has of the type asked for: possibly nothing.
    Records { answers: Vec<Record>, additionals: Vec<Record> },
    /// The name stands for another.
    Alias(Name),
}

/// The names of one state of the cluster.
#[derive(Debug)]
pub(crate) struct Zone {
    domain: Name,
    labels: Vec<String>,
    server: Ipv4Addr,
    /// Ranges of the cluster: their reverse names are nobody else's.
    ranges: Vec<ipnet::Ipv4Net>,
    /// `None` until somebody says which services there are.
    table: Option<Arc<ServiceTable>>,
    /// Names of other domains that lead to gateways.
    hosts: Arc<Hosts>,
    /// For whom names are asked.
    askers: Arc<Askers>,
    reverse: OnceLock<HashMap<IpAddr, Vec<Name>>>,
}

impl Zone {
    /// The names below `domain`, as served by `server`, before anybody says what services there are: whoever asks for one is
    /// to ask again, as what does not exist is given up at once.
    pub(crate) fn new(domain: &str, server: Ipv4Addr, ranges: Vec<ipnet::Ipv4Net>) -> Self {
        let mut domain = Name::from_ascii(domain).unwrap_or_else(|_| Name::root());
        domain.set_fqdn(true);
        let (hosts, askers) = (Arc::default(), Arc::default());
        let (labels, reverse) = (labels(&domain), OnceLock::new());
        Self { labels, domain, server, ranges, table: None, hosts, askers, reverse }
    }

    /// The same zone with names of other domains.
    pub(crate) fn with_hosts(self, hosts: Arc<Hosts>) -> Self {
        Self { hosts, ..self }
    }

    /// Pods whose questions come here.
    pub(crate) fn askers(&self) -> &Askers {
        &self.askers
    }

    /// The namespace that an address asks for.
    fn asker(&self, peer: IpAddr) -> Option<String> {
        self.askers.namespace(peer, |ip| ip != self.server && self.ranges.iter().any(|range| range.contains(&ip)))
    }

    /// The same zone with the services that there are now.
    pub(crate) fn with(&self, table: Arc<ServiceTable>) -> Self {
        let (domain, labels) = (self.domain.clone(), self.labels.clone());
        Self {
            domain,
            labels,
            server: self.server,
            ranges: self.ranges.clone(),
            table: Some(table),
            hosts: self.hosts.clone(),
            askers: self.askers.clone(),
            reverse: OnceLock::new(),
        }
    }

    /// What accompanies answers that say no.
    pub(super) fn authority(&self) -> Record {
        let name = |host: &str| self.below(&[host]);
        let soa = SOA::new(name("ns.dns"), name("hostmaster"), 1, 7200, 1800, 86400, TTL);
        Record::from_rdata(self.domain.clone(), TTL, RData::SOA(soa))
    }

    /// Answers a question of that address. Owners of answers are spelled as the question spells them.
    pub(super) fn answer(&self, peer: IpAddr, name: &Name, kind: RecordType) -> Answer {
        let asked = labels(name);
        let Some(relative) = asked.strip_suffix(&*self.labels) else {
            return match self.hosts.find(&asked.join("."), self.server.into(), || self.asker(peer)) {
                Some(addresses) => self.addresses(name, kind, addresses),
                None => self.answer_reverse(name, kind),
            };
        };
        let relative: Vec<&str> = relative.iter().map(String::as_str).collect();
        match &relative[..] {
            [] => match kind {
                RecordType::SOA => self.data(name, kind, [self.authority().data]),
                RecordType::NS => self.data(name, kind, [RData::NS(NS(self.below(&["ns.dns"])))]),
                _ => nothing(),
            },
            ["dns-version"] => self.data(name, kind, [RData::TXT(TXT::new(vec!["1.1.0".to_owned()]))]),
            ["ns", "dns"] => self.addresses(name, kind, [self.server.into()]),
            ["dns" | "svc" | "pod"] => nothing(),
            [address, _, "pod"] => match dashed(address) {
                Some(ip) => self.addresses(name, kind, [ip.into()]),
                None => Answer::NoName,
            },
            [.., "svc"] if self.table.is_none() => Answer::NotYet,
            [namespace, "svc"] if self.has_namespace(namespace) => nothing(),
            [rest @ .., service, namespace, "svc"] => match self.service(namespace, service) {
                Some(entry) => self.answer_service(name, kind, rest, entry),
                None => Answer::NoName,
            },
            _ => Answer::NoName,
        }
    }

    fn service(&self, namespace: &str, name: &str) -> Option<&ServiceEntry> {
        self.table.as_ref()?.services.get(&(namespace.to_owned(), name.to_owned())).map(|entry| &**entry)
    }

    fn has_namespace(&self, namespace: &str) -> bool {
        let first = (namespace.to_owned(), String::new());
        let next = self.table.as_ref().and_then(|table| table.services.range(first..).next());
        next.is_some_and(|((found, _), _)| found == namespace)
    }

    fn answer_service(&self, name: &Name, kind: RecordType, rest: &[&str], service: &ServiceEntry) -> Answer {
        if let Some(target) = &service.external_name {
            let target = Name::from_ascii(target).map(|mut name| {
                name.set_fqdn(true);
                name
            });
            return match (rest, target) {
                ([], Ok(target)) => Answer::Alias(target),
                _ => Answer::NoName,
            };
        }
        match rest {
            [] if kind == RecordType::SRV => self.service_records(name, service, |_| true),
            [] if service.cluster_ips.is_empty() => {
                self.addresses(name, kind, alive(service).map(|(_, e)| e.ip).collect::<BTreeSet<_>>())
            }
            [] => self.addresses(name, kind, service.cluster_ips.iter().copied()),
            [port, protocol] => {
                let wanted = |p: &ServicePortEntry| {
                    port.strip_prefix('_').is_some_and(|port| p.name.eq_ignore_ascii_case(port))
                        && protocol.strip_prefix('_').is_some_and(|t| t.eq_ignore_ascii_case(p.protocol.as_str()))
                };
                match service.ports.iter().any(wanted) {
                    true if kind == RecordType::SRV => self.service_records(name, service, wanted),
                    true => nothing(),
                    false => Answer::NoName,
                }
            }
            [host] if host.starts_with('_') && service.ports.iter().any(|p| *host == protocol_label(p)) => nothing(),
            [host] => {
                let found: BTreeSet<IpAddr> =
                    alive(service).filter(|(_, e)| host_label(e) == *host).map(|(_, e)| e.ip).collect();
                if found.is_empty() { Answer::NoName } else { self.addresses(name, kind, found) }
            }
            _ => Answer::NoName,
        }
    }

    /// Where ports are: at the service itself, or at each endpoint of one without an address.
    fn service_records(
        &self,
        name: &Name,
        service: &ServiceEntry,
        wanted: impl Fn(&ServicePortEntry) -> bool,
    ) -> Answer {
        let (mut answers, mut additionals) = (Vec::new(), Vec::new());
        let mut add = |target: Name, port: u16, ips: &[IpAddr]| {
            let srv = SRV::new(0, 100, port, target.clone());
            answers.push(Record::from_rdata(name.clone(), TTL, RData::SRV(srv)));
            additionals.extend(ips.iter().map(|ip| Record::from_rdata(target.clone(), TTL, address(*ip))));
        };
        if service.cluster_ips.is_empty() {
            let ends: BTreeSet<(String, u16, IpAddr)> =
                alive(service).filter(|(port, _)| wanted(port)).map(|(_, e)| (host_label(e), e.port, e.ip)).collect();
            for (host, port, ip) in ends {
                add(self.below(&[&host, &service.name, &service.namespace, "svc"]), port, &[ip]);
            }
        } else {
            for port in service.ports.iter().filter(|p| wanted(p)) {
                add(self.below(&[&service.name, &service.namespace, "svc"]), port.port, &service.cluster_ips);
            }
        }
        additionals.sort_by_cached_key(|record| (record.name.clone(), record.data.to_string()));
        additionals.dedup();
        Answer::Records { answers, additionals }
    }

    fn answer_reverse(&self, name: &Name, kind: RecordType) -> Answer {
        let Some(ip) = reverse_address(&labels(name)) else { return Answer::Elsewhere };
        let known = self.reverse.get_or_init(|| self.reverse_names());
        let ours = matches!(ip, IpAddr::V4(ip) if self.ranges.iter().any(|r| r.contains(&ip)));
        match known.get(&ip) {
            Some(names) => self.data(name, kind, names.iter().map(|n| RData::PTR(PTR(n.clone())))),
            None if ours && self.table.is_none() => Answer::NotYet,
            None if ours => Answer::NoName,
            None => Answer::Elsewhere,
        }
    }

    fn reverse_names(&self) -> HashMap<IpAddr, Vec<Name>> {
        let mut all: HashMap<IpAddr, Vec<Name>> = HashMap::new();
        let mut add = |ip: IpAddr, name: Name| {
            let names = all.entry(ip).or_default();
            if !names.contains(&name) {
                names.push(name);
            }
        };
        for service in self.table.iter().flat_map(|table| table.services.values()) {
            for ip in &service.cluster_ips {
                add(*ip, self.below(&[&service.name, &service.namespace, "svc"]));
            }
            let named = |e: &Endpoint| service.cluster_ips.is_empty() || e.hostname.is_some();
            for (_, endpoint) in alive(service).filter(|(_, e)| named(e)) {
                let host = host_label(endpoint);
                add(endpoint.ip, self.below(&[&host, &service.name, &service.namespace, "svc"]));
            }
        }
        all
    }

    fn addresses(&self, name: &Name, kind: RecordType, ips: impl IntoIterator<Item = IpAddr>) -> Answer {
        self.data(name, kind, ips.into_iter().map(address))
    }

    /// Of everything a name has, what was asked for.
    fn data(&self, name: &Name, kind: RecordType, all: impl IntoIterator<Item = RData>) -> Answer {
        let wanted = |data: &RData| kind == RecordType::ANY || data.record_type() == kind;
        let all = all.into_iter().filter(wanted);
        records(all.map(|data| Record::from_rdata(name.clone(), TTL, data)).collect())
    }

    fn below(&self, labels: &[&str]) -> Name {
        let text = format!("{}.{}", labels.join("."), self.domain);
        Name::from_ascii(text).unwrap_or_else(|_| self.domain.clone())
    }

    /// An alias as a record.
    pub(super) fn alias(name: &Name, target: &Name) -> Record {
        Record::from_rdata(name.clone(), TTL, RData::CNAME(CNAME(target.clone())))
    }
}

fn records(answers: Vec<Record>) -> Answer {
    Answer::Records { answers, additionals: Vec::new() }
}

/// The name is there, but has nothing of that type.
fn nothing() -> Answer {
    records(Vec::new())
}

fn address(ip: IpAddr) -> RData {
    match ip {
        IpAddr::V4(ip) => RData::A(A(ip)),
        IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
    }
}

/// Endpoints that names cover, with their ports.
fn alive(service: &ServiceEntry) -> impl Iterator<Item = (&ServicePortEntry, &Endpoint)> {
    let all = service.ports.iter().flat_map(|port| port.endpoints.iter().map(move |endpoint| (port, endpoint)));
    all.filter(|(_, endpoint)| endpoint.ready || service.publish_not_ready)
}

/// What an endpoint is called within its service: its own name, or its address with dashes.
fn host_label(endpoint: &Endpoint) -> String {
    let dashed = || endpoint.ip.to_string().replace(['.', ':'], "-");
    endpoint.hostname.clone().unwrap_or_else(dashed).to_ascii_lowercase()
}

fn protocol_label(port: &ServicePortEntry) -> String {
    format!("_{}", port.protocol.as_str().to_ascii_lowercase())
}

fn labels(name: &Name) -> Vec<String> {
    name.iter().map(|label| String::from_utf8_lossy(label).to_ascii_lowercase()).collect()
}

/// `10-244-0-5`.
fn dashed(label: &str) -> Option<Ipv4Addr> {
    label.replace('-', ".").parse().ok()
}

/// `5.0.244.10.in-addr.arpa`.
fn reverse_address(labels: &[String]) -> Option<IpAddr> {
    match labels {
        [d, c, b, a, zone, arpa] if zone == "in-addr" && arpa == "arpa" => {
            format!("{a}.{b}.{c}.{d}").parse::<Ipv4Addr>().ok().map(IpAddr::V4)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use minik8s_core::network::Protocol;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn endpoint(ip: &str, hostname: Option<&str>, ready: bool) -> Endpoint {
        let (ip, hostname) = (ip.parse::<IpAddr>().unwrap(), hostname.map(str::to_owned));
        Endpoint { hostname, ready, ..Endpoint::new(ip, 8080) }
    }

    fn port(name: &str, number: u16, endpoints: &[Endpoint]) -> ServicePortEntry {
        let (name, endpoints) = (name.to_owned(), endpoints.to_vec());
        ServicePortEntry { name, protocol: Protocol::Tcp, port: number, node_port: 0, endpoints }
    }

    fn zone() -> Zone {
        let entry = |name: &str, ips: &[&str], ports: Vec<ServicePortEntry>| ServiceEntry {
            namespace: "shop".into(),
            name: name.into(),
            cluster_ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
            ports,
            ..ServiceEntry::default()
        };
        let ends = [
            endpoint("10.244.0.5", Some("db-0"), true),
            endpoint("10.244.0.6", None, true),
            endpoint("10.244.0.7", Some("db-2"), false),
        ];
        let all = [
            entry("web", &["10.96.0.5", "fd00::5"], vec![port("http", 80, &ends), port("admin", 81, &ends)]),
            entry("db", &[], vec![port("sql", 5432, &ends), port("stats", 9000, &ends)]),
            ServiceEntry { publish_not_ready: true, ..entry("peers", &[], vec![port("", 1, &ends)]) },
            entry("empty", &[], vec![port("", 1, &[])]),
            ServiceEntry { external_name: Some("db.example.org".into()), ..entry("far", &[], Vec::new()) },
        ];
        let services = all.into_iter().map(|e| ((e.namespace.clone(), e.name.clone()), Arc::new(e))).collect();
        let ranges = vec!["10.244.0.0/16".parse().unwrap(), "10.96.0.0/16".parse().unwrap()];
        Zone::new("cluster.local", Ipv4Addr::new(10, 244, 0, 1), ranges).with(Arc::new(ServiceTable { services }))
    }

    /// The answer in short: values of records, or what else was said.
    fn ask(name: &str, kind: RecordType) -> String {
        match zone().answer(PEER, &Name::from_ascii(name).unwrap(), kind) {
            Answer::Elsewhere => "elsewhere".into(),
            Answer::NoName => "no name".into(),
            Answer::NotYet => "not yet".into(),
            Answer::Alias(target) => format!("alias {target}"),
            Answer::Records { answers, .. } => {
                assert!(answers.iter().all(|r| r.name.eq_case(&Name::from_ascii(name).unwrap())));
                answers.iter().map(|r| r.data.to_string()).collect::<Vec<_>>().join(", ")
            }
        }
    }

    #[test]
    fn names_mean_what_the_specification_says() {
        use RecordType::{A, AAAA, ANY, MX, NS, PTR, SRV, TXT};
        let table = [
            ("web.shop.svc.cluster.local.", A, "10.96.0.5"),
            ("WeB.shop.SVC.cluster.LOCAL.", A, "10.96.0.5"),
            ("web.shop.svc.cluster.local.", AAAA, "fd00::5"),
            ("web.shop.svc.cluster.local.", ANY, "10.96.0.5, fd00::5"),
            ("web.shop.svc.cluster.local.", MX, ""),
            ("web2.shop.svc.cluster.local.", A, "no name"),
            ("web.shop2.svc.cluster.local.", A, "no name"),
            ("db.shop.svc.cluster.local.", A, "10.244.0.5, 10.244.0.6"),
            ("db.shop.svc.cluster.local.", AAAA, ""),
            ("peers.shop.svc.cluster.local.", A, "10.244.0.5, 10.244.0.6, 10.244.0.7"),
            ("empty.shop.svc.cluster.local.", A, ""),
            ("db-0.db.shop.svc.cluster.local.", A, "10.244.0.5"),
            ("db-2.db.shop.svc.cluster.local.", A, "no name"),
            ("db-2.peers.shop.svc.cluster.local.", A, "10.244.0.7"),
            ("10-244-0-6.db.shop.svc.cluster.local.", A, "10.244.0.6"),
            ("_http._tcp.web.shop.svc.cluster.local.", SRV, "0 100 80 web.shop.svc.cluster.local."),
            ("_http._udp.web.shop.svc.cluster.local.", SRV, "no name"),
            ("_http._tcp.web.shop.svc.cluster.local.", A, ""),
            ("_tcp.web.shop.svc.cluster.local.", A, ""),
            (
                "_sql._tcp.db.shop.svc.cluster.local.",
                SRV,
                "0 100 8080 10-244-0-6.db.shop.svc.cluster.local., 0 100 8080 db-0.db.shop.svc.cluster.local.",
            ),
            ("far.shop.svc.cluster.local.", A, "alias db.example.org."),
            ("10-244-0-9.shop.pod.cluster.local.", A, "10.244.0.9"),
            ("no-address.shop.pod.cluster.local.", A, "no name"),
            ("5.0.96.10.in-addr.arpa.", PTR, "web.shop.svc.cluster.local."),
            (
                "6.0.244.10.in-addr.arpa.",
                PTR,
                "10-244-0-6.db.shop.svc.cluster.local., 10-244-0-6.peers.shop.svc.cluster.local.",
            ),
            ("99.0.244.10.in-addr.arpa.", PTR, "no name"),
            ("1.2.0.192.in-addr.arpa.", PTR, "elsewhere"),
            ("shop.svc.cluster.local.", A, ""),
            ("svc.cluster.local.", A, ""),
            ("cluster.local.", A, ""),
            ("cluster.local.", NS, "ns.dns.cluster.local."),
            ("ns.dns.cluster.local.", A, "10.244.0.1"),
            ("dns-version.cluster.local.", TXT, "1.1.0"),
            ("www.example.org.shop.svc.cluster.local.", A, "no name"),
            ("example.org.", A, "elsewhere"),
            ("notcluster.local.", A, "elsewhere"),
            (".", A, "elsewhere"),
        ];
        for (name, kind, expected) in table {
            assert_eq!(ask(name, kind), expected, "{name} {kind}");
        }
    }

    #[test]
    fn records_of_ports_bring_addresses_along() {
        let name = Name::from_ascii("web.shop.svc.cluster.local.").unwrap();
        let Answer::Records { answers, additionals } = zone().answer(PEER, &name, RecordType::SRV) else { panic!() };
        assert_eq!(answers.len(), 2);
        let addresses: Vec<_> = additionals.iter().map(|r| r.data.to_string()).collect();
        assert_eq!(addresses, ["10.96.0.5", "fd00::5"]);
    }

    #[test]
    fn what_is_not_known_yet_is_not_said_to_be_missing() {
        let ranges = vec!["10.244.0.0/16".parse().unwrap()];
        let zone = Zone::new("cluster.local", Ipv4Addr::new(10, 244, 0, 1), ranges);
        let answer = |name: &str, kind| zone.answer(PEER, &Name::from_ascii(name).unwrap(), kind);
        assert_eq!(answer("web.default.svc.cluster.local.", RecordType::A), Answer::NotYet);
        assert_eq!(answer("default.svc.cluster.local.", RecordType::A), Answer::NotYet);
        assert_eq!(answer("5.0.244.10.in-addr.arpa.", RecordType::PTR), Answer::NotYet);
        assert_eq!(answer("example.org.", RecordType::A), Answer::Elsewhere);
        assert!(matches!(answer("10-244-0-7.default.pod.cluster.local.", RecordType::A), Answer::Records { .. }));
        let zone = zone.with(Arc::default());
        let gone = zone.answer(PEER, &Name::from_ascii("web.default.svc.cluster.local.").unwrap(), RecordType::A);
        assert_eq!(gone, Answer::NoName);
    }
}
