//! What goes wrong: refused wishes, keys that are not taken, clusters and namespaces that are deleted.

use super::*;
use crate::controller::site::id_of;
use crate::kinds::GpuJobStatus;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use minik8s_core::job::{Denial, JobError, JobId};

fn version(job: &GpuJob) -> String {
    job.metadata.resource_version.clone().unwrap_or_default()
}

fn obstacle(status: &GpuJobStatus) -> Option<(String, String)> {
    status.conditions.iter().find(|c| c.type_ == "Obstructed").map(|c| (c.reason.clone(), c.message.clone()))
}

fn key_refused() -> JobError {
    JobError::Denied { what: Denial::Key, why: "the key is not taken".to_owned() }
}

impl World {
    /// What a cluster that is deleted says of why it is still there.
    async fn says_why_it_stays(&self, name: &str, reason: &str) -> String {
        until(&format!("{name} says that it stays for {reason}"), BOUND, || async {
            let conditions = self.clusters().get(name).await.ok()?.status?.conditions;
            conditions.into_iter().find(|c| c.type_ == "Deleted" && c.reason == reason).map(|c| c.message)
        })
        .await
    }

    async fn cluster_gone(&self, name: &str) {
        until(&format!("{name} is gone"), BOUND, || async {
            self.clusters().get_opt(name).await.unwrap().is_none().then_some(())
        })
        .await;
    }

    async fn obstructed(&self, name: &str) -> (GpuJob, String) {
        until(&format!("{name} says what is in its way"), BOUND, || async {
            let job = self.jobs().get(name).await.ok()?;
            let (reason, _) = obstacle(job.status.as_ref()?)?;
            Some((job, reason))
        })
        .await
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_wish_is_said_once_and_taken_back_with_the_wish() {
    let world = World::new(&["one"]).await;
    let refusal = JobError::Refused { field: Some("suspend"), why: "not here".to_owned() };
    world.fakes.of("one").fail("suspend", Some(refusal));
    world.run("a", "echo x\nsleep 100000").await;
    world.reaches("a", Phase::Running).await;
    let suspend = |on: bool| json!({"spec": {"suspend": on}});
    world.jobs().patch("a", PatchType::Merge, &suspend(true)).await.unwrap();
    let (_, reason) = world.obstructed("a").await;
    assert_eq!(reason, "Refused");
    tokio::time::sleep(Duration::from_secs(30)).await;
    let before = world.jobs().get("a").await.unwrap();
    assert!(before.status.as_ref().unwrap().message.is_empty(), "the batch system's words have their place");
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(version(&world.jobs().get("a").await.unwrap()), version(&before), "written again and again");
    world.jobs().patch("a", PatchType::Merge, &suspend(false)).await.unwrap();
    until("nothing is in its way", BOUND, || async {
        obstacle(&world.jobs().get("a").await.ok()?.status?).is_none().then_some(())
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_key_is_noticed_without_jobs_and_read_anew() {
    let world = World::new(&["one"]).await;
    let fake = world.fakes.of("one");
    world.says("one", "Answers").await;
    fake.fail("*", Some(key_refused()));
    world.says("one", "KeyRefused").await;
    let opened = world.fakes.1.load(Ordering::Relaxed);
    fake.fail("*", None);
    world.says("one", "Answers").await;
    assert!(world.fakes.1.load(Ordering::Relaxed) > opened, "the key was read anew");

    // A job that meets it makes the cluster look at once.
    fake.fail("submit", Some(key_refused()));
    fake.fail("kept", Some(key_refused()));
    world.run("a", "echo x").await;
    let (job, reason) = world.obstructed("a").await;
    assert_eq!((job.status.unwrap().phase, reason.as_str()), (Phase::Submitting, "KeyRefused"));
    world.says("one", "KeyRefused").await;
    fake.fail("submit", None);
    fake.fail("kept", None);
    let job = world.reaches("a", Phase::Succeeded).await;
    assert_eq!((fake.started().len(), obstacle(&job.status.unwrap())), (1, None));
}

#[tokio::test(start_paused = true)]
async fn deleting_a_cluster_ends_its_jobs_and_leaves_nothing_there() {
    let world = World::new(&["one"]).await;
    world.run("done", "echo x").await;
    world.reaches("done", Phase::Succeeded).await;
    let job = world.run("a", "echo part\nsleep 100000").await;
    world.reaches("a", Phase::Running).await;
    world.clusters().delete("one", &DeleteOptions::default()).await.unwrap();
    let ended = world.reaches("a", Phase::Failed).await;
    assert_eq!(ended.status.as_ref().unwrap().end.as_deref(), Some("Cancelled"));
    assert_eq!(world.file(&job, 1, "stdout"), "part\n", "its output came home");
    world.cluster_gone("one").await;
    assert_eq!((world.kept("one"), world.fakes.of("one").left()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_never_had_a_job_goes_and_one_that_had_stays_until_it_answers_or_is_let_go() {
    let world = World::new(&["fresh", "used", "lost"]).await;
    world.fakes.of("fresh").connected(false);
    world.says("fresh", "Unreachable").await;
    for (job, name) in [("j", "used"), ("k", "lost")] {
        world.create(job, name, GpuJobSpec { run: "true".to_owned(), ..GpuJobSpec::default() }).await;
        world.reaches(job, Phase::Succeeded).await;
        world.fakes.of(name).connected(false);
    }
    for name in ["fresh", "used", "lost"] {
        world.clusters().delete(name, &DeleteOptions::default()).await.unwrap();
    }
    world.cluster_gone("fresh").await;
    // Much later, it still tries; how to let go of it stands where people look.
    let told = world.says_why_it_stays("used", "Unreachable").await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(world.says_why_it_stays("used", "Unreachable").await, told);
    assert!(told.contains("removed first") && told.contains("kubectl patch jobcluster used -n default"), "{told}");
    world.fakes.of("used").connected(true);
    world.cluster_gone("used").await;
    assert!(world.clusters().get_opt("lost").await.unwrap().is_some(), "nobody has let go of it yet");
    let force = json!({"metadata": {"finalizers": null}});
    world.clusters().patch("lost", PatchType::Merge, &force).await.unwrap();
    world.cluster_gone("lost").await;
}

#[tokio::test(start_paused = true)]
async fn a_cluster_whose_key_is_gone_before_it_says_what_brings_it_back_and_how_to_let_go() {
    let world = World::new(&["one"]).await;
    let job = world.run("a", "echo part\nsleep 100000").await;
    world.reaches("a", Phase::Running).await;
    let why = "there is no Secret \"key\": make one with `kubectl create secret generic key`";
    world.fakes.close(Some(Problem { reason: "SecretNotFound", message: why.to_owned() }));
    // A change of what the cluster is makes its connection anew, as a controller that starts does.
    let change = json!({"spec": {"pollSeconds": 1.0}});
    world.clusters().patch("one", PatchType::Merge, &change).await.unwrap();
    world.says("one", "SecretNotFound").await;
    world.clusters().delete("one", &DeleteOptions::default()).await.unwrap();
    let told = world.says_why_it_stays("one", "SecretNotFound").await;
    for part in ["(1: a)", "kubectl create secret generic key", "kubectl patch jobcluster one -n default"] {
        assert!(told.contains(part), "{part} is not in {told}");
    }
    assert_eq!(world.jobs().get("a").await.unwrap().status.unwrap().phase, Phase::Running, "nobody could end it");
    world.fakes.close(None);
    world.cluster_gone("one").await;
    let status = world.reaches("a", Phase::Failed).await.status.unwrap();
    assert_eq!((status.end.as_deref(), world.file(&job, 1, "stdout").as_str()), (Some("Cancelled"), "part\n"));
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_refused_while_its_cluster_goes_is_read_anew_where_it_can_be() {
    let world = World::new(&["one"]).await;
    world.run("a", "echo part\nsleep 100000").await;
    world.reaches("a", Phase::Running).await;
    let fake = world.fakes.of("one");
    fake.fail("*", Some(key_refused()));
    world.clusters().delete("one", &DeleteOptions::default()).await.unwrap();
    world.says_why_it_stays("one", "KeyRefused").await;
    let opened = || world.fakes.1.load(Ordering::Relaxed);
    let before = opened();
    until("the key is read anew", BOUND, || async { (opened() > before).then_some(()) }).await;
    // The Secret goes, and the key that was known is taken again.
    let gone = Problem { reason: "SecretNotFound", message: "there is no Secret".to_owned() };
    world.fakes.close(Some(gone));
    let before = opened();
    until("the key is looked for again", BOUND, || async { (opened() > before).then_some(()) }).await;
    fake.fail("*", None);
    world.cluster_gone("one").await;
    assert_eq!(world.reaches("a", Phase::Failed).await.status.unwrap().end.as_deref(), Some("Cancelled"));
}

#[tokio::test(start_paused = true)]
async fn a_namespace_goes_with_its_clusters_and_jobs_or_says_why_not() {
    let world = World::new(&[]).await;
    let client = world.cluster.client();
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some("lab".to_owned());
    client.all::<Namespace>().create(&namespace).await.unwrap();
    let (clusters, jobs) = (client.api::<JobCluster>("lab"), client.api::<GpuJob>("lab"));
    clusters.create(&local_cluster("hpc")).await.unwrap();
    let mut job = GpuJob {
        spec: GpuJobSpec { cluster: "hpc".to_owned(), run: "sleep 100000".to_owned(), ..GpuJobSpec::default() },
        ..GpuJob::default()
    };
    job.metadata.name = Some("a".to_owned());
    jobs.create(&job).await.unwrap();
    until("it runs", BOUND, || async { (jobs.get("a").await.ok()?.status?.phase == Phase::Running).then_some(()) })
        .await;
    let fake = world.fakes.of("hpc");
    fake.connected(false);
    client.all::<Namespace>().delete("lab", &DeleteOptions::default()).await.unwrap();
    let told = until("the cluster says what it waits for", BOUND, || async {
        let conditions = clusters.get("hpc").await.ok()?.status?.conditions;
        let told = conditions.into_iter().find(|c| c.type_ == "Deleted" && c.reason == "Unreachable")?;
        Some(told.message)
    })
    .await;
    assert!(told.contains("(1: a)") && told.contains("kubectl patch jobcluster hpc -n lab"), "{told}");
    let told =
        until("the job says how to let go", BOUND, || async { obstacle(&jobs.get("a").await.ok()?.status?) }).await;
    assert!(told.1.contains("kubectl patch gpujob a -n lab"), "{told:?}");
    fake.connected(true);
    until("the namespace is gone", BOUND, || async {
        client.all::<Namespace>().get_opt("lab").await.unwrap().is_none().then_some(())
    })
    .await;
    assert_eq!((world.kept("hpc"), fake.left()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn jobs_wait_here_where_they_cannot_wait_there() {
    let world = World::new(&["one"]).await;
    world.fakes.of("one").without_dependencies();
    let after = |job: &str, condition: &str| GpuJobSpec {
        run: "echo second".to_owned(),
        dependencies: vec![JobDependency { job: job.to_owned(), condition: condition.to_owned() }],
        ..GpuJobSpec::default()
    };
    world.run("first", "sleep 30").await;
    world.reaches("first", Phase::Running).await;
    world.create("second", "one", after("first", "Succeeded")).await;
    world.create("never", "one", after("first", "Failed")).await;
    world.reaches("second", Phase::Succeeded).await;
    let status = world.reaches("never", Phase::Failed).await.status.unwrap();
    assert_eq!(status.end.as_deref(), Some("DependencyFailed"));
}

#[tokio::test(start_paused = true)]
async fn a_dependency_that_fails_between_writing_and_handing_over_is_seen() {
    let world = World::new(&["one"]).await;
    let fake = world.fakes.of("one");
    let first = world.run("first", "sleep 100000").await;
    world.reaches("first", Phase::Running).await;
    // The second is begun while the first runs, and cannot be handed over yet.
    fake.fail("submit", Some(JobError::DiskFull("no room".to_owned())));
    let spec = GpuJobSpec {
        run: "echo second".to_owned(),
        dependencies: vec![JobDependency { job: "first".to_owned(), condition: "Succeeded".to_owned() }],
        ..GpuJobSpec::default()
    };
    world.create("second", "one", spec).await;
    let (second, _) = world.obstructed("second").await;
    assert_eq!(second.status.unwrap().phase, Phase::Submitting);
    fake.expire(&id_of(&first, 1));
    world.reaches("first", Phase::Failed).await;
    fake.fail("submit", None);
    let status = world.reaches("second", Phase::Failed).await.status.unwrap();
    assert_eq!(
        (status.end.as_deref(), fake.started().len()),
        (Some("DependencyFailed"), 1),
        "it was never handed over"
    );
}

#[tokio::test(start_paused = true)]
async fn an_orphan_that_stays_keeps_nobody_out() {
    let world = World::new(&[]).await;
    let fake = world.fakes.of("one");
    let orphan = JobId::new("nobodys", 1);
    fake.strand(&orphan);
    fake.fail("remove", Some(JobError::Odd("permission denied".to_owned())));
    world.add_cluster("one").await;
    world.says("one", "Answers").await;
    world.run("a", "echo x").await;
    world.reaches("a", Phase::Cleaning).await;
    fake.fail("remove", None);
    world.reaches("a", Phase::Succeeded).await;
    until("it is tried again", BOUND, || async { fake.request(&orphan).is_none().then_some(()) }).await;
}

#[tokio::test(start_paused = true)]
async fn a_job_is_cancelled_and_deleted_while_it_is_handed_over() {
    let world = World::new(&["one"]).await;
    let fake = world.fakes.of("one");
    fake.fail("submit", Some(JobError::Unclear("who knows".to_owned())));
    for name in ["cancelled", "deleted"] {
        world.run(name, "echo x").await;
        world.obstructed(name).await;
    }
    world.jobs().patch("cancelled", PatchType::Merge, &json!({"spec": {"cancel": true}})).await.unwrap();
    world.jobs().delete("deleted", &DeleteOptions::default()).await.unwrap();
    world.gone("deleted").await;
    let status = world.reaches("cancelled", Phase::Failed).await.status.unwrap();
    assert_eq!((status.end.as_deref(), fake.started().len()), (Some("Cancelled"), 0));

    // One that was taken though nobody heard so is ended there, and its output comes home.
    fake.fail("submit", None);
    fake.lose_answers(u32::MAX);
    let job = world.run("taken", "echo part\nsleep 100000").await;
    world.obstructed("taken").await;
    world.jobs().patch("taken", PatchType::Merge, &json!({"spec": {"cancel": true}})).await.unwrap();
    let status = world.reaches("taken", Phase::Failed).await.status.unwrap();
    assert_eq!((status.end.as_deref(), world.file(&job, 1, "stdout").as_str()), (Some("Cancelled"), "part\n"));
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_broke_off_goes_on_from_where_it_was() {
    let world = World::new(&["one"]).await;
    let fake = world.fakes.of("one");
    fake.break_a_read_after(2);
    // Grows to three million bytes and a little.
    let doubled = "cat big >> big\n".repeat(15);
    let run = format!("printf %s {} > big\n{doubled}", "x".repeat(100));
    let spec = GpuJobSpec { run, results: vec!["big".to_owned()], ..GpuJobSpec::default() };
    world.create("a", "one", spec).await;
    let job = world.reaches("a", Phase::Succeeded).await;
    let status = job.status.clone().unwrap();
    let big = status.files.iter().find(|file| file.name == "results/big").unwrap();
    assert_eq!((big.bytes, world.file(&job, 1, "results/big").len()), (3_276_800, 3_276_800));
    let from: Vec<u64> = fake.reads().iter().filter(|(name, _)| name.as_str() == "results/big").map(|r| r.1).collect();
    assert_eq!(from, [0, 1 << 20, 2 << 20, 3 << 20], "no part came twice");
    assert_eq!(fake.started().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn more_results_than_may_be_are_cut_and_told() {
    let world = World::new(&["one"]).await;
    let run: String = (0..1010).map(|number| format!("echo x > f{number}\n")).collect();
    let spec = GpuJobSpec { run, results: vec!["f*".to_owned()], ..GpuJobSpec::default() };
    world.create("many", "one", spec).await;
    let status = world.reaches("many", Phase::Succeeded).await.status.unwrap();
    assert_eq!(status.files.len(), 1002);
    let fetched = status.conditions.iter().find(|c| c.type_ == "OutputFetched").unwrap();
    assert!(fetched.reason == "Truncated" && fetched.message.contains("pack them"), "{fetched:?}");
}

#[tokio::test(start_paused = true)]
async fn who_follows_an_attempt_is_told_of_its_end_before_the_next() {
    let world = World::new(&["one"]).await;
    let spec = GpuJobSpec { run: "echo x\nexit 1".to_owned(), backoff_limit: Some(1), ..GpuJobSpec::default() };
    world.create("a", "one", spec).await;
    let job = until("it is tried again", BOUND, || async {
        let job = world.jobs().get("a").await.ok()?;
        (job.status.as_ref()?.failures == 1).then_some(job)
    })
    .await;
    assert_eq!(world.file(&job, 1, ".complete"), "");
    world.reaches("a", Phase::Failed).await;
}

#[tokio::test(start_paused = true)]
async fn records_of_pods_whose_cluster_is_gone_are_kept_for_nobody() {
    let world = World::new(&["one"]).await;
    let uid = world.clusters().get("one").await.unwrap().metadata.uid.unwrap();
    let pods = world.cluster.client().api::<Pod>("default");
    for name in ["wanted", "unwanted"] {
        let pod = json!({
            "metadata": {"name": name, "finalizers": ["minik8s.io/job"], "labels": {"minik8s.io/job-cluster": uid}},
            "spec": {"containers": [{"name": "job", "image": "i"}], "schedulingGates": [{"name": "minik8s.io/turn"}]},
        });
        pods.create(&serde_json::from_value(pod).unwrap()).await.unwrap();
    }
    pods.delete("unwanted", &DeleteOptions::default()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(pods.get_opt("unwanted").await.unwrap().is_some(), "its cluster has yet to hear of its end");
    world.clusters().delete("one", &DeleteOptions::default()).await.unwrap();
    world.cluster_gone("one").await;
    let gone = |name: &'static str| {
        let pods = pods.clone();
        async move {
            until("its record goes", BOUND, || async { pods.get_opt(name).await.unwrap().is_none().then_some(()) })
                .await
        }
    };
    gone("unwanted").await;
    assert!(pods.get_opt("wanted").await.unwrap().is_some(), "nobody wants it to go");
    pods.delete("wanted", &DeleteOptions::default()).await.unwrap();
    gone("wanted").await;
}
