//! Graphics processors for pods, in real containers. They pretend: device nodes with the numbers of `null` and `zero`.

use super::harness::{IMAGE, Kind, Up, until, until_or};
use minik8s_core::devices::Devices;
use minik8s_core::testkit::need::{self, Need};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

const PROCESSORS: [(&str, &str); 3] = [("nvidia0", "3"), ("nvidia1", "5"), ("nvidiactl", "3")];

/// What the driver of the second processor says of it.
const SPECIFICATION: &str = "kind: nvidia.com/gpu\ndevices:\n- name: '1'\n  containerEdits:\n    env: [SAID=by-the-driver]\n    \
     deviceNodes: [{path: /dev/nvidia1, hostPath: DIR/nvidia1}, {path: /dev/nvidiactl, hostPath: DIR/nvidiactl}]\n    \
     mounts: [{hostPath: DIR/lib/libcuda.so.550.1, containerPath: /usr/lib/said/libcuda.so.550.1}]\n    \
     hooks: [{args: [hook, update-ldcache, --folder, /usr/lib/said]}, {args: [hook, create-symlinks, --link, 'libcuda.so.1::/usr/lib/said/libcuda.so']}]\n";

fn manifest(name: &str) -> String {
    let run = "ls /dev | grep nvidia; head -c 2 /dev/nvidia1 2>/dev/null | od -An -tx1; echo $SAID $LD_LIBRARY_PATH; nvidia-smi 2>/dev/null; \
               cd ${LD_LIBRARY_PATH##*:}; cat libcuda.so.1 libcuda.so; (echo x > libcuda.so.1) 2>/dev/null || echo kept; \
               echo end; sleep 3600";
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 0\n  containers:\n  \
         - {{name: main, image: '{IMAGE}', command: [sh, -c, '{run}'], env: [{{name: LD_LIBRARY_PATH, value: /own}}], \
         resources: {{limits: {{nvidia.com/gpu: 1}}}}}}\n"
    )
}

/// A machine with two processors that pretend, and their driver's files.
pub(super) fn pretend() -> tempfile::TempDir {
    let devices = tempfile::tempdir().unwrap();
    let place = |name: &str| devices.path().join(name);
    for (name, minor) in PROCESSORS {
        let made = Command::new("mknod").arg(place(name)).args(["c", "1", minor]).status().unwrap();
        assert!(made.success());
    }
    ["lib", "bin", "cdi"].iter().for_each(|name| std::fs::create_dir(place(name)).unwrap());
    std::fs::write(place("lib/libcuda.so.550.1"), "a driver\n").unwrap();
    for name in ["libcuda.so.1", "libcuda.so"] {
        std::os::unix::fs::symlink("libcuda.so.550.1", place("lib").join(name)).unwrap();
    }
    std::fs::write(place("bin/nvidia-smi"), "#!/bin/sh\necho processors of $0\n").unwrap();
    std::fs::set_permissions(place("bin/nvidia-smi"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let said = SPECIFICATION.replace("DIR", &devices.path().display().to_string());
    std::fs::write(place("cdi/nvidia.yaml"), said).unwrap();
    devices
}

#[test]
fn a_processor_is_one_pods_or_one_jobs_and_no_other_sees_it() {
    if !need::met(&[Need::Root, Need::Program("mknod")]) {
        return;
    }
    let devices = pretend();
    let gpus = devices.path().display().to_string();
    let Some(up) = Up::start_with(Kind::Real, &["--node-name", "node-1", "--gpus", &gpus, "--local-jobs"]) else {
        return;
    };
    let node = |list: &str| up.minik8s(&["get", "node", "node-1", "-o", &format!("jsonpath={{.status.{list}}}")]).out;
    let has = |list: &str, count: u32| node(list).replace(' ', "").contains(&format!("\"nvidia.com/gpu\":\"{count}\""));
    until_or(60, || has("capacity", 2) && has("allocatable", 2), || node("capacity") + &node("allocatable"));
    for name in ["one", "two"] {
        up.apply(&format!("{name}.yaml"), &manifest(name));
        let phase = || up.minik8s(&["get", "pod", name, "-o", "jsonpath={.status.phase}"]).out;
        let why = || format!("{name} runs: {}", up.minik8s(&["get", "pod", name, "-o", "json"]).out);
        until_or(120, || phase() == "Running", why);
    }
    let log = |name: &str| up.minik8s(&["logs", name]).out;
    until_or(60, || log("one").contains("end\n") && log("two").contains("end\n"), || log("one") + &log("two"));
    let (one, two) = (log("one"), log("two"));
    assert_eq!(
        (one.contains("nvidia0"), one.contains("nvidia1\n"), one.contains("nvidiactl")),
        (true, false, true),
        "{one}"
    );
    assert_eq!(
        (two.contains("nvidia0"), two.contains("nvidia1\n"), two.contains("00 00")),
        (false, true, true),
        "{two}"
    );
    // One has what was found of the driver, the other what the driver says.
    let found =
        "/own:/usr/local/nvidia/lib64\nprocessors of /usr/local/nvidia/bin/nvidia-smi\na driver\na driver\nkept\n";
    assert!(one.contains(found), "{one}");
    assert!(two.contains("by-the-driver /own:/usr/lib/said\na driver\na driver\nkept\n"), "{two}");

    up.apply("three.yaml", &manifest("three"));
    let three = || up.minik8s(&["get", "pod", "three", "-o", "json"]).out;
    until_or(60, || three().contains("Insufficient nvidia.com/gpu"), three);
    // A job that runs beside pods takes none of theirs.
    let mark = devices.path().join("go-on").display().to_string();
    up.apply(
        "local.yaml",
        &format!(
            "apiVersion: minik8s.io/v1alpha1\nkind: JobCluster\nmetadata: {{name: local}}\nspec: {{local: {{}}, pollSeconds: 0.2}}\n---\n\
             apiVersion: minik8s.io/v1alpha1\nkind: GpuJob\nmetadata: {{name: job}}\nspec: {{cluster: local, gpus: {{count: 1}}, \
             run: 'echo $CUDA_VISIBLE_DEVICES; while [ ! -e {mark} ]; do sleep 0.1; done'}}\n"
        ),
    );
    let phase = || up.minik8s(&["job", "get", "job", "-o", "jsonpath={.status.phase}"]).out;
    until_or(60, || phase() == "Queued", phase);
    up.minik8s(&["delete", "pod", "three"]).ok();
    up.minik8s(&["delete", "pod", "two"]).ok();
    until("the job has what the pod had", 120, || phase() == "Running");
    // What the job has is nothing that the scheduler gives away.
    until_or(60, || has("capacity", 2) && has("allocatable", 1), || node("allocatable"));
    up.apply("three.yaml", &manifest("three"));
    until_or(60, || three().contains("Insufficient nvidia.com/gpu"), three);
    std::fs::write(&mark, "").unwrap();
    until("the job has ended", 120, || phase() == "Succeeded");
    assert_eq!(up.minik8s(&["job", "logs", "job"]).ok(), "1\n");
    until_or(120, || three().contains("\"phase\": \"Running\""), three);
    assert!(has("allocatable", 2), "{}", node("allocatable"));
    up.minik8s(&["delete", "gpujob", "job"]).ok();
    up.minik8s(&["delete", "pod", "one", "three"]).ok();
    let table = Devices::new(devices.path().join(".held"));
    until("nobody has anything", 60, || table.held().unwrap().is_empty());
}
