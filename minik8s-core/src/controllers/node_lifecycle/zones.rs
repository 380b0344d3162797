//! How much of the cluster is silent, and so how fast nodes may be given up. Pure: the caller brings the time.
//!
//! One silent node is a dead node; many at once are more likely a network or a control plane that is cut off, and to
//! move everybody's pods would make it worse. So nodes are given up one after the other, more slowly where most of a
//! zone is silent, and none at all where nobody in the whole cluster answers.

use k8s_openapi::api::core::v1::Node;
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

const REGION: &str = "topology.kubernetes.io/region";
const ZONE: &str = "topology.kubernetes.io/zone";
/// Fewer silent nodes than this are never "most of a zone".
const FEW: usize = 3;

/// How fast silent nodes are given up. The defaults are those of Kubernetes.
#[derive(Clone, Debug, PartialEq)]
pub struct EvictionPace {
    /// Nodes given up per second in a zone that is mostly well.
    pub rate: f64,
    /// The same where most of a large zone is silent; in a small zone none is given up then.
    pub reduced_rate: f64,
    /// From this share of silent nodes on, most of a zone is silent.
    pub unhealthy_share: f64,
    /// A zone with more nodes is large.
    pub large_zone: usize,
}

impl Default for EvictionPace {
    fn default() -> Self {
        Self { rate: 0.1, reduced_rate: 0.01, unhealthy_share: 0.55, large_zone: 50 }
    }
}

/// How a zone is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZoneState {
    /// Most nodes answer.
    Normal,
    /// Most nodes are silent.
    Partial,
    /// All nodes are silent.
    Full,
}

/// Whether a node may be given up now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permit {
    /// It may.
    Now,
    /// Others were just given up: ask again after this long.
    After(Duration),
    /// Not while the zone is as it is; its change will bring the node back.
    NotNow,
    /// Nobody in the cluster answers: nodes that were given up are to be taken back.
    TakeBack,
}

#[derive(Debug, Default)]
struct Zone {
    ready: usize,
    silent: usize,
    last: Option<Instant>,
}

impl Zone {
    fn state(&self, pace: &EvictionPace) -> ZoneState {
        #[allow(clippy::cast_precision_loss, reason = "numbers of nodes are small")]
        let share = self.silent as f64 / (self.ready + self.silent).max(1) as f64;
        match self.silent {
            0 => ZoneState::Normal,
            _ if self.ready == 0 => ZoneState::Full,
            silent if silent >= FEW && share >= pace.unhealthy_share => ZoneState::Partial,
            _ => ZoneState::Normal,
        }
    }
}

/// Every node, by zone.
#[derive(Debug, Default)]
pub struct Zones {
    pace: EvictionPace,
    nodes: HashMap<String, (String, bool)>,
    zones: HashMap<String, Zone>,
}

impl Zones {
    /// No nodes yet.
    pub fn new(pace: EvictionPace) -> Self {
        Self { pace, ..Self::default() }
    }

    /// Notes how a node is; true where that changes how the cluster is, so that all nodes must be looked at again.
    pub fn note(&mut self, node: &Node, ready: bool) -> bool {
        let name = node.metadata.name.clone().unwrap_or_default();
        let now = (zone_of(node), ready);
        if self.nodes.get(&name) == Some(&now) {
            return false;
        }
        self.changing(|me| {
            me.uncount(&name);
            let zone = me.zones.entry(now.0.clone()).or_default();
            if ready {
                zone.ready += 1
            } else {
                zone.silent += 1
            }
            me.nodes.insert(name, now);
        })
    }

    /// Forgets a node that is gone; answers as [`note`](Self::note) does.
    pub fn forget(&mut self, name: &str) -> bool {
        self.changing(|me| me.uncount(name))
    }

    /// Whether the node may be given up; where it may, the next one of its zone has to wait.
    pub fn permit(&mut self, node: &Node, now: Instant) -> Permit {
        if self.nobody_answers() {
            return Permit::TakeBack;
        }
        let pace = self.pace.clone();
        let zone = self.zones.entry(zone_of(node)).or_default();
        let rate = match zone.state(&pace) {
            // Other zones answer: this one is really gone.
            ZoneState::Normal | ZoneState::Full => pace.rate,
            ZoneState::Partial if zone.ready + zone.silent > pace.large_zone => pace.reduced_rate,
            ZoneState::Partial => 0.0,
        };
        let Ok(wait) = Duration::try_from_secs_f64(1.0 / rate) else { return Permit::NotNow };
        let left = zone.last.map_or(Duration::ZERO, |last| wait.saturating_sub(now.duration_since(last)));
        if !left.is_zero() {
            return Permit::After(left);
        }
        zone.last = Some(now);
        Permit::Now
    }

    /// True where no node of any zone answers.
    pub fn nobody_answers(&self) -> bool {
        !self.nodes.is_empty() && self.zones.values().all(|zone| zone.ready == 0)
    }

    fn uncount(&mut self, name: &str) {
        let Some((zone, ready)) = self.nodes.remove(name) else { return };
        let Some(counts) = self.zones.get_mut(&zone) else { return };
        if ready {
            counts.ready -= 1
        } else {
            counts.silent -= 1
        }
        if counts.ready + counts.silent == 0 {
            self.zones.remove(&zone);
        }
    }

    fn changing(&mut self, change: impl FnOnce(&mut Self)) -> bool {
        let state = |me: &Self| {
            let zones = me.zones.iter().map(|(name, zone)| (name.clone(), zone.state(&me.pace)));
            (me.nobody_answers(), zones.collect::<HashMap<_, _>>())
        };
        let before = state(self);
        change(self);
        before != state(self)
    }
}

fn zone_of(node: &Node) -> String {
    let label = |key| node.metadata.labels.as_ref().and_then(|l| l.get(key)).map(String::as_str).unwrap_or_default();
    format!("{}/{}", label(REGION), label(ZONE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(name: &str, zone: &str) -> Node {
        let value = json!({"metadata": {"name": name, "labels": {ZONE: zone}}});
        serde_json::from_value(value).unwrap()
    }

    fn world(zones: &[(&str, usize, usize)]) -> Zones {
        let mut world = Zones::new(EvictionPace::default());
        for (zone, ready, silent) in zones {
            for i in 0..ready + silent {
                world.note(&node(&format!("{zone}-{i}"), zone), i < *ready);
            }
        }
        world
    }

    #[tokio::test(start_paused = true)]
    async fn nodes_are_given_up_as_the_zone_allows() {
        use Permit::{After, NotNow, Now, TakeBack};
        let seconds = Duration::from_secs;
        // zones as (name, ready, silent); what the first and the second silent node of zone `a` are told
        type Row<'a> = (&'a [(&'a str, usize, usize)], Permit, Permit);
        let table: [Row<'_>; 7] = [
            (&[("a", 9, 1)], Now, After(seconds(10))),
            (&[("a", 1, 1)], Now, After(seconds(10))),
            (&[("a", 1, 2)], Now, After(seconds(10))),
            (&[("a", 2, 3)], NotNow, NotNow),
            (&[("a", 30, 40)], Now, After(seconds(100))),
            (&[("a", 0, 4), ("b", 1, 0)], Now, After(seconds(10))),
            (&[("a", 0, 4), ("b", 0, 1)], TakeBack, TakeBack),
        ];
        for (zones, first, second) in table {
            let (mut world, now) = (world(zones), Instant::now());
            let node = node("a-x", "a");
            assert_eq!([world.permit(&node, now), world.permit(&node, now)], [first, second], "{zones:?}");
        }
    }

    #[test]
    fn only_what_changes_a_zone_brings_all_nodes_back() {
        let mut world = world(&[("a", 5, 0)]);
        let told: Vec<bool> = (0..5).map(|i| world.note(&node(&format!("a-{i}"), "a"), false)).collect();
        assert_eq!(told, [false, false, true, false, true], "most of it, then all of it");
        assert!(world.nobody_answers() && !world.note(&node("a-0", "a"), false));
        assert!(!world.forget("a-0") && world.nobody_answers());
        assert!(world.note(&node("b-0", "b"), true) && !world.nobody_answers());
        assert!(!world.note(&node("a-1", "b"), false), "a node may move to another zone");
    }
}
