//! What people write: the `spec` of a `Workflow`, in the full shape and in the short one of `func` and `choice` nodes.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// The `spec` of a `Workflow`. Either `startAt` and `steps`, or `entryNodeName` and `workflowNodes`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkflowSpec {
    /// The first step.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub start_at: String,
    /// The steps.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<StepSpec>,
    /// The input of a run that brings none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<Value>,
    /// A run takes at most this long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<f64>,
    /// A run enters at most this many steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_steps: Option<i64>,
    /// How many finished runs are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_finished: Option<i64>,
    /// Short shape: the input of a run that brings none, as JSON or as the text of JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entry_params: Option<Value>,
    /// Short shape: the first node.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub entry_node_name: String,
    /// Short shape: the nodes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub workflow_nodes: Vec<NodeSpec>,
}

/// Steps within a step: a branch, or what is done with each item.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProgramSpec {
    /// The first step.
    pub start_at: String,
    /// The steps.
    pub steps: Vec<StepSpec>,
}

/// One step: a name, exactly one of `task` to `succeed`, and what is around it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StepSpec {
    /// Its name among the steps beside it.
    pub name: String,
    /// For people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub comment: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    /// Calls something.
    pub task: Option<TaskSpec>,
    /// Goes one way or another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub choice: Option<ChoiceSpec>,
    /// Several ways at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parallel: Option<ParallelSpec>,
    /// The same steps for each item of a list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub map: Option<MapSpec>,
    /// Waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait: Option<WaitSpec>,
    /// Passes its input on, or what `value` says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pass: Option<PassSpec>,
    /// Ends the run as failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fail: Option<FailSpec>,
    /// Ends the branch, or the run, as succeeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub succeed: Option<EmptySpec>,
    /// JSONPath: which part of the input the step sees.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub input_path: String,
    /// What the step sees instead, with `${CEL}` filled in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Value>,
    /// Where in the input the result goes; `$` replaces it, `none` drops the result.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub result_path: String,
    /// JSONPath: which part of that is passed on.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub output_path: String,
    /// One attempt takes at most this long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<f64>,
    /// A task's answer is heard of at least this often.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heartbeat_seconds: Option<f64>,
    /// Failures to try again after.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub retry: Vec<RetrySpec>,
    /// Failures to go on after.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub catch: Vec<CatchSpec>,
    /// The step after it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub next: String,
    /// Nothing comes after it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub end: bool,
}

/// What a task calls: exactly one of the four.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TaskSpec {
    /// A Function.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function: Option<FunctionRef>,
    /// A URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpSpec>,
    /// A container that runs to its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job: Option<JobSpec>,
    /// A job on a `JobCluster`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_job: Option<GpuJobSpec>,
}

/// A Function.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FunctionRef {
    /// Its name.
    pub name: String,
    /// Its namespace; the workflow's own where it is empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
}

/// A call of a URL. The step's input is the body of methods that have one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpSpec {
    /// `http://host/path` or `https://host/path`
    pub url: String,
    /// `POST` where it is empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub method: String,
    /// More headers.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
}

/// A container that runs to its end. Its input is in the variable `WORKFLOW_INPUT`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct JobSpec {
    /// Its image.
    pub image: String,
    /// Its command.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Its arguments.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Its environment.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
}

/// The `spec` of a `GpuJob`, as that kind has it. Its input is in the variable `WORKFLOW_INPUT`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GpuJobSpec(pub serde_json::Map<String, Value>);

/// Rules, the first that holds wins.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ChoiceSpec {
    /// In order.
    pub rules: Vec<RuleSpec>,
    /// Where none holds; without it, the step fails then.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub default: String,
}

/// A condition, as CEL or as one of the twelve checks, and where it leads.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RuleSpec {
    /// CEL over `input` and `run`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub when: String,
    /// `NumberGreater`, …
    #[serde(skip_serializing_if = "String::is_empty")]
    pub check: String,
    /// What is checked: a field's name, or a JSONPath.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub variable: String,
    /// What it is compared with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
    /// Where it leads.
    pub next: String,
}

/// Branches, each with the step's input; the result is the list of their outputs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ParallelSpec {
    /// In the order of their outputs.
    pub branches: Vec<ProgramSpec>,
}

/// The same steps for each item; the result is the list of their outputs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MapSpec {
    /// JSONPath of the list; `$` where it is empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub items_path: String,
    /// At most so many at once; 0 for the limit of the controller.
    #[serde(skip_serializing_if = "is_zero")]
    pub max_concurrency: i64,
    /// The first step.
    pub start_at: String,
    /// The steps.
    pub steps: Vec<StepSpec>,
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// How long: exactly one of the four.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WaitSpec {
    /// So long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// Until this moment, RFC 3339.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub until: String,
    /// So long as the number at this JSONPath says.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub seconds_path: String,
    /// Until the moment at this JSONPath.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub until_path: String,
}

/// Passes a value on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PassSpec {
    /// The value, with `${CEL}` filled in; the input where it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
}

/// How a run fails.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FailSpec {
    /// A name for the error.
    pub error: String,
    /// For people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cause: String,
}

/// Nothing to say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EmptySpec {}

/// Failures to try again after.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RetrySpec {
    /// Names of errors; `*` for all.
    pub errors: Vec<String>,
    /// How many times more; 3 where it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<i64>,
    /// The first pause; 1 where it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval_seconds: Option<f64>,
    /// Each pause is so many times the one before; 2 where it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backoff_rate: Option<f64>,
    /// The longest pause; 300 where it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_delay_seconds: Option<f64>,
    /// `Half` (the default: each pause between its half and its whole), `Full` (between nothing and its whole) or `None`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub jitter: String,
}

/// Failures to go on after.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CatchSpec {
    /// Names of errors; `*` for all.
    pub errors: Vec<String>,
    /// Where in the step's input `error`, `cause` and `step` go; `$` where it is empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub result_path: String,
    /// Where to go on.
    pub next: String,
}

/// A node of the short shape.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeSpec {
    /// Its name.
    pub name: String,
    /// `func` or `choice`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Of a `func`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub func_data: Option<FuncData>,
    /// Of a `choice`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub choice_data: Option<ChoiceData>,
}

/// What a `func` node calls.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FuncData {
    /// The function.
    pub func_name: String,
    /// Its namespace.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub func_namespace: String,
    /// The node after it; empty for the last.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub next_node_name: String,
}

/// Where a `choice` node leads.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ChoiceData {
    /// Where the check holds.
    pub true_next_node_name: String,
    /// Where it does not.
    pub false_next_node_name: String,
    /// `numGreaterThan`, …
    pub check_type: String,
    /// The field that is checked.
    pub check_var_name: String,
    /// What it is compared with; a number may stand in quotes.
    pub compare_value: Value,
}
