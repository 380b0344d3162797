//! What real pods meet at the edges: the API from inside, registries that want to know who asks, volumes with limits,
//! logs that outgrow their file.

use super::harness::{IMAGE, Kind, Up, have_kubectl, until};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use minik8s_core::testkit::kubectl;
use minik8s_runtime::testing;
use std::path::Path;

fn get(up: &Up, what: &str, path: &str) -> String {
    up.minik8s(&["get", what, "-o", &format!("jsonpath={path}")]).out
}

fn until_phase(up: &Up, pod: &str, phase: &str) {
    until(&format!("{pod} is {phase}"), 90, || get(up, &format!("pod/{pod}"), "{.status.phase}") == phase);
}

/// A pod of one container that runs a script; `more` are further lines of its specification.
fn pod(name: &str, script: &str, mounts: &str, more: &str) -> String {
    let script = script.replace('\'', "''");
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 1\n  restartPolicy: Never\n  containers:\n  - name: main\n    image: '{IMAGE}'\n    command: [sh, -c, '{script}']\n    volumeMounts: [{mounts}]\n{more}---\n"
    )
}

/// A process of the pod.
fn a_process(uid: &str) -> u32 {
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    let pid = |entry: std::fs::DirEntry| entry.file_name().to_str()?.parse::<u32>().ok();
    let mut ours = pids
        .filter_map(pid)
        .filter(|pid| std::fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|groups| groups.contains(uid)));
    ours.next().expect("a process of the pod")
}

#[test]
fn pods_reach_an_api_that_listens_on_loopback() {
    let Some(up) = Up::start(Kind::Real) else { return };
    let addresses = "{.subsets[0].addresses[0].ip}";
    until("the API is advertised", 60, || get(&up, "endpoints/kubernetes", addresses) == "10.244.0.1");
    let script = "until nc -w 2 kubernetes.default.svc 443 </dev/null; do sleep 0.1; done; \
                  nc -w 2 $KUBERNETES_SERVICE_HOST $KUBERNETES_SERVICE_PORT </dev/null && echo reached; exec sleep 1000000";
    up.apply("pod.yaml", &pod("client", script, "", ""));
    until("the pod has connected", 60, || up.minik8s(&["logs", "client"]).out.contains("reached"));
    // Only where it was told to, and where pods are.
    let listening = up.program("ss", &["-Hltn"]).ok();
    let port = up.ready.split_whitespace().nth(1).and_then(|url| url.rsplit(':').next()).unwrap().to_owned();
    let doors = listening.lines().filter_map(|l| l.split_whitespace().nth(3)?.strip_suffix(&format!(":{port}")));
    let mut doors: Vec<&str> = doors.collect();
    doors.sort_unstable();
    assert_eq!(doors, ["10.244.0.1", "127.0.0.1"]);
    if !have_kubectl() {
        return;
    }
    // From the pod's own network, with the certificate checked for the service's address and for its name.
    let process = a_process(&get(&up, "pod/client", "{.metadata.uid}"));
    let config = up.data().join("admin.kubeconfig").display().to_string();
    let ip = get(&up, "svc/kubernetes", "{.spec.clusterIP}");
    let server = format!("--server=https://{ip}:443");
    for name in ["", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"] {
        let mut words = vec!["-t".to_owned(), process.to_string(), "-n".to_owned(), "--".to_owned()];
        words.push(kubectl::find().expect("looked for before").display().to_string());
        words.extend([format!("--kubeconfig={config}"), server.clone()]);
        words.push(format!("--cache-dir={}", up.files().join("pod-cache").display()));
        words.extend((!name.is_empty()).then(|| format!("--tls-server-name={name}")));
        words.extend(["get", "namespaces", "-o", "name"].map(str::to_owned));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        assert!(up.program("nsenter", &words).ok().contains("namespace/kube-system"), "as {name:?}");
    }
}

#[test]
fn images_are_pulled_with_the_pods_own_credentials() {
    let Some(up) = Up::start(Kind::Real) else { return };
    let archive = testing::busybox_image(up.files()).unwrap();
    let address = up.registry(archive, "team/app", Some(("me", "secret")));
    let secret = |name: &str, password: &str| {
        let auth = STANDARD.encode(format!("me:{password}"));
        let config = serde_json::json!({"auths": {&address: {"auth": auth}}}).to_string();
        format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}}}\ntype: kubernetes.io/dockerconfigjson\ndata: {{.dockerconfigjson: {}}}\n---\n",
            STANDARD.encode(config)
        )
    };
    let image = format!("{address}/team/app:v1");
    let puller = |name: &str, secrets: &str| {
        pod(name, "true", "", &format!("  imagePullSecrets: [{secrets}]\n")).replace(IMAGE, &image)
    };
    // The refused first: what is here needs no credentials any more.
    up.apply("bad.yaml", &(secret("wrong", "hunter2") + &puller("without", "") + &puller("guesses", "{name: wrong}")));
    for name in ["without", "guesses"] {
        let message = "{.status.containerStatuses[0].state.waiting.message}";
        until(&format!("{name} is refused"), 60, || {
            get(&up, &format!("pod/{name}"), message).contains("access denied")
        });
    }
    up.apply("good.yaml", &(secret("right", "secret") + &puller("knows", "{name: right}")));
    until_phase(&up, "knows", "Succeeded");
    assert!(!up.log().contains("hunter2") && !up.log().contains(&STANDARD.encode("me:secret")), "a secret was logged");
}

#[test]
fn volumes_in_memory_are_file_systems_and_full_ones_on_disk_end_their_pod() {
    let Some(up) = Up::start(Kind::Real) else { return };
    let volumes = "  securityContext: {fsGroup: 2000}\n  volumes:\n  - {name: m, emptyDir: {medium: Memory, sizeLimit: 1Mi}}\n  - {name: d, emptyDir: {sizeLimit: 1Mi}}\n";
    let memory =
        "dd if=/dev/zero of=/m/big bs=64k count=64 2>&1; grep ' /m ' /proc/mounts; ls -n /m/big; exec sleep 1000000";
    let disk = "dd if=/dev/zero of=/d/big bs=64k count=64; exec sleep 1000000";
    let mounts = "{name: m, mountPath: /m}, {name: d, mountPath: /d}";
    up.apply("pods.yaml", &(pod("memory", memory, mounts, volumes) + &pod("disk", disk, mounts, volumes)));
    until_phase(&up, "disk", "Failed");
    assert_eq!(get(&up, "pod/disk", "{.status.reason}"), "Evicted");
    assert!(get(&up, "pod/disk", "{.status.message}").contains("\"d\" exceeds the limit \"1Mi\""));
    let log = up.minik8s(&["logs", "memory"]).ok();
    assert!(log.contains("No space left") && log.contains("tmpfs") && log.contains(" 2000 "), "{log}");
    assert_eq!(get(&up, "pod/memory", "{.status.phase}"), "Running");
    let data = up.data().display().to_string();
    let volumes = || {
        let table = std::fs::read_to_string("/proc/mounts").unwrap();
        table.lines().filter(|l| l.contains(&data) && l.contains("/volumes/")).count()
    };
    until("the ended pod's memory is given back", 60, || volumes() == 1);
    up.minik8s(&["delete", "pod", "memory"]).ok();
    until("the deleted pod's memory is given back", 60, || volumes() == 0);
    up.apply(
        "again.yaml",
        &pod(
            "memory",
            "exec sleep 1000000",
            mounts,
            "  volumes:\n  - {name: m, emptyDir: {medium: Memory}}\n  - {name: d, emptyDir: {}}\n",
        ),
    );
    until_phase(&up, "memory", "Running");
    assert_eq!(volumes(), 1);
    up.minik8s(&["down"]).ok();
    assert_eq!(volumes(), 0);
    assert!(!up.data().join("node").exists());
}

#[test]
fn logs_go_on_over_rotations_and_over_the_death_of_the_agent() {
    // A line is some fifty bytes in the file: each part fills several files, and all are kept.
    let args = &["--node-name", "node-1", "--log-max-bytes", "100000", "--log-max-files", "90"];
    let Some(mut up) = Up::start_with(Kind::Real, args) else { return };
    let gate = up.files().join("gate");
    std::fs::create_dir(&gate).unwrap();
    let part = |from: u32| format!("seq {from} {}", from + 9_999);
    let wait = |name: &str| format!("until [ -e /gate/{name} ]; do sleep 0.05; done");
    let script = [part(1), wait("a"), part(10_001), "touch /gate/written".into(), wait("b"), part(20_001)].join("; ");
    let volume = format!("  volumes:\n  - {{name: gate, hostPath: {{path: {}}}}}\n", gate.display());
    up.apply("pod.yaml", &pod("talker", &script, "{name: gate, mountPath: /gate}", &volume));
    let followed = up.files().join("followed");
    let lines = |path: &Path| std::fs::read_to_string(path).unwrap_or_default().lines().count();
    until_phase(&up, "talker", "Running");
    let mut early = up.minik8s_into(&["logs", "-f", "talker"], &followed);
    until("the first part is followed", 60, || lines(&followed) >= 10_000);
    up.kill();
    let _ = early.wait();
    // Nobody but the log's own writer lives while this is written.
    std::fs::write(gate.join("a"), "").unwrap();
    until("the second part is written", 60, || gate.join("written").exists());
    up.run();
    let mut late = up.minik8s_into(&["logs", "-f", "talker"], &followed);
    until("the second part is followed", 60, || lines(&followed) >= 20_000);
    std::fs::write(gate.join("b"), "").unwrap();
    assert!(late.wait().unwrap().success(), "the follower ends with the container");
    until_phase(&up, "talker", "Succeeded");
    let all: String = (1..=30_000).map(|n| format!("{n}\n")).collect();
    assert!(std::fs::read_to_string(&followed).unwrap() == all, "{} lines were followed", lines(&followed));
    assert!(up.minik8s(&["logs", "talker"]).ok() == all);
    if have_kubectl() {
        assert!(up.kubectl(&["logs", "talker"]).ok() == all);
        assert_eq!(up.kubectl(&["logs", "talker", "--tail=3"]).ok(), "29998\n29999\n30000\n");
    }
    let uid = get(&up, "pod/talker", "{.metadata.uid}");
    let dir = up.data().join("node/logs").join(format!("default_talker_{uid}")).join("main");
    let sizes: Vec<u64> = std::fs::read_dir(dir).unwrap().flatten().map(|e| e.metadata().unwrap().len()).collect();
    assert!(sizes.len() > 10 && sizes.iter().all(|size| *size <= 100_000), "{sizes:?}");
}
