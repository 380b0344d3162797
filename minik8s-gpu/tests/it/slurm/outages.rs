//! Connections that break, a Slurm that is stopped, hosts on the way, and clusters that are deleted.

use super::*;
use k8s_openapi::api::core::v1::ConfigMap;
use minik8s_gpu::kinds::JumpHost;
use serde_json::json;
use std::path::PathBuf;
use std::process::Command;

impl World {
    /// A job that goes on until `go_on`, so that whatever is done meanwhile is done while it runs.
    async fn patient(&self, name: &str, cluster: &str) {
        let mark = self.bed.dir.join("home/go-on");
        let run = format!("echo before; while [ ! -e {} ]; do sleep 0.1; done; echo after", mark.display());
        self.job(name, cluster, running(&run)).await;
        self.runs(name).await;
    }

    fn go_on(&self) {
        std::fs::write(self.bed.dir.join("home/go-on"), "").unwrap();
    }

    fn connections(&self, log: &str) -> usize {
        self.bed.file(log).matches("Accepted publickey").count()
    }

    fn submissions(&self) -> usize {
        self.bed.file("log/slurmctld.log").matches("_slurm_rpc_submit_batch_job: JobId=").count()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_goes_on_and_is_found_when_the_connection_breaks_in_the_middle() {
    let Some(world) = World::start().await else { return };
    world.patient("a", "hpc").await;
    let before = world.connections("log/sshd.log");
    // Sessions of sshd are killed by their ids: the master dies in the middle of whatever it does.
    world.bed.fault(&["ssh-drop"]);
    until("a new connection was made", BOUND, || async { (world.connections("log/sshd.log") > before).then_some(()) })
        .await;
    world.says("hpc", "Answers").await;
    assert_eq!(world.jobs().get("a").await.unwrap().status.unwrap().phase, Phase::Running);
    world.go_on();
    let (job, status) = world.ends("a").await;
    assert_eq!((status.phase, status.attempt), (Phase::Succeeded, 1));
    assert_eq!(world.output(&job, "stdout"), "before\nafter\n");
    assert_eq!((world.submissions(), world.left()), (1, Vec::new()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_slurm_is_told_holds_up_nobody_and_its_jobs_are_followed_afterwards() {
    let Some(world) = World::start().await else { return };
    let Some(second) = SlurmBed::start() else { return };
    world.secret("second-key", &second.file("ssh/key")).await;
    let (port, known_hosts, root) = (second.port, second.file("ssh/known_hosts"), second.root().display().to_string());
    world
        .add("second", |slurm| {
            slurm.key_secret = "second-key".to_owned();
            (slurm.port, slurm.known_hosts, slurm.root) = (Some(port.into()), known_hosts, Some(root));
        })
        .await;
    world.patient("a", "hpc").await;
    world.bed.fault(&["ctld-stop"]);
    world.says("hpc", "SchedulerDown").await;
    world.job("late", "hpc", running("echo late")).await;
    world.job("other", "second", running("echo other")).await;
    let (job, _) = world.ends("other").await;
    assert_eq!(world.output(&job, "stdout"), "other\n");
    assert_eq!(world.ready("hpc").await.1, "SchedulerDown", "the other one ran meanwhile");
    assert_eq!(world.jobs().get("a").await.unwrap().status.unwrap().phase, Phase::Running, "no answer is no end");
    // It ends while nobody can be asked.
    world.go_on();
    until("it has ended there", BOUND, || async {
        let clusters = std::fs::read_dir(world.bed.root()).unwrap().flatten();
        let jobs = clusters.flat_map(|cluster| std::fs::read_dir(cluster.path()).unwrap().flatten());
        jobs.into_iter().any(|job| job.path().join("exit").exists()).then_some(())
    })
    .await;
    world.bed.fault(&["ctld-start"]);
    world.says("hpc", "Answers").await;
    for (name, text) in [("a", "before\nafter\n"), ("late", "late\n")] {
        let (job, status) = world.ends(name).await;
        assert_eq!((status.phase, status.attempt), (Phase::Succeeded, 1), "{name}: {status:?}");
        assert_eq!(world.output(&job, "stdout"), text);
    }
    assert_eq!((world.submissions(), world.left()), (2, Vec::new()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_expires_and_a_host_key_that_changes_are_told_apart_and_no_end_of_a_job() {
    let Some(world) = World::start().await else { return };
    world.patient("a", "hpc").await;
    world.bed.fault(&["key"]);
    world.bed.fault(&["ssh-drop"]);
    world.says("hpc", "KeyRefused").await;
    assert_eq!(world.jobs().get("a").await.unwrap().status.unwrap().phase, Phase::Running, "no answer is no end");
    // It is taken again, but by another host, as far as anybody can tell.
    world.bed.fault(&["host-key"]);
    let keys = world.bed.dir.join("ssh/authorized_keys");
    std::fs::write(keys, world.bed.file("ssh/key.pub")).unwrap();
    world.says("hpc", "HostKeyChanged").await;
    let key = world.bed.file("ssh/host_key.pub");
    let known = format!("[127.0.0.1]:{} {}", world.bed.port, key.trim());
    let change = serde_json::json!({"spec": {"slurm": {"knownHosts": known}}});
    world.cluster.client().api::<JobCluster>("default").patch("hpc", PatchType::Merge, &change).await.unwrap();
    world.says("hpc", "Answers").await;
    world.go_on();
    let (job, status) = world.ends("a").await;
    assert_eq!((status.phase, status.attempt), (Phase::Succeeded, 1));
    assert_eq!(world.output(&job, "stdout"), "before\nafter\n");
    assert_eq!((world.submissions(), world.left()), (1, Vec::new()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_behind_another_host_is_reached_through_it() {
    let Some(world) = World::start().await else { return };
    world.bed.fault(&["jump-start"]);
    let jump = |host: &str| JumpHost { host: host.to_owned(), port: Some(world.bed.jump.into()), user: None };
    world.add("behind", |slurm| slurm.jump_hosts = vec![jump("127.0.0.1")]).await;
    world.job("a", "behind", running("echo through")).await;
    let (job, status) = world.ends("a").await;
    assert_eq!((status.phase, world.output(&job, "stdout").as_str()), (Phase::Succeeded, "through\n"));
    assert!(world.connections("log/jump.log") > 0, "it came another way: {}", world.bed.file("log/jump.log"));
    // The key of a host on the way must be known too.
    let known = world.bed.file("ssh/known_hosts");
    let only_last = known.lines().next().unwrap().to_owned();
    world
        .add("unknown-way", |slurm| {
            slurm.jump_hosts = vec![jump("127.0.0.1")];
            slurm.known_hosts = only_last;
        })
        .await;
    world.says("unknown-way", "HostKeyChanged").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_cluster_leaves_no_job_and_no_directory_there() {
    let Some(world) = World::start().await else { return };
    world.patient("a", "hpc").await;
    world.cluster.client().api::<JobCluster>("default").delete("hpc", &DeleteOptions::default()).await.unwrap();
    let (job, status) = world.ends("a").await;
    assert_eq!((status.end.as_deref(), world.output(&job, "stdout").as_str()), (Some("Cancelled"), "before\n"));
    until("the cluster is gone", BOUND, || async {
        let found = world.cluster.client().api::<JobCluster>("default").get_opt("hpc").await.unwrap();
        found.is_none().then_some(())
    })
    .await;
    assert!(world.bed.slurm(&["squeue", "-h", "-t", "all", "-o", "%T"]).contains("CANCELLED"));
    assert_eq!(std::fs::read_dir(world.bed.root()).unwrap().count(), 0, "its own directory went too");
}

/// A small file system, gone at the end.
struct Small(PathBuf);

impl Small {
    fn mount(at: PathBuf, options: &str) -> Self {
        std::fs::create_dir(&at).unwrap();
        let small = Self(at);
        small.run("mount", &["-t", "tmpfs", "-o", options, "tmpfs"]);
        small
    }

    fn run(&self, program: &str, args: &[&str]) {
        let status = Command::new(program).args(args).arg(&self.0).status().unwrap();
        assert!(status.success(), "{program} {args:?}: {status}");
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_there_is_told_and_the_job_is_handed_over_when_there_is_room() {
    let Some(world) = World::start().await else { return };
    let small = Small::mount(world.bed.dir.join("small"), "size=300k,mode=0777");
    let root = small.0.join("root").display().to_string();
    world.add("small", |slurm| slurm.root = Some(root)).await;
    world.says("small", "Answers").await;
    let mut files = ConfigMap::default();
    files.metadata.name = Some("files".to_owned());
    // Of chance, so that no way there makes it small.
    files.data = Some([("large".to_owned(), minik8s_core::random::word(640_000))].into());
    world.cluster.client().api::<ConfigMap>("default").create(&files).await.unwrap();
    let spec = json!({"cluster": "small", "run": "wc -c < large", "source": {"configMap": "files"}});
    world.job("a", "small", serde_json::from_value(spec).unwrap()).await;
    until("the job says that there is no room", BOUND, || async {
        let status = world.jobs().get("a").await.ok()?.status?;
        assert!(!status.phase.is_final(), "{status:?}");
        status.conditions.iter().any(|c| c.type_ == "Obstructed" && c.reason == "DiskFull").then_some(())
    })
    .await;
    assert_eq!(world.submissions(), 0);
    small.run("mount", &["-o", "remount,size=64m"]);
    let (job, status) = world.ends("a").await;
    assert_eq!((status.phase, world.output(&job, "stdout").as_str()), (Phase::Succeeded, "640000\n"), "{status:?}");
    assert_eq!(world.submissions(), 1);
    world.cluster.client().api::<JobCluster>("default").delete("small", &DeleteOptions::default()).await.unwrap();
    until("the cluster is gone", BOUND, || async {
        let found = world.cluster.client().api::<JobCluster>("default").get_opt("small").await.unwrap();
        found.is_none().then_some(())
    })
    .await;
}
