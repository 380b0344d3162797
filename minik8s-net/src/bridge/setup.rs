//! What all pods share: the bridge, its address and routes, forwarding; and taking them away.

use super::BridgeNetwork;
use super::attach::pod_mac;
use crate::config::LINK_PREFIX;
use crate::kernel::failed;
use crate::link::{Link, Links};
use crate::sysctl::Saved;
use ipnet::Ipv4Net;
use minik8s_core::network::{NetworkError, NetworkResult};
use nix::fcntl::{Flock, FlockArg};
use std::fs::File;
use std::path::{Path, PathBuf};

/// Begins the mark on our bridges; the state directory follows.
const MARK: &str = "minik8s ";
const FORWARD: &str = "net/ipv4/ip_forward";

impl BridgeNetwork {
    pub(super) async fn make_bridge(&self) -> NetworkResult<()> {
        let links = self.links().await?;
        self.take_lock()?;
        self.check_ranges(links).await?;
        let bridge = self.own_bridge(links).await?;
        links.set_up(&bridge).await?;
        let gateway = self.config.gateway();
        links.add_address(&bridge, gateway, self.config.pod_cidr.prefix_len()).await?;
        links.add_direct_route(&bridge, self.config.service_cidr, gateway).await?;
        self.set_forwarding()?;
        self.reconnect(links).await
    }

    /// The bridge, made where it is missing. One that somebody else made, or that a live process runs, is refused.
    async fn own_bridge(&self, links: &Links) -> NetworkResult<Link> {
        let name = &self.config.bridge;
        let mac = pod_mac(self.config.gateway());
        let mark = self.mark();
        if let Some(found) = links.find(name).await? {
            self.check_owner(&found, &mark, mac)?;
        } else {
            links.add_bridge(name, mac, self.mtu(links).await?).await?;
        }
        let bridge = self.bridge(links).await?;
        if bridge.alias.as_deref() != Some(&*mark) {
            links.set_alias(&bridge, &mark).await?;
        }
        Ok(bridge)
    }

    /// What links of ours say.
    pub(crate) fn mark(&self) -> String {
        format!("{MARK}{}", self.config.state_dir.display())
    }

    fn check_owner(&self, found: &Link, mark: &str, mac: [u8; 6]) -> NetworkResult<()> {
        let taken = |hint: String| Err(NetworkError::Taken { what: "link", name: self.config.bridge.clone(), hint });
        if !found.bridge {
            return taken("it is not a bridge; choose another name for the bridge".to_owned());
        }
        match &found.alias {
            Some(alias) if alias == mark => Ok(()),
            Some(alias) if alias.starts_with(MARK) => {
                let dir = Path::new(alias.trim_start_matches(MARK));
                if held(&lock_file(dir)) {
                    return taken(format!("a running cluster with its state in {} has it", dir.display()));
                }
                Ok(())
            }
            // Killed between making and marking.
            None if found.mac == mac => Ok(()),
            _ => taken("minik8s did not make it; choose another name for the bridge, or remove it".to_owned()),
        }
    }

    fn is_ours(&self, link: &str) -> bool {
        link == self.config.bridge || link == self.config.tunnel_name() || link.starts_with(LINK_PREFIX)
    }

    /// Refuses ranges that lead elsewhere on this machine already.
    async fn check_ranges(&self, links: &Links) -> NetworkResult<()> {
        let all = links.all().await?;
        let ours = |index: u32| all.iter().any(|l| l.index == index && self.is_ours(&l.name));
        let mut ranges = vec![self.config.pod_cidr, self.config.service_cidr];
        // Any part of it may become another node's.
        ranges.extend(self.config.overlay.map(|_| self.config.cluster_cidr));
        let routes = links.routes().await?;
        let addresses = links.addresses().await?.into_iter().map(|(link, net)| (net.trunc(), link));
        for (net, link) in routes.into_iter().chain(addresses).filter(|(_, link)| !ours(*link)) {
            for range in &ranges {
                self.check_range(*range, net, all.iter().find(|l| l.index == link))?;
            }
        }
        Ok(())
    }

    fn check_range(&self, range: Ipv4Net, net: Ipv4Net, link: Option<&Link>) -> NetworkResult<()> {
        if !range.contains(&net) {
            return Ok(());
        }
        let place = link.map_or_else(|| "a route".to_owned(), |link| format!("link {}", link.name));
        Err(NetworkError::Taken {
            what: "range",
            name: range.to_string(),
            hint: format!("{net} leads to {place}; choose another range for the cluster"),
        })
    }

    fn set_forwarding(&self) -> NetworkResult<()> {
        let file = self.config.state_dir.join("sysctl.json");
        Saved::load(&file).set(&file, FORWARD, "1").map_err(failed("set", FORWARD))
    }

    /// Known pods are led to again after somebody took their routes away.
    async fn reconnect(&self, links: &Links) -> NetworkResult<()> {
        let known: Vec<_> = self.ledger.lock().records().map(|r| (r.link.clone(), r.ip)).collect();
        if known.is_empty() {
            return Ok(());
        }
        let all = links.all().await?;
        for (name, ip) in known {
            if let Some(link) = all.iter().find(|link| link.name == name) {
                self.lead_to(links, link, ip).await?;
            }
        }
        Ok(())
    }

    fn take_lock(&self) -> NetworkResult<()> {
        let mut lock = self.lock.lock();
        if lock.is_some() {
            return Ok(());
        }
        let path = lock_file(&self.config.state_dir);
        let file = File::create(&path).map_err(failed("make", path.display().to_string()))?;
        *lock = Some(Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| NetworkError::Taken {
            what: "state directory",
            name: self.config.state_dir.display().to_string(),
            hint: "a running cluster uses it; stop that, or choose another directory".to_owned(),
        })?);
        Ok(())
    }

    /// Removes links of pods, known or not, and the bridge. Returns what went wrong.
    pub(super) async fn remove_links(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let found = async {
            let links = self.links().await?;
            let all = links.all().await?;
            let Some(bridge) = all.iter().find(|l| l.name == self.config.bridge) else { return Ok(all) };
            let mark = self.mark();
            self.check_owner(bridge, &mark, pod_mac(self.config.gateway()))?;
            Ok::<_, NetworkError>(all)
        };
        let all = match found.await {
            Ok(all) => all,
            Err(error) => return vec![error.to_string()],
        };
        let bridge = all.iter().find(|l| l.name == self.config.bridge).map(|l| l.index);
        let known: Vec<String> = self.ledger.lock().records().map(|r| r.link.clone()).collect();
        let group = self.config.link_group();
        let ours = |l: &&Link| l.name.starts_with(LINK_PREFIX) && (known.contains(&l.name) || l.group == group);
        let names = all.iter().filter(ours).map(|l| &l.name).chain(bridge.map(|_| &self.config.bridge));
        for name in names {
            match self.links().await {
                Ok(links) => problems.extend(links.remove(name).await.err().map(|e| e.to_string())),
                Err(error) => problems.push(error.to_string()),
            }
        }
        problems
    }

    /// Puts settings back and removes the files. Returns what went wrong.
    pub(super) fn remove_state(&self) -> Vec<String> {
        let file = self.config.state_dir.join("sysctl.json");
        let mut problems = Saved::load(&file).restore(&file);
        problems.extend(self.ledger.lock().erase());
        self.lock.lock().take();
        let _ = std::fs::remove_file(lock_file(&self.config.state_dir));
        problems
    }
}

fn lock_file(dir: &Path) -> PathBuf {
    dir.join("lock")
}

/// A live process holds the lock.
fn held(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| Flock::lock(file, FlockArg::LockExclusiveNonblock).is_err())
}
