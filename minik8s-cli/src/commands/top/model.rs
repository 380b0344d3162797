//! What was measured, as data: read from the API, sorted, and made rows of. Pure.

use super::table;
use crate::output::Rows;
use anyhow::{Context, Result};
use clap::ValueEnum;
use minik8s_core::api::Quantity;
use serde_json::Value;

/// What comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sort {
    /// By name
    #[default]
    Name,
    /// By cpu, the largest first
    Cpu,
    /// By memory, the largest first
    Memory,
}

/// An amount of both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Used {
    pub(super) milli_cpu: i64,
    pub(super) bytes: i64,
}

impl Used {
    fn read(usage: &Value) -> Result<Self> {
        let amount = |key: &str| Quantity::from_value(&usage[key]).with_context(|| format!("usage {usage}: {key}"));
        Ok(Self { milli_cpu: amount("cpu")?.milli_value(), bytes: amount("memory")?.value() })
    }

    fn add(self, other: Self) -> Self {
        Self { milli_cpu: self.milli_cpu + other.milli_cpu, bytes: self.bytes + other.bytes }
    }

    pub(super) fn cpu(&self) -> String {
        format!("{}m", self.milli_cpu)
    }

    pub(super) fn memory(&self) -> String {
        format!("{}Mi", self.bytes >> 20)
    }
}

/// A node: what it has, and what it uses where that is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) has: Used,
    pub(super) uses: Option<Used>,
}

impl Node {
    /// Finds the metrics of a node's record.
    pub(super) fn read(record: &Value, metrics: &[Value]) -> Result<Self> {
        let name = &record["metadata"]["name"];
        let uses = metrics.iter().find(|m| m["metadata"]["name"] == *name).map(|m| Used::read(&m["usage"]));
        let has = Used::read(&record["status"]["allocatable"]).unwrap_or_default();
        Ok(Self { name: name.as_str().unwrap_or_default().to_owned(), has, uses: uses.transpose()? })
    }

    pub(super) fn percent(&self, of: fn(&Used) -> i64) -> Option<i64> {
        let (has, uses) = (of(&self.has), of(self.uses.as_ref()?));
        (has > 0).then(|| uses * 100 / has)
    }
}

/// A pod and its containers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pod {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) containers: Vec<(String, Used)>,
}

impl Pod {
    pub(super) fn read(metrics: &Value) -> Result<Self> {
        let text = |pointer: &str| metrics.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let one = |c: &Value| Ok((c["name"].as_str().unwrap_or_default().to_owned(), Used::read(&c["usage"])?));
        let containers = metrics["containers"].as_array().into_iter().flatten().map(one).collect::<Result<_>>()?;
        Ok(Self { namespace: text("/metadata/namespace"), name: text("/metadata/name"), containers })
    }

    pub(super) fn uses(&self) -> Used {
        self.containers.iter().fold(Used::default(), |sum, (_, used)| sum.add(*used))
    }
}

/// All that was measured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct View {
    pub(super) nodes: Vec<Node>,
    pub(super) pods: Vec<Pod>,
}

impl View {
    pub(super) fn node_rows(&self, sort: Sort) -> Rows {
        let mut nodes: Vec<&Node> = self.nodes.iter().collect();
        order(&mut nodes, sort, |n| n.uses.unwrap_or_default(), |n| n.name.clone());
        let unknown = || "<unknown>".to_owned();
        let percent = |p: Option<i64>| p.map_or_else(unknown, |p| format!("{p}%"));
        let row = |n: &&Node| {
            let (cpu, memory) = (n.percent(|u| u.milli_cpu), n.percent(|u| u.bytes));
            let uses = n.uses.as_ref();
            let (used_cpu, used_memory) = (uses.map(Used::cpu), uses.map(Used::memory));
            let [used_cpu, used_memory] = [used_cpu, used_memory].map(|text| text.unwrap_or_else(unknown));
            vec![n.name.clone(), used_cpu, percent(cpu), used_memory, percent(memory)]
        };
        let headings = ["NAME", "CPU(cores)", "CPU(%)", "MEMORY(bytes)", "MEMORY(%)"];
        table(&headings, nodes.iter().map(row).collect())
    }

    pub(super) fn pod_rows(&self, sort: Sort, containers: bool, namespaces: bool, sum: bool) -> Rows {
        let mut pods: Vec<&Pod> = self.pods.iter().collect();
        order(&mut pods, sort, |p| p.uses(), |p| format!("{}/{}", p.namespace, p.name));
        let mut rows: Vec<Vec<String>> = Vec::new();
        for pod in pods {
            let mut lines: Vec<(Option<String>, Used)> = vec![(None, pod.uses())];
            if containers {
                let mut all: Vec<_> = pod.containers.iter().collect();
                order(&mut all, sort, |(_, used)| *used, |(name, _)| name.clone());
                lines = all.into_iter().map(|(name, used)| (Some(name.clone()), *used)).collect();
            }
            let namespace = namespaces.then(|| pod.namespace.clone());
            let row = |(container, used): (Option<String>, Used)| {
                let name = [Some(pod.name.clone()), container].into_iter().flatten();
                namespace.iter().cloned().chain(name).chain([used.cpu(), used.memory()]).collect()
            };
            rows.extend(lines.into_iter().map(row));
        }
        let mut headings: Vec<&str> = if namespaces { vec!["NAMESPACE"] } else { Vec::new() };
        headings.extend(if containers { vec!["POD", "NAME"] } else { vec!["NAME"] });
        headings.extend(["CPU(cores)", "MEMORY(bytes)"]);
        if sum && !rows.is_empty() {
            let total = self.pods.iter().fold(Used::default(), |sum, pod| sum.add(pod.uses()));
            let mut row = vec![String::new(); headings.len() - 2];
            row.extend([total.cpu(), total.memory()]);
            rows.push(row);
        }
        table(&headings, rows)
    }
}

/// Sorts; what is equal, by name.
fn order<T>(items: &mut [T], sort: Sort, used: impl Fn(&T) -> Used, name: impl Fn(&T) -> String) {
    let size = |item: &T| match sort {
        Sort::Name => 0,
        Sort::Cpu => -used(item).milli_cpu,
        Sort::Memory => -used(item).bytes,
    };
    items.sort_by_cached_key(|item| (size(item), name(item)));
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use serde_json::json;

    pub(crate) fn view() -> View {
        let record = |name: &str| {
            json!({"metadata": {"name": name},
            "status": {"allocatable": {"cpu": "2", "memory": "1Gi"}}})
        };
        let usage = json!({"metadata": {"name": "n1"}, "usage": {"cpu": "500000001n", "memory": "262144Ki"}});
        let pod = |namespace: &str, name: &str, containers: &[(&str, &str, &str)]| {
            let one = |(name, cpu, memory): &(&str, &str, &str)| {
                json!({"name": name,
                "usage": {"cpu": cpu, "memory": memory}})
            };
            let containers: Vec<Value> = containers.iter().map(one).collect();
            Pod::read(&json!({"metadata": {"namespace": namespace, "name": name}, "containers": containers})).unwrap()
        };
        View {
            nodes: ["n1", "n2"].map(|name| Node::read(&record(name), std::slice::from_ref(&usage)).unwrap()).into(),
            pods: vec![
                pod("a", "web", &[("app", "100m", "100Mi"), ("side", "50m", "200Mi")]),
                pod("b", "db", &[("db", "120m", "50Mi")]),
            ],
        }
    }

    fn cells(rows: &Rows) -> Vec<String> {
        rows.rows.iter().map(|row| row.join(" ")).collect()
    }

    #[test]
    fn nodes_without_metrics_are_unknown() {
        let want = ["n1 501m 25% 256Mi 25%", "n2 <unknown> <unknown> <unknown> <unknown>"];
        assert_eq!(cells(&view().node_rows(Sort::Cpu)), want);
    }

    #[test]
    fn pods_are_sorted_split_and_summed() {
        let view = view();
        let rows = |sort, containers, sum| cells(&view.pod_rows(sort, containers, true, sum));
        assert_eq!(rows(Sort::Name, false, false), ["a web 150m 300Mi", "b db 120m 50Mi"]);
        assert_eq!(rows(Sort::Cpu, false, true), ["a web 150m 300Mi", "b db 120m 50Mi", "  270m 350Mi"]);
        let split = ["a web side 50m 200Mi", "a web app 100m 100Mi", "b db db 120m 50Mi"];
        assert_eq!(rows(Sort::Memory, true, false), split);
    }
}
