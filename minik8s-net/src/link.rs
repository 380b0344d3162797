//! Links, addresses and routes of one network namespace, by rtnetlink. Every operation is idempotent.

use crate::kernel::{errno, failed, reason, unless};
use crate::overlay::{ROUTE_PROTOCOL, Tunnel};
use futures::TryStreamExt;
use ipnet::Ipv4Net;
use minik8s_core::network::NetworkResult;
use netlink_packet_route::address::AddressAttribute;
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, State,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope};
use rtnetlink::{Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, RouteMessageBuilder};
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd;

const ENODEV: i32 = 19;
const EEXIST: i32 = 17;

/// What a link looks like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) mac: Vec<u8>,
    pub(crate) mtu: u32,
    pub(crate) master: Option<u32>,
    pub(crate) group: u32,
    pub(crate) up: bool,
    /// The kernel has seen that the other end is up too, and sends.
    pub(crate) running: bool,
    pub(crate) alias: Option<String>,
    pub(crate) bridge: bool,
    pub(crate) tunnel: Option<Tunnel>,
}

/// A pair of links: one end here, the other as `eth0` in another namespace.
#[derive(Debug)]
pub(crate) struct Pair<'a> {
    pub(crate) host: &'a str,
    pub(crate) group: u32,
    pub(crate) mtu: u32,
    pub(crate) inside: &'a File,
    /// Hardware addresses of the end here and of the other.
    pub(crate) macs: [[u8; 6]; 2],
}

/// The netlink socket of one namespace.
#[derive(Clone, Debug)]
pub(crate) struct Links(Handle);

impl Links {
    /// Of the calling thread's namespace.
    ///
    /// # Errors
    /// No socket to be had.
    pub(crate) fn here() -> io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        Ok(Self(handle))
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.0
    }

    pub(crate) async fn find(&self, name: &str) -> NetworkResult<Option<Link>> {
        match self.0.link().get().match_name(name).execute().try_next().await {
            Ok(found) => Ok(found.map(describe)),
            Err(error) if errno(&error) == ENODEV => Ok(None),
            Err(error) => Err(failed("look up", format!("link {name}"))(reason(&error))),
        }
    }

    pub(crate) async fn all(&self) -> NetworkResult<Vec<Link>> {
        let links: Result<Vec<LinkMessage>, _> = self.0.link().get().execute().try_collect().await;
        Ok(links.map_err(|e| failed("list", "links")(reason(&e)))?.into_iter().map(describe).collect())
    }

    pub(crate) async fn add_bridge(&self, name: &str, mac: [u8; 6], mtu: u32) -> NetworkResult<()> {
        let message = LinkBridge::new(name).address(mac.to_vec()).mtu(mtu).build();
        let made = self.0.link().add(message).execute().await;
        unless(made, &[EEXIST]).map_err(failed("make", format!("bridge {name}")))
    }

    pub(crate) async fn set_alias(&self, link: &Link, alias: &str) -> NetworkResult<()> {
        let message = LinkUnspec::new_with_index(link.index).alias(alias).build();
        self.change("mark", link, message).await
    }

    pub(crate) async fn set_up(&self, link: &Link) -> NetworkResult<()> {
        if link.up {
            return Ok(());
        }
        self.change("start", link, LinkUnspec::new_with_index(link.index).up().build()).await
    }

    /// A link of a group that is up and below nothing.
    pub(crate) async fn set_alone(&self, link: &Link, group: u32) -> NetworkResult<()> {
        if link.up && link.master.is_none() && link.group == group {
            return Ok(());
        }
        let message = LinkUnspec::new_with_index(link.index).nocontroller().link_group(group).up().build();
        self.change("connect", link, message).await
    }

    /// Fixes the hardware address of a neighbour, so that nobody has to ask for it.
    pub(crate) async fn add_neighbour(&self, link: &Link, ip: Ipv4Addr, mac: &[u8]) -> NetworkResult<()> {
        let added = self.0.neighbours().add(link.index, IpAddr::V4(ip)).link_layer_address(mac).replace();
        unless(added.execute().await, &[EEXIST]).map_err(failed("add", format!("neighbour {ip} of {}", link.name)))
    }

    async fn change(&self, what: &'static str, link: &Link, message: LinkMessage) -> NetworkResult<()> {
        let changed = self.0.link().change(message).execute().await;
        unless(changed, &[]).map_err(failed(what, format!("link {}", link.name)))
    }

    /// Makes a pair in one step: neither end is ever seen under another name or in another place.
    pub(crate) async fn add_pair(&self, pair: &Pair<'_>) -> NetworkResult<()> {
        let [own, other] = pair.macs;
        let peer = LinkUnspec::new_with_name("eth0")
            .address(other.to_vec())
            .mtu(pair.mtu)
            .setns_by_fd(pair.inside.as_raw_fd())
            .build();
        let mut message = LinkMessageBuilder::<LinkUnspec>::new()
            .name(pair.host)
            .address(own.to_vec())
            .mtu(pair.mtu)
            .link_group(pair.group)
            .up()
            .build();
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));
        let made = self.0.link().add(message).execute().await;
        unless(made, &[]).map_err(failed("make", format!("link {}", pair.host)))
    }

    /// Removes a link; missing is success.
    pub(crate) async fn remove(&self, name: &str) -> NetworkResult<()> {
        let Some(link) = self.find(name).await? else { return Ok(()) };
        let removed = self.0.link().del(link.index).execute().await;
        unless(removed, &[ENODEV]).map_err(failed("remove", format!("link {name}")))
    }

    pub(crate) async fn add_address(&self, link: &Link, address: Ipv4Addr, prefix: u8) -> NetworkResult<()> {
        let added = self.0.address().add(link.index, IpAddr::V4(address), prefix).execute().await;
        unless(added, &[EEXIST]).map_err(failed("add address", format!("{address}/{prefix} to {}", link.name)))
    }

    /// Every IPv4 address with the index of its link.
    pub(crate) async fn addresses(&self) -> NetworkResult<Vec<(u32, Ipv4Net)>> {
        let all: Result<Vec<_>, _> = self.0.address().get().execute().try_collect().await;
        let all = all.map_err(|e| failed("list", "addresses")(reason(&e)))?;
        Ok(all
            .into_iter()
            .filter_map(|message| {
                let ip = message.attributes.iter().find_map(|a| match a {
                    AddressAttribute::Address(IpAddr::V4(ip)) => Some(*ip),
                    _ => None,
                })?;
                Some((message.header.index, Ipv4Net::new(ip, message.header.prefix_len).ok()?))
            })
            .collect())
    }

    /// A route to everything in `net` by `link` itself.
    pub(crate) async fn add_direct_route(&self, link: &Link, net: Ipv4Net, source: Ipv4Addr) -> NetworkResult<()> {
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(net.network(), net.prefix_len())
            .output_interface(link.index)
            .scope(RouteScope::Link)
            .pref_source(source)
            .build();
        self.add_route(route, net).await
    }

    /// A default route.
    pub(crate) async fn add_default_route(&self, link: &Link, gateway: Ipv4Addr) -> NetworkResult<()> {
        let route = RouteMessageBuilder::<Ipv4Addr>::new().output_interface(link.index).gateway(gateway).build();
        self.add_route(route, Ipv4Net::default()).await
    }

    async fn add_route(&self, route: RouteMessage, to: Ipv4Net) -> NetworkResult<()> {
        let added = self.0.route().add(route).replace().execute().await;
        unless(added, &[EEXIST]).map_err(failed("add route", to.to_string()))
    }

    /// Every unicast IPv4 route of the main table but those that we made to other nodes: where it goes and by which link.
    pub(crate) async fn routes(&self) -> NetworkResult<Vec<(Ipv4Net, u32)>> {
        let query = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let all: Result<Vec<RouteMessage>, _> = self.0.route().get(query).execute().try_collect().await;
        let all = all.map_err(|e| failed("list", "routes")(reason(&e)))?;
        let foreign = |r: &&RouteMessage| {
            r.header.table == RouteHeader::RT_TABLE_MAIN && r.header.protocol != RouteProtocol::Other(ROUTE_PROTOCOL)
        };
        Ok(all.iter().filter(foreign).filter_map(route_target).collect())
    }
}

fn route_target(route: &RouteMessage) -> Option<(Ipv4Net, u32)> {
    let find = |pick: fn(&RouteAttribute) -> Option<Ipv4Addr>| route.attributes.iter().find_map(pick);
    let to = find(|a| match a {
        RouteAttribute::Destination(RouteAddress::Inet(ip)) => Some(*ip),
        _ => None,
    })
    .unwrap_or(Ipv4Addr::UNSPECIFIED);
    let link = route.attributes.iter().find_map(|a| match a {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    });
    Some((Ipv4Net::new(to, route.header.destination_prefix_length).ok()?, link.unwrap_or(0)))
}

fn describe(message: LinkMessage) -> Link {
    let mut link =
        Link { index: message.header.index, up: message.header.flags.contains(LinkFlags::Up), ..Link::default() };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Address(mac) => link.mac = mac,
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Controller(index) => link.master = Some(index),
            LinkAttribute::Group(group) => link.group = group,
            LinkAttribute::OperState(state) => link.running = state == State::Up,
            LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
            LinkAttribute::LinkInfo(infos) => {
                link.bridge = infos.iter().any(|i| matches!(i, LinkInfo::Kind(InfoKind::Bridge)));
                link.tunnel = infos.iter().find_map(|i| match i {
                    LinkInfo::Data(InfoData::Vxlan(data)) => Some(tunnel(data)),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    link
}

fn tunnel(data: &[InfoVxlan]) -> Tunnel {
    let mut tunnel = Tunnel { vni: 0, port: 0, local: None };
    for attribute in data {
        match attribute {
            InfoVxlan::Id(vni) => tunnel.vni = *vni,
            InfoVxlan::Port(port) => tunnel.port = *port,
            InfoVxlan::Local(ip) => tunnel.local = Some(*ip),
            _ => {}
        }
    }
    tunnel
}
