//! Remembered flows: translation is decided by a flow's first packet, and a flow of UDP that goes on would reach a backend
//! that is gone for ever, as would somebody who still asks for a connection. So such flows are forgotten when backends
//! change. Connections that came about are left as they are: rules tell their clients when a pod is no more.
//!
//! To find them, the kernel has to say all that it remembers, whatever that is about; so it is asked only where something
//! may lead to what is gone.

use super::plan::{Backend, Front};
use crate::nft::wire::{self, CONNTRACK, FAMILY_IPV4, Messages};
use crate::nft::{NftError, NftSocket};
use ipnet::Ipv4Net;
use minik8s_core::network::Protocol;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

const GET: u16 = (CONNTRACK << 8) | 1;
const DELETE: u16 = (CONNTRACK << 8) | 2;
const TCP: u8 = 6;
const UDP: u8 = 17;
/// Of a message: a flow's directions, its status, and what tells it from others with the same addresses and ports.
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const STATUS: u16 = 3;
const ID: u16 = 12;
/// Of a question, since Linux 5.18: which bits of the status must be as they are given. Earlier kernels tell everything.
const STATUS_MASK: u16 = 26;
/// Bit of the status: somebody answered.
const ANSWERED: u32 = 1 << 1;

/// One direction of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tuple {
    source: Backend,
    destination: Backend,
    protocol: u8,
}

/// What a front's traffic may reach.
pub(super) type Reach = BTreeMap<Front, BTreeSet<Backend>>;

/// Forgets flows through `fronts` to anything but their backends, and those to `gone` that are no connections.
pub(super) fn forget(
    socket: &mut NftSocket,
    cluster: Ipv4Net,
    fronts: &Reach,
    gone: &BTreeSet<Ipv4Addr>,
) -> Result<(), NftError> {
    let mut stale = Vec::new();
    socket.dump(
        GET,
        FAMILY_IPV4,
        |question| {
            if only_unanswered(fronts, gone) {
                question.u32(STATUS, 0);
                question.u32(STATUS_MASK, ANSWERED);
            }
        },
        |message| {
            let attributes = message.body.get(wire::NFGEN..).unwrap_or_default();
            let Some(flow) = Flow::read(attributes) else { return };
            if flow.is_stale(cluster, fronts) || flow.is_lost(gone) {
                stale.push((flow.raw.to_vec(), flow.id.to_vec()));
            }
        },
    )?;
    for (raw, id) in stale {
        let mut out = Messages::default();
        out.begin(DELETE, 0, FAMILY_IPV4, 0);
        out.raw(ORIGINAL | 0x8000, &raw);
        // A new one may have come in its place meanwhile, from the same port.
        out.raw(ID, &id);
        out.end();
        match socket.tell(out) {
            Err(error) if !error.is_missing() => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Nothing that was answered can be stale: then the kernel need not tell the many connections that came about.
fn only_unanswered(fronts: &Reach, gone: &BTreeSet<Ipv4Addr>) -> bool {
    gone.is_empty() && fronts.keys().all(|front| front.protocol() == Protocol::Tcp)
}

/// What the kernel says of a flow.
struct Flow<'a> {
    /// The original direction, as the kernel put it.
    raw: &'a [u8],
    id: &'a [u8],
    original: Tuple,
    reply: Tuple,
    answered: bool,
}

impl<'a> Flow<'a> {
    fn read(attributes: &'a [u8]) -> Option<Self> {
        let raw = wire::find(attributes, ORIGINAL)?;
        let status = wire::find(attributes, STATUS).and_then(|value| <[u8; 4]>::try_from(value).ok())?;
        Some(Self {
            raw,
            id: wire::find(attributes, ID)?,
            original: tuple(raw)?,
            reply: tuple(wire::find(attributes, REPLY)?)?,
            answered: u32::from_be_bytes(status) & ANSWERED != 0,
        })
    }

    /// It was led to a pod that is no more, and may still be led elsewhere.
    fn is_lost(&self, gone: &BTreeSet<Ipv4Addr>) -> bool {
        let translated = self.reply.source.0 != self.original.destination.0;
        let connection = self.original.protocol == TCP && self.answered;
        translated && !connection && gone.contains(&self.reply.source.0)
    }

    /// It goes through one of the fronts and does not lead to one of its backends.
    fn is_stale(&self, cluster: Ipv4Net, fronts: &Reach) -> bool {
        let protocol = match self.original.protocol {
            UDP => Protocol::Udp,
            TCP if !self.answered => Protocol::Tcp,
            _ => return false,
        };
        let (original, reply) = (self.original, self.reply);
        let (ip, port) = original.destination;
        let by_address = fronts.get(&Front::Address(ip, protocol, port));
        let translated = reply.source != original.destination;
        // Somebody else's port of the same number must not be taken for the node's.
        let plausible =
            if translated { cluster.contains(&reply.source.0) } else { reply.destination == original.source };
        let by_port = fronts.get(&Front::NodePort(protocol, port)).filter(|_| plausible);
        by_address.or(by_port).is_some_and(|backends| !backends.contains(&reply.source))
    }
}

fn tuple(bytes: &[u8]) -> Option<Tuple> {
    let (ip, proto) = (wire::find(bytes, 1)?, wire::find(bytes, 2)?);
    let address = |kind| Some(Ipv4Addr::from(<[u8; 4]>::try_from(wire::find(ip, kind)?).ok()?));
    let port = |kind| {
        let bytes = wire::find(proto, kind).and_then(|value| <[u8; 2]>::try_from(value).ok());
        bytes.map(u16::from_be_bytes).unwrap_or_default()
    };
    Some(Tuple {
        source: (address(1)?, port(2)),
        destination: (address(2)?, port(3)),
        protocol: *wire::find(proto, 1)?.first()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Backend {
        let address: std::net::SocketAddrV4 = text.parse().unwrap();
        (*address.ip(), address.port())
    }

    /// A flow from a client to `to` that is answered by `by`, as the client `seen`.
    #[track_caller]
    fn check(fronts: &[(Front, &[&str])], to: &str, by: &str, seen: &str, stale: bool) {
        let reach = fronts.iter().map(|(f, b)| (*f, b.iter().map(|t| at(t)).collect())).collect();
        let original = Tuple { source: at("192.0.2.9:5000"), destination: at(to), protocol: UDP };
        let reply = Tuple { source: at(by), destination: at(seen), protocol: UDP };
        let flow = Flow { raw: &[], id: &[], original, reply, answered: true };
        assert_eq!(flow.is_stale("10.244.0.0/16".parse().unwrap(), &reach), stale);
    }

    #[test]
    fn who_was_led_to_a_pod_that_is_gone_is_led_elsewhere_unless_connected() {
        let gone: BTreeSet<Ipv4Addr> = [Ipv4Addr::new(10, 244, 0, 2)].into();
        let lost = |protocol, by: &str, answered| {
            let original = Tuple { source: at("192.0.2.9:5000"), destination: at("10.96.0.1:80"), protocol };
            let reply = Tuple { source: at(by), destination: at("192.0.2.9:5000"), protocol };
            Flow { raw: &[], id: &[], original, reply, answered }.is_lost(&gone)
        };
        assert!(lost(TCP, "10.244.0.2:8080", false));
        assert!(!lost(TCP, "10.244.0.2:8080", true));
        assert!(!lost(TCP, "10.244.0.3:8080", false));
        assert!(lost(UDP, "10.244.0.2:8080", true));
    }

    #[test]
    fn who_still_asks_a_backend_that_was_taken_out_is_led_elsewhere_unless_connected() {
        let front = Front::Address(Ipv4Addr::new(10, 96, 0, 1), Protocol::Tcp, 80);
        let reach = [(front, [at("10.244.0.3:8080")].into())].into();
        let stale = |by: &str, answered| {
            let original = Tuple { source: at("192.0.2.9:5000"), destination: at("10.96.0.1:80"), protocol: TCP };
            let reply = Tuple { source: at(by), destination: at("192.0.2.9:5000"), protocol: TCP };
            Flow { raw: &[], id: &[], original, reply, answered }.is_stale("10.244.0.0/16".parse().unwrap(), &reach)
        };
        assert!(stale("10.244.1.2:8080", false));
        assert!(!stale("10.244.1.2:8080", true));
        let (tcp, gone) = (Reach::from([(front, BTreeSet::new())]), BTreeSet::from([Ipv4Addr::new(10, 244, 1, 2)]));
        assert!(only_unanswered(&tcp, &BTreeSet::new()) && !only_unanswered(&tcp, &gone));
        let udp = [(Front::NodePort(Protocol::Udp, 53), BTreeSet::new())];
        assert!(!only_unanswered(&tcp.into_iter().chain(udp).collect(), &BTreeSet::new()));
        assert!(!stale("10.244.0.3:8080", false));
    }

    #[test]
    fn flows_to_backends_that_are_gone_are_stale() {
        let address = Front::Address(Ipv4Addr::new(10, 96, 0, 1), Protocol::Udp, 53);
        let port = Front::NodePort(Protocol::Udp, 30053);
        let fronts: &[(Front, &[&str])] = &[(address, &["10.244.0.2:53"]), (port, &["10.244.0.2:53"])];
        let client = "192.0.2.9:5000";
        check(fronts, "10.96.0.1:53", "10.244.0.2:53", client, false);
        check(fronts, "10.96.0.1:53", "10.244.0.3:53", client, true);
        check(fronts, "10.96.0.1:54", "10.244.0.3:53", client, false);
        check(fronts, "10.96.0.1:53", "10.96.0.1:53", client, true);
        check(fronts, "192.0.2.2:30053", "10.244.0.2:53", client, false);
        check(fronts, "192.0.2.2:30053", "10.244.0.3:53", client, true);
        check(fronts, "192.0.2.2:30053", "192.0.2.2:30053", client, true);
        // A pod's masqueraded flow to the same port of another machine.
        check(fronts, "198.51.100.1:30053", "198.51.100.1:30053", "192.0.2.2:6000", false);
        check(&[], "10.96.0.1:53", "10.244.0.3:53", client, false);
    }
}
