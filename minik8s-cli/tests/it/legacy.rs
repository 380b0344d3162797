//! Manifests of the first minik8s, applied as they were written.

use super::gateway::{ask, get};
use super::harness::{IMAGE, Kind, Up, minik8s, until};

const OLD: &str = "apiVersion: v1
kind: Replicaset
metadata: {name: My_Web}
spec:
  replicas: '2'
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: Web
        image: example.org/x:1
        resources: {requests: {cpu: 500000000, memory: 134217728}}
---
apiVersion: v1
kind: Hpa
metadata: {name: web}
spec:
  scaleTargetRef: {kind: Replicaset, name: My_Web}
  minReplicas: 2
  maxReplicas: 5
  metrics: {cpuPercent: 35, memPercent: 50}
  behavior: {scaleDown: {type: Percent, value: 10, periodSeconds: 60s}}
---
apiVersion: v1
kind: service
metadata: {name: web}
spec: {type: nodeport, selector: {app: web}, ports: [{port: '80', targetPort: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: alone, labels: {number: 7}}
spec:
  restartpolicy: never
  containers: [{name: c, Image: 'example.org/x:1', command: [sleep, 1000]}]
";

#[test]
fn they_apply_change_and_go_and_what_was_changed_is_told() {
    let Some(up) = Up::start(Kind::Fake) else { return };
    let path = up.files().join("old.yaml").display().to_string();
    std::fs::write(&path, OLD).unwrap();
    let ran = up.minik8s(&["apply", "-f", &path]);
    assert!(
        ran.err.contains(&format!("warning: {path}:2: kind Replicaset of v1 is ReplicaSet of apps/v1")),
        "{}",
        ran.err
    );
    assert!(
        ran.err.contains(&format!(
            "{path}:12: spec.template.spec.containers[0].resources.requests.cpu: 500000000 nano-cores are 500m"
        )),
        "{}",
        ran.err
    );
    let made = "replicaset.apps/my-web created\nhorizontalpodautoscaler.autoscaling/web created\nservice/web created\npod/alone created\n";
    assert_eq!(ran.ok(), made);
    let get = |what: &str, path: &str| {
        let words: Vec<&str> = what.split(' ').collect();
        up.minik8s(&[&["get"][..], &words, &["-o", &format!("jsonpath={path}")]].concat()).ok()
    };
    until("two replicas are ready", 60, || get("rs my-web", "{.status.readyReplicas}") == "2");
    let container = get(
        "rs my-web",
        "{.spec.template.spec.containers[0].resources.requests.cpu} {.spec.template.spec.containers[0].resources.requests.memory}",
    );
    assert_eq!(container, "500m 134217728");
    let hpa = "{.spec.scaleTargetRef.kind} {.spec.scaleTargetRef.name} {.spec.metrics[*].resource.target.averageUtilization} {.spec.behavior.scaleDown.policies[0].periodSeconds}";
    assert_eq!(get("hpa web", hpa), "ReplicaSet my-web 35 50 60");
    assert_eq!(get("svc web", "{.spec.type} {.spec.ports[0].port}"), "NodePort 80");
    assert_eq!(
        get("pod alone", "{.spec.restartPolicy} {.metadata.labels.number} {.spec.containers[0].command[1]}"),
        "Never 7 1000"
    );

    // What convert prints is the same, and says nothing when it is applied.
    let converted = minik8s(&["convert", "-f", &path]).ok();
    let again = up.minik8s_with(&["apply", "-f", "-"], &converted);
    assert_eq!(again.err, "");
    assert!(again.ok().lines().all(|line| line.ends_with(" unchanged")));
    let gone = up.minik8s(&["delete", "-f", &path]).ok();
    assert_eq!(gone.lines().count(), 4);
    until("all pods are gone", 60, || get("pods", "{.items[*].metadata.name}").is_empty());
}

/// The same on real containers: what runs, with which limits, answers to which name, and follows which load.
#[test]
fn on_real_containers_they_run_answer_and_are_limited_as_they_were_written() {
    let Some(up) = Up::start(Kind::Real) else { return };
    let script = "hostname > /tmp/index.html; exec httpd -f -p 8080 -h /tmp";
    let text = format!(
        "apiVersion: v1\nkind: Replicaset\nmetadata: {{name: My_Web}}\nspec:\n  replicas: '2'\n  template:\n    metadata: \
         {{labels: {{app: web}}}}\n    spec:\n      terminationGracePeriodSeconds: 1\n      containers:\n      - name: Web\n        \
         Image: '{IMAGE}'\n        command: [sh, -c, '{script}']\n        resources: {{requests: {{cpu: 50000000, memory: \
         67108864}}, limits: {{cpu: 500000000, memory: 134217728}}}}\n---\napiVersion: v1\nkind: Service\nmetadata: {{name: \
         My_Web}}\nspec: {{selector: {{app: web}}, ports: [{{port: '80', targetPort: 8080}}]}}\n---\napiVersion: v1\nkind: \
         Dns\nmetadata: {{name: D}}\nspec: {{host: old.example, paths: [{{subPath: /, service: My_Web, port: 80}}]}}\n---\n\
         apiVersion: v1\nkind: Hpa\nmetadata: {{name: web}}\nspec:\n  scaleTargetRef: {{kind: Replicaset, name: \
         My_Web}}\n  minReplicas: 3\n  maxReplicas: 5\n  metrics: {{cpuPercent: 35, memPercent: 50}}\n"
    );
    let path = up.files().join("old.yaml").display().to_string();
    std::fs::write(&path, &text).unwrap();
    let ran = up.minik8s(&["apply", "-f", &path]);
    for told in ["kind Replicaset of v1", "500000000 nano-cores are 500m", "Dns of v1", "Hpa of v1"] {
        assert!(ran.err.contains(told), "{told:?} is not in {}", ran.err);
    }
    ran.ok();
    // The autoscaler holds at least three, by what their cgroups say they use.
    until("three are ready", 120, || get(&up, "rs/my-web", "{.status.readyReplicas}") == "3");
    until("the autoscaler goes by real metrics", 120, || {
        get(&up, "hpa/web", "{.status.conditions[?(@.type=='ScalingActive')].reason}") == "ValidMetricFound"
    });
    // The name of the seed's Dns leads to all of them.
    let mut heard = std::collections::BTreeSet::new();
    until("each answers to the name", 120, || {
        let (status, body) = ask(&up, 80, "old.example", "/", "");
        heard.extend((status == 200).then_some(body));
        heard.len() == 3
    });
    let pods = get(&up, "pods", "{.items[*].metadata.name}");
    assert!(heard.iter().all(|name| pods.split_whitespace().any(|pod| pod == name)), "{heard:?} are not {pods}");
    // Bytes and nano-cores have become limits of the kernel.
    let uid = get(&up, &format!("pod/{}", heard.first().unwrap()), "{.metadata.uid}");
    assert_eq!(limits(&uid), Some(("134217728".to_owned(), 0.5)));
    up.minik8s(&["delete", "-f", &path]).ok();
    until("all pods are gone", 120, || get(&up, "pods", "{.items[*].metadata.name}").is_empty());
}

/// Bytes and cores that the kernel grants to a container of a pod, by either kind of cgroups.
fn limits(uid: &str) -> Option<(String, f64)> {
    let all = std::fs::read_dir("/proc").ok()?.flatten();
    let mut texts = all.filter_map(|entry| std::fs::read_to_string(entry.path().join("cgroup")).ok());
    let text = texts.find(|text| text.contains(uid))?;
    let path = |controller: &str| {
        let mut lines = text.lines().filter_map(|line| line.split(':').nth(1).zip(line.splitn(3, ':').nth(2)));
        lines.find(|(names, _)| names.split(',').any(|name| name == controller)).map(|(_, path)| path.to_owned())
    };
    let read = |file: String| std::fs::read_to_string(file).ok().map(|text| text.trim().to_owned());
    match (path("memory"), path("cpu")) {
        (Some(memory), Some(cpu)) => {
            let number = |file: &str| read(format!("/sys/fs/cgroup/cpu{cpu}/{file}"))?.parse::<f64>().ok();
            let cores = number("cpu.cfs_quota_us")? / number("cpu.cfs_period_us")?;
            Some((read(format!("/sys/fs/cgroup/memory{memory}/memory.limit_in_bytes"))?, cores))
        }
        _ => {
            let own = path("")?;
            let max = read(format!("/sys/fs/cgroup{own}/cpu.max"))?;
            let (quota, period) = max.split_once(' ')?;
            let cores = quota.parse::<f64>().ok()? / period.parse::<f64>().ok()?;
            Some((read(format!("/sys/fs/cgroup{own}/memory.max"))?, cores))
        }
    }
}

#[test]
fn what_nobody_can_read_is_refused_with_its_line() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bad.yaml").display().to_string();
    let told = minik8s(&["convert", "-f", &path]).refused();
    assert!(told.contains("bad.yaml"), "{told}");
    std::fs::write(&path, "kind: Replicaset\nmetadata: {name: a}\n").unwrap();
    let told = minik8s(&["convert", "-f", &path]).refused();
    assert!(told.contains("bad.yaml:1: apiVersion is missing"), "{told}");
    let two = ["Web_1", "web-1"].map(|name| format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\n---\n"));
    std::fs::write(&path, two.concat()).unwrap();
    let told = minik8s(&["convert", "-f", &path]).refused();
    assert!(told.contains("bad.yaml:5: this Pod and the one at") && told.contains("\"web-1\""), "{told}");
    std::fs::write(&path, "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n").unwrap();
    let told = minik8s(&["convert", "-f", &path, "-o", "toml"]).refused();
    assert!(told.contains("known are yaml and json"), "{told}");
}
