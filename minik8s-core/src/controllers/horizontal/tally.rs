//! Which pods a metric is known of, and which do not count, or not yet. Pure.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use std::collections::{BTreeMap, BTreeSet};

/// What one pod has of a metric.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// In thousandths.
    pub value: i64,
    /// When it was measured.
    pub at: Timestamp,
    /// Over how long.
    pub window: SignedDuration,
}

/// How long pods are given to come to themselves.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For so long after its start, cpu of a pod counts only once it is ready and was measured since.
    pub cpu_initialization: SignedDuration,
    /// A pod that became unready so soon after its start has never been ready.
    pub initial_readiness: SignedDuration,
}

/// The pods of a target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// All of them.
    pub pods: usize,
    /// Those that count.
    pub ready: i32,
    /// Not ready yet: they count as idle where others are too busy.
    pub unready: BTreeSet<String>,
    /// Nothing is known of them.
    pub missing: BTreeSet<String>,
    /// On their way out.
    pub ignored: BTreeSet<String>,
}

/// Tells the pods of a target apart. `cpu` is measured while pods start, which says little of their load.
pub fn tally<'a>(
    pods: impl IntoIterator<Item = &'a Pod>,
    samples: &BTreeMap<String, Sample>,
    cpu: bool,
    patience: Patience,
    now: Timestamp,
) -> Tally {
    let mut tally = Tally::default();
    for pod in pods {
        tally.pods += 1;
        let name = pod.metadata.name.clone().unwrap_or_default();
        let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default();
        if pod.metadata.deletion_timestamp.is_some() || phase == "Failed" {
            tally.ignored.insert(name);
        } else if phase == "Pending" {
            tally.unready.insert(name);
        } else {
            match samples.get(&name) {
                None => drop(tally.missing.insert(name)),
                Some(sample) if cpu && unready(pod, sample, patience, now) => drop(tally.unready.insert(name)),
                Some(_) => tally.ready += 1,
            }
        }
    }
    tally
}

fn unready(pod: &Pod, sample: &Sample, patience: Patience, now: Timestamp) -> bool {
    let status = pod.status.as_ref();
    let conditions = status.and_then(|s| s.conditions.as_ref()).into_iter().flatten();
    let ready = conditions.into_iter().find(|c| c.type_ == "Ready");
    let started = status.and_then(|s| s.start_time.as_ref());
    let (Some(ready), Some(started)) = (ready, started) else { return true };
    let is_not = ready.status == "False";
    let turned = ready.last_transition_time.as_ref().map_or(started.0, |t| t.0);
    let later = |at: Timestamp, by: SignedDuration| at.saturating_add(by).unwrap_or(Timestamp::MAX);
    if later(started.0, patience.cpu_initialization) > now {
        is_not || sample.at < later(turned, sample.window)
    } else {
        is_not && later(started.0, patience.initial_readiness) > turned
    }
}

/// How many pods run and are ready.
pub fn ready<'a>(pods: impl IntoIterator<Item = &'a Pod>) -> i32 {
    let counts = |pod: &&Pod| {
        let running = pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Running");
        running && crate::controllers::is_ready(pod)
    };
    i32::try_from(pods.into_iter().filter(counts).count()).unwrap_or(i32::MAX)
}
