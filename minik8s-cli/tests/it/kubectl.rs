//! What people do with kubectl all day, on a cluster of fakes and on a real one: the same story.

use super::harness::{IMAGE, Kind, Up, have_kubectl, until};
use minik8s_core::testkit::kubectl;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

#[test]
fn every_unmodified_kubectl_on_fakes() {
    if !have_kubectl() {
        return;
    }
    for program in kubectl::all() {
        eprintln!("with {}", program.display());
        let Some(mut up) = Up::start(Kind::Fake) else { return };
        up.kubectl = Some(program);
        story(&up);
    }
}

#[test]
fn unmodified_kubectl_on_real_containers() {
    if !have_kubectl() {
        return;
    }
    let Some(up) = Up::start(Kind::Real) else { return };
    story(&up);
}

fn story(up: &Up) {
    until("the node is ready", 60, || up.kubectl(&["get", "nodes"]).out.contains(" Ready"));
    deployment(up);
    rollouts(up);
    services_and_descriptions(up);
    logs_and_exec(up);
    watching(up);
    deleting(up);
}

fn deployment(up: &Up) {
    // A generator sends protobuf; image and command are what a real busybox can run.
    up.kubectl(&["create", "deployment", "web", "--image", IMAGE, "--replicas=2", "--", "sleep", "100000"]).ok();
    let told = up.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]).ok();
    assert!(told.contains("successfully rolled out"), "{told}");
    up.kubectl(&["scale", "deployment", "web", "--replicas=3"]).ok();
    up.kubectl(&["wait", "--for=jsonpath={.status.availableReplicas}=3", "deployment/web", "--timeout=60s"]).ok();
    let table = up.kubectl(&["get", "deployment", "web"]).ok();
    assert!(table.contains("3/3"), "{table}");
    up.kubectl(&["label", "deployment", "web", "tier=front"]).ok();
    assert!(up.kubectl(&["get", "deploy", "-l", "tier=front", "-o", "name"]).ok().contains("deployment.apps/web"));
}

fn rollouts(up: &Up) {
    up.kubectl(&["set", "image", "deployment/web", &format!("*={IMAGE}"), "--record=false"]).ok();
    let first = template(up);
    up.kubectl(&["set", "env", "deployment/web", "COLOUR=green"]).ok();
    up.kubectl(&["rollout", "status", "deployment/web", "--timeout=90s"]).ok();
    assert_ne!(template(up), first);
    let history = up.kubectl(&["rollout", "history", "deployment/web"]).ok();
    assert!(history.contains("1 ") && history.contains("2 "), "{history}");
    up.kubectl(&["rollout", "undo", "deployment/web"]).ok();
    up.kubectl(&["rollout", "status", "deployment/web", "--timeout=90s"]).ok();
    assert_eq!(template(up), first);
    up.kubectl(&["rollout", "restart", "deployment/web"]).ok();
    up.kubectl(&["rollout", "status", "deployment/web", "--timeout=90s"]).ok();
    assert!(template(up).contains("restartedAt"));
}

fn template(up: &Up) -> String {
    up.kubectl(&["get", "deployment", "web", "-o", "jsonpath={.spec.template}"]).ok()
}

fn services_and_descriptions(up: &Up) {
    up.kubectl(&["expose", "deployment", "web", "--port=80", "--target-port=8080"]).ok();
    // Those of the version before take their time.
    until("there are three pods", 60, || {
        up.kubectl(&["get", "pods", "-l", "app=web", "-o", "name"]).out.lines().count() == 3
    });
    until("the service has three endpoints", 60, || {
        up.kubectl(&["get", "endpoints", "web", "-o", "jsonpath={.subsets[0].addresses[*].ip}"]).out.split(' ').count()
            == 3
    });
    let pod = first_pod(up);
    // what, parts of the description
    let table: &[(&[&str], &[&str])] = &[
        (&["pod", &pod], &["Scheduled", "Successfully assigned", "Started", "Ready", "node-1"]),
        (&["node", "node-1"], &["Capacity", "cpu", &pod, "MemoryPressure", "Lease"]),
        (&["deployment", "web"], &["RollingUpdate", "NewReplicaSet", "ScalingReplicaSet"]),
        (&["service", "web"], &["ClusterIP", "Endpoints", "80/TCP"]),
    ];
    for (what, parts) in table {
        let args = [&["describe"], *what].concat();
        let told = up.kubectl(&args).ok();
        for part in *parts {
            assert!(told.contains(part), "describe {what:?}: {part:?} is not in\n{told}");
        }
    }
}

fn first_pod(up: &Up) -> String {
    up.kubectl(&["get", "pods", "-l", "app=web", "-o", "jsonpath={.items[0].metadata.name}"]).ok()
}

const TALKER: &str = "apiVersion: v1
kind: Pod
metadata: {name: talker, labels: {app: talker}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: localhost/minik8s-test:1
    command: [sh, -c, 'echo one; echo two; while true; do sleep 1; echo more; done']
";

fn logs_and_exec(up: &Up) {
    let applied = up.kubectl_with(&["apply", "-f", "-"], TALKER).ok();
    assert!(applied.contains("created"), "{applied}");
    let again = up.kubectl_with(&["apply", "-f", "-"], TALKER).ok();
    assert!(again.contains("unchanged"), "{again}");
    up.kubectl(&["wait", "--for=condition=Ready", "pod/talker", "--timeout=60s"]).ok();
    let mut follow = up.kubectl_command(&["logs", "-f", "talker"]);
    let mut child = follow.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    if up.kind == Kind::Real {
        assert_eq!(first, "one");
        assert_eq!(lines.next().unwrap().unwrap(), "two");
        assert_eq!(lines.next().unwrap().unwrap(), "more");
        assert_eq!(up.kubectl(&["logs", "talker", "--tail=1"]).ok().trim(), "more");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let ran = up.kubectl(&["exec", "talker", "--", "echo", "hello", "world"]).ok();
    assert!(ran.contains("hello world"), "{ran}");
    if up.kind == Kind::Real {
        assert_eq!(up.kubectl(&["exec", "talker", "--", "sh", "-c", "exit 7"]).code, 7);
        let echoed = up.kubectl_with(&["exec", "-i", "talker", "--", "cat"], "through\n").ok();
        assert_eq!(echoed, "through\n");
    }
}

fn watching(up: &Up) {
    let mut watch = up.kubectl_command(&["get", "configmaps", "-w", "--no-headers"]);
    let mut child = watch.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    up.kubectl(&["create", "configmap", "seen", "--from-literal=a=b"]).ok();
    let seen = lines.by_ref().map_while(Result::ok).any(|line| line.starts_with("seen"));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(seen, "the watch ended without the new object");
}

fn deleting(up: &Up) {
    let pod = first_pod(up);
    up.kubectl(&["delete", "pod", &pod, "talker", "--timeout=60s"]).ok();
    assert!(up.kubectl(&["get", "pod", &pod]).refused().contains("not found"));
    up.kubectl(&["delete", "deployment,service", "web", "--timeout=60s"]).ok();
    until("the pods of the deleted deployment are gone", 60, || {
        up.kubectl(&["get", "pods", "-l", "app=web", "-o", "name"]).out.is_empty()
    });
}
