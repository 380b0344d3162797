//! The kernel's entries about other nodes, by rtnetlink.

use super::plan::{Entries, Hop, Mac, Step};
use super::{OverlayConfig, ROUTE_PROTOCOL};
use crate::kernel::{failed, reason, unless};
use crate::link::{Link, Links};
use futures::TryStreamExt;
use ipnet::Ipv4Net;
use minik8s_core::network::NetworkResult;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::link::InfoVxlan;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol};
use rtnetlink::{LinkVxlan, RouteMessageBuilder};
use std::net::{IpAddr, Ipv4Addr};

const EEXIST: i32 = 17;
const ENOENT: i32 = 2;
const ESRCH: i32 = 3;

/// What identifies a tunnel device; it cannot be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tunnel {
    pub(crate) vni: u32,
    pub(crate) port: u16,
    pub(crate) local: Option<Ipv4Addr>,
}

impl From<OverlayConfig> for Tunnel {
    fn from(config: OverlayConfig) -> Self {
        Self { vni: config.vni, port: config.port, local: Some(config.address) }
    }
}

impl Links {
    /// A tunnel device without learning; it knows no peer, and sends nothing to nobody.
    pub(super) async fn add_tunnel(&self, name: &str, config: OverlayConfig, mac: Mac, mtu: u32) -> NetworkResult<()> {
        let message = LinkVxlan::new(name, config.vni)
            .port(config.port)
            .local(config.address)
            .learning(false)
            .append_info_data(InfoVxlan::UDPCsum(false))
            .address(mac.to_vec())
            .mtu(mtu)
            .build();
        let made = self.handle().link().add(message).execute().await;
        let what = format!("tunnel {name} (network {}, UDP port {})", config.vni, config.port);
        unless(made, &[]).map_err(failed("make", what))
    }

    /// The entries there are: our routes under `source`, and everything on the tunnel device.
    pub(super) async fn entries(&self, device: Option<&Link>, source: Ipv4Addr) -> NetworkResult<Entries> {
        let query = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let routes: Result<Vec<RouteMessage>, _> = self.handle().route().get(query).execute().try_collect().await;
        let routes = routes.map_err(|e| failed("list", "routes")(reason(&e)))?;
        let routes = routes.iter().filter_map(|route| our_route(route, source)).collect();
        let Some(device) = device else { return Ok(Entries { routes, ..Entries::default() }) };
        let neighbours = self.neighbours(AddressFamily::Inet, device.index).await?;
        let forwarding = self.neighbours(AddressFamily::Bridge, device.index).await?;
        Ok(Entries {
            routes,
            neighbours: neighbours.iter().filter_map(both).collect(),
            forwarding: forwarding.iter().filter_map(both).map(|(ip, mac)| (mac, ip)).collect(),
        })
    }

    async fn neighbours(&self, family: AddressFamily, link: u32) -> NetworkResult<Vec<NeighbourMessage>> {
        let all = self.handle().neighbours().get().set_address_family(family);
        let all: Result<Vec<NeighbourMessage>, _> = all.execute().try_collect().await;
        let mut all = all.map_err(|e| failed("list", "neighbours")(reason(&e)))?;
        all.retain(|entry| entry.header.ifindex == link && entry.header.state == NeighbourState::Permanent);
        Ok(all)
    }

    /// Makes one change; one that was made before is success.
    pub(super) async fn step(&self, step: Step, device: u32, source: Ipv4Addr) -> NetworkResult<()> {
        let neighbours = self.handle().neighbours();
        let (what, object, done) = match step {
            Step::Neighbour(ip, mac) => {
                let add = neighbours.add(device, IpAddr::V4(ip)).link_layer_address(&mac).replace();
                ("add", format!("neighbour {ip}"), unless(add.execute().await, &[EEXIST]))
            }
            Step::Forward(mac, node) => {
                let add = neighbours.add_bridge(device, &mac).destination(IpAddr::V4(node));
                let add = add.flags(NeighbourFlags::Own).replace();
                ("add", format!("tunnel to {node}"), unless(add.execute().await, &[EEXIST]))
            }
            Step::Route(range, hop) => {
                let add = self.handle().route().add(route(range, hop, device, source)).replace();
                ("add route to", range.to_string(), unless(add.execute().await, &[EEXIST]))
            }
            Step::DropRoute(range, hop) => {
                let del = self.handle().route().del(route(range, hop, device, source));
                ("remove route to", range.to_string(), unless(del.execute().await, &[ESRCH]))
            }
            Step::DropForward(mac, node) => {
                let del = neighbours.del(entry(AddressFamily::Bridge, device, node, mac));
                ("remove", format!("tunnel to {node}"), unless(del.execute().await, &[ENOENT]))
            }
            Step::DropNeighbour(ip, mac) => {
                let del = neighbours.del(entry(AddressFamily::Inet, device, ip, mac));
                ("remove", format!("neighbour {ip}"), unless(del.execute().await, &[ENOENT]))
            }
        };
        done.map_err(failed(what, object))
    }
}

/// The neighbour in the tunnel is not within any subnet of its link, which only says that the route means it.
fn route(range: Ipv4Net, hop: Hop, device: u32, source: Ipv4Addr) -> RouteMessage {
    let route = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(range.network(), range.prefix_len())
        .output_interface(hop.link)
        .gateway(hop.via)
        .pref_source(source)
        .protocol(RouteProtocol::Other(ROUTE_PROTOCOL));
    if hop.link == device { route.onlink().build() } else { route.build() }
}

fn entry(family: AddressFamily, link: u32, ip: Ipv4Addr, mac: Mac) -> NeighbourMessage {
    let mut entry = NeighbourMessage::default();
    entry.header.family = family;
    entry.header.ifindex = link;
    entry.header.state = NeighbourState::Permanent;
    if family == AddressFamily::Bridge {
        entry.header.flags = NeighbourFlags::Own;
        entry.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
    }
    entry.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)));
    entry
}

/// A route of the main table that bears our mark and our address.
fn our_route(route: &RouteMessage, source: Ipv4Addr) -> Option<(Ipv4Net, Hop)> {
    let header = &route.header;
    if header.table != RouteHeader::RT_TABLE_MAIN || header.protocol != RouteProtocol::Other(ROUTE_PROTOCOL) {
        return None;
    }
    let address = |pick: fn(&RouteAttribute) -> Option<&RouteAddress>| {
        route.attributes.iter().find_map(pick).and_then(|address| match address {
            RouteAddress::Inet(ip) => Some(*ip),
            _ => None,
        })
    };
    let from = address(|a| if let RouteAttribute::PrefSource(ip) = a { Some(ip) } else { None });
    let to = address(|a| if let RouteAttribute::Destination(ip) = a { Some(ip) } else { None })?;
    let via = address(|a| if let RouteAttribute::Gateway(ip) = a { Some(ip) } else { None })?;
    let link =
        route.attributes.iter().find_map(|a| if let RouteAttribute::Oif(link) = a { Some(*link) } else { None })?;
    let range = Ipv4Net::new(to, header.destination_prefix_length).ok()?;
    (from == Some(source)).then_some((range, Hop { via, link }))
}

/// The address and hardware address of an entry, whichever it maps to which.
fn both(entry: &NeighbourMessage) -> Option<(Ipv4Addr, Mac)> {
    let ip = entry.attributes.iter().find_map(|a| match a {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => Some(*ip),
        // The family of a bridge's entry says nothing about the address in it.
        NeighbourAttribute::Destination(NeighbourAddress::Other(ip)) => Some(<[u8; 4]>::try_from(&**ip).ok()?.into()),
        _ => None,
    })?;
    let mac = entry.attributes.iter().find_map(|a| match a {
        NeighbourAttribute::LinkLayerAddress(mac) => Mac::try_from(mac.as_slice()).ok(),
        _ => None,
    })?;
    Some((ip, mac))
}
