//! Names outside of the cluster's domain that lead to its gateways.
//!
//! Anybody who may write a route may name any host. What is answered before the outside world is asked must therefore
//! not be everybody's to say: a name leads to the gateway for pods of the namespace whose route names it, and for all
//! others only where it is below a domain that the cluster's operator shares.

use arc_swap::ArcSwap;
use parking_lot::RwLock;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};

/// Domains that are shared unless somebody chooses others: those that are nobody's in the outside world (RFC 2606, RFC
/// 6762, RFC 8375, and what ICANN keeps for private use), and our own.
pub const SHARED_DOMAINS: [&str; 8] =
    ["minik8s", "example", "test", "internal", "local", "lan", "home.arpa", "localhost"];

/// Whose namespace the machine itself asks for.
const HOST_NAMESPACE: &str = "default";

/// Names that lead to gateways; shared by the name server, which answers with it, and whoever knows the routes.
#[derive(Debug, Default)]
pub struct Hosts(ArcSwap<HostTable>);

/// The names of one state of the routes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostTable {
    /// In lower case, without a point at the end, with the namespaces of their routes.
    pub exact: BTreeMap<String, Vec<String>>,
    /// By what names end in, such as `.example.com`, with namespaces of routes; true where only one label stands before.
    pub below: BTreeMap<String, Vec<(String, bool)>>,
    /// Domains whose names lead to the gateway for everybody; `*` for all names.
    pub shared: Vec<String>,
    /// A gateway runs here, at the address of this name server too.
    pub here: bool,
    /// Where others run.
    pub elsewhere: Vec<IpAddr>,
}

impl HostTable {
    /// Adds a name of a route of this namespace.
    pub fn add(&mut self, name: &str, namespace: &str) {
        let known = self.exact.entry(name.to_owned()).or_default();
        if !known.iter().any(|of| of == namespace) {
            known.push(namespace.to_owned());
        }
    }

    /// Adds what names of a route end in.
    pub fn add_below(&mut self, suffix: &str, one_label: bool, namespace: &str) {
        let known = self.below.entry(suffix.to_owned()).or_default();
        if !known.iter().any(|(of, one)| of == namespace && *one == one_label) {
            known.push((namespace.to_owned(), one_label));
        }
    }

    /// The namespaces whose routes name it.
    fn namespaces<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let exact = self.exact.get(name).into_iter().flatten().map(String::as_str);
        let dots = name.match_indices('.').map(|(at, _)| at).filter(|at| *at > 0);
        let below = dots.flat_map(move |at| {
            let all = self.below.get(&name[at..]).into_iter().flatten();
            all.filter(move |(_, one)| !one || !name[..at].contains('.')).map(|(of, _)| of.as_str())
        });
        exact.chain(below)
    }

    fn is_shared(&self, name: &str) -> bool {
        let within = |domain: &String| {
            domain == "*"
                || name.strip_suffix(domain.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        self.shared.iter().any(within)
    }

    /// True where it leads to gateways for who asks.
    fn leads(&self, name: &str, asker: impl FnOnce() -> Option<String>) -> bool {
        let mut namespaces = self.namespaces(name).peekable();
        if namespaces.peek().is_none() {
            return false;
        }
        self.is_shared(name) || asker().is_some_and(|asker| namespaces.any(|namespace| namespace == asker))
    }
}

impl Hosts {
    /// The names of another state.
    pub fn set(&self, table: HostTable) {
        self.0.store(table.into());
    }

    /// The addresses of a name; `None` for one that does not lead to gateways for the namespace that asks. `own` is the
    /// address of this machine.
    pub(super) fn find(&self, name: &str, own: IpAddr, asker: impl FnOnce() -> Option<String>) -> Option<Vec<IpAddr>> {
        let table = self.0.load();
        if !table.leads(name, asker) {
            return None;
        }
        Some(if table.here { vec![own] } else { table.elsewhere.clone() })
    }
}

/// Who asks: the pods of this node by address.
#[derive(Debug, Default)]
pub(crate) struct Askers(RwLock<HashMap<Ipv4Addr, String>>);

impl Askers {
    pub(crate) fn add(&self, ip: Ipv4Addr, namespace: &str) {
        self.0.write().insert(ip, namespace.to_owned());
    }

    pub(crate) fn remove(&self, ip: Ipv4Addr) {
        self.0.write().remove(&ip);
    }

    /// The namespace of an address; the machine itself and what shares its addresses counts as that of its operator.
    pub(super) fn namespace(&self, ip: IpAddr, is_pod: impl FnOnce(Ipv4Addr) -> bool) -> Option<String> {
        let IpAddr::V4(ip) = ip.to_canonical() else { return None };
        let known = self.0.read().get(&ip).cloned();
        known.or_else(|| (!is_pod(ip)).then(|| HOST_NAMESPACE.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_routes_lead_to_the_gateway_and_others_do_not() {
        let own: IpAddr = [10, 244, 0, 1].into();
        let hosts = Hosts::default();
        let mut table = HostTable {
            shared: SHARED_DOMAINS.map(str::to_owned).to_vec(),
            here: true,
            elsewhere: vec![[192, 0, 2, 1].into()],
            ..HostTable::default()
        };
        table.add("shop.example", "a");
        table.add_below(".one.example", true, "a");
        table.add_below(".many.example", false, "a");
        hosts.set(table.clone());
        for (name, known) in [
            ("shop.example", true),
            ("a.shop.example", false),
            ("a.one.example", true),
            ("a.b.one.example", false),
            ("one.example", false),
            ("a.b.many.example", true),
            ("example", false),
        ] {
            assert_eq!(hosts.find(name, own, || None), known.then(|| vec![own]), "{name}");
        }
        hosts.set(HostTable { here: false, ..table });
        assert_eq!(hosts.find("shop.example", own, || None), Some(vec![[192, 0, 2, 1].into()]));
    }

    #[test]
    fn nobody_takes_a_name_of_the_world_from_other_namespaces() {
        let mut table = HostTable { shared: SHARED_DOMAINS.map(str::to_owned).to_vec(), ..HostTable::default() };
        table.add("github.com", "evil");
        table.add_below(".com", false, "evil");
        table.add("a.b.com", "default");
        table.add("notexample", "evil");
        let leads = |table: &HostTable, name: &str, asker: &str| table.leads(name, || Some(asker.to_owned()));
        // Name, who asks, whether it leads to the gateway.
        for (name, asker, want) in [
            ("github.com", "good", false),
            ("www.bank.com", "good", false),
            ("github.com", "evil", true),
            ("www.bank.com", "evil", true),
            ("a.b.com", "default", true),
            ("a.b.com", "good", false),
            ("notexample", "good", false),
        ] {
            assert_eq!(leads(&table, name, asker), want, "{name} for {asker}");
        }
        assert!(!table.leads("github.com", || None), "nobody knows who asks");
        let shared = |domain: &str| HostTable { shared: vec![domain.to_owned()], ..table.clone() };
        assert!(leads(&shared("b.com"), "a.b.com", "good") && !leads(&shared("b.com"), "github.com", "good"));
        assert!(leads(&shared("*"), "github.com", "good"));
    }

    #[test]
    fn pods_ask_for_their_namespace_and_the_machine_for_its_operators() {
        let askers = Askers::default();
        let (pod, other) = (Ipv4Addr::new(10, 244, 0, 5), Ipv4Addr::new(10, 244, 0, 6));
        askers.add(pod, "shop");
        let namespace = |ip: [u8; 4]| askers.namespace(ip.into(), |ip| ip.octets()[0] == 10);
        assert_eq!(namespace(pod.octets()).as_deref(), Some("shop"));
        assert_eq!((namespace(other.octets()), namespace([192, 0, 2, 1]).as_deref()), (None, Some("default")));
        askers.remove(pod);
        assert_eq!(namespace(pod.octets()), None);
    }
}
