//! Gives every node that brings no range of addresses for its pods one out of the cluster's. What is taken is read off
//! the nodes, nothing is kept; the API server lets no two nodes claim the same range, whoever wrote it.

use super::{Controller, ControllerContext, Outcome, Reconciler, pump, run_workers};
use crate::api::ApiResult;
use crate::client::{Change, EventType, Informer, PatchType, WorkQueue, reference_of};
use async_trait::async_trait;
use ipnet::{IpNet, Ipv4Net};
use k8s_openapi::api::core::v1::Node;
use parking_lot::Mutex;
use serde_json::json;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// Where the addresses of pods come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodRanges {
    /// Addresses of all pods of the cluster.
    pub cluster: Ipv4Net,
    /// Length of the prefix of one node's range.
    pub node_prefix: u8,
}

impl Default for PodRanges {
    fn default() -> Self {
        Self { cluster: Ipv4Net::new_assert(Ipv4Addr::new(10, 244, 0, 0), 16), node_prefix: 24 }
    }
}

/// Why ranges cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RangeError {
    /// Two ranges that must be apart are not.
    #[error("the range of {first} overlaps with that of {second}; choose ranges that do not")]
    Overlap {
        /// `pods, 10.244.0.0/16`
        first: String,
        /// `services, 10.244.8.0/24`
        second: String,
    },
    /// The nodes' prefix does not fit.
    #[error("nodes cannot have ranges of /{prefix} out of {cluster}: the prefix must be from {} to 30", .cluster.prefix_len())]
    Prefix {
        /// That of the nodes.
        prefix: u8,
        /// The cluster's range.
        cluster: Ipv4Net,
    },
}

impl PodRanges {
    /// Refuses ranges that cannot work: a prefix that does not fit, or pods among services.
    ///
    /// # Errors
    /// [`RangeError`], which names both ranges.
    pub fn check(&self, services: IpNet) -> Result<(), RangeError> {
        if self.node_prefix < self.cluster.prefix_len() || self.node_prefix > 30 {
            return Err(RangeError::Prefix { prefix: self.node_prefix, cluster: self.cluster.trunc() });
        }
        match services {
            IpNet::V4(services) if overlap(self.cluster, services) => Err(RangeError::Overlap {
                first: format!("pods, {}", self.cluster.trunc()),
                second: format!("services, {}", services.trunc()),
            }),
            _ => Ok(()),
        }
    }

    /// How many nodes there is room for.
    fn places(&self) -> u32 {
        1_u32.checked_shl(u32::from(self.node_prefix.saturating_sub(self.cluster.prefix_len()))).unwrap_or(u32::MAX)
    }

    fn place(&self, index: u32) -> Ipv4Net {
        let size = 1_u32.checked_shl(32 - u32::from(self.node_prefix)).unwrap_or(0);
        let base = u32::from(self.cluster.network());
        Ipv4Net::new(base.wrapping_add(index.wrapping_mul(size)).into(), self.node_prefix).unwrap_or(self.cluster)
    }

    /// The next range from `from` on, around the end, that overlaps with none of those that are taken; with its place.
    fn free(&self, taken: &[Ipv4Net], from: u32) -> Option<(u32, Ipv4Net)> {
        let (places, base) = (self.places(), u32::from(self.cluster.network()));
        let size = (1_u64 << (32 - u32::from(self.node_prefix))).max(1);
        let place_of =
            |ip: Ipv4Addr| u32::try_from(u64::from(u32::from(ip).wrapping_sub(base)) / size).unwrap_or(u32::MAX);
        let mut used = vec![false; usize::try_from(places).unwrap_or_default()];
        for range in taken.iter().filter(|range| overlap(self.cluster, **range)) {
            let first = if self.cluster.contains(&range.network()) { place_of(range.network()) } else { 0 };
            let last = if self.cluster.contains(&range.broadcast()) { place_of(range.broadcast()) } else { places - 1 };
            (first..=last).for_each(|place| {
                if let Some(used) = used.get_mut(place as usize) {
                    *used = true;
                }
            });
        }
        let order = (0..places).map(|offset| from.wrapping_add(offset) % places);
        order.into_iter().find(|place| !used[*place as usize]).map(|place| (place, self.place(place)))
    }
}

fn overlap(a: Ipv4Net, b: Ipv4Net) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

/// The range a node has.
fn range_of(node: &Node) -> Option<&str> {
    node.spec.as_ref()?.pod_cidr.as_deref().filter(|range| !range.is_empty())
}

/// Gives ranges to nodes.
pub struct NodeIpamController {
    /// Out of which.
    pub ranges: PodRanges,
}

#[async_trait]
impl Controller for NodeIpamController {
    fn name(&self) -> &str {
        "node-ipam-controller"
    }

    async fn run(self: Arc<Self>, ctx: ControllerContext) {
        let nodes = ctx.informers.of::<Node>();
        // What is taken must be known before anything is given.
        nodes.synced().await;
        let queue = ctx.queue();
        let (q, all) = (queue.clone(), nodes.clone());
        pump(&ctx, &nodes, move |change| match change {
            Change::Applied { new, .. } => enqueue(&q, new),
            // Somebody may have waited for that range.
            Change::Deleted(_) | Change::Resync => all.list().iter().for_each(|node| enqueue(&q, node)),
        });
        let giver = Giver { ctx: ctx.clone(), nodes, ranges: self.ranges, recent: Mutex::default() };
        run_workers(&ctx, &queue, 1, Arc::new(giver)).await;
    }
}

fn enqueue(queue: &WorkQueue<String>, node: &Node) {
    if range_of(node).is_none() {
        queue.add(node.metadata.name.clone().unwrap_or_default());
    }
}

struct Giver {
    ctx: ControllerContext,
    nodes: Informer<Node>,
    ranges: PodRanges,
    recent: Mutex<Recent>,
}

/// What the informer does not show yet, and where to look next. All of it can be lost: claims keep nodes apart.
#[derive(Default)]
struct Recent {
    /// Ranges by the uid of the node that got them.
    given: BTreeMap<String, Ipv4Net>,
    /// A range that was just given back rests for as long as there are others.
    next: u32,
}

#[async_trait]
impl Reconciler for Giver {
    type Key = String;

    async fn reconcile(&self, name: &String) -> ApiResult<Outcome> {
        let Some(node) = self.nodes.get(name).filter(|node| range_of(node).is_none()) else { return Ok(Outcome::Done) };
        let uid = node.metadata.uid.clone().unwrap_or_default();
        let Some((place, range)) = self.choose(&uid) else {
            let PodRanges { cluster, node_prefix } = self.ranges;
            let why = format!(
                "no range of /{node_prefix} is left in {cluster} for the pods of this node: nodes hold all {}; \
                 delete nodes that are gone",
                self.ranges.places()
            );
            self.ctx.events.event(&reference_of(&*node), EventType::Warning, "CIDRNotAvailable", why);
            return Ok(Outcome::Done);
        };
        let text = range.to_string();
        let patch = json!({"metadata": {"uid": uid}, "spec": {"podCIDR": text, "podCIDRs": [text]}});
        // A range once given stays: where somebody else gave one meanwhile, the server refuses.
        self.ctx.client.all::<Node>().patch(name, PatchType::Merge, &patch).await?;
        tracing::info!(node = %name, %range, "the node's pods have a range");
        let mut recent = self.recent.lock();
        recent.given.insert(uid, range);
        recent.next = place.wrapping_add(1);
        Ok(Outcome::Done)
    }
}

impl Giver {
    fn choose(&self, uid: &str) -> Option<(u32, Ipv4Net)> {
        let nodes = self.nodes.list();
        let mut recent = self.recent.lock();
        let unseen = |other: &str| {
            nodes.iter().any(|node| node.metadata.uid.as_deref() == Some(other) && range_of(node).is_none())
        };
        recent.given.retain(|other, _| other != uid && unseen(other));
        let held = nodes.iter().filter_map(|node| range_of(node)?.parse().ok());
        let taken: Vec<Ipv4Net> = held.chain(recent.given.values().copied()).collect();
        self.ranges.free(&taken, recent.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(cluster: &str, node_prefix: u8) -> PodRanges {
        PodRanges { cluster: cluster.parse().unwrap(), node_prefix }
    }

    #[track_caller]
    fn check(ranges: PodRanges, taken: &[&str], from: u32, expected: Option<&str>) {
        let taken: Vec<Ipv4Net> = taken.iter().map(|text| text.parse().unwrap()).collect();
        assert_eq!(ranges.free(&taken, from).map(|(_, range)| range.to_string()).as_deref(), expected);
    }

    #[test]
    fn the_next_free_range_overlaps_with_none() {
        let all = ranges("10.244.0.0/16", 24);
        check(all, &[], 0, Some("10.244.0.0/24"));
        check(all, &["10.244.0.0/24", "10.244.2.0/24"], 0, Some("10.244.1.0/24"));
        check(all, &["10.244.0.0/24"], 7, Some("10.244.7.0/24"));
        check(all, &["10.244.255.0/24"], 255, Some("10.244.0.0/24"));
        // Longer, shorter and foreign ones.
        check(all, &["10.244.0.128/25"], 0, Some("10.244.1.0/24"));
        check(all, &["10.244.0.0/20"], 3, Some("10.244.16.0/24"));
        check(all, &["10.0.0.0/8"], 0, None);
        check(all, &["10.1.0.0/16"], 0, Some("10.244.0.0/24"));
        let few = ranges("10.244.1.0/24", 26);
        check(few, &["10.244.1.0/26", "10.244.1.64/26", "10.244.1.192/26"], 3, Some("10.244.1.128/26"));
        check(few, &["10.244.1.0/25", "10.244.1.128/25"], 0, None);
        check(ranges("10.244.1.0/24", 24), &[], 9, Some("10.244.1.0/24"));
    }

    #[test]
    fn ranges_that_cannot_work_are_refused_with_both_named() {
        let services: IpNet = "10.96.0.0/12".parse().unwrap();
        assert_eq!(ranges("10.244.0.0/16", 24).check(services), Ok(()));
        let refused = ranges("10.100.3.0/16", 24).check(services).unwrap_err().to_string();
        assert!(refused.contains("10.100.0.0/16") && refused.contains("10.96.0.0/12"), "{refused}");
        let refused = ranges("10.244.0.0/16", 12).check(services).unwrap_err().to_string();
        assert!(refused.contains("/12") && refused.contains("from 16 to 30"), "{refused}");
        assert!(ranges("10.244.0.0/16", 31).check(services).is_err());
    }
}
