//! Room for a pod that fits nowhere, made by deleting pods of lower priority. Pure: who has to go is decided here, the
//! driver sees to it.

#[cfg(test)]
mod tests;

use super::framework::{FrameworkScheduler, Prepared};
use super::{ClusterEvent, Diagnosis, NodeInfo, PodInfo, Snapshot};
use jiff::Timestamp;
use std::cmp::Reverse;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

/// Room that can be made for a pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Preemption {
    /// The node.
    pub node: String,
    /// The pods that have to go.
    pub victims: Vec<Arc<PodInfo>>,
}

/// Why no room is made. As text, the way upstream's scheduler ends its message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoRoom {
    /// The scheduler never makes room.
    Unsupported,
    /// The pod does not want it.
    Never,
    /// Room is being made already: pods on its nominated node are about to go.
    Waiting,
    /// Nobody's leaving would help.
    Hopeless {
        /// Nodes whose refusal has nothing to do with the pods on them.
        unhelpful: usize,
        /// Nodes on which no pods of lower priority stand in the way.
        no_victims: usize,
    },
}

impl fmt::Display for NoRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unhelpful, no_victims) = match self {
            Self::Unsupported => return Ok(()),
            Self::Never => return f.write_str(" preemption: not eligible due to preemptionPolicy=Never."),
            Self::Waiting => {
                return f.write_str(" preemption: not eligible due to a terminating pod on the nominated node.");
            }
            Self::Hopeless { unhelpful, no_victims } => (*unhelpful, *no_victims),
        };
        let reasons = [
            (no_victims, "No preemption victims found for incoming pod"),
            (unhelpful, "Preemption is not helpful for scheduling"),
        ];
        let mut parts: Vec<String> =
            reasons.iter().filter(|(n, _)| *n > 0).map(|(n, why)| format!("{n} {why}")).collect();
        parts.sort();
        write!(f, " preemption: 0/{} nodes are available: {}.", unhelpful + no_victims, parts.join(", "))
    }
}

/// So many candidates are enough to choose among, or a tenth of the nodes where that is more.
const CANDIDATES: usize = 100;

impl FrameworkScheduler {
    /// See [`Scheduler::preempt`](super::Scheduler::preempt).
    pub(super) fn make_room(&self, snapshot: &Snapshot, pod: &PodInfo, why: &Diagnosis) -> Result<Preemption, NoRoom> {
        if pod.never_preempts {
            return Err(NoRoom::Never);
        }
        let helped: HashSet<_> = self.turned_by(ClusterEvent::PodLeft).collect();
        if is_waiting(snapshot, pod, |node| why.nodes.get(node).is_none_or(|(filter, _)| helped.contains(filter))) {
            return Err(NoRoom::Waiting);
        }
        let (helped, unhelpful): (Vec<_>, Vec<_>) =
            why.nodes.iter().partition(|(_, (filter, _))| helped.contains(filter));
        let mut filters = self.prepare(pod, snapshot);
        // Not always the same nodes, where there are many.
        let from = usize::try_from(snapshot.cycle()).unwrap_or_default() % helped.len().max(1);
        let nodes = helped.iter().cycle().skip(from).take(helped.len()).filter_map(|(name, _)| snapshot.node(name));
        let enough = CANDIDATES.max(snapshot.len() / 10);
        let mut found = 0;
        let mut best: Option<(Price, &NodeInfo, Victims)> = None;
        for (node, choice) in nodes.filter_map(|node| Some((node, victims_on(&mut filters, snapshot, node, pod)?))) {
            found += 1;
            let price = cost(&choice);
            if best.as_ref().is_none_or(|(least, ..)| price < *least) {
                best = Some((price, node, choice));
            }
            // One that overdraws no budget is worth looking for among all nodes.
            if found >= enough && best.as_ref().is_some_and(|(_, _, choice)| choice.overdrawn == 0) {
                break;
            }
        }
        match best {
            Some((_, node, choice)) => Ok(Preemption { node: node.name.clone(), victims: choice.victims }),
            None => Err(NoRoom::Hopeless { unhelpful: unhelpful.len(), no_victims: helped.len() }),
        }
    }
}

/// True while pods that had to go for this one have not gone yet, and their going still helps.
pub(super) fn is_waiting(snapshot: &Snapshot, pod: &PodInfo, helps: impl Fn(&str) -> bool) -> bool {
    let node = snapshot.nomination(&pod.uid).filter(|name| helps(name)).and_then(|name| snapshot.node(name));
    node.is_some_and(|node| node.pods.values().any(|other| other.priority < pod.priority && snapshot.is_leaving(other)))
}

/// Pods that would have to go.
struct Victims {
    victims: Vec<Arc<PodInfo>>,
    /// How many of them overdraw a disruption budget.
    overdrawn: usize,
}

/// The fewest pods of lower priority, the least important ones and those that budgets let go, without which the pod
/// fits on the node; `None` where that does not help.
fn victims_on(filters: &mut Prepared<'_>, snapshot: &Snapshot, node: &NodeInfo, pod: &PodInfo) -> Option<Victims> {
    let mut lower: Vec<_> = node.pods.values().filter(|other| other.priority < pod.priority).cloned().collect();
    if lower.is_empty() {
        return None;
    }
    lower.sort_by_key(importance);
    let overdrawn = snapshot.budgets().overdrawn(&lower);
    let mut trial = node.clone();
    for other in &lower {
        trial.remove_pod(&other.uid);
        filters.count(other, node, -1);
    }
    if filters.refusal(&trial).is_some() {
        lower.iter().for_each(|other| filters.count(other, node, 1));
        return None;
    }
    // Those that no budget lets go stay first, then the most important ones, as long as there is room beside them.
    lower.sort_by_key(|other| !overdrawn.contains(&other.uid));
    let mut victims = lower;
    victims.retain(|other| {
        trial.add_pod(other.clone());
        filters.count(other, node, 1);
        let stays = filters.refusal(&trial).is_none();
        if !stays {
            trial.remove_pod(&other.uid);
            filters.count(other, node, -1);
        }
        !stays
    });
    victims.iter().for_each(|other| filters.count(other, node, 1));
    let overdrawn = victims.iter().filter(|other| overdrawn.contains(&other.uid)).count();
    (!victims.is_empty()).then_some(Victims { victims, overdrawn })
}

/// The most important first: by priority, then by how long it has been running.
fn importance(pod: &Arc<PodInfo>) -> (Reverse<i32>, Timestamp, String) {
    (Reverse(pod.priority), started(pod), pod.uid.clone())
}

fn started(pod: &PodInfo) -> Timestamp {
    pod.started.unwrap_or(Timestamp::MAX)
}

type Price = (usize, i32, i64, usize, Reverse<Timestamp>);

/// What a choice of victims costs, less is better: how many of them overdraw a budget, the highest priority among them,
/// the sum of their priorities, their number, and how long the most important ones have been running.
fn cost(choice: &Victims) -> Price {
    let victims = &choice.victims;
    let highest = victims.iter().map(|v| v.priority).max().unwrap_or(i32::MIN);
    // Shifted above zero, so that every further pod costs.
    let sum = victims.iter().map(|v| i64::from(v.priority) - i64::from(i32::MIN) + 1).sum();
    let earliest = victims.iter().filter(|v| v.priority == highest).map(|v| started(v)).min();
    (choice.overdrawn, highest, sum, victims.len(), Reverse(earliest.unwrap_or(Timestamp::MAX)))
}
