//! What is wrong with an autoscaler.

use super::super::util::{items, number, text};
use crate::api::{FieldErrors, Quantity, Selector};
use serde_json::Value;

const SOURCES: [(&str, &str); 5] = [
    ("ContainerResource", "containerResource"),
    ("External", "external"),
    ("Object", "object"),
    ("Pods", "pods"),
    ("Resource", "resource"),
];
const TYPES: [&str; 5] = ["ContainerResource", "External", "Object", "Pods", "Resource"];
const TARGETS: [&str; 3] = ["AverageValue", "Utilization", "Value"];
const LONGEST_WINDOW: i64 = 3600;
const LONGEST_PERIOD: i64 = 1800;

pub(super) fn check(object: &Value, errors: &mut FieldErrors) {
    let spec = object.get("spec").unwrap_or(&Value::Null);
    let (min, max) = (number(spec, "/minReplicas").unwrap_or(1), number(spec, "/maxReplicas").unwrap_or_default());
    if min < 1 {
        errors.invalid("spec.minReplicas", &min.into(), "must be greater than or equal to 1");
    }
    if max < 1 {
        errors.invalid("spec.maxReplicas", &max.into(), "must be greater than 0");
    } else if max < min {
        errors.invalid("spec.maxReplicas", &max.into(), "must be greater than or equal to `minReplicas`");
    }
    for field in ["kind", "name"] {
        if text(spec, &format!("/scaleTargetRef/{field}")).is_empty() {
            errors.required(format!("spec.scaleTargetRef.{field}"), "");
        }
    }
    for (at, metric) in items(spec, "/metrics").enumerate() {
        check_metric(metric, &format!("spec.metrics[{at}]"), errors);
    }
    for direction in ["scaleUp", "scaleDown"] {
        if let Some(rules) = spec.pointer(&format!("/behavior/{direction}")).filter(|r| r.is_object()) {
            check_rules(rules, &format!("spec.behavior.{direction}"), errors);
        }
    }
}

fn check_metric(metric: &Value, at: &str, errors: &mut FieldErrors) {
    let kind = text(metric, "/type");
    let Some((_, field)) = SOURCES.iter().find(|(name, _)| *name == kind) else {
        if kind.is_empty() {
            return errors.required(format!("{at}.type"), "must specify a metric source type");
        }
        return errors.unsupported(format!("{at}.type"), kind, &TYPES);
    };
    let said = |field: &str| metric.get(field).filter(|v| v.is_object());
    let Some(source) = said(field) else {
        let why = "must populate information for the given metric source";
        return errors.required(format!("{at}.{field}"), why);
    };
    for (_, other) in SOURCES.iter().filter(|(_, other)| other != field && said(other).is_some()) {
        let why = "must populate the given metric source only";
        errors.forbidden(format!("{at}.{other}"), why);
    }
    let at = format!("{at}.{field}");
    match kind {
        "Resource" | "ContainerResource" => {
            let needed: &[&str] = if kind == "Resource" { &["name"] } else { &["name", "container"] };
            for need in needed.iter().filter(|need| text(source, &format!("/{need}")).is_empty()) {
                errors.required(format!("{at}.{need}"), &format!("must specify a {need}"));
            }
        }
        _ => check_identifier(source, &at, errors),
    }
    check_target(kind, source.get("target").unwrap_or(&Value::Null), &format!("{at}.target"), errors);
    if kind == "Object" {
        for field in ["kind", "name"] {
            if text(source, &format!("/describedObject/{field}")).is_empty() {
                errors.required(format!("{at}.describedObject.{field}"), "");
            }
        }
    }
}

fn check_identifier(source: &Value, at: &str, errors: &mut FieldErrors) {
    let name = text(source, "/metric/name");
    if name.is_empty() {
        errors.required(format!("{at}.metric.name"), "");
    } else if name.contains(['/', '%', '?', '#']) || matches!(name, "." | "..") {
        errors.invalid(format!("{at}.metric.name"), &name.into(), "may not contain '/', '%', '?' or '#'");
    }
    if let Some(selector) = source.pointer("/metric/selector").filter(|s| !s.is_null())
        && let Err(error) = Selector::from_value(selector)
    {
        errors.invalid(format!("{at}.metric.selector"), selector, &error.message);
    }
}

fn check_target(kind: &str, target: &Value, at: &str, errors: &mut FieldErrors) {
    let said = |field: &str| target.get(field).filter(|v| !v.is_null());
    let what = text(target, "/type");
    if what.is_empty() {
        errors.required(format!("{at}.type"), "must specify a metric target type");
    } else if !TARGETS.contains(&what) {
        errors.unsupported(format!("{at}.type"), what, &TARGETS);
    }
    for field in ["value", "averageValue"] {
        let positive = |v: &Value| Quantity::from_value(v).is_ok_and(|q| !q.is_zero() && !q.is_negative());
        if let Some(value) = said(field).filter(|v| !positive(v)) {
            errors.invalid(format!("{at}.{field}"), value, "must be positive");
        }
    }
    if let Some(percent) = said("averageUtilization").filter(|p| p.as_i64().is_none_or(|p| p < 1)) {
        errors.invalid(format!("{at}.averageUtilization"), percent, "must be greater than 0");
    }
    let (value, average, percent) = (said("value"), said("averageValue"), said("averageUtilization"));
    match kind {
        "Resource" | "ContainerResource" => match (percent.is_some(), average.is_some()) {
            (false, false) => errors.required(
                format!("{at}.averageUtilization"),
                "must set either a target raw value or a target utilization",
            ),
            (true, true) => {
                errors.forbidden(
                    format!("{at}.averageValue"),
                    "may not set both a target raw value and a target utilization",
                );
            }
            _ => {}
        },
        "Pods" if average.is_none() => {
            errors.required(format!("{at}.averageValue"), "must specify a positive target averageValue");
        }
        "Object" | "External" => match (value.is_some(), average.is_some()) {
            (false, false) => errors.required(
                format!("{at}.averageValue"),
                "must set either a target value for metric or a per-pod target",
            ),
            (true, true) if kind == "External" => {
                errors.forbidden(
                    format!("{at}.value"),
                    "may not set both a target value for metric and a per-pod target",
                );
            }
            _ => {}
        },
        _ => {}
    }
}

fn check_rules(rules: &Value, at: &str, errors: &mut FieldErrors) {
    if let Some(window) = number(rules, "/stabilizationWindowSeconds") {
        let field = format!("{at}.stabilizationWindowSeconds");
        match window {
            i64::MIN..0 => errors.invalid(field, &window.into(), "must be greater than or equal to zero"),
            0..=LONGEST_WINDOW => {}
            _ => errors.invalid(field, &window.into(), "must be less than or equal to 3600"),
        }
    }
    let select = text(rules, "/selectPolicy");
    if !select.is_empty() && !["Disabled", "Max", "Min"].contains(&select) {
        errors.unsupported(format!("{at}.selectPolicy"), select, &["Disabled", "Max", "Min"]);
    }
    if items(rules, "/policies").next().is_none() {
        errors.required(format!("{at}.policies"), "must specify at least one Policy");
    }
    if let Some(tolerance) = rules.get("tolerance").filter(|t| !t.is_null())
        && Quantity::from_value(tolerance).is_ok_and(|q| q.is_negative())
    {
        errors.invalid(format!("{at}.tolerance"), tolerance, "must be greater than or equal to zero");
    }
    for (index, policy) in items(rules, "/policies").enumerate() {
        let at = format!("{at}.policies[{index}]");
        let kind = text(policy, "/type");
        if !["Percent", "Pods"].contains(&kind) {
            errors.unsupported(format!("{at}.type"), kind, &["Percent", "Pods"]);
        }
        let amount = |field: &str| number(policy, &format!("/{field}")).unwrap_or_default();
        for field in ["value", "periodSeconds"].into_iter().filter(|field| amount(field) <= 0) {
            errors.invalid(format!("{at}.{field}"), &amount(field).into(), "must be greater than zero");
        }
        if amount("periodSeconds") > LONGEST_PERIOD {
            errors.invalid(
                format!("{at}.periodSeconds"),
                &amount("periodSeconds").into(),
                "must be less than or equal to 1800",
            );
        }
    }
}
