//! The scheduler's loop against scripted informers and an API that answers when the test wants it.

use futures::{FutureExt, StreamExt};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use minik8s_core::api::{ApiError, ApiResult, Gvr, Object, ObjectList, Reason, Target, WatchEvent, WatchEventType};
use minik8s_core::client::{Client, EventRecorder, Informer, InformerOptions, Payload, Written};
use minik8s_core::clock::SystemClock;
use minik8s_core::scheduler::{Followed, SchedulerConfig, SchedulerDriver};
use minik8s_core::testkit::{StubTransport, wait};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Of paused time.
const BOUND: Duration = Duration::from_secs(60);
const PODS: Gvr = Gvr::new("", "v1", "pods");
const NAMESPACES: Gvr = Gvr::new("", "v1", "namespaces");
const BUDGETS: Gvr = Gvr::new("policy", "v1", "poddisruptionbudgets");
const NODES: Gvr = Gvr::new("", "v1", "nodes");
/// More changes than anyone may lag behind.
const MANY: u64 = 700;

type Batch = Vec<ApiResult<WatchEvent>>;

/// A request of the scheduler's that waits for its answer.
struct Asked {
    target: Target,
    body: Value,
    answer: oneshot::Sender<ApiResult<Written>>,
}

impl Asked {
    fn ok(self) {
        let object = object(PODS, pod(self.target.name.as_deref().unwrap(), "", 1));
        self.answer.send(Ok(Written { object, warnings: Vec::new(), created: true })).unwrap();
    }

    fn fail(self, reason: Reason) {
        self.answer.send(Err(ApiError::new(reason, "as the test wants it"))).unwrap();
    }
}

struct World {
    told: mpsc::UnboundedSender<Batch>,
    asked: mpsc::UnboundedReceiver<Asked>,
    pods: Informer<Pod>,
    _stop: DropGuard,
}

fn object(gvr: Gvr, json: Value) -> Arc<Object> {
    Arc::new(Object::from_json(gvr, serde_json::to_vec(&json).unwrap().into()).unwrap())
}

fn pod(name: &str, node: &str, version: u64) -> Value {
    json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": name, "namespace": "ns", "uid": format!("uid-{name}"),
        "resourceVersion": version.to_string()}, "spec": {"nodeName": node, "schedulerName": "default-scheduler",
        "containers": [{"name": "c", "resources": {"requests": {"cpu": "800m"}}}]}})
}

fn node(name: &str) -> Value {
    json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": name, "uid": name, "resourceVersion": "1"},
        "status": {"allocatable": {"cpu": "1", "memory": "1Gi", "pods": "110"}}})
}

fn now(kind: WatchEventType, pod: Value) -> ApiResult<WatchEvent> {
    Ok(WatchEvent::Object(kind, object(PODS, pod)))
}

/// Lists these, then tells what comes from `batches`, each batch without a pause.
fn scripted(gvr: Gvr, items: Vec<Value>, batches: mpsc::UnboundedReceiver<Batch>) -> Client {
    let items: Vec<_> = items.into_iter().map(|json| object(gvr.clone(), json)).collect();
    let batches = Mutex::new(Some(batches));
    let list = move |_: &_| Ok(ObjectList { items: items.clone(), revision: 10, ..ObjectList::default() });
    let watch = move |_: &_| {
        let batches = batches.lock().take().ok_or_else(|| ApiError::internal("one watch is all there is"))?;
        let batches = futures::stream::unfold(batches, |mut b| async move { b.recv().await.map(|batch| (batch, b)) });
        Ok(batches.flat_map(futures::stream::iter).boxed())
    };
    Client::new(Arc::new(StubTransport::default().on_list(list).on_watch(watch)))
}

impl World {
    fn new(nodes: &[&str], pods: Vec<Value>, parallel: usize) -> Self {
        let stop = CancellationToken::new();
        let (told, batches) = mpsc::unbounded_channel();
        let (quiet, silence) = mpsc::unbounded_channel();
        let (calm, peace) = mpsc::unbounded_channel();
        let (still, rest) = mpsc::unbounded_channel();
        let (ask, asked) = mpsc::unbounded_channel();
        let write = move |target: &Target, body: Payload| {
            let (ask, target) = (ask.clone(), target.clone());
            async move {
                let Payload::Json(body) = body else { return Err(ApiError::internal("it writes JSON")) };
                let body = serde_json::from_slice(&body).unwrap();
                let (answer, answered) = oneshot::channel();
                let _ = ask.send(Asked { target, body, answer });
                answered.await.unwrap_or_else(|_| Err(ApiError::internal("the test is over")))
            }
            .boxed()
        };
        let client = Client::new(Arc::new(StubTransport::default().on_write(write)));
        let start = InformerOptions::default;
        let pods: Informer<Pod> = Informer::start(scripted(PODS, pods, batches).all(), start(), stop.clone());
        let nodes = nodes.iter().map(|name| node(name)).collect();
        let nodes: Informer<Node> = Informer::start(scripted(NODES, nodes, silence).all(), start(), stop.clone());
        let namespaces: Informer<Namespace> =
            Informer::start(scripted(NAMESPACES, Vec::new(), peace).all(), start(), stop.clone());
        let budgets: Informer<PodDisruptionBudget> =
            Informer::start(scripted(BUDGETS, Vec::new(), rest).all(), start(), stop.clone());
        let follows = Followed { pods: pods.clone(), nodes, namespaces, budgets };
        let events = EventRecorder::new(Client::new(Arc::new(StubTransport::default())), "test", "");
        let config = SchedulerConfig { parallel_bindings: parallel, ..SchedulerConfig::default() };
        let driver = SchedulerDriver::new(client, Arc::new(SystemClock), follows, events, config);
        let running = stop.clone();
        tokio::spawn(async move {
            driver.run(running).await;
            drop((quiet, calm, still));
        });
        Self { told, asked, pods, _stop: stop.drop_guard() }
    }

    async fn asked(&mut self, sub: &str, pod: &str) -> Asked {
        let asked = tokio::time::timeout(BOUND, self.asked.recv()).await;
        let asked = asked.unwrap_or_else(|_| panic!("nobody asked for {sub} of {pod}")).unwrap();
        assert_eq!((asked.target.subresource.as_deref(), asked.target.name.as_deref()), (Some(sub), Some(pod)));
        asked
    }

    /// Tells these and then so much that the scheduler misses them; returns when it has looked again.
    async fn missed(&mut self, mut batch: Batch) {
        let noise = |i| now(WatchEventType::Modified, pod("noise", "elsewhere", 1000 + i));
        batch.extend((0..MANY).map(noise));
        self.tell(batch, "noise", 999 + MANY).await;
    }

    async fn tell(&mut self, batch: Batch, pod: &str, version: u64) {
        self.told.send(batch).unwrap();
        let (key, version) = (format!("ns/{pod}"), version.to_string());
        // The pause before the next look ends only when nobody else has anything to do.
        wait::until("all was told", BOUND, || async {
            let seen = self.pods.get(&key).and_then(|p| p.metadata.resource_version.clone());
            (seen.as_ref() == Some(&version)).then_some(())
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_whose_binding_fails_after_changes_were_missed_is_tried_again() {
    let mut world = World::new(&["n1"], vec![pod("a", "", 2)], 4);
    let binding = world.asked("binding", "a").await;
    world.missed(Vec::new()).await;
    binding.fail(Reason::ServiceUnavailable);
    let again = world.asked("binding", "a").await;
    assert_eq!(again.body["target"]["name"], "n1");
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_went_unseen_leaves_its_place() {
    let mut world = World::new(&["n1"], vec![pod("a", "", 2)], 4);
    world.asked("binding", "a").await.ok();
    world
        .missed(vec![
            now(WatchEventType::Modified, pod("a", "n1", 20)),
            now(WatchEventType::Deleted, pod("a", "n1", 21)),
        ])
        .await;
    world.tell(vec![now(WatchEventType::Added, pod("b", "", 2000))], "b", 2000).await;
    world.asked("binding", "b").await.ok();
}

#[tokio::test(start_paused = true)]
async fn reasons_are_written_a_few_at_once_on_the_version_that_was_looked_at() {
    let names: Vec<_> = (0..50).map(|i| format!("p{i:02}")).collect();
    let pods = names.iter().zip(100..).map(|(name, version)| pod(name, "", version)).collect();
    let mut world = World::new(&[], pods, 2);
    let (first, second) = (world.asked("status", "p00").await, world.asked("status", "p01").await);
    assert_eq!(first.body["metadata"]["resourceVersion"], "100");
    assert_eq!(second.body["metadata"]["uid"], "uid-p01");
    // Whatever else can happen without an answer has happened after this.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(world.asked.try_recv().is_err(), "no more than two at once");

    world.tell(vec![now(WatchEventType::Modified, pod("p02", "elsewhere", 900))], "p02", 900).await;
    second.ok();
    world.asked("status", "p03").await.ok();
    first.fail(Reason::Conflict);
    let mut written = Vec::new();
    while written.len() < 47 {
        let asked = tokio::time::timeout(BOUND, world.asked.recv()).await.unwrap().unwrap();
        written.push(asked.target.name.clone().unwrap());
        asked.ok();
    }
    written.sort();
    let left: Vec<_> = names.iter().filter(|name| !["p01", "p02", "p03"].contains(&name.as_str())).cloned().collect();
    assert_eq!(written, left, "each once, what conflicted again, what was bound meanwhile not");
}
