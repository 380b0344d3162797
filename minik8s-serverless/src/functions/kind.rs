//! `Function` and `FunctionRevision`, as the server knows them.

use minik8s_core::api::Gvr;
use minik8s_core::api::names::dns_1035_label;
use minik8s_core::server::kinds::cells::{AGE, NAME, column, condition, integer, wide};
use minik8s_core::server::kinds::util::{child, default_text, names, number, set_default, text};
use minik8s_core::server::{Column, FieldErrors, Kind, KindNames, NameRule};
use serde_json::{Value, json};

/// Names of revisions, pods and Services are made of a function's name.
const LONGEST_NAME: usize = 46;
/// What runtimes there are.
const RUNTIMES: [&str; 3] = ["python", "node", "image"];

pub(crate) struct FunctionKind(KindNames);

impl FunctionKind {
    pub(crate) fn new() -> Self {
        Self(names(Gvr::new("minik8s.io", "v1alpha1", "functions"), "Function", &["fn"], false, true))
    }
}

static COLUMNS: [Column; 8] = [
    NAME,
    column("Runtime", |o, _| text(o, "/spec/runtime").into()),
    column("Revision", |o, _| text(o, "/status/revision").into()),
    column("Ready", |o, _| condition(o, "/status/conditions", "Ready").into()),
    integer("Instances", |o, _| number(o, "/status/instances").unwrap_or(0).into()),
    column("Url", |o, _| text(o, "/status/url").into()),
    AGE,
    wide("Handler", |o, _| text(o, "/spec/handler").into()),
];

impl Kind for FunctionKind {
    fn names(&self) -> &KindNames {
        &self.0
    }

    fn schema(&self) -> &str {
        "io.minik8s.v1alpha1.Function"
    }

    fn name_rule(&self) -> NameRule {
        NameRule::ServiceLabel
    }

    fn has_status(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn default(&self, object: &mut Value) {
        if let Some(spec) = object.get_mut("spec") {
            let runtime = if spec.get("source").is_some() { "python" } else { "image" };
            default_text(spec, "runtime", runtime);
            if text(spec, "/runtime") != "image" {
                default_text(spec, "handler", "main.main");
            }
            let defaults = [
                ("port", 8080),
                ("concurrency", 10),
                ("timeoutSeconds", 60),
                ("queue", 1000),
                ("maxBodyBytes", 10 << 20),
            ];
            defaults.into_iter().for_each(|(field, value)| set_default(spec, field, value));
            if let Some(scale) = child(spec, "scale") {
                let defaults = [("min", 0), ("max", 10), ("idleSeconds", 60)];
                defaults.into_iter().for_each(|(field, value)| set_default(scale, field, value));
            }
        }
        set_default(object, "status", json!({}));
    }

    fn validate(&self, new: &Value, _: Option<&Value>, errors: &mut FieldErrors) {
        let name = text(new, "/metadata/name");
        if name.len() > LONGEST_NAME {
            errors.too_long("metadata.name", LONGEST_NAME);
        }
        let runtime = text(new, "/spec/runtime");
        if !RUNTIMES.contains(&runtime) {
            errors.unsupported("spec.runtime", runtime, &RUNTIMES);
        }
        check_code(new, runtime, errors);
        let limits: [(&str, i64, i64); 10] = [
            ("port", 1, 65_535),
            ("concurrency", 0, 100_000),
            ("timeoutSeconds", 1, 86_400),
            ("queue", 0, 100_000),
            ("maxBodyBytes", 0, 1 << 40),
            ("canaryPercent", 0, 100),
            ("scale/min", 0, 10_000),
            ("scale/max", 1, 10_000),
            ("scale/idleSeconds", 1, 86_400),
            ("scale/pausedSeconds", 0, 604_800),
        ];
        for (field, least, most) in limits {
            if let Some(found) = number(new, &format!("/spec/{field}")).filter(|n| !(least..=most).contains(n)) {
                let field = format!("spec.{}", field.replace('/', "."));
                errors.invalid(field, &json!(found), &format!("must be between {least} and {most}"));
            }
        }
        if let (Some(min), Some(max)) = (number(new, "/spec/scale/min"), number(new, "/spec/scale/max"))
            && min > max
        {
            errors.invalid(
                "spec.scale.min",
                &json!(min),
                &format!("must not be more than spec.scale.max, which is {max}"),
            );
        }
        for field in ["target", "rate"] {
            let found = new.pointer(&format!("/spec/scale/{field}"));
            if let Some(found) = found.filter(|value| value.as_f64().is_some_and(|number| number <= 0.0)) {
                errors.invalid(format!("spec.scale.{field}"), found, "must be more than 0");
            }
        }
    }
}

/// What is run must be said, in one way.
fn check_code(new: &Value, runtime: &str, errors: &mut FieldErrors) {
    if runtime == "image" {
        if text(new, "/spec/image").is_empty() {
            errors.required("spec.image", "runtime image runs an image: name it, or create the function from files");
        }
        if new.pointer("/spec/source").is_some_and(|source| !source.is_null()) {
            errors.forbidden("spec.source", "runtime image has no source: its image holds all of it");
        }
        return;
    }
    if !text(new, "/spec/source/digest").strip_prefix("sha256:").is_some_and(is_digest) {
        errors.required("spec.source.digest", "upload the files with `minik8s function create NAME -f DIR`");
    }
    let handler = text(new, "/spec/handler");
    let word = |w: &str| !w.is_empty() && w.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if handler.split('.').count() < 2 || !handler.split('.').all(word) {
        errors.invalid_shown("spec.handler", handler, "must be FILE.FUNCTION, such as main.main");
    }
}

fn is_digest(hex: &str) -> bool {
    hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

pub(crate) struct RevisionKind(KindNames);

impl RevisionKind {
    pub(crate) fn new() -> Self {
        let gvr = Gvr::new("minik8s.io", "v1alpha1", "functionrevisions");
        Self(names(gvr, "FunctionRevision", &["fnrev"], false, true))
    }
}

static REVISION_COLUMNS: [Column; 7] = [
    NAME,
    column("Function", |o, _| text(o, "/spec/function").into()),
    integer("Number", |o, _| number(o, "/spec/number").unwrap_or(0).into()),
    column("Built", |o, _| condition(o, "/status/conditions", "Built").into()),
    column("Ready", |o, _| condition(o, "/status/conditions", "Ready").into()),
    AGE,
    wide("Image", |o, _| text(o, "/status/image").into()),
];

impl Kind for RevisionKind {
    fn names(&self) -> &KindNames {
        &self.0
    }

    fn schema(&self) -> &str {
        "io.minik8s.v1alpha1.FunctionRevision"
    }

    fn has_status(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        &REVISION_COLUMNS
    }

    fn default(&self, object: &mut Value) {
        set_default(object, "status", json!({}));
    }

    fn validate(&self, new: &Value, old: Option<&Value>, errors: &mut FieldErrors) {
        let function = text(new, "/spec/function");
        errors.complaints("spec.function", function, dns_1035_label(function));
        // Its number is its place among the others, not what it is.
        if old.is_some_and(|old| old.pointer("/spec/template") != new.pointer("/spec/template")) {
            errors.forbidden("spec.template", "a revision never changes: change the function");
        }
    }
}

/// Largest body of a call that is kept in the store.
pub(crate) const LARGEST_BODY: usize = 256 << 10;
/// Longest key that a caller may give.
pub(crate) const LONGEST_KEY: usize = 256;

pub(crate) struct InvocationKind(KindNames);

impl InvocationKind {
    pub(crate) fn new() -> Self {
        Self(names(Gvr::new("minik8s.io", "v1alpha1", "invocations"), "Invocation", &[], false, true))
    }
}

static INVOCATION_COLUMNS: [Column; 6] = [
    NAME,
    column("Function", |o, _| text(o, "/spec/function").into()),
    column("Phase", |o, _| text(o, "/status/phase").into()),
    integer("Attempts", |o, _| number(o, "/status/attempts").unwrap_or(0).into()),
    AGE,
    wide("Message", |o, _| text(o, "/status/message").into()),
];

impl Kind for InvocationKind {
    fn names(&self) -> &KindNames {
        &self.0
    }

    fn schema(&self) -> &str {
        "io.minik8s.v1alpha1.Invocation"
    }

    fn has_status(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        &INVOCATION_COLUMNS
    }

    fn default(&self, object: &mut Value) {
        if let Some(spec) = object.get_mut("spec") {
            default_text(spec, "body", "{}");
            set_default(spec, "ttlSeconds", 3600);
        }
        set_default(object, "status", json!({}));
    }

    fn validate(&self, new: &Value, old: Option<&Value>, errors: &mut FieldErrors) {
        let (function, body) = (text(new, "/spec/function"), text(new, "/spec/body"));
        errors.complaints("spec.function", function, dns_1035_label(function));
        if body.len() > LARGEST_BODY {
            errors.too_long("spec.body", LARGEST_BODY);
        } else if serde_json::from_str::<serde::de::IgnoredAny>(body).is_err() {
            errors.invalid_shown("spec.body", "", "must be JSON");
        }
        let key = text(new, "/spec/idempotencyKey");
        if key.len() > LONGEST_KEY || !key.bytes().all(|b| b == b' ' || b.is_ascii_graphic()) {
            let why = format!("must be at most {LONGEST_KEY} plain letters");
            errors.invalid("spec.idempotencyKey", &json!(key), &why);
        }
        if let Some(ttl) = number(new, "/spec/ttlSeconds").filter(|n| !(0..=604_800).contains(n)) {
            errors.invalid("spec.ttlSeconds", &json!(ttl), "must be between 0 and 604800");
        }
        if old.is_some_and(|old| old.pointer("/spec") != new.pointer("/spec")) {
            errors.forbidden("spec", "a call cannot be changed: make another");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(spec: Value) -> Vec<String> {
        let mut object = json!({"metadata": {"name": "f"}, "spec": spec});
        let mut errors = FieldErrors::default();
        FunctionKind::new().default(&mut object);
        FunctionKind::new().validate(&object, None, &mut errors);
        errors.0.into_iter().map(|c| c.field).collect()
    }

    #[test]
    fn functions_that_cannot_run_are_refused_by_field() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let table: [(Value, &[&str]); 10] = [
            (json!({"image": "x/y:1"}), &[]),
            (json!({"source": {"digest": digest}}), &[]),
            (json!({}), &["spec.image"]),
            (json!({"runtime": "python"}), &["spec.source.digest"]),
            (json!({"runtime": "cobol"}), &["spec.runtime", "spec.source.digest"]),
            (json!({"source": {"digest": digest}, "handler": "main"}), &["spec.handler"]),
            (json!({"source": {"digest": digest}, "handler": "../etc.main"}), &["spec.handler"]),
            (json!({"image": "x", "scale": {"min": 3, "max": 2}, "port": 0}), &["spec.port", "spec.scale.min"]),
            (json!({"image": "x", "scale": {"pausedSeconds": -1}}), &["spec.scale.pausedSeconds"]),
            (json!({"image": "x", "source": {"digest": digest}, "runtime": "image"}), &["spec.source"]),
        ];
        for (spec, want) in table {
            assert_eq!(fields(spec.clone()), want, "{spec}");
        }
    }

    #[test]
    fn a_revision_keeps_its_template() {
        let revision = |image: &str, number: i64| json!({"metadata": {"name": "f-1"}, "spec": {"function": "f", "number": number, "template": {"image": image}}});
        let complaints = |new: Value| {
            let mut errors = FieldErrors::default();
            RevisionKind::new().validate(&new, Some(&revision("a", 1)), &mut errors);
            errors.0.len()
        };
        assert_eq!((complaints(revision("a", 2)), complaints(revision("b", 1))), (0, 1));
    }
}
