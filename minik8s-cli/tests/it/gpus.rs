//! Graphics processors for pods, in real containers. They pretend: device nodes with the numbers of `null` and `zero`.

use super::harness::{IMAGE, Kind, Up, until, until_or};
use minik8s_core::devices::Devices;
use minik8s_core::testkit::need::{self, Need};
use std::process::Command;

const PROCESSORS: [(&str, &str); 3] = [("nvidia0", "3"), ("nvidia1", "5"), ("nvidiactl", "3")];

fn manifest(name: &str) -> String {
    let run = "ls /dev | grep nvidia; head -c 2 /dev/nvidia1 | od -An -tx1; sleep 3600";
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 0\n  containers:\n  \
         - {{name: main, image: '{IMAGE}', command: [sh, -c, '{run}'], resources: {{limits: {{nvidia.com/gpu: 1}}}}}}\n"
    )
}

#[test]
fn a_processor_is_one_pods_or_one_jobs_and_no_other_sees_it() {
    if !need::met(&[Need::Root, Need::Program("mknod")]) {
        return;
    }
    let devices = tempfile::tempdir().unwrap();
    for (name, minor) in PROCESSORS {
        let made = Command::new("mknod").arg(devices.path().join(name)).args(["c", "1", minor]).status().unwrap();
        assert!(made.success());
    }
    let gpus = devices.path().display().to_string();
    let Some(up) = Up::start_with(Kind::Real, &["--node-name", "node-1", "--gpus", &gpus, "--local-jobs"]) else {
        return;
    };
    let node = || up.minik8s(&["get", "node", "node-1", "-o", "json"]).out;
    until_or(60, || node().matches("\"nvidia.com/gpu\": \"2\"").count() == 2, node);
    for name in ["one", "two"] {
        up.apply(&format!("{name}.yaml"), &manifest(name));
        let phase = || up.minik8s(&["get", "pod", name, "-o", "jsonpath={.status.phase}"]).out;
        let why = || format!("{name} runs: {}", up.minik8s(&["get", "pod", name, "-o", "json"]).out);
        until_or(120, || phase() == "Running", why);
    }
    let log = |name: &str| up.minik8s(&["logs", name]).out;
    until_or(60, || log("one").contains("nvidiactl") && log("two").contains("00 00"), || log("one") + &log("two"));
    assert_eq!((log("one").contains("nvidia0"), log("one").contains("nvidia1\n")), (true, false), "{}", log("one"));
    assert_eq!((log("two").contains("nvidia0"), log("two").contains("nvidia1\n")), (false, true), "{}", log("two"));

    up.apply("three.yaml", &manifest("three"));
    let why = || up.minik8s(&["get", "pod", "three", "-o", "json"]).out;
    until_or(60, || why().contains("Insufficient nvidia.com/gpu"), why);
    // A job that runs beside pods takes none of theirs.
    up.apply(
        "local.yaml",
        "apiVersion: minik8s.io/v1alpha1\nkind: JobCluster\nmetadata: {name: local}\nspec: {local: {}, pollSeconds: 0.2}\n---\n\
         apiVersion: minik8s.io/v1alpha1\nkind: GpuJob\nmetadata: {name: job}\nspec: {cluster: local, gpus: {count: 1}, run: 'echo $CUDA_VISIBLE_DEVICES'}\n",
    );
    let phase = || up.minik8s(&["job", "get", "job", "-o", "jsonpath={.status.phase}"]).out;
    until_or(60, || phase() == "Queued", phase);
    up.minik8s(&["delete", "pod", "three"]).ok();
    up.minik8s(&["delete", "pod", "two"]).ok();
    until("the job has what the pod had", 120, || phase() == "Succeeded");
    assert_eq!(up.minik8s(&["job", "logs", "job"]).ok(), "1\n");
    up.minik8s(&["delete", "gpujob", "job"]).ok();
    up.minik8s(&["delete", "pod", "one"]).ok();
    let table = Devices::new(devices.path().join(".held"));
    until("nobody has anything", 60, || table.held().unwrap().is_empty());
}
