//! Lives of pods from their making to their end.

use super::world::{World, condition, first, one, phase_of, uid};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use minik8s_core::client::PatchType;
use minik8s_core::network::NetworkPlugin;
use minik8s_core::node::PAUSED;
use minik8s_core::runtime::{ExecSpec, Output};
use minik8s_core::testkit::{FakeOp, Script, Which, wait};
use serde_json::json;
use std::time::Duration;

#[tokio::test]
async fn a_pod_runs_speaks_answers_and_goes() {
    let world = World::new().await;
    world.create("web", one("web:1", &["sh", "-c", "echo hello; sleep infinity"])).await;
    let pod = world.running("web").await;
    let status = pod.status.clone().unwrap();
    assert_eq!((phase_of(&pod), status.host_ip.as_deref()), ("Running", Some("192.168.7.1")));
    assert_eq!(status.qos_class.as_deref(), Some("BestEffort"));
    assert!(status.start_time.is_some());
    let attached = world.network.attachments().await.unwrap();
    assert_eq!(status.pod_ip, Some(attached[0].ips[0].to_string()));
    assert_eq!(first(&pod).container_id, Some(format!("fake://{}-c-0", uid(&pod))));
    assert!(first(&pod).image_id.starts_with("docker.io/library/web@sha256:"));
    assert_eq!(world.logs(&pod, "c", false).await, "hello\n");

    let spec = ExecSpec { command: vec!["hostname".into()], ..ExecSpec::default() };
    let mut session = world.access().exec(&world.at(&pod, "c"), spec).await.unwrap();
    assert_eq!(session.output.recv().await, Some(Output::Stdout("web\n".into())));
    let hosts = world.file(&pod, "c", "/etc/hosts").unwrap();
    assert!(hosts.contains(&format!("{}\tweb", status.pod_ip.unwrap())), "{hosts}");

    world.delete("web", None).await;
    world.gone("web").await;
    world.clean().await;
}

#[tokio::test]
async fn the_node_registers_and_keeps_its_lease() {
    let world = World::new().await;
    let nodes = world.client.all::<Node>();
    let ready = |node: &Node| {
        let conditions = node.status.as_ref()?.conditions.as_ref()?;
        conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True").then_some(())
    };
    wait::until("the node is ready", super::world::BOUND, || async {
        let node = nodes.get_opt("n1").await.unwrap()?;
        ready(&node)?;
        let info = node.status?.node_info?;
        info.container_runtime_version.starts_with("fake://").then_some(())
    })
    .await;
    let lease = wait::until("the lease is there", super::world::BOUND, || async {
        world.client.api::<Lease>("kube-node-lease").get_opt("n1").await.unwrap()
    })
    .await;
    let spec = lease.spec.unwrap();
    assert_eq!((spec.holder_identity.as_deref(), spec.lease_duration_seconds), (Some("n1"), Some(40)));
}

#[tokio::test]
async fn work_ends_as_succeeded_or_failed() {
    let world = World::new().await;
    let spec = |policy: &str, script: &str| {
        let mut spec = one("busybox:1", &["sh", "-c", script]);
        spec["restartPolicy"] = json!(policy);
        spec
    };
    world.create("good", spec("Never", "echo done")).await;
    world.create("bad", spec("Never", "exit 3")).await;
    world.create("again", spec("OnFailure", "exit 3")).await;
    let good = world.phase("good", "Succeeded").await;
    assert_eq!(world.logs(&good, "c", false).await, "done\n");
    assert_eq!(condition(&good, "Ready"), Some(false));
    let bad = world.phase("bad", "Failed").await;
    let ended = first(&bad).state.unwrap().terminated.unwrap();
    assert_eq!((ended.exit_code, ended.reason.as_deref()), (3, Some("Error")));
    world.until("again", "was restarted", |pod| first(pod).restart_count >= 2).await;
    for name in ["good", "bad", "again"] {
        world.delete(name, Some(0)).await;
        world.gone(name).await;
    }
    world.clean().await;
}

#[tokio::test]
async fn init_containers_and_sidecars_keep_their_order() {
    let world = World::new().await;
    world
        .create(
            "p",
            json!({
                "volumes": [{"name": "shared", "emptyDir": {}}],
                "initContainers": [
                    {"name": "first", "image": "b:1", "command": ["sh", "-c", "echo one >> /s/f"], "volumeMounts": [{"name": "shared", "mountPath": "/s"}]},
                    {"name": "side", "image": "b:1", "restartPolicy": "Always"},
                    {"name": "second", "image": "b:1", "command": ["sh", "-c", "echo two >> /s/f"], "volumeMounts": [{"name": "shared", "mountPath": "/s"}]}],
                "containers": [{"name": "c", "image": "b:1", "command": ["sh", "-c", "cat /s/f; sleep infinity"], "volumeMounts": [{"name": "shared", "mountPath": "/s"}]}]}),
        )
        .await;
    let pod = world.running("p").await;
    wait::until("the container has spoken", super::world::BOUND, || async {
        (world.logs(&pod, "c", false).await == "one\ntwo\n").then_some(())
    })
    .await;
    let starts: Vec<String> =
        world.runtime.calls().into_iter().filter(|call| call.op == FakeOp::Start).map(|call| call.subject).collect();
    let want: Vec<String> = ["first", "side", "second", "c"].map(|name| format!("{}-{name}-0", uid(&pod))).into();
    assert_eq!(starts, want);
    world.delete("p", None).await;
    world.gone("p").await;
    let stops: Vec<String> =
        world.runtime.calls().into_iter().filter(|call| call.op == FakeOp::Stop).map(|call| call.subject).collect();
    assert_eq!(stops, [want[3].clone(), want[1].clone()]);
}

#[tokio::test]
async fn probes_decide_about_readiness_and_restarts() {
    let world = World::new().await;
    let answer = |code| minik8s_core::testkit::ExecAnswer::code(code);
    world.runtime.answer(Which::Any, "ready", answer(1));
    world.runtime.answer(Which::Any, "alive", answer(0));
    let probe = |word: &str| json!({"exec": {"command": [word]}, "periodSeconds": 1, "failureThreshold": 1});
    let mut spec = one("web:1", &[]);
    spec["containers"][0]["readinessProbe"] = probe("ready");
    spec["containers"][0]["livenessProbe"] = probe("alive");
    spec["containers"][0]["startupProbe"] = probe("alive");
    world.create("p", spec).await;
    let pod = world.until("p", "has started", |pod| first(pod).started == Some(true)).await;
    assert!(!first(&pod).ready);
    world.runtime.answer(Which::Any, "ready", answer(0));
    world.running("p").await;
    world.runtime.answer(Which::Any, "ready", answer(1));
    world.until("p", "is unready", |pod| condition(pod, "Ready") == Some(false)).await;
    world.runtime.answer(Which::Any, "alive", answer(1));
    world.until("p", "was restarted", |pod| first(pod).restart_count >= 1).await;
}

#[tokio::test]
async fn termination_runs_the_hook_and_a_shorter_grace_wins() {
    let world = World::new().await;
    world.runtime.script(Which::Any, Script::forever().ignoring_term());
    let mut spec = one("web:1", &[]);
    spec["terminationGracePeriodSeconds"] = json!(3000);
    spec["containers"][0]["lifecycle"] = json!({"preStop": {"exec": {"command": ["bye"]}}});
    world.create("p", spec).await;
    let pod = world.running("p").await;
    world.delete("p", None).await;
    let id = format!("{}-c-0", uid(&pod));
    wait::until("it was asked to stop", super::world::BOUND, || async {
        (world.runtime.count(FakeOp::Stop, &id) == 1).then_some(())
    })
    .await;
    assert_eq!(world.runtime.count(FakeOp::Exec, &id), 1);
    assert!(world.get("p").await.is_some(), "it is still within its grace");
    world.delete("p", Some(1)).await;
    world.gone("p").await;
    assert_eq!(world.runtime.count(FakeOp::Exec, &id), 1, "the hook runs once");
    world.clean().await;
}

#[tokio::test]
async fn a_paused_container_goes_on_before_its_hook() {
    let world = World::new().await;
    world.runtime.script(Which::Any, Script::forever());
    let mut spec = one("web:1", &[]);
    spec["containers"][0]["lifecycle"] = json!({"preStop": {"exec": {"command": ["bye"]}}});
    world.create("p", spec).await;
    let pod = world.running("p").await;
    let id = format!("{}-c-0", uid(&pod));
    let patch = json!({"metadata": {"annotations": {PAUSED: "true"}}});
    world.client.api::<Pod>("default").patch("p", PatchType::Merge, &patch).await.unwrap();
    wait::until("it is paused", super::world::BOUND, || async {
        world.runtime.snapshot().iter().any(|container| container.paused).then_some(())
    })
    .await;
    world.delete("p", None).await;
    world.gone("p").await;
    let calls = world.runtime.calls();
    let about = calls.iter().filter(|call| call.subject == id).map(|call| call.op);
    let turns: Vec<_> = about.filter(|op| matches!(op, FakeOp::Pause | FakeOp::Exec | FakeOp::Stop)).collect();
    assert_eq!(turns, [FakeOp::Pause, FakeOp::Pause, FakeOp::Exec, FakeOp::Stop], "paused, resumed, asked, stopped");
    world.clean().await;
}

#[tokio::test]
async fn a_deadline_fails_the_pod() {
    let world = World::new().await;
    let mut spec = one("web:1", &[]);
    spec["activeDeadlineSeconds"] = json!(1);
    spec["terminationGracePeriodSeconds"] = json!(1);
    world.create("p", spec).await;
    let pod = world.phase("p", "Failed").await;
    assert_eq!(pod.status.unwrap().reason.as_deref(), Some("DeadlineExceeded"));
    wait::until("its process has ended", Duration::from_secs(30), || async {
        world.runtime.snapshot().iter().all(|c| c.pid.is_none()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_container_that_is_killed_comes_back_and_logs_of_both_lives_can_be_read() {
    let world = World::new().await;
    world.create("p", one("web:1", &["sh", "-c", "echo $HOSTNAME; sleep infinity"])).await;
    let pod = world.running("p").await;
    world.runtime.out_of_memory(&format!("{}-c-0", uid(&pod)));
    let pod = world
        .until("p", "runs again", |pod| first(pod).restart_count == 1 && condition(pod, "Ready") == Some(true))
        .await;
    let last = first(&pod).last_state.unwrap().terminated.unwrap();
    assert_eq!((last.exit_code, last.reason.as_deref()), (137, Some("OOMKilled")));
    assert_eq!(world.logs(&pod, "c", true).await, "p\n");
}
