//! `Trigger` and `TriggerDelivery`, typed.

use crate::workflow::spec::FunctionRef;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, ObjectMeta};
use minik8s_core::resource;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Calls something when something happens.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Trigger {
    /// Names and the rest.
    pub metadata: ObjectMeta,
    /// What happens, and what is called then.
    pub spec: TriggerSpec,
    /// How it goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<TriggerStatus>,
}

resource!(Trigger, "minik8s.io", "v1alpha1", "Trigger", "triggers", k8s_openapi::NamespaceResourceScope);

/// What happens (exactly one of `cron`, `file`, `webhook`, `object`), and what is called then.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TriggerSpec {
    /// Time comes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cron: Option<CronSource>,
    /// A file changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<FileSource>,
    /// Somebody sends an event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook: Option<WebhookSource>,
    /// An object changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<ObjectSource>,
    /// CEL over `event`: which events count.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub filter: String,
    /// What is called.
    pub target: TargetSpec,
    /// What it is given, with `${CEL}` over `event` filled in; the event where it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Value>,
    /// How often and how soon a delivery that failed is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<DeliveryRetry>,
    /// How many calls are under way at once; 10 where it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_concurrency: Option<i64>,
    /// How many deliveries that went well are kept; 20 where it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_delivered: Option<i64>,
    /// How many deliveries that never went well are kept; 100 where it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_dead: Option<i64>,
    /// Does nothing.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub suspend: bool,
}

/// Time comes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CronSource {
    /// Five fields, or `@hourly` and the like.
    pub schedule: String,
    /// `Europe/Berlin`; UTC where it is empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub time_zone: String,
    /// A time that was missed is made up for if it is not longer ago than this; 300 where it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub starting_deadline_seconds: Option<i64>,
}

/// A file changes, where the controllers run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FileSource {
    /// A file, or a directory, whose files are meant then.
    pub path: String,
    /// `Created`, `Modified`, `Removed`; all where it is empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<String>,
}

/// Somebody sends an event, to `/trigger/NAMESPACE/NAME`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WebhookSource {
    /// The Secret whose key `token` must be sent: `Authorization: Bearer TOKEN`. Anybody may send where it is empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub secret_name: String,
}

/// An object changes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectSource {
    /// `apps/v1`
    pub api_version: String,
    /// `deployments`
    pub resource: String,
    /// `Added`, `Modified`, `Deleted`; all where it is empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<String>,
    /// Which objects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
}

/// What is called: exactly one of the two, of the trigger's namespace where it says no other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TargetSpec {
    /// A Function.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function: Option<FunctionRef>,
    /// A Workflow: each delivery is a run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workflow: Option<WorkflowRef>,
}

/// A Workflow of the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WorkflowRef {
    /// Its name.
    pub name: String,
}

/// How often and how soon a delivery that failed is tried again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeliveryRetry {
    /// Attempts in all; 5 where it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<i64>,
    /// The first pause; 1 where it is absent. Each is twice the one before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval_seconds: Option<f64>,
    /// The longest pause; 300 where it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_delay_seconds: Option<f64>,
}

/// How a [`Trigger`] goes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TriggerStatus {
    /// `Ready`: whether its source works.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The newest time of a schedule that was dealt with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_schedule: Option<String>,
    /// The next one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_schedule: Option<String>,
    /// Times of a schedule that were missed and not made up for.
    #[serde(skip_serializing_if = "is_zero")]
    pub missed: u64,
    /// Changes of objects up to this version were dealt with.
    #[serde(skip_serializing_if = "is_zero")]
    pub revision: u64,
    /// When that was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seen_at: Option<String>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// One event on its way to what a trigger calls.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TriggerDelivery {
    /// Names and the rest. The name follows from the event, so that it is delivered once.
    pub metadata: ObjectMeta,
    /// The event.
    pub spec: DeliverySpec,
    /// How far it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<DeliveryStatus>,
}

resource!(
    TriggerDelivery,
    "minik8s.io",
    "v1alpha1",
    "TriggerDelivery",
    "triggerdeliveries",
    k8s_openapi::NamespaceResourceScope
);

/// An event and where it goes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeliverySpec {
    /// The trigger.
    pub trigger: String,
    /// The event, as a CloudEvent.
    pub event: Value,
    /// What is called.
    pub target: TargetSpec,
    /// What it is given.
    pub input: Value,
    /// How often and how soon it is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<DeliveryRetry>,
}

/// How far a [`TriggerDelivery`] is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeliveryStatus {
    /// `Pending`, `Delivered`, or `Dead` where it is not tried any more.
    pub phase: String,
    /// How often it was tried.
    pub attempts: i64,
    /// Why the last attempt failed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// When it is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_attempt: Option<String>,
    /// When it was over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<String>,
    /// The run that it began.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub run: String,
}
