//! Functions on a cluster of fakes. What a gateway would tell is written by the test.

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{Pod, Service};
use minik8s_core::api::{BackendDemand, Demand, DemandSpec, PathRoute};
use minik8s_core::client::{Client, DeleteOptions, ListOptions, PatchType};
use minik8s_core::cluster::Cluster;
use minik8s_core::runtime::Containers;
use minik8s_core::testkit::{FakeRuntime, Script, Which, wait};
use minik8s_serverless::Serverless;
use minik8s_serverless::functions::api::{Function, FunctionRevision, Invocation, InvocationStatus};
use minik8s_serverless::functions::{FunctionsConfig, InvokerChoice};
use minik8s_serverless::registry::Registry;
use minik8s_serverless::workflow::{Failure, Heartbeat, Invocation as Call, Invoker};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

const BOUND: Duration = Duration::from_secs(60);

struct World {
    cluster: Cluster,
    client: Client,
}

impl World {
    async fn new() -> Self {
        Self::on(FakeRuntime::new()).await
    }

    async fn on(runtime: Arc<FakeRuntime>) -> Self {
        Self::with(runtime, Serverless::new()).await
    }

    async fn with(runtime: Arc<FakeRuntime>, extension: Serverless) -> Self {
        let cluster = Cluster::builder().fake_node_with("node-1", runtime).extension(extension).start().await.unwrap();
        let client = cluster.client();
        Self { cluster, client }
    }

    async fn apply(&self, spec: Value) -> Function {
        let function = serde_json::from_value(json!({"metadata": {"name": "f"}, "spec": spec})).unwrap();
        self.client.api::<Function>("default").create(&function).await.unwrap()
    }

    async fn patch(&self, spec: Value) {
        let patch = json!({ "spec": spec });
        self.client.api::<Function>("default").patch("f", PatchType::Merge, &patch).await.unwrap();
    }

    async fn function(&self) -> Function {
        self.client.api::<Function>("default").get("f").await.unwrap()
    }

    async fn revisions(&self) -> Vec<FunctionRevision> {
        let mut all = self.client.api::<FunctionRevision>("default").list(&ListOptions::default()).await.unwrap().items;
        all.sort_by_key(|r| r.spec.number);
        all
    }

    async fn pods(&self) -> usize {
        self.client.api::<Pod>("default").list(&ListOptions::default()).await.unwrap().items.len()
    }

    /// What the gateway leads to, by image.
    async fn traffic(&self) -> Vec<(String, i32)> {
        let Ok(route) = self.client.api::<PathRoute>("default").get("f").await else { return Vec::new() };
        let revisions = self.revisions().await;
        let image = |name: &str| {
            let found = revisions.iter().find(|r| r.metadata.name.as_deref() == Some(name));
            found.map_or_else(String::new, |r| r.spec.template.image.clone())
        };
        route.spec.backends.iter().map(|b| (image(&b.service), b.weight)).collect()
    }

    /// Waits until the function is ready, serves this and has as many pods.
    async fn serves(&self, wanted: &[(&str, i32)], pods: usize) {
        wait::until(&format!("{wanted:?} is served by {pods} pods"), BOUND, || async {
            let function = self.function().await;
            let status = function.status.unwrap_or_default();
            let ready = status.conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True");
            let same = Some(status.observed_generation) == function.metadata.generation;
            let traffic = self.traffic().await;
            let as_wanted = traffic.iter().map(|(image, share)| (image.as_str(), *share)).eq(wanted.iter().copied());
            (ready && same && as_wanted && self.pods().await == pods).then_some(())
        })
        .await;
    }

    /// As the gateway of a node tells it.
    async fn demand(&self, waiting: i64, active: i64) {
        let service = self.function().await.status.unwrap().traffic.last().unwrap().revision.clone();
        let told = BackendDemand {
            namespace: "default".into(),
            service,
            port: 80,
            waiting,
            active,
            concurrency: (waiting + active) as f64,
            rate: 1.0,
        };
        let backends = if waiting + active > 0 { vec![told] } else { Vec::new() };
        let spec = DemandSpec { at: None, backends };
        let api = self.client.all::<Demand>();
        if api.patch("node-1", PatchType::Merge, &json!({ "spec": spec })).await.is_err() {
            let mut demand = Demand { spec, ..Demand::default() };
            demand.metadata.name = Some("node-1".into());
            api.create(&demand).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_function_is_tried_then_sleeps_wakes_when_somebody_waits_and_sleeps_again() {
    let world = World::new().await;
    world.apply(json!({"image": "one", "scale": {"idleSeconds": 1}})).await;
    world.serves(&[("one", 100)], 0).await;
    let route = world.client.api::<PathRoute>("default").get("f").await.unwrap();
    assert_eq!((route.spec.path.as_str(), route.spec.rewrite.as_str()), ("/function/default/f", "/"));
    assert!(route.spec.hold.is_some());
    world.demand(20, 0).await;
    wait::until("three instances for twenty calls", BOUND, || async { (world.pods().await == 3).then_some(()) }).await;
    world.demand(0, 0).await;
    world.serves(&[("one", 100)], 0).await;
    world.cluster.stop().await;
}

#[tokio::test]
async fn the_last_instance_rests_paused_wakes_for_a_call_and_goes_in_the_end() {
    let runtime = FakeRuntime::new();
    let world = World::on(runtime.clone()).await;
    world.apply(json!({"image": "one", "scale": {"idleSeconds": 1, "pausedSeconds": 600}})).await;
    let paused = async || {
        let all = runtime.containers(None).await.unwrap();
        all.iter().map(|container| (container.id.clone(), container.paused)).collect::<Vec<_>>()
    };
    let ready = async || {
        let pods = world.client.api::<Pod>("default").list(&ListOptions::default()).await.unwrap().items;
        pods.iter().any(minik8s_core::controllers::is_ready)
    };
    let rests = async || {
        let all = paused().await;
        (matches!(&all[..], [(_, true)]) && !ready().await).then_some(all)
    };
    world.serves(&[("one", 100)], 1).await;
    let first = wait::until("it rests", BOUND, rests).await;
    world.demand(1, 0).await;
    wait::until("it is awake", BOUND, || async { ready().await.then_some(()) }).await;
    assert_eq!(paused().await, [(first[0].0.clone(), false)], "the same one, with its memory");
    world.demand(0, 0).await;
    let again = wait::until("it rests again", BOUND, rests).await;
    assert_eq!(again, first);
    world.patch(json!({"scale": {"idleSeconds": 1, "pausedSeconds": 2}})).await;
    world.serves(&[("one", 100)], 0).await;
    world.cluster.stop().await;
}

#[tokio::test]
async fn an_update_moves_calls_leaves_nothing_old_and_is_undone_by_the_old_spec() {
    let world = World::new().await;
    world.apply(json!({"image": "one", "scale": {"min": 1}})).await;
    world.serves(&[("one", 100)], 1).await;
    world.patch(json!({"image": "two"})).await;
    world.serves(&[("two", 100)], 1).await;
    let sets = world.client.api::<ReplicaSet>("default").list(&ListOptions::default()).await.unwrap().items;
    assert_eq!(sets.len(), 1, "a set of the old revision is left");
    world.patch(json!({"image": "one"})).await;
    world.serves(&[("one", 100)], 1).await;
    let numbers: Vec<_> =
        world.revisions().await.iter().map(|r| (r.spec.number, r.spec.template.image.clone())).collect();
    assert_eq!(numbers, [(2, "two".into()), (3, "one".into())], "going back makes no new revision");
    world.patch(json!({"image": "two", "canaryPercent": 25})).await;
    world.serves(&[("one", 75), ("two", 25)], 2).await;
    world.patch(json!({"canaryPercent": null})).await;
    world.serves(&[("two", 100)], 1).await;
    world.cluster.stop().await;
}

#[tokio::test]
async fn code_that_cannot_be_loaded_is_told_with_its_log_and_the_old_one_goes_on() {
    let runtime = FakeRuntime::new();
    let broken = Script::exits(65).complains("SyntaxError: invalid syntax");
    runtime.script(Which::Image("broken".into()), broken);
    let world = World::on(runtime).await;
    world.apply(json!({"image": "one", "scale": {"min": 1}})).await;
    world.serves(&[("one", 100)], 1).await;
    world.patch(json!({"image": "broken"})).await;
    let status = wait::until("the failure is told", BOUND, || async {
        let status = world.function().await.status.unwrap_or_default();
        status.conditions.iter().any(|c| c.reason == "Failed").then_some(status)
    })
    .await;
    assert!(status.log.contains("SyntaxError"), "{status:?}");
    assert!(status.conditions[0].message.contains("cannot be loaded"), "{status:?}");
    wait::until("nothing is tried any more", BOUND, || async { (world.pods().await == 1).then_some(()) }).await;
    assert_eq!(world.traffic().await, [("one".to_owned(), 100)]);
    world.cluster.stop().await;
}

#[tokio::test]
async fn what_is_said_of_a_failure_goes_with_it() {
    let runtime = FakeRuntime::new();
    runtime.script(Which::Image("shaky".into()), Script::exits(1).complains("not yet"));
    let world = World::on(runtime.clone()).await;
    world.apply(json!({"image": "shaky", "scale": {"min": 1}})).await;
    let log = async || world.revisions().await.first().and_then(|r| r.status.clone()).unwrap_or_default().log;
    wait::until("the failure is told", BOUND, || async { log().await.contains("not yet").then_some(()) }).await;
    runtime.script(Which::Image("shaky".into()), Script::forever());
    world.serves(&[("shaky", 100)], 1).await;
    assert_eq!(log().await, "");
    world.cluster.stop().await;
}

#[tokio::test]
async fn a_route_of_somebody_elses_stays_as_it_is_and_is_named() {
    let world = World::new().await;
    let routes = world.client.api::<PathRoute>("default");
    let spec = json!({"path": "/mine", "backends": [{"service": "mine", "port": 80}]});
    let mine = json!({"metadata": {"name": "f"}, "spec": spec});
    let mine = routes.create(&serde_json::from_value(mine).unwrap()).await.unwrap();
    world.apply(json!({"image": "one", "scale": {"min": 1}})).await;
    let told = wait::until("it is told", BOUND, || async {
        let status = world.function().await.status.unwrap_or_default();
        status.conditions.into_iter().find(|c| c.reason == "NameTaken").map(|c| c.message)
    })
    .await;
    assert!(told.contains("PathRoute default/f is not the function's"), "{told}");
    wait::until("its instance is there", BOUND, || async { (world.pods().await == 1).then_some(()) }).await;
    assert_eq!(routes.get("f").await.unwrap().spec, mine.spec);
    routes.delete("f", &DeleteOptions::default()).await.unwrap();
    world.serves(&[("one", 100)], 1).await;
    world.cluster.stop().await;
}

#[tokio::test]
async fn a_set_of_somebody_elses_is_named_and_its_end_is_noticed() {
    let world = World::new().await;
    let spec = json!({"image": "one", "scale": {"min": 1}});
    world.apply(spec.clone()).await;
    world.serves(&[("one", 100)], 1).await;
    let name = world.function().await.status.unwrap().revision;
    world.client.api::<Function>("default").delete("f", &DeleteOptions::default()).await.unwrap();
    let sets = world.client.api::<ReplicaSet>("default");
    wait::until("its own set is gone", BOUND, || async { sets.get(&name).await.is_err().then_some(()) }).await;
    // The same spec makes a revision of the same name; somebody was faster with a set that is called so.
    let labels = json!({"app": "mine"});
    let pod = json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "mine"}]}});
    let set = json!({"metadata": {"name": name}, "spec": {"replicas": 0, "selector": {"matchLabels": labels},
        "template": pod}});
    let mine = sets.create(&serde_json::from_value(set).unwrap()).await.unwrap();
    world.apply(spec).await;
    let told = wait::until("it is told", BOUND, || async {
        let status = world.function().await.status.unwrap_or_default();
        status.conditions.into_iter().find(|c| c.reason == "NameTaken").map(|c| c.message)
    })
    .await;
    assert!(told.contains(&format!("ReplicaSet default/{name} is not the function's")), "{told}");
    let there = sets.get(&name).await.unwrap();
    assert_eq!((there.metadata.uid, there.spec), (mine.metadata.uid, mine.spec), "it is left as it was");
    sets.delete(&name, &DeleteOptions::default()).await.unwrap();
    world.serves(&[("one", 100)], 1).await;
    world.cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_no_function_needs_leaves_the_registry() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::open(dir.path()).unwrap();
    let (image, nobodys) =
        (registry.put(b"f's".to_vec()).await.unwrap(), registry.put(b"nobody's".to_vec()).await.unwrap());
    for digest in [&image, &nobodys] {
        // What came just now may be part of what is being made.
        let file = std::fs::File::options().write(true).open(registry.path(digest).unwrap()).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(3600)).unwrap();
    }
    let world = World::with(FakeRuntime::new(), Serverless::new().registry(registry.clone())).await;
    world.apply(json!({"image": "one"})).await;
    let named = || async { world.revisions().await.first()?.metadata.name.clone() };
    let name = wait::until("there is a revision", BOUND, named).await;
    let revisions = world.client.api::<FunctionRevision>("default");
    let patch = json!({"status": {"image": format!("minik8s.internal/f@{image}")}});
    revisions.patch_status(&name, PatchType::Merge, &patch).await.unwrap();
    let gone = async |digest: &str| {
        let gone = || async { registry.size(digest).await.is_err().then_some(()) };
        wait::until("it has left the registry", Duration::from_secs(3600), gone).await;
    };
    gone(&nobodys).await;
    assert!(registry.size(&image).await.is_ok(), "a revision needs it");
    world.client.api::<Function>("default").delete("f", &DeleteOptions::default()).await.unwrap();
    gone(&image).await;
    world.cluster.stop().await;
}

#[tokio::test]
async fn deleting_a_function_leaves_nothing() {
    let world = World::new().await;
    world.apply(json!({"image": "one", "scale": {"min": 2}})).await;
    world.serves(&[("one", 100)], 2).await;
    world.client.api::<Function>("default").delete("f", &DeleteOptions::default()).await.unwrap();
    wait::until("everything is gone", BOUND, || async {
        let all = ListOptions::default();
        let services = world.client.api::<Service>("default").list(&all).await.unwrap().items;
        let own = services.iter().any(|s| s.metadata.name.as_deref() != Some("kubernetes"));
        let routes = world.client.api::<PathRoute>("default").list(&all).await.unwrap().items;
        let sets = world.client.api::<ReplicaSet>("default").list(&all).await.unwrap().items;
        (world.pods().await == 0 && !own && routes.is_empty() && sets.is_empty() && world.revisions().await.is_empty())
            .then_some(())
    })
    .await;
    world.cluster.stop().await;
}

#[tokio::test]
async fn the_page_tells_of_a_function_until_it_goes() {
    let serverless = Serverless::new();
    let mut page = prometheus_client::registry::Registry::default();
    serverless.metrics().register(&mut page);
    let told = || {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &page).unwrap();
        text
    };
    let world = World::with(FakeRuntime::new(), serverless).await;
    world.apply(json!({"image": "one", "scale": {"min": 1}})).await;
    world.serves(&[("one", 100)], 1).await;
    let start = "function_cold_start_seconds_count{namespace=\"default\",function=\"f\",part=\"all\"} 1\n";
    wait::until("its start is told", BOUND, || async { told().contains(start).then_some(()) }).await;
    assert!(told().contains("function_cold_starts_total{namespace=\"default\",function=\"f\"} 1\n"), "{}", told());
    world.client.api::<Function>("default").delete("f", &DeleteOptions::default()).await.unwrap();
    wait::until("nothing is told of it", BOUND, || async { (!told().contains("function=")).then_some(()) }).await;
    world.cluster.stop().await;
}

/// Fails so many times as what may work later, and then answers with its key.
struct Shaky(AtomicUsize);

#[async_trait::async_trait]
impl Invoker for Shaky {
    async fn invoke(&self, call: &Call, _: &Heartbeat) -> Result<Value, Failure> {
        let bad = call.input["bad"].as_bool() == Some(true);
        if bad {
            return Err(Failure::new("TaskFailed", "it is bad"));
        }
        match self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)) {
            Ok(_) => Err(Failure::new("Unavailable", "not now")),
            Err(_) => Ok(json!({"key": call.key})),
        }
    }
}

#[tokio::test]
async fn a_call_that_nobody_waits_for_is_made_again_under_its_key_and_its_result_is_kept() {
    let invoker = InvokerChoice(Some(Arc::new(Shaky(AtomicUsize::new(1)))));
    let config = FunctionsConfig { invoker, ..FunctionsConfig::default() };
    let world = World::with(FakeRuntime::new(), Serverless::new().functions(config)).await;
    let api = world.client.api::<Invocation>("default");
    let ask = async |name: &str, body: &str| -> InvocationStatus {
        let object = json!({"metadata": {"name": name}, "spec": {"function": "f", "body": body}});
        let uid = api.create(&serde_json::from_value(object).unwrap()).await.unwrap().metadata.uid.unwrap();
        let status = wait::until("it is over", BOUND, || async {
            let status = api.get(name).await.unwrap().status.unwrap_or_default();
            matches!(status.phase.as_str(), "Succeeded" | "Failed").then_some(status)
        })
        .await;
        assert!(status.phase == "Failed" || status.body.contains(&uid), "{status:?}");
        status
    };
    let good = ask("good", "{}").await;
    assert_eq!((good.phase.as_str(), good.attempts), ("Succeeded", 2));
    let bad = ask("bad", r#"{"bad": true}"#).await;
    assert_eq!((bad.phase.as_str(), bad.attempts), ("Failed", 1));
    assert!(bad.message.contains("it is bad"), "{bad:?}");
    let wrong = json!({"metadata": {"name": "wrong"}, "spec": {"function": "f", "body": "{"}});
    let told = api.create(&serde_json::from_value(wrong).unwrap()).await.unwrap_err();
    assert!(told.to_string().contains("spec.body"), "{told}");
    world.cluster.stop().await;
}
