//! From what the metrics propose to how many replicas there shall be, and the words for why. Pure.

use super::behavior::{Pace, ScaleEvent, lower, upper};
use super::stabilize::{Recommendation, stabilize};
use jiff::Timestamp;
use std::fmt::Write as _;
use tokio::time::Instant;

/// What there is now, and what was before.
#[derive(Clone, Debug)]
pub struct Situation<'a> {
    /// Replicas the target is told to have.
    pub current: i32,
    /// At least so many.
    pub min: i32,
    /// At most so many.
    pub max: i32,
    /// How fast it may go.
    pub pace: &'a Pace,
    /// What was recommended lately.
    pub recent: &'a [Recommendation],
    /// What was changed lately.
    pub events: &'a [ScaleEvent],
    /// The present time.
    pub now: Timestamp,
    /// The same, by the clock that nobody sets.
    pub moment: Instant,
}

/// What one metric leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Voice {
    /// What it is called: `cpu resource utilization (percentage of request)`.
    pub name: String,
    /// What was measured and wanted: `120%/35%`.
    pub reading: String,
    /// So many replicas.
    pub replicas: i32,
}

/// Why a metric leads to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// `FailedGetResourceMetric`
    pub reason: &'static str,
    /// The whole sentence.
    pub message: String,
}

/// A condition to set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// `AbleToScale`, `ScalingActive`, `ScalingLimited`.
    pub kind: &'static str,
    /// Whether it is so.
    pub status: bool,
    /// A word for it.
    pub reason: &'static str,
    /// A sentence for it.
    pub message: String,
}

impl Said {
    pub(super) fn new(kind: &'static str, status: bool, reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind, status, reason, message: message.into() }
    }
}

/// What shall be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// So many replicas; `None` where nothing can be said and nothing changes.
    pub desired: Option<i32>,
    /// What was recommended before anything held it back, where metrics were asked.
    pub recommended: Option<i32>,
    /// Why it changes, for the event.
    pub reason: String,
    /// Conditions to set, in order.
    pub conditions: Vec<Said>,
    /// What kept metrics from counting.
    pub error: Option<String>,
}

const ABLE: &str = "AbleToScale";
const ACTIVE: &str = "ScalingActive";
const LIMITED: &str = "ScalingLimited";

/// Decides without metrics, where that is possible: a target that is switched off, or outside of its limits.
pub fn without_metrics(current: i32, min: i32, max: i32) -> Option<Decision> {
    let moved = |desired, reason: &str| {
        Some(Decision { desired: Some(desired), reason: reason.to_owned(), ..Decision::default() })
    };
    if current == 0 && min != 0 {
        let why = "scaling is disabled since the replica count of the target is zero";
        let conditions = vec![Said::new(ACTIVE, false, "ScalingDisabled", why)];
        return Some(Decision { desired: Some(0), conditions, ..Decision::default() });
    }
    if current > max {
        return moved(max, "Current number of replicas above Spec.MaxReplicas");
    }
    if current < min {
        return moved(min, "Current number of replicas below Spec.MinReplicas");
    }
    None
}

/// Decides by the metrics: the highest of what they propose counts, then what was recommended lately, then the pace,
/// then the limits. Where some metric fails, others may make it grow and not shrink.
pub fn by_metrics(situation: &Situation<'_>, voices: &[Result<Voice, Failure>]) -> Decision {
    let failures: Vec<&Failure> = voices.iter().filter_map(|v| v.as_ref().err()).collect();
    let known = voices.iter().filter_map(|v| v.as_ref().ok());
    let highest = known.rev().max_by_key(|voice| voice.replicas);
    let first = failures.first();
    let error = first.map(|first| {
        let (bad, all) = (failures.len(), voices.len());
        format!("invalid metrics ({bad} invalid out of {all}), first error is: {}", first.message)
    });
    let shrinks = highest.is_none_or(|voice| voice.replicas < situation.current);
    if let Some(first) = first.filter(|_| shrinks) {
        let mut message = format!("the HPA was unable to compute the replica count: {}", first.message);
        if highest.is_some() {
            let _ = write!(message, "; it does not shrink while a metric is missing: {}", trail(voices));
        }
        return Decision {
            conditions: vec![Said::new(ACTIVE, false, first.reason, message)],
            error,
            ..Decision::default()
        };
    }
    let Some(highest) = highest else { return Decision::default() };
    let (desired, mut conditions, steps) = hold_back(situation, highest.replicas);
    let mut message =
        format!("the HPA was able to successfully calculate a replica count from {}: {}", highest.name, trail(voices));
    for step in &steps {
        let _ = write!(message, "; {step}");
    }
    conditions.insert(0, Said::new(ACTIVE, true, "ValidMetricFound", message));
    let reason = if highest.replicas > situation.current {
        format!("{} above target", highest.name)
    } else {
        "All metrics below target".to_owned()
    };
    Decision { desired: Some(desired), recommended: Some(highest.replicas), reason, conditions, error }
}

/// What each metric proposes: `cpu resource 120m/50m proposes 5, memory resource 1Mi/2Mi proposes 2`.
fn trail(voices: &[Result<Voice, Failure>]) -> String {
    let one = |voice: &Result<Voice, Failure>| match voice {
        Ok(voice) => format!("{} {} proposes {}", voice.name, voice.reading, voice.replicas),
        Err(failure) => format!("{} proposes nothing", failure.reason),
    };
    voices.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Past recommendations, pace and limits, and what each of them did.
fn hold_back(s: &Situation<'_>, proposed: i32) -> (i32, Vec<Said>, Vec<String>) {
    let mut steps = Vec::new();
    let stable = stabilize(s.current, proposed, s.recent, s.pace, s.moment);
    let able = if stable == proposed {
        Said::new(ABLE, true, "ReadyForNewScale", "recommended size matches current size")
    } else if proposed >= s.current {
        let why = "recent recommendations were lower than current one, applying the lowest recent recommendation";
        Said::new(ABLE, true, "ScaleUpStabilized", why)
    } else {
        let why = "recent recommendations were higher than current one, applying the highest recent recommendation";
        Said::new(ABLE, true, "ScaleDownStabilized", why)
    };
    if stable != proposed {
        steps.push(format!("{stable} after {}", able.reason));
    }
    let (desired, limit) = limit(s, stable);
    if desired != stable {
        steps.push(format!("{desired} after {}", limit.reason));
    }
    steps.push(if desired == s.current {
        format!("stays at {desired}")
    } else {
        format!("from {} to {desired}", s.current)
    });
    (desired, vec![able, limit], steps)
}

fn limit(s: &Situation<'_>, stable: i32) -> (i32, Said) {
    let (desired, reason, message) = if stable > s.current {
        let allowed = upper(s.current, s.events, &s.pace.up, s.now);
        let why = match s.max > allowed {
            true => ("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate"),
            false => ("TooManyReplicas", "the desired replica count is more than the maximum replica count"),
        };
        (stable.min(allowed).min(s.max), why.0, why.1)
    } else if stable < s.current {
        let allowed = lower(s.current, s.events, &s.pace.down, s.now);
        let why = match s.min < allowed {
            true => ("ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate"),
            false => ("TooFewReplicas", "the desired replica count is less than the minimum replica count"),
        };
        (stable.max(allowed).max(s.min), why.0, why.1)
    } else {
        (stable, "", "")
    };
    if desired == stable {
        return (
            stable,
            Said::new(LIMITED, false, "DesiredWithinRange", "the desired count is within the acceptable range"),
        );
    }
    (desired, Said::new(LIMITED, true, reason, message))
}
