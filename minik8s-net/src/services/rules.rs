//! From decisions to rules, sets and elements.

use super::plan::{Backend, Front};
use crate::nft::{Expr, Reg};
use ipnet::Ipv4Net;
use minik8s_core::network::Protocol;
use std::net::Ipv4Addr;

/// Types as nft numbers them, for `nft list` to know how to print.
pub(super) const ADDRESS: u32 = 7;
const PROTOCOL: u32 = 12;
const PORT: u32 = 13;
pub(super) const MARK: u32 = 19;
pub(super) const ADDRESS_PORT: u32 = (ADDRESS << 6) | PORT;
pub(super) const PROTOCOL_PORT: u32 = (PROTOCOL << 6) | PORT;
pub(super) const ADDRESS_PROTOCOL_PORT: u32 = (ADDRESS << 12) | PROTOCOL_PORT;
pub(super) const FRONT_MARK: u32 = (ADDRESS_PROTOCOL_PORT << 6) | MARK;
pub(super) const ADDRESS_ADDRESS: u32 = (ADDRESS << 6) | ADDRESS;

/// Names of what stands in every table.
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

/// The key of a front. Ports of all addresses of the node stand at none.
pub(super) fn front_key(front: Front) -> Vec<u8> {
    let (ip, protocol, port) = match front {
        Front::Address(ip, protocol, port) => (ip, protocol, port),
        Front::NodePort(protocol, port) => (Ipv4Addr::UNSPECIFIED, protocol, port),
    };
    [ip.octets().to_vec(), protocol_port(protocol, port)].concat()
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

/// An element that says: this pod may reach itself by a service.
pub(super) fn hairpin_key(ip: Ipv4Addr) -> Vec<u8> {
    [ip.octets(), ip.octets()].concat()
}
