//! `Deployment`: a template rolled out through ReplicaSets.

use super::cells::{AGE, NAME, column, spec_selector, template_containers, template_images, wide};
use super::util::{child, default_text, names, number, set_default, text};
use super::workload::{SCALE, default_workload, validate_workload};
use crate::api::Gvr;
use crate::api::human::scaled;
use crate::server::{Column, FieldErrors, Kind, KindNames, ScalePaths};
use serde_json::{Value, json};

pub(crate) struct DeploymentKind(KindNames);

impl DeploymentKind {
    pub(crate) fn new() -> Self {
        Self(names(Gvr::new("apps", "v1", "deployments"), "Deployment", &["deploy"], true, true))
    }
}

static COLUMNS: [Column; 8] = [
    NAME,
    column("Ready", |o, _| {
        let count = |path| number(o, path).unwrap_or_default();
        format!("{}/{}", count("/status/readyReplicas"), count("/spec/replicas")).into()
    }),
    column("Up-to-date", |o, _| number(o, "/status/updatedReplicas").unwrap_or_default().into()),
    column("Available", |o, _| number(o, "/status/availableReplicas").unwrap_or_default().into()),
    AGE,
    wide("Containers", template_containers),
    wide("Images", template_images),
    wide("Selector", spec_selector),
];

const STRATEGIES: [&str; 2] = ["Recreate", "RollingUpdate"];

impl Kind for DeploymentKind {
    fn names(&self) -> &KindNames {
        &self.0
    }

    fn schema(&self) -> &str {
        "io.k8s.api.apps.v1.Deployment"
    }

    fn has_status(&self) -> bool {
        true
    }

    fn scale(&self) -> Option<ScalePaths> {
        Some(SCALE)
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn default(&self, object: &mut Value) {
        default_workload(object);
        let Some(spec) = child(object, "spec") else { return };
        set_default(spec, "revisionHistoryLimit", 10);
        set_default(spec, "progressDeadlineSeconds", 600);
        let Some(strategy) = child(spec, "strategy") else { return };
        default_text(strategy, "type", "RollingUpdate");
        if text(strategy, "/type") == "RollingUpdate"
            && let Some(rolling) = child(strategy, "rollingUpdate")
        {
            set_default(rolling, "maxUnavailable", "25%");
            set_default(rolling, "maxSurge", "25%");
        }
        set_default(object, "status", json!({}));
    }

    fn validate(&self, new: &Value, old: Option<&Value>, errors: &mut FieldErrors) {
        validate_workload(new, old, errors);
        strategy(new.pointer("/spec/strategy").unwrap_or(&Value::Null), errors);
        let (least, most) = (number(new, "/spec/minReadySeconds"), number(new, "/spec/progressDeadlineSeconds"));
        if let (Some(least), Some(most)) = (least, most)
            && most <= least
        {
            errors.invalid("spec.progressDeadlineSeconds", &most.into(), "must be greater than minReadySeconds");
        }
    }
}

fn strategy(strategy: &Value, errors: &mut FieldErrors) {
    let kind = text(strategy, "/type");
    let rolling = strategy.get("rollingUpdate").filter(|r| !r.is_null());
    match (kind, rolling) {
        ("RollingUpdate", Some(rolling)) => rolling_update(rolling, errors),
        ("Recreate", Some(_)) => {
            let why = "may not be specified when strategy `type` is 'Recreate'";
            errors.forbidden("spec.strategy.rollingUpdate", why);
        }
        ("Recreate" | "RollingUpdate", None) => {}
        (other, _) => errors.unsupported("spec.strategy.type", other, &STRATEGIES),
    }
}

fn rolling_update(rolling: &Value, errors: &mut FieldErrors) {
    let mut amounts = Vec::new();
    for (field, up) in [("maxUnavailable", false), ("maxSurge", true)] {
        let value = rolling.get(field).unwrap_or(&Value::Null);
        let at = format!("spec.strategy.rollingUpdate.{field}");
        match scaled(value, 100, up) {
            None => errors.invalid(at, value, "must be an integer or percentage (e.g '5%')"),
            Some(n) if n < 0 => errors.invalid(at, value, "must be greater than or equal to 0"),
            Some(n) if field == "maxUnavailable" && value.is_string() && n > 100 => {
                errors.invalid(at, value, "must not be greater than 100%");
            }
            Some(n) => amounts.push(n),
        }
    }
    if amounts == [0, 0] {
        let value = rolling.get("maxUnavailable").unwrap_or(&Value::Null);
        errors.invalid("spec.strategy.rollingUpdate.maxUnavailable", value, "may not be 0 when `maxSurge` is 0");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(spec: Value) -> Value {
        let mut object = json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
        json_patch::merge(&mut object["spec"], &spec);
        DeploymentKind::new().default(&mut object);
        object
    }

    fn fields_at_fault(spec: Value) -> Vec<String> {
        let mut errors = FieldErrors::default();
        DeploymentKind::new().validate(&deployment(spec), None, &mut errors);
        errors.0.into_iter().map(|c| c.field).collect()
    }

    #[test]
    fn defaults_are_those_of_the_real_server() {
        let spec = deployment(json!({}))["spec"].clone();
        assert_eq!((spec["replicas"].as_i64(), spec["revisionHistoryLimit"].as_i64()), (Some(1), Some(10)));
        let rolling = json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}});
        assert_eq!((&spec["strategy"], spec["progressDeadlineSeconds"].as_i64()), (&rolling, Some(600)));
        assert_eq!(spec["template"]["spec"]["restartPolicy"], "Always");
    }

    #[test]
    fn faults_are_named_by_field() {
        assert!(fields_at_fault(json!({})).is_empty());
        for (spec, field) in [
            (json!({"selector": {"matchLabels": {"a": "zz"}}}), "spec.template.metadata.labels"),
            (json!({"selector": null}), "spec.selector"),
            (json!({"replicas": -1}), "spec.replicas"),
            (json!({"strategy": {"type": "Magic"}}), "spec.strategy.type"),
            (
                json!({"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}}),
                "spec.strategy.rollingUpdate.maxUnavailable",
            ),
            (json!({"strategy": {"rollingUpdate": {"maxSurge": "many"}}}), "spec.strategy.rollingUpdate.maxSurge"),
            (json!({"template": {"spec": {"restartPolicy": "Never"}}}), "spec.template.spec.restartPolicy"),
            (json!({"template": {"spec": {"containers": []}}}), "spec.template.spec.containers"),
        ] {
            assert_eq!(fields_at_fault(spec.clone()), [field], "{spec}");
        }
    }

    #[test]
    fn the_selector_never_changes() {
        let (old, mut new) = (deployment(json!({})), deployment(json!({})));
        new["spec"]["selector"]["matchLabels"] = json!({"app": "zz"});
        let mut errors = FieldErrors::default();
        DeploymentKind::new().validate(&new, Some(&old), &mut errors);
        let want = "Invalid value: v1.LabelSelector{MatchLabels:map[string]string{\"app\":\"zz\"}, \
                    MatchExpressions:[]v1.LabelSelectorRequirement(nil)}: field is immutable";
        assert_eq!(errors.0[1].message, want);
    }
}
