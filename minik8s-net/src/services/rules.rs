//! From decisions to rules, sets and elements.

use super::plan::{Backend, Chain, Front, Target};
use crate::nft::batch::Value;
use crate::nft::expr::{OwnSet, SetChange, SetRef, Verdict};
use crate::nft::{Data, Expr, Reg, Rule, SetSpec};
use ipnet::Ipv4Net;
use minik8s_core::network::Protocol;
use std::net::Ipv4Addr;

/// Types as nft numbers them, for `nft list` to know how to print.
pub(super) const ADDRESS: u32 = 7;
const INTEGER: u32 = 4;
const PROTOCOL: u32 = 12;
const PORT: u32 = 13;
pub(super) const ADDRESS_PORT: u32 = (ADDRESS << 6) | PORT;
pub(super) const PROTOCOL_PORT: u32 = (PROTOCOL << 6) | PORT;
pub(super) const ADDRESS_PROTOCOL_PORT: u32 = (ADDRESS << 12) | PROTOCOL_PORT;
pub(super) const ADDRESS_ADDRESS: u32 = (ADDRESS << 6) | ADDRESS;

/// Names of what stands in every table.
pub(super) const SERVICES: &str = "services";
pub(super) const NODE_PORTS: &str = "node-ports";
pub(super) const REFUSE: &str = "refuse";

/// `RTN_LOCAL`, the type of the node's own addresses.
pub(super) const LOCAL: u32 = 2;

/// Source and destination within an IPv4 header.
pub(super) fn source(to: Reg) -> Expr {
    Expr::Network { offset: 12, len: 4, to }
}

pub(super) fn destination(to: Reg) -> Expr {
    Expr::Network { offset: 16, len: 4, to }
}

/// Where TCP, UDP and SCTP alike have it.
pub(super) fn destination_port(to: Reg) -> Expr {
    Expr::Transport { offset: 2, len: 2, to }
}

/// Expressions that a packet passes only with an address within, or outside of, a range.
pub(super) fn within(load: fn(Reg) -> Expr, net: Ipv4Net, wanted: bool) -> Vec<Expr> {
    let reg = Reg::A[0];
    let address = net.network().octets().to_vec();
    let test = if wanted { Expr::Equal(reg, address) } else { Expr::NotEqual(reg, address) };
    vec![load(reg), Expr::And { reg, mask: net.netmask().octets().to_vec() }, test]
}

/// Which map a front stands in, and its key there.
pub(super) fn front_key(front: Front) -> (&'static str, Vec<u8>) {
    match front {
        Front::Address(ip, protocol, port) => {
            (SERVICES, [ip.octets().to_vec(), protocol_port(protocol, port)].concat())
        }
        Front::NodePort(protocol, port) => (NODE_PORTS, protocol_port(protocol, port)),
    }
}

/// Fields of a key fill whole words.
pub(super) fn protocol_port(protocol: Protocol, port: u16) -> Vec<u8> {
    let [high, low] = port.to_be_bytes();
    vec![number(protocol), 0, 0, 0, high, low, 0, 0]
}

pub(super) fn address_port((ip, port): Backend) -> Vec<u8> {
    let [high, low] = port.to_be_bytes();
    [ip.octets(), [high, low, 0, 0]].concat()
}

pub(super) fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
    }
}

pub(super) fn verdict(target: &Target) -> Verdict {
    match target {
        Target::Chain(name) => Verdict::Goto(name.clone()),
        Target::Refuse => Verdict::Goto(REFUSE.to_owned()),
    }
}

pub(super) fn target_value(target: &Target) -> Value {
    Value::Verdict(verdict(target))
}

/// The map of a chain whose clients stay with their backend, named as the chain.
pub(super) fn affinity_map(name: &str, chain: &Chain) -> Option<SetSpec> {
    match chain {
        Chain::Backends { affinity: Some(seconds), .. } => Some(SetSpec {
            name: name.to_owned(),
            key_type: ADDRESS,
            key_len: 4,
            data: Data::Value(ADDRESS_PORT, 8),
            timeout: Some(*seconds),
        }),
        _ => None,
    }
}

/// The rules of a chain.
pub(super) fn chain_rules(name: &str, chain: &Chain, cluster: Ipv4Net) -> Vec<Rule> {
    match chain {
        Chain::Backends { backends, affinity: None } => {
            let mut exprs = choose(backends, Reg::A);
            exprs.push(Expr::Dnat { address: Reg::A[0], port: Reg::A[1] });
            vec![Rule { exprs, comment: None }]
        }
        Chain::Backends { backends, affinity: Some(_) } => sticky(name, backends),
        Chain::Outside { inner, outer } => {
            let mut pods = within(source, cluster, true);
            pods.push(Expr::Verdict(verdict(inner)));
            let own = [Expr::SourceType(Reg::A[0]), Expr::Equal(Reg::A[0], LOCAL.to_ne_bytes().to_vec())];
            let node = own.into_iter().chain([Expr::Verdict(verdict(inner))]).collect();
            let others = vec![Expr::Verdict(verdict(outer))];
            [pods, node, others].into_iter().map(|exprs| Rule { exprs, comment: None }).collect()
        }
    }
}

/// Puts one of the backends into a bank of registers: address, then port.
fn choose(backends: &[Backend], bank: [Reg; 3]) -> Vec<Expr> {
    if let [(ip, port)] = backends {
        return vec![
            Expr::Set { reg: bank[0], data: ip.octets().to_vec() },
            Expr::Set { reg: bank[1], data: port.to_be_bytes().to_vec() },
        ];
    }
    let numbered = backends.iter().zip(0u32..);
    let map = OwnSet {
        key_type: INTEGER,
        key_len: 4,
        host_order: true,
        data: Some((ADDRESS_PORT, 8)),
        elements: numbered.map(|(b, i)| (i.to_ne_bytes().to_vec(), address_port(*b))).collect(),
    };
    vec![
        Expr::Random { modulus: backends.len() as u32, to: bank[0] },
        Expr::Lookup { set: SetRef::Own(map), key: bank[0], to: Some(bank[0]) },
    ]
}

/// A known client whose backend is alive goes there again, and is remembered anew. Everybody else is forgotten, which
/// matters where the backend is gone, given a backend, and remembered.
fn sticky(name: &str, backends: &[Backend]) -> Vec<Rule> {
    let (key, to) = (Reg::B[0], Reg::A);
    let remember = |change| Expr::Dynset { set: name.to_owned(), change, key, data: Some(to[0]) };
    let dnat = Expr::Dnat { address: to[0], port: to[1] };
    let alive = OwnSet {
        key_type: ADDRESS_PORT,
        key_len: 8,
        host_order: false,
        data: None,
        elements: backends.iter().map(|b| (address_port(*b), Vec::new())).collect(),
    };
    let known = vec![
        source(key),
        Expr::Lookup { set: SetRef::Named(name.to_owned()), key, to: Some(to[0]) },
        Expr::Lookup { set: SetRef::Own(alive), key: to[0], to: None },
        remember(SetChange::Update),
        dnat.clone(),
    ];
    let mut fresh = vec![source(key)];
    fresh.extend(choose(backends, to));
    fresh.extend([remember(SetChange::Delete), remember(SetChange::Update), dnat]);
    [known, fresh].into_iter().map(|exprs| Rule { exprs, comment: None }).collect()
}

/// An element that says: this pod may reach itself by a service.
pub(super) fn hairpin_key(ip: Ipv4Addr) -> Vec<u8> {
    [ip.octets(), ip.octets()].concat()
}
