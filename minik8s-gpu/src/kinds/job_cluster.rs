//! `JobCluster`: where jobs run.

use super::check::{between, host, image, word};
use super::{AGE, JobCluster, NAME, NodesSpec, SlurmSpec, column, names, text};
use minik8s_core::api::names::{dns_subdomain, label_value, qualified_name};
use minik8s_core::server::{Column, FieldErrors, Kind, KindNames};
use serde_json::{Value, json};

/// The kind `JobCluster`.
pub struct JobClusterKind(KindNames);

impl JobClusterKind {
    /// The kind.
    pub fn new() -> Self {
        Self(names("jobclusters", "JobCluster", &["jc"]))
    }
}

impl Default for JobClusterKind {
    fn default() -> Self {
        Self::new()
    }
}

fn ready(object: &Value, field: &str) -> Value {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    conditions.filter(|c| c["type"] == "Ready").map(|c| c[field].clone()).next().unwrap_or_else(|| "Unknown".into())
}

fn kind(object: &Value) -> &'static str {
    let has = |name: &str| object.pointer(&format!("/spec/{name}")).is_some();
    match (has("slurm"), has("nodes")) {
        (true, _) => "Slurm",
        (_, true) => "Nodes",
        _ => "Local",
    }
}

static COLUMNS: [Column; 6] = [
    NAME,
    column("Type", "", |o, _| kind(o).into()),
    column("Host", "", |o, _| text(o, "/spec/slurm/host").into()),
    column("Ready", "", |o, _| ready(o, "status")),
    column("Reason", "", |o, _| ready(o, "reason")),
    AGE,
];

impl Kind for JobClusterKind {
    fn names(&self) -> &KindNames {
        &self.0
    }

    fn schema(&self) -> &str {
        "io.minik8s.jobs.v1alpha1.JobCluster"
    }

    fn has_status(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn default(&self, object: &mut Value) {
        if let Some(map) = object.as_object_mut() {
            map.entry("status").or_insert_with(|| json!({}));
        }
    }

    fn validate(&self, new: &Value, old: Option<&Value>, errors: &mut FieldErrors) {
        let Ok(cluster) = serde_json::from_value::<JobCluster>(new.clone()) else {
            return errors.invalid_shown("spec", "an object", "does not have the form of a JobCluster");
        };
        let spec = &cluster.spec;
        if [spec.slurm.is_some(), spec.nodes.is_some(), spec.local.is_some()].iter().filter(|said| **said).count() != 1
        {
            errors.required("spec", "one of slurm, nodes and local");
        }
        let kept = |kind: &&str| old.is_none_or(|old| old["spec"][*kind].is_null() || !new["spec"][*kind].is_null());
        if let Some(kind) = ["slurm", "nodes", "local"].iter().find(|kind| !kept(kind)) {
            let why = "its jobs are there: make another JobCluster, and delete this one when they are done";
            errors.forbidden(format!("spec.{kind}"), why);
        }
        spec.slurm.iter().for_each(|slurm| check(slurm, errors));
        spec.nodes.iter().for_each(|nodes| check_nodes(nodes, errors));
        between("spec.local.slots", spec.local.as_ref().and_then(|l| l.slots).map(i64::from), 1, 10_000, errors);
        if let Some(seconds) = spec.poll_seconds.filter(|seconds| !(0.05..=3600.0).contains(seconds)) {
            errors.invalid("spec.pollSeconds", &json!(seconds), "must be between 0.05 and 3600");
        }
        between("spec.lostAfterSeconds", spec.lost_after_seconds, 1, 86_400, errors);
        if let Some(limits) = &spec.limits {
            between("spec.limits.jobs", limits.jobs.map(i64::from), 1, 100_000, errors);
            between("spec.limits.gpus", limits.gpus.map(i64::from), 0, 1024, errors);
            let sizes = [
                ("outputBytes", limits.output_bytes),
                ("resultBytes", limits.result_bytes),
                ("sourceBytes", limits.source_bytes),
            ];
            for (name, value) in sizes {
                between(&format!("spec.limits.{name}"), value, 0, 1 << 40, errors);
            }
        }
    }
}

fn check(slurm: &SlurmSpec, errors: &mut FieldErrors) {
    host("spec.slurm.host", &slurm.host, errors);
    between("spec.slurm.port", slurm.port.map(i64::from), 1, 65_535, errors);
    between("spec.slurm.channels", slurm.channels.map(i64::from), 1, 100, errors);
    word("spec.slurm.user", &slurm.user, "@", errors);
    if slurm.key_secret.is_empty() {
        errors.required("spec.slurm.keySecret", "a Secret of type kubernetes.io/ssh-auth in this namespace");
    }
    if slurm.known_hosts.trim().is_empty() {
        let hint = "the host's keys as ssh-keyscan prints them, compared with what its administrators say";
        errors.required("spec.slurm.knownHosts", hint);
    }
    for (index, jump) in slurm.jump_hosts.iter().enumerate() {
        let field = format!("spec.slurm.jumpHosts[{index}]");
        host(&format!("{field}.host"), &jump.host, errors);
        between(&format!("{field}.port"), jump.port.map(i64::from), 1, 65_535, errors);
        jump.user.iter().for_each(|user| word(&format!("{field}.user"), user, "@", errors));
    }
    if let Some(root) = &slurm.root {
        let odd = root.chars().any(|c| c.is_control() || "%\\".contains(c)) || root.split('/').any(|part| part == "..");
        if root.is_empty() || root == "/" || root.starts_with(['-', '~']) || odd {
            let why = "must be a path below the home directory or an absolute one, without '..', % and backslashes";
            errors.invalid("spec.slurm.root", &Value::from(root.as_str()), why);
        }
    }
}

fn check_nodes(nodes: &NodesSpec, errors: &mut FieldErrors) {
    nodes.image.iter().for_each(|value| image("spec.nodes.image", value, errors));
    for (index, secret) in nodes.image_pull_secrets.iter().enumerate() {
        errors.complaints(
            &format!("spec.nodes.imagePullSecrets[{index}].name"),
            &secret.name,
            dns_subdomain(&secret.name),
        );
    }
    for (key, value) in &nodes.node_selector {
        errors.complaints("spec.nodes.nodeSelector", key, qualified_name(key));
        errors.complaints(&format!("spec.nodes.nodeSelector[{key}]"), value, label_value(value));
    }
    for (index, toleration) in nodes.tolerations.iter().enumerate() {
        let words = [
            ("operator", toleration.operator.as_deref(), &["Equal", "Exists"][..]),
            ("effect", toleration.effect.as_deref(), &["NoSchedule", "PreferNoSchedule", "NoExecute"]),
        ];
        for (name, value, known) in words {
            if let Some(value) = value.filter(|value| !value.is_empty() && !known.contains(value)) {
                errors.unsupported(format!("spec.nodes.tolerations[{index}].{name}"), value, known);
            }
        }
        if let Some(key) = toleration.key.as_deref().filter(|key| !key.is_empty()) {
            errors.complaints(&format!("spec.nodes.tolerations[{index}].key"), key, qualified_name(key));
        }
    }
    if let Some(class) = &nodes.priority_class_name {
        errors.complaints("spec.nodes.priorityClassName", class, dns_subdomain(class));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_fields_are_refused_by_name() {
        let fields = |spec: Value| {
            let mut errors = FieldErrors::default();
            JobClusterKind::new().validate(&json!({"spec": spec}), None, &mut errors);
            errors.0.into_iter().map(|cause| cause.field).collect::<Vec<_>>()
        };
        let slurm = |name: &str, value: Value| {
            let mut slurm = json!({"host": "h", "user": "u", "keySecret": "k", "knownHosts": "h ssh-ed25519 AAAA"});
            slurm[name] = value;
            json!({"slurm": slurm})
        };
        let nodes = |name: &str, value: Value| json!({"nodes": {name: value}});
        let table: [(Value, &[&str]); 19] = [
            (slurm("port", json!(22)), &[]),
            (json!({"local": {}}), &[]),
            (json!({}), &["spec"]),
            (json!({"nodes": {}}), &[]),
            (json!({"nodes": {}, "local": {}}), &["spec"]),
            (nodes("image", json!("a b")), &["spec.nodes.image"]),
            (nodes("nodeSelector", json!({"a b": "c"})), &["spec.nodes.nodeSelector"]),
            (nodes("nodeSelector", json!({"gpu": "c d"})), &["spec.nodes.nodeSelector[gpu]"]),
            (nodes("tolerations", json!([{"operator": "Maybe"}])), &["spec.nodes.tolerations[0].operator"]),
            (nodes("imagePullSecrets", json!([{"name": "A_"}])), &["spec.nodes.imagePullSecrets[0].name"]),
            (nodes("priorityClassName", json!("A_")), &["spec.nodes.priorityClassName"]),
            (slurm("host", json!("-oProxyCommand=x")), &["spec.slurm.host"]),
            (slurm("host", json!("a b")), &["spec.slurm.host"]),
            (slurm("user", json!("$(id)")), &["spec.slurm.user"]),
            (slurm("knownHosts", json!(" ")), &["spec.slurm.knownHosts"]),
            (slurm("keySecret", json!("")), &["spec.slurm.keySecret"]),
            (slurm("root", json!("../x")), &["spec.slurm.root"]),
            (slurm("jumpHosts", json!([{"host": "x;y"}])), &["spec.slurm.jumpHosts[0].host"]),
            (json!({"local": {"slots": 0}, "pollSeconds": 0}), &["spec.local.slots", "spec.pollSeconds"]),
        ];
        for (spec, want) in table {
            assert_eq!(fields(spec.clone()), want, "{spec}");
        }
    }

    #[test]
    fn what_a_cluster_is_does_not_change_under_its_jobs() {
        let fields = |old: Value, new: Value| {
            let mut errors = FieldErrors::default();
            JobClusterKind::new().validate(&json!({"spec": new}), Some(&json!({"spec": old})), &mut errors);
            errors.0.into_iter().map(|cause| cause.field).collect::<Vec<_>>()
        };
        assert!(fields(json!({"nodes": {}}), json!({"nodes": {"image": "i"}, "pollSeconds": 2})).is_empty());
        assert_eq!(fields(json!({"nodes": {}}), json!({"local": {}})), ["spec.nodes"]);
        assert_eq!(fields(json!({"local": {}}), json!({"nodes": {}})), ["spec.local"]);
    }
}
