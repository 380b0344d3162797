//! `JobCluster`: where jobs run.

use super::check::{between, host, word};
use super::{AGE, JobCluster, NAME, SlurmSpec, column, names, text};
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

static COLUMNS: [Column; 6] = [
    NAME,
    column("Type", "", |o, _| if o.pointer("/spec/slurm").is_some() { "Slurm" } else { "Local" }.into()),
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

    fn validate(&self, new: &Value, _: Option<&Value>, errors: &mut FieldErrors) {
        let Ok(cluster) = serde_json::from_value::<JobCluster>(new.clone()) else {
            return errors.invalid_shown("spec", "an object", "does not have the form of a JobCluster");
        };
        let spec = &cluster.spec;
        if spec.slurm.is_some() == spec.local.is_some() {
            errors.required("spec", "one of slurm and local");
        }
        spec.slurm.iter().for_each(|slurm| check(slurm, errors));
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
        let table: [(Value, &[&str]); 11] = [
            (slurm("port", json!(22)), &[]),
            (json!({"local": {}}), &[]),
            (json!({}), &["spec"]),
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
}
