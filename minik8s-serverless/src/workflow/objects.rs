//! `Workflow`, `WorkflowRun` and `WorkflowRecord`, typed.

use super::machine::StepProgress;
use super::spec::WorkflowSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use minik8s_core::resource;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Steps that follow each other.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Workflow {
    /// Names and the rest.
    pub metadata: ObjectMeta,
    /// The steps.
    pub spec: WorkflowSpec,
    /// What is known of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<WorkflowStatus>,
}

resource!(Workflow, "minik8s.io", "v1alpha1", "Workflow", "workflows", k8s_openapi::NamespaceResourceScope);

/// What is known of a [`Workflow`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkflowStatus {
    /// The generation this is about.
    pub observed_generation: i64,
    /// `FunctionsFound`: whether every Function that its tasks call is there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Runs under way.
    pub active: i64,
    /// Runs that went well and are still kept.
    pub succeeded: i64,
    /// Runs that failed and are still kept.
    pub failed: i64,
}

/// One run of a [`Workflow`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkflowRun {
    /// Names and the rest.
    pub metadata: ObjectMeta,
    /// What shall be run.
    pub spec: RunSpec,
    /// How far it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<RunStatus>,
}

resource!(WorkflowRun, "minik8s.io", "v1alpha1", "WorkflowRun", "workflowruns", k8s_openapi::NamespaceResourceScope);

/// What a [`WorkflowRun`] shall run. Only `cancel` may change.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RunSpec {
    /// The workflow, of the same namespace.
    pub workflow: String,
    /// Its input; the workflow's own where it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<Value>,
    /// It takes at most this long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<f64>,
    /// Stops it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub cancel: bool,
}

/// How far a [`WorkflowRun`] is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RunStatus {
    /// `Pending`, `Running`, `Succeeded`, `Failed` or `Cancelled`.
    pub phase: String,
    /// Why it is pending, or how it failed, as a sentence.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The record that holds the workflow as it was when the run began.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub revision: String,
    /// When it began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<String>,
    /// Steps it is in.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub step: String,
    /// What came out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    /// Which step failed, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<RunFailure>,
    /// How each step is doing.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub steps: BTreeMap<String, StepProgress>,
    /// What happened.
    pub history: History,
}

/// Which step failed, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunFailure {
    /// The step.
    pub step: String,
    /// The error's name.
    pub error: String,
    /// What led to it.
    pub cause: String,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What happened in a run: the older part in records, each of which names the one before it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    /// How many events there are.
    pub events: u64,
    /// Grows whenever somebody takes the run over: what the one before was about to write is refused then.
    #[serde(skip_serializing_if = "is_zero")]
    pub epoch: u64,
    /// The newest record of events.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sealed: String,
    /// The events after it. Large values in them stand in records of their own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tail: Vec<Value>,
}

/// Something too large, too old or too fixed to stand in another object: it never changes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkflowRecord {
    /// Names and the rest.
    pub metadata: ObjectMeta,
    /// What it holds.
    pub data: Value,
}

resource!(
    WorkflowRecord,
    "minik8s.io",
    "v1alpha1",
    "WorkflowRecord",
    "workflowrecords",
    k8s_openapi::NamespaceResourceScope
);
