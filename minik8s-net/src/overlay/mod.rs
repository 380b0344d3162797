//! Ways to the pods of other nodes: plain routes where a node is in the same subnet, a VXLAN tunnel to all others.
//!
//! There is one tunnel device for all peers and nothing is learned or flooded. A peer's range leads to the first address
//! of the range, on the device; that address has a hardware address which follows from it (`vtep_mac`), and that one
//! lies behind the peer's node. The three entries per peer follow from the [`Peer`] alone, so nobody has to announce
//! anything, and an agent that starts again finds them as they should be.
//!
//! The device itself has the first address of this node's range: what the host must send under an address of its own
//! (strangers at node ports) gets one that the peers send back through the tunnel. What the host sends as itself bears
//! the bridge's address, so that requests and replies go the same way.
//!
//! A node port is reached at every address of the node but 127.0.0.1, which only leads to endpoints on the node itself:
//! the kernel lets no packet leave the machine under a loopback address.
//!
//! **Checksums.** The outer UDP checksum is zero, as RFC 7348 wants it for IPv4; the inner one is computed by the device
//! or left to the link, like all offloads. The known loss of packets between tunnels and address translation came from
//! a mark that made the *outer* packet be translated a second time, on kernels before 5.7. Our rules mark nothing and
//! translate only what a service translated before, which an outer packet never was, so offloads stay on.
//!
//! [`Peer`]: minik8s_core::network::Peer

mod plan;
mod program;
mod wire;

pub(crate) use plan::overlap;
pub(crate) use wire::Tunnel;

use ipnet::Ipv4Net;
use std::net::Ipv4Addr;

/// Ethernet, IPv4, UDP and VXLAN headers around what a pod sent.
pub(crate) const OVERHEAD: u32 = 50;

/// How the kernel's routes are marked as ours, where they are on links of the host: the first letter of the name.
pub(crate) const ROUTE_PROTOCOL: u8 = b'm';

/// How nodes reach each other's pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverlayConfig {
    /// This node's address, as the other nodes know it.
    pub address: Ipv4Addr,
    /// Nodes of the same subnet are reached by plain routes. Turn this off where the subnet drops addresses that it
    /// did not give out.
    pub direct: bool,
    /// Number of the virtual network; the same on all nodes.
    pub vni: u32,
    /// UDP port of the tunnels; the same on all nodes.
    pub port: u16,
}

impl OverlayConfig {
    /// Defaults: direct routes where possible, the port that IANA gave to VXLAN.
    pub fn new(address: Ipv4Addr) -> Self {
        Self { address, direct: true, vni: 0x006d_6b38, port: 4789 }
    }
}

/// The hardware address of a node's end of the tunnels: `0a:59:` and the first address of its range. No two nodes have
/// the same range.
pub(crate) fn vtep_mac(range: Ipv4Net) -> [u8; 6] {
    let [a, b, c, d] = range.network().octets();
    [0x0a, 0x59, a, b, c, d]
}
