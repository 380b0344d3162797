//! Deployments of real containers: healed, scaled, rolled, paused and taken back. What counts is what answers through the
//! Service, and which processes run.

use super::gateway::{available, get};
use super::harness::{IMAGE, Kind, Up, until, until_or};
use std::collections::BTreeSet;

/// Web servers that say which version they are, one more at most and none less while they are replaced.
fn web(version: &str, replicas: usize, paused: bool) -> String {
    let script = format!("echo {version} > /tmp/index.html; exec httpd -f -p 8080 -h /tmp");
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\nspec:\n  replicas: {replicas}\n  paused: {paused}\n  \
         strategy: {{rollingUpdate: {{maxSurge: 1, maxUnavailable: 0}}}}\n  selector: {{matchLabels: {{app: web}}}}\n  \
         template:\n    metadata: {{labels: {{app: web}}}}\n    spec:\n      terminationGracePeriodSeconds: 3\n      \
         containers: [{{name: main, image: '{IMAGE}', command: [sh, -c, '{script}'], readinessProbe: {{tcpSocket: {{port: \
         8080}}, periodSeconds: 1, failureThreshold: 60}}}}]\n---\napiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec: {{selector: {{app: \
         web}}, ports: [{{port: 80, targetPort: 8080}}]}}\n"
    )
}

/// What the Service answers, asked from the cluster's host.
fn answer(up: &Up) -> String {
    let address = get(up, "svc/web", "{.spec.clusterIP}");
    let script = format!(
        "exec 3<>/dev/tcp/{address}/80 && printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3 && timeout 5 cat <&3 | tail -n 1"
    );
    up.program("bash", &["-c", &script]).out.trim().to_owned()
}

fn pods(up: &Up) -> BTreeSet<String> {
    get(up, "pods", "{.items[*].metadata.name}").split_whitespace().map(str::to_owned).collect()
}

/// Processes of web servers in this pod.
fn servers(up: &Up, pod: &str) -> Vec<u32> {
    let uid = get(up, &format!("pod/{pod}"), "{.metadata.uid}");
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let text = |pid: &u32, file: &str| std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let within = |pid: &u32| String::from_utf8_lossy(&text(pid, "cgroup")).contains(&uid);
    pids.filter(|pid| !uid.is_empty() && within(pid) && text(pid, "cmdline").starts_with(b"httpd")).collect()
}

/// How many web servers run in all pods.
fn running(up: &Up) -> usize {
    pods(up).iter().map(|pod| servers(up, pod).len()).sum()
}

/// Rolls to another version and looks on: the pods there are, and those that are ready, as often as one can look.
fn roll(up: &Up, begin: impl FnOnce(), version: &str, replicas: usize) {
    begin();
    let (mut most, mut least) = (0, usize::MAX);
    let done = || {
        let phases = get(up, "pods", "{range .items[*]}{.metadata.deletionTimestamp}/{.status.phase} {end}");
        most = most.max(phases.split_whitespace().filter(|pod| pod.starts_with('/')).count());
        // Nobody said none: the field is not there where it is zero, and nothing is where asking failed.
        let available = up.minik8s(&["get", "deploy/web", "-o", "jsonpath=n{.status.availableReplicas}"]).out;
        least = available.strip_prefix('n').map_or(least, |count| least.min(count.parse().unwrap_or(0)));
        let told = get(
            up,
            "deploy/web",
            "{.status.observedGeneration}/{.metadata.generation} {.status.updatedReplicas} {.status.replicas}",
        );
        let mut words = told.split_whitespace();
        let seen = words.next().and_then(|both| both.split_once('/')).is_some_and(|(seen, now)| seen == now);
        seen && words.all(|count| count == replicas.to_string())
    };
    until(&format!("all are {version}"), 180, done);
    assert!(most <= replicas + 1, "{most} pods at once are more than one beyond {replicas}");
    assert!(least >= replicas, "{least} available pods are less than {replicas}");
    until_or(60, || (0..8).all(|_| answer(up) == version), || format!("only {version} answers, not {:?}", answer(up)));
}

#[test]
fn a_deployment_heals_scales_rolls_pauses_and_goes_back() {
    let Some(up) = Up::start(Kind::Real) else { return };
    up.apply("web.yaml", &web("v1", 3, false));
    available(&up, "web", 3);
    assert_eq!((answer(&up), running(&up)), ("v1".to_owned(), 3));

    // A pod that is deleted is another one soon; a process that is killed comes back in its pod.
    let before = pods(&up);
    let lost = before.first().unwrap().clone();
    up.minik8s(&["delete", "pod", &lost]).ok();
    until("another pod takes its place", 90, || {
        let now = pods(&up);
        now.len() == 3 && !now.contains(&lost)
    });
    available(&up, "web", 3);
    let hurt = pods(&up).first().unwrap().clone();
    for pid in servers(&up, &hurt) {
        let _ = std::process::Command::new("kill").args(["-KILL", &pid.to_string()]).status();
    }
    until("its container was started again", 90, || {
        get(&up, &format!("pod/{hurt}"), "{.status.containerStatuses[0].restartCount}").parse().unwrap_or(0) >= 1
    });
    until("and runs", 90, || running(&up) == 3);
    available(&up, "web", 3);

    up.minik8s(&["scale", "deploy/web", "--replicas", "5"]).ok();
    available(&up, "web", 5);
    until("five run", 60, || running(&up) == 5);
    up.minik8s(&["scale", "deploy/web", "--replicas", "2"]).ok();
    until("two run", 90, || running(&up) == 2 && pods(&up).len() == 2);

    roll(&up, || drop(up.apply("web.yaml", &web("v2", 2, false))), "v2", 2);
    // What is changed while it is paused waits.
    up.apply("web.yaml", &web("v2", 2, true));
    up.apply("web.yaml", &web("v3", 2, true));
    let seen = "{.status.observedGeneration}/{.metadata.generation}";
    until("the change was seen", 60, || {
        get(&up, "deploy/web", seen).split_once('/').is_some_and(|(seen, now)| seen == now)
    });
    let updated = get(&up, "deploy/web", "{.status.updatedReplicas}");
    assert!(matches!(updated.as_str(), "" | "0"), "{updated} pods of a Deployment that is paused are new");
    assert_eq!(answer(&up), "v2");
    roll(&up, || drop(up.apply("web.yaml", &web("v3", 2, false))), "v3", 2);
    roll(&up, || drop(up.minik8s(&["rollout", "undo", "deploy/web", "--to-revision", "1"]).ok()), "v1", 2);
    let history = up.minik8s(&["rollout", "history", "deploy/web"]).ok();
    for revision in ["2", "3", "4"] {
        assert!(history.lines().any(|line| line.split_whitespace().next() == Some(revision)), "{revision}: {history}");
    }
    up.minik8s(&["delete", "deploy/web"]).ok();
    until("nothing is left of it", 90, || pods(&up).is_empty());
}
