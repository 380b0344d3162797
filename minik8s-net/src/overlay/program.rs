//! Bringing the kernel's routes and tunnel to what the peers need.

use super::plan::{Place, Sorted, Step, steps};
use super::{OVERHEAD, OverlayConfig, vtep_mac};
use crate::bridge::BridgeNetwork;
use crate::kernel::failed;
use crate::link::{Link, Links};
use crate::sysctl;
use minik8s_core::network::{NetworkError, NetworkResult, Peer};

impl BridgeNetwork {
    /// Makes routes and tunnel match the peers, and remembers them for [`BridgeNetwork::repair_peers`].
    pub(crate) async fn match_peers(&self, peers: &[Peer]) -> NetworkResult<()> {
        let Some(overlay) = self.config().overlay else {
            if peers.is_empty() {
                return Ok(());
            }
            return Err(NetworkError::Unsupported("other nodes: this network was set up for a single one"));
        };
        let mut known = self.peers().lock().await;
        let applied = self.apply_peers(overlay, peers).await;
        *known = Some(peers.to_vec());
        applied
    }

    /// The same once more, for peers that are known: links that had gone took routes with them.
    pub(crate) async fn repair_peers(&self) -> NetworkResult<()> {
        let Some(overlay) = self.config().overlay else { return Ok(()) };
        let known = self.peers().lock().await;
        match &*known {
            Some(peers) => self.apply_peers(overlay, peers).await,
            None => Ok(()),
        }
    }

    async fn apply_peers(&self, overlay: OverlayConfig, peers: &[Peer]) -> NetworkResult<()> {
        let links = self.links().await?;
        let config = self.config();
        let addresses = links.addresses().await?;
        let sorted = Place { overlay, own: config.pod_cidr.trunc(), addresses: &addresses }.sort(peers);
        sorted.refused.iter().for_each(|why| tracing::warn!(%why, "a node's pods cannot be reached"));
        let (device, problem) = match self.tunnel_for(links, overlay, &sorted).await {
            Ok(device) => (device, Ok(())),
            // Neighbours need none.
            Err(error) => (None, Err(error)),
        };
        let index = device.as_ref().map_or(0, |device| device.index);
        let wanted = if problem.is_ok() { sorted.entries(index) } else { sorted.without_tunnel() };
        let source = config.gateway();
        let now = links.entries(device.as_ref(), source).await?;
        problem.and(self.walk(links, steps(&now, &wanted), index).await)
    }

    /// All steps, so that one node whose way the kernel refuses does not stand in the way of others. Returns the first
    /// refusal.
    async fn walk(&self, links: &Links, steps: Vec<Step>, device: u32) -> NetworkResult<()> {
        let (mut failed, mut first) = (Vec::new(), Ok(()));
        for step in steps {
            if failed.iter().any(|failure| step.needs(failure)) {
                failed.push(step);
            } else if let Err(error) = links.step(step, device, self.config().gateway()).await {
                tracing::warn!(%error, "a way to a node's pods cannot be changed");
                failed.push(step);
                first = first.and(Err(error));
            }
        }
        first
    }

    /// The device, made where somebody is behind it. It stays when nobody is any more: somebody may come again.
    async fn tunnel_for(&self, links: &Links, overlay: OverlayConfig, sorted: &Sorted) -> NetworkResult<Option<Link>> {
        let name = self.config().tunnel_name();
        let found = match self.own_tunnel(links).await {
            Ok(None) | Err(NetworkError::Taken { .. }) if sorted.tunnels.is_empty() => return Ok(None),
            found => found?,
        };
        let (mac, mtu) = (vtep_mac(self.config().pod_cidr), self.mtu(links).await?);
        let right = |link: &Link| link.tunnel == Some(overlay.into()) && link.mac == mac && link.mtu == mtu;
        if !found.as_ref().is_some_and(right) {
            links.remove(&name).await?;
            links.add_tunnel(&name, overlay, mac, mtu).await?;
        }
        let device = links.find(&name).await?.ok_or_else(|| failed("find", &*name)("it vanished"))?;
        if device.alias.as_deref() != Some(&*self.mark()) {
            links.set_alias(&device, &self.mark()).await?;
        }
        links.set_up(&device).await?;
        links.add_address(&device, self.config().pod_cidr.network(), 32).await?;
        for (setting, value) in [("rp_filter", "0"), ("send_redirects", "0")] {
            let setting = format!("net/ipv4/conf/{name}/{setting}");
            sysctl::write(&setting, value).map_err(failed("set", &*setting))?;
        }
        Ok(Some(device))
    }

    /// The tunnel device, where there is one; one of somebody else is refused.
    async fn own_tunnel(&self, links: &Links) -> NetworkResult<Option<Link>> {
        let name = self.config().tunnel_name();
        let Some(found) = links.find(&name).await? else { return Ok(None) };
        let ours = match &found.alias {
            Some(alias) => *alias == self.mark(),
            // Killed between making and marking.
            None => found.tunnel.is_some() && found.mac == vtep_mac(self.config().pod_cidr),
        };
        if ours {
            return Ok(Some(found));
        }
        let hint =
            "another cluster's network made it, or nobody we know; remove it, or choose another name for the bridge";
        Err(NetworkError::Taken { what: "link", name, hint: hint.to_owned() })
    }

    /// Removes routes and tunnel. Returns what went wrong.
    pub(crate) async fn remove_peers(&self) -> Vec<String> {
        let mut problems = Vec::new();
        self.peers().lock().await.take();
        let removed = async {
            let links = self.links().await?;
            let source = self.config().gateway();
            let now = links.entries(None, source).await?;
            for step in steps(&now, &super::plan::Entries::default()) {
                problems.extend(links.step(step, 0, source).await.err().map(|error| error.to_string()));
            }
            match self.own_tunnel(links).await {
                Ok(Some(device)) => links.remove(&device.name).await,
                // Not ours to remove.
                Ok(None) | Err(NetworkError::Taken { .. }) => Ok(()),
                Err(error) => Err(error),
            }
        };
        let removed: NetworkResult<()> = removed.await;
        problems.extend(removed.err().map(|error| error.to_string()));
        problems
    }

    /// Largest packet of pods: what the way between nodes takes, less what a tunnel adds.
    pub(crate) async fn mtu(&self, links: &Links) -> NetworkResult<u32> {
        if let Some(mtu) = self.config().mtu {
            return Ok(mtu);
        }
        let all = links.all().await?;
        let of = |index: Option<u32>| all.iter().find(|l| Some(l.index) == index).map_or(1500, |l| l.mtu);
        match self.config().overlay {
            None => {
                let routes = links.routes().await?;
                Ok(of(routes.into_iter().find(|(net, _)| net.prefix_len() == 0).map(|(_, link)| link)))
            }
            Some(overlay) => {
                let addresses = links.addresses().await?;
                let link = addresses.iter().find(|(_, net)| net.addr() == overlay.address).map(|(link, _)| *link);
                Ok(of(link).saturating_sub(OVERHEAD))
            }
        }
    }
}
