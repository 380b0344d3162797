//! What the kernel should know about other nodes, and what is to change. No kernel in sight.

use super::{OverlayConfig, vtep_mac};
use ipnet::{IpNet, Ipv4Net};
use minik8s_core::network::Peer;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

/// A hardware address.
pub(super) type Mac = [u8; 6];

/// Where a range leads: to a neighbour on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hop {
    pub(super) via: Ipv4Addr,
    pub(super) link: u32,
}

/// Everything that peers need.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Entries {
    pub(super) routes: BTreeMap<Ipv4Net, Hop>,
    /// On the tunnel device: whose hardware address is which.
    pub(super) neighbours: BTreeMap<Ipv4Addr, Mac>,
    /// On the tunnel device: behind which node a hardware address lies.
    pub(super) forwarding: BTreeMap<Mac, Ipv4Addr>,
}

/// The node that the entries are for.
#[derive(Clone, Debug)]
pub(super) struct Place<'a> {
    pub(super) overlay: OverlayConfig,
    /// Range of its own pods.
    pub(super) own: Ipv4Net,
    /// Addresses of the host's links.
    pub(super) addresses: &'a [(u32, Ipv4Net)],
}

impl Place<'_> {
    /// The link by which the peer is reached without a router.
    fn link_to(&self, peer: Ipv4Addr) -> Option<u32> {
        let here = |(_, net): &&(u32, Ipv4Net)| net.addr() == self.overlay.address && net.contains(&peer);
        self.addresses.iter().find(here).filter(|_| self.overlay.direct).map(|(link, _)| *link)
    }

    /// What an address is that no other node can have.
    fn is_no_peer(&self, address: Ipv4Addr) -> Option<&'static str> {
        let own = |(_, net): &(u32, Ipv4Net)| net.addr() == address;
        // A subnet of two has no address for all.
        let ends =
            |(_, net): &(u32, Ipv4Net)| net.prefix_len() < 31 && [net.network(), net.broadcast()].contains(&address);
        match address {
            _ if address == self.overlay.address || self.addresses.iter().any(own) => Some("this node's own"),
            _ if address.is_broadcast() || self.addresses.iter().any(ends) => Some("that of a whole subnet"),
            _ if address.is_multicast() => Some("that of a group"),
            _ if address.is_loopback() || address.octets()[0] == 0 => Some("of no machine"),
            _ => None,
        }
    }

    /// Peers with a plain route, peers behind the tunnel, and those that make no sense, with the reason.
    pub(super) fn sort(&self, peers: &[Peer]) -> Sorted {
        let mut sorted = Sorted::default();
        let mut taken: Vec<(Ipv4Net, &str)> = vec![(self.own, "this node")];
        for peer in peers {
            let (IpAddr::V4(address), IpNet::V4(range)) = (peer.address, peer.pod_cidr) else {
                sorted.refused.push(format!("node {}: {} for {} is not IPv4", peer.node, peer.address, peer.pod_cidr));
                continue;
            };
            let range = range.trunc();
            if let Some(what) = self.is_no_peer(address) {
                sorted.refused.push(format!("node {}: its address {address} is {what}", peer.node));
                continue;
            }
            if let Some((other, owner)) = taken.iter().find(|(other, _)| overlap(*other, range)) {
                sorted.refused.push(format!("node {}: its range {range} overlaps with {other} of {owner}", peer.node));
                continue;
            }
            taken.push((range, &peer.node));
            match self.link_to(address) {
                Some(link) => drop(sorted.direct.insert(range, Hop { via: address, link })),
                None => drop(sorted.tunnels.insert(range, address)),
            }
        }
        sorted
    }
}

/// Peers by how they are reached.
#[derive(Debug, Default)]
pub(super) struct Sorted {
    pub(super) direct: BTreeMap<Ipv4Net, Hop>,
    pub(super) tunnels: BTreeMap<Ipv4Net, Ipv4Addr>,
    pub(super) refused: Vec<String>,
}

impl Sorted {
    /// The entries of those that need no tunnel.
    pub(super) fn without_tunnel(&self) -> Entries {
        Entries { routes: self.direct.clone(), ..Entries::default() }
    }

    /// The entries, with the tunnel device's number; none is needed where nobody is behind it.
    pub(super) fn entries(&self, device: u32) -> Entries {
        let mut entries = self.without_tunnel();
        for (range, node) in &self.tunnels {
            let (via, mac) = (range.network(), vtep_mac(*range));
            entries.routes.insert(*range, Hop { via, link: device });
            entries.neighbours.insert(via, mac);
            entries.forwarding.insert(mac, *node);
        }
        entries
    }
}

pub(crate) fn overlap(a: Ipv4Net, b: Ipv4Net) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

/// One step to what should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Neighbour(Ipv4Addr, Mac),
    Forward(Mac, Ipv4Addr),
    Route(Ipv4Net, Hop),
    DropRoute(Ipv4Net, Hop),
    DropForward(Mac, Ipv4Addr),
    DropNeighbour(Ipv4Addr, Mac),
}

/// From what is to what should be: a route comes after what it needs, and goes before it. What is right is left alone,
/// what is wrong is replaced in one step.
pub(super) fn steps(now: &Entries, wanted: &Entries) -> Vec<Step> {
    let mut steps = Vec::new();
    steps.extend(missing(&now.neighbours, &wanted.neighbours).map(|(ip, mac)| Step::Neighbour(*ip, *mac)));
    steps.extend(missing(&now.forwarding, &wanted.forwarding).map(|(mac, node)| Step::Forward(*mac, *node)));
    steps.extend(missing(&now.routes, &wanted.routes).map(|(range, hop)| Step::Route(*range, *hop)));
    steps.extend(stale(&now.routes, &wanted.routes).map(|(range, hop)| Step::DropRoute(*range, *hop)));
    steps.extend(stale(&now.forwarding, &wanted.forwarding).map(|(mac, node)| Step::DropForward(*mac, *node)));
    steps.extend(stale(&now.neighbours, &wanted.neighbours).map(|(ip, mac)| Step::DropNeighbour(*ip, *mac)));
    steps
}

impl Step {
    /// True where the step makes things worse after another one that failed: a way would lead nowhere, by what was not
    /// made for it, or without what it still needs.
    pub(super) fn needs(&self, other: &Step) -> bool {
        match (self, other) {
            (Step::Route(_, hop), Step::Neighbour(ip, _)) => hop.via == *ip,
            (Step::Route(range, hop), Step::Forward(mac, _)) => hop.via == range.network() && vtep_mac(*range) == *mac,
            (Step::DropForward(mac, _), Step::Route(range, _) | Step::DropRoute(range, _)) => vtep_mac(*range) == *mac,
            (Step::DropNeighbour(ip, _), Step::Route(range, _) | Step::DropRoute(range, _)) => range.network() == *ip,
            _ => false,
        }
    }
}

fn missing<'a, K: Ord, V: PartialEq>(
    now: &'a BTreeMap<K, V>,
    wanted: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (&'a K, &'a V)> {
    wanted.iter().filter(|(key, value)| now.get(key) != Some(value))
}

fn stale<'a, K: Ord, V>(now: &'a BTreeMap<K, V>, wanted: &'a BTreeMap<K, V>) -> impl Iterator<Item = (&'a K, &'a V)> {
    now.iter().filter(|(key, _)| !wanted.contains_key(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICE: u32 = 9;

    fn net(text: &str) -> Ipv4Net {
        text.parse().unwrap()
    }

    fn peer(node: &str, address: &str, range: &str) -> Peer {
        Peer { node: node.into(), address: address.parse().unwrap(), pod_cidr: range.parse().unwrap() }
    }

    fn sort(direct: bool, peers: &[Peer]) -> Sorted {
        let addresses = [(2, net("192.0.2.1/24")), (3, net("198.51.100.1/24")), (4, net("10.244.0.1/24"))];
        let overlay = OverlayConfig { direct, ..OverlayConfig::new(Ipv4Addr::new(192, 0, 2, 1)) };
        Place { overlay, own: net("10.244.0.0/24"), addresses: &addresses }.sort(peers)
    }

    #[test]
    fn neighbours_are_reached_directly_and_others_by_tunnel() {
        let peers = [peer("near", "192.0.2.7", "10.244.1.0/24"), peer("far", "203.0.113.7", "10.244.2.0/24")];
        let entries = sort(true, &peers).entries(DEVICE);
        assert_eq!(entries.routes[&net("10.244.1.0/24")], Hop { via: Ipv4Addr::new(192, 0, 2, 7), link: 2 });
        assert_eq!(entries.routes[&net("10.244.2.0/24")], Hop { via: Ipv4Addr::new(10, 244, 2, 0), link: DEVICE });
        let mac = [0x0a, 0x59, 10, 244, 2, 0];
        assert_eq!(entries.neighbours, BTreeMap::from([(Ipv4Addr::new(10, 244, 2, 0), mac)]));
        assert_eq!(entries.forwarding, BTreeMap::from([(mac, Ipv4Addr::new(203, 0, 113, 7))]));
        assert_eq!(sort(false, &peers).tunnels.len(), 2);
        // The other subnet of this host is not the one that the peers know it by.
        assert_eq!(sort(true, &[peer("else", "198.51.100.9", "10.244.3.0/24")]).tunnels.len(), 1);
    }

    #[test]
    fn ranges_that_overlap_and_other_families_are_refused_and_the_rest_goes_on() {
        let peers = [
            peer("own", "192.0.2.7", "10.244.0.128/25"),
            peer("a", "192.0.2.8", "10.244.4.0/23"),
            peer("b", "192.0.2.9", "10.244.5.0/24"),
            peer("six", "fd00::1", "fd01::/64"),
            peer("self", "192.0.2.1", "10.244.6.0/24"),
            peer("else", "198.51.100.1", "10.244.6.0/24"),
            peer("all", "192.0.2.255", "10.244.6.0/24"),
            peer("everybody", "255.255.255.255", "10.244.6.0/24"),
            peer("some", "224.0.0.9", "10.244.6.0/24"),
            peer("none", "0.0.0.0", "10.244.6.0/24"),
        ];
        let sorted = sort(true, &peers);
        assert!(sorted.tunnels.is_empty());
        assert_eq!(sorted.direct.keys().copied().collect::<Vec<_>>(), [net("10.244.4.0/23")]);
        assert_eq!(
            sorted.refused,
            [
                "node own: its range 10.244.0.128/25 overlaps with 10.244.0.0/24 of this node",
                "node b: its range 10.244.5.0/24 overlaps with 10.244.4.0/23 of a",
                "node six: fd00::1 for fd01::/64 is not IPv4",
                "node self: its address 192.0.2.1 is this node's own",
                "node else: its address 198.51.100.1 is this node's own",
                "node all: its address 192.0.2.255 is that of a whole subnet",
                "node everybody: its address 255.255.255.255 is that of a whole subnet",
                "node some: its address 224.0.0.9 is that of a group",
                "node none: its address 0.0.0.0 is of no machine",
            ]
        );
    }

    #[test]
    fn only_what_differs_changes_and_routes_never_lead_nowhere() {
        let far = |address: &str| sort(false, &[peer("n", address, "10.244.2.0/24")]).entries(DEVICE);
        let (none, first, moved) = (Entries::default(), far("203.0.113.7"), far("203.0.113.8"));
        assert_eq!(steps(&first, &first), []);
        let (range, via, mac) = (net("10.244.2.0/24"), Ipv4Addr::new(10, 244, 2, 0), [0x0a, 0x59, 10, 244, 2, 0]);
        let (node, hop) = (Ipv4Addr::new(203, 0, 113, 7), Hop { via, link: DEVICE });
        let coming = [Step::Neighbour(via, mac), Step::Forward(mac, node), Step::Route(range, hop)];
        assert_eq!(steps(&none, &first), coming);
        let going = [Step::DropRoute(range, hop), Step::DropForward(mac, node), Step::DropNeighbour(via, mac)];
        assert_eq!(steps(&first, &none), going);
        assert_eq!(steps(&first, &moved), [Step::Forward(mac, Ipv4Addr::new(203, 0, 113, 8))]);
    }

    #[test]
    fn a_step_that_failed_holds_up_what_needs_it_and_nothing_else() {
        let far = sort(false, &[peer("n", "203.0.113.7", "10.244.2.0/24")]).entries(DEVICE);
        let near = sort(true, &[peer("n", "192.0.2.7", "10.244.2.0/24")]).entries(DEVICE);
        let other = sort(false, &[peer("m", "203.0.113.8", "10.244.3.0/24")]).entries(DEVICE);
        let none = Entries::default();
        let held = |steps: Vec<Step>, failed: usize| {
            steps.iter().filter(|step| step.needs(&steps[failed])).copied().collect::<Vec<_>>()
        };
        let coming = steps(&none, &far);
        assert_eq!((held(coming.clone(), 0), held(coming.clone(), 1)), (vec![coming[2]], vec![coming[2]]));
        let going = steps(&far, &none);
        assert_eq!(held(going.clone(), 0), going[1..]);
        // From behind the tunnel to the same subnet: the old way stays whole where the new one is refused.
        let moved = steps(&far, &near);
        assert_eq!(held(moved.clone(), 0), moved[1..]);
        let exchanged = steps(&far, &other);
        let stale = exchanged.iter().position(|step| matches!(step, Step::Route(..))).unwrap();
        assert_eq!(held(exchanged, stale), []);
    }
}
