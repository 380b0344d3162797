//! Manifests of the first minik8s, applied as they were written.

use super::harness::{Kind, Up, minik8s, until};

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
