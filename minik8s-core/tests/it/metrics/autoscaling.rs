//! The autoscaler on a cluster of fake nodes: load makes replicas, and what cannot be measured is said.

use super::{BOUND, World};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Event;
use minik8s_core::api::{Gvr, Target};
use minik8s_core::client::{ApiResource, PatchType, Payload, WriteOptions};
use minik8s_core::controllers::horizontal::HorizontalConfig;
use minik8s_core::testkit::need::{self, Need};
use minik8s_core::testkit::{Load, wait};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const HPAS: Gvr = Gvr::new("autoscaling", "v2", "horizontalpodautoscalers");

/// A cluster that looks at its autoscalers often, and whose pods share a load.
struct Scaled {
    world: World,
    /// Thousandths of a core for all pods together.
    load: Arc<AtomicU64>,
}

impl Scaled {
    async fn new() -> Self {
        let config = HorizontalConfig { sync_period: Duration::from_millis(250), ..HorizontalConfig::default() };
        let world = World::with(|builder| builder.horizontal(config)).await;
        let load = Arc::new(AtomicU64::new(0));
        let all = load.clone();
        world.load(move |_, _| Load { milli_cpu: all.load(Ordering::Relaxed), memory_bytes: 4 << 20 });
        Self { world, load }
    }

    /// What each of the pods uses.
    fn each(&self, milli_cpu: u64) {
        self.load.store(milli_cpu, Ordering::Relaxed);
    }

    async fn write(&self, object: Value) {
        let target = match object["kind"].as_str().unwrap() {
            "Deployment" => Target::in_namespace(Deployment::gvr(), "default"),
            _ => Target::in_namespace(HPAS, "default"),
        };
        let body = Payload::Json(object.to_string().into());
        self.world.cluster.transport().create(&target, body, &WriteOptions::default()).await.unwrap();
    }

    async fn deployment(&self, name: &str, replicas: i32) {
        let object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}},
                "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [
                    {"name": "c", "image": "i", "resources": {"requests": {"cpu": "100m", "memory": "8Mi"}}}]}}}});
        self.write(object).await;
    }

    async fn autoscaler(&self, name: &str, target: &str, more: Value) {
        let mut spec = json!({"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": target},
            "minReplicas": 2, "maxReplicas": 5});
        for (field, value) in more.as_object().unwrap() {
            spec[field] = value.clone();
        }
        self.write(json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": name}, "spec": spec}))
            .await;
    }

    async fn get(&self, name: &str) -> Value {
        let target = Target::object(HPAS, "default", name);
        self.world.cluster.transport().get(&target).await.unwrap().value().unwrap()
    }

    async fn until(&self, name: &str, what: &str, check: impl Fn(&Value) -> bool) -> Value {
        let last = std::cell::RefCell::new(Value::Null);
        let found = tokio::time::timeout(
            BOUND,
            wait::until(what, BOUND * 2, || async {
                let now = self.get(name).await;
                *last.borrow_mut() = now.clone();
                check(&now).then_some(now)
            }),
        );
        found.await.unwrap_or_else(|_| panic!("gave up waiting until {what}: {:#}", last.borrow()["status"]))
    }

    async fn condition(&self, name: &str, kind: &str, reason: &str) -> String {
        let has =
            |object: &Value| find(object, kind).filter(|c| c["reason"] == reason).map(|c| c["message"].to_string());
        let found = self.until(name, &format!("{name} says {kind} {reason}"), |o| has(o).is_some()).await;
        has(&found).unwrap()
    }

    async fn replicas(&self, name: &str, want: i32) {
        let api = self.world.cluster.client().api::<Deployment>("default");
        let what = format!("{name} has {want} ready replicas");
        wait::until(&what, BOUND, || async {
            let status = api.get(name).await.unwrap().status?;
            (status.ready_replicas.unwrap_or_default() == want && status.replicas == Some(want)).then_some(())
        })
        .await;
    }
}

fn find<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    object["status"]["conditions"].as_array()?.iter().find(|c| c["type"] == kind)
}

fn cpu(percent: i32) -> Value {
    json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": percent}}})
}

#[tokio::test(flavor = "multi_thread")]
async fn load_makes_replicas_and_its_end_takes_them() {
    let scaled = Scaled::new().await;
    scaled.deployment("web", 1).await;
    let memory = json!({"type": "Resource", "resource": {"name": "memory", "target": {"type": "Utilization", "averageUtilization": 90}}});
    let down = json!({"stabilizationWindowSeconds": 1, "policies": [{"type": "Pods", "value": 1, "periodSeconds": 1}]});
    scaled.autoscaler("web", "web", json!({"metrics": [cpu(35), memory], "behavior": {"scaleDown": down}})).await;
    scaled.replicas("web", 2).await;
    scaled.each(100);
    scaled.replicas("web", 5).await;
    let full = scaled.condition("web", "ScalingLimited", "TooManyReplicas").await;
    assert!(full.contains("more than the maximum"), "{full}");
    let object = scaled
        .until("web", "both metrics are shown, and cpu as it is now", |o| {
            let shown = &o["status"]["currentMetrics"];
            let cpu = shown[0]["resource"]["current"]["averageUtilization"].as_i64().unwrap_or_default();
            shown[1]["resource"]["name"] == "memory" && (80..=120).contains(&cpu)
        })
        .await;
    let trail = find(&object, "ScalingActive").unwrap()["message"].as_str().unwrap();
    assert!(
        trail.contains("cpu resource utilization") && trail.contains("/35% proposes") && trail.contains("memory"),
        "{trail}"
    );
    assert!(object["metadata"]["annotations"]["minik8s.io/scale-events"].as_str().unwrap().contains("\"change\""));
    scaled.each(1);
    scaled.replicas("web", 2).await;
    let events = scaled.world.cluster.client().api::<Event>("default");
    let told = wait::until("both ways are told", BOUND, || async {
        let all = events.list(&Default::default()).await.unwrap().items;
        let told: Vec<_> = all.into_iter().filter(|e| e.reason.as_deref() == Some("SuccessfulRescale")).collect();
        let told: Vec<String> = told.into_iter().filter_map(|e| e.message).collect();
        told.iter().any(|m| m.contains("All metrics below target")).then_some(told)
    })
    .await;
    assert!(
        told.iter().any(|m| m.contains("cpu resource utilization (percentage of request) above target")),
        "{told:?}"
    );
    assert!(told.iter().any(|m| m.contains("Current number of replicas below Spec.MinReplicas")), "{told:?}");
    scaled.world.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_a_condition_and_others_go_on() {
    let scaled = Scaled::new().await;
    scaled.deployment("web", 2).await;
    scaled.deployment("idle", 2).await;
    scaled.deployment("twice", 2).await;
    scaled.deployment("off", 0).await;
    let pods = json!({"type": "Pods", "pods": {"metric": {"name": "never"}, "target": {"type": "AverageValue", "averageValue": "1"}}});
    scaled.autoscaler("gone", "nothing", json!({"metrics": [cpu(35)]})).await;
    scaled
        .autoscaler(
            "unknown",
            "web2",
            json!({"metrics": [cpu(35)],
        "scaleTargetRef": {"apiVersion": "example.org/v1", "kind": "Thing", "name": "x"}}),
        )
        .await;
    scaled.autoscaler("never", "idle", json!({"metrics": [pods]})).await;
    scaled.autoscaler("off", "off", json!({"metrics": [cpu(35)]})).await;
    scaled.autoscaler("one", "twice", json!({"metrics": [cpu(35)]})).await;
    scaled.autoscaler("other", "twice", json!({"metrics": [cpu(35)]})).await;
    scaled.autoscaler("web", "web", json!({"metrics": [cpu(35)]})).await;
    let gone = scaled.condition("gone", "AbleToScale", "FailedGetScale").await;
    assert!(gone.contains("nothing") && gone.contains("not found"), "{gone}");
    let unknown = scaled.condition("unknown", "AbleToScale", "FailedGetScale").await;
    assert!(unknown.contains("no matches for kind"), "{unknown}");
    let never = scaled.condition("never", "ScalingActive", "FailedGetPodsMetric").await;
    assert!(never.contains("unable to get metric never"), "{never}");
    scaled.condition("off", "ScalingActive", "ScalingDisabled").await;
    for name in ["one", "other"] {
        let both = scaled.condition(name, "ScalingActive", "AmbiguousSelector").await;
        assert!(both.contains("default/one default/other"), "{both}");
    }
    // Who points elsewhere, at what is not there, lays claim to the pods no longer.
    let other = Target::object(HPAS, "default", "other");
    let elsewhere = Payload::Json(json!({"spec": {"scaleTargetRef": {"name": "absent"}}}).to_string().into());
    let transport = scaled.world.cluster.transport();
    transport.patch(&other, PatchType::Merge, elsewhere, &WriteOptions::default()).await.unwrap();
    scaled.condition("other", "AbleToScale", "FailedGetScale").await;
    scaled.condition("one", "ScalingActive", "ValidMetricFound").await;
    scaled.each(200);
    scaled.replicas("web", 5).await;
    let failed = scaled.world.cluster.client().api::<Event>("default");
    let told = failed.list(&Default::default()).await.unwrap().items;
    assert!(told.iter().any(|e| e.reason.as_deref() == Some("FailedGetScale")));
    // What was missing comes: the condition goes.
    scaled.deployment("nothing", 2).await;
    scaled.condition("gone", "ScalingActive", "ValidMetricFound").await;
    scaled.world.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn speeds_that_were_used_up_are_known_after_a_restart() {
    let scaled = Scaled::new().await;
    scaled.deployment("web", 4).await;
    let events = json!([{"at": jiff::Timestamp::now(), "change": -1}]).to_string();
    let down =
        json!({"stabilizationWindowSeconds": 0, "policies": [{"type": "Pods", "value": 1, "periodSeconds": 600}]});
    scaled.replicas("web", 4).await;
    scaled
        .write(json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "web", "annotations": {"minik8s.io/scale-events": events}},
        "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "minReplicas": 2, "maxReplicas": 5, "metrics": [cpu(35)], "behavior": {"scaleDown": down}}}))
        .await;
    scaled.condition("web", "ScalingLimited", "ScaleDownLimit").await;
    let target = scaled.world.cluster.client().api::<Deployment>("default").get("web").await.unwrap();
    assert_eq!(target.spec.and_then(|spec| spec.replicas), Some(4), "nothing more is taken");
    scaled.world.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_autoscales_and_shows_it() {
    if !need::met(&[Need::Kubectl]) {
        return;
    }
    let scaled = Scaled::new().await;
    scaled.deployment("web", 2).await;
    let kubectl = scaled.world.kubectl();
    kubectl.ok(&["autoscale", "deployment", "web", "--min=2", "--max=5", "--cpu-percent=50"]).await;
    scaled.each(10);
    let shows = async |args: &[&str], part: &str| {
        wait::until(&format!("kubectl {args:?} shows {part:?}"), BOUND, || async {
            let text = kubectl.ok(args).await;
            text.contains(part).then_some(text)
        })
        .await
    };
    let table = shows(&["get", "hpa"], "cpu: 10%/50%").await;
    assert!(table.starts_with("NAME   REFERENCE        TARGETS"), "{table}");
    let row: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row[..7], ["web", "Deployment/web", "cpu:", "10%/50%", "2", "5", "2"]);
    assert!(shows(&["get", "horizontalpodautoscalers.v1.autoscaling"], "10%/50%").await.contains("Deployment/web"));
    let old = kubectl.ok(&["get", "horizontalpodautoscalers.v1.autoscaling", "web", "-o", "json"]).await;
    let old: Value = serde_json::from_str(&old).unwrap();
    assert_eq!(
        (&old["spec"]["targetCPUUtilizationPercentage"], &old["apiVersion"]),
        (&json!(50), &json!("autoscaling/v1"))
    );
    let text = shows(&["describe", "hpa", "web"], "ValidMetricFound").await;
    for part in ["resource cpu on pods", "10% (10m) / 50%", "Min replicas:", "AbleToScale", "proposes"] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
    // A write through the old version keeps what the new one says.
    let patch = r#"{"spec":{"behavior":{"scaleDown":{"selectPolicy":"Disabled"}}}}"#;
    kubectl.ok(&["patch", "horizontalpodautoscalers.v2.autoscaling", "web", "--type=merge", "-p", patch]).await;
    kubectl
        .ok(&[
            "patch",
            "horizontalpodautoscalers.v1.autoscaling",
            "web",
            "--type=merge",
            "-p",
            r#"{"spec":{"maxReplicas":7}}"#,
        ])
        .await;
    let new = scaled.get("web").await;
    assert_eq!(
        (&new["spec"]["maxReplicas"], &new["spec"]["behavior"]["scaleDown"]["selectPolicy"]),
        (&json!(7), &json!("Disabled"))
    );
    let bad = kubectl.run(&["patch", "hpa", "web", "--type=merge", "-p", r#"{"spec":{"minReplicas":9}}"#]).await;
    assert!(bad.code != 0 && bad.stderr.contains("spec.maxReplicas"), "{bad:?}");
    scaled.world.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_else_may_scale_between_two_looks() {
    let scaled = Scaled::new().await;
    scaled.deployment("web", 2).await;
    scaled.autoscaler("web", "web", json!({"metrics": [cpu(35)], "maxReplicas": 3})).await;
    scaled.replicas("web", 2).await;
    let target = Target::object(Deployment::gvr(), "default", "web").sub("scale");
    let body = Payload::Json(json!({"spec": {"replicas": 5}}).to_string().into());
    let transport = scaled.world.cluster.transport();
    transport.patch(&target, PatchType::Merge, body, &WriteOptions::default()).await.unwrap();
    scaled.replicas("web", 3).await;
    scaled.world.cluster.stop().await;
}
