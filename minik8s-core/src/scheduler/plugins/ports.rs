//! Ports of the host: one pod each.

use crate::network::Protocol;
use crate::scheduler::{ClusterEvent, FilterPlugin, NodeInfo, PodFilter, PodInfo, Snapshot};
use std::borrow::Cow;

/// Refuses nodes on which another pod has the same host port.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostPorts;

/// An empty address stands for all of them, and so collides with each.
fn collide(a: &(String, Protocol, u16), b: &(String, Protocol, u16)) -> bool {
    (a.1, a.2) == (b.1, b.2) && (a.0 == b.0 || a.0.is_empty() || b.0.is_empty())
}

impl FilterPlugin for HostPorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }

    fn prepare<'a>(&'a self, pod: &'a PodInfo, snapshot: &'a Snapshot) -> Option<Box<dyn PodFilter + 'a>> {
        (!pod.host_ports.is_empty()).then(|| self.for_each_node(pod, snapshot))
    }

    fn refuse(&self, pod: &PodInfo, node: &NodeInfo, _: &Snapshot) -> Vec<Cow<'static, str>> {
        let mut taken = node.pods.values().filter(|other| other.uid != pod.uid).flat_map(|other| &other.host_ports);
        if taken.any(|theirs| pod.host_ports.iter().any(|mine| collide(mine, theirs))) {
            return vec!["node(s) didn't have free ports for the requested pod ports".into()];
        }
        Vec::new()
    }

    fn turned_by(&self) -> &'static [ClusterEvent] {
        &[ClusterEvent::NodeAdded, ClusterEvent::PodLeft]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_collide_by_address_protocol_and_number() {
        let port = |ip: &str, protocol, number| (ip.to_owned(), protocol, number);
        let (tcp, udp) = (Protocol::Tcp, Protocol::Udp);
        // one, the other, collide
        let table = [
            (port("", tcp, 80), port("", tcp, 80), true),
            (port("", tcp, 80), port("", udp, 80), false),
            (port("", tcp, 80), port("", tcp, 81), false),
            (port("127.0.0.1", tcp, 80), port("", tcp, 80), true),
            (port("127.0.0.1", tcp, 80), port("127.0.0.2", tcp, 80), false),
        ];
        for (one, other, expected) in table {
            assert_eq!((collide(&one, &other), collide(&other, &one)), (expected, expected), "{one:?} {other:?}");
        }
    }
}
