//! Jobs as pods on a node with real containers, with graphics processors that pretend: the contract of job backends, and jobs
//! from the command line to their results, also while the control plane and the node's agent are killed.

use super::gpus::pretend;
use super::harness::{IMAGE, Kind, Up, until, until_or};
use super::jobs::noise;
use minik8s_core::client::{Client, GrpcTransport};
use minik8s_core::devices::Devices;
use minik8s_core::job::{SharedJobBackend, digest};
use minik8s_core::server::kubeconfig::Kubeconfig;
use minik8s_core::testkit::jobs::{Subject, run_all};
use minik8s_core::testkit::need::{self, Need};
use minik8s_gpu::kinds::NodesSpec;
use minik8s_gpu::nodes::{NodesBackend, NodesConfig};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// Longer than anything here takes on a machine that others use too.
const LONG: u64 = 300;

/// A cluster whose only node has two graphics processors.
fn with_processors() -> Option<(TempDir, Up)> {
    if !need::met(&[Need::Root, Need::Program("mknod")]) {
        return None;
    }
    let devices = pretend();
    let gpus = devices.path().display().to_string();
    let up = Up::start_with(Kind::Real, &["--node-name", "node-1", "--gpus", &gpus])?;
    let node = || up.minik8s(&["get", "node", "node-1", "-o", "jsonpath={.status.allocatable}"]).out;
    until_or(120, || node().replace(' ', "").contains("\"nvidia.com/gpu\":\"2\""), node);
    Some((devices, up))
}

#[test]
fn jobs_as_pods_keep_the_contract() {
    let Some((_devices, up)) = with_processors() else { return };
    let access = Kubeconfig::read(&up.data().join("admin.kubeconfig")).unwrap().grpc().unwrap();
    let run = up.inside(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let client = Client::new(Arc::new(GrpcTransport::new(&access).unwrap()));
            let config = NodesConfig {
                namespace: "default".to_owned(),
                cluster: "11111111-2222-3333-4444-555555555555".to_owned(),
                spec: NodesSpec { image: Some(IMAGE.to_owned()), ..NodesSpec::default() },
                patience: Duration::from_secs(90),
            };
            let open = move || {
                let backend = NodesBackend::new(client.clone(), config.clone());
                async move { Arc::new(backend) as SharedJobBackend }
            };
            run_all(Subject::new(open, |request| request.modules = vec!["cuda".to_owned()])).await;
        });
    });
    run.join().expect("the contract is kept");
    nothing_is_left(&up, None);
}

/// Nothing of a job is there any more.
fn nothing_is_left(up: &Up, devices: Option<&TempDir>) {
    let all = || up.minik8s(&["get", "pods,secrets,configmaps", "-o", "name"]).out;
    let ours = || all().lines().filter(|line| line.contains("mk8s-") || line.contains("-source-")).count();
    until_or(LONG, || ours() == 0, || format!("nothing of jobs is left: {}", all()));
    let volumes = up.data().join("node/pods");
    let dirs = || std::fs::read_dir(&volumes).into_iter().flatten().flatten().count();
    until_or(LONG, || dirs() == 0, || format!("{} directories of pods are gone", dirs()));
    if let Some(devices) = devices {
        let table = Devices::new(devices.path().join(".held"));
        until_or(LONG, || table.held().unwrap().is_empty(), || format!("nobody has anything: {:?}", table.held()));
    }
}

const CLUSTER: &str = "apiVersion: minik8s.io/v1alpha1\nkind: JobCluster\nmetadata: {name: pods}\nspec: {pollSeconds: 0.2, nodes: {image: 'localhost/minik8s-test:1'}}\n";

/// Says when it began and ended, by the clock of the machine, and what it had; and leaves a result.
fn job(name: &str, gpus: u32) -> String {
    format!(
        "---\napiVersion: minik8s.io/v1alpha1\nkind: GpuJob\nmetadata: {{name: {name}}}\nspec:\n  cluster: pods\n  gpus: {{count: {gpus}}}\n  \
         memory: 64Mi\n  run: |\n    begin=$(cut -d' ' -f1 /proc/uptime)\n    sleep 1\n    mkdir out\n    head -c 200000 /dev/urandom >out/data.bin\n    \
         echo $begin $(cut -d' ' -f1 /proc/uptime) $(cd /dev; echo nvidia[0-9]*) $(sha256sum <out/data.bin)\n    echo {name} >&2\n  \
         results: [out/*.bin]\n"
    )
}

/// What a job said: begin, end, its processors, and the digest of its result.
fn said(up: &Up, name: &str) -> (f64, f64, Vec<String>, String) {
    let out = up.minik8s(&["job", "logs", name]).ok();
    let words: Vec<&str> = out.split_whitespace().collect();
    assert!(out.lines().count() == 1 && words.len() >= 5, "{name} ran once and said so: {out:?}");
    let processors = words[2..words.len() - 2].iter().map(ToString::to_string).collect();
    (words[0].parse().unwrap(), words[1].parse().unwrap(), processors, words[words.len() - 2].to_owned())
}

/// Four jobs that want one processor each, and one that wants both, on a node with two.
fn five_jobs(mut up: Up, devices: &TempDir, kills: u32) {
    let jobs = [("one", 1), ("two", 1), ("three", 1), ("both", 2), ("four", 1)];
    let all: String = jobs.iter().map(|(name, gpus)| job(name, *gpus)).collect();
    up.apply("jobs.yaml", &format!("{CLUSTER}{all}"));
    let phases = |up: &Up| up.minik8s(&["job", "get", "-o", "jsonpath={.items[*].status.phase}"]).out;
    for number in 0..kills {
        // Each time something runs, and more has ended.
        let count = |phase: &str| phases(&up).split_whitespace().filter(|is| *is == phase).count();
        let due = || count("Succeeded") >= number as usize && count("Running") > 0 || count("Succeeded") == jobs.len();
        until_or(LONG, due, || format!("before kill {number}: {}", phases(&up)));
        up.kill();
        up.run();
    }
    let ended = || phases(&up).split_whitespace().filter(|phase| *phase == "Succeeded").count();
    let state = || up.minik8s(&["job", "get", "-o", "json"]).out + &up.minik8s(&["get", "pods", "-o", "json"]).out;
    until_or(LONG, || ended() == jobs.len(), || format!("all have ended well: {}", state()));
    let told: Vec<_> = jobs.iter().map(|(name, _)| said(&up, name)).collect();
    for ((name, gpus), (begin, end, processors, sum)) in jobs.iter().zip(&told) {
        assert_eq!(processors.len(), *gpus as usize, "{name} saw {processors:?}");
        for ((other, _), (from, to, theirs, _)) in jobs.iter().zip(&told).filter(|((other, _), _)| other != name) {
            let apart = to <= begin || end <= from || processors.iter().all(|one| !theirs.contains(one));
            assert!(apart, "{name} had {processors:?} from {begin} to {end}, {other} {theirs:?} from {from} to {to}");
        }
        let place = up.files().join(format!("of-{name}"));
        up.minik8s(&["job", "results", name, "-o", &place.display().to_string()]).ok();
        assert_eq!(digest(&std::fs::read(place.join("out/data.bin")).unwrap()), *sum, "the result of {name}");
        assert_eq!(up.minik8s(&["job", "logs", "-e", name]).ok(), format!("{name}\n"));
        let node = up.minik8s(&["job", "get", name, "-o", "jsonpath={.status.nodes}"]).ok();
        assert_eq!(node, "node-1");
    }
    up.minik8s(&["delete", "gpujob", "one", "two", "three", "four", "both"]).ok();
    up.minik8s(&["delete", "jobcluster", "pods"]).ok();
    until("the cluster is gone", LONG, || up.minik8s(&["get", "jobclusters"]).out.lines().count() <= 1);
    nothing_is_left(&up, Some(devices));
}

#[test]
fn processors_are_handed_out_to_one_job_at_a_time() {
    let Some((devices, up)) = with_processors() else { return };
    five_jobs(up, &devices, 0);
}

#[test]
fn jobs_run_once_though_everything_but_their_containers_is_killed() {
    let Some((devices, up)) = with_processors() else { return };
    five_jobs(up, &devices, 3);
}

#[test]
fn a_directory_is_run_in_a_container_and_what_cannot_be_is_told() {
    if !need::met(&[Need::Program("cc")]) {
        return;
    }
    let Some((devices, up)) = with_processors() else { return };
    up.apply("pods.yaml", CLUSTER);
    let dir = up.files().join("matrix");
    std::fs::create_dir(&dir).unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/gpu/matrix");
    let mut compiling = Command::new("cc");
    compiling.args(["-O2", "-static", "-std=c11", "-D_POSIX_C_SOURCE=199309L", "-o"]).arg(dir.join("matrix"));
    assert!(compiling.arg(source.join("matrix.c")).status().unwrap().success());
    let text = std::fs::read_to_string(source.join("job.yaml")).unwrap();
    let text = text.replace("cluster: local", "cluster: pods").replace("  compile: make\n", "  gpus: {count: 1}\n");
    let text = text.replace("run: ./matrix 256", "run: ./matrix 256 && sha256sum data/noise.bin");
    std::fs::write(dir.join("job.yaml"), &text).unwrap();
    // More than one object holds.
    let large = noise(7, 3_500_000);
    std::fs::create_dir(dir.join("data")).unwrap();
    std::fs::write(dir.join("data/noise.bin"), &large).unwrap();
    let out = up.minik8s(&["job", "submit", "-f", &dir.display().to_string(), "--wait"]).ok();
    assert_eq!((out.matches("verified").count(), out.contains(&digest(&large))), (2, true), "{out}");
    let fetched = up.files().join("fetched");
    up.minik8s(&["job", "results", "matrix", "-o", &fetched.display().to_string()]).ok();
    assert_eq!(std::fs::read_to_string(fetched.join("result.txt")).unwrap().lines().count(), 2);

    let spec = |name: &str, rest: &str| {
        format!(
            "apiVersion: minik8s.io/v1alpha1\nkind: GpuJob\nmetadata: {{name: {name}}}\nspec: {{cluster: pods, run: 'sleep 600', {rest}}}\n"
        )
    };
    let told = |name: &str| up.minik8s(&["job", "get", name, "-o", "jsonpath={.status}"]).out;
    // What means nothing here is refused by field; what cannot be placed, or started, says why and waits.
    for (name, rest, want) in [
        ("odd", "partition: gpu", "spec.partition"),
        ("modular", "modules: [cuda]", "spec.modules"),
        ("many", "gpus: {count: 3}", "Insufficient nvidia.com/gpu"),
        ("absent", "image: '127.0.0.1:1/nothing/here:1'", "127.0.0.1:1/nothing/here:1"),
        ("typed", "gpus: {count: 1, type: H100}", "node affinity"),
    ] {
        up.apply("odd.yaml", &spec(name, rest));
        until_or(LONG, || told(name).contains(want), || format!("{name} says {want}: {}", told(name)));
    }
    // Held, let go on, and ended: the file says how far it came.
    up.apply("long.yaml", &spec("long", "gpus: {count: 2}").replace("sleep 600", "echo begun; sleep 600"));
    let phase = |name: &str| up.minik8s(&["job", "get", name, "-o", "jsonpath={.status.phase}"]).out;
    until_or(LONG, || phase("long") == "Running", || told("long"));
    up.minik8s(&["job", "suspend", "long"]).ok();
    until_or(LONG, || phase("long") == "Suspended", || told("long"));
    up.minik8s(&["job", "resume", "long"]).ok();
    until_or(LONG, || phase("long") == "Running", || told("long"));
    up.minik8s(&["job", "cancel", "long", "many"]).ok();
    for name in ["long", "many"] {
        until_or(LONG, || phase(name) == "Failed" && told(name).contains("Cancelled"), || told(name));
    }
    assert_eq!(up.minik8s(&["job", "logs", "long"]).ok(), "begun\n");
    up.minik8s(&["delete", "gpujob", "long", "many", "absent", "odd", "modular", "typed", "matrix"]).ok();
    nothing_is_left(&up, Some(&devices));
}
