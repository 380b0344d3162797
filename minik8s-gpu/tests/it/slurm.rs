//! A real Slurm behind a real sshd keeps the contract, and more.

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use minik8s_core::client::{Api, DeleteOptions, ListOptions, PatchType};
use minik8s_core::cluster::Cluster;
use minik8s_core::job::SharedJobBackend;
use minik8s_core::testkit::jobs::{Subject, run_all};
use minik8s_core::testkit::wait::until;
use minik8s_gpu::GpuExtension;
use minik8s_gpu::kinds::{GpuJob, GpuJobSpec, GpuJobStatus, GpuRequest, JobCluster, JobClusterSpec, Phase, SlurmSpec};
use minik8s_gpu::slurm::SlurmBackend;
use minik8s_gpu::testkit::{SlurmBed, SlurmFaults};
use std::sync::Arc;
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slurm_keeps_the_contract() {
    let Some(bed) = SlurmBed::start() else { return };
    let bed = Arc::new(bed);
    let config = bed.config();
    let open = move || {
        let config = config.clone();
        async move { Arc::new(SlurmBackend::new(config).unwrap()) as SharedJobBackend }
    };
    let subject = Subject::new(open, |request| request.placement.partition = Some("nowhere".to_owned()));
    run_all(subject.with_faults(Arc::new(SlurmFaults(bed)))).await;
}

mod outages;

/// A control plane with jobs, and one cluster with Slurm.
struct World {
    cluster: Cluster,
    dir: tempfile::TempDir,
    bed: Arc<SlurmBed>,
}

const BOUND: Duration = Duration::from_secs(300);

impl World {
    async fn start() -> Option<Self> {
        let bed = Arc::new(SlurmBed::start()?);
        let dir = tempfile::tempdir().unwrap();
        let cluster = Cluster::builder().extension(GpuExtension::new(dir.path())).start().await.unwrap();
        let world = Self { cluster, dir, bed };
        world.secret("key", &world.bed.file("ssh/key")).await;
        world.add("hpc", |_| {}).await;
        Some(world)
    }

    async fn secret(&self, name: &str, key: &str) {
        let entry = ByteString(key.as_bytes().to_vec());
        let mut secret = Secret { data: Some([("ssh-privatekey".to_owned(), entry)].into()), ..Secret::default() };
        secret.metadata.name = Some(name.to_owned());
        self.cluster.client().api::<Secret>("default").create(&secret).await.unwrap();
    }

    async fn add(&self, name: &str, change: impl FnOnce(&mut SlurmSpec)) {
        let mut slurm = SlurmSpec {
            host: "127.0.0.1".to_owned(),
            port: Some(self.bed.port.into()),
            user: self.bed.user.clone(),
            key_secret: "key".to_owned(),
            known_hosts: self.bed.file("ssh/known_hosts"),
            root: Some(self.bed.root().display().to_string()),
            ..SlurmSpec::default()
        };
        change(&mut slurm);
        let spec = JobClusterSpec { slurm: Some(slurm), poll_seconds: Some(0.5), ..JobClusterSpec::default() };
        let mut cluster = JobCluster { spec, ..JobCluster::default() };
        cluster.metadata.name = Some(name.to_owned());
        self.cluster.client().api::<JobCluster>("default").create(&cluster).await.unwrap();
    }

    async fn job(&self, name: &str, cluster: &str, spec: GpuJobSpec) {
        let mut job = GpuJob { spec: GpuJobSpec { cluster: cluster.to_owned(), ..spec }, ..GpuJob::default() };
        job.metadata.name = Some(name.to_owned());
        self.jobs().create(&job).await.unwrap();
    }

    fn jobs(&self) -> Api<GpuJob> {
        self.cluster.client().api("default")
    }

    async fn ends(&self, name: &str) -> (GpuJob, GpuJobStatus) {
        until(&format!("{name} ends"), BOUND, || async {
            let job = self.jobs().get(name).await.ok()?;
            let status = job.status.clone()?;
            status.phase.is_final().then_some((job, status))
        })
        .await
    }

    /// Waits until a cluster says this of itself.
    async fn says(&self, name: &str, reason: &str) {
        until(&format!("{name} says {reason}"), BOUND, || async { (self.ready(name).await.1 == reason).then_some(()) })
            .await;
    }

    async fn runs(&self, name: &str) {
        until(&format!("{name} runs"), BOUND, || async {
            (self.jobs().get(name).await.ok()?.status?.phase == Phase::Running).then_some(())
        })
        .await;
    }

    async fn ready(&self, name: &str) -> (String, String) {
        until(&format!("it is said whether {name} answers"), BOUND, || async {
            let cluster = self.cluster.client().api::<JobCluster>("default").get(name).await.ok()?;
            let ready = cluster.status?.conditions.into_iter().find(|c| c.type_ == "Ready")?;
            Some((ready.status, ready.reason))
        })
        .await
    }

    fn output(&self, job: &GpuJob, name: &str) -> String {
        let uid = job.metadata.uid.clone().unwrap();
        let path = self.dir.path().join("output").join(uid).join("1").join(name);
        std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    /// Directories of jobs on the other side.
    fn left(&self) -> Vec<String> {
        let clusters = std::fs::read_dir(self.bed.root()).into_iter().flatten().flatten();
        let jobs = clusters.flat_map(|cluster| std::fs::read_dir(cluster.path()).into_iter().flatten().flatten());
        jobs.map(|job| job.path().display().to_string()).collect()
    }
}

fn running(run: &str) -> GpuJobSpec {
    GpuJobSpec { run: run.to_owned(), ..GpuJobSpec::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_jobs_at_once_cost_one_command_a_look_and_leave_nothing() {
    let Some(world) = World::start().await else { return };
    // Nothing can start: whatever is asked while nothing changes is asked about all of them.
    world.bed.fault(&["drain"]);
    for number in 0..200 {
        let run = format!("for i in 1 2 3 4 5; do echo {number}-$i; done; echo {number} >&2; exit $(({number} % 3))");
        world.job(&format!("j{number}"), "hpc", running(&run)).await;
    }
    until("all are handed over", BOUND, || async {
        let list = world.jobs().list(&ListOptions::default()).await.ok()?;
        let queued = |job: &GpuJob| job.status.as_ref().is_some_and(|status| status.phase == Phase::Queued);
        (list.items.iter().filter(|job| queued(job)).count() == 200).then_some(())
    })
    .await;
    let began = Instant::now();
    let before = world.bed.commands();
    until("a few looks were taken", BOUND, || async { (world.bed.commands() >= before + 5).then_some(()) }).await;
    let count = world.bed.commands() - before;
    let looks = began.elapsed().as_secs_f64() / 0.45 + 1.0;
    assert!(count as f64 <= looks, "more than one command a look");
    world.bed.fault(&["nodes-up"]);
    for number in 0..200 {
        let (job, status) = world.ends(&format!("j{number}")).await;
        let (code, end) = (number % 3, if number % 3 == 0 { "Completed" } else { "Error" });
        assert_eq!((status.exit_code, status.end.as_deref()), (Some(code), Some(end)), "{number}: {status:?}");
        let want: String = (1..=5).map(|i| format!("{number}-{i}\n")).collect();
        assert_eq!(world.output(&job, "stdout"), want);
        assert_eq!(world.output(&job, "stderr"), format!("{number}\n"));
    }
    let submitted = world.bed.file("log/slurmctld.log").matches("_slurm_rpc_submit_batch_job: JobId=").count();
    assert_eq!((submitted, world.left()), (200, Vec::new()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_slurm_gets_a_job_once_and_refusals_name_their_field() {
    let Some(world) = World::start().await else { return };
    assert_eq!(world.ready("hpc").await, ("True".to_owned(), "Answers".to_owned()));
    world.bed.fault(&["ctld-freeze"]);
    world.job("frozen", "hpc", running("echo once")).await;
    // The client gives up after ten seconds, but what it asked for waits for the controller.
    until("nobody knows whether it was taken", BOUND, || async {
        let status = world.jobs().get("frozen").await.ok()?.status?;
        ["SubmissionUnclear", "ConnectionLost", "SchedulerDown"].contains(&status.reason.as_str()).then_some(())
    })
    .await;
    world.bed.fault(&["ctld-thaw"]);
    let (job, status) = world.ends("frozen").await;
    assert_eq!((status.phase, world.output(&job, "stdout")), (Phase::Succeeded, "once\n".to_owned()));

    let some = |text: &str| Some(text.to_owned());
    let gpus = |count| Some(GpuRequest { count, kind: None });
    for (name, spec, field) in [
        ("nowhere", GpuJobSpec { partition: some("nowhere"), ..running("true") }, "spec.partition"),
        ("greedy", GpuJobSpec { gpus: gpus(9), ..running("true") }, "spec.gpus.count"),
    ] {
        world.job(name, "hpc", spec).await;
        let (_, status) = world.ends(name).await;
        assert_eq!(status.reason, "Refused", "{status:?}");
        assert!(status.message.contains(field), "{}", status.message);
    }
    assert_eq!(world.left(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_keys_and_absent_hosts_are_told_apart_and_hold_up_nobody() {
    let Some(world) = World::start().await else { return };
    let foreign = tempfile::tempdir().unwrap();
    let path = foreign.path().join("key");
    let made =
        std::process::Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&path).status();
    assert!(made.unwrap().success());
    world.secret("foreign", &std::fs::read_to_string(&path).unwrap()).await;
    let other = std::fs::read_to_string(path.with_extension("pub")).unwrap();
    let port = world.bed.port;
    world.add("wrong-key", |slurm| slurm.key_secret = "foreign".to_owned()).await;
    world.add("no-key", |slurm| slurm.key_secret = "absent".to_owned()).await;
    world.add("host-key", |slurm| slurm.known_hosts = format!("[127.0.0.1]:{port} {other}")).await;
    // A port that was free a moment ago, and on which nobody listens.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    world.add("absent", |slurm| slurm.port = Some(free.into())).await;
    for name in ["wrong-key", "no-key", "host-key", "absent"] {
        world.job(&format!("on-{name}"), name, running("true")).await;
    }
    world.job("fine", "hpc", running("echo fine")).await;
    let (job, _) = world.ends("fine").await;
    assert_eq!(world.output(&job, "stdout"), "fine\n");
    for (name, reason) in [
        ("wrong-key", "KeyRefused"),
        ("no-key", "SecretNotFound"),
        ("host-key", "HostKeyChanged"),
        ("absent", "Unreachable"),
    ] {
        assert_eq!(world.ready(name).await, ("False".to_owned(), reason.to_owned()), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_large_is_cut_and_a_deleted_job_ends_there() {
    let Some(world) = World::start().await else { return };
    let clusters = world.cluster.client().api::<JobCluster>("default");
    let limit = serde_json::json!({"spec": {"limits": {"outputBytes": 100_000}}});
    clusters.patch("hpc", PatchType::Merge, &limit).await.unwrap();
    // A sparse file would be as good, but this one is really written.
    world.job("large", "hpc", running("head -c 1073741824 /dev/zero | tr '\\0' x")).await;
    world.job("long", "hpc", running("echo started; sleep 600")).await;
    until("it runs", BOUND, || async {
        (world.jobs().get("long").await.ok()?.status?.phase == Phase::Running).then_some(())
    })
    .await;
    world.jobs().delete("long", &DeleteOptions::default()).await.unwrap();
    until("it is gone", BOUND, || async { world.jobs().get_opt("long").await.unwrap().is_none().then_some(()) }).await;
    assert!(world.bed.slurm(&["squeue", "-h", "-t", "all", "-o", "%T"]).contains("CANCELLED"));
    let (job, status) = world.ends("large").await;
    assert_eq!(status.phase, Phase::Succeeded);
    let file = status.files.iter().find(|file| file.name == "stdout").unwrap();
    assert_eq!((file.bytes, file.truncated, world.output(&job, "stdout").len()), (1 << 30, true, 100_000));
    assert_eq!(world.left(), Vec::<String>::new());
}
