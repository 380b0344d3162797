//! Jobs of the first minik8s: Slurm's fields in the spec, and a password beside them, which is refused.

use super::Notes;
use serde_json::{Map, Value, json};

/// Field today, and how it was called, without case, dashes and underscores.
const NAMES: [(&str, &[&str]); 19] = [
    ("cluster", &["cluster", "clustername"]),
    ("partition", &["partition", "queue"]),
    ("account", &["account"]),
    ("qos", &["qos"]),
    ("constraint", &["constraint"]),
    ("tasks", &["tasks", "ntasks", "tasknum", "numtasks", "n"]),
    ("tasksPerNode", &["taskspernode", "ntaskspernode", "tasknumpernode", "numtaskspernode"]),
    ("cpusPerTask", &["cpuspertask", "cpupertask", "ncpuspertask"]),
    ("memory", &["memory", "mem"]),
    ("gpus", &["gpus", "gpu", "gpunum", "gpunums", "ngpus", "numgpus", "gpucount", "gres"]),
    ("timeLimitSeconds", &["timelimitseconds", "time", "timelimit"]),
    ("array", &["array"]),
    ("modules", &["modules", "module"]),
    ("compile", &["compile", "compilecommands", "compilecommand", "compilecmd", "compilescript"]),
    ("run", &["run", "runcommands", "runcommand", "runcmd", "commands", "command", "runscript", "script"]),
    ("output", &["output", "outputfile", "outputfilename", "outfile", "out"]),
    ("error", &["error", "errorfile", "errorfilename", "errfile", "err"]),
    ("results", &["results", "result", "resultfiles"]),
    ("backoffLimit", &["backofflimit", "retries"]),
];

/// Where the files were; `job submit` sends a directory.
const SOURCES: [&str; 8] = ["source", "sourcepath", "srcpath", "sourcedir", "codepath", "path", "filepath", "src"];
/// What belongs to the cluster.
const OF_CLUSTER: [&str; 8] = ["user", "username", "host", "hostname", "server", "address", "port", "email"];
const PASSWORDS: [&str; 4] = ["password", "passwd", "pass", "pwd"];

fn plain(name: &str) -> String {
    name.chars().filter(|c| c.is_ascii_alphanumeric()).map(|c| c.to_ascii_lowercase()).collect()
}

/// Why a manifest is not taken at all. What the password is, is not told.
pub(crate) fn refusal(object: &Value) -> Option<String> {
    let is_job = object["kind"]
        .as_str()
        .is_some_and(|kind| ["job", "jobs", "gpujob", "jobcluster"].contains(&plain(kind).as_str()));
    let group = object["apiVersion"].as_str().unwrap_or_default();
    if !is_job || !matches!(group, "v1" | "minik8s.io/v1alpha1") {
        return None;
    }
    let place = password(&object["spec"], "spec").or_else(|| password(&object["metadata"], "metadata"))?;
    Some(format!(
        "{place}: passwords do not belong into manifests, and none is taken. Make a key instead (`ssh-keygen -t ed25519 -f id`), \
         put id.pub into ~/.ssh/authorized_keys on the cluster, keep the key in a Secret (`kubectl create secret generic hpc-key \
         --type=kubernetes.io/ssh-auth --from-file=ssh-privatekey=id`), and name that Secret in spec.slurm.keySecret of a \
         JobCluster. Then change the password: whoever has seen this file knows it"
    ))
}

fn password(value: &Value, place: &str) -> Option<String> {
    match value {
        Value::Object(map) => map.iter().find_map(|(name, value)| {
            let here = format!("{place}.{name}");
            let told = PASSWORDS.contains(&plain(name).as_str()) && (value.is_string() || value.is_number());
            if told { Some(here) } else { password(value, &here) }
        }),
        Value::Array(items) => {
            items.iter().enumerate().find_map(|(index, item)| password(item, &format!("{place}[{index}]")))
        }
        _ => None,
    }
}

/// Gives the fields of a job today's names and forms.
pub(super) fn straighten(object: &mut Value, notes: &mut Notes) {
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else { return };
    flatten(spec, notes);
    for (name, others) in NAMES {
        let odd = spec.keys().find(|key| *key != name && others.contains(&plain(key).as_str())).cloned();
        if let Some(value) = odd.as_ref().filter(|_| !spec.contains_key(name)).and_then(|odd| spec.remove(odd)) {
            notes.add(format!("spec.{} is {name}", odd.unwrap_or_default()));
            spec.insert(name.to_owned(), value);
        }
    }
    for (key, value) in spec.clone() {
        let name = plain(&key);
        if SOURCES.contains(&name.as_str()) && value.is_string() {
            spec.remove(&key);
            notes.add(format!(
                "spec.{key} is left out: `minik8s job submit -f DIR` sends a directory, with this manifest in it as job.yaml"
            ));
        } else if OF_CLUSTER.contains(&name.as_str()) && !value.is_object() {
            spec.remove(&key);
            notes.add(format!("spec.{key} is left out: a JobCluster says where jobs run and as whom"));
        }
    }
    forms(spec, notes);
    if !spec.contains_key("cluster") {
        notes.add("spec.cluster is missing: the JobCluster default is meant");
        spec.insert("cluster".into(), "default".into());
    }
}

/// Slurm's fields may have stood together.
fn flatten(spec: &mut Map<String, Value>, notes: &mut Notes) {
    for name in ["slurm", "slurmConfig", "config"] {
        if let Some(Value::Object(inner)) = spec.get(name).cloned() {
            spec.remove(name);
            notes.add(format!("spec.{name}: its fields stand in spec"));
            for (key, value) in inner {
                spec.entry(key).or_insert(value);
            }
        }
    }
}

fn forms(spec: &mut Map<String, Value>, notes: &mut Notes) {
    for name in ["compile", "run"] {
        if let Some(lines) = spec.get(name).and_then(Value::as_array) {
            let lines: Vec<&str> = lines.iter().filter_map(Value::as_str).collect();
            let text = lines.join("\n");
            notes.add(format!("spec.{name}: a list of commands is one text"));
            spec.insert(name.to_owned(), text.into());
        }
    }
    for name in ["modules", "results"] {
        if let Some(one) = spec.get(name).filter(|value| value.is_string()).cloned() {
            notes.add(format!("spec.{name}: one is a list of one"));
            spec.insert(name.to_owned(), json!([one]));
        }
    }
    for name in ["tasks", "tasksPerNode", "cpusPerTask", "backoffLimit"] {
        if let Some(number) = spec.get(name).and_then(Value::as_str).and_then(|text| text.trim().parse::<i64>().ok()) {
            notes.add(format!("spec.{name}: a text is read as a number"));
            spec.insert(name.to_owned(), number.into());
        }
    }
    match spec.get("gpus").and_then(gpus) {
        Some(Value::Null) => drop(spec.remove("gpus")),
        Some(gpus) => {
            notes.add("spec.gpus has a count and a type");
            spec.insert("gpus".into(), gpus);
        }
        None => {}
    }
    let limit = spec.get("timeLimitSeconds").and_then(Value::as_str).and_then(seconds);
    if let Some(limit) = limit {
        notes.add(format!("spec.timeLimitSeconds: {limit} seconds"));
        spec.insert("timeLimitSeconds".into(), limit.into());
    }
    if let Some(memory) = spec.get("memory").and_then(Value::as_str).and_then(quantity) {
        notes.add(format!("spec.memory: {memory}"));
        spec.insert("memory".into(), memory.into());
    }
}

/// `2`, `"2"`, `gpu:2`, `gpu:v100:2`; `None` for today's form.
fn gpus(value: &Value) -> Option<Value> {
    let count = match value {
        Value::Number(number) => number.as_i64()?,
        Value::String(text) => {
            let parts: Vec<&str> = text.split(':').collect();
            let count: i64 = parts.last()?.parse().ok()?;
            if let ["gpu", kind, _] = parts.as_slice() {
                return Some(json!({"count": count, "type": kind}));
            }
            count
        }
        _ => return None,
    };
    Some(if count == 0 { Value::Null } else { json!({ "count": count }) })
}

/// Slurm's `90` (minutes), `MM:SS`, `HH:MM:SS`, `D-HH`, `D-HH:MM:SS`.
fn seconds(text: &str) -> Option<i64> {
    let (days, rest) =
        text.trim().split_once('-').map_or((0, text.trim()), |(d, rest)| (d.parse().unwrap_or(-1), rest));
    let with_days = text.contains('-');
    let parts: Vec<i64> = rest.split(':').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let (hours, minutes, seconds) = match (with_days, parts.as_slice()) {
        (true, [hours]) => (*hours, 0, 0),
        (true, [hours, minutes]) => (*hours, *minutes, 0),
        (false, [minutes]) => (0, *minutes, 0),
        (false, [minutes, seconds]) => (0, *minutes, *seconds),
        (_, [hours, minutes, seconds]) => (*hours, *minutes, *seconds),
        _ => return None,
    };
    (days >= 0).then_some(days * 86_400 + hours * 3600 + minutes * 60 + seconds)
}

/// Slurm's `4G` is 4Gi.
fn quantity(text: &str) -> Option<String> {
    let (number, unit) = text.trim().split_at(text.trim().len().checked_sub(1)?);
    let plain = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    (plain && matches!(unit, "K" | "M" | "G" | "T")).then(|| format!("{number}{unit}i"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_with_slurms_fields_becomes_a_gpujob() {
        let mut object = json!({"apiVersion": "v1", "kind": "Job", "metadata": {"name": "Matrix_Add"}, "spec": {
            "partition": "dgx2", "ntasks": "1", "ntasksPerNode": 1, "gpuNum": 2, "sourcePath": "./cuda", "username": "stu",
            "time": "1:30:00", "mem": "4G", "compileCommands": ["module load cuda", "nvcc add.cu -o add"],
            "runCommands": ["./add"], "outputFile": "add.out", "errorFile": "add.err"}});
        let notes = super::super::translate(&mut object);
        assert_eq!(
            object,
            json!({"apiVersion": "minik8s.io/v1alpha1", "kind": "GpuJob", "metadata": {"name": "matrix-add"}, "spec": {
            "cluster": "default", "partition": "dgx2", "tasks": 1, "tasksPerNode": 1, "gpus": {"count": 2},
            "timeLimitSeconds": 5400, "memory": "4Gi", "compile": "module load cuda\nnvcc add.cu -o add", "run": "./add",
            "output": "add.out", "error": "add.err"}})
        );
        for note in
            ["Job of v1 is GpuJob", "spec.sourcePath is left out", "spec.username is left out", "spec.gpuNum is gpus"]
        {
            assert!(notes.iter().any(|told| told.contains(note)), "{note} is not told: {notes:#?}");
        }
        assert!(super::super::translate(&mut object).is_empty(), "what is today's form stays as it is");
        let mut today =
            json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "a"}, "spec": {"template": {}}});
        assert!(super::super::translate(&mut today).is_empty(), "the Job of Kubernetes is another");
    }

    #[test]
    fn a_password_is_refused_with_the_way_out_and_not_told() {
        let with =
            |spec: Value| refusal(&json!({"apiVersion": "v1", "kind": "Job", "metadata": {"name": "a"}, "spec": spec}));
        for (spec, place) in [
            (json!({"password": "hunter2"}), "spec.password"),
            (json!({"slurm": {"Pass_Word": "hunter2"}}), "spec.slurm.Pass_Word"),
            (json!({"logins": [{"passwd": 1234}]}), "spec.logins[0].passwd"),
        ] {
            let why = with(spec).unwrap_or_else(|| panic!("{place} is taken"));
            assert!(why.starts_with(place) && why.contains("ssh-keygen") && !why.contains("hunter2"), "{why}");
        }
        assert_eq!(with(json!({"env": [{"name": "PASSWORD_FILE", "value": "/x"}]})), None);
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "stringData": {"password": "x"}});
        assert_eq!(refusal(&secret), None);
    }

    #[test]
    fn slurms_times_are_seconds() {
        for (text, want) in [
            ("90", Some(5400)),
            ("10:30", Some(630)),
            ("1:00:00", Some(3600)),
            ("2-12", Some(216_000)),
            ("1-00:00:01", Some(86_401)),
            ("1-02:30", Some(95_400)),
            ("soon", None),
            ("1:2:3:4", None),
        ] {
            assert_eq!(seconds(text), want, "{text}");
        }
    }
}
