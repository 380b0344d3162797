//! Requests and limits as numbers: cgroup weights and quotas, classes of service, fields of the downward API.

use super::ConfigError;
use crate::api::Quantity;
use crate::node::pod;
use crate::runtime::Resources;
use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use std::collections::BTreeMap;

/// Length of a CPU period in microseconds.
const PERIOD_US: u64 = 100_000;
/// The least weight and quota the kernel takes.
const MIN_SHARES: u64 = 2;
const MIN_QUOTA_US: i64 = 1000;

/// What the node has for pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeSize {
    pub(crate) milli_cpu: i64,
    pub(crate) memory: i64,
    pub(crate) ephemeral: i64,
}

/// How a pod is treated when memory runs out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QosClass {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl QosClass {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }
}

type Amounts = Option<BTreeMap<String, Text>>;

fn amount(amounts: &Amounts, name: &str) -> Option<Quantity> {
    amounts.as_ref()?.get(name)?.0.parse().ok()
}

fn limit(container: &Container, name: &str) -> Option<Quantity> {
    amount(&container.resources.as_ref()?.limits, name).filter(|q| !q.is_zero())
}

/// What is requested; a limit without a request counts as both.
fn request(container: &Container, name: &str) -> Option<Quantity> {
    let own = container.resources.as_ref().and_then(|r| amount(&r.requests, name));
    own.or_else(|| limit(container, name)).filter(|q| !q.is_zero())
}

/// The class, by the rules of the API: equal limits and requests everywhere, none anywhere, or something between.
pub(crate) fn qos_class(pod: &Pod) -> QosClass {
    let (mut any, mut all) = (false, true);
    for (_, container) in pod::containers(pod) {
        for name in ["cpu", "memory"] {
            let (limit, request) = (limit(container, name), request(container, name));
            any |= limit.is_some() || request.is_some();
            let same = |a: &Quantity, b: &Quantity| a.milli_value() == b.milli_value();
            all &= matches!((&limit, &request), (Some(l), Some(r)) if same(l, r));
        }
    }
    match (any, all) {
        (false, _) => QosClass::BestEffort,
        (true, true) => QosClass::Guaranteed,
        (true, false) => QosClass::Burstable,
    }
}

/// What one container may use.
pub(super) fn container_resources(pod: &Pod, container: &Container, node: &NodeSize) -> Resources {
    let memory_request = request(container, "memory").map_or(0, |q| q.value());
    Resources {
        cpu_shares: shares(request(container, "cpu").map_or(0, |q| q.milli_value())),
        cpu_quota_us: limit(container, "cpu").map_or(0, |q| quota(q.milli_value())),
        cpu_period_us: PERIOD_US,
        memory_bytes: limit(container, "memory").map_or(0, |q| q.value()),
        oom_score_adj: oom_score(qos_class(pod), memory_request, node.memory),
    }
}

/// What the pod as a whole may use: limits only where every container has one.
pub(crate) fn pod_resources(pod: &Pod) -> Resources {
    let sum = |of: &dyn Fn(&Container) -> Option<i64>| -> Option<i64> { pod::mains(pod).map(of).sum() };
    let cpu = |c: &Container| limit(c, "cpu").map(|q| q.milli_value());
    let memory = |c: &Container| limit(c, "memory").map(|q| q.value());
    // Init containers may need more than the main ones together.
    let largest = |of: &dyn Fn(&Container) -> Option<i64>| -> Option<i64> {
        pod::inits(pod).map(of).try_fold(0, |most, one| one.map(|one| most.max(one)))
    };
    let total = |of: &dyn Fn(&Container) -> Option<i64>| Some(sum(of)?.max(0) + largest(of)?);
    Resources {
        cpu_shares: shares(sum(&|c| Some(request(c, "cpu").map_or(0, |q| q.milli_value()))).unwrap_or(0)),
        cpu_quota_us: total(&cpu).map_or(0, quota),
        cpu_period_us: PERIOD_US,
        memory_bytes: total(&memory).unwrap_or(0),
        oom_score_adj: 0,
    }
}

fn shares(milli: i64) -> u64 {
    u64::try_from(milli).map_or(MIN_SHARES, |milli| (milli * 1024 / 1000).clamp(MIN_SHARES, 262_144))
}

fn quota(milli: i64) -> i64 {
    (milli * i64::try_from(PERIOD_US).unwrap_or(100_000) / 1000).max(MIN_QUOTA_US)
}

/// Who goes first when memory runs out; the formula is the kubelet's.
fn oom_score(class: QosClass, memory_request: i64, capacity: i64) -> i32 {
    match class {
        QosClass::Guaranteed => -997,
        QosClass::BestEffort => 1000,
        QosClass::Burstable => {
            let used = if capacity > 0 { 1000 * memory_request / capacity } else { 0 };
            i32::try_from((1000 - used).clamp(3, 999)).unwrap_or(999)
        }
    }
}

/// The value of a `resourceFieldRef`; limits that are not set are those of the node.
pub(crate) fn resource_field(
    container: &Container,
    selector: &ResourceFieldSelector,
    node: &NodeSize,
) -> Result<String, ConfigError> {
    let unknown = || ConfigError::new(format!("unsupported container resource: {}", selector.resource));
    let (side, name) = selector.resource.split_once('.').ok_or_else(unknown)?;
    let asked = match side {
        "limits" => limit(container, name),
        "requests" => request(container, name),
        _ => return Err(unknown()),
    };
    let divisor: Option<Quantity> = selector.divisor.as_ref().and_then(|d| d.0.parse().ok());
    let divisor = divisor.filter(|d| !d.is_zero());
    let (value, unit) = match name {
        // In thousandths, so that a divisor of 1m works.
        "cpu" => {
            let fallback = if side == "limits" { node.milli_cpu } else { 0 };
            (asked.map_or(fallback, |q| q.milli_value()), divisor.map_or(1000, |d| d.milli_value()))
        }
        "memory" | "ephemeral-storage" => {
            let whole = if name == "memory" { node.memory } else { node.ephemeral };
            let fallback = if side == "limits" { whole } else { 0 };
            (asked.map_or(fallback, |q| q.value()), divisor.map_or(1, |d| d.value()))
        }
        _ => return Err(unknown()),
    };
    Ok(value.checked_add(unit - 1).unwrap_or(value).div_euclid(unit.max(1)).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(resources: &[Value]) -> Pod {
        let containers: Vec<Value> =
            resources.iter().enumerate().map(|(i, r)| json!({"name": format!("c{i}"), "resources": r})).collect();
        serde_json::from_value(json!({"spec": {"containers": containers}})).unwrap()
    }

    #[test]
    fn classes_follow_requests_and_limits() {
        let same = json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m"}});
        for (resources, want) in [
            (vec![json!({})], QosClass::BestEffort),
            (vec![same.clone()], QosClass::Guaranteed),
            (vec![same.clone(), json!({})], QosClass::Burstable),
            (vec![json!({"requests": {"cpu": "1"}})], QosClass::Burstable),
            (vec![json!({"limits": {"cpu": "1"}})], QosClass::Burstable),
        ] {
            assert_eq!(qos_class(&pod(&resources)), want, "{resources:?}");
        }
    }

    #[test]
    fn amounts_become_cgroup_numbers() {
        let node = NodeSize { milli_cpu: 4000, memory: 4 << 30, ephemeral: 0 };
        let of = |r: Value| {
            let pod = pod(&[r]);
            container_resources(&pod, &pod::spec(&pod).containers[0], &node)
        };
        let none = of(json!({}));
        assert_eq!((none.cpu_shares, none.cpu_quota_us, none.memory_bytes, none.oom_score_adj), (2, 0, 0, 1000));
        let some = of(json!({"requests": {"cpu": "250m", "memory": "1Gi"}, "limits": {"cpu": "500m"}}));
        assert_eq!((some.cpu_shares, some.cpu_quota_us, some.oom_score_adj), (256, 50_000, 750));
        let full = of(json!({"limits": {"cpu": "1", "memory": "64Mi"}}));
        assert_eq!((full.memory_bytes, full.oom_score_adj), (64 << 20, -997));
        let both = pod(&[json!({"limits": {"memory": "64Mi"}}), json!({"limits": {"memory": "32Mi"}})]);
        assert_eq!(pod_resources(&both).memory_bytes, 96 << 20);
        let one = pod(&[json!({"limits": {"memory": "64Mi"}}), json!({})]);
        assert_eq!(pod_resources(&one).memory_bytes, 0);
    }
}
