//! Where the front is: beside every API server, found while any of them lives, and nothing of it left where none has it.

use crate::later::{Http, ask, fronts, http};
use http::Method;
use k8s_openapi::api::core::v1::{Namespace, Service};
use minik8s_core::api::{Gvr, PathRoute, Target};
use minik8s_core::client::{Client, DeleteOptions, ListOptions};
use minik8s_core::cluster::Cluster;
use minik8s_core::store::{Commit, MemoryStore, Op, Store};
use minik8s_core::testkit::wait;
use minik8s_serverless::Serverless;
use minik8s_serverless::functions::api::{Function, Invocation};
use minik8s_serverless::functions::{FunctionsConfig, InvokerChoice};
use minik8s_serverless::triggers::{Trigger, TriggersConfig};
use minik8s_serverless::workflow::{FakeInvoker, WorkflowsConfig};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const BOUND: Duration = Duration::from_secs(120);
const CALL: &str = "/function/default/f";

/// With a front and events at gateways, and functions that are called like this.
fn serverless(invoker: FakeInvoker) -> Serverless {
    let invoker: Arc<FakeInvoker> = Arc::new(invoker);
    let functions = FunctionsConfig { invoker: InvokerChoice(Some(invoker.clone())), ..FunctionsConfig::default() };
    let workflows = WorkflowsConfig { invoker: Some(invoker), ..WorkflowsConfig::default() };
    let triggers = TriggersConfig { at_gateways: true, ..TriggersConfig::default() };
    let all = Serverless::new().functions(functions).workflows(workflows).triggers(triggers);
    all.front("127.0.0.1:0".parse().unwrap())
}

async fn plane(store: &MemoryStore, extension: Serverless) -> Cluster {
    Cluster::builder().store(Arc::new(store.clone())).extension(extension).start().await.unwrap()
}

async fn make<K>(client: &Client, namespace: &str, name: &str, spec: Value) -> K
where
    K: minik8s_core::client::ApiResource + serde::de::DeserializeOwned,
{
    let object = serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap();
    client.api::<K>(namespace).create(&object).await.unwrap()
}

/// Whether calls of the function that nobody waits for are led to a front.
async fn until_deferred(client: &Client, is: bool) {
    wait::until(&format!("the function's route leads to a front: {is}"), BOUND, || async {
        let route = client.api::<PathRoute>("default").get_opt("f").await.ok()??;
        (route.spec.deferred.is_some() == is).then_some(())
    })
    .await;
}

async fn taken(http: &Http, front: SocketAddr) -> String {
    let (status, headers, told) = ask(http, front, Method::POST, CALL, &[], "{\"n\": 1}").await.unwrap();
    assert_eq!(status, 202, "{told}");
    headers["location"].to_str().unwrap().to_owned()
}

/// A control plane on threads of its own, which can be killed: nothing of it runs any further, and it says no goodbye.
struct Killable(Option<tokio::runtime::Runtime>, #[allow(dead_code, reason = "it lives as long")] Cluster);

impl Killable {
    async fn start(store: &MemoryStore, extension: Serverless) -> Self {
        let own = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let store = store.clone();
        let cluster = own.spawn(async move { plane(&store, extension).await }).await.unwrap();
        Self(Some(own), cluster)
    }

    fn kill(mut self) {
        if let Some(own) = self.0.take() {
            own.shutdown_background();
        }
    }
}

impl Drop for Killable {
    fn drop(&mut self) {
        if let Some(own) = self.0.take() {
            own.shutdown_background();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_dies_loses_no_call_and_the_other_front_goes_on_at_once() {
    let store = MemoryStore::new().shared();
    // Lifetimes end on the threads of who first asked for one: not those that will be killed.
    let op = Op::Put { key: "/test/first".into(), value: "x".into(), ttl: Some(Duration::from_millis(1)) };
    store.commit(Commit { when: Vec::new(), ops: vec![op] }).await.unwrap();
    // The first one leads, and its calls never end.
    let first = FakeInvoker::new().with_async("default/f", |_, _| Box::pin(std::future::pending()));
    let one = Killable::start(&store, serverless(first.clone())).await;
    let second = FakeInvoker::new().with("default/f", |input| Ok(json!({"by": "the second", "n": input["n"]})));
    let two = {
        wait::until("the first one leads", BOUND, || async {
            let leases = one.1.client().api::<k8s_openapi::api::coordination::v1::Lease>("kube-system");
            leases.get_opt("kube-controller-manager").await.ok()??.spec?.holder_identity.filter(|who| !who.is_empty())
        })
        .await;
        plane(&store, serverless(second.clone())).await
    };
    let (client, http) = (two.client(), http());
    make::<Function>(&client, "default", "f", json!({"image": "i"})).await;
    until_deferred(&client, true).await;
    let both = wait::until("both are led to", BOUND, || async {
        let found = fronts(&client).await;
        (found.len() == 2).then_some(found)
    })
    .await;
    // Either takes calls, whoever leads.
    wait::until("both know the function", BOUND, || async {
        for front in &both {
            ask(&http, *front, Method::PUT, CALL, &[], "").await.filter(|(status, ..)| *status == 405)?;
        }
        Some(())
    })
    .await;
    let mut places = Vec::new();
    for front in both.iter().chain(&both) {
        places.push(taken(&http, *front).await);
    }
    wait::until("the first one makes them", BOUND, || async { (first.asked().len() == 4).then_some(()) }).await;
    one.kill();
    let mut left = Vec::new();
    for front in &both {
        // No connection of before: it would be broken.
        if ask(&crate::later::http(), *front, Method::GET, "/else", &[], "").await.is_some() {
            left.push(*front);
        }
    }
    let [left] = left[..] else { panic!("of {both:?} these answer: {left:?}") };
    // It does not wait for anybody to lead.
    places.push(taken(&http, left).await);
    for place in &places {
        let told = wait::until(&format!("{place} is over"), BOUND, || async {
            let (status, _, told) = ask(&http, left, Method::GET, place, &[], "").await?;
            assert_eq!(status, 200, "{told}");
            ["Succeeded", "Failed"].contains(&told["phase"].as_str()?).then_some(told)
        })
        .await;
        assert_eq!((&told["phase"], &told["result"]["by"]), (&json!("Succeeded"), &json!("the second")), "{told}");
    }
    wait::until("nobody is led to the dead", BOUND, || async { (fronts(&client).await == [left]).then_some(()) }).await;
    for name in ["invocation", "trigger"] {
        client.api::<PathRoute>("kube-system").get(name).await.unwrap();
    }
    two.stop().await;
}

/// What of `kube-system` has to do with a front.
async fn of_front(client: &Client) -> Vec<String> {
    let routes = client.api::<PathRoute>("kube-system").list(&ListOptions::default()).await.unwrap().items;
    let services = client.api::<Service>("kube-system").list(&ListOptions::default()).await.unwrap().items;
    let names = routes.into_iter().map(|r| r.metadata).chain(services.into_iter().map(|s| s.metadata));
    let mut names: Vec<String> = names.filter_map(|meta| meta.name).collect();
    names.extend(fronts(client).await.iter().map(ToString::to_string));
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_front_nothing_of_it_is_left() {
    let store = MemoryStore::new();
    let one = plane(&store, serverless(FakeInvoker::new())).await;
    let client = one.client();
    make::<Function>(&client, "default", "f", json!({"image": "i"})).await;
    until_deferred(&client, true).await;
    let there = async |client: &Client, count: usize| {
        wait::until(&format!("{count} things lead to a front"), BOUND, || async {
            let found = of_front(client).await;
            (found.len() == count).then_some(found)
        })
        .await
    };
    // Two routes, the Service and its endpoint.
    there(&client, 4).await;
    one.stop().await;
    // Without events at gateways.
    let quiet = serverless(FakeInvoker::new()).triggers(TriggersConfig::default());
    let one = plane(&store, quiet).await;
    let found = there(&one.client(), 3).await;
    assert!(!found.contains(&"trigger".to_owned()), "{found:?}");
    one.stop().await;
    // Without a front: calls are waited for again.
    let one = plane(&store, Serverless::new()).await;
    there(&one.client(), 0).await;
    until_deferred(&one.client(), false).await;
    one.stop().await;
    // And where the whole extension is gone.
    let one = plane(&store, serverless(FakeInvoker::new())).await;
    there(&one.client(), 4).await;
    until_deferred(&one.client(), true).await;
    one.stop().await;
    let none = Cluster::builder().store(Arc::new(store.clone())).start().await.unwrap();
    there(&none.client(), 0).await;
    none.stop().await;
}

const KINDS: [(&str, &str, &str); 11] = [
    ("minik8s.io", "v1alpha1", "functions"),
    ("minik8s.io", "v1alpha1", "functionrevisions"),
    ("minik8s.io", "v1alpha1", "invocations"),
    ("minik8s.io", "v1alpha1", "pathroutes"),
    ("minik8s.io", "v1alpha1", "triggers"),
    ("minik8s.io", "v1alpha1", "triggerdeliveries"),
    ("minik8s.io", "v1alpha1", "workflowruns"),
    ("apps", "v1", "replicasets"),
    ("", "v1", "pods"),
    ("", "v1", "services"),
    ("discovery.k8s.io", "v1", "endpointslices"),
];

/// All that is in a namespace of what functions, triggers and workflows are made of.
async fn left(client: &Client, namespace: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (group, version, resource) in KINDS {
        let target = Target::in_namespace(Gvr::new(group, version, resource), namespace);
        let all = client.transport().list(&target, &ListOptions::default()).await.unwrap().items;
        found.extend(all.iter().map(|object| format!("{resource}/{}", object.meta.name)));
    }
    found
}

/// A namespace with a function that was called, by a front and through the API, and a trigger whose event was delivered.
async fn busy(client: &Client, http: &Http, front: SocketAddr, namespace: &str) {
    let object = json!({"metadata": {"name": namespace}});
    client.all::<Namespace>().create(&serde_json::from_value(object).unwrap()).await.unwrap();
    make::<Function>(client, namespace, "f", json!({"image": "i", "scale": {"min": 1}})).await;
    make::<Invocation>(client, namespace, "asked", json!({"function": "f", "body": "{}"})).await;
    let sink = json!({"webhook": {}, "target": {"function": {"name": "f"}}});
    make::<Trigger>(client, namespace, "hook", sink).await;
    for path in [format!("/function/{namespace}/f"), format!("/trigger/{namespace}/hook")] {
        wait::until(&format!("{path} is taken"), BOUND, || async {
            let (status, ..) = ask(http, front, Method::POST, &path, &[], "{}").await?;
            (status == 202).then_some(())
        })
        .await;
    }
    wait::until("calls and event are over", BOUND, || async {
        let calls = client.api::<Invocation>(namespace).list(&ListOptions::default()).await.ok()?.items;
        let over = |i: &Invocation| i.status.as_ref().is_some_and(|s| s.phase == "Succeeded");
        let found = left(client, namespace).await;
        let has = |what: &str| found.iter().any(|name| name.starts_with(what));
        let all = ["pods/", "pathroutes/f", "triggerdeliveries/", "services/f", "replicasets/"];
        (calls.len() == 2 && calls.iter().all(over) && all.into_iter().all(has)).then_some(())
    })
    .await;
}

async fn until_left(client: &Client, namespace: &str, wanted: &[&str]) {
    let last = std::sync::Mutex::new(Vec::new());
    let gone = wait::until("nothing is left", 2 * BOUND, || async {
        let mut found = left(client, namespace).await;
        found.retain(|name| !wanted.iter().any(|kept| name.starts_with(kept)));
        let none = found.is_empty();
        *last.lock().unwrap() = found;
        none.then_some(())
    });
    let gone = tokio::time::timeout(BOUND, gone).await;
    assert!(gone.is_ok(), "in {namespace} there is still {:?}", last.lock().unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_deleted_leaves_nothing_in_its_namespace() {
    let invoker = ["a", "b"]
        .iter()
        .fold(FakeInvoker::new(), |all, namespace| all.with(&format!("{namespace}/f"), |input| Ok(input.clone())));
    let cluster = Cluster::builder().fake_node("node-1").extension(serverless(invoker)).start().await.unwrap();
    let (client, http) = (cluster.client(), http());
    let front = wait::until("there is a front", BOUND, || async { fronts(&client).await.first().copied() }).await;
    for namespace in ["a", "b"] {
        busy(&client, &http, front, namespace).await;
    }
    client.api::<Function>("a").delete("f", &DeleteOptions::default()).await.unwrap();
    until_left(&client, "a", &["triggers/hook", "triggerdeliveries/"]).await;
    client.api::<Trigger>("a").delete("hook", &DeleteOptions::default()).await.unwrap();
    until_left(&client, "a", &[]).await;
    client.all::<Namespace>().delete("b", &DeleteOptions::default()).await.unwrap();
    until_left(&client, "b", &[]).await;
    wait::until("the namespace is gone", BOUND, || async {
        client.all::<Namespace>().get_opt("b").await.unwrap().is_none().then_some(())
    })
    .await;
    // The front leads nobody there any more.
    for path in ["/function/a/f", "/trigger/b/hook"] {
        let (status, _, told) = ask(&http, front, Method::POST, path, &[], "{}").await.unwrap();
        assert_eq!(status, 404, "{path}: {told}");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_of_calls_finds_as_much_room_as_there_is() {
    let store = MemoryStore::new();
    let never = FakeInvoker::new().with_async("default/f", |_, _| Box::pin(std::future::pending()));
    let cluster = plane(&store, serverless(never)).await;
    let (client, http) = (cluster.client(), http());
    make::<Function>(&client, "default", "f", json!({"image": "i", "queue": 5})).await;
    until_deferred(&client, true).await;
    let front = fronts(&client).await[0];
    wait::until("it knows the function", BOUND, || async {
        ask(&http, front, Method::PUT, CALL, &[], "").await.filter(|(status, ..)| *status == 405).map(drop)
    })
    .await;
    let all = (0..100).map(|_| ask(&http, front, Method::POST, CALL, &[], "{}"));
    let answers = futures::future::join_all(all).await;
    let with = |wanted: u16| answers.iter().flatten().filter(|(status, ..)| *status == wanted).count();
    assert_eq!((with(202), with(429)), (5, 95));
    assert_eq!(client.api::<Invocation>("default").list(&ListOptions::default()).await.unwrap().items.len(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_came_before_the_end_is_answered() {
    let store = MemoryStore::new();
    let never = FakeInvoker::new().with_async("default/f", |_, _| Box::pin(std::future::pending()));
    let cluster = plane(&store, serverless(never)).await;
    let (client, http) = (cluster.client(), http());
    make::<Function>(&client, "default", "f", json!({"image": "i"})).await;
    until_deferred(&client, true).await;
    let front = fronts(&client).await[0];
    wait::until("it knows the function", BOUND, || async {
        ask(&http, front, Method::PUT, CALL, &[], "").await.filter(|(status, ..)| *status == 405).map(drop)
    })
    .await;
    let mut caller = TcpStream::connect(front).await.unwrap();
    let head = format!("POST {CALL} HTTP/1.1\r\nhost: f\r\ncontent-length: 8\r\n\r\n{{\"n\"");
    caller.write_all(head.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let ending = tokio::spawn(cluster.stop());
    tokio::time::sleep(Duration::from_millis(500)).await;
    caller.write_all(b": 1}").await.unwrap();
    let mut told = String::new();
    caller.read_to_string(&mut told).await.unwrap();
    assert!(told.starts_with("HTTP/1.1 202"), "{told}");
    ending.await.unwrap();
    assert!(TcpStream::connect(front).await.is_err(), "nobody listens any more");
}
