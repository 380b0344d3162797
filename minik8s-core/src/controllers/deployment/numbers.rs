//! How many replicas each ReplicaSet may have: surge, unavailability, proportional scaling. Pure.

use super::template::{MAX, age, annotated};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::sync::Arc;

/// How many replicas a set is told to have.
pub fn size(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
}

/// How many replicas of a set are available.
pub fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|s| s.available_replicas).unwrap_or(0)
}

/// How many replicas a deployment wants.
pub fn wanted(deployment: &Deployment) -> i32 {
    deployment.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
}

/// True where the strategy is `Recreate`.
pub fn is_recreate(deployment: &Deployment) -> bool {
    let strategy = deployment.spec.as_ref().and_then(|s| s.strategy.as_ref());
    strategy.and_then(|s| s.type_.as_deref()) == Some("Recreate")
}

/// How many replicas there may be beyond what is wanted, and how many may be missing. Percentages of surge are rounded
/// up, those of unavailability down; should both be nothing, one may be missing, or nothing could ever move.
pub fn surge_and_unavailable(deployment: &Deployment) -> (i32, i32) {
    let want = wanted(deployment);
    if is_recreate(deployment) {
        return (0, 0);
    }
    let strategy = deployment.spec.as_ref().and_then(|s| s.strategy.as_ref());
    let rolling = strategy.and_then(|s| s.rolling_update.as_ref());
    let quarter = IntOrString::String("25%".into());
    let surge = rolling.and_then(|r| r.max_surge.as_ref()).unwrap_or(&quarter);
    let missing = rolling.and_then(|r| r.max_unavailable.as_ref()).unwrap_or(&quarter);
    let (surge, mut missing) = (scaled(surge, want, true), scaled(missing, want, false));
    if surge == 0 && missing == 0 {
        missing = 1;
    }
    (surge, missing.min(want))
}

fn scaled(value: &IntOrString, of: i32, up: bool) -> i32 {
    match value {
        IntOrString::Int(n) => (*n).max(0),
        IntOrString::String(text) => {
            let percent: i64 = text.trim_end_matches('%').parse().unwrap_or(0).max(0);
            let product = percent * i64::from(of);
            let whole = if up { (product + 99) / 100 } else { product / 100 };
            i32::try_from(whole).unwrap_or(i32::MAX)
        }
    }
}

/// How large the present set may be now, given what all sets together are.
pub fn new_size(deployment: &Deployment, all: &[Arc<ReplicaSet>], now: i32) -> i32 {
    let want = wanted(deployment);
    if is_recreate(deployment) {
        return want;
    }
    let total: i32 = all.iter().map(|s| size(s)).sum();
    let most = want + surge_and_unavailable(deployment).0;
    if total >= most { now } else { now + (most - total).min(want - now) }
}

/// Which old sets shrink now, and to what: first replicas that are not available anyway, then as many available ones as
/// may be missed. `old` is in any order.
pub fn shrink_old(deployment: &Deployment, old: &[Arc<ReplicaSet>], new: Option<&ReplicaSet>) -> Vec<(usize, i32)> {
    let least = wanted(deployment) - surge_and_unavailable(deployment).1;
    let total: i32 = old.iter().map(|s| size(s)).sum::<i32>() + new.map_or(0, size);
    let pending = new.map_or(0, |s| size(s) - available(s));
    let mut budget = total - least - pending;
    if budget <= 0 {
        return Vec::new();
    }
    let mut order: Vec<usize> = (0..old.len()).collect();
    order.sort_by_key(|&i| age(&old[i]));
    let mut sizes: Vec<i32> = old.iter().map(|s| size(s)).collect();
    for &i in &order {
        let cut = (sizes[i] - available(&old[i])).clamp(0, budget);
        sizes[i] -= cut;
        budget -= cut;
    }
    let up: i32 = old.iter().map(|s| available(s)).sum::<i32>() + new.map_or(0, available);
    let mut spare = up - least;
    for &i in &order {
        let cut = sizes[i].min(spare).max(0);
        sizes[i] -= cut;
        spare -= cut;
    }
    order.into_iter().filter(|&i| sizes[i] != size(&old[i])).map(|i| (i, sizes[i])).collect()
}

/// How a change of the wanted number is shared while several sets are active: each in proportion to its size. Answers
/// the new sizes in the order of `sets`.
pub fn share(deployment: &Deployment, sets: &[Arc<ReplicaSet>]) -> Vec<i32> {
    let want = wanted(deployment);
    let most = if want > 0 { want + surge_and_unavailable(deployment).0 } else { 0 };
    let total: i32 = sets.iter().map(|s| size(s)).sum();
    let to_add = most - total;
    let mut order: Vec<usize> = (0..sets.len()).collect();
    order.sort_by(|&a, &b| {
        let by_size = size(&sets[b]).cmp(&size(&sets[a]));
        let by_age = age(&sets[a]).cmp(&age(&sets[b]));
        by_size.then(if to_add > 0 { by_age.reverse() } else { by_age })
    });
    let mut sizes: Vec<i32> = sets.iter().map(|s| size(s)).collect();
    let mut added = 0;
    for &i in &order {
        let part = portion(deployment, &sets[i], to_add, added);
        sizes[i] += part;
        added += part;
    }
    if let Some(&first) = order.first() {
        sizes[first] = (sizes[first] + to_add - added).max(0);
    }
    sizes
}

fn portion(deployment: &Deployment, set: &ReplicaSet, to_add: i32, added: i32) -> i32 {
    if size(set) == 0 || to_add == added {
        return 0;
    }
    let (part, left) = (fraction(deployment, set), to_add - added);
    if to_add > 0 { part.min(left) } else { part.max(left) }
}

/// By how much a set would grow if it kept its part of the whole.
fn fraction(deployment: &Deployment, set: &ReplicaSet) -> i32 {
    let want = wanted(deployment);
    if want == 0 {
        return -size(set);
    }
    let most = want + surge_and_unavailable(deployment).0;
    let status = deployment.status.as_ref().and_then(|s| s.replicas).unwrap_or(0);
    let before = annotated(&set.metadata, MAX).unwrap_or(i64::from(status));
    if before == 0 {
        return 0;
    }
    let new = f64::from(size(set)) * f64::from(most) / before as f64;
    new.round() as i32 - size(set)
}
