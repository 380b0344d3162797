//! What stands in the table whatever the services are: the ways in and out, and the maps that services fill.

use super::rules::{
    ADDRESS_ADDRESS, ADDRESS_PORT, ADDRESS_PROTOCOL_PORT, LOCAL, NODE_PORTS, PROTOCOL_PORT, REFUSE, SERVICES,
    destination, destination_port, source, within,
};
use crate::nft::expr::{SetRef, Verdict};
use crate::nft::{BaseChain, Data, Expr, Reg, Rule, SetSpec};
use ipnet::Ipv4Net;

pub(super) const HAIRPIN: &str = "hairpin";
pub(super) const HOST_PORTS: &str = "host-ports";
pub(super) const HOST_ADDRESS_PORTS: &str = "host-address-ports";

/// Bit of a connection's status: its destination was translated.
const DST_NAT: u32 = 1 << 5;

/// The node that the rules are for.
#[derive(Clone, Debug)]
pub(crate) struct Surroundings {
    pub(crate) table: String,
    pub(crate) bridge: String,
    pub(crate) node: String,
    pub(crate) pods: Ipv4Net,
    pub(crate) cluster: Ipv4Net,
    pub(crate) services: Ipv4Net,
}

/// The maps and sets.
pub(super) fn sets() -> Vec<SetSpec> {
    let set =
        |name: &str, key_type, key_len, data| SetSpec { name: name.to_owned(), key_type, key_len, data, timeout: None };
    vec![
        set(SERVICES, ADDRESS_PROTOCOL_PORT, 12, Data::Verdict),
        set(NODE_PORTS, PROTOCOL_PORT, 8, Data::Verdict),
        set(HOST_PORTS, PROTOCOL_PORT, 8, Data::Value(ADDRESS_PORT, 8)),
        set(HOST_ADDRESS_PORTS, ADDRESS_PROTOCOL_PORT, 12, Data::Value(ADDRESS_PORT, 8)),
        set(HAIRPIN, ADDRESS_ADDRESS, 8, Data::None),
    ]
}

/// The chains, those first that others lead to.
pub(super) fn chains(around: &Surroundings) -> Vec<(&'static str, Option<BaseChain>, Vec<Rule>)> {
    let base = |kind, hook, priority| Some(BaseChain { kind, hook, priority });
    let enter = || vec![rule([Expr::Verdict(Verdict::Jump("dispatch".to_owned()))], None)];
    vec![
        (REFUSE, None, refuse()),
        ("dispatch", None, dispatch(around)),
        ("guard", base("filter", 0, -300), guard(around)),
        ("prerouting", base("nat", 0, -100), enter()),
        ("output", base("nat", 3, -100), enter()),
        ("postrouting", base("nat", 4, 100), postrouting(around)),
    ]
}

fn rule(exprs: impl IntoIterator<Item = Expr>, comment: Option<&str>) -> Rule {
    Rule { exprs: exprs.into_iter().collect(), comment: comment.map(str::to_owned) }
}

/// Says no at once instead of letting clients wait.
fn refuse() -> Vec<Rule> {
    let tcp = [Expr::L4Proto(Reg::A[0]), Expr::Equal(Reg::A[0], vec![6]), Expr::RejectTcp];
    vec![rule(tcp, None), rule([Expr::RejectPort], None)]
}

/// The host's loopback addresses are routable on the bridge, for node ports; pods have no business there.
fn guard(around: &Surroundings) -> Vec<Rule> {
    let mut exprs = vec![Expr::InputName(Reg::A[0]), Expr::Equal(Reg::A[0], link_name(&around.bridge))];
    exprs.extend(within(destination, Ipv4Net::new_assert([127, 0, 0, 0].into(), 8), true));
    exprs.push(Expr::Verdict(Verdict::Drop));
    vec![rule(exprs, Some("pods never reach the host's loopback"))]
}

/// Virtual addresses first, then ports of the node's own addresses.
fn dispatch(around: &Surroundings) -> Vec<Rule> {
    let a = Reg::A;
    let address_key = || [destination(a[0]), Expr::L4Proto(a[1]), destination_port(a[2])];
    let port_key = || [Expr::L4Proto(a[0]), destination_port(a[1])];
    let look = |map: &str, to| Expr::Lookup { set: SetRef::Named(map.to_owned()), key: a[0], to: Some(to) };
    let dnat = || Expr::Dnat { address: a[0], port: a[1] };
    let mut unknown = within(destination, around.services, true);
    unknown.push(Expr::Verdict(Verdict::Goto(REFUSE.to_owned())));
    let foreign = [
        Expr::DestinationType(a[0]),
        Expr::NotEqual(a[0], LOCAL.to_ne_bytes().to_vec()),
        Expr::Verdict(Verdict::Return),
    ];
    vec![
        rule(address_key().into_iter().chain([look(SERVICES, Reg::VERDICT)]), None),
        rule(unknown, Some("no such service")),
        rule(foreign, Some("only the node's own addresses have node ports")),
        rule(address_key().into_iter().chain([look(HOST_ADDRESS_PORTS, a[0]), dnat()]), None),
        rule(port_key().into_iter().chain([look(NODE_PORTS, Reg::VERDICT)]), None),
        rule(port_key().into_iter().chain([look(HOST_PORTS, a[0]), dnat()]), None),
    ]
}

/// Who may not keep its address: pods that reach themselves, the host's loopback, pods outside of the cluster, and
/// strangers sent on to another node, whose answers have to come back this way.
fn postrouting(around: &Surroundings) -> Vec<Rule> {
    let a = Reg::A;
    let out = |here: bool| {
        let name = link_name(&around.bridge);
        [Expr::OutputName(a[0]), if here { Expr::Equal(a[0], name) } else { Expr::NotEqual(a[0], name) }]
    };
    let hairpin = [
        source(a[0]),
        destination(a[1]),
        Expr::Lookup { set: SetRef::Named(HAIRPIN.to_owned()), key: a[0], to: None },
        Expr::Masquerade,
    ];
    let loopback = within(source, Ipv4Net::new_assert([127, 0, 0, 0].into(), 8), true);
    let pods = within(source, around.pods, true).into_iter().chain(within(destination, around.cluster, false));
    let translated = [
        Expr::CtStatus(a[0]),
        Expr::And { reg: a[0], mask: DST_NAT.to_ne_bytes().to_vec() },
        Expr::NotEqual(a[0], vec![0; 4]),
    ];
    let strangers = translated.into_iter().chain(within(source, around.cluster, false));
    vec![
        rule(hairpin, Some("a pod reaches itself by a service")),
        rule(loopback.into_iter().chain(out(true)).chain([Expr::Masquerade]), Some("node ports on loopback")),
        rule(pods.chain(out(false)).chain([Expr::Masquerade]), Some("pods to the outside")),
        rule(strangers.chain(out(false)).chain([Expr::Masquerade]), Some("node ports to other nodes")),
    ]
}

/// A link's name as it is compared: whole, with zeros behind it.
fn link_name(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(16, 0);
    bytes
}
