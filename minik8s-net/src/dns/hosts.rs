//! Names outside of the cluster's domain that lead to its gateways.

use arc_swap::ArcSwap;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Names that lead to gateways; shared by the name server, which answers with it, and whoever knows the routes.
#[derive(Debug, Default)]
pub struct Hosts(ArcSwap<HostTable>);

/// The names of one state of the routes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostTable {
    /// In lower case, without a point at the end.
    pub exact: BTreeSet<String>,
    /// By what names end in, such as `.example.com`; true where only one label stands before it.
    pub below: BTreeMap<String, bool>,
    /// A gateway runs here, at the address of this name server too.
    pub here: bool,
    /// Where others run.
    pub elsewhere: Vec<IpAddr>,
}

impl HostTable {
    fn knows(&self, name: &str) -> bool {
        let below = |(at, _): (usize, &str)| {
            let one = self.below.get(&name[at..]);
            at > 0 && one.is_some_and(|one| !one || !name[..at].contains('.'))
        };
        self.exact.contains(name) || name.match_indices('.').any(below)
    }
}

impl Hosts {
    /// The names of another state.
    pub fn set(&self, table: HostTable) {
        self.0.store(table.into());
    }

    /// The addresses of a name; `None` for one that does not lead to gateways. `own` is the address of this machine.
    pub(super) fn find(&self, name: &str, own: IpAddr) -> Option<Vec<IpAddr>> {
        let table = self.0.load();
        if !table.knows(name) {
            return None;
        }
        Some(if table.here { vec![own] } else { table.elsewhere.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_routes_lead_to_the_gateway_and_others_do_not() {
        let own: IpAddr = [10, 244, 0, 1].into();
        let hosts = Hosts::default();
        let table = HostTable {
            exact: ["shop.example".to_owned()].into(),
            below: [(".one.example".to_owned(), true), (".many.example".to_owned(), false)].into(),
            here: true,
            elsewhere: vec![[192, 0, 2, 1].into()],
        };
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
            assert_eq!(hosts.find(name, own), known.then(|| vec![own]), "{name}");
        }
        hosts.set(HostTable { here: false, ..table });
        assert_eq!(hosts.find("shop.example", own), Some(vec![[192, 0, 2, 1].into()]));
    }
}
