//! Jobs as pods, on nodes whose containers pretend: what the cluster sees of them, what comes home, and what is left.

use k8s_openapi::api::core::v1::{Node, Pod, Secret};
use minik8s_core::client::{Api, Client, ListOptions, PatchType};
use minik8s_core::cluster::Cluster;
use minik8s_core::devices::Gpus;
use minik8s_core::job::{Array, JobBackend, JobHandle, JobId, JobRequest, JobResult};
use minik8s_core::network::NoopNetwork;
use minik8s_core::node::NodeConfig;
use minik8s_core::testkit::FakeRuntime;
use minik8s_core::testkit::faults::FaultyTransport;
use minik8s_core::testkit::wait::until;
use minik8s_gpu::GpuExtension;
use minik8s_gpu::kinds::{GpuJob, GpuJobSpec, GpuRequest, JobCluster, JobClusterSpec, NodesSpec, Phase};
use minik8s_gpu::nodes::{NodesBackend, NodesConfig};
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

const BOUND: Duration = Duration::from_secs(180);
const NODES: [&str; 2] = ["n0", "n1"];

struct World {
    cluster: Cluster,
    dir: tempfile::TempDir,
    runtimes: [Arc<FakeRuntime>; 2],
}

impl World {
    /// Two nodes with a graphics processor each, and a `JobCluster` of them.
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let runtimes = [FakeRuntime::new(), FakeRuntime::new()];
        let mut builder = Cluster::builder().extension(GpuExtension::new(dir.path().join("jobs")));
        for (number, (name, runtime)) in NODES.iter().zip(&runtimes).enumerate() {
            let devices = dir.path().join(format!("dev-{name}"));
            std::fs::create_dir_all(&devices).unwrap();
            std::fs::write(devices.join("nvidia0"), "").unwrap();
            let range = format!("10.99.{number}.0/24").parse().unwrap();
            let network = Arc::new(NoopNetwork::new(range));
            let config = NodeConfig {
                gpus: Some(Gpus::discover(devices)),
                pod_cidr: Some(range.into()),
                ..NodeConfig::new(*name, dir.path().join(name))
            };
            builder = builder.node(config, runtime.clone(), network);
        }
        let world = Self { cluster: builder.start().await.unwrap(), dir, runtimes };
        let nodes = Some(NodesSpec { image: Some("any:1".to_owned()), ..NodesSpec::default() });
        let spec = JobClusterSpec { nodes, poll_seconds: Some(0.1), ..JobClusterSpec::default() };
        let mut pods = JobCluster { spec, ..JobCluster::default() };
        pods.metadata.name = Some("pods".to_owned());
        world.client().api::<JobCluster>("default").create(&pods).await.unwrap();
        world
    }

    fn client(&self) -> Client {
        self.cluster.client()
    }

    fn jobs(&self) -> Api<GpuJob> {
        self.client().api("default")
    }

    fn pods(&self) -> Api<Pod> {
        self.client().api("default")
    }

    async fn submit(&self, name: &str) -> GpuJob {
        let spec = GpuJobSpec {
            cluster: "pods".to_owned(),
            run: "true".to_owned(),
            gpus: Some(GpuRequest { count: 1, kind: None }),
            results: vec!["*.txt".to_owned()],
            ..GpuJobSpec::default()
        };
        let mut job = GpuJob { spec, ..GpuJob::default() };
        job.metadata.name = Some(name.to_owned());
        self.jobs().create(&job).await.unwrap()
    }

    async fn reaches(&self, name: &str, what: &str, wanted: impl Fn(&GpuJob) -> bool) -> GpuJob {
        until(&format!("{name} {what}"), BOUND, || async { self.jobs().get(name).await.ok().filter(|job| wanted(job)) })
            .await
    }

    async fn runs(&self, name: &str, attempt: i32) -> Pod {
        let job = self.reaches(name, "runs", |job| {
            job.status.as_ref().is_some_and(|status| status.phase == Phase::Running && status.attempt == attempt)
        });
        let native = job.await.status.unwrap().job_id.unwrap();
        self.pods().get(&native).await.unwrap()
    }

    /// The directory of a pod on its node.
    fn home(&self, pod: &Pod) -> PathBuf {
        let node = pod.spec.as_ref().unwrap().node_name.as_deref().unwrap();
        self.dir.path().join(node).join("pods").join(pod.metadata.uid.as_deref().unwrap())
    }

    fn write(&self, pod: &Pod, name: &str, content: &str) {
        let path = self.home(pod).join("volumes/job").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    /// The job's container ends, as its wrapper would have it.
    fn ends(&self, pod: &Pod, code: i32) {
        let words = self.home(pod).join("containers/job/0.termination-log");
        std::fs::write(words, format!("{code} run x 1767225610\n")).unwrap();
        let uid = pod.metadata.uid.as_deref().unwrap();
        let ended = self.runtimes.iter().any(|runtime| {
            runtime.snapshot().iter().any(|container| container.id.contains(uid) && runtime.exit(&container.id, code))
        });
        assert!(ended, "it ran");
    }

    fn held(&self) -> usize {
        NODES
            .iter()
            .map(|node| Gpus::discover(self.dir.path().join(format!("dev-{node}"))))
            .fold(0, |sum, gpus| sum + gpus.table.held().unwrap().len())
    }

    async fn nothing_is_left(&self) {
        until("nothing of jobs is left", BOUND, || async {
            let pods = self.pods().list(&ListOptions::default()).await.unwrap().items.len();
            let secrets = self.client().api::<Secret>("default").list(&ListOptions::default()).await.unwrap();
            let ours = |secret: &Secret| secret.metadata.name.as_deref().unwrap_or_default().starts_with("mk8s-");
            (pods == 0 && !secrets.items.iter().any(ours) && self.held() == 0).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_a_pod_and_its_files_come_home() {
    let world = World::new().await;
    let job = world.submit("train").await;
    let pod = world.runs("train", 1).await;
    assert_eq!(pod.metadata.owner_references.as_ref().unwrap()[0].uid, job.metadata.uid.clone().unwrap());
    assert_eq!(world.held(), 1);
    world.write(&pod, "stdout", "half");
    let here = world.dir.path().join("jobs/output").join(job.metadata.uid.as_deref().unwrap()).join("1");
    until("output comes while it runs", BOUND, || async {
        std::fs::read_to_string(here.join("stdout")).ok().filter(|text| text == "half")
    })
    .await;
    world.write(&pod, "stdout", "half and half\n");
    world.write(&pod, "stderr", "");
    world.write(&pod, "work/result.txt", "42\n");
    world.write(&pod, "work/other.bin", "no");
    std::os::unix::fs::symlink("/etc/passwd", world.home(&pod).join("volumes/job/work/stolen.txt")).unwrap();
    world.ends(&pod, 0);
    let done = world.reaches("train", "is done", |job| job.status.as_ref().is_some_and(|s| s.phase.is_final())).await;
    let status = done.status.unwrap();
    assert_eq!((status.phase, status.exit_code), (Phase::Succeeded, Some(0)), "{status:?}");
    let names: Vec<&str> = status.files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(names, ["results/result.txt", "stderr", "stdout"]);
    assert_eq!(std::fs::read_to_string(here.join("results/result.txt")).unwrap(), "42\n");
    assert_eq!(std::fs::read_to_string(here.join("stdout")).unwrap(), "half and half\n");
    world.nothing_is_left().await;
    let node = pod.spec.unwrap().node_name.unwrap();
    assert_eq!(status.nodes, node);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_whose_node_fails_runs_again_on_another() {
    let world = World::new().await;
    world.submit("train").await;
    let first = world.runs("train", 1).await;
    let node = first.spec.as_ref().unwrap().node_name.clone().unwrap();
    let nodes = world.client().all::<Node>();
    let taints = |all: serde_json::Value| json!({"spec": {"taints": all}});
    let dying = taints(json!([{"key": "dying", "effect": "NoExecute"}]));
    nodes.patch(&node, PatchType::Merge, &dying).await.unwrap();
    let again = world
        .reaches("train", "is tried again", |job| job.status.as_ref().is_some_and(|status| status.disruptions == 1));
    assert_eq!(again.await.status.unwrap().excluded_nodes, std::slice::from_ref(&node));
    nodes.patch(&node, PatchType::Merge, &taints(json!([]))).await.unwrap();
    let second = world.runs("train", 2).await;
    assert_ne!(second.spec.as_ref().unwrap().node_name, Some(node), "not where it failed");
    world.ends(&second, 0);
    world.reaches("train", "succeeds", |job| job.status.as_ref().is_some_and(|s| s.phase == Phase::Succeeded)).await;
    world.nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_waits_says_for_what_and_goes_without_a_trace() {
    let world = World::new().await;
    for name in ["one", "two", "three"] {
        world.submit(name).await;
    }
    let jobs = ["one", "two", "three"];
    let waiting = until("one of three waits for a processor", BOUND, || async {
        for name in jobs {
            let status = world.jobs().get(name).await.ok()?.status?;
            if status.message.contains("Insufficient nvidia.com/gpu") {
                return Some(name);
            }
        }
        None
    })
    .await;
    let cancel = json!({"spec": {"cancel": true}});
    world.jobs().patch(waiting, PatchType::Merge, &cancel).await.unwrap();
    let ended =
        world.reaches(waiting, "is cancelled", |job| job.status.as_ref().is_some_and(|s| s.phase.is_final())).await;
    assert_eq!(ended.status.unwrap().end.as_deref(), Some("Cancelled"));
    for name in jobs {
        world.jobs().delete(name, &Default::default()).await.unwrap();
    }
    world.nothing_is_left().await;
}

/// Asks until it is answered.
async fn at_last<T, Fut: Future<Output = JobResult<T>>>(mut ask: impl FnMut() -> Fut) -> T {
    for _ in 0..200 {
        if let Ok(answer) = ask().await {
            return answer;
        }
    }
    panic!("two hundred tries and no answer");
}

#[tokio::test]
async fn whatever_is_lost_on_the_way_each_job_has_its_pods_once() {
    let cluster = Cluster::builder().start().await.unwrap();
    let plain = cluster.client();
    for seed in 0..10 {
        let client = Client::new(FaultyTransport::new(cluster.transport(), seed));
        let config = NodesConfig {
            namespace: "default".to_owned(),
            cluster: format!("cluster-{seed}"),
            spec: NodesSpec { image: Some("any:1".to_owned()), ..NodesSpec::default() },
            patience: Duration::from_secs(90),
        };
        let backend = NodesBackend::new(client, config);
        let request = |number: usize| JobRequest {
            id: JobId::new(format!("job-{seed}-{number}"), 1),
            run: "true".to_owned(),
            array: number.is_multiple_of(2).then(|| Array::parse("0-4%2", 10).unwrap()),
            ..JobRequest::default()
        };
        let mut handles: Vec<JobHandle> = Vec::new();
        for number in 0..6 {
            handles.push(at_last(|| async { backend.submit(&request(number)).await }).await);
        }
        let pods = plain.api::<Pod>("default").list(&ListOptions::default()).await.unwrap().items;
        assert_eq!(pods.len(), 3 * 5 + 3, "seed {seed}");
        assert_eq!(at_last(|| async { backend.kept().await }).await.len(), 6);
        let reports = at_last(|| async { backend.poll(&handles).await }).await;
        assert!(reports.iter().all(|report| report.state == minik8s_core::job::JobState::Queued), "{reports:?}");
        for handle in &handles {
            assert_eq!(at_last(|| async { backend.find(&handle.id).await }).await.as_ref(), Some(handle));
            at_last(|| async { backend.remove(&handle.id).await }).await;
        }
        let pods = plain.api::<Pod>("default").list(&ListOptions::default()).await.unwrap().items;
        let secrets = plain.api::<Secret>("default").list(&ListOptions::default()).await.unwrap().items;
        assert_eq!((pods.len(), secrets.len()), (0, 0), "seed {seed}");
    }
}
