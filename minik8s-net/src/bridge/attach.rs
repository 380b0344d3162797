//! One pod's link and address.

use super::{BridgeNetwork, pod_rules};
use crate::kernel::failed;
use crate::ledger::Record;
use crate::link::{Link, Links, Pair};
use crate::{netns, sysctl};
use minik8s_core::network::{NetworkError, NetworkResult, PodAttachment, PodNetwork};
use std::fs::File;
use std::net::Ipv4Addr;
use std::time::Duration;

/// How often, and how far apart, a link is looked at: the kernel takes a second at most.
const RUNNING_TRIES: u32 = 250;
const RUNNING_WAIT: Duration = Duration::from_millis(5);

impl BridgeNetwork {
    pub(super) async fn connect(&self, pod: &PodAttachment) -> NetworkResult<PodNetwork> {
        let inside = File::open(&pod.netns).map_err(|_| NetworkError::NoNamespace {
            pod: format!("{}/{}", pod.namespace, pod.name),
            path: pod.netns.clone(),
        })?;
        let fresh = self.ledger.lock().get(&pod.id).is_none();
        let (record, written) = self.ledger.lock().allocate(pod, self.config.link_name(&pod.id))?;
        // The disk takes about as long as the kernel; neither waits for the other.
        let durable = tokio::task::spawn_blocking(move || written.map_or(Ok(()), |file| file.sync_data()));
        self.names.zone().askers().add(record.ip, &record.namespace);
        let done = match self.wire(&record, inside).await {
            Ok(()) => self.rules.set_pod(pod.id.clone(), pod_rules(&record)).await,
            failed => failed,
        };
        let durable = durable.await.map_err(std::io::Error::other).and_then(|synced| synced);
        let done = done.and(durable.map_err(failed("write", format!("the record of pod {}", pod.id))));
        if done.is_err() && fresh {
            let _ = self.disconnect(&pod.id).await;
        }
        done.map(|()| record.network())
    }

    async fn wire(&self, record: &Record, inside: File) -> NetworkResult<()> {
        let links = self.links().await?;
        let bridge = self.bridge(links).await?;
        let pod_links = enter(record, &inside).await?;
        let mac = pod_mac(record.ip);
        let end = pod_links.find("eth0").await?;
        if let Some(end) = &end
            && end.mac != mac
        {
            return Err(NetworkError::Taken {
                what: "link",
                name: format!("eth0 in the namespace of pod {}/{}", record.namespace, record.name),
                hint: "the namespace is another network's; give the pod a fresh one".to_owned(),
            });
        }
        let host = self.make_pair(links, bridge.mtu, record, &inside, end.is_some()).await?;
        self.lead_to(links, &host, record.ip).await?;
        configure_inside(&pod_links, record.ip, self.config.gateway(), &host.mac).await?;
        running(links, &record.link).await
    }

    /// The way from the host to a pod: the pod's link alone leads to it, and takes what the host sends from loopback.
    pub(super) async fn lead_to(&self, links: &Links, host: &Link, ip: Ipv4Addr) -> NetworkResult<()> {
        links.set_alone(host, self.config.link_group()).await?;
        // The first lets the host reach node ports by 127.0.0.1; the rules keep pods out.
        for (setting, value) in [("route_localnet", "1"), ("rp_filter", "0"), ("send_redirects", "0")] {
            let setting = format!("net/ipv4/conf/{}/{setting}", host.name);
            sysctl::write(&setting, value).map_err(failed("set", &*setting))?;
        }
        links.add_direct_route(host, ip.into(), self.config.gateway()).await?;
        links.add_neighbour(host, ip, &pod_mac(ip)).await
    }

    /// Both ends exist, or are made; half a pair, or one that leads to a former sandbox, is replaced.
    async fn make_pair(
        &self,
        links: &Links,
        mtu: u32,
        record: &Record,
        inside: &File,
        inner_end: bool,
    ) -> NetworkResult<Link> {
        let host = links.find(&record.link).await?;
        if !(inner_end && host.is_some()) {
            links.remove(&record.link).await?;
            let macs = [pod_mac(self.config.gateway()), pod_mac(record.ip)];
            let pair = Pair { host: &record.link, group: self.config.link_group(), mtu, inside, macs };
            links.add_pair(&pair).await?;
        }
        links.find(&record.link).await?.ok_or_else(|| failed("find", &*record.link)("it vanished"))
    }

    pub(super) async fn bridge(&self, links: &Links) -> NetworkResult<Link> {
        let missing = || failed("find", format!("bridge {}", self.config.bridge))("it is not there; set up first");
        links.find(&self.config.bridge).await?.ok_or_else(missing)
    }

    pub(super) async fn disconnect(&self, id: &str) -> NetworkResult<()> {
        let Some(record) = self.ledger.lock().get(id).cloned() else { return Ok(()) };
        self.rules.remove_pod(id.to_owned(), record.ip).await?;
        self.links().await?.remove(&record.link).await?;
        self.names.zone().askers().remove(record.ip);
        self.ledger.lock().release(id).map_err(failed("forget", format!("pod {id}")))
    }
}

/// Waits until the host's end sends. The kernel gets to that in its own time after the pod's end is up, and drops what is
/// sent before; asking for the link makes newer ones get to it at once.
async fn running(links: &Links, name: &str) -> NetworkResult<()> {
    for _ in 0..RUNNING_TRIES {
        if links.find(name).await?.is_none_or(|link| link.running) {
            break;
        }
        tokio::time::sleep(RUNNING_WAIT).await;
    }
    Ok(())
}

/// Settings and a netlink socket inside of the pod's namespace.
async fn enter(record: &Record, inside: &File) -> NetworkResult<Links> {
    let pod = format!("the namespace of pod {}/{}", record.namespace, record.name);
    let file = inside.try_clone().map_err(failed("open", &*pod))?;
    let links = netns::inside(file, || {
        // The host forwards between pods and says so by redirects, which would lead pods past it.
        let _ = sysctl::write("net/ipv4/conf/all/accept_redirects", "0");
        let _ = sysctl::write("net/ipv4/conf/default/accept_redirects", "0");
        Links::here()
    });
    links.await.map_err(failed("enter", &*pod))?.map_err(failed("open a netlink socket in", pod))
}

async fn configure_inside(links: &Links, ip: Ipv4Addr, gateway: Ipv4Addr, mac: &[u8]) -> NetworkResult<()> {
    let find = async |name: &str| links.find(name).await?.ok_or_else(|| failed("find", name)("it vanished"));
    links.set_up(&find("lo").await?).await?;
    let eth = find("eth0").await?;
    links.set_up(&eth).await?;
    links.add_address(&eth, ip, 32).await?;
    links.add_direct_route(&eth, gateway.into(), ip).await?;
    links.add_default_route(&eth, gateway).await?;
    links.add_neighbour(&eth, gateway, mac).await
}

/// Follows from the address, so that a neighbour's memory of a reused address stays true.
pub(super) fn pod_mac(ip: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = ip.octets();
    [0x0a, 0x58, a, b, c, d]
}
