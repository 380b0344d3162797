//! Triggers on an embedded cluster.

use crate::world::BOUND;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::rt::TokioExecutor;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use minik8s_core::client::{Client, DeleteOptions, ListOptions, PatchType};
use minik8s_core::clock::{ManualClock, SharedClock, SystemClock};
use minik8s_core::cluster::{Cluster, Extension};
use minik8s_core::controllers::ControllerManager;
use minik8s_core::testkit::wait;
use minik8s_serverless::Serverless;
use minik8s_serverless::triggers::{Trigger, TriggerDelivery, TriggersConfig};
use minik8s_serverless::workflow::{Failure, FakeInvoker, Workflow, WorkflowRun, WorkflowsConfig};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// An API server with the loops of triggers and workflows, which can be killed.
struct World {
    cluster: Cluster,
    invoker: FakeInvoker,
    config: TriggersConfig,
    clock: SharedClock,
    /// What the function `sink` was given.
    got: Arc<Mutex<Vec<Value>>>,
    running: Option<(JoinHandle<()>, CancellationToken)>,
}

impl World {
    async fn new(config: TriggersConfig) -> Self {
        Self::at(config, Arc::new(SystemClock)).await
    }

    async fn at(config: TriggersConfig, clock: SharedClock) -> Self {
        let serverless = Serverless::new().triggers(config.clone());
        let cluster = Cluster::builder().extension(serverless).without_controllers().start().await.unwrap();
        let got = Arc::new(Mutex::new(Vec::new()));
        let sink = got.clone();
        let invoker = FakeInvoker::new()
            .with("default/sink", move |input| {
                sink.lock().push(input.clone());
                Ok(json!(null))
            })
            .with("default/broken", |_| Err(Failure::new("TaskFailed", "it is broken")));
        let mut world = Self { cluster, invoker, config, clock, got, running: None };
        world.start();
        world
    }

    fn start(&mut self) {
        let workflows = WorkflowsConfig { invoker: Some(Arc::new(self.invoker.clone())), ..WorkflowsConfig::default() };
        let all = Serverless::new().workflows(workflows).triggers(self.config.clone()).controllers().into_iter();
        let ours = all.filter(|c| c.name().starts_with("workflow") || c.name().starts_with("trigger")).collect();
        let stop = CancellationToken::new();
        let manager = ControllerManager::new(self.client(), self.clock.clone(), ours);
        self.running = Some((tokio::spawn(manager.run(stop.clone())), stop));
    }

    async fn kill(&mut self) {
        if let Some((task, stop)) = self.running.take() {
            stop.cancel();
            let _ = task.await;
        }
    }

    async fn stop(mut self) {
        self.kill().await;
        self.cluster.stop().await;
    }

    fn client(&self) -> Client {
        self.cluster.client()
    }

    async fn trigger(&self, name: &str, spec: Value) {
        let trigger: Trigger = serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap();
        self.client().api::<Trigger>("default").create(&trigger).await.unwrap();
    }

    async fn ready(&self, name: &str) -> String {
        wait::until("the trigger says how it is", BOUND, || async {
            let trigger = self.client().api::<Trigger>("default").get(name).await.unwrap();
            let condition = trigger.status?.conditions.into_iter().find(|c| c.type_ == "Ready")?;
            Some(if condition.status == "True" { "True".to_owned() } else { condition.reason })
        })
        .await
    }

    async fn deliveries(&self) -> Vec<TriggerDelivery> {
        self.client().api::<TriggerDelivery>("default").list(&ListOptions::default()).await.unwrap().items
    }

    async fn got(&self, count: usize) -> Vec<Value> {
        wait::until(&format!("{count} calls came"), BOUND, || async {
            let got = self.got.lock().clone();
            (got.len() >= count).then_some(got)
        })
        .await
    }
}

fn sink() -> Value {
    json!({"function": {"name": "sink"}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_of_objects_call_a_function_and_restarts_lose_and_double_nothing() {
    let mut world = World::new(TriggersConfig::default()).await;
    let maps = world.client().api::<ConfigMap>("default");
    let map = |name: &str, label: &str| -> ConfigMap {
        serde_json::from_value(json!({"metadata": {"name": name, "labels": {"app": label}}, "data": {"n": "1"}}))
            .unwrap()
    };
    maps.create(&map("before", "yes")).await.unwrap();
    world
        .trigger("maps", json!({"object": {"apiVersion": "v1", "resource": "configmaps", "selector": {"matchLabels": {"app": "yes"}}},
            "filter": "event.data.object.metadata.name != 'ignored'", "target": sink(),
            "parameters": {"what": "${event.data.event}", "name": "${event.data.object.metadata.name}"}}))
        .await;
    assert_eq!(world.ready("maps").await, "True");
    for (name, label) in [("one", "yes"), ("other", "no"), ("ignored", "yes")] {
        maps.create(&map(name, label)).await.unwrap();
    }
    assert_eq!(world.got(1).await, [json!({"what": "Added", "name": "one"})], "what was there before is not news");
    maps.patch("one", PatchType::Merge, &json!({"data": {"n": "2"}})).await.unwrap();
    maps.delete("before", &DeleteOptions::default()).await.unwrap();
    let mut told: Vec<String> = world.got(3).await.iter().map(|v| format!("{} {}", v["what"], v["name"])).collect();
    told.sort_unstable();
    assert_eq!(told, ["\"Added\" \"one\"", "\"Deleted\" \"before\"", "\"Modified\" \"one\""]);
    wait::until("all are delivered, and it is known how far", BOUND, || async {
        let done = world.deliveries().await.iter().all(|d| d.status.as_ref().is_some_and(|s| s.phase == "Delivered"));
        let seen = world.client().api::<Trigger>("default").get("maps").await.unwrap().status?.revision;
        (done && seen > 0).then_some(())
    })
    .await;
    world.kill().await;
    maps.create(&map("meanwhile", "yes")).await.unwrap();
    world.start();
    let after = world.got(4).await;
    assert_eq!((after.len(), &after[3]), (4, &json!({"what": "Added", "name": "meanwhile"})));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schedule_begins_runs_of_a_workflow_each_time_once() {
    let clock = Arc::new(ManualClock::new(jiff::Timestamp::now()));
    let world = World::at(TriggersConfig::default(), clock.clone()).await;
    let workflow = json!({"metadata": {"name": "w"}, "spec": {"startAt": "a", "steps": [{"name": "a", "pass": {"value": "${input.data.schedule}"}, "end": true}]}});
    let workflow: Workflow = serde_json::from_value(workflow).unwrap();
    world.client().api::<Workflow>("default").create(&workflow).await.unwrap();
    world.trigger("hourly", json!({"cron": {"schedule": "0 * * * *", "startingDeadlineSeconds": 7200}, "target": {"workflow": {"name": "w"}}})).await;
    let triggers = world.client().api::<Trigger>("default");
    let next = wait::until("it knows when it is next", BOUND, || async {
        triggers.get("hourly").await.unwrap().status?.next_schedule
    })
    .await;
    assert!(next.ends_with(":00:00Z"), "{next}");
    assert!(world.deliveries().await.is_empty(), "it is not time yet");
    for hour in 1..=3 {
        clock.advance(jiff::SignedDuration::from_hours(1));
        // A loop that sleeps by the other clock is woken by any change.
        triggers
            .patch("hourly", PatchType::Merge, &json!({"metadata": {"annotations": {"hour": hour.to_string()}}}))
            .await
            .unwrap();
        wait::until("its runs are over", BOUND, || async {
            let runs = world.client().api::<WorkflowRun>("default").list(&ListOptions::default()).await.unwrap().items;
            let over = |run: &WorkflowRun| run.status.as_ref().is_some_and(|s| s.output == Some(json!("0 * * * *")));
            (runs.len() == hour && runs.iter().all(over)).then_some(())
        })
        .await;
    }
    let deliveries = world.deliveries().await;
    let times: std::collections::BTreeSet<_> = deliveries.iter().map(|d| d.spec.event["id"].to_string()).collect();
    assert_eq!(times.len(), deliveries.len(), "each time once");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_delivered_is_tried_again_and_then_kept_as_dead() {
    let world = World::new(TriggersConfig::default()).await;
    world
        .trigger("maps", json!({"object": {"apiVersion": "v1", "resource": "configmaps", "events": ["Added"]}, "target": {"function": {"name": "broken"}},
            "retry": {"maxAttempts": 3, "intervalSeconds": 0.05}}))
        .await;
    assert_eq!(world.ready("maps").await, "True");
    let map: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "a"}})).unwrap();
    world.client().api::<ConfigMap>("default").create(&map).await.unwrap();
    let dead = wait::until("the delivery is dead", BOUND, || async {
        world.deliveries().await.into_iter().find(|d| d.status.as_ref().is_some_and(|s| s.phase == "Dead"))
    })
    .await;
    let status = dead.status.unwrap();
    assert_eq!((status.attempts, status.message.as_str()), (3, "TaskFailed: it is broken"));
    assert_eq!(dead.spec.event["data"]["object"]["metadata"]["name"], "a", "the event is kept");
    assert_eq!(world.invoker.asked().len(), 3);
    world.stop().await;
}

fn free() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

async fn send(to: SocketAddr, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, Value) {
    let client: HttpClient<_, Full<Bytes>> = HttpClient::builder(TokioExecutor::new()).build_http();
    wait::until("webhooks are listened for", BOUND, || async {
        let mut request = Request::post(format!("http://{to}{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = client.request(request.body(Full::new(Bytes::from(body.to_owned()))).unwrap()).await.ok()?;
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.ok()?.to_bytes();
        Some((status, serde_json::from_slice(&body).unwrap_or_default()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webhooks_take_cloud_events_once_and_refuse_what_is_none() {
    let address = free();
    let mut world = World::new(TriggersConfig { webhooks: Some(address), ..TriggersConfig::default() }).await;
    world.trigger("open", json!({"webhook": {}, "target": sink(), "parameters": "${event.data}"})).await;
    world
        .trigger("closed", json!({"webhook": {"secretName": "hook"}, "target": sink(), "parameters": "${event.data}"}))
        .await;
    let secret: Secret =
        serde_json::from_value(json!({"metadata": {"name": "hook"}, "stringData": {"token": "s3cret"}})).unwrap();
    world.client().api::<Secret>("default").create(&secret).await.unwrap();
    assert_eq!((world.ready("open").await, world.ready("closed").await), ("True".into(), "True".into()));
    let event =
        json!({"specversion": "1.0", "id": "7", "source": "/shop", "type": "order", "data": {"n": 1}}).to_string();
    let structured = [("content-type", "application/cloudevents+json")];
    let binary = [
        ("ce-specversion", "1.0"),
        ("ce-id", "7"),
        ("ce-source", "/shop"),
        ("ce-type", "order"),
        ("content-type", "application/json"),
    ];
    let (status, first) = send(address, "/trigger/default/open", &structured, &event).await;
    let (again, second) = send(address, "/trigger/default/open", &binary, "{\"n\": 1}").await;
    assert_eq!((status, again, &first), (202, 202, &second), "the same event in both modes is one delivery");
    assert_eq!(world.got(1).await, [json!({"n": 1})]);
    type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str, u16);
    let table: [Case<'_>; 7] = [
        ("/trigger/default/nothing", &[], "{}", 404),
        ("/else", &[], "{}", 404),
        ("/trigger/default/open", &structured, "{", 400),
        ("/trigger/default/open", &structured, "{\"specversion\": \"1.0\"}", 400),
        ("/trigger/default/closed", &[], "{}", 401),
        ("/trigger/default/closed", &[("authorization", "Bearer wrong")], "{}", 401),
        ("/trigger/default/closed", &[("authorization", "Bearer s3cret")], "{\"n\": 2}", 202),
    ];
    for (path, headers, body, want) in table {
        assert_eq!(send(address, path, headers, body).await.0, want, "{path} {headers:?} {body}");
    }
    assert_eq!(send(address, "/trigger/default/open", &[], &"x".repeat(600 << 10)).await.0, 413);
    assert_eq!(world.got(2).await, [json!({"n": 1}), json!({"n": 2})]);
    // The loops may run beside another server, or nowhere for a while: events are taken beside every one.
    world.kill().await;
    let (status, written) = send(address, "/trigger/default/open", &[], "{\"n\": 3}").await;
    assert_eq!((status, written["deliveries"].as_array().map(Vec::len)), (202, Some(1)));
    world.start();
    assert_eq!(world.got(3).await[2], json!({"n": 3}));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_watched_where_that_is_allowed_and_nowhere_else() {
    let directory = tempfile::tempdir().unwrap();
    let config = TriggersConfig { files: vec![directory.path().to_owned()], ..TriggersConfig::default() };
    let world = World::new(config).await;
    let file = |path: &str| json!({"file": {"path": path, "events": ["Modified", "Removed"]}, "target": sink(), "parameters": {"what": "${event.data.event}", "name": "${event.data.name}"}});
    world.trigger("inside", file(directory.path().to_str().unwrap())).await;
    world.trigger("outside", file("/etc")).await;
    assert_eq!((world.ready("inside").await, world.ready("outside").await), ("True".into(), "NotAllowed".into()));
    std::fs::write(directory.path().join("a.txt"), "hello").unwrap();
    assert_eq!(world.got(1).await, [json!({"what": "Modified", "name": "a.txt"})]);
    std::fs::remove_file(directory.path().join("a.txt")).unwrap();
    assert_eq!(world.got(2).await[1], json!({"what": "Removed", "name": "a.txt"}));
    world.stop().await;
}

#[tokio::test]
async fn what_is_wrong_with_a_trigger_is_refused_by_field() {
    let world = World::new(TriggersConfig::default()).await;
    let hourly = || json!({"schedule": "@hourly"});
    let table: Vec<(Value, &str)> = vec![
        (json!({"target": sink()}), "spec"),
        (json!({"cron": hourly(), "webhook": {}, "target": sink()}), "spec"),
        (json!({"cron": {"schedule": "* *"}, "target": sink()}), "spec.cron.schedule"),
        (json!({"cron": {"schedule": "0 0 30 2 *"}, "target": sink()}), "spec.cron.schedule"),
        (json!({"cron": {"schedule": "@hourly", "timeZone": "Mars"}, "target": sink()}), "spec.cron.timeZone"),
        (json!({"cron": hourly(), "target": {}}), "spec.target"),
        (json!({"cron": hourly(), "target": sink(), "filter": "event.x >"}), "spec.filter"),
        (json!({"cron": hourly(), "target": sink(), "parameters": {"a": "${input}"}}), "spec.parameters.a"),
        (json!({"cron": hourly(), "target": sink(), "retry": {"maxAttempts": 0}}), "spec.retry.maxAttempts"),
        (json!({"file": {"path": "/a/../b"}, "target": sink()}), "spec.file.path"),
        (json!({"file": {"path": "a", "events": []}, "target": sink()}), "spec.file.path"),
        (json!({"file": {"path": "/a", "events": ["Seen"]}, "target": sink()}), "spec.file.events[0]"),
        (json!({"object": {"apiVersion": "v1", "resource": "Pod"}, "target": sink()}), "spec.object.resource"),
    ];
    // Those that would call for more of themselves without an end, and what nobody should tell.
    let never = ["triggerdeliveries", "triggers", "demands", "secrets"].map(|resource| {
        (json!({"object": {"apiVersion": "v1", "resource": resource}, "target": sink()}), "spec.object.resource")
    });
    for (spec, field) in table.into_iter().chain(never) {
        let trigger: Trigger = serde_json::from_value(json!({"metadata": {"name": "t"}, "spec": spec})).unwrap();
        let error = world.client().api::<Trigger>("default").create(&trigger).await.unwrap_err();
        assert_eq!(error.details.causes.first().map(|c| c.field.as_str()), Some(field), "{spec}: {error}");
    }
    world.trigger("odd", json!({"object": {"apiVersion": "v9", "resource": "things"}, "target": sink()})).await;
    assert_eq!(world.ready("odd").await, "NoSuchResource");
    world.trigger("hook", json!({"webhook": {}, "target": sink()})).await;
    assert_eq!(world.ready("hook").await, "NotConfigured");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_state_of_each_object_is_told_however_fast_they_change() {
    let world = World::new(TriggersConfig::default()).await;
    world
        .trigger(
            "maps",
            json!({"object": {"apiVersion": "v1", "resource": "configmaps"}, "target": sink(), "keepDelivered": 1000,
            "parameters": {"name": "${event.data.object.metadata.name}", "n": "${event.data.object.data.n}"}}),
        )
        .await;
    assert_eq!(world.ready("maps").await, "True");
    let maps = world.client().api::<ConfigMap>("default");
    const MAPS: usize = 60;
    // Changes of the first come between those of the others, and are taken with them.
    for round in 0..4 {
        for map in 0..MAPS {
            let body = json!({"metadata": {"name": format!("m{map}")}, "data": {"n": round.to_string()}});
            if round == 0 {
                maps.create(&serde_json::from_value(body).unwrap()).await.unwrap();
            } else {
                maps.patch(&format!("m{map}"), PatchType::Merge, &body).await.unwrap();
            }
        }
    }
    let told =
        |got: &[Value]| (0..MAPS).filter(|map| got.contains(&json!({"name": format!("m{map}"), "n": "3"}))).count();
    wait::until("the last state of each is told", BOUND, || async { (told(&world.got.lock()) == MAPS).then_some(()) })
        .await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_large_stops_no_trigger_and_is_told() {
    let address = free();
    let world = World::new(TriggersConfig { webhooks: Some(address), ..TriggersConfig::default() }).await;
    let maps = world.client().api::<ConfigMap>("default");
    let named = json!({"name": "${event.data.object.metadata.name}", "partial": "${has(event.data.partial)}"});
    let object = json!({"apiVersion": "v1", "resource": "configmaps", "events": ["Added"]});
    world.trigger("maps", json!({"object": object, "target": sink(), "parameters": named})).await;
    // Eight times what it is given is too much.
    let much = json!(vec!["${event.data}"; 8]);
    world.trigger("hook", json!({"webhook": {}, "target": sink(), "parameters": much})).await;
    assert_eq!((world.ready("maps").await, world.ready("hook").await), ("True".into(), "True".into()));
    let map = |name: &str, size: usize| -> ConfigMap {
        serde_json::from_value(json!({"metadata": {"name": name}, "data": {"text": "x".repeat(size)}})).unwrap()
    };
    maps.create(&map("large", 1000 << 10)).await.unwrap();
    // With twice the object in it, the event would be larger than any object may be.
    let twice =
        json!({"object": {"apiVersion": "v1", "resource": "configmaps", "events": ["Modified"]}, "target": sink()});
    world.trigger("twice", twice).await;
    assert_eq!(world.ready("twice").await, "True");
    maps.patch("large", PatchType::Merge, &json!({"data": {"more": "y"}})).await.unwrap();
    maps.create(&map("small", 1)).await.unwrap();
    let got = world.got(3).await;
    let has = |want: Value| got.contains(&want);
    assert!(has(json!({"name": "small", "partial": false})), "those after it are told");
    let partial = got.iter().find(|event| event["data"]["partial"] == true).expect("told without its states");
    assert_eq!(partial["data"]["object"]["metadata"]["name"], "large");
    let text = json!("x".repeat(400 << 10)).to_string();
    let (status, told) = send(address, "/trigger/default/hook", &[("content-type", "application/json")], &text).await;
    assert_eq!(status, 413, "{told}");
    assert_eq!(send(address, "/trigger/default/hook", &[], "1").await.0, 202);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_function_that_hangs_holds_up_no_other_trigger() {
    let address = free();
    let mut world = World::new(TriggersConfig { webhooks: Some(address), ..TriggersConfig::default() }).await;
    world.kill().await;
    world.invoker = world.invoker.clone().with_async("default/stuck", |_, _| Box::pin(std::future::pending()));
    world.start();
    world.trigger("slow", json!({"webhook": {}, "target": {"function": {"name": "stuck"}}, "maxConcurrency": 3})).await;
    world.trigger("fast", json!({"webhook": {}, "target": sink(), "parameters": "${event.data}"})).await;
    assert_eq!((world.ready("slow").await, world.ready("fast").await), ("True".into(), "True".into()));
    for _ in 0..40 {
        assert_eq!(send(address, "/trigger/default/slow", &[], "1").await.0, 202);
    }
    for n in 0..5 {
        assert_eq!(send(address, "/trigger/default/fast", &[], &n.to_string()).await.0, 202);
    }
    assert_eq!(world.got(5).await.len(), 5);
    wait::until("as many are under way as the trigger says", BOUND, || async {
        (world.invoker.asked().len() >= 5 + 3).then_some(())
    })
    .await;
    assert_eq!(send(address, "/trigger/default/fast", &[], "5").await.0, 202);
    assert_eq!(world.got(6).await.len(), 6);
    assert_eq!(world.invoker.asked().len(), 6 + 3, "and no more");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_that_is_tried_again_at_once_does_not_get_stuck() {
    let address = free();
    let world = World::new(TriggersConfig { webhooks: Some(address), ..TriggersConfig::default() }).await;
    let retry = json!({"maxAttempts": 50, "intervalSeconds": 0});
    world.trigger("hook", json!({"webhook": {}, "target": {"function": {"name": "broken"}}, "retry": retry})).await;
    assert_eq!(world.ready("hook").await, "True");
    for _ in 0..4 {
        assert_eq!(send(address, "/trigger/default/hook", &[], "1").await.0, 202);
    }
    wait::until("all are given up after all their attempts", BOUND, || async {
        let ended = |d: &TriggerDelivery| d.status.as_ref().is_some_and(|s| s.phase == "Dead" && s.attempts == 50);
        (world.deliveries().await.iter().filter(|d| ended(d)).count() == 4).then_some(())
    })
    .await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_has_one_key_even_when_nobody_remembers_it() {
    let address = free();
    let world = World::new(TriggersConfig { webhooks: Some(address), ..TriggersConfig::default() }).await;
    world.trigger("hook", json!({"webhook": {}, "target": sink(), "keepDelivered": 0})).await;
    assert_eq!(world.ready("hook").await, "True");
    let event = json!({"specversion": "1.0", "id": "7", "source": "/shop", "type": "order", "data": 1}).to_string();
    for round in 1..=2 {
        let kind = [("content-type", "application/cloudevents+json")];
        assert_eq!(send(address, "/trigger/default/hook", &kind, &event).await.0, 202);
        world.got(round).await;
        wait::until("it is forgotten", BOUND, || async { world.deliveries().await.is_empty().then_some(()) }).await;
    }
    let asked = world.invoker.asked();
    assert_eq!((asked.len(), asked.first()), (2, asked.last()), "delivered again, under the same key");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_changed_while_nobody_looked_are_told_later() {
    let directory = tempfile::tempdir().unwrap();
    let config = TriggersConfig { files: vec![directory.path().to_owned()], ..TriggersConfig::default() };
    let mut world = World::new(config).await;
    std::fs::write(directory.path().join("before.txt"), "x").unwrap();
    let file = json!({"file": {"path": directory.path(), "events": ["Modified"]}, "target": sink(), "parameters": "${event.data.name}"});
    world.trigger("files", file).await;
    assert_eq!(world.ready("files").await, "True");
    wait::until("it is known when somebody looked", BOUND, || async {
        world.client().api::<Trigger>("default").get("files").await.unwrap().status?.seen_at
    })
    .await;
    world.kill().await;
    std::fs::write(directory.path().join("meanwhile.txt"), "x").unwrap();
    world.start();
    let told = wait::until("it is told", BOUND, || async {
        let got = world.got.lock().clone();
        got.contains(&json!("meanwhile.txt")).then_some(got)
    })
    .await;
    assert_eq!(told.iter().filter(|name| **name == "meanwhile.txt").count(), 1);
    world.stop().await;
}
