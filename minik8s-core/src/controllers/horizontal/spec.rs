//! What an autoscaler is told, read from `autoscaling/v2`. Own structs: the upstream ones change from version to version.

use crate::api::Quantity;
use serde::Deserialize;
use serde_json::Value;

/// A HorizontalPodAutoscaler's `spec`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec {
    /// What is scaled.
    pub scale_target_ref: Reference,
    /// At least so many; 1 where nothing is said.
    pub min_replicas: Option<i32>,
    /// At most so many.
    pub max_replicas: i32,
    /// What is measured.
    pub metrics: Vec<Metric>,
    /// How fast it may go.
    pub behavior: Option<Behavior>,
}

impl Spec {
    /// The fewest replicas.
    pub fn min(&self) -> i32 {
        self.min_replicas.unwrap_or(1)
    }
}

/// An object in the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Reference {
    /// `apps/v1`
    pub api_version: String,
    /// `Deployment`
    pub kind: String,
    /// Its name.
    pub name: String,
}

/// One metric. Which of the sources is set follows from `type`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metric {
    /// `Resource`, `ContainerResource`, `Pods`, `Object`, `External`.
    #[serde(rename = "type")]
    pub kind: String,
    /// cpu or memory of whole pods.
    pub resource: Option<ResourceSource>,
    /// cpu or memory of one container of each pod.
    pub container_resource: Option<ResourceSource>,
    /// A number that each pod tells.
    pub pods: Option<NamedSource>,
    /// A number that describes another object.
    pub object: Option<NamedSource>,
    /// A number from outside the cluster.
    pub external: Option<NamedSource>,
}

/// cpu or memory.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResourceSource {
    /// `cpu` or `memory`.
    pub name: String,
    /// Of which container; empty for the whole pod.
    pub container: String,
    /// What it should be.
    pub target: MetricTarget,
}

/// A metric by name.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NamedSource {
    /// Which.
    pub metric: Identifier,
    /// What it should be.
    pub target: MetricTarget,
    /// The object it describes.
    pub described_object: Reference,
}

/// A metric's name, and which of its series.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Identifier {
    /// Its name.
    pub name: String,
    /// A label selector.
    pub selector: Option<Value>,
}

/// What a metric should be: one of the three.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MetricTarget {
    /// `Utilization`, `Value`, `AverageValue`.
    #[serde(rename = "type")]
    pub kind: String,
    /// In all.
    pub value: Option<Amount>,
    /// For each pod.
    pub average_value: Option<Amount>,
    /// In percent of what the pods request.
    pub average_utilization: Option<i32>,
}

/// A quantity, in thousandths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount(pub i64);

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let quantity = Quantity::from_value(&value).map_err(serde::de::Error::custom)?;
        Ok(Self(quantity.milli_value()))
    }
}

/// How fast it may go, in each direction.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Behavior {
    /// Upwards.
    pub scale_up: Option<Rules>,
    /// Downwards.
    pub scale_down: Option<Rules>,
}

/// How fast it may go in one direction.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rules {
    /// How far back recommendations count.
    pub stabilization_window_seconds: Option<u32>,
    /// Which of several policies counts.
    pub select_policy: Option<Select>,
    /// The policies.
    pub policies: Vec<Policy>,
    /// How far a metric may be off.
    pub tolerance: Option<Amount>,
}

/// Which of several policies counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Select {
    /// The one that allows the largest change.
    #[default]
    Max,
    /// The one that allows the smallest change.
    Min,
    /// None: nothing changes in this direction.
    Disabled,
}

/// So much in so many seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Policy {
    /// In what it counts.
    #[serde(rename = "type")]
    pub kind: PolicyKind,
    /// How much.
    pub value: i32,
    /// In which time.
    pub period_seconds: u32,
}

/// In what a policy counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum PolicyKind {
    /// Pods.
    Pods,
    /// Percent of those there were when the period began.
    Percent,
}
