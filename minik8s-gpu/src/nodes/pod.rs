//! The pods of a job: one, or one for each task of its array. Pure.

use super::NodesConfig;
use super::parcel::Parcel;
use super::wrapper::{BOOT, PARCEL, PLACE};
use super::{AT_ONCE, FINALIZER, TASK, TASKS, TURN, VOLUME, labels};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use minik8s_core::devices::GPU;
use minik8s_core::job::{JobError, JobId, JobRequest, JobResult};
use serde_json::{Map, Value, json};

/// The label that says what graphics processors a node has, as their maker's discovery sets it.
const PRODUCT: &str = "nvidia.com/gpu.product";
/// Taints of nodes that are not heard of.
const SILENT: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];
/// Seconds that a job's processes get to end by themselves.
const GRACE: i64 = 5;
/// Seconds that a pod gets beyond its job's limit, which the job's own container watches: for images to come, and for a
/// watcher that the job itself has ended.
const BEYOND: u64 = 3600;

/// The name of a job's pod, or of that of one of its tasks.
pub(super) fn name(id: &JobId, task: Option<u32>) -> String {
    task.map_or_else(|| id.to_string(), |task| format!("{id}-{task}"))
}

/// What means nothing on a node is refused by name.
pub(super) fn check(job: &JobRequest, config: &NodesConfig) -> JobResult<()> {
    let refused = |field, why: &str| Err(JobError::Refused { field: Some(field), why: why.to_owned() });
    let place = &job.placement;
    let words = [
        ("placement.partition", place.partition.is_some()),
        ("placement.account", place.account.is_some()),
        ("placement.qos", place.qos.is_some()),
        ("placement.constraint", place.constraint.is_some()),
    ];
    if let Some((field, _)) = words.into_iter().find(|(_, said)| *said) {
        return refused(
            field,
            "nodes of this cluster have none: its JobCluster says which nodes, in spec.nodes.nodeSelector",
        );
    }
    if !job.modules.is_empty() {
        return refused(
            "modules",
            "containers have no environment modules: choose an image that has what the job needs",
        );
    }
    if job.image.is_none() && config.spec.image.is_none() {
        return refused("image", "the job names none, nor does its JobCluster in spec.nodes.image");
    }
    if job.tasks_per_node.is_some_and(|most| most < job.tasks) {
        return refused("tasks_per_node", "a job is one pod here, on one node");
    }
    if job.after.is_empty() { Ok(()) } else { Err(JobError::Unsupported("dependencies")) }
}

/// Whose the pods are: they go with the job's object, whatever becomes of who made them.
pub(super) fn owner(job: &JobRequest) -> Option<OwnerReference> {
    (!job.name.is_empty()).then(|| OwnerReference {
        api_version: format!("{}/{}", crate::kinds::GROUP, crate::kinds::VERSION),
        kind: "GpuJob".to_owned(),
        name: job.name.clone(),
        uid: job.id.uid.clone(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    })
}

/// The pods, in order of their tasks. Of an array of which only so many may run at a time, the others wait at a gate.
pub(super) fn pods(job: &JobRequest, config: &NodesConfig, parcel: &Parcel) -> JobResult<Vec<Pod>> {
    let Some(array) = &job.array else { return Ok(vec![typed(pod(job, config, parcel, None))?]) };
    let all: Vec<String> = array.indices.iter().map(u32::to_string).collect();
    let at_once = array.at_once.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX));
    let one = |(place, index): (usize, &u32)| {
        let mut pod = pod(job, config, parcel, Some(*index));
        pod["metadata"]["annotations"] = json!({TASKS: all.join(",")});
        if let Some(most) = array.at_once {
            pod["metadata"]["annotations"][AT_ONCE] = most.to_string().into();
        }
        if place >= at_once {
            pod["spec"]["schedulingGates"] = json!([{"name": TURN}]);
        }
        typed(pod)
    };
    array.indices.iter().enumerate().map(one).collect()
}

fn typed(pod: Value) -> JobResult<Pod> {
    serde_json::from_value(pod).map_err(|error| JobError::Odd(format!("no pod can be made of the job: {error}")))
}

fn pod(job: &JobRequest, config: &NodesConfig, parcel: &Parcel, task: Option<u32>) -> Value {
    let spec = &config.spec;
    let mut selector = spec.node_selector.clone();
    if let Some(kind) = job.gpus.as_ref().and_then(|gpus| gpus.kind.clone()) {
        selector.insert(PRODUCT.to_owned(), kind);
    }
    let mut body = json!({
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE,
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "nodeSelector": selector,
        "tolerations": tolerations(config),
        "imagePullSecrets": spec.image_pull_secrets,
        "containers": [{
            "name": "job",
            "image": job.image.as_ref().or(spec.image.as_ref()),
            "command": ["sh", "-c", BOOT],
            "env": variables(job, task),
            "resources": resources(job),
            "volumeMounts": [{"name": VOLUME, "mountPath": PLACE}, {"name": "parcel", "mountPath": PARCEL, "readOnly": true}],
        }],
        "volumes": [{"name": VOLUME, "emptyDir": {}}, parcel.volume("parcel")],
    });
    if let Some(limit) = job.time_limit {
        body["activeDeadlineSeconds"] = limit.as_secs().saturating_add(BEYOND).into();
    }
    if let Some(class) = &spec.priority_class_name {
        body["priorityClassName"] = class.as_str().into();
    }
    if !job.placement.exclude.is_empty() {
        let not = |node: &String| json!({"key": "metadata.name", "operator": "NotIn", "values": [node]});
        let fields: Vec<Value> = job.placement.exclude.iter().map(not).collect();
        body["affinity"] = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
            {"nodeSelectorTerms": [{"matchFields": fields}]}}});
    }
    let mut labels = labels(&job.id, &config.cluster);
    labels.extend(task.map(|task| (TASK.to_owned(), task.to_string())));
    json!({
        "metadata": {
            "name": name(&job.id, task),
            "labels": labels,
            "finalizers": [FINALIZER],
            "ownerReferences": owner(job).into_iter().collect::<Vec<_>>(),
        },
        "spec": body,
    })
}

/// A node that falls silent is given up as soon as the cluster's patience ends.
fn tolerations(config: &NodesConfig) -> Vec<Value> {
    let own = config.spec.tolerations.iter().filter_map(|toleration| serde_json::to_value(toleration).ok());
    let silent = |key: &str| json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": config.patience.as_secs()});
    own.chain(SILENT.map(silent)).collect()
}

fn variables(job: &JobRequest, task: Option<u32>) -> Vec<Value> {
    // A container has no others, and programs number what they have from nought.
    let count = job.gpus.as_ref().map_or(0, |gpus| gpus.count);
    let visible: Vec<String> = (0..count).map(|number| number.to_string()).collect();
    let task = task.map(|task| task.to_string()).unwrap_or_default();
    let all =
        [("MINIK8S_JOB_ID", job.id.to_string()), ("JOB_TASK_INDEX", task), ("CUDA_VISIBLE_DEVICES", visible.join(","))];
    all.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect()
}

/// What it asks for, and no more: what is not said is not set aside.
fn resources(job: &JobRequest) -> Value {
    let (mut requests, mut limits) = (Map::new(), Map::new());
    let tasks = u64::from(job.tasks.max(1));
    if job.cpus_per_task.is_some() || tasks > 1 {
        requests.insert("cpu".to_owned(), (tasks * u64::from(job.cpus_per_task.unwrap_or(1))).to_string().into());
    }
    for (name, amount) in [("memory", job.memory), (GPU, job.gpus.as_ref().map(|gpus| u64::from(gpus.count)))] {
        if let Some(amount) = amount {
            requests.insert(name.to_owned(), amount.to_string().into());
            limits.insert(name.to_owned(), amount.to_string().into());
        }
    }
    json!({"requests": requests, "limits": limits})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::NodesSpec;
    use minik8s_core::job::{Array, Gpus, Placement};
    use std::time::Duration;

    fn config() -> NodesConfig {
        let spec = NodesSpec { image: Some("i:1".to_owned()), ..NodesSpec::default() };
        NodesConfig { namespace: "ns".into(), cluster: "c-1".into(), spec, patience: Duration::from_secs(90) }
    }

    fn made(job: &JobRequest) -> Vec<Value> {
        check(job, &config()).unwrap();
        let pods = pods(job, &config(), &Parcel::of(job).unwrap()).unwrap();
        pods.iter().map(|pod| serde_json::to_value(pod).unwrap()).collect()
    }

    #[test]
    fn what_a_job_needs_is_what_its_pod_asks_for() {
        let job = JobRequest {
            id: JobId::new("u-1", 2),
            name: "train".to_owned(),
            tasks: 2,
            cpus_per_task: Some(3),
            memory: Some(1 << 30),
            time_limit: Some(Duration::from_secs(60)),
            gpus: Some(Gpus { count: 2, kind: Some("A100".to_owned()) }),
            placement: Placement { exclude: vec!["n1".into(), "n2".into()], ..Placement::default() },
            ..JobRequest::default()
        };
        let pod = &made(&job)[0];
        let at = |pointer: &str| pod.pointer(pointer).cloned().unwrap_or_default();
        assert_eq!(at("/metadata/name"), "mk8s-u-1-2");
        assert_eq!(at("/metadata/ownerReferences/0/uid"), "u-1");
        assert_eq!(at("/spec/containers/0/image"), "i:1");
        let want = json!({"cpu": "6", "memory": "1073741824", "nvidia.com/gpu": "2"});
        assert_eq!(at("/spec/containers/0/resources/requests"), want);
        assert_eq!(at("/spec/containers/0/resources/limits/nvidia.com~1gpu"), "2");
        assert_eq!(at("/spec/containers/0/resources/limits/cpu"), Value::Null);
        assert_eq!(at("/spec/activeDeadlineSeconds"), 3660, "longer than the job's own watcher takes");
        assert_eq!(at("/spec/nodeSelector"), json!({"nvidia.com/gpu.product": "A100"}));
        let terms =
            at("/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms/0");
        assert_eq!(terms["matchFields"].as_array().map(Vec::len), Some(2), "neither of both");
        assert!(pod.to_string().contains("\"tolerationSeconds\":90"));
        let plain = &made(&JobRequest { image: Some("own".into()), ..JobRequest::default() })[0];
        assert_eq!(plain["spec"]["containers"][0]["image"], "own");
        let nothing = &plain["spec"]["containers"][0]["resources"];
        assert!(nothing.get("requests").is_none_or(|r| *r == json!({})), "{nothing}");
    }

    #[test]
    fn an_array_is_a_pod_for_each_task_and_those_that_have_to_wait_do() {
        let array = Some(Array::parse("0,2-4%2", 10).unwrap());
        let pods = made(&JobRequest { id: JobId::new("u", 1), array, ..JobRequest::default() });
        let names: Vec<&str> = pods.iter().filter_map(|pod| pod["metadata"]["name"].as_str()).collect();
        assert_eq!(names, ["mk8s-u-1-0", "mk8s-u-1-2", "mk8s-u-1-3", "mk8s-u-1-4"]);
        let gated: Vec<bool> = pods.iter().map(|pod| pod["spec"].get("schedulingGates").is_some()).collect();
        assert_eq!(gated, [false, false, true, true]);
        assert_eq!(pods[3]["metadata"]["annotations"][TASKS], "0,2,3,4");
    }

    #[test]
    fn what_means_nothing_here_is_refused_by_field() {
        let some = || Some("x".to_owned());
        let place = |placement| JobRequest { placement, ..JobRequest::default() };
        for (job, field) in [
            (place(Placement { partition: some(), ..Placement::default() }), "placement.partition"),
            (place(Placement { account: some(), ..Placement::default() }), "placement.account"),
            (place(Placement { qos: some(), ..Placement::default() }), "placement.qos"),
            (place(Placement { constraint: some(), ..Placement::default() }), "placement.constraint"),
            (JobRequest { modules: vec!["cuda".into()], ..JobRequest::default() }, "modules"),
            (JobRequest { tasks: 4, tasks_per_node: Some(2), ..JobRequest::default() }, "tasks_per_node"),
        ] {
            let Err(JobError::Refused { field: told, why }) = check(&job, &config()) else { panic!("{field}") };
            assert!(told == Some(field) && !why.is_empty(), "{told:?} {why}");
        }
        let none = NodesConfig { spec: NodesSpec::default(), ..config() };
        let told = check(&JobRequest::default(), &none);
        assert!(matches!(told, Err(JobError::Refused { field: Some("image"), .. })), "{told:?}");
    }
}
