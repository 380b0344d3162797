//! `Trigger` and `TriggerDelivery`, as the server knows them.

use super::objects::{TargetSpec, TriggerSpec};
use super::schedule::{Schedule, ScheduleError};
use crate::expr::{Expr, Template};
use minik8s_core::api::{Gvr, Selector};
use minik8s_core::server::kinds::cells::{AGE, NAME, column, condition, integer, wide};
use minik8s_core::server::kinds::util::{names, number, set_default, text};
use minik8s_core::server::{Column, FieldErrors, Kind, KindNames, SelectableField};
use serde_json::{Value, json};

/// What expressions of a trigger may use.
pub(super) const VARIABLES: [&str; 1] = ["event"];
/// Names of deliveries are made of those of triggers.
const LONGEST_NAME: usize = 180;
/// What deliveries and runs write would call for more of them, without an end.
const OWN: [&str; 5] = ["triggers", "triggerdeliveries", "workflowrecords", "demands", "events"];

pub(crate) struct TriggerKind(KindNames);

impl TriggerKind {
    pub(crate) fn new() -> Self {
        Self(names(Gvr::new("minik8s.io", "v1alpha1", "triggers"), "Trigger", &["trg"], false, true))
    }
}

static TRIGGER_COLUMNS: [Column; 6] = [
    NAME,
    column("Source", |o, _| source(o).into()),
    column("Target", |o, _| target(o).into()),
    column("Ready", |o, _| ready(o).into()),
    column("Next", |o, _| text(o, "/status/nextSchedule").into()),
    AGE,
];

fn source(trigger: &Value) -> String {
    let kinds = [
        ("cron", text(trigger, "/spec/cron/schedule")),
        ("file", text(trigger, "/spec/file/path")),
        ("object", text(trigger, "/spec/object/resource")),
        ("webhook", ""),
    ];
    let found = kinds.iter().find(|(kind, _)| trigger["spec"].get(*kind).is_some_and(|s| !s.is_null()));
    found.map(|(kind, what)| format!("{kind} {what}").trim_end().to_owned()).unwrap_or_default()
}

/// Schedules need nobody to look: they are followed where it is known when they are due.
fn ready(trigger: &Value) -> &str {
    match condition(trigger, "/status/conditions", "Ready") {
        "" if !text(trigger, "/status/nextSchedule").is_empty() => "True",
        said => said,
    }
}

fn target(object: &Value) -> String {
    match (text(object, "/spec/target/function/name"), text(object, "/spec/target/workflow/name")) {
        ("", workflow) => format!("workflow/{workflow}"),
        (function, _) => format!("function/{function}"),
    }
}

impl Kind for TriggerKind {
    fn names(&self) -> &KindNames {
        &self.0
    }

    fn schema(&self) -> &str {
        "io.minik8s.v1alpha1.Trigger"
    }

    fn has_status(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        &TRIGGER_COLUMNS
    }

    fn default(&self, object: &mut Value) {
        set_default(object, "status", json!({}));
    }

    fn validate(&self, new: &Value, _: Option<&Value>, errors: &mut FieldErrors) {
        if text(new, "/metadata/name").len() > LONGEST_NAME {
            errors.too_long("metadata.name", LONGEST_NAME);
        }
        match serde_json::from_value::<TriggerSpec>(new["spec"].clone()) {
            Ok(spec) => check(&spec, errors),
            Err(e) => errors.invalid_shown("spec", "the trigger", &e.to_string()),
        }
    }
}

fn check(spec: &TriggerSpec, errors: &mut FieldErrors) {
    let given = [spec.cron.is_some(), spec.file.is_some(), spec.webhook.is_some(), spec.object.is_some()];
    if given.iter().filter(|is| **is).count() != 1 {
        errors.required("spec", "exactly one of cron, file, webhook, object");
    }
    check_source(spec, errors);
    check_target(&spec.target, errors);
    if !spec.filter.is_empty()
        && let Err(e) = Expr::compile(&spec.filter, &VARIABLES)
    {
        errors.invalid("spec.filter", &spec.filter.clone().into(), &e.to_string());
    }
    if let Some(Err((field, text, e))) =
        spec.parameters.as_ref().map(|p| Template::compile("spec.parameters", p, &VARIABLES))
    {
        errors.invalid(field, &text.into(), &e.to_string());
    }
    let retry = spec.retry.clone().unwrap_or_default();
    let numbers = [
        ("spec.retry.maxAttempts", retry.max_attempts.map(|n| n as f64), 1.0, 1000.0),
        ("spec.retry.intervalSeconds", retry.interval_seconds, 0.0, 86_400.0),
        ("spec.retry.maxDelaySeconds", retry.max_delay_seconds, 0.0, 86_400.0),
        ("spec.maxConcurrency", spec.max_concurrency.map(|n| n as f64), 1.0, 1000.0),
        ("spec.keepDelivered", spec.keep_delivered.map(|n| n as f64), 0.0, 100_000.0),
        ("spec.keepDead", spec.keep_dead.map(|n| n as f64), 0.0, 100_000.0),
    ];
    for (field, number, min, max) in numbers {
        if let Some(number) = number.filter(|n| !(min..=max).contains(n)) {
            errors.invalid(field, &number.into(), &format!("must be between {min} and {max}"));
        }
    }
}

fn check_source(spec: &TriggerSpec, errors: &mut FieldErrors) {
    if let Some(cron) = &spec.cron {
        match Schedule::new(&cron.schedule, &cron.time_zone) {
            Ok(_) => {}
            Err(e @ ScheduleError::Zone) => {
                errors.invalid("spec.cron.timeZone", &cron.time_zone.clone().into(), &e.to_string())
            }
            Err(e) => errors.invalid("spec.cron.schedule", &cron.schedule.clone().into(), &e.to_string()),
        }
        if let Some(seconds) = cron.starting_deadline_seconds.filter(|s| *s < 0) {
            errors.invalid("spec.cron.startingDeadlineSeconds", &seconds.into(), "must not be negative");
        }
    }
    if let Some(file) = &spec.file {
        let path = std::path::Path::new(&file.path);
        let plain =
            path.components().all(|c| matches!(c, std::path::Component::RootDir | std::path::Component::Normal(_)));
        if !path.is_absolute() || !plain || file.path.contains('\0') {
            errors.invalid("spec.file.path", &file.path.clone().into(), "must be an absolute path without ..");
        }
        check_events("spec.file.events", &file.events, &["Created", "Modified", "Removed"], errors);
    }
    if let Some(object) = &spec.object {
        if object.api_version.is_empty() || object.api_version.matches('/').count() > 1 {
            errors.invalid("spec.object.apiVersion", &object.api_version.clone().into(), "must be v1 or GROUP/VERSION");
        }
        if object.resource.is_empty() || object.resource.chars().any(|c| !c.is_ascii_lowercase() && !c.is_ascii_digit())
        {
            errors.invalid(
                "spec.object.resource",
                &object.resource.clone().into(),
                "must be a plural such as deployments",
            );
        }
        if OWN.contains(&object.resource.as_str()) {
            errors
                .forbidden("spec.object.resource", "what deliveries write would call for more of them, without an end");
        }
        if object.resource == "secrets" {
            errors.forbidden("spec.object.resource", "deliveries hold what they are about, and would tell the secrets");
        }
        check_events("spec.object.events", &object.events, &["Added", "Modified", "Deleted"], errors);
        let selector = object.selector.as_ref().and_then(|s| serde_json::to_value(s).ok());
        if let Some(Err(e)) = selector.as_ref().map(Selector::from_value) {
            errors.invalid("spec.object.selector", &selector.clone().unwrap_or_default(), &e.to_string());
        }
    }
}

fn check_events(field: &str, events: &[String], known: &[&str], errors: &mut FieldErrors) {
    for (index, event) in events.iter().enumerate().filter(|(_, event)| !known.contains(&event.as_str())) {
        errors.unsupported(format!("{field}[{index}]"), event, known);
    }
}

fn check_target(target: &TargetSpec, errors: &mut FieldErrors) {
    match (&target.function, &target.workflow) {
        (Some(function), None) if function.name.is_empty() => {
            errors.required("spec.target.function.name", "the Function to call")
        }
        (None, Some(workflow)) if workflow.name.is_empty() => {
            errors.required("spec.target.workflow.name", "the Workflow to run")
        }
        (Some(_), None) | (None, Some(_)) => {}
        _ => errors.required("spec.target", "exactly one of function, workflow"),
    }
}

pub(crate) struct DeliveryKind(KindNames);

impl DeliveryKind {
    pub(crate) fn new() -> Self {
        Self(names(Gvr::new("minik8s.io", "v1alpha1", "triggerdeliveries"), "TriggerDelivery", &["trd"], false, true))
    }
}

static DELIVERY_COLUMNS: [Column; 7] = [
    NAME,
    column("Trigger", |o, _| text(o, "/spec/trigger").into()),
    column("Target", |o, _| target(o).into()),
    column("Phase", |o, _| phase(o).into()),
    integer("Attempts", |o, _| number(o, "/status/attempts").unwrap_or(0).into()),
    AGE,
    wide("Message", |o, _| text(o, "/status/message").into()),
];

fn phase(delivery: &Value) -> &str {
    match text(delivery, "/status/phase") {
        "" => "Pending",
        phase => phase,
    }
}

impl Kind for DeliveryKind {
    fn names(&self) -> &KindNames {
        &self.0
    }

    fn schema(&self) -> &str {
        "io.minik8s.v1alpha1.TriggerDelivery"
    }

    fn has_status(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        &DELIVERY_COLUMNS
    }

    fn fields(&self) -> &'static [SelectableField] {
        static FIELDS: [SelectableField; 2] = [
            SelectableField { path: "spec.trigger", value: |o| text(o, "/spec/trigger").to_owned() },
            SelectableField { path: "status.phase", value: |o| phase(o).to_owned() },
        ];
        &FIELDS
    }

    fn default(&self, object: &mut Value) {
        set_default(object, "status", json!({}));
    }

    fn validate(&self, new: &Value, old: Option<&Value>, errors: &mut FieldErrors) {
        if let Some(old) = old {
            errors.immutable("spec", &new["spec"], &old["spec"]);
        }
    }
}
