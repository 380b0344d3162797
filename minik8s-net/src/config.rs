//! What a bridge network is told: names, ranges, places.

use crate::dns::Hosts;
use crate::overlay::{OverlayConfig, overlap};
use ipnet::Ipv4Net;
use minik8s_core::network::{NetworkError, NetworkResult};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

/// Longest name of a link that the kernel takes.
const MAX_LINK_NAME: usize = 15;

/// Configuration of a [`crate::BridgeNetwork`]. [`BridgeConfig::new`] has the defaults of a single node.
#[derive(Clone, Debug)]
pub struct BridgeConfig {
    /// Name of the bridge that has the node's address among its pods; names of the table and of the pods' links follow
    /// from it.
    pub bridge: String,
    /// Where allocations and saved settings are kept.
    pub state_dir: PathBuf,
    /// This node, as endpoints name it.
    pub node: String,
    /// Addresses of this node's pods; the first is the bridge's own.
    pub pod_cidr: Ipv4Net,
    /// Addresses of all pods of the cluster: not masqueraded among each other.
    pub cluster_cidr: Ipv4Net,
    /// Virtual addresses of services: what is not a service there is refused.
    pub service_cidr: Ipv4Net,
    /// Pods of other nodes and how they are reached; `None` for a single node.
    pub overlay: Option<OverlayConfig>,
    /// Largest packet of pods; `None` takes that of the link with the default route, or, where there are other nodes,
    /// what a tunnel leaves of the link with the node's address.
    pub mtu: Option<u32>,
    /// Domain of the cluster.
    pub domain: String,
    /// Port of the name server at the bridge's address; `None` runs none, 0 lets the kernel choose.
    pub dns_port: Option<u16>,
    /// Name servers for everything outside of the cluster; `None` takes the host's.
    pub upstreams: Option<Vec<SocketAddr>>,
    /// Names that lead to gateways; whoever knows the routes sets them.
    pub hosts: Arc<Hosts>,
}

impl BridgeConfig {
    /// A single node's network that keeps its state in `state_dir`.
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        Self {
            bridge: "mk8s0".to_owned(),
            state_dir: state_dir.into(),
            node: String::new(),
            pod_cidr: net([10, 244, 0, 0], 24),
            cluster_cidr: net([10, 244, 0, 0], 16),
            service_cidr: net([10, 96, 0, 0], 16),
            overlay: None,
            mtu: None,
            domain: "cluster.local".to_owned(),
            dns_port: Some(53),
            upstreams: None,
            hosts: Arc::default(),
        }
    }

    /// The bridge's address: the pods' gateway and name server.
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.pod_cidr.network()).saturating_add(1))
    }

    /// The table of service rules.
    pub fn table(&self) -> String {
        if self.bridge == "mk8s0" { "minik8s".to_owned() } else { format!("minik8s-{}", self.bridge) }
    }

    /// The host's end of a pod's link.
    pub fn link_name(&self, pod: &str) -> String {
        let hash = fnv(self.bridge.bytes().chain([0]).chain(pod.bytes()));
        format!("{LINK_PREFIX}{:011x}", hash & 0xfff_ffff_ffff)
    }

    /// The group of the host's ends of pods' links, which rules tell them by. Group 0 is everybody's.
    pub(crate) fn link_group(&self) -> u32 {
        (fnv(self.bridge.bytes()) as u32 & 0x7fff_ffff) | 1
    }

    /// The tunnel to other nodes.
    pub fn tunnel_name(&self) -> String {
        if self.bridge == "mk8s0" {
            return "mk8s-vxlan".to_owned();
        }
        format!("{TUNNEL_PREFIX}{:011x}", fnv(self.bridge.bytes()) & 0xfff_ffff_ffff)
    }

    pub(crate) fn check(&self) -> NetworkResult<()> {
        let name_ok = !self.bridge.is_empty()
            && self.bridge.len() <= MAX_LINK_NAME
            && self.bridge.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if !name_ok {
            return Err(NetworkError::Kernel {
                operation: "name",
                object: format!("bridge {:?}", self.bridge),
                cause: format!("a link's name has 1 to {MAX_LINK_NAME} letters, digits, - or _"),
            });
        }
        if self.pod_cidr.prefix_len() > 30 {
            let hint = "choose a pod range of at least 4 addresses".to_owned();
            return Err(NetworkError::Taken { what: "range", name: self.pod_cidr.to_string(), hint });
        }
        for pods in [self.pod_cidr, self.cluster_cidr] {
            if overlap(pods, self.service_cidr) {
                let hint = "the ranges of pods and of services overlap; choose ranges that do not";
                return Err(NetworkError::Taken {
                    what: "range",
                    name: format!("{pods} and {}", self.service_cidr),
                    hint: hint.to_owned(),
                });
            }
        }
        Ok(())
    }
}

/// How tunnels begin that are not the default bridge's.
const TUNNEL_PREFIX: &str = "mk8x";

/// How links of pods begin.
pub(crate) const LINK_PREFIX: &str = "mk8v";

fn net(address: [u8; 4], prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(address.into(), prefix)
}

/// FNV-1a: stable over versions, which names on a running machine have to be.
pub(crate) fn fnv(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_names_fit_and_differ_by_bridge_and_pod() {
        let a = BridgeConfig::new("/x");
        let b = BridgeConfig { bridge: "other".into(), ..a.clone() };
        let names = [a.link_name("uid-1"), a.link_name("uid-12"), b.link_name("uid-1")];
        assert!(names.iter().all(|n| n.len() == MAX_LINK_NAME));
        assert_eq!(names.iter().collect::<std::collections::BTreeSet<_>>().len(), 3);
    }

    #[test]
    fn impossible_names_and_ranges_are_refused() {
        let ok = BridgeConfig::new("/x");
        assert!(ok.check().is_ok());
        assert!(BridgeConfig { bridge: "a-name-much-too-long".into(), ..ok.clone() }.check().is_err());
        assert!(BridgeConfig { bridge: "../etc".into(), ..ok.clone() }.check().is_err());
        let inside = BridgeConfig { pod_cidr: net([10, 96, 3, 0], 24), ..ok.clone() }.check().unwrap_err().to_string();
        assert!(inside.contains("10.96.3.0/24 and 10.96.0.0/16"), "{inside}");
        let around =
            BridgeConfig { cluster_cidr: net([10, 0, 0, 0], 8), ..ok.clone() }.check().unwrap_err().to_string();
        assert!(around.contains("10.0.0.0/8 and 10.96.0.0/16"), "{around}");
        assert!(BridgeConfig { pod_cidr: net([10, 244, 0, 0], 31), ..ok }.check().is_err());
    }
}
