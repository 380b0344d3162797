//! How many replicas a metric asks for: the documented formula with all its exceptions. Pure; everything in thousandths.
//!
//! The rules are those of <https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/#algorithm-details>
//! and, where that page is silent, of upstream's replica calculator.

use super::tally::{Sample, Tally};
use std::collections::BTreeMap;

/// How far the ratio may be off, in each direction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    /// Upwards.
    pub up: f64,
    /// Downwards.
    pub down: f64,
}

impl Tolerance {
    fn covers(&self, ratio: f64) -> bool {
        (1.0 - self.down..=1.0 + self.up).contains(&ratio)
    }
}

/// What a metric leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// So many replicas.
    pub replicas: i32,
    /// The average over the pods, or what there is in all, in thousandths.
    pub value: i64,
    /// In percent of the requests, where the target is in percent.
    pub utilization: Option<i32>,
}

/// What pods have of a metric, by name.
pub type Samples = BTreeMap<String, Sample>;
/// What pods request, by name.
pub type Requests = BTreeMap<String, i64>;

/// Why a metric leads to nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoProposal {
    /// The selector picks nothing.
    #[error("no pods returned by selector while calculating replica count")]
    NoPods,
    /// None of the pods counts.
    #[error("did not receive metrics for targeted pods (pods might be unready)")]
    NoSamples,
    /// None of the pods that count requests any.
    #[error("no metrics returned matched known pods")]
    NoRequests,
}

/// What the average should be.
#[derive(Clone, Copy, Debug)]
pub enum Goal<'a> {
    /// Percent of the requests.
    Utilization(i32, &'a Requests),
    /// So many thousandths.
    Average(i64),
}

/// The average of the samples as a ratio to the goal, as a value, and in percent.
fn ratio(samples: &BTreeMap<&str, i64>, goal: Goal<'_>) -> Result<(f64, i64, Option<i32>), NoProposal> {
    match goal {
        Goal::Average(target) => {
            let (total, count) = (sum(samples.values()), samples.len().max(1));
            let ratio = total as f64 / count as f64 / target as f64;
            Ok((ratio, whole(total / count as i128), None))
        }
        Goal::Utilization(target, requests) => {
            let known = samples.iter().filter_map(|(pod, value)| Some((value, requests.get(*pod)?)));
            let known: Vec<(&i64, &i64)> = known.collect();
            let (used, requested) = (sum(known.iter().map(|(v, _)| *v)), sum(known.iter().map(|(_, r)| *r)));
            if requested == 0 {
                return Err(NoProposal::NoRequests);
            }
            // Whole percents, as upstream counts and as status shows.
            let percent = i32::try_from(used * 100 / requested).unwrap_or(i32::MAX);
            Ok((f64::from(percent) / f64::from(target), whole(used / known.len() as i128), Some(percent)))
        }
    }
}

/// Wide enough for any number of pods.
fn sum<'a>(values: impl Iterator<Item = &'a i64>) -> i128 {
    values.map(|value| i128::from(*value)).sum()
}

fn whole(average: i128) -> i64 {
    i64::try_from(average).unwrap_or(i64::MAX)
}

/// Replicas for a metric that each pod has.
pub fn of_pods(
    current: i32,
    tally: &Tally,
    samples: &Samples,
    goal: Goal<'_>,
    tolerance: Tolerance,
) -> Result<Proposal, NoProposal> {
    if tally.pods == 0 {
        return Err(NoProposal::NoPods);
    }
    let counts = |pod: &str| !tally.unready.contains(pod) && !tally.ignored.contains(pod);
    let mut known: BTreeMap<&str, i64> =
        samples.iter().filter(|(pod, _)| counts(pod)).map(|(pod, s)| (pod.as_str(), s.value)).collect();
    if known.is_empty() {
        return Err(NoProposal::NoSamples);
    }
    let (before, value, utilization) = ratio(&known, goal)?;
    let proposal = |replicas| Ok(Proposal { replicas, value, utilization });
    let up_with_unready = !tally.unready.is_empty() && before > 1.0;
    if !up_with_unready && tally.missing.is_empty() {
        let unchanged = tolerance.covers(before);
        return proposal(if unchanged { current } else { ceil(before * f64::from(tally.ready)) });
    }
    // The doubtful count against the change: as idle where it would grow, as busy where it would shrink.
    known.extend(tally.missing.iter().filter_map(|pod| Some((pod.as_str(), missing(pod, goal, before)?))));
    if up_with_unready {
        known.extend(tally.unready.iter().map(|pod| (pod.as_str(), 0)));
    }
    let (after, ..) = ratio(&known, goal)?;
    let turned = (before < 1.0 && after > 1.0) || (before > 1.0 && after < 1.0);
    if turned || tolerance.covers(after) {
        return proposal(current);
    }
    let replicas = ceil(after * known.len() as f64);
    let against = (after < 1.0 && replicas > current) || (after > 1.0 && replicas < current);
    proposal(if against { current } else { replicas })
}

/// What a pod without metrics is taken for where the others are at `before`; `None` where it is left out.
fn missing(pod: &str, goal: Goal<'_>, before: f64) -> Option<i64> {
    match goal {
        Goal::Average(target) if before < 1.0 => Some(target),
        Goal::Utilization(target, requests) if before < 1.0 => {
            let request = i128::from(requests.get(pod).copied().unwrap_or_default());
            Some(whole(request * i128::from(target.max(100)) / 100))
        }
        // Just at the goal percent leave it out; averages take it for idle there too. Both are upstream's.
        Goal::Utilization(..) if before <= 1.0 => None,
        Goal::Average(_) | Goal::Utilization(..) => Some(0),
    }
}

/// Replicas for a number there is one of, which should be `target`. `ready` is `None` where there are no pods.
///
/// # Errors
/// Pods are told to be, and there are none to count.
pub fn of_value(
    current: i32,
    ready: Option<i32>,
    usage: i64,
    target: i64,
    tolerance: Tolerance,
) -> Result<Proposal, NoProposal> {
    let ratio = usage as f64 / target as f64;
    let replicas = match current {
        0 => ceil(ratio),
        _ if tolerance.covers(ratio) => current,
        _ => ceil(ratio * f64::from(ready.ok_or(NoProposal::NoPods)?)),
    };
    Ok(Proposal { replicas, value: usage, utilization: None })
}

/// Replicas for a number there is one of, of which each of the pods there are should have `target`.
pub fn of_share(pods: i32, usage: i64, target: i64, tolerance: Tolerance) -> Proposal {
    let ratio = usage as f64 / (target as f64 * f64::from(pods));
    let replicas = if pods > 0 && tolerance.covers(ratio) { pods } else { ceil(usage as f64 / target as f64) };
    let value = if pods > 0 { (usage as f64 / f64::from(pods)).ceil() as i64 } else { usage };
    Proposal { replicas, value, utilization: None }
}

fn ceil(replicas: f64) -> i32 {
    // Casts of floats saturate.
    replicas.ceil() as i32
}
