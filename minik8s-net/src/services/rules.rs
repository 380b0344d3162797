//! From decisions to rules, sets and elements.

use super::plan::{Backend, Chain, Front, Target};
use crate::nft::Value;
use crate::nft::expr::{OwnSet, SetRef, Verdict};
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

/// The transport protocol within an IPv4 header: read faster than what the kernel found out about it.
pub(super) fn protocol(to: Reg) -> Expr {
    Expr::Network { offset: 9, len: 1, to }
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

/// The clients of a chain that remembers them, in a set named as the chain.
pub(super) fn clients(name: &str, chain: &Chain) -> Option<SetSpec> {
    match chain {
        Chain::Remember { seconds, .. } => Some(SetSpec {
            name: name.to_owned(),
            key_type: ADDRESS,
            key_len: 4,
            data: Data::None,
            timeout: Some(*seconds),
        }),
        _ => None,
    }
}

/// The rules of a chain.
pub(super) fn chain_rules(name: &str, chain: &Chain, cluster: Ipv4Net) -> Vec<Rule> {
    match chain {
        Chain::Backends(backends) => {
            let mut exprs = choose(backends);
            exprs.push(dnat());
            vec![Rule { exprs, comment: None }]
        }
        Chain::Remember { backend, .. } => {
            let key = Reg::A[0];
            let mut exprs = vec![source(key), Expr::Remember { set: name.to_owned(), key }];
            exprs.extend(choose(&[*backend]));
            exprs.push(dnat());
            vec![Rule { exprs, comment: None }]
        }
        Chain::Sticky(chains) => sticky(chains),
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

/// Puts one of the backends into registers: address, then port.
fn choose(backends: &[Backend]) -> Vec<Expr> {
    let [address, port, _] = Reg::A;
    if let [(ip, number)] = backends {
        return vec![
            Expr::Set { reg: address, data: ip.octets().to_vec() },
            Expr::Set { reg: port, data: number.to_be_bytes().to_vec() },
        ];
    }
    let values = backends.iter().map(|b| Value::Bytes(address_port(*b)));
    any_of(Data::Value(ADDRESS_PORT, 8), values.collect(), address)
}

fn dnat() -> Expr {
    Expr::Dnat { address: Reg::A[0], port: Reg::A[1] }
}

/// One of several values, by chance.
fn any_of(data: Data, values: Vec<Value>, to: Reg) -> Vec<Expr> {
    let key = Reg::A[0];
    let modulus = values.len() as u32;
    let elements = (0u32..).zip(values).map(|(i, value)| (i.to_ne_bytes().to_vec(), value)).collect();
    let map = OwnSet { key_type: INTEGER, key_len: 4, host_order: true, data, elements };
    vec![Expr::Random { modulus, to: key }, Expr::Lookup { set: SetRef::Own(map), key, to: Some(to) }]
}

/// A client that a backend remembers goes there again, everybody else anywhere.
fn sticky(chains: &[String]) -> Vec<Rule> {
    let key = Reg::A[0];
    let known = |name: &String| {
        let lookup = Expr::Lookup { set: SetRef::Named(name.clone()), key, to: None };
        vec![source(key), lookup, Expr::Verdict(Verdict::Goto(name.clone()))]
    };
    let all = chains.iter().map(|name| Value::Verdict(Verdict::Goto(name.clone()))).collect();
    let anywhere = any_of(Data::Verdict, all, Reg::VERDICT);
    chains.iter().map(known).chain([anywhere]).map(|exprs| Rule { exprs, comment: None }).collect()
}

/// An element that says: this pod may reach itself by a service.
pub(super) fn hairpin_key(ip: Ipv4Addr) -> Vec<u8> {
    [ip.octets(), ip.octets()].concat()
}
