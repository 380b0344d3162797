//! `HTTPRoute`: which requests go where.

use super::cells::{AGE, NAME, column};
use super::hosts::{check_host, check_path, check_port, check_regex, check_word};
use super::util::{child, default_text, items, items_mut, names, number, set_default, text};
use crate::api::Gvr;
use crate::routing::duration;
use crate::server::{Column, FieldErrors, Kind, KindNames};
use serde_json::{Value, json};

pub(crate) struct HttpRouteKind(KindNames);

impl HttpRouteKind {
    pub(crate) fn new() -> Self {
        Self(names(Gvr::new("gateway.networking.k8s.io", "v1", "httproutes"), "HTTPRoute", &[], false, true))
    }
}

static COLUMNS: [Column; 3] = [
    NAME,
    column("Hostnames", |o, _| match o.pointer("/spec/hostnames").filter(|h| !h.is_null()) {
        Some(hosts) => hosts.to_string().into(),
        None => "".into(),
    }),
    AGE,
];

const PATHS: [&str; 3] = ["Exact", "PathPrefix", "RegularExpression"];
const VALUES: [&str; 2] = ["Exact", "RegularExpression"];
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
const MODIFIERS: [&str; 2] = ["ReplaceFullPath", "ReplacePrefixMatch"];
const FILTERS: [(&str, &str); 6] = [
    ("RequestHeaderModifier", "requestHeaderModifier"),
    ("ResponseHeaderModifier", "responseHeaderModifier"),
    ("RequestMirror", "requestMirror"),
    ("RequestRedirect", "requestRedirect"),
    ("URLRewrite", "urlRewrite"),
    ("ExtensionRef", "extensionRef"),
];

impl Kind for HttpRouteKind {
    fn names(&self) -> &KindNames {
        &self.0
    }

    fn schema(&self) -> &str {
        "io.k8s.networking.gateway.v1.HTTPRoute"
    }

    fn has_status(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn default(&self, object: &mut Value) {
        let Some(spec) = object.get_mut("spec").filter(|spec| spec.is_object()) else { return };
        for parent in items_mut(spec, "parentRefs") {
            default_text(parent, "group", "gateway.networking.k8s.io");
            default_text(parent, "kind", "Gateway");
        }
        set_default(spec, "rules", json!([{}]));
        items_mut(spec, "rules").for_each(default_rule);
    }

    fn validate(&self, new: &Value, _: Option<&Value>, errors: &mut FieldErrors) {
        for (index, host) in items(new, "/spec/hostnames").enumerate() {
            check_host(&format!("spec.hostnames[{index}]"), host.as_str().unwrap_or_default(), errors);
        }
        for (index, parent) in items(new, "/spec/parentRefs").enumerate() {
            if text(parent, "/name").is_empty() {
                errors.required(format!("spec.parentRefs[{index}].name"), "");
            }
        }
        for (index, rule) in items(new, "/spec/rules").enumerate() {
            check_rule(&format!("spec.rules[{index}]"), rule, errors);
        }
    }
}

fn default_rule(rule: &mut Value) {
    set_default(rule, "matches", json!([{"path": {"type": "PathPrefix", "value": "/"}}]));
    for one in items_mut(rule, "matches") {
        if let Some(path) = child(one, "path") {
            default_text(path, "type", "PathPrefix");
            default_text(path, "value", "/");
        }
        items_mut(one, "headers").for_each(|header| default_text(header, "type", "Exact"));
        items_mut(one, "queryParams").for_each(|parameter| default_text(parameter, "type", "Exact"));
    }
    items_mut(rule, "backendRefs").for_each(|backend| {
        default_reference(backend);
        set_default(backend, "weight", 1);
    });
    for filter in items_mut(rule, "filters") {
        if let Some(mirror) = filter.get_mut("requestMirror").and_then(|m| m.get_mut("backendRef")) {
            default_reference(mirror);
        }
        if let Some(redirect) = filter.get_mut("requestRedirect").filter(|r| r.is_object()) {
            set_default(redirect, "statusCode", 302);
        }
    }
}

fn default_reference(reference: &mut Value) {
    set_default(reference, "group", "");
    default_text(reference, "kind", "Service");
}

fn check_rule(field: &str, rule: &Value, errors: &mut FieldErrors) {
    for (index, one) in items(rule, "/matches").enumerate() {
        check_match(&format!("{field}.matches[{index}]"), one, errors);
    }
    let prefix = items(rule, "/matches").all(|one| text(one, "/path/type") == "PathPrefix");
    for (index, filter) in items(rule, "/filters").enumerate() {
        check_filter(&format!("{field}.filters[{index}]"), filter, prefix, errors);
    }
    let has = |name: &str| items(rule, "/filters").any(|f| text(f, "/type") == name);
    if has("RequestRedirect") && items(rule, "/backendRefs").next().is_some() {
        errors.forbidden(format!("{field}.backendRefs"), "a rule that redirects has no backends");
    }
    if has("RequestRedirect") && has("URLRewrite") {
        errors.forbidden(format!("{field}.filters"), "a rule redirects or rewrites, not both");
    }
    for (index, backend) in items(rule, "/backendRefs").enumerate() {
        let field = format!("{field}.backendRefs[{index}]");
        check_reference(&field, backend, errors);
        if let Some(weight) = number(backend, "/weight").filter(|weight| !(0..=1_000_000).contains(weight)) {
            errors.invalid(format!("{field}.weight"), &weight.into(), "must be between 0 and 1000000, inclusive");
        }
    }
    check_times(field, rule, errors);
}

fn check_times(field: &str, rule: &Value, errors: &mut FieldErrors) {
    let mut found = [None, None];
    for (place, name) in found.iter_mut().zip(["request", "backendRequest"]) {
        *place = check_duration(&format!("{field}.timeouts.{name}"), text(rule, &format!("/timeouts/{name}")), errors);
    }
    if let [Some(whole), Some(one)] = found
        && one > whole
        && !whole.is_zero()
    {
        let why = "must not be longer than timeouts.request";
        errors.invalid(format!("{field}.timeouts.backendRequest"), &rule["timeouts"]["backendRequest"], why);
    }
    check_duration(&format!("{field}.retry.backoff"), text(rule, "/retry/backoff"), errors);
    for (index, code) in items(rule, "/retry/codes").enumerate() {
        if !code.as_i64().is_some_and(|code| (400..=599).contains(&code)) {
            errors.invalid(format!("{field}.retry.codes[{index}]"), code, "must be between 400 and 599, inclusive");
        }
    }
    let session = format!("{field}.sessionPersistence");
    check_word(&format!("{session}.type"), rule, "/sessionPersistence/type", &["Cookie", "Header"], errors);
    check_duration(&format!("{session}.absoluteTimeout"), text(rule, "/sessionPersistence/absoluteTimeout"), errors);
}

fn check_duration(field: &str, value: &str, errors: &mut FieldErrors) -> Option<std::time::Duration> {
    let found = duration(value);
    if found.is_none() && !value.is_empty() {
        errors.invalid(field, &value.into(), "must be a duration such as 500ms, 10s or 1h30m");
    }
    found
}

fn check_match(field: &str, one: &Value, errors: &mut FieldErrors) {
    let (at, value) = (format!("{field}.path.value"), text(one, "/path/value"));
    match text(one, "/path/type") {
        "Exact" | "PathPrefix" => check_path(&at, value, errors),
        "RegularExpression" => check_regex(&at, value, errors),
        other => errors.unsupported(format!("{field}.path.type"), other, &PATHS),
    }
    check_word(&format!("{field}.method"), one, "/method", &METHODS, errors);
    for list in ["headers", "queryParams"] {
        for (index, named) in items(one, &format!("/{list}")).enumerate() {
            let field = format!("{field}.{list}[{index}]");
            let name = text(named, "/name");
            if name.is_empty() {
                errors.required(format!("{field}.name"), "");
            } else if list == "headers" {
                check_header(&format!("{field}.name"), name, errors);
            }
            check_word(&format!("{field}.type"), named, "/type", &VALUES, errors);
            if text(named, "/type") == "RegularExpression" {
                check_regex(&format!("{field}.value"), text(named, "/value"), errors);
            }
        }
    }
}

fn check_header(field: &str, name: &str, errors: &mut FieldErrors) {
    if http::HeaderName::from_bytes(name.as_bytes()).is_err() {
        errors.invalid(field, &name.into(), "must be the name of a header");
    }
}

fn check_filter(field: &str, filter: &Value, prefix: bool, errors: &mut FieldErrors) {
    let kind = text(filter, "/type");
    let Some((_, own)) = FILTERS.iter().find(|(name, _)| *name == kind) else {
        return errors.unsupported(format!("{field}.type"), kind, &FILTERS.map(|(name, _)| name));
    };
    if filter.get(*own).is_none_or(Value::is_null) {
        errors.required(format!("{field}.{own}"), &format!("filters of type {kind} need it"));
    }
    for (_, other) in FILTERS.iter().filter(|(name, _)| *name != kind) {
        if filter.get(*other).is_some_and(|value| !value.is_null()) {
            errors.forbidden(format!("{field}.{other}"), &format!("not for filters of type {kind}"));
        }
    }
    for list in ["set", "add"] {
        for (index, header) in items(filter, &format!("/{own}/{list}")).enumerate() {
            let field = format!("{field}.{own}.{list}[{index}]");
            check_header(&format!("{field}.name"), text(header, "/name"), errors);
            if http::HeaderValue::from_str(text(header, "/value")).is_err() {
                errors.invalid(format!("{field}.value"), &header["value"], "must be the value of a header");
            }
        }
    }
    if let Some(mirror) = filter.get("requestMirror").filter(|mirror| mirror.is_object()) {
        check_mirror(&format!("{field}.requestMirror"), mirror, errors);
    }
    check_change(&format!("{field}.{own}"), &filter[*own], prefix, errors);
}

fn check_mirror(field: &str, mirror: &Value, errors: &mut FieldErrors) {
    check_reference(&format!("{field}.backendRef"), &mirror["backendRef"], errors);
    let percent = number(mirror, "/percent");
    if let Some(percent) = percent.filter(|percent| !(0..=100).contains(percent)) {
        errors.invalid(format!("{field}.percent"), &percent.into(), "must be between 0 and 100, inclusive");
    }
    let fraction = mirror.get("fraction").filter(|fraction| !fraction.is_null());
    if let Some(fraction) = fraction {
        let (some, all) = (number(fraction, "/numerator"), number(fraction, "/denominator").unwrap_or(100));
        if !some.is_some_and(|some| (0..=all).contains(&some)) || all < 1 {
            errors.invalid(format!("{field}.fraction"), fraction, "must be from 0 of something to all of it");
        }
    }
    if percent.is_some() && fraction.is_some() {
        errors.forbidden(field, "says percent or fraction, not both");
    }
}

/// Of a redirect or a rewrite.
fn check_change(field: &str, change: &Value, prefix: bool, errors: &mut FieldErrors) {
    if !change.get("path").is_none_or(Value::is_null) {
        let kind = text(change, "/path/type");
        if !MODIFIERS.contains(&kind) {
            errors.unsupported(format!("{field}.path.type"), kind, &MODIFIERS);
        } else if kind == "ReplacePrefixMatch" && !prefix {
            let why = "only where all matches of the rule are of type PathPrefix";
            errors.invalid(format!("{field}.path.type"), &kind.into(), why);
        }
    }
    check_word(&format!("{field}.scheme"), change, "/scheme", &["http", "https"], errors);
    if let Some(code) = number(change, "/statusCode").filter(|code| ![301, 302, 303, 307, 308].contains(code)) {
        errors.unsupported(format!("{field}.statusCode"), &code.to_string(), &["301", "302", "303", "307", "308"]);
    }
    let host = text(change, "/hostname");
    if !host.is_empty() {
        errors.complaints(&format!("{field}.hostname"), host, crate::api::names::dns_subdomain(host));
    }
}

fn check_reference(field: &str, reference: &Value, errors: &mut FieldErrors) {
    if text(reference, "/name").is_empty() {
        errors.required(format!("{field}.name"), "");
    }
    if text(reference, "/kind") == "Service" {
        check_port(&format!("{field}.port"), number(reference, "/port"), errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_that_make_no_sense_are_refused_by_field() {
        let fields = |rule: Value| {
            let mut object = json!({"spec": {"rules": [rule]}});
            let mut errors = FieldErrors::default();
            HttpRouteKind::new().default(&mut object);
            HttpRouteKind::new().validate(&object, None, &mut errors);
            errors.0.into_iter().map(|c| c.field.replace("spec.rules[0]", "")).collect::<Vec<_>>()
        };
        let backend = |weight: i64| json!({"name": "web", "port": 80, "weight": weight});
        let path = |kind: &str, value: &str| json!({"matches": [{"path": {"type": kind, "value": value}}]});
        let mirror = |share: Value| {
            let mut mirror = json!({"backendRef": {"name": "web", "port": 80}});
            mirror.as_object_mut().unwrap().extend(share.as_object().unwrap().clone());
            json!({"filters": [{"type": "RequestMirror", "requestMirror": mirror}]})
        };
        let table: [(Value, &[&str]); 19] = [
            (json!({}), &[]),
            (json!({"backendRefs": [backend(1), backend(0)]}), &[]),
            (json!({"backendRefs": [backend(0), backend(0)]}), &[]),
            (mirror(json!({"percent": 101})), &[".filters[0].requestMirror.percent"]),
            (mirror(json!({"fraction": {"numerator": 3, "denominator": 2}})), &[".filters[0].requestMirror.fraction"]),
            (mirror(json!({"fraction": {"numerator": 3, "denominator": 0}})), &[".filters[0].requestMirror.fraction"]),
            (mirror(json!({"fraction": {"numerator": 1}, "percent": 1})), &[".filters[0].requestMirror"]),
            (mirror(json!({"fraction": {"numerator": 1, "denominator": 1000}})), &[]),
            (json!({"backendRefs": [backend(-1), backend(9)]}), &[".backendRefs[0].weight"]),
            (json!({"backendRefs": [{"name": "x"}]}), &[".backendRefs[0].port"]),
            (path("RegularExpression", "/(a|b)+"), &[]),
            (path("RegularExpression", "/("), &[".matches[0].path.value"]),
            (path("RegularExpression", "(a{999}){999}"), &[".matches[0].path.value"]),
            (path("Prefix", "/"), &[".matches[0].path.type"]),
            (json!({"matches": [{"method": "FETCH"}]}), &[".matches[0].method"]),
            (json!({"filters": [{"type": "URLRewrite"}]}), &[".filters[0].urlRewrite"]),
            (
                json!({"matches": [{"path": {"type": "Exact", "value": "/x"}}], "filters": [{"type": "URLRewrite",
                    "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}}}]}),
                &[".filters[0].urlRewrite.path.type"],
            ),
            (json!({"timeouts": {"request": "1s", "backendRequest": "2s"}}), &[".timeouts.backendRequest"]),
            (json!({"timeouts": {"request": "soon"}}), &[".timeouts.request"]),
        ];
        for (rule, want) in table {
            assert_eq!(fields(rule.clone()), want, "{rule}");
        }
    }
}
