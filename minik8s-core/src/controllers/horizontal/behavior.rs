//! How fast the number of replicas may change: policies over what changed in their periods. Pure.

use super::spec::{Behavior, Policy, PolicyKind, Rules, Select};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// A change that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScaleEvent {
    /// When.
    pub at: Timestamp,
    /// By how many; negative where it shrank.
    pub change: i32,
}

/// The rules of both directions, with nothing left open.
#[derive(Clone, Debug, PartialEq)]
pub struct Pace {
    /// Upwards.
    pub up: Direction,
    /// Downwards.
    pub down: Direction,
}

/// The rules of one direction.
#[derive(Clone, Debug, PartialEq)]
pub struct Direction {
    /// How far back recommendations count.
    pub window: SignedDuration,
    /// Which of the policies counts.
    pub select: Select,
    /// The policies.
    pub policies: Vec<Policy>,
}

impl Pace {
    /// Fills in what is not said. Upwards: the larger of four pods and all there are, in 15 seconds, at once.
    /// Downwards: all of them, after `down_window`.
    pub fn new(behavior: Option<&Behavior>, down_window: SignedDuration) -> Self {
        let percent = Policy { kind: PolicyKind::Percent, value: 100, period_seconds: 15 };
        let pods = Policy { kind: PolicyKind::Pods, value: 4, period_seconds: 15 };
        let (up, down) = behavior.map_or((None, None), |b| (b.scale_up.as_ref(), b.scale_down.as_ref()));
        Self {
            up: Direction::new(up, SignedDuration::ZERO, &[pods, percent]),
            down: Direction::new(down, down_window, &[percent]),
        }
    }

    /// How far back changes count.
    pub fn memory(&self) -> SignedDuration {
        let periods = self.up.policies.iter().chain(&self.down.policies).map(|p| p.period_seconds);
        SignedDuration::from_secs(periods.max().unwrap_or_default().into())
    }
}

impl Direction {
    fn new(rules: Option<&Rules>, window: SignedDuration, policies: &[Policy]) -> Self {
        let said = rules.and_then(|r| r.stabilization_window_seconds);
        let own = rules.map(|r| r.policies.clone()).filter(|own| !own.is_empty());
        Self {
            window: said.map_or(window, |seconds| SignedDuration::from_secs(seconds.into())),
            select: rules.and_then(|r| r.select_policy).unwrap_or_default(),
            policies: own.unwrap_or_else(|| policies.to_vec()),
        }
    }
}

/// Replicas there were when a period began that ends now. What is of the future was written before the clock was set back.
fn at_start(current: i32, period: u32, events: &[ScaleEvent], now: Timestamp) -> i32 {
    let cutoff = now.saturating_sub(SignedDuration::from_secs(period.into())).unwrap_or(Timestamp::MIN);
    let change: i64 = events.iter().filter(|e| e.at > cutoff && e.at <= now).map(|e| i64::from(e.change)).sum();
    i32::try_from(i64::from(current) - change).unwrap_or(current)
}

fn whole(replicas: i64) -> i32 {
    i32::try_from(replicas).unwrap_or(if replicas < 0 { i32::MIN } else { i32::MAX })
}

/// The most there may be now.
pub fn upper(current: i32, events: &[ScaleEvent], rules: &Direction, now: Timestamp) -> i32 {
    let allowed = rules.policies.iter().map(|policy| {
        let start = at_start(current, policy.period_seconds, events, now);
        match policy.kind {
            PolicyKind::Pods => start.saturating_add(policy.value),
            // Rounded up: else few replicas would never become more.
            PolicyKind::Percent => whole((i64::from(start) * (100 + i64::from(policy.value)) + 99).div_euclid(100)),
        }
    });
    match rules.select {
        Select::Disabled => current,
        Select::Max => allowed.max().unwrap_or(current).max(current),
        Select::Min => allowed.min().unwrap_or(current).max(current),
    }
}

/// The fewest there may be now.
pub fn lower(current: i32, events: &[ScaleEvent], rules: &Direction, now: Timestamp) -> i32 {
    let allowed = rules.policies.iter().map(|policy| {
        let start = at_start(current, policy.period_seconds, events, now);
        match policy.kind {
            PolicyKind::Pods => start.saturating_sub(policy.value),
            // Rounded down: else few replicas would never become fewer.
            PolicyKind::Percent => whole((i64::from(start) * (100 - i64::from(policy.value))).div_euclid(100)),
        }
    });
    match rules.select {
        Select::Disabled => current,
        Select::Max => allowed.min().unwrap_or(current).min(current),
        Select::Min => allowed.max().unwrap_or(current).min(current),
    }
}
