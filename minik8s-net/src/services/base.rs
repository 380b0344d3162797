//! What stands in the table whatever the services are: the ways in and out, and the maps that services fill.

use super::picks::{self, Door};
use super::rules::{
    ADDRESS_ADDRESS, ADDRESS_PORT, ADDRESS_PROTOCOL_PORT, LOCAL, PROTOCOL_PORT, REFUSE, destination, destination_port,
    protocol, source, within,
};
use crate::nft::expr::Verdict;
use crate::nft::{BaseChain, Data, Expr, Reg, Rule, SetSpec};
use ipnet::Ipv4Net;
use std::net::Ipv4Addr;

pub(super) const HAIRPIN: &str = "hairpin";
pub(super) const HOST_PORTS: &str = "host-ports";
pub(super) const HOST_ADDRESS_PORTS: &str = "host-address-ports";

/// Bits of a packet's state: it is part of a connection that is known, or about one.
const KNOWN: u32 = 1 << 1 | 1 << 2;

/// Bit of a connection's status: its destination was translated.
const DST_NAT: u32 = 1 << 5;

/// The node that the rules are for.
#[derive(Clone, Debug)]
pub(crate) struct Surroundings {
    pub(crate) table: String,
    /// The group of the pods' links.
    pub(crate) group: u32,
    /// The node's address among its pods.
    pub(crate) gateway: Ipv4Addr,
    /// Where tunnels to other nodes end: the node's address and the port.
    pub(crate) tunnel: Option<(Ipv4Addr, u16)>,
    pub(crate) node: String,
    pub(crate) pods: Ipv4Net,
    pub(crate) cluster: Ipv4Net,
    pub(crate) services: Ipv4Net,
}

/// The maps and sets.
pub(super) fn sets() -> Vec<SetSpec> {
    let set = SetSpec::new;
    let mut all = picks::sets();
    all.extend([
        set(HOST_PORTS, PROTOCOL_PORT, 8, Data::Value(ADDRESS_PORT, 8)),
        set(HOST_ADDRESS_PORTS, ADDRESS_PROTOCOL_PORT, 12, Data::Value(ADDRESS_PORT, 8)),
        set(HAIRPIN, ADDRESS_ADDRESS, 8, Data::None),
    ]);
    all
}

/// The chains, those first that others lead to.
pub(super) fn chains(around: &Surroundings) -> Vec<(&'static str, Option<BaseChain>, Vec<Rule>)> {
    let base = |kind, hook, priority| Some(BaseChain { kind, hook, priority });
    let enter = || rule([Expr::Verdict(Verdict::Jump("dispatch".to_owned()))], None);
    // A packet that began with the rules as they were may be led to a chain that is new, and so has none for it. To let it
    // go on would fix its connection to an address that nobody has; where nothing becomes of it, its client asks again.
    let changed = || rule([Expr::Verdict(Verdict::Drop)], Some("a service that changes just now"));
    let mut chains = vec![
        (REFUSE, None, refuse()),
        ("dispatch", None, dispatch(around)),
        ("guard", base("filter", 1, -300), vec![guard(around, true)]),
        ("sources", base("filter", 0, -300), vec![sources(around)]),
        ("prerouting", base("nat", 0, -100), vec![guard(around, false), enter(), changed()]),
        ("output", base("nat", 3, -100), vec![enter(), changed()]),
        ("postrouting", base("nat", 4, 100), postrouting(around)),
        ("gone", base("filter", 3, 0), vec![gone(around, true)]),
        ("gone-through", base("filter", 2, 0), vec![gone(around, false)]),
    ];
    if let Some((node, port)) = around.tunnel {
        chains.push(("tunnel-in", base("filter", 0, -300), vec![untracked(destination, node, port)]));
        chains.push(("tunnel-out", base("filter", 3, -300), vec![untracked(source, node, port)]));
    }
    chains
}

fn rule(exprs: impl IntoIterator<Item = Expr>, comment: Option<&str>) -> Rule {
    Rule { exprs: exprs.into_iter().collect(), comment: comment.map(str::to_owned) }
}

/// Says no at once instead of letting clients wait.
fn refuse() -> Vec<Rule> {
    let tcp = [Expr::L4Proto(Reg::A[0]), Expr::Equal(Reg::A[0], vec![6]), Expr::RejectTcp];
    vec![rule(tcp, None), rule([Expr::RejectPort], None)]
}

/// The host's loopback addresses are routable on pods' links, for node ports; pods have no business there but to answer.
/// Stands where connections begin, as node ports lead elsewhere, and where packets for the host come, for those of no
/// connection; packets that are only passed on do not meet it.
fn guard(around: &Surroundings, answers: bool) -> Rule {
    let a = Reg::A[0];
    let mut exprs = within(destination, Ipv4Net::new_assert([127, 0, 0, 0].into(), 8), true);
    exprs.extend([Expr::InputGroup(a), Expr::Equal(a, around.group.to_ne_bytes().to_vec())]);
    if answers {
        let mask = KNOWN.to_ne_bytes().to_vec();
        exprs.extend([Expr::CtState(a), Expr::And { reg: a, mask }, Expr::Equal(a, vec![0; 4])]);
    }
    exprs.push(Expr::Verdict(Verdict::Drop));
    rule(exprs, Some("pods never reach the host's loopback"))
}

/// Pods send with their own address and no other. Stands before anything is made of a packet; the kernel's own setting
/// for it counts only as far as that for all links lets it.
fn sources(around: &Surroundings) -> Rule {
    let a = Reg::A[0];
    let group = around.group.to_ne_bytes().to_vec();
    let exprs = [
        Expr::InputGroup(a),
        Expr::Equal(a, group),
        Expr::WayBack(a),
        Expr::Equal(a, vec![0; 4]),
        Expr::Verdict(Verdict::Drop),
    ];
    rule(exprs, Some("pods send with their own address"))
}

/// Whoever is connected to a pod that is no more is told so, instead of repeating itself to nobody until its own patience
/// ends. What has the range of this node's pods for its destination and does not leave by a pod's link leads to nobody;
/// but what the host itself sends to a Service still counts as leaving by the link that the Service's address led to.
fn gone(around: &Surroundings, from_host: bool) -> Rule {
    let a = Reg::A;
    let mut exprs = within(destination, around.pods, true);
    exprs.extend([Expr::OutputGroup(a[0]), Expr::NotEqual(a[0], around.group.to_ne_bytes().to_vec())]);
    if from_host {
        exprs.extend([destination(a[0]), Expr::NotEqual(a[0], around.gateway.octets().to_vec())]);
        let missing = Expr::Missing { set: HAIRPIN.to_owned(), key: a[0] };
        exprs.extend([destination(a[0]), destination(a[1]), missing]);
    }
    exprs.push(Expr::Verdict(Verdict::Goto(REFUSE.to_owned())));
    rule(exprs, Some("pods that are no more"))
}

/// What is inside of a tunnel's packets is tracked by itself; to track the packets around it as well would only cost.
fn untracked(address: fn(Reg) -> Expr, node: Ipv4Addr, port: u16) -> Rule {
    let a = Reg::A[0];
    let exprs = [
        protocol(a),
        Expr::Equal(a, vec![17]),
        destination_port(a),
        Expr::Equal(a, port.to_be_bytes().to_vec()),
        address(a),
        Expr::Equal(a, node.octets().to_vec()),
        Expr::NoTrack,
    ];
    rule(exprs, None)
}

/// Virtual addresses first, then ports of the node's own addresses. Every packet has its verdict here, or in a chain for a
/// service.
fn dispatch(around: &Surroundings) -> Vec<Rule> {
    let a = Reg::A;
    let address_key = || [destination(a[0]), Expr::L4Proto(a[1]), destination_port(a[2])];
    let port_key = || [Expr::L4Proto(a[0]), destination_port(a[1])];
    let look = |map: &str, to| Expr::Lookup { set: map.to_owned(), key: a[0], to: Some(to) };
    let dnat = || Expr::Dnat { address: a[0], port: a[1] };
    let mut unknown = within(destination, around.services, true);
    unknown.push(Expr::Verdict(Verdict::Goto(REFUSE.to_owned())));
    let local = || LOCAL.to_ne_bytes().to_vec();
    let foreign = [Expr::DestinationType(a[0]), Expr::NotEqual(a[0], local()), Expr::Verdict(Verdict::Accept)];
    let from_outside = || {
        let mut exprs = within(source, around.cluster, false);
        exprs.extend([Expr::SourceType(a[0]), Expr::NotEqual(a[0], local())]);
        exprs
    };
    let enter = |door: Door| {
        let first = if door.outside { from_outside() } else { Vec::new() };
        door.enter().map(|exprs| rule(first.clone().into_iter().chain(exprs), None))
    };
    let [address, port, outside, outside_port] = Door::ALL.map(enter);
    let others = [
        rule(unknown, Some("no such service")),
        rule(foreign, Some("only the node's own addresses have node ports")),
        rule(address_key().into_iter().chain([look(HOST_ADDRESS_PORTS, a[0]), dnat()]), None),
    ];
    let last = [
        rule(port_key().into_iter().chain([look(HOST_PORTS, a[0]), dnat()]), None),
        rule([Expr::Verdict(Verdict::Accept)], None),
    ];
    [outside, address].into_iter().flatten().chain(others).chain(outside_port).chain(port).chain(last).collect()
}

/// Who may not keep its address: pods that reach themselves, the host's loopback, pods outside of the cluster, and
/// strangers sent on to another node, whose answers have to come back this way.
fn postrouting(around: &Surroundings) -> Vec<Rule> {
    let a = Reg::A;
    let out = |here: bool| {
        let group = around.group.to_ne_bytes().to_vec();
        [Expr::OutputGroup(a[0]), if here { Expr::Equal(a[0], group) } else { Expr::NotEqual(a[0], group) }]
    };
    // The links of pods have no address of their own to hide behind.
    let as_gateway = || [Expr::Set { reg: a[0], data: around.gateway.octets().to_vec() }, Expr::Snat { address: a[0] }];
    let hairpin = [source(a[0]), destination(a[1]), Expr::Lookup { set: HAIRPIN.to_owned(), key: a[0], to: None }];
    let loopback = within(source, Ipv4Net::new_assert([127, 0, 0, 0].into(), 8), true);
    let pods = within(source, around.pods, true).into_iter().chain(within(destination, around.cluster, false));
    let translated = [
        Expr::CtStatus(a[0]),
        Expr::And { reg: a[0], mask: DST_NAT.to_ne_bytes().to_vec() },
        Expr::NotEqual(a[0], vec![0; 4]),
    ];
    let strangers = translated.into_iter().chain(within(source, around.cluster, false));
    vec![
        rule(hairpin.into_iter().chain(as_gateway()), Some("a pod reaches itself by a service")),
        rule(loopback.into_iter().chain(out(true)).chain(as_gateway()), Some("node ports on loopback")),
        rule(pods.chain(out(false)).chain([Expr::Masquerade]), Some("pods to the outside")),
        rule(strangers.chain(out(false)).chain([Expr::Masquerade]), Some("node ports to other nodes")),
    ]
}
