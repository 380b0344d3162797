//! What `sbatch` is told of a job. Pure.

use minik8s_core::job::{AfterWhen, JobRequest};

/// Arguments of `sbatch`, each one word; where output goes, and the script, are added where the job's directory is known.
pub(super) fn sbatch(job: &JobRequest) -> Vec<String> {
    let mut args: Vec<String> = ["--parsable", "--no-requeue", "--open-mode=append", "--kill-on-invalid-dep=yes"]
        .map(ToOwned::to_owned)
        .to_vec();
    let mut add = |name: &str, value: &str| args.push(format!("--{name}={value}"));
    add("job-name", &job.id.to_string());
    add("ntasks", &job.tasks.max(1).to_string());
    let placement = &job.placement;
    let words = [
        ("partition", &placement.partition),
        ("account", &placement.account),
        ("qos", &placement.qos),
        ("constraint", &placement.constraint),
    ];
    for (name, value) in words {
        value.iter().for_each(|value| add(name, value));
    }
    if !placement.exclude.is_empty() {
        add("exclude", &placement.exclude.join(","));
    }
    for (name, value) in [("ntasks-per-node", job.tasks_per_node), ("cpus-per-task", job.cpus_per_task)] {
        value.iter().for_each(|value| add(name, &value.to_string()));
    }
    job.memory.iter().for_each(|bytes| add("mem", &format!("{}M", bytes.div_ceil(1 << 20).max(1))));
    if let Some(gpus) = &job.gpus {
        let kind = gpus.kind.as_ref().map(|kind| format!(":{kind}")).unwrap_or_default();
        add("gres", &format!("gpu{kind}:{}", gpus.count));
    }
    // Slurm counts minutes, and may be late: the wrapper ends the job to the second.
    job.time_limit.iter().for_each(|limit| add("time", &limit.as_secs().div_ceil(60).max(1).to_string()));
    if let Some(array) = &job.array {
        let indices: Vec<String> = array.indices.iter().map(u32::to_string).collect();
        let most = array.at_once.map(|most| format!("%{most}")).unwrap_or_default();
        add("array", &format!("{}{most}", indices.join(",")));
    }
    let after: Vec<String> = job
        .after
        .iter()
        .map(|after| {
            let when = match after.when {
                AfterWhen::Ok => "afterok",
                AfterWhen::NotOk => "afternotok",
                AfterWhen::Any => "afterany",
            };
            format!("{when}:{}", after.job.native)
        })
        .collect();
    if !after.is_empty() {
        add("dependency", &after.join(","));
    }
    args
}

/// The field to blame for words of `sbatch`.
pub(super) fn blamed(words: &str) -> Option<&'static str> {
    let lower = words.to_lowercase();
    let table = [
        ("partition", "placement.partition"),
        ("account", "placement.account"),
        ("qos", "placement.qos"),
        ("feature", "placement.constraint"),
        ("gres", "gpus"),
        ("gpu", "gpus"),
        ("generic resource", "gpus"),
        ("time limit", "time_limit"),
        ("memory", "memory"),
        ("array", "array"),
        ("dependency", "dependencies"),
        ("node count", "tasks"),
        ("cpu count", "cpus_per_task"),
        ("requested node configuration", "gpus"),
    ];
    table.iter().find(|(word, _)| lower.contains(word)).map(|(_, field)| *field)
}

#[cfg(test)]
mod tests {
    use super::*;
    use minik8s_core::job::{After, Array, Gpus, JobHandle, JobId, Placement};
    use std::time::Duration;

    #[test]
    fn every_field_becomes_one_word() {
        let some = |text: &str| Some(text.to_owned());
        let job = JobRequest {
            id: JobId::new("u", 2),
            placement: Placement {
                partition: some("a b; $(id)"),
                account: some("acc"),
                qos: some("high"),
                constraint: some("a100&nvlink"),
                exclude: vec!["n1".to_owned(), "n2".to_owned()],
            },
            tasks: 4,
            tasks_per_node: Some(2),
            cpus_per_task: Some(3),
            memory: Some((1 << 30) + 1),
            gpus: Some(Gpus { count: 2, kind: some("v100") }),
            time_limit: Some(Duration::from_secs(61)),
            array: Some(Array::parse("0,4-6%2", 10).unwrap()),
            after: vec![After { job: JobHandle::new(&JobId::new("x", 1), "77"), when: AfterWhen::Ok }],
            ..JobRequest::default()
        };
        let args = sbatch(&job);
        for want in [
            "--job-name=mk8s-u-2",
            "--partition=a b; $(id)",
            "--account=acc",
            "--qos=high",
            "--constraint=a100&nvlink",
            "--exclude=n1,n2",
            "--ntasks=4",
            "--ntasks-per-node=2",
            "--cpus-per-task=3",
            "--mem=1025M",
            "--gres=gpu:v100:2",
            "--time=2",
            "--array=0,4,5,6%2",
            "--dependency=afterok:77",
        ] {
            assert!(args.iter().any(|arg| arg == want), "{want} is not in {args:?}");
        }
        assert!(args.iter().all(|arg| arg.starts_with("--")));
    }

    #[test]
    fn refusals_blame_a_field() {
        for (words, field) in [
            ("sbatch: error: invalid partition specified: nope", Some("placement.partition")),
            ("sbatch: error: Batch job submission failed: Requested node configuration is not available", Some("gpus")),
            ("sbatch: error: Invalid generic resource (gres) specification", Some("gpus")),
            (
                "sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified",
                Some("placement.partition"),
            ),
            ("sbatch: error: Invalid feature specification", Some("placement.constraint")),
            ("sbatch: error: something new", None),
        ] {
            assert_eq!(blamed(words), field, "{words}");
        }
    }
}
