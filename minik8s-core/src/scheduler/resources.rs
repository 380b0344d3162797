//! Amounts of what nodes have and pods want, in whole numbers.

use crate::api::Quantity;
use k8s_openapi::api::core::v1::{Container, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use std::collections::BTreeMap;

/// Amounts of resources. A missing extended resource counts as none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Thousandths of a CPU.
    pub milli_cpu: i64,
    /// Bytes.
    pub memory: i64,
    /// Bytes.
    pub ephemeral_storage: i64,
    /// Number of pods.
    pub pods: i64,
    /// Everything else (`nvidia.com/gpu`), in units.
    pub extended: BTreeMap<String, i64>,
}

impl Resources {
    /// Reads a `capacity`, `requests` or `limits` map. Amounts that do not parse count as none: validation refused them.
    pub fn from_map(map: &BTreeMap<String, Text>) -> Self {
        let mut out = Self::default();
        for (name, text) in map {
            let Ok(amount) = text.0.parse::<Quantity>() else { continue };
            match name.as_str() {
                "cpu" => out.milli_cpu = amount.milli_value(),
                "memory" => out.memory = amount.value(),
                "ephemeral-storage" => out.ephemeral_storage = amount.value(),
                "pods" => out.pods = amount.value(),
                _ => {
                    out.extended.insert(name.clone(), amount.value());
                }
            }
        }
        out
    }

    /// What a pod asks for: its containers and sidecars together, or its hungriest init container with the sidecars
    /// started before it, whichever is more, plus overhead (KEP-753).
    pub fn of_pod(spec: &PodSpec) -> Self {
        let mut running = Self::sum(spec.containers.iter().map(requests));
        let mut starting = Self::default();
        let mut sidecars = Self::default();
        for init in spec.init_containers.iter().flatten() {
            let wants = requests(init);
            if init.restart_policy.as_deref() == Some("Always") {
                running.add(&wants);
                sidecars.add(&wants);
                starting.raise_to(&sidecars);
            } else {
                let mut at_once = sidecars.clone();
                at_once.add(&wants);
                starting.raise_to(&at_once);
            }
        }
        running.raise_to(&starting);
        // What the pod asks for as a whole counts instead (KEP-2837).
        if let Some(whole) = spec.resources.as_ref().and_then(|r| r.requests.as_ref()) {
            let wants = Self::from_map(whole);
            let asked = |name, amount, otherwise| if whole.contains_key(name) { amount } else { otherwise };
            running.milli_cpu = asked("cpu", wants.milli_cpu, running.milli_cpu);
            running.memory = asked("memory", wants.memory, running.memory);
        }
        if let Some(overhead) = &spec.overhead {
            running.add(&Self::from_map(overhead));
        }
        running
    }

    fn sum(parts: impl Iterator<Item = Self>) -> Self {
        parts.fold(Self::default(), |mut all, part| {
            all.add(&part);
            all
        })
    }

    /// Adds.
    pub fn add(&mut self, other: &Self) {
        self.combine(other, i64::saturating_add);
    }

    /// Takes away.
    pub fn subtract(&mut self, other: &Self) {
        self.combine(other, i64::saturating_sub);
    }

    /// Takes the larger of each amount.
    pub fn raise_to(&mut self, other: &Self) {
        self.combine(other, i64::max);
    }

    fn combine(&mut self, other: &Self, op: fn(i64, i64) -> i64) {
        self.milli_cpu = op(self.milli_cpu, other.milli_cpu);
        self.memory = op(self.memory, other.memory);
        self.ephemeral_storage = op(self.ephemeral_storage, other.ephemeral_storage);
        self.pods = op(self.pods, other.pods);
        for (name, amount) in &other.extended {
            let mine = self.extended.entry(name.clone()).or_default();
            *mine = op(*mine, *amount);
        }
    }

    /// The resources of which `wanted` is more than `self` has free, by name.
    pub fn lacking(&self, used: &Self, wanted: &Self) -> Vec<String> {
        let short = |have: i64, used: i64, want: i64| want > 0 && used.saturating_add(want) > have;
        let mut out = Vec::new();
        if short(self.milli_cpu, used.milli_cpu, wanted.milli_cpu) {
            out.push("cpu".to_owned());
        }
        if short(self.memory, used.memory, wanted.memory) {
            out.push("memory".to_owned());
        }
        if short(self.ephemeral_storage, used.ephemeral_storage, wanted.ephemeral_storage) {
            out.push("ephemeral-storage".to_owned());
        }
        for (name, want) in &wanted.extended {
            let of = |r: &Self| r.extended.get(name).copied().unwrap_or_default();
            if short(of(self), of(used), *want) {
                out.push(name.clone());
            }
        }
        out
    }
}

/// What a container asks for; a limit without a request stands for both.
fn requests(container: &Container) -> Resources {
    let Some(resources) = &container.resources else { return Resources::default() };
    let mut map = resources.limits.clone().unwrap_or_default();
    map.extend(resources.requests.clone().unwrap_or_default());
    Resources::from_map(&map)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(json: serde_json::Value) -> PodSpec {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_pod_asks_for_its_containers_or_its_hungriest_init_container() {
        let spec = pod(serde_json::json!({
            "initContainers": [
                {"name": "setup", "resources": {"requests": {"cpu": "2", "memory": "10Mi"}}},
                {"name": "proxy", "restartPolicy": "Always", "resources": {"requests": {"cpu": "100m"}}}
            ],
            "containers": [
                {"name": "a", "resources": {"requests": {"cpu": "250m"}, "limits": {"memory": "64Mi"}}},
                {"name": "b", "resources": {"requests": {"cpu": "0.5", "example.com/fpga": "1"}}}
            ]
        }));
        let wants = Resources::of_pod(&spec);
        assert_eq!(wants.milli_cpu, 2000);
        assert_eq!(wants.memory, 64 << 20);
        assert_eq!(wants.extended["example.com/fpga"], 1);
    }

    #[test]
    fn sidecars_run_beside_what_starts_after_them_and_overhead_comes_on_top() {
        let cpu = |name: &str, cpu: &str| serde_json::json!({"name": name, "resources": {"requests": {"cpu": cpu}}});
        let mut sidecar = cpu("s", "200m");
        sidecar["restartPolicy"] = "Always".into();
        // init containers, the pod's own requests, overhead, thousandths of a CPU beside a container of 500
        let table = [
            (vec![], None, None, 500),
            (vec![cpu("i", "400m")], None, None, 500),
            (vec![cpu("i", "600m")], None, Some("100m"), 700),
            (vec![sidecar.clone()], None, None, 700),
            (vec![sidecar.clone(), cpu("i", "600m")], None, None, 800),
            (vec![cpu("i", "600m"), sidecar.clone()], None, None, 700),
            (vec![sidecar], Some("1"), Some("50m"), 1050),
        ];
        for (inits, whole, overhead, expected) in table {
            let mut json = serde_json::json!({"initContainers": inits, "containers": [cpu("c", "500m")]});
            if let Some(whole) = whole {
                json["resources"] = serde_json::json!({"requests": {"cpu": whole}});
            }
            if let Some(overhead) = overhead {
                json["overhead"] = serde_json::json!({"cpu": overhead});
            }
            assert_eq!(Resources::of_pod(&pod(json.clone())).milli_cpu, expected, "{json}");
        }
    }

    #[test]
    fn what_is_lacking_is_named() {
        let room = Resources { milli_cpu: 1000, memory: 100, pods: 10, ..Resources::default() };
        let used = Resources { milli_cpu: 600, ..Resources::default() };
        let wants = Resources {
            milli_cpu: 500,
            memory: 100,
            extended: [("example.com/fpga".to_owned(), 1)].into(),
            ..Resources::default()
        };
        assert_eq!(room.lacking(&used, &wants), ["cpu", "example.com/fpga"]);
    }
}
