//! The front: calls that nobody waits for, what comes of them, and webhooks, asked as a gateway does.

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::rt::TokioExecutor;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use minik8s_core::api::PathRoute;
use minik8s_core::client::{Client, DeleteOptions, ListOptions};
use minik8s_core::cluster::Cluster;
use minik8s_core::testkit::wait;
use minik8s_serverless::Serverless;
use minik8s_serverless::functions::api::{Function, Invocation};
use minik8s_serverless::functions::{FunctionsConfig, InvokerChoice};
use minik8s_serverless::triggers::{Trigger, TriggersConfig};
use minik8s_serverless::workflow::{Failure, FakeInvoker};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

const BOUND: Duration = Duration::from_secs(120);
const CALL: &str = "/function/default/f";

pub(super) type Http = HttpClient<hyper_util::client::legacy::connect::HttpConnector, Full<Bytes>>;

pub(super) fn http() -> Http {
    HttpClient::builder(TokioExecutor::new()).build_http()
}

/// Asks a front, as a gateway does: status, headers and what is said. None where nobody answers.
pub(super) async fn ask(
    http: &Http,
    front: SocketAddr,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Option<(u16, HeaderMap, Value)> {
    let mut request = Request::builder().method(method).uri(format!("http://{front}{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(Bytes::from(body.to_owned()))).unwrap();
    let (head, body) = http.request(request).await.ok()?.into_parts();
    let body = body.collect().await.ok()?.to_bytes();
    Some((head.status.as_u16(), head.headers, serde_json::from_slice(&body).unwrap_or_default()))
}

/// Every place that the front's Service leads to.
pub(super) async fn fronts(client: &Client) -> Vec<SocketAddr> {
    let all = client.api::<EndpointSlice>("kube-system").list(&ListOptions::default()).await;
    let places = all.map(|all| all.items).unwrap_or_default().into_iter().flat_map(|slice| {
        let port = slice.ports.and_then(|ports| ports.first()?.port).unwrap_or_default();
        let of = move |address: &String| format!("{address}:{port}").parse().ok();
        slice.endpoints.into_iter().filter_map(move |e| of(e.addresses.first()?)).collect::<Vec<_>>()
    });
    places.collect()
}

struct World {
    cluster: Cluster,
    client: Client,
    front: SocketAddr,
    http: Http,
}

impl World {
    /// A front, with functions that take so many calls, which double a number, or wait for a permit.
    async fn new(queue: i32, permits: &Arc<tokio::sync::Semaphore>) -> Self {
        let permits = permits.clone();
        let invoker = FakeInvoker::new().with_async("default/f", move |call, _| {
            let permits = permits.clone();
            Box::pin(async move {
                permits.acquire().await.map_err(|e| Failure::new("TaskFailed", e.to_string()))?.forget();
                let twice = call.input["n"].as_i64().map(|n| n * 2);
                twice
                    .map(|n| json!({"n": n, "key": call.key, "run": call.run}))
                    .ok_or_else(|| Failure::new("TaskFailed", "that is no number"))
            })
        });
        let invoker = invoker.with("default/quick", |_| Ok(json!("done")));
        let functions =
            FunctionsConfig { invoker: InvokerChoice(Some(Arc::new(invoker))), ..FunctionsConfig::default() };
        let triggers = TriggersConfig { at_gateways: true, ..TriggersConfig::default() };
        let serverless =
            Serverless::new().functions(functions).triggers(triggers).front("127.0.0.1:0".parse().unwrap());
        let cluster = Cluster::builder().extension(serverless).start().await.unwrap();
        let client = cluster.client();
        let spec = json!({"metadata": {"name": "f"}, "spec": {"image": "i", "queue": queue}});
        client.api::<Function>("default").create(&serde_json::from_value(spec).unwrap()).await.unwrap();
        let front =
            wait::until("the front says where it is", BOUND, || async { fronts(&client).await.first().copied() }).await;
        wait::until("the function's route knows the front", BOUND, || async {
            let route = client.api::<PathRoute>("default").get_opt("f").await.ok()??;
            route.spec.deferred.filter(|to| to.service == "serverless")
        })
        .await;
        Self { cluster, client, front, http: http() }
    }

    async fn ask(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, HeaderMap, Value) {
        ask(&self.http, self.front, method, path, headers, body).await.unwrap()
    }

    async fn status(&self, method: Method, path: &str, body: &str) -> u16 {
        self.ask(method, path, &[], body).await.0
    }

    /// What came of a call once it is over.
    async fn result(&self, place: &str) -> Value {
        wait::until(&format!("{place} is over"), BOUND, || async {
            let (status, headers, told) = self.ask(Method::GET, place, &[], "").await;
            assert_eq!(status, 200, "{told}");
            let is_over = matches!(told["phase"].as_str(), Some("Succeeded" | "Failed"));
            assert_eq!(headers.contains_key("retry-after"), !is_over, "{told}");
            is_over.then_some(told)
        })
        .await
    }
}

fn place(headers: &HeaderMap) -> String {
    headers["location"].to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_is_written_before_it_is_answered_and_its_result_is_told() {
    let permits = Arc::new(tokio::sync::Semaphore::new(0));
    let world = World::new(10, &permits).await;
    let (status, headers, told) = world.ask(Method::POST, CALL, &[("idempotency-key", "k 1")], "{\"n\": 21}").await;
    assert_eq!((status, &headers["preference-applied"]), (202, &"respond-async".parse().unwrap()), "{told}");
    let id = told["id"].as_str().unwrap();
    assert_eq!(place(&headers), format!("/invocation/default/{id}"));
    world.client.api::<Invocation>("default").get(id).await.unwrap();
    let (status, _, told) = world.ask(Method::GET, &place(&headers), &[], "").await;
    assert!(status == 200 && ["Pending", "Running"].contains(&told["phase"].as_str().unwrap()), "{told}");
    permits.add_permits(1000);
    let told = world.result(&place(&headers)).await;
    let want = json!({"id": id, "function": "f", "phase": "Succeeded", "attempts": 1,
        "result": {"n": 42, "key": "k 1", "run": id}});
    assert_eq!(told, want);
    let (_, headers, _) = world.ask(Method::POST, CALL, &[], "").await;
    let told = world.result(&place(&headers)).await;
    assert_eq!((&told["phase"], &told["message"]), (&json!("Failed"), &json!("TaskFailed: that is no number")));
    // Nobody can guess an id, and one that is not kept any more is told from one that never was.
    let options = DeleteOptions::default();
    world.client.api::<Invocation>("default").delete(id, &options).await.unwrap();
    assert_eq!(world.status(Method::GET, &format!("/invocation/default/{id}"), "").await, 410);
    // What somebody made through the API by a name that can be guessed is read there.
    let made = json!({"metadata": {"name": "f-abcde"}, "spec": {"function": "f", "body": "{\"n\": 1}"}});
    world.client.api::<Invocation>("default").create(&serde_json::from_value(made).unwrap()).await.unwrap();
    for none in ["f-abcde", "f-1", "x", "", "../x", &format!("{id}0"), "%00"] {
        assert_eq!(world.status(Method::GET, &format!("/invocation/default/{none}"), "").await, 404, "{none}");
    }
    world.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_call_is_refused_and_nothing_is_written() {
    let permits = Arc::new(tokio::sync::Semaphore::new(0));
    let world = World::new(3, &permits).await;
    let (large, long) = (format!("\"{}\"", "x".repeat(300 << 10)), "k".repeat(257));
    let small = json!({"metadata": {"name": "small"}, "spec": {"image": "i", "maxBodyBytes": 6}});
    world.client.api::<Function>("default").create(&serde_json::from_value(small).unwrap()).await.unwrap();
    wait::until("the front knows both functions", BOUND, || async {
        (world.status(Method::PUT, "/function/default/small", "{}").await == 405).then_some(())
    })
    .await;
    type Case<'a> = (Method, &'a str, &'a [(&'a str, &'a str)], &'a str, u16);
    let table: [Case<'_>; 11] = [
        (Method::POST, CALL, &[], "{", 400),
        (Method::POST, CALL, &[], "no json", 400),
        (Method::POST, CALL, &[], large.as_str(), 413),
        (Method::POST, "/function/default/small", &[], "[1,2,3]", 413),
        (Method::POST, CALL, &[("idempotency-key", long.as_str())], "{}", 400),
        (Method::POST, "/function/default/f?a=b", &[], "{}", 400),
        (Method::PUT, CALL, &[], "{}", 405),
        (Method::POST, "/function/default/none", &[], "{}", 404),
        (Method::POST, "/function/other/f", &[], "{}", 404),
        (Method::DELETE, "/invocation/default/f-1", &[], "", 405),
        (Method::GET, "/else", &[], "", 404),
    ];
    for (method, path, headers, body, want) in table {
        let (status, _, told) = world.ask(method.clone(), path, headers, body).await;
        assert_eq!((status, told["error"].is_string()), (want, true), "{method} {path}: {told}");
    }
    let kept = async || world.client.api::<Invocation>("default").list(&ListOptions::default()).await.unwrap().items;
    assert!(kept().await.is_empty());
    // As many may wait as the function says.
    let mut places = Vec::new();
    // What was written last may not be known yet.
    let full = loop {
        let (status, headers, told) = world.ask(Method::POST, CALL, &[], "{\"n\": 1}").await;
        match status {
            202 if places.len() < 1000 => places.push(place(&headers)),
            _ => break (status, headers.contains_key("retry-after"), told),
        }
    };
    assert_eq!((full.0, full.1), (429, true), "{}", full.2);
    assert!(places.len() >= 3, "{places:?}");
    permits.add_permits(1000);
    for place in places {
        assert_eq!(world.result(&place).await["phase"], "Succeeded");
    }
    world.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_function_that_never_answers_keeps_only_its_own_calls_waiting() {
    let permits = Arc::new(tokio::sync::Semaphore::new(0));
    let world = World::new(1000, &permits).await;
    let quick = json!({"metadata": {"name": "quick"}, "spec": {"image": "i"}});
    world.client.api::<Function>("default").create(&serde_json::from_value(quick).unwrap()).await.unwrap();
    wait::until("the front knows both functions", BOUND, || async {
        (world.status(Method::PUT, "/function/default/quick", "{}").await == 405).then_some(())
    })
    .await;
    let mut places = Vec::new();
    for _ in 0..150 {
        let (status, headers, told) = world.ask(Method::POST, CALL, &[], "{\"n\": 1}").await;
        assert_eq!(status, 202, "{told}");
        places.push(place(&headers));
    }
    let (status, headers, told) = world.ask(Method::POST, "/function/default/quick", &[], "{}").await;
    assert_eq!(status, 202, "{told}");
    let told = world.result(&place(&headers)).await;
    assert_eq!((&told["phase"], &told["result"]), (&json!("Succeeded"), &json!("done")), "{told}");
    permits.add_permits(150);
    for place in places {
        assert_eq!(world.result(&place).await["attempts"], 1, "each once");
    }
    assert_eq!(permits.available_permits(), 0);
    world.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webhooks_are_taken_where_gateways_lead_to() {
    let world = World::new(3, &Arc::new(tokio::sync::Semaphore::new(0))).await;
    let trigger = json!({"metadata": {"name": "hook"}, "spec": {"webhook": {}, "target": {"function": {"name": "f"}}}});
    world.client.api::<Trigger>("default").create(&serde_json::from_value(trigger).unwrap()).await.unwrap();
    wait::until("it is listened for", BOUND, || async {
        let status = world.client.api::<Trigger>("default").get("hook").await.unwrap().status?;
        status.conditions.first().filter(|c| c.status == "True").map(drop)
    })
    .await;
    let (status, _, told) = world.ask(Method::POST, "/trigger/default/hook", &[], "{}").await;
    assert!(status == 202 && told["deliveries"].as_array().is_some_and(|all| all.len() == 1), "{status} {told}");
    assert_eq!(world.status(Method::POST, "/trigger/default/none", "{}").await, 404);
    let routes = world.client.api::<PathRoute>("kube-system");
    for name in ["trigger", "invocation"] {
        // What leads there comes again.
        let there = async |not: Option<String>| {
            wait::until("the route is there", BOUND, || async {
                routes.get_opt(name).await.unwrap().filter(|route| route.metadata.uid != not)
            })
            .await
        };
        let before = there(None).await.metadata.uid;
        routes.delete(name, &DeleteOptions::default()).await.unwrap();
        assert_eq!(there(before).await.spec.path, format!("/{name}"));
    }
    world.cluster.stop().await;
}
