//! From two readings of a node to what it uses now. Pure.

use crate::node::{ContainerUsage, MachineUsage, NodeUsage};
use std::collections::BTreeMap;

/// Shorter windows say nothing: the counters of the kernel move in steps.
pub(crate) const SHORTEST_MS: i64 = 100;

/// What something uses now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rate {
    /// Unix milliseconds of the newer reading.
    pub(crate) at: i64,
    /// Milliseconds between the readings.
    pub(crate) window: i64,
    /// Billionths of a core, over the window.
    pub(crate) cpu_nano: u64,
    /// Bytes of memory that cannot be reclaimed, at the end of the window.
    pub(crate) memory: u64,
}

/// What one pod's containers use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PodRates {
    /// By name.
    pub(crate) containers: BTreeMap<String, Rate>,
    /// Some container that runs has not been seen for long enough.
    pub(crate) incomplete: bool,
}

/// What a node and everything on it use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeRates {
    /// The machine, or the sum of its containers where that is all there is to measure.
    pub(crate) machine: Option<Rate>,
    /// By the pods' uids.
    pub(crate) pods: BTreeMap<String, PodRates>,
}

/// What is used, from the newest reading and one before it.
pub(crate) fn rates(older: &NodeUsage, newer: &NodeUsage) -> NodeRates {
    let before: BTreeMap<(&str, &str), &ContainerUsage> =
        older.containers.iter().map(|c| ((c.container.uid.as_str(), c.container.container.as_str()), c)).collect();
    let mut pods: BTreeMap<String, PodRates> = BTreeMap::new();
    for now in &newer.containers {
        let of = &now.container;
        let pod = pods.entry(of.uid.clone()).or_default();
        match container(before.get(&(of.uid.as_str(), of.container.as_str())).copied(), now) {
            Some(rate) => drop(pod.containers.insert(of.container.clone(), rate)),
            None => pod.incomplete = true,
        }
    }
    let machine = match (&older.machine, &newer.machine) {
        (Some(older), Some(newer)) => of_machine(older, newer),
        _ => sum(&pods),
    };
    NodeRates { machine, pods }
}

/// A container that was started since the older reading has counted from nothing.
fn container(older: Option<&ContainerUsage>, newer: &ContainerUsage) -> Option<Rate> {
    let same = older.filter(|o| o.started_at == newer.started_at && o.stats.cpu_ns <= newer.stats.cpu_ns);
    let (since, counted) = same.map_or((newer.started_at, 0), |o| (o.stats.at, o.stats.cpu_ns));
    let stats = &newer.stats;
    let window = stats.at.checked_sub(since)?;
    let cpu_nano = per_second(stats.cpu_ns.checked_sub(counted)?, window)?;
    Some(Rate { at: stats.at, window, cpu_nano, memory: stats.memory_working_set })
}

/// A machine that was started since then has counted anew: there is no telling since when.
fn of_machine(older: &MachineUsage, newer: &MachineUsage) -> Option<Rate> {
    let used = newer.cpu_ns.checked_sub(older.cpu_ns)?;
    let window = newer.at.checked_sub(older.at)?;
    Some(Rate { at: newer.at, window, cpu_nano: per_second(used, window)?, memory: newer.memory_working_set })
}

fn sum(pods: &BTreeMap<String, PodRates>) -> Option<Rate> {
    let all = pods.values().flat_map(|pod| pod.containers.values());
    all.copied().reduce(|a, b| Rate {
        at: a.at.max(b.at),
        window: a.window.max(b.window),
        cpu_nano: a.cpu_nano.saturating_add(b.cpu_nano),
        memory: a.memory.saturating_add(b.memory),
    })
}

fn per_second(nanos: u64, millis: i64) -> Option<u64> {
    let millis = u128::try_from(millis).ok().filter(|m| *m >= SHORTEST_MS as u128)?;
    u64::try_from(u128::from(nanos) * 1000 / millis).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::ContainerRef;
    use crate::runtime::ContainerStats;

    fn reading(containers: &[(&str, i64, i64, u64)]) -> NodeUsage {
        let one = |(name, started_at, at, cpu_ns): &(&str, i64, i64, u64)| ContainerUsage {
            container: ContainerRef {
                namespace: "n".into(),
                pod: "p".into(),
                uid: "u".into(),
                container: (*name).into(),
            },
            started_at: *started_at,
            stats: ContainerStats {
                at: *at,
                cpu_ns: *cpu_ns,
                memory_working_set: 7,
                memory_usage: 9,
                ..ContainerStats::default()
            },
        };
        NodeUsage { machine: None, containers: containers.iter().map(one).collect() }
    }

    fn of(older: &NodeUsage, newer: &NodeUsage, name: &str) -> Option<(i64, u64)> {
        let rates = rates(older, newer);
        let pod = rates.pods.get("u").unwrap();
        let found = pod.containers.get(name).map(|r| (r.window, r.cpu_nano));
        assert_eq!(pod.incomplete, found.is_none());
        found
    }

    #[test]
    fn the_rate_is_that_between_two_readings_of_one_life() {
        let cases = [
            // older (started, at, cpu), newer, window and rate
            (Some((0, 1_000, 100)), (0, 3_000, 1_000_000_100), Some((2_000, 500_000_000))),
            // Restarted: counted from the start.
            (Some((0, 1_000, 900_000_000)), (2_000, 3_000, 500_000_000), Some((1_000, 500_000_000))),
            // The counter fell under the same start: the same.
            (Some((2_000, 2_500, 900_000_000)), (2_000, 3_000, 500_000_000), Some((1_000, 500_000_000))),
            // New since the older reading.
            (None, (2_000, 3_000, 250_000_000), Some((1_000, 250_000_000))),
            // Too young to tell.
            (None, (2_950, 3_000, 250_000_000), None),
            // Times that cannot be.
            (Some((0, i64::MIN, 100)), (0, i64::MAX, 200), None),
            (None, (i64::MIN, 3_000, 200), None),
            // The clock went backwards.
            (Some((0, 4_000, 100)), (0, 3_000, 200), None),
        ];
        for (older, newer, want) in cases {
            let older = reading(&older.map(|(s, a, c)| ("c", s, a, c)).into_iter().collect::<Vec<_>>());
            let (started, at, cpu) = newer;
            assert_eq!(of(&older, &reading(&[("c", started, at, cpu)]), "c"), want, "{newer:?}");
        }
    }

    #[test]
    fn a_node_without_a_machine_is_the_sum_of_its_containers() {
        let older = reading(&[("a", 0, 1_000, 0), ("b", 0, 1_000, 0)]);
        let newer = reading(&[("a", 0, 2_000, 1_000_000), ("b", 0, 2_010, 2_020_000)]);
        let want = Rate { at: 2_010, window: 1_010, cpu_nano: 3_000_000, memory: 14 };
        assert_eq!(rates(&older, &newer).machine, Some(want));
        assert_eq!(rates(&older, &NodeUsage::default()).machine, None);
    }

    #[test]
    fn a_machine_is_measured_as_a_whole() {
        let at = |at, cpu_ns| {
            let machine = MachineUsage { at, cpu_ns, memory_working_set: 5, memory_usage: 6 };
            NodeUsage { machine: Some(machine), containers: Vec::new() }
        };
        let want = Rate { at: 2_000, window: 1_000, cpu_nano: 3_000, memory: 5 };
        assert_eq!(rates(&at(1_000, 7_000), &at(2_000, 10_000)).machine, Some(want));
        assert_eq!(rates(&at(1_000, 7_000), &at(2_000, 10)).machine, None, "rebooted");
    }
}
