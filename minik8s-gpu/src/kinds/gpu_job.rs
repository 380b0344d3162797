//! `GpuJob`: a batch job.

use super::check::{between, image, script, word};
use super::{AGE, ArchiveReference, GROUP, GpuJob, GpuJobSpec, MOST_PARTS, NAME, VERSION, column, names, text, wide};
use crate::outputs::Outputs;
use minik8s_core::api::Quantity;
use minik8s_core::api::names::dns_subdomain;
use minik8s_core::job::{Array, FileName};
use minik8s_core::server::{ActionNames, Column, FieldErrors, Kind, KindNames, Readable};
use serde_json::{Value, json};
use std::sync::Arc;

/// The kind `GpuJob`.
pub struct GpuJobKind {
    names: KindNames,
    outputs: Arc<Outputs>,
}

impl GpuJobKind {
    /// The kind, with the files that its sub-resources `log` and `results` are read from.
    pub fn new(outputs: Arc<Outputs>) -> Self {
        Self { names: names("gpujobs", "GpuJob", &["gj"]), outputs }
    }
}

/// Tasks of one array, at most.
pub(crate) const MOST_TASKS: usize = 1000;

static COLUMNS: [Column; 8] = [
    NAME,
    column("Cluster", "", |o, _| text(o, "/spec/cluster").into()),
    column("Phase", "", |o, _| text(o, "/status/phase").into()),
    column("Job", "", |o, _| text(o, "/status/jobId").into()),
    column("Exit", "", |o, _| o.pointer("/status/exitCode").map(ToString::to_string).unwrap_or_default().into()),
    column("Reason", "", |o, _| text(o, "/status/reason").into()),
    wide("Nodes", |o, _| text(o, "/status/nodes").into()),
    AGE,
];

static ACTIONS: [ActionNames; 2] = [
    ActionNames { name: "log", group: GROUP, version: VERSION, kind: "GpuJob", verbs: &["get"] },
    ActionNames { name: "results", group: GROUP, version: VERSION, kind: "GpuJob", verbs: &["get"] },
];

impl Kind for GpuJobKind {
    fn names(&self) -> &KindNames {
        &self.names
    }

    fn schema(&self) -> &str {
        "io.minik8s.jobs.v1alpha1.GpuJob"
    }

    fn has_status(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn actions(&self) -> &'static [ActionNames] {
        &ACTIONS
    }

    fn readable(&self) -> Option<&dyn Readable> {
        Some(self.outputs.as_ref())
    }

    fn default(&self, object: &mut Value) {
        if let Some(map) = object.as_object_mut() {
            map.entry("status").or_insert_with(|| json!({"phase": "Pending"}));
        }
        for item in object.pointer_mut("/spec/dependencies").and_then(Value::as_array_mut).into_iter().flatten() {
            if item["condition"].as_str().is_none_or(str::is_empty) {
                item["condition"] = "Succeeded".into();
            }
        }
    }

    fn validate(&self, new: &Value, old: Option<&Value>, errors: &mut FieldErrors) {
        let Ok(job) = serde_json::from_value::<GpuJob>(new.clone()) else {
            return errors.invalid_shown("spec", "an object", "does not have the form of a GpuJob");
        };
        check(&job.spec, errors);
        if let Some(old) = old {
            unchanging(new, old, errors);
        }
    }
}

/// What has been handed over cannot be changed; how it goes on can.
fn unchanging(new: &Value, old: &Value, errors: &mut FieldErrors) {
    const MAY_CHANGE: [&str; 4] = ["suspend", "cancel", "ttlSecondsAfterFinished", "backoffLimit"];
    let fields = |object: &Value| object["spec"].as_object().cloned().unwrap_or_default();
    let (new, old) = (fields(new), fields(old));
    let all: std::collections::BTreeSet<&String> = new.keys().chain(old.keys()).collect();
    for name in all.into_iter().filter(|name| !MAY_CHANGE.contains(&name.as_str())) {
        let of = |fields: &serde_json::Map<String, Value>| fields.get(name).cloned().unwrap_or_default();
        errors.immutable(format!("spec.{name}"), &of(&new), &of(&old));
    }
}

fn check(spec: &GpuJobSpec, errors: &mut FieldErrors) {
    if spec.cluster.is_empty() {
        errors.required("spec.cluster", "the name of a JobCluster in this namespace");
    } else {
        errors.complaints("spec.cluster", &spec.cluster, dns_subdomain(&spec.cluster));
    }
    spec.image.iter().for_each(|value| image("spec.image", value, errors));
    let words = [("partition", &spec.partition, ","), ("account", &spec.account, "@"), ("qos", &spec.qos, "")];
    for (name, value, also) in words.into_iter().chain([("constraint", &spec.constraint, "&|[]()*,!:=@")]) {
        value.iter().for_each(|value| word(&format!("spec.{name}"), value, also, errors));
    }
    for (name, value) in
        [("tasks", spec.tasks), ("tasksPerNode", spec.tasks_per_node), ("cpusPerTask", spec.cpus_per_task)]
    {
        between(&format!("spec.{name}"), value.map(i64::from), 1, 100_000, errors);
    }
    if let Some(gpus) = &spec.gpus {
        between("spec.gpus.count", Some(gpus.count.into()), 1, 1024, errors);
        gpus.kind.iter().for_each(|kind| word("spec.gpus.type", kind, "", errors));
    }
    between("spec.timeLimitSeconds", spec.time_limit_seconds, 1, 366 * 86_400, errors);
    between("spec.backoffLimit", spec.backoff_limit.map(i64::from), 0, 100, errors);
    between("spec.ttlSecondsAfterFinished", spec.ttl_seconds_after_finished, 0, i64::from(i32::MAX), errors);
    if let Some(memory) = &spec.memory
        && !memory.parse::<Quantity>().is_ok_and(|memory| memory.value() >= 1 << 20)
    {
        errors.invalid("spec.memory", &Value::from(memory.as_str()), "must be a quantity of at least 1Mi");
    }
    if let Some(array) = &spec.array
        && let Err(why) = Array::parse(array, MOST_TASKS)
    {
        errors.invalid("spec.array", &Value::from(array.as_str()), &why);
    }
    check_env(spec, errors);
    check_files(spec, errors);
}

fn check_env(spec: &GpuJobSpec, errors: &mut FieldErrors) {
    for (index, module) in spec.modules.iter().enumerate() {
        word(&format!("spec.modules[{index}]"), module, "/+", errors);
    }
    for (index, variable) in spec.env.iter().enumerate() {
        let field = format!("spec.env[{index}]");
        let first = |c: char| c.is_ascii_alphabetic() || c == '_';
        let shell = variable.name.starts_with(first) && variable.name.chars().all(|c| first(c) || c.is_ascii_digit());
        if !shell || variable.name.len() > 256 {
            let why = "must be letters, digits and underscores, and not begin with a digit";
            errors.invalid(format!("{field}.name"), &Value::from(variable.name.as_str()), why);
        }
        if variable.value.is_some() && variable.value_from.is_some() {
            errors.forbidden(format!("{field}.valueFrom"), "may not be specified where value is");
        }
        variable.value.iter().for_each(|value| script(&format!("{field}.value"), value, errors));
        if let Some(from) = &variable.value_from
            && (from.secret_key_ref.is_some() == from.config_map_key_ref.is_some())
        {
            errors.required(format!("{field}.valueFrom"), "one of secretKeyRef and configMapKeyRef");
        }
        let from = variable.value_from.iter();
        for (kind, key) in
            from.flat_map(|from| [("secret", &from.secret_key_ref), ("configMap", &from.config_map_key_ref)])
        {
            let Some(key) = key else { continue };
            errors.complaints(&format!("{field}.valueFrom.{kind}KeyRef.name"), &key.name, dns_subdomain(&key.name));
        }
    }
    for (index, dependency) in spec.dependencies.iter().enumerate() {
        let field = format!("spec.dependencies[{index}]");
        errors.complaints(&format!("{field}.job"), &dependency.job, dns_subdomain(&dependency.job));
        let known = ["Succeeded", "Failed", "Ended"];
        if !known.contains(&dependency.condition.as_str()) {
            errors.unsupported(format!("{field}.condition"), &dependency.condition, &known);
        }
    }
}

fn check_files(spec: &GpuJobSpec, errors: &mut FieldErrors) {
    if spec.run.trim().is_empty() {
        errors.required("spec.run", "the commands of the job");
    }
    script("spec.run", &spec.run, errors);
    spec.compile.iter().for_each(|compile| script("spec.compile", compile, errors));
    for (name, file) in [("output", &spec.output), ("error", &spec.error)] {
        if let Some((file, why)) = file.as_ref().and_then(|file| Some((file, FileName::new(file.as_str()).err()?))) {
            errors.invalid(format!("spec.{name}"), &Value::from(file.as_str()), &why);
        }
    }
    if spec.output.is_some() && spec.output == spec.error {
        errors.duplicate("spec.error", &json!(spec.error));
    }
    for (index, pattern) in spec.results.iter().enumerate() {
        if let Err(why) = FileName::new(pattern.as_str()) {
            errors.invalid(format!("spec.results[{index}]"), &Value::from(pattern.as_str()), &why);
        }
    }
    if let Some(source) = &spec.source
        && source.config_map.is_some() == source.archive.is_some()
    {
        errors.required("spec.source", "one of configMap and archive");
    }
    if let Some(map) = spec.source.as_ref().and_then(|source| source.config_map.as_ref()) {
        errors.complaints("spec.source.configMap", map, dns_subdomain(map));
    }
    spec.source.iter().filter_map(|source| source.archive.as_ref()).for_each(|archive| check_archive(archive, errors));
}

fn check_archive(archive: &ArchiveReference, errors: &mut FieldErrors) {
    let field = "spec.source.archive";
    errors.complaints(&format!("{field}.name"), &archive.name, dns_subdomain(&archive.name));
    between(&format!("{field}.parts"), archive.parts.map(i64::from), 1, MOST_PARTS.into(), errors);
    let is_digest = |text: &str| text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if let Some(sha256) = archive.sha256.as_ref().filter(|text| !is_digest(text)) {
        errors.invalid(format!("{field}.sha256"), &Value::from(sha256.as_str()), "must be 64 hexadecimal digits");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(spec: Value) -> Vec<String> {
        let mut object = json!({"metadata": {"name": "j"}, "spec": spec});
        let kind = GpuJobKind::new(Arc::new(Outputs::new("/nonexistent")));
        let mut errors = FieldErrors::default();
        kind.default(&mut object);
        kind.validate(&object, None, &mut errors);
        errors.0.into_iter().map(|cause| cause.field).collect()
    }

    #[test]
    fn bad_fields_are_refused_by_name() {
        let with = |name: &str, value: Value| {
            let mut spec = json!({"cluster": "c", "run": "true"});
            spec[name] = value;
            fields(spec)
        };
        assert_eq!(fields(json!({"cluster": "c", "run": "echo $(id); `x` 'y'"})), Vec::<String>::new());
        assert_eq!(fields(json!({})), ["spec.cluster", "spec.run"]);
        for (name, bad, field) in [
            ("image", json!("two words"), "spec.image"),
            ("image", json!(""), "spec.image"),
            ("partition", json!("a; rm -rf /"), "spec.partition"),
            ("partition", json!("--wrap=x"), "spec.partition"),
            ("account", json!("$(id)"), "spec.account"),
            ("qos", json!(""), "spec.qos"),
            ("constraint", json!("a b"), "spec.constraint"),
            ("tasks", json!(0), "spec.tasks"),
            ("gpus", json!({"count": 0}), "spec.gpus.count"),
            ("gpus", json!({"count": 1, "type": "a:9"}), "spec.gpus.type"),
            ("memory", json!("-1"), "spec.memory"),
            ("memory", json!("much"), "spec.memory"),
            ("timeLimitSeconds", json!(0), "spec.timeLimitSeconds"),
            ("array", json!("1-"), "spec.array"),
            ("array", json!("0-1000000"), "spec.array"),
            ("modules", json!(["cuda/12", "x;y"]), "spec.modules[1]"),
            ("env", json!([{"name": "A B", "value": "x"}]), "spec.env[0].name"),
            ("env", json!([{"name": "A", "valueFrom": {}}]), "spec.env[0].valueFrom"),
            ("dependencies", json!([{"job": "a", "condition": "Maybe"}]), "spec.dependencies[0].condition"),
            ("output", json!("/etc/passwd"), "spec.output"),
            ("output", json!("../out"), "spec.output"),
            ("error", json!("a/../../b"), "spec.error"),
            ("results", json!(["ok/*.txt", "../*"]), "spec.results[1]"),
            ("results", json!(["/root/*"]), "spec.results[0]"),
            ("source", json!({}), "spec.source"),
            ("source", json!({"archive": {"name": "a", "key": "k", "parts": 97}}), "spec.source.archive.parts"),
            ("source", json!({"archive": {"name": "a", "key": "k", "sha256": "F0"}}), "spec.source.archive.sha256"),
        ] {
            assert_eq!(with(name, bad.clone()), [field], "{name}: {bad}");
        }
    }

    #[test]
    fn what_means_something_to_a_shell_is_refused_by_field_or_is_nothing_but_text() {
        let nasty = "x'\"; $(touch /tmp/owned) `id` | & > /tmp/owned \\";
        let with = |pointer: &str| {
            let mut spec = json!({
                "cluster": "c", "image": "i", "run": "true", "partition": "p", "account": "a", "qos": "q", "constraint": "c", "memory": "1Gi",
                "array": "0-1", "gpus": {"count": 1, "type": "t"}, "dependencies": [{"job": "j", "condition": "Ended"}],
                "modules": ["m"], "env": [{"name": "A", "value": "v"}, {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
                "source": {"archive": {"name": "n", "key": "k", "sha256": "0".repeat(64)}}, "compile": "true",
                "output": "o", "error": "e", "results": ["r"],
            });
            *spec.pointer_mut(pointer).unwrap_or_else(|| panic!("no {pointer}")) = nasty.into();
            fields(spec)
        };
        for (pointer, field) in [
            ("/cluster", "spec.cluster"),
            ("/image", "spec.image"),
            ("/partition", "spec.partition"),
            ("/account", "spec.account"),
            ("/qos", "spec.qos"),
            ("/constraint", "spec.constraint"),
            ("/memory", "spec.memory"),
            ("/array", "spec.array"),
            ("/gpus/type", "spec.gpus.type"),
            ("/dependencies/0/job", "spec.dependencies[0].job"),
            ("/dependencies/0/condition", "spec.dependencies[0].condition"),
            ("/modules/0", "spec.modules[0]"),
            ("/env/0/name", "spec.env[0].name"),
            ("/env/1/valueFrom/secretKeyRef/name", "spec.env[1].valueFrom.secretKeyRef.name"),
            ("/source/archive/name", "spec.source.archive.name"),
            ("/source/archive/sha256", "spec.source.archive.sha256"),
        ] {
            let told = with(pointer);
            assert!(!told.is_empty() && told.iter().all(|told| told == field), "{pointer}: {told:?}");
        }
        // Commands are a shell's own; the others are only ever quoted, looked up, or written at home.
        for pointer in [
            "/run",
            "/compile",
            "/env/0/value",
            "/source/archive/key",
            "/env/1/valueFrom/secretKeyRef/key",
            "/output",
            "/error",
            "/results/0",
        ] {
            assert_eq!(with(pointer), Vec::<String>::new(), "{pointer}");
        }
    }

    #[test]
    fn what_was_handed_over_does_not_change() {
        let kind = GpuJobKind::new(Arc::new(Outputs::new("/nonexistent")));
        let object = |spec: Value| json!({"metadata": {"name": "j"}, "spec": spec});
        let old = object(json!({"cluster": "c", "run": "true"}));
        for (new, field) in [
            (json!({"cluster": "c", "run": "true", "suspend": true}), None),
            (json!({"cluster": "c", "run": "false"}), Some("spec.run")),
            (json!({"cluster": "c", "run": "true", "tasks": 2}), Some("spec.tasks")),
        ] {
            let mut errors = FieldErrors::default();
            kind.validate(&object(new), Some(&old), &mut errors);
            assert_eq!(errors.0.first().map(|cause| cause.field.as_str()), field);
        }
    }
}
