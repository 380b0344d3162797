//! Jobs, from the command line: on this machine, and on a real Slurm while the control plane is killed again and again.

use super::harness::{Kind, Up, until, until_or};
use minik8s_core::job::digest;
use minik8s_core::testkit::need::{self, Need};
use minik8s_gpu::testkit::SlurmBed;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

fn phase(up: &Up, name: &str) -> String {
    up.minik8s(&["job", "get", name, "-o", "jsonpath={.status.phase}"]).out
}

#[test]
fn a_directory_is_submitted_followed_and_its_results_are_fetched() {
    if !need::met(&[Need::Program("cc"), Need::Program("make")]) {
        return;
    }
    let Some(up) = Up::start_with(Kind::Fake, &["--local-jobs"]) else { return };
    up.apply(
        "local.yaml",
        "apiVersion: minik8s.io/v1alpha1\nkind: JobCluster\nmetadata: {name: local}\nspec: {local: {}, pollSeconds: 0.2}\n",
    );
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/gpu/matrix").display().to_string();
    let out = up.minik8s(&["job", "submit", "-f", &example, "--wait"]).ok();
    assert!(out.starts_with("gpujob.minik8s.io/matrix submitted\n"), "{out}");
    assert!(out.contains("add 256x256 on") && out.contains("multiply 256x256 on"), "{out}");
    assert_eq!(out.matches("verified").count(), 2, "{out}");
    let fetched = up.files().join("fetched").display().to_string();
    up.minik8s(&["job", "results", "matrix", "-o", &fetched]).ok();
    let read = |name: &str| std::fs::read_to_string(up.files().join("fetched").join(name)).unwrap();
    assert_eq!(read("result.txt").lines().count(), 2);
    assert!(read("matrix.out").contains("verified"));
    let table = up.minik8s(&["job", "get"]).ok();
    assert!(table.contains("CLUSTER") && table.contains("Succeeded") && table.contains("Completed"), "{table}");
    let last = up.minik8s(&["logs", "job/matrix", "--tail", "1"]).ok();
    assert!(last.starts_with("multiply"), "{last}");

    let dir = up.files().join("bad");
    std::fs::create_dir(&dir).unwrap();
    let job = "apiVersion: minik8s.io/v1alpha1\nkind: GpuJob\nmetadata: {name: bad}\nspec: {cluster: local, run: 'echo oops >&2; exit 7'}\n";
    std::fs::write(dir.join("job.yaml"), job).unwrap();
    let ran = up.minik8s(&["job", "submit", "-f", &dir.display().to_string(), "--wait"]);
    assert_eq!(ran.code, 7, "{} {}", ran.out, ran.err);
    assert_eq!(up.minik8s(&["job", "logs", "-e", "bad"]).ok(), "oops\n");

    up.apply("long.yaml", &job.replace("bad", "long").replace("echo oops >&2; exit 7", "echo begun; sleep 600"));
    until("it runs", 60, || phase(&up, "long") == "Running");
    up.minik8s(&["job", "cancel", "long"]).ok();
    until("it has ended", 60, || phase(&up, "long") == "Failed");
    let end = up.minik8s(&["job", "get", "long", "-o", "jsonpath={.status.end}"]).ok();
    assert_eq!((end.as_str(), up.minik8s(&["job", "logs", "long"]).ok().as_str()), ("Cancelled", "begun\n"));
    up.minik8s(&["delete", "gpujob", "long", "bad", "matrix"]).ok();

    // An attempt that failed is followed by the next one.
    let mark = up.files().join("mark").display().to_string();
    let run = format!("if [ -e {mark} ]; then echo second $HOME; else touch {mark}; echo first; exit 1; fi");
    let job = format!(
        "apiVersion: minik8s.io/v1alpha1\nkind: GpuJob\nmetadata: {{name: again}}\nspec: {{cluster: local, backoffLimit: 1, run: '{run}'}}\n"
    );
    std::fs::write(dir.join("job.yaml"), job).unwrap();
    let ran = up.minik8s(&["job", "submit", "-f", &dir.display().to_string(), "--wait"]);
    assert_eq!(ran.code, 0, "{} {}", ran.out, ran.err);
    let lines: Vec<&str> = ran.out.lines().skip(1).collect();
    assert!(lines.len() == 2 && lines[0] == "first" && lines[1].starts_with("second /"), "{lines:?}");
    assert!(ran.err.contains("attempt 2"), "{}", ran.err);
    let of_job = up.files().display().to_string();
    assert!(lines[1].contains("jobs/local") && lines[1] != format!("second {of_job}"), "a home of its own: {lines:?}");
    up.minik8s(&["delete", "jobcluster", "local"]).ok();
    until("the cluster is gone", 60, || up.minik8s(&["get", "jobclusters"]).out.lines().count() <= 1);
    assert_eq!(std::fs::read_dir(up.data().join("jobs/local")).unwrap().count(), 0, "nothing is left of it");
}

/// A manifest of the cluster, of its key, and of so many jobs, each of which leaves a mark when it runs.
fn manifest(bed: &SlurmBed, jobs: usize) -> String {
    let indent = |by: &str, text: &str| text.lines().fold(String::new(), |all, line| all + by + line + "\n");
    let mut text = format!(
        "apiVersion: v1\nkind: Secret\ntype: kubernetes.io/ssh-auth\nmetadata: {{name: key}}\nstringData:\n  ssh-privatekey: |\n{}---\n\
         apiVersion: minik8s.io/v1alpha1\nkind: JobCluster\nmetadata: {{name: hpc}}\nspec:\n  pollSeconds: 0.5\n  limits: {{jobs: 12}}\n  slurm:\n\
         \x20   host: 127.0.0.1\n    port: {}\n    user: {}\n    keySecret: key\n    root: {}\n    knownHosts: |\n{}",
        indent("    ", &bed.file("ssh/key")),
        bed.port,
        bed.user,
        bed.root().display(),
        indent("      ", &bed.file("ssh/known_hosts")),
    );
    let marks = bed.dir.join("home/marks");
    for number in 0..jobs {
        let _ = write!(
            text,
            "---\napiVersion: minik8s.io/v1alpha1\nkind: GpuJob\nmetadata: {{name: j{number}}}\nspec:\n  cluster: hpc\n  \
             run: 'echo {number} >>{}; echo out {number}'\n",
            marks.display()
        );
    }
    text
}

/// Bytes that nothing makes smaller.
pub(super) fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..bytes / 8).flat_map(|_| next()).collect()
}

#[test]
fn a_directory_of_twenty_million_bytes_arrives_as_it_is_and_goes_when_its_job_has_ended() {
    const FILES: u64 = 20;
    let Some(bed) = SlurmBed::start() else { return };
    let Some(up) = Up::start(Kind::Fake) else { return };
    up.apply("hpc.yaml", &manifest(&bed, 0));
    let dir = up.files().join("large");
    let mut sums: Vec<String> = Vec::new();
    for number in 0..FILES {
        let (name, content) = (format!("data/{}/{number}.bin", number % 3), noise(number + 1, 1_000_000));
        let path = dir.join(&name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, &content).unwrap();
        sums.push(format!("{}  {name}\n", digest(&content)));
    }
    sums.sort();
    let job = "apiVersion: minik8s.io/v1alpha1\nkind: GpuJob\nmetadata: {name: large}\nspec:\n  cluster: hpc\n  suspend: true\n  \
               run: find data -type f | xargs sha256sum | sort >sums.txt\n  results: [sums.txt]\n";
    std::fs::write(dir.join("job.yaml"), job).unwrap();
    let place = dir.display().to_string();
    let maps = || up.minik8s(&["get", "configmaps"]).out.matches("large-source-").count();
    up.minik8s(&["job", "submit", "-f", &place]).ok();
    assert_eq!(maps(), 21, "as many pieces as it takes, none of which is larger than an object may be");
    up.minik8s(&["job", "resume", "large"]).ok();
    let state = || up.minik8s(&["job", "get", "large", "-o", "jsonpath={.status}"]).out;
    until_or(300, || phase(&up, "large") == "Succeeded", state);
    until_or(120, || maps() == 0, || format!("{} pieces are left of a job that has ended", maps()));
    let fetched = up.files().join("fetched");
    up.minik8s(&["job", "results", "large", "-o", &fetched.display().to_string()]).ok();
    assert_eq!(std::fs::read_to_string(fetched.join("sums.txt")).unwrap(), sums.concat(), "the same bytes arrived");
    up.minik8s(&["delete", "gpujob", "large"]).ok();

    // What a cluster does not take is told by field, before anything is sent.
    let few = "apiVersion: minik8s.io/v1alpha1\nkind: JobCluster\nmetadata: {name: few}\nspec: {local: {}, limits: {sourceBytes: 5000000}}\n";
    up.apply("few.yaml", few);
    std::fs::write(dir.join("job.yaml"), job.replace("cluster: hpc", "cluster: few")).unwrap();
    let why = up.minik8s(&["job", "submit", "-f", &place]).refused();
    assert!(why.contains("5000000 bytes") && why.contains("spec.limits.sourceBytes"), "{why}");
    std::fs::remove_file(dir.join("job.yaml")).unwrap();
    let why = up.minik8s(&["job", "submit", "-f", &place]).refused();
    assert!(why.contains("has no job.yaml"), "{why}");
    let own = job.replace("  run:", "  source: {configMap: x}\n  run:");
    std::fs::write(dir.join("job.yaml"), own).unwrap();
    let why = up.minik8s(&["job", "submit", "-f", &place]).refused();
    assert!(why.contains("spec.source is the directory itself"), "{why}");
    assert_eq!((maps(), up.minik8s(&["job", "get"]).out.contains("large")), (0, false));
}

#[test]
fn two_hundred_jobs_are_submitted_two_hundred_times_however_often_the_control_plane_is_killed() {
    const JOBS: usize = 200;
    const KILLS: u64 = 50;
    let Some(bed) = SlurmBed::start() else { return };
    let Some(mut up) = Up::start(Kind::Fake) else { return };
    up.apply("jobs.yaml", &manifest(&bed, JOBS));
    let mut seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    println!("seed {seed}");
    for _ in 0..KILLS {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // The moment is what is random here; nothing is waited for.
        std::thread::sleep(Duration::from_millis((seed >> 33) % 700));
        up.kill();
        up.run();
    }
    let phases = || up.minik8s(&["job", "get", "-o", "jsonpath={.items[*].status.phase}"]).out;
    let ended = |all: &str| all.split_whitespace().filter(|phase| *phase == "Succeeded").count();
    until_or(400, || ended(&phases()) == JOBS, || format!("all have ended: {}", phases()));
    let marks: Vec<usize> = bed.file("home/marks").lines().map(|line| line.parse().unwrap()).collect();
    let each: BTreeSet<usize> = marks.iter().copied().collect();
    assert_eq!((marks.len(), each.len()), (JOBS, JOBS), "each ran once");
    let submitted = bed.file("log/slurmctld.log").matches("_slurm_rpc_submit_batch_job: JobId=").count();
    assert_eq!(submitted, JOBS, "each was submitted once");
    for number in [0, 1, 57, 123, 199] {
        assert_eq!(up.minik8s(&["logs", &format!("job/j{number}")]).ok(), format!("out {number}\n"));
    }
    let clusters = std::fs::read_dir(bed.root()).unwrap().flatten();
    let left: usize = clusters.map(|cluster| std::fs::read_dir(cluster.path()).unwrap().count()).sum();
    assert_eq!(left, 0, "nothing is left there");
}
