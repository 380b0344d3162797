//! Jobs on a real Slurm behind a real sshd, both on this machine: how fast they are handed over, how soon their end is noticed,
//! and what a look at 10, 100 and 1,000 of them costs. Takes two minutes. Needs what tests with Slurm need.
//!
//! The floors go over one multiplexed connection of OpenSSH's own: plain `sbatch`, `sbatch --wait`, and plain `squeue`.

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use minik8s_benches::{Table, Timings, show, times};
use minik8s_core::client::{TypedEvent, WatchOptions};
use minik8s_core::cluster::Cluster;
use minik8s_core::job::{JobBackend, JobHandle, JobId, JobRequest, JobState};
use minik8s_gpu::GpuExtension;
use minik8s_gpu::kinds::{GpuJob, GpuJobSpec, JobCluster, JobClusterSpec, SlurmSpec};
use minik8s_gpu::slurm::SlurmBackend;
use minik8s_gpu::testkit::SlurmBed;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::process::Command;

const AT_ONCE: usize = 4;
const SUBMITTED: usize = 60;
const NOTICED: usize = 10;
const SIZES: [usize; 3] = [10, 100, 1_000];
const LOOKS: usize = 10;

#[tokio::main]
async fn main() -> Result<()> {
    let bed = SlurmBed::start().context("this needs slurmctld, slurmd, slurm-client, munge and openssh-server")?;
    let plain = Plain::start(&bed).await?;
    let backend = SlurmBackend::new(bed.config())?;
    backend.kept().await?;
    submit(&backend, &plain).await?;
    notice(&bed, &plain).await?;
    look(&bed, &backend, &plain).await
}

/// OpenSSH's own multiplexed connection.
struct Plain {
    words: Vec<String>,
}

impl Plain {
    async fn start(bed: &SlurmBed) -> Result<Self> {
        let dir = bed.dir.display();
        let options = [
            format!("ControlPath={dir}/ctl"),
            format!("UserKnownHostsFile={dir}/ssh/known_hosts"),
            "ControlMaster=auto".to_owned(),
            "ControlPersist=60".to_owned(),
            "BatchMode=yes".to_owned(),
            "IdentitiesOnly=yes".to_owned(),
        ];
        let mut words: Vec<String> = options.into_iter().flat_map(|option| ["-o".to_owned(), option]).collect();
        let place = [format!("-p{}", bed.port), format!("-i{dir}/ssh/key"), format!("{}@127.0.0.1", bed.user)];
        words.extend(place);
        let plain = Self { words };
        plain.run("true").await?;
        Ok(plain)
    }

    async fn run(&self, command: &str) -> Result<String> {
        let output = Command::new("ssh").args(&self.words).arg(command).output().await?;
        ensure!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

fn request(name: &str) -> JobRequest {
    JobRequest { id: JobId::new(name, 1), run: "true".to_owned(), ..JobRequest::default() }
}

async fn submit(backend: &SlurmBackend, plain: &Plain) -> Result<()> {
    let began = Instant::now();
    let ours = (0..SUBMITTED).map(|number| async move { backend.submit(&request(&format!("s{number}"))).await });
    let _: Vec<JobHandle> = stream::iter(ours).buffer_unordered(AT_ONCE).try_collect().await?;
    let ours = began.elapsed();
    let began = Instant::now();
    let theirs = (0..SUBMITTED).map(|_| plain.run("sbatch --parsable -o /dev/null --wrap true"));
    let _: Vec<String> = stream::iter(theirs).buffer_unordered(AT_ONCE).try_collect().await?;
    let floor = began.elapsed();
    let rate = |took: Duration| format!("{:.1}", SUBMITTED as f64 / took.as_secs_f64());
    let mut table = Table::new(["who", "jobs a second", "of the floor"]);
    table.row(["minik8s: files, lock, marks, sbatch".to_owned(), rate(ours), ratio(floor, ours)]);
    table.row(["floor: sbatch by ssh".to_owned(), rate(floor), "1.000×".to_owned()]);
    table.print(&format!("How fast are jobs handed over, {AT_ONCE} at a time?"));
    Ok(())
}

fn ratio(of: Duration, by: Duration) -> String {
    format!("{:.3}×", of.as_secs_f64() / by.as_secs_f64())
}

fn now() -> Result<Duration> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?)
}

/// From the moment that a job's last command wrote down.
fn since(mark: &str) -> Result<Duration> {
    let at = Duration::from_secs_f64(mark.trim().parse()?);
    Ok(now()?.saturating_sub(at))
}

async fn notice(bed: &SlurmBed, plain: &Plain) -> Result<()> {
    let (dir, marks) = (tempfile::tempdir()?, bed.dir.join("home/mark"));
    let run = format!("sleep 1; date +%s.%N >{}", marks.display());
    let mut theirs = Timings::default();
    for _ in 0..NOTICED {
        plain.run(&format!("sbatch --wait -o /dev/null --wrap '{run}'")).await?;
        theirs.add(since(&bed.file("home/mark"))?);
    }
    let mut table = Table::new(["who", "p50", "p90"]);
    for seconds in [0.5, 2.0] {
        let mut ours = Timings::default();
        let cluster = Cluster::builder().extension(GpuExtension::new(dir.path())).start().await?;
        prepare(&cluster, bed, seconds).await?;
        for number in 0..NOTICED {
            ended(&cluster, &format!("n{number}"), &run).await?;
            ours.add(since(&bed.file("home/mark"))?);
        }
        cluster.stop().await;
        let who = format!("minik8s, pollSeconds {seconds}: end in the object");
        table.row([who, show(ours.percentile(0.5)), show(ours.percentile(0.9))]);
    }
    table.row(["sbatch --wait by ssh".to_owned(), show(theirs.percentile(0.5)), show(theirs.percentile(0.9))]);
    table.print("How long after its last command is a job's end noticed?");
    Ok(())
}

async fn prepare(cluster: &Cluster, bed: &SlurmBed, seconds: f64) -> Result<()> {
    let entry = ByteString(bed.file("ssh/key").into_bytes());
    let mut secret = Secret { data: Some([("ssh-privatekey".to_owned(), entry)].into()), ..Secret::default() };
    secret.metadata.name = Some("key".to_owned());
    cluster.client().api::<Secret>("default").create(&secret).await?;
    let slurm = SlurmSpec {
        host: "127.0.0.1".to_owned(),
        port: Some(bed.port.into()),
        user: bed.user.clone(),
        key_secret: "key".to_owned(),
        known_hosts: bed.file("ssh/known_hosts"),
        root: Some(bed.root().display().to_string()),
        ..SlurmSpec::default()
    };
    let spec = JobClusterSpec { slurm: Some(slurm), poll_seconds: Some(seconds), ..JobClusterSpec::default() };
    let mut hpc = JobCluster { spec, ..JobCluster::default() };
    hpc.metadata.name = Some("hpc".to_owned());
    cluster.client().api::<JobCluster>("default").create(&hpc).await?;
    Ok(())
}

/// Hands a job over, and waits until its end is in the object.
async fn ended(cluster: &Cluster, name: &str, run: &str) -> Result<()> {
    let jobs = cluster.client().api::<GpuJob>("default");
    let options = WatchOptions { field_selector: format!("metadata.name={name}"), ..WatchOptions::default() };
    let mut changes = jobs.watch(&options).await?;
    let spec = GpuJobSpec { cluster: "hpc".to_owned(), run: run.to_owned(), ..GpuJobSpec::default() };
    let mut job = GpuJob { spec, ..GpuJob::default() };
    job.metadata.name = Some(name.to_owned());
    jobs.create(&job).await?;
    while let Some(change) = changes.next().await {
        let (TypedEvent::Added(job) | TypedEvent::Modified(job)) = change? else { continue };
        if job.status.is_some_and(|status| status.end.is_some()) {
            return Ok(());
        }
    }
    anyhow::bail!("the watch ended before the job")
}

/// Jobs that are held, with files as those of a running one, made by one command: what is measured is the look, not how they
/// came there.
async fn held(bed: &SlurmBed, plain: &Plain, count: usize) -> Result<Vec<JobHandle>> {
    let script = format!(
        "mkdir -p {root}; cd {root}; for n in $(seq {count}); do d=mk8s-l$n-1; mkdir -p $d/work; echo out >$d/stdout; : >$d/stderr; \
         id=$(sbatch --parsable --hold --job-name=$d --output=/dev/null --wrap true); : >$d/attempt; echo $id >$d/jobid; \
         echo $id >$d/claim; echo $n $id; done",
        root = bed.root().display()
    );
    let one = |line: &str| {
        let (number, id) = line.split_once(' ')?;
        Some(JobHandle::new(&JobId::new(format!("l{number}"), 1), id.trim()))
    };
    let jobs: Vec<JobHandle> = plain.run(&script).await?.lines().filter_map(one).collect();
    ensure!(jobs.len() == count, "{} jobs of {count} were made", jobs.len());
    Ok(jobs)
}

async fn look(bed: &SlurmBed, backend: &SlurmBackend, plain: &Plain) -> Result<()> {
    let most = SIZES.iter().copied().max().unwrap_or_default();
    let all = held(bed, plain, most).await?;
    let mut table = Table::new(["jobs", "a look at all", "squeue by ssh", "of it", "commands", "bytes", "of squeue"]);
    for size in SIZES {
        let (mut ours, mut floor) = (Timings::default(), Timings::default());
        let ids: Vec<&str> = all[..size].iter().map(|job| job.native.as_str()).collect();
        let squeue = format!("squeue -h -t all -j {}", ids.join(","));
        let (mut theirs, before) = (0, backend.traffic());
        let mut commands = 0;
        for _ in 0..LOOKS {
            let (known, began) = (bed.commands(), Instant::now());
            let reports = backend.poll(&all[..size]).await?;
            ours.add(began.elapsed());
            commands += bed.commands() - known;
            let known =
                reports.iter().filter(|report| report.state == JobState::Queued && report.output.len() == 2).count();
            ensure!(known == size, "{known} of {size} jobs are known with their files");
            let began = Instant::now();
            theirs = plain.run(&squeue).await?.len() + squeue.len();
            floor.add(began.elapsed());
        }
        let (ours, floor, after) = (ours.percentile(0.5), floor.percentile(0.5), backend.traffic());
        let bytes = (after.sent + after.received - before.sent - before.received) / LOOKS as u64;
        table.row([
            size.to_string(),
            show(ours),
            show(floor),
            times(ours, floor),
            format!("{:.1}", commands as f64 / LOOKS as f64),
            bytes.to_string(),
            theirs.to_string(),
        ]);
    }
    table.print("What does a look cost, states and sizes of output included? Medians; commands as in sshd's log, bytes of both directions.");
    Ok(())
}
