//! The controller, on a batch system that pretends.

mod faults;

use crate::GpuExtension;
use crate::backends::{Backends, Problem};
use crate::kinds::{GpuJob, GpuJobSpec, JobCluster, JobClusterSpec, JobDependency, LocalSpec, Phase};
use async_trait::async_trait;
use minik8s_core::client::{Api, Client, DeleteOptions, PatchType};
use minik8s_core::cluster::Cluster;
use minik8s_core::job::SharedJobBackend;
use minik8s_core::testkit::FakeJobs;
use minik8s_core::testkit::clock::TokioClock;
use minik8s_core::testkit::wait::until;
use parking_lot::Mutex;
use serde_json::json;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

#[derive(Clone, Default)]
struct Fakes(Arc<Mutex<HashMap<String, FakeJobs>>>, Arc<AtomicU32>, Arc<Mutex<Option<Problem>>>);

impl Fakes {
    fn of(&self, cluster: &str) -> FakeJobs {
        self.0.lock().entry(cluster.to_owned()).or_default().clone()
    }

    /// From now on no cluster can be reached as it is described, or all can.
    fn close(&self, problem: Option<Problem>) {
        *self.2.lock() = problem;
    }
}

/// A cluster whose jobs are the fake's.
fn local_cluster(name: &str) -> JobCluster {
    let spec =
        JobClusterSpec { local: Some(LocalSpec::default()), poll_seconds: Some(0.5), ..JobClusterSpec::default() };
    let mut cluster = JobCluster { spec, ..JobCluster::default() };
    cluster.metadata.name = Some(name.to_owned());
    cluster
}

#[async_trait]
impl Backends for Fakes {
    async fn open(&self, cluster: &JobCluster, _: &Client) -> Result<SharedJobBackend, Problem> {
        self.1.fetch_add(1, Ordering::Relaxed);
        if let Some(problem) = self.2.lock().clone() {
            return Err(problem);
        }
        Ok(Arc::new(self.of(cluster.metadata.name.as_deref().unwrap_or_default())))
    }
}

struct World {
    cluster: Cluster,
    fakes: Fakes,
    dir: tempfile::TempDir,
}

const BOUND: Duration = Duration::from_secs(600);

impl World {
    async fn new(clusters: &[&str]) -> Self {
        let (dir, fakes) = (tempfile::tempdir().unwrap(), Fakes::default());
        let extension = GpuExtension::with_backends(dir.path(), Arc::new(fakes.clone()));
        let clock = Arc::new(TokioClock::default());
        let cluster = Cluster::builder().clock(clock).extension(extension).start().await.unwrap();
        let world = Self { cluster, fakes, dir };
        for name in clusters {
            world.add_cluster(name).await;
        }
        world
    }

    async fn add_cluster(&self, name: &str) {
        self.cluster.client().api::<JobCluster>("default").create(&local_cluster(name)).await.unwrap();
    }

    fn jobs(&self) -> Api<GpuJob> {
        self.cluster.client().api("default")
    }

    async fn create(&self, name: &str, cluster: &str, spec: GpuJobSpec) -> GpuJob {
        let mut job = GpuJob { spec: GpuJobSpec { cluster: cluster.to_owned(), ..spec }, ..GpuJob::default() };
        job.metadata.name = Some(name.to_owned());
        self.jobs().create(&job).await.unwrap()
    }

    async fn run(&self, name: &str, commands: &str) -> GpuJob {
        self.create(name, "one", GpuJobSpec { run: commands.to_owned(), ..GpuJobSpec::default() }).await
    }

    async fn reaches(&self, name: &str, phase: Phase) -> GpuJob {
        let what = format!("{name} is {}", phase.as_str());
        until(&what, BOUND, || async {
            let job = self.jobs().get(name).await.ok()?;
            let now = job.status.as_ref().map(|status| status.phase).unwrap_or_default();
            assert!(now == phase || !now.is_final(), "{name} ended as {:?}", job.status);
            (now == phase).then_some(job)
        })
        .await
    }

    fn file(&self, job: &GpuJob, attempt: u32, name: &str) -> String {
        let path = self.dir.path().join(job.metadata.uid.as_deref().unwrap()).join(attempt.to_string()).join(name);
        std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    /// Waits until a cluster says whether it answers, with this reason.
    async fn says(&self, cluster: &str, reason: &str) {
        until(&format!("{cluster} says {reason}"), BOUND, || async {
            let ready = self.clusters().get(cluster).await.ok()?.status?.conditions;
            ready.iter().any(|c| c.type_ == "Ready" && c.reason == reason).then_some(())
        })
        .await;
    }

    fn clusters(&self) -> Api<JobCluster> {
        self.cluster.client().api("default")
    }

    async fn gone(&self, name: &str) {
        until("the object is gone", BOUND, || async {
            self.jobs().get_opt(name).await.unwrap().is_none().then_some(())
        })
        .await;
    }

    fn kept(&self, cluster: &str) -> usize {
        self.fakes.of(cluster).started().iter().filter(|id| self.fakes.of(cluster).request(id).is_some()).count()
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_runs_and_its_files_come_home_and_nothing_is_left() {
    let world = World::new(&["one"]).await;
    let spec = GpuJobSpec {
        run: "echo hello\necho oops >&2\necho 1 > a.txt\necho 2 > b.txt".to_owned(),
        results: vec!["*.txt".to_owned()],
        ..GpuJobSpec::default()
    };
    world.create("a", "one", spec).await;
    let job = world.reaches("a", Phase::Succeeded).await;
    let status = job.status.clone().unwrap();
    assert_eq!((status.exit_code, status.attempt, status.reason.as_str()), (Some(0), 1, "Completed"));
    assert_eq!(world.file(&job, 1, "stdout"), "hello\n");
    assert_eq!(world.file(&job, 1, "stderr"), "oops\n");
    assert_eq!(world.file(&job, 1, "results/b.txt"), "2\n");
    let names: Vec<&str> = status.files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(names, ["results/a.txt", "results/b.txt", "stderr", "stdout"]);
    for kind in ["Submitted", "OutputFetched", "CleanedUp", "Complete"] {
        assert!(status.conditions.iter().any(|c| c.type_ == kind && c.status == "True"), "{kind}");
    }
    assert_eq!(world.kept("one"), 0);
    world.jobs().delete("a", &DeleteOptions::default()).await.unwrap();
    world.gone("a").await;
    assert_eq!(std::fs::read_dir(world.dir.path()).unwrap().count(), 0, "output goes with its object");
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_does_not_submit_twice() {
    let world = World::new(&["one"]).await;
    world.fakes.of("one").lose_next_answer();
    world.run("a", "echo once").await;
    let job = world.reaches("a", Phase::Succeeded).await;
    assert_eq!(world.fakes.of("one").started().len(), 1);
    assert_eq!(world.file(&job, 1, "stdout"), "once\n");
}

#[tokio::test(start_paused = true)]
async fn failures_are_told_apart_and_tried_again_where_that_is_right() {
    let world = World::new(&["one"]).await;
    let fake = world.fakes.of("one");
    let with =
        |run: &str, limit| GpuJobSpec { run: run.to_owned(), backoff_limit: Some(limit), ..GpuJobSpec::default() };
    world.create("bad", "one", with("exit 3", 2)).await;
    let status = world.reaches("bad", Phase::Failed).await.status.unwrap();
    assert_eq!((status.attempt, status.failures, status.exit_code), (3, 2, Some(3)));
    assert_eq!(status.end.as_deref(), Some("Error"));

    let compile = GpuJobSpec { compile: Some("exit 1".to_owned()), ..with("echo never", 2) };
    world.create("broken", "one", compile).await;
    let status = world.reaches("broken", Phase::Failed).await.status.unwrap();
    assert_eq!((status.attempt, status.end.as_deref()), (1, Some("CompileError")));

    let job = world.create("slow", "one", with("sleep 100000", 2)).await;
    world.reaches("slow", Phase::Running).await;
    fake.expire(&super::site::id_of(&job, 1));
    let status = world.reaches("slow", Phase::Failed).await.status.unwrap();
    assert_eq!((status.attempt, status.end.as_deref()), (1, Some("Timeout")));

    let job = world.create("unlucky", "one", with("sleep 60\necho done", 0)).await;
    world.reaches("unlucky", Phase::Running).await;
    fake.fail_node();
    let status = world.reaches("unlucky", Phase::Succeeded).await.status.unwrap();
    assert_eq!((status.attempt, status.disruptions, status.failures), (2, 1, 0));
    assert_eq!(status.excluded_nodes, ["fake-1"]);
    let again = fake.request(&super::site::id_of(&job, 2));
    assert!(again.is_none(), "removed after its end");

    let refused = GpuJobSpec { partition: Some("nowhere".to_owned()), ..with("true", 5) };
    world.create("refused", "one", refused).await;
    let status = world.reaches("refused", Phase::Failed).await.status.unwrap();
    assert_eq!(status.reason, "Refused");
    assert!(status.message.contains("spec.partition"), "{}", status.message);
}

#[tokio::test(start_paused = true)]
async fn deleting_a_job_ends_it_there_first() {
    let world = World::new(&["one"]).await;
    let job = world.run("a", "sleep 100000").await;
    world.reaches("a", Phase::Running).await;
    world.jobs().delete("a", &DeleteOptions::default()).await.unwrap();
    world.gone("a").await;
    assert_eq!(world.kept("one"), 0);
    assert!(world.fakes.of("one").request(&super::site::id_of(&job, 1)).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_job_is_suspended_before_and_after_it_was_handed_over() {
    let world = World::new(&["one"]).await;
    let suspend = |on: bool| json!({"spec": {"suspend": on}});
    world
        .create(
            "a",
            "one",
            GpuJobSpec { run: "sleep 50\necho x".to_owned(), suspend: Some(true), ..GpuJobSpec::default() },
        )
        .await;
    until("it says why it waits", BOUND, || async {
        (world.jobs().get("a").await.ok()?.status?.reason == "Suspended").then_some(())
    })
    .await;
    assert!(world.fakes.of("one").started().is_empty());
    world.jobs().patch("a", PatchType::Merge, &suspend(false)).await.unwrap();
    world.reaches("a", Phase::Running).await;
    world.jobs().patch("a", PatchType::Merge, &suspend(true)).await.unwrap();
    world.reaches("a", Phase::Suspended).await;
    world.jobs().patch("a", PatchType::Merge, &suspend(false)).await.unwrap();
    world.reaches("a", Phase::Succeeded).await;
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_does_not_answer_holds_up_nobody_else() {
    let world = World::new(&["one", "two"]).await;
    world.run("before", "sleep 5\necho done").await;
    world.reaches("before", Phase::Running).await;
    world.fakes.of("one").connected(false);
    let ready = |name: &'static str| {
        let api = world.cluster.client().api::<JobCluster>("default");
        async move {
            let status = api.get(name).await.ok()?.status?;
            status.conditions.into_iter().find(|c| c.type_ == "Ready").map(|c| (c.status, c.reason))
        }
    };
    let unreachable = Some(("False".to_owned(), "Unreachable".to_owned()));
    until("the outage is told", BOUND, || async { (ready("one").await == unreachable).then_some(()) }).await;
    world.create("other", "two", GpuJobSpec { run: "echo other".to_owned(), ..GpuJobSpec::default() }).await;
    world.reaches("other", Phase::Succeeded).await;
    world.fakes.of("one").connected(true);
    world.reaches("before", Phase::Succeeded).await;
    until("the end of the outage is told", BOUND, || async {
        ready("one").await.filter(|(status, _)| status == "True")
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_job_that_was_forgotten_there_is_given_up_after_a_while() {
    let world = World::new(&["one"]).await;
    let job = world.run("a", "echo part\nsleep 100000").await;
    world.reaches("a", Phase::Running).await;
    world.fakes.of("one").forget(&super::site::id_of(&job, 1));
    let job = world.reaches("a", Phase::Failed).await;
    assert_eq!(job.status.as_ref().unwrap().end.as_deref(), Some("Lost"));
    assert_eq!(world.file(&job, 1, "stdout"), "part\n", "its files were there");
}

#[tokio::test(start_paused = true)]
async fn jobs_wait_for_jobs_for_clusters_and_for_their_sources() {
    let world = World::new(&["one"]).await;
    let after = |job: &str, condition: &str| GpuJobSpec {
        run: "echo second".to_owned(),
        dependencies: vec![JobDependency { job: job.to_owned(), condition: condition.to_owned() }],
        ..GpuJobSpec::default()
    };
    world.create("second", "one", after("first", "Succeeded")).await;
    world.create("never", "one", after("first", "Failed")).await;
    world.run("first", "sleep 3").await;
    world.reaches("second", Phase::Succeeded).await;
    assert!(world.jobs().get("first").await.unwrap().status.unwrap().end.is_some(), "the first has ended before");
    let status = world.reaches("never", Phase::Failed).await.status.unwrap();
    assert_eq!(status.end.as_deref(), Some("DependencyFailed"));

    world.create("homeless", "later", GpuJobSpec { run: "true".to_owned(), ..GpuJobSpec::default() }).await;
    until("it says what is missing", BOUND, || async {
        (world.jobs().get("homeless").await.ok()?.status?.reason == "ClusterNotFound").then_some(())
    })
    .await;
    world.add_cluster("later").await;
    world.reaches("homeless", Phase::Succeeded).await;
}

#[tokio::test(start_paused = true)]
async fn hundreds_of_jobs_are_asked_about_in_one_query() {
    let world = World::new(&["one"]).await;
    for number in 0..200 {
        world.run(&format!("j{number}"), &format!("sleep 30\necho {number}")).await;
    }
    for number in 0..200 {
        let job = world.reaches(&format!("j{number}"), Phase::Succeeded).await;
        assert_eq!(world.file(&job, 1, "stdout"), format!("{number}\n"));
    }
    let fake = world.fakes.of("one");
    assert_eq!(fake.started().len(), 200);
    assert!(fake.queries() < 200, "{} queries", fake.queries());
}
