//! `Workflow`, `WorkflowRun` and `WorkflowRecord`, as the server knows them.

use super::compile;
use super::spec::WorkflowSpec;
use jiff::Timestamp;
use minik8s_core::api::Gvr;
use minik8s_core::api::human;
use minik8s_core::server::kinds::cells::{AGE, NAME, column, condition, integer, wide};
use minik8s_core::server::kinds::util::{items, names, number, set_default, text};
use minik8s_core::server::{Column, FieldErrors, Kind, KindNames, SelectableField};
use serde_json::{Value, json};

const GROUP: &str = "minik8s.io";
const VERSION: &str = "v1alpha1";
/// Names of records are made of those of runs and workflows.
const LONGEST_NAME: usize = 200;

pub(crate) struct WorkflowKind(KindNames);

impl WorkflowKind {
    pub(crate) fn new() -> Self {
        Self(names(Gvr::new(GROUP, VERSION, "workflows"), "Workflow", &["wf"], false, true))
    }
}

static WORKFLOW_COLUMNS: [Column; 7] = [
    NAME,
    integer("Steps", |o, _| items(o, "/spec/steps").chain(items(o, "/spec/workflowNodes")).count().into()),
    column("Ready", |o, _| condition(o, "/status/conditions", "FunctionsFound").into()),
    integer("Active", |o, _| number(o, "/status/active").unwrap_or(0).into()),
    integer("Succeeded", |o, _| number(o, "/status/succeeded").unwrap_or(0).into()),
    integer("Failed", |o, _| number(o, "/status/failed").unwrap_or(0).into()),
    AGE,
];

impl Kind for WorkflowKind {
    fn names(&self) -> &KindNames {
        &self.0
    }

    fn schema(&self) -> &str {
        "io.minik8s.v1alpha1.Workflow"
    }

    fn has_status(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        &WORKFLOW_COLUMNS
    }

    fn default(&self, object: &mut Value) {
        set_default(object, "status", json!({}));
    }

    fn validate(&self, new: &Value, _: Option<&Value>, errors: &mut FieldErrors) {
        check_name(new, errors);
        match serde_json::from_value::<WorkflowSpec>(new["spec"].clone()) {
            Ok(spec) => errors.0.extend(compile(&spec).err().into_iter().flat_map(|e| e.0)),
            Err(e) => errors.invalid_shown("spec", "the workflow", &e.to_string()),
        }
    }
}

fn check_name(new: &Value, errors: &mut FieldErrors) {
    if text(new, "/metadata/name").len() > LONGEST_NAME {
        errors.too_long("metadata.name", LONGEST_NAME);
    }
}

pub(crate) struct RunKind(KindNames);

impl RunKind {
    pub(crate) fn new() -> Self {
        Self(names(Gvr::new(GROUP, VERSION, "workflowruns"), "WorkflowRun", &["wfr"], false, true))
    }
}

static RUN_COLUMNS: [Column; 7] = [
    NAME,
    column("Workflow", |o, _| text(o, "/spec/workflow").into()),
    column("Phase", |o, _| phase(o).into()),
    column("Step", |o, _| or_dash(text(o, "/status/step"), text(o, "/status/failure/step")).into()),
    column("Duration", |o, now| duration(o, now).into()),
    AGE,
    wide("Message", |o, _| text(o, "/status/message").into()),
];

fn phase(run: &Value) -> &str {
    match text(run, "/status/phase") {
        "" => "Pending",
        phase => phase,
    }
}

fn or_dash<'a>(first: &'a str, second: &'a str) -> &'a str {
    [first, second, "-"].into_iter().find(|text| !text.is_empty()).unwrap_or_default()
}

fn duration(run: &Value, now: Timestamp) -> String {
    let moment = |pointer| text(run, pointer).parse::<Timestamp>().ok();
    match (moment("/status/startedAt"), moment("/status/finishedAt")) {
        (None, _) => "-".to_owned(),
        (Some(start), end) => human::age(end.unwrap_or(now).duration_since(start)),
    }
}

impl Kind for RunKind {
    fn names(&self) -> &KindNames {
        &self.0
    }

    fn schema(&self) -> &str {
        "io.minik8s.v1alpha1.WorkflowRun"
    }

    fn has_status(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        &RUN_COLUMNS
    }

    fn fields(&self) -> &'static [SelectableField] {
        static FIELDS: [SelectableField; 2] = [
            SelectableField { path: "spec.workflow", value: |o| text(o, "/spec/workflow").to_owned() },
            SelectableField { path: "status.phase", value: |o| phase(o).to_owned() },
        ];
        &FIELDS
    }

    fn default(&self, object: &mut Value) {
        set_default(object, "status", json!({}));
    }

    fn validate(&self, new: &Value, old: Option<&Value>, errors: &mut FieldErrors) {
        check_name(new, errors);
        if text(new, "/spec/workflow").is_empty() {
            errors.required("spec.workflow", "the Workflow to run");
        }
        if let Some(seconds) = new.pointer("/spec/timeoutSeconds").filter(|s| s.as_f64().is_some_and(|s| s <= 0.0)) {
            errors.invalid("spec.timeoutSeconds", seconds, "must be more than 0");
        }
        let Some(old) = old else { return };
        for field in ["workflow", "input", "timeoutSeconds"] {
            errors.immutable(format!("spec.{field}"), &new["spec"][field], &old["spec"][field]);
        }
        if old["spec"]["cancel"] == true && new["spec"]["cancel"] != true {
            errors.forbidden("spec.cancel", "what was stopped does not go on: make another run");
        }
    }
}

pub(crate) struct RecordKind(KindNames);

impl RecordKind {
    pub(crate) fn new() -> Self {
        Self(names(Gvr::new(GROUP, VERSION, "workflowrecords"), "WorkflowRecord", &[], false, true))
    }
}

static RECORD_COLUMNS: [Column; 3] =
    [NAME, column("Owner", |o, _| text(o, "/metadata/ownerReferences/0/name").into()), AGE];

impl Kind for RecordKind {
    fn names(&self) -> &KindNames {
        &self.0
    }

    fn schema(&self) -> &str {
        "io.minik8s.v1alpha1.WorkflowRecord"
    }

    fn columns(&self) -> &'static [Column] {
        &RECORD_COLUMNS
    }

    fn validate(&self, new: &Value, old: Option<&Value>, errors: &mut FieldErrors) {
        if let Some(old) = old {
            errors.immutable("data", &new["data"], &old["data"]);
        }
    }
}
