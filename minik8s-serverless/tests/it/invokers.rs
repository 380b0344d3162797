//! One suite for all invokers: the fake of this process, and the real one over HTTP.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use minik8s_core::client::{Client, PatchType};
use minik8s_core::cluster::Cluster;
use minik8s_core::testkit::faults::FaultyTransport;
use minik8s_core::testkit::wait;
use minik8s_serverless::workflow::program::Target;
use minik8s_serverless::workflow::spec::{FunctionRef, HttpSpec, JobSpec};
use minik8s_serverless::workflow::{
    ClusterInvoker, Failure, FakeInvoker, Gateways, Heartbeat, HttpPolicy, Invocation, Invoker, KEY_HEADER, RUN_HEADER,
};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

fn call(name: &str, input: Value) -> Invocation {
    let target = Target::Function(FunctionRef { name: name.into(), namespace: "default".into() });
    Invocation { key: "u/a/1".into(), namespace: "default".into(), run: "r".into(), step: "a".into(), target, input }
}

/// What every invoker does.
async fn suite(invoker: &dyn Invoker) {
    let ask = async |name: &str, input: Value| invoker.invoke(&call(name, input), &Heartbeat::default()).await;
    let error = async |name: &str| ask(name, json!(null)).await.unwrap_err().error;
    assert_eq!(ask("echo", json!({"a": ["ä", 1.5, null]})).await, Ok(json!({"a": ["ä", 1.5, null]})));
    assert_eq!(ask("echo", json!(null)).await, Ok(json!(null)));
    let large = json!("x".repeat(1 << 20));
    assert_eq!(ask("echo", large.clone()).await, Ok(large));
    assert_eq!(error("nowhere").await, "NotFound");
    assert_eq!(error("broken").await, "TaskFailed");
    assert_eq!(error("busy").await, "Unavailable");
    assert_eq!(error("picky").await, "Refused");
    assert_eq!(ask("about", json!(null)).await, Ok(json!({"key": "u/a/1", "run": "default/r"})));
    let alive = Heartbeat::default();
    let (heard, answer) = (alive.clone(), call("slow", json!(null)));
    let (result, ()) = tokio::join!(invoker.invoke(&answer, &alive), heard.heard());
    assert_eq!(result, Ok(json!("slow")));
}

fn fake() -> FakeInvoker {
    FakeInvoker::new()
        .with("default/echo", |input| Ok(input.clone()))
        .with("default/broken", |_| Err(Failure::new("TaskFailed", "broken")))
        .with("default/busy", |_| Err(Failure::new("Unavailable", "busy")))
        .with("default/picky", |_| Err(Failure::new("Refused", "no")))
        .with_async("default/about", |call, _| {
            Box::pin(async move { Ok(json!({"key": call.key, "run": format!("{}/{}", call.namespace, call.run)})) })
        })
        .with_async("default/slow", |_, alive| {
            Box::pin(async move {
                alive.beat();
                Ok(json!("slow"))
            })
        })
}

/// A gateway of the same functions, over HTTP.
async fn gateway() -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (address, serve(listener))
}

fn serve(listener: TcpListener) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let connection =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer));
            tokio::spawn(connection);
        }
    })
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let header = |name: &str| request.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    let about = json!({"key": header(KEY_HEADER), "run": header(RUN_HEADER)}).to_string();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let body = request.into_body().collect().await?.to_bytes();
    let (status, body) = match path.as_str() {
        _ if method != "POST" => (405, Bytes::from("POST only")),
        "/function/default/echo" => (200, body),
        "/function/default/broken" => (500, Bytes::from("broken")),
        "/function/default/busy" => (503, Bytes::new()),
        "/function/default/picky" => (400, Bytes::from("no")),
        "/function/default/about" => (200, about.into()),
        "/function/default/slow" => (200, Bytes::from(" \n \"slow\"")),
        "/function/default/text" => (200, Bytes::from("not json")),
        _ => (404, Bytes::new()),
    };
    Ok(Response::builder().status(status).body(Full::new(body)).unwrap())
}

#[tokio::test]
async fn the_real_one_keeps_the_suite() {
    let cluster = Cluster::builder().without_controllers().start().await.unwrap();
    let (address, server) = gateway().await;
    let invoker = ClusterInvoker::new(cluster.client(), Gateways::At(address.clone()), HttpPolicy::default());
    suite(&invoker).await;
    let bad = invoker.invoke(&call("text", json!(null)), &Heartbeat::default()).await.unwrap_err();
    assert_eq!(bad.error, "BadAnswer");
    // URLs of this machine are not for steps, unless somebody says so.
    let url = |url: String| Invocation {
        target: Target::Http(HttpSpec { url, ..HttpSpec::default() }),
        ..call("", json!([1]))
    };
    let own = url(format!("http://{address}/function/default/echo"));
    assert_eq!(invoker.invoke(&own, &Heartbeat::default()).await.unwrap_err().error, "NotAllowed");
    let named = url(format!("http://localhost:{}/x", address.rsplit(':').next().unwrap()));
    assert_eq!(invoker.invoke(&named, &Heartbeat::default()).await.unwrap_err().error, "NotAllowed");
    let open = ClusterInvoker::new(cluster.client(), Gateways::At(address.clone()), HttpPolicy::Any);
    assert_eq!(open.invoke(&own, &Heartbeat::default()).await, Ok(json!([1])));
    server.abort();
    let _ = server.await;
    let gone = open.invoke(&url("http://127.0.0.1:1/".into()), &Heartbeat::default()).await.unwrap_err();
    assert_eq!(gone.error, "Unavailable");
    cluster.stop().await;
}

#[tokio::test]
async fn the_fake_keeps_the_suite() {
    suite(&fake()).await;
}

#[tokio::test]
async fn without_a_gateway_functions_are_unavailable() {
    let cluster = Cluster::builder().fake_node("n").start().await.unwrap();
    let stop = tokio_util::sync::CancellationToken::new();
    let nodes = minik8s_core::client::Informers::new(cluster.client(), stop.clone()).of();
    assert!(nodes.synced().await);
    let invoker = ClusterInvoker::new(cluster.client(), Gateways::OfNodes(nodes), HttpPolicy::default());
    let invoker = invoker.patience(std::time::Duration::ZERO);
    let error = invoker.invoke(&call("echo", json!(null)), &Heartbeat::default()).await.unwrap_err();
    assert_eq!(error.error, "Unavailable");
    stop.cancel();
    cluster.stop().await;
}

#[tokio::test]
async fn a_call_waits_for_a_gateway_that_is_not_there_yet() {
    let cluster = Cluster::builder().without_controllers().start().await.unwrap();
    // A place where nobody listens, until somebody does.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let place = Gateways::At(socket.local_addr().unwrap().to_string());
    let invoker = ClusterInvoker::new(cluster.client(), place, HttpPolicy::default());
    let (call, alive) = (call("echo", json!(7)), Heartbeat::default());
    let mut asking = std::pin::pin!(invoker.invoke(&call, &alive));
    // It has tried, and waits.
    assert!(tokio::time::timeout(std::time::Duration::from_millis(300), &mut asking).await.is_err());
    let server = serve(socket.listen(16).unwrap());
    assert_eq!(asking.await, Ok(json!(7)));
    server.abort();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_end_well_although_the_api_fails_again_and_again() {
    let cluster = Cluster::builder().without_controllers().start().await.unwrap();
    let faulty = FaultyTransport::new(cluster.transport(), 11);
    let client = Client::new(faulty.clone());
    let invoker = Arc::new(ClusterInvoker::new(client, Gateways::At("127.0.0.1:1".into()), HttpPolicy::Nothing));
    let job = |n: usize| Invocation {
        target: Target::Job(JobSpec { image: "busybox:1".into(), ..JobSpec::default() }),
        key: format!("u/{n}/1"),
        ..call("", json!(n))
    };
    let follow = |n: usize| {
        let (invoker, job) = (invoker.clone(), job(n));
        tokio::spawn(async move { invoker.invoke(&job, &Heartbeat::default()).await })
    };
    let tasks: Vec<_> = (0..12).map(follow).collect();
    let pods = cluster.client().api::<k8s_openapi::api::core::v1::Pod>("default");
    let all = wait::until("each has its pod", crate::world::BOUND, || async {
        let all = pods.list(&Default::default()).await.unwrap().items;
        (all.len() == 12).then_some(all)
    })
    .await;
    // Each tells something many times, so that its watch is cut many times.
    let patch = async |name: &str, status: Value| {
        pods.patch_status(name, PatchType::Merge, &json!({ "status": status })).await.unwrap();
    };
    for round in 0..20 {
        for pod in &all {
            patch(pod.metadata.name.as_deref().unwrap(), json!({"message": round.to_string()})).await;
        }
    }
    for pod in &all {
        patch(pod.metadata.name.as_deref().unwrap(), json!({"phase": "Succeeded"})).await;
    }
    for task in tasks {
        assert_eq!(task.await.unwrap(), Ok(json!(null)));
    }
    assert!(faulty.faults() > 12, "{}", faulty.faults());
    // What is not waited for any more goes, whatever it takes.
    for n in 0..12 {
        invoker.abandon(&job(n)).await;
    }
    let left = pods.list(&Default::default()).await.unwrap().items;
    assert!(left.iter().all(|pod| pod.metadata.deletion_timestamp.is_some()), "{left:?}");
    // What the API refuses is told at once.
    faulty.heal();
    let refused = Invocation { namespace: "none".into(), ..job(0) };
    assert_eq!(invoker.invoke(&refused, &Heartbeat::default()).await.unwrap_err().error, "Refused");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_a_pod_that_is_made_once() {
    let cluster = Cluster::builder().fake_node("n").start().await.unwrap();
    let invoker =
        Arc::new(ClusterInvoker::new(cluster.client(), Gateways::At("127.0.0.1:1".into()), HttpPolicy::default()));
    let target = Target::Job(JobSpec {
        image: "busybox:1".into(),
        command: vec!["sleep".into(), "1000".into()],
        ..JobSpec::default()
    });
    let job = Invocation { target, ..call("", json!({"n": 1})) };
    let pods = cluster.client().api::<k8s_openapi::api::core::v1::Pod>("default");
    let tasks: Vec<_> = (0..3)
        .map(|_| {
            let (invoker, job) = (invoker.clone(), job.clone());
            tokio::spawn(async move { invoker.invoke(&job, &Heartbeat::default()).await })
        })
        .collect();
    let pod = wait::until("the pod is there", crate::world::BOUND, || async {
        pods.list(&Default::default()).await.unwrap().items.pop()
    })
    .await;
    let env = pod.spec.as_ref().unwrap().containers[0].env.clone().unwrap();
    assert!(env.iter().any(|e| e.name == "WORKFLOW_INPUT" && e.value.as_deref() == Some("{\"n\":1}")));
    assert_eq!(pods.list(&Default::default()).await.unwrap().items.len(), 1, "asked for three times, made once");
    invoker.abandon(&job).await;
    for task in tasks {
        assert_eq!(task.await.unwrap().unwrap_err().error, "Unavailable", "its pod was deleted");
    }
    cluster.stop().await;
}
