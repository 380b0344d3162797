//! Real containers on a real bridge, in a network namespace of the test's own.

use super::harness::{IMAGE, Kind, Up, until};
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;

fn get(up: &Up, what: &str, path: &str) -> String {
    up.minik8s(&["get", what, "-o", &format!("jsonpath={path}")]).out
}

fn until_ready(up: &Up, pod: &str) {
    until("the pod is ready", 60, || {
        get(up, &format!("pod/{pod}"), "{.status.conditions[?(@.type=='Ready')].status}") == "True"
    });
}

/// The processes of a pod, found by its cgroup.
fn processes(uid: &str) -> BTreeSet<u32> {
    let mut out = BTreeSet::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else { continue };
        if std::fs::read_to_string(entry.path().join("cgroup")).is_ok_and(|text| text.contains(uid)) {
            out.insert(pid);
        }
    }
    out
}

fn sleeper(name: &str, labels: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{{labels}}}}}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers:\n  - {{name: main, image: '{IMAGE}', command: [sh, -c, 'hostname > /tmp/index.html; exec httpd -f -p 8080 -h /tmp']}}\n---\n"
    )
}

/// What answers at an address, asked from the cluster's host with nothing but bash.
fn fetch(up: &Up, address: &str, port: u16) -> String {
    let script = format!(
        "exec 3<>/dev/tcp/{address}/{port} && printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3 && timeout 2 cat <&3 | tail -n 1"
    );
    up.program("bash", &["-c", &script]).out.trim().to_owned()
}

#[test]
fn a_killed_cluster_finds_its_containers_again_and_they_never_stop_answering() {
    let Some(mut up) = Up::start(Kind::Real) else { return };
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}\n";
    up.apply("all.yaml", &(sleeper("a", "app: web") + &sleeper("b", "app: web") + service));
    until_ready(&up, "a");
    until_ready(&up, "b");
    let address = get(&up, "svc/web", "{.spec.clusterIP}");
    until("the service answers", 60, || !fetch(&up, &address, 80).is_empty());
    let uid = get(&up, "pod/a", "{.metadata.uid}");
    let before = processes(&uid);
    assert!(!before.is_empty());
    for _ in 0..3 {
        up.kill();
        let while_dead: BTreeSet<String> = (0..20).map(|_| fetch(&up, &address, 80)).collect();
        assert_eq!(while_dead, ["a", "b"].map(str::to_owned).into(), "requests fail without the control plane");
        up.run();
        until("the pods are known again", 60, || get(&up, "pods", "{.items[*].status.phase}") == "Running Running");
        assert_eq!(processes(&uid), before, "containers were restarted or doubled");
    }
    assert_eq!(get(&up, "pods", "{.items[*].status.containerStatuses[0].restartCount}"), "0 0");
    assert!(up.minik8s(&["exec", "a", "--", "cat", "/tmp/index.html"]).ok().contains('a'));
}

const VOLUMES: &str = "apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {colour: green, nested: deep}
---
apiVersion: v1
kind: Secret
metadata: {name: keys}
stringData: {token: hunter2}
---
apiVersion: v1
kind: Pod
metadata: {name: many, labels: {app: many}}
spec:
  terminationGracePeriodSeconds: 1
  volumes:
  - {name: scratch, emptyDir: {}}
  - {name: memory, emptyDir: {medium: Memory}}
  - {name: host, hostPath: {path: HOSTPATH, type: DirectoryOrCreate}}
  - {name: settings, configMap: {name: settings}}
  - {name: keys, secret: {secretName: keys, defaultMode: 0400}}
  - {name: about, downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}
  - name: all
    projected:
      sources:
      - configMap: {name: settings, items: [{key: nested, path: a/b}]}
      - secret: {name: keys}
  containers:
  - name: writer
    image: localhost/minik8s-test:1
    command: [sh, -c, 'echo shared > /scratch/file; echo host > /host/file; exec sleep 1000000']
    volumeMounts:
    - {name: scratch, mountPath: /scratch}
    - {name: host, mountPath: /host}
    - {name: memory, mountPath: /memory}
  - name: reader
    image: localhost/minik8s-test:1
    command: [sleep, '1000000']
    env:
    - {name: COLOUR, valueFrom: {configMapKeyRef: {name: settings, key: colour}}}
    - {name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
    - {name: EXPANDED, value: 'is-$(COLOUR)'}
    volumeMounts:
    - {name: scratch, mountPath: /scratch, readOnly: true}
    - {name: settings, mountPath: /settings}
    - {name: keys, mountPath: /keys}
    - {name: about, mountPath: /about}
    - {name: all, mountPath: /all}
";

#[test]
fn several_volumes_of_every_kind_each_hold_their_own() {
    let Some(up) = Up::start(Kind::Real) else { return };
    let host = up.files().join("on-host");
    up.apply("volumes.yaml", &VOLUMES.replace("HOSTPATH", &host.display().to_string()));
    until_ready(&up, "many");
    let read = |script: &str| up.minik8s(&["exec", "many", "-c", "reader", "--", "sh", "-c", script]);
    // script, output
    let table = [
        ("cat /scratch/file", "shared"),
        ("cat /settings/colour /settings/nested", "greendeep"),
        ("cat /keys/token", "hunter2"),
        ("cat /about/labels", "app=\"many\""),
        ("cat /all/a/b /all/token", "deephunter2"),
        ("echo $COLOUR $EXPANDED", "green is-green"),
        ("ls /", ""),
    ];
    for (script, expected) in table {
        let out = read(script).ok();
        assert!(expected.is_empty() || out.trim() == expected, "{script}: {out:?}");
    }
    assert!(read("echo $POD_IP").ok().starts_with("10.244."));
    assert!(read("echo no > /scratch/other").refused().contains("ead-only"));
    assert_eq!(std::fs::read_to_string(host.join("file")).unwrap(), "host\n");
    // A change of the ConfigMap arrives without a restart.
    up.minik8s_with(
        &["apply", "-f", "-"],
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {colour: blue, nested: deep}\n",
    )
    .ok();
    until("the change arrives", 60, || read("cat /settings/colour").out == "blue");
}

#[test]
fn containers_of_a_pod_share_localhost_and_pods_with_the_same_container_names_do_not_meet() {
    let Some(up) = Up::start(Kind::Real) else { return };
    let two = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: two}}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers:\n  - {{name: main, image: '{IMAGE}', command: [sh, -c, 'echo here > /tmp/index.html; exec httpd -f -p 8080 -h /tmp']}}\n  - {{name: side, image: '{IMAGE}', command: [sleep, '1000000']}}\n---\n"
    );
    up.apply("pods.yaml", &(two + &sleeper("one", "app: x") + &sleeper("one-1", "app: x")));
    ["two", "one", "one-1"].iter().for_each(|pod| until_ready(&up, pod));
    let side = |script: &str| up.minik8s(&["exec", "two", "-c", "side", "--", "sh", "-c", script]).ok();
    let listening = side("netstat -ltn 2>/dev/null || cat /proc/net/tcp /proc/net/tcp6");
    assert!(listening.contains("8080") || listening.to_uppercase().contains(":1F90"), "{listening}");
    assert_eq!(side("hostname").trim(), "two");
    let names: Vec<String> = ["one", "one-1"]
        .iter()
        .map(|p| up.minik8s(&["exec", p, "-c", "main", "--", "hostname"]).ok().trim().to_owned())
        .collect();
    assert_eq!(names, ["one", "one-1"]);
    up.minik8s(&["delete", "pod", "one"]).ok();
    assert_eq!(up.minik8s(&["exec", "one-1", "--", "hostname"]).ok().trim(), "one-1");
}

#[test]
fn what_is_wrong_with_a_container_is_told_truthfully() {
    let Some(up) = Up::start(Kind::Real) else { return };
    let pod = |name: &str, rest: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{restartPolicy: Never, terminationGracePeriodSeconds: 1, containers: [{{name: c, {rest}}}]}}\n---\n"
        )
    };
    let text = pod("fails", &format!("image: '{IMAGE}', command: [sh, -c, 'exit 3']"))
        + &pod("done", &format!("image: '{IMAGE}', command: ['true']"))
        + &pod(
            "hungry",
            &format!(
                "image: '{IMAGE}', command: [sh, -c, 'x=$(head -c 200000000 /dev/zero | tr \"\\\\0\" x); sleep 1'], resources: {{limits: {{memory: 16Mi}}}}"
            ),
        )
        + &pod("absent", "image: '127.0.0.1:1/nothing/here:1'")
        + &pod("never", "image: 'localhost/never:1', imagePullPolicy: Never")
        + &pod("lost", &format!("image: '{IMAGE}', command: [/no/such/program]"))
        + &pod("unset", &format!("image: '{IMAGE}', envFrom: [{{configMapRef: {{name: missing}}}}]"));
    up.apply("pods.yaml", &text);
    let state = "{.status.containerStatuses[0].state}";
    // pod, phase, parts of the container's state
    let table: &[(&str, &str, &[&str])] = &[
        ("fails", "Failed", &["\"exitCode\":3", "Error"]),
        ("done", "Succeeded", &["\"exitCode\":0", "Completed"]),
        ("hungry", "Failed", &["OOMKilled", "137"]),
        ("absent", "Pending", &["PullBackOff"]),
        ("never", "Pending", &["ErrImageNeverPull"]),
        ("lost", "Failed", &["/no/such/program"]),
        ("unset", "Pending", &["CreateContainerConfigError", "missing"]),
    ];
    for (pod, phase, parts) in table {
        until(&format!("{pod} is {phase} with {parts:?}"), 60, || {
            let what = format!("pod/{pod}");
            let shown = get(&up, &what, state);
            get(&up, &what, "{.status.phase}") == *phase && parts.iter().all(|part| shown.contains(part))
        });
    }
}

#[test]
fn a_container_that_dies_or_is_removed_behind_our_back_comes_back() {
    let Some(up) = Up::start(Kind::Real) else { return };
    up.apply("pod.yaml", &sleeper("phoenix", "app: x"));
    until_ready(&up, "phoenix");
    let uid = get(&up, "pod/phoenix", "{.metadata.uid}");
    assert!(uid.len() >= 32, "{uid:?} is no uid");
    for count in 1..=2 {
        for pid in processes(&uid) {
            let _ = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status();
        }
        until("it is restarted", 60, || {
            get(&up, "pod/phoenix", "{.status.containerStatuses[0].restartCount}") == count.to_string()
        });
        until_ready(&up, "phoenix");
    }
}

#[test]
fn down_leaves_nothing() {
    let Some(up) = Up::start(Kind::Real) else { return };
    up.apply("pod.yaml", &sleeper("a", "app: x"));
    until_ready(&up, "a");
    let uid = get(&up, "pod/a", "{.metadata.uid}");
    assert!(up.program("ip", &["-o", "link"]).ok().contains("mk8s0"));
    up.minik8s(&["down"]).ok();
    let links = up.program("ip", &["-o", "link"]).ok();
    assert_eq!(links.lines().filter(|l| !l.contains("lo:")).count(), 0, "{links}");
    assert_eq!(up.program("nft", &["list", "tables"]).ok(), "");
    assert!(processes(&uid).is_empty());
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
    let data = up.data().display().to_string();
    assert!(!mounts.contains(&data), "{mounts}");
}

#[test]
fn sandboxes_made_ahead_outlive_a_kill_and_end_with_down() {
    let Some(mut up) = Up::start(Kind::Real) else { return };
    let config = std::fs::read_to_string(up.data().join("containerd/config.toml")).unwrap();
    let socket = config.lines().find_map(|l| l.strip_prefix("address = \"")?.strip_suffix('"')).unwrap();
    let state = std::path::Path::new(socket).parent().unwrap().join("rt");
    let net = |pins: std::path::PathBuf| std::fs::metadata(pins.join("net")).ok().map(|meta| meta.ino());
    let spares = || -> BTreeSet<u64> {
        let all = std::fs::read_dir(state.join("spares")).into_iter().flatten().flatten();
        all.filter(|e| e.file_name().to_string_lossy().starts_with("ready-")).filter_map(|e| net(e.path())).collect()
    };
    let run = |up: &Up, name: &str| {
        up.apply("pod.yaml", &sleeper(name, "app: x"));
        until_ready(up, name);
        net(state.join("sandboxes").join(get(up, &format!("pod/{name}"), "{.metadata.uid}"))).unwrap()
    };
    run(&up, "a");
    until("spares are ready", 60, || spares().len() == 2);
    let before = spares();
    up.kill();
    assert_eq!(spares(), before);
    up.run();
    assert!(before.contains(&run(&up, "b")), "the new process uses what the old one made");
    until("the spare is replaced", 60, || spares().len() == 2);
    up.kill();
    up.minik8s(&["down"]).ok();
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
    let left: Vec<&str> = mounts.lines().filter(|l| l.contains(&state.display().to_string())).collect();
    assert!(left.is_empty(), "{left:?}");
}
