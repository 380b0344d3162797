//! `Ingress`: hosts and paths that lead to Services.

use super::cells::{AGE, NAME, column};
use super::hosts::{check_host, check_path, check_port, check_regex};
use super::util::{items, names, set, set_default, text};
use crate::api::names::dns_1035_label;
use crate::api::{ApiResult, Gvr};
use crate::server::{Column, FieldErrors, Kind, KindNames, WriteContext};
use async_trait::async_trait;
use serde_json::{Value, json};

/// Names a class where the field does not; from before there was a field.
const OLD_CLASS: &str = "kubernetes.io/ingress.class";
/// Marks the class of Ingresses that name none.
const IS_DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";
/// Paths of type `ImplementationSpecific` are expressions.
const USE_REGEX: &str = "minik8s.io/use-regex";
const PATH_TYPES: [&str; 3] = ["Exact", "ImplementationSpecific", "Prefix"];

pub(crate) struct IngressKind(KindNames);

impl IngressKind {
    pub(crate) fn new() -> Self {
        Self(names(Gvr::new("networking.k8s.io", "v1", "ingresses"), "Ingress", &["ing"], false, true))
    }
}

static COLUMNS: [Column; 6] = [
    NAME,
    column("Class", |o, _| match text(o, "/spec/ingressClassName") {
        "" => annotation(o, OLD_CLASS).unwrap_or("<none>").into(),
        class => class.into(),
    }),
    column("Hosts", |o, _| {
        let hosts: Vec<&str> = items(o, "/spec/rules").map(|r| text(r, "/host")).filter(|h| !h.is_empty()).collect();
        if hosts.is_empty() { "*".into() } else { hosts.join(",").into() }
    }),
    column("Address", |o, _| super::cells::joined(o, "/status/loadBalancer/ingress", "ip").into()),
    column("Ports", |o, _| if items(o, "/spec/tls").next().is_some() { "80, 443" } else { "80" }.into()),
    AGE,
];

fn annotation<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    object.pointer("/metadata/annotations")?.get(name)?.as_str()
}

#[async_trait]
impl Kind for IngressKind {
    fn names(&self) -> &KindNames {
        &self.0
    }

    fn schema(&self) -> &str {
        "io.k8s.api.networking.v1.Ingress"
    }

    fn has_status(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn default(&self, object: &mut Value) {
        set_default(object, "status", json!({"loadBalancer": {}}));
    }

    /// Gives new ones that name no class the default one.
    async fn admit(&self, new: &mut Value, old: Option<&Value>, ctx: &dyn WriteContext) -> ApiResult<()> {
        let named = new.pointer("/spec/ingressClassName").is_some_and(|class| !class.is_null());
        if old.is_some() || named || annotation(new, OLD_CLASS).is_some() {
            return Ok(());
        }
        let classes = ctx.all(&super::ingress_class::gvr(), false).await?;
        let default = classes.iter().filter(|class| annotation(class, IS_DEFAULT) == Some("true"));
        // Of several, the one that was made last, as upstream has it.
        let default = default.max_by_key(|class| text(class, "/metadata/creationTimestamp").to_owned());
        if let (Some(class), Some(spec)) = (default, new.get_mut("spec")) {
            set(spec, "ingressClassName", class["metadata"]["name"].clone());
        }
        Ok(())
    }

    fn validate(&self, new: &Value, _: Option<&Value>, errors: &mut FieldErrors) {
        let spec = new.get("spec").unwrap_or(&Value::Null);
        let said = |field: &str| spec.get(field).filter(|v| !v.is_null());
        if items(spec, "/rules").next().is_none() && said("defaultBackend").is_none() {
            let why = "either `defaultBackend` or `rules` must be specified";
            errors.invalid_shown("spec", "\"\"", why);
        }
        let regex = annotation(new, USE_REGEX) == Some("true");
        if let Some(backend) = said("defaultBackend") {
            check_backend("spec.defaultBackend", backend, errors);
        }
        for (index, rule) in items(spec, "/rules").enumerate() {
            check_rule(&format!("spec.rules[{index}]"), rule, regex, errors);
        }
        for (index, tls) in items(spec, "/tls").enumerate() {
            for (number, host) in items(tls, "/hosts").enumerate() {
                let host = host.as_str().unwrap_or_default();
                check_host(&format!("spec.tls[{index}].hosts[{number}]"), host, errors);
            }
        }
    }
}

fn check_rule(field: &str, rule: &Value, regex: bool, errors: &mut FieldErrors) {
    let host = text(rule, "/host");
    if !host.is_empty() {
        check_host(&format!("{field}.host"), host, errors);
    }
    if rule.get("http").is_some_and(|http| !http.is_null()) && items(rule, "/http/paths").next().is_none() {
        errors.required(format!("{field}.http.paths"), "");
    }
    for (number, path) in items(rule, "/http/paths").enumerate() {
        let field = format!("{field}.http.paths[{number}]");
        let (at, value) = (format!("{field}.path"), text(path, "/path"));
        match text(path, "/pathType") {
            "" => errors.required(format!("{field}.pathType"), "pathType must be specified"),
            "Exact" | "Prefix" => check_path(&at, value, errors),
            "ImplementationSpecific" if regex => check_regex(&at, value, errors),
            "ImplementationSpecific" if value.is_empty() => {}
            "ImplementationSpecific" => check_path(&at, value, errors),
            other => errors.unsupported(format!("{field}.pathType"), other, &PATH_TYPES),
        }
        check_backend(&format!("{field}.backend"), &path["backend"], errors);
    }
}

fn check_backend(field: &str, backend: &Value, errors: &mut FieldErrors) {
    let said = |name: &str| backend.get(name).filter(|v| !v.is_null());
    let service = match (said("service"), said("resource")) {
        (Some(_), Some(_)) => {
            return errors.invalid_shown(field, "\"\"", "cannot set both resource and service backends");
        }
        (None, None) => return errors.required(field, "resource or service backend is required"),
        (None, Some(_)) => return,
        (Some(service), None) => service,
    };
    let (at, name) = (format!("{field}.service.name"), text(service, "/name"));
    if name.is_empty() {
        errors.required(at, "");
    } else {
        errors.complaints(&at, name, dns_1035_label(name));
    }
    let (named, number) = (text(service, "/port/name"), service.pointer("/port/number").and_then(Value::as_i64));
    match (named.is_empty(), number.unwrap_or(0)) {
        (true, 0) => errors.required(format!("{field}.service.port"), "port name or number is required"),
        (false, number) if number != 0 => {
            errors.invalid_shown(format!("{field}.service.port"), "\"\"", "cannot set both port name & port number");
        }
        (true, number) => check_port(&format!("{field}.service.port.number"), Some(number), errors),
        (false, _) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ingresses_that_lead_nowhere_are_refused_by_field() {
        let fields = |spec: Value| {
            let mut errors = FieldErrors::default();
            let object = json!({"metadata": {"annotations": {"minik8s.io/use-regex": "true"}}, "spec": spec});
            IngressKind::new().validate(&object, None, &mut errors);
            errors.0.into_iter().map(|c| c.field).collect::<Vec<_>>()
        };
        let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
        let path = |path: &str, kind: &str| {
            let path = json!({"path": path, "pathType": kind, "backend": backend});
            json!({"rules": [{"host": "a.example", "http": {"paths": [path]}}]})
        };
        let p = "spec.rules[0].http.paths[0]";
        let table = [
            (json!({"defaultBackend": backend}), vec![]),
            (json!({}), vec!["spec".to_owned()]),
            (path("/x", "Prefix"), vec![]),
            (path("x", "Exact"), vec![format!("{p}.path")]),
            (path("/a/../b", "Prefix"), vec![format!("{p}.path")]),
            (path("/x", ""), vec![format!("{p}.pathType")]),
            (path("/x", "Longest"), vec![format!("{p}.pathType")]),
            (path("/x/[0-9]+", "ImplementationSpecific"), vec![]),
            (path("/x/(", "ImplementationSpecific"), vec![format!("{p}.path")]),
            (path("/(a{1000}){1000}", "ImplementationSpecific"), vec![format!("{p}.path")]),
            (json!({"rules": [{"host": "1.2.3.4"}]}), vec!["spec.rules[0].host".into()]),
            (json!({"rules": [{"host": "*.a.example"}]}), vec![]),
            (json!({"rules": [{"host": "a.*.example"}]}), vec!["spec.rules[0].host".into()]),
            (json!({"rules": [{"http": {"paths": []}}]}), vec!["spec.rules[0].http.paths".into()]),
            (
                json!({"defaultBackend": {"service": {"name": "", "port": {}}}}),
                vec!["spec.defaultBackend.service.name".into(), "spec.defaultBackend.service.port".into()],
            ),
            (
                json!({"defaultBackend": {"service": {"name": "x", "port": {"number": 70000}}}}),
                vec!["spec.defaultBackend.service.port.number".into()],
            ),
        ];
        for (spec, want) in table {
            assert_eq!(fields(spec.clone()), want, "{spec}");
        }
    }
}
