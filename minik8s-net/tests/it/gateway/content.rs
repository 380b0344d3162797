//! Which backend gets a request, and what it and the client see.

use super::world::{Server, World, get, plan, rule, services, weighted};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use minik8s_core::routing::{Backend, HeaderEdits, Mirror, NewPath, Plan, Redirect, Retry, Rewrite, Sticky, Wanted};
use minik8s_core::testkit::wait;
use minik8s_net::gateway::GatewayConfig;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::AsyncWriteExt;

#[tokio::test]
async fn paths_of_a_host_lead_to_different_services_and_what_is_unknown_is_named() {
    let (a, b) = (Server::named("a").await, Server::named("b").await);
    let rules = vec![
        rule("a", "shop.example", "/", plan(&[("a", 1)])),
        rule("b", "shop.example", "/cart", plan(&[("b", 1)])),
        rule("gone", "shop.example", "/gone", plan(&[("nobody", 1)])),
        rule("empty", "shop.example", "/empty", plan(&[("empty", 1)])),
        rule("zero", "shop.example", "/zero", plan(&[("a", 0), ("b", 0)])),
    ];
    let world = World::with(rules, &[("a", &[a.address]), ("b", &[b.address]), ("empty", &[])]).await;
    assert_eq!(world.get("shop.example", "/x").await.from(), "a");
    assert_eq!(world.get("SHOP.example:8080", "/cart/1").await.from(), "b");
    let got = world.get("shop.example", "/cart?x=1").await;
    assert!(got.body.starts_with("b\nGET /cart?x=1\n"), "{}", got.body);
    assert!(got.body.contains("x-forwarded-for: 127.0.0.1\n") && got.body.contains("host: shop.example\n"));
    assert!(!got.headers.contains_key("keep-alive"), "a header of the connection behind");
    let said = |got: super::world::Got| (got.status.as_u16(), got.body);
    let (status, body) = said(world.get("other.example", "/y").await);
    assert!(status == 404 && body.contains("other.example") && body.contains("/y"), "{body}");
    let (status, body) = said(world.get("shop.example", "/gone").await);
    assert!(status == 503 && body.contains("there is no Service d/nobody"), "{body}");
    let (status, body) = said(world.get("shop.example", "/empty").await);
    assert!(status == 503 && body.contains("Service d/empty has no endpoint"), "{body}");
    let (status, body) = said(world.get("shop.example", "/zero").await);
    assert!(status == 500 && body.contains("no backend with a weight above zero"), "{body}");
}

#[tokio::test]
async fn shares_are_exact_and_requests_use_few_connections() {
    let (a, b) = (Server::named("a").await, Server::named("b").await);
    let rules = vec![rule("w", "w", "/", plan(&[("a", 90), ("b", 10)]))];
    let world = World::with(rules, &[("a", &[a.address]), ("b", &[b.address])]).await;
    let stream = tokio::net::TcpStream::connect(world.http).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, driver) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(driver);
    for _ in 0..1000 {
        let response = sender.send_request(get("w", "/")).await.unwrap();
        super::world::Got::of(response).await;
        sender.ready().await.unwrap();
    }
    assert_eq!((a.count(), b.count()), (900, 100));
    let used = a.connections.load(std::sync::atomic::Ordering::SeqCst);
    assert!(used <= 2, "{used} connections for 900 requests one after another");
}

#[tokio::test]
async fn clients_in_different_lanes_use_what_either_left() {
    let a = Server::named("a").await;
    let world = World::with(vec![rule("w", "w", "/", plan(&[("a", 1)]))], &[("a", &[a.address])]).await;
    // Each stays, so that the next is served by the other lane.
    let mut clients = Vec::new();
    for _ in 0..4 {
        let stream = tokio::net::TcpStream::connect(world.http).await.unwrap();
        let (mut sender, driver) =
            hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await.unwrap();
        tokio::spawn(driver);
        assert_eq!(super::world::Got::of(sender.send_request(get("w", "/")).await.unwrap()).await.from(), "a");
        clients.push(sender);
    }
    for _ in 0..10 {
        for client in &mut clients {
            client.ready().await.unwrap();
            super::world::Got::of(client.send_request(get("w", "/")).await.unwrap()).await;
        }
    }
    let used = a.connections.load(Ordering::SeqCst);
    assert!(used <= 2, "{used} connections for 44 requests one after another");
}

#[tokio::test]
async fn headers_and_parameters_pick_the_canary_exactly() {
    let (a, b) = (Server::named("old").await, Server::named("new").await);
    let mut by_header = rule("h", "c", "/", plan(&[("b", 1)]));
    by_header.headers = vec![("x-canary".into(), Wanted::Exact("yes".into()))];
    let mut by_query = rule("q", "c", "/", plan(&[("b", 1)]));
    by_query.query = vec![("beta".into(), Wanted::Regex("1|true".into()))];
    let rules = vec![rule("all", "c", "/", plan(&[("a", 1)])), by_header, by_query];
    let world = World::with(rules, &[("a", &[a.address]), ("b", &[b.address])]).await;
    let with = |header: &'static str, path: &'static str| {
        Request::get(path).header("host", "c").header("x-canary", header).body(Full::default()).unwrap()
    };
    for (request, want) in [
        (with("yes", "/"), "new"),
        (with("no", "/"), "old"),
        (with("no", "/?beta=true"), "new"),
        (with("no", "/?beta=truer"), "old"),
    ] {
        assert_eq!(world.ask(request).await.from(), want);
    }
}

#[tokio::test]
async fn filters_change_what_either_side_sees() {
    let a = Server::named("a").await;
    let edits = |set: &str, remove: &str| HeaderEdits {
        set: vec![(set.into(), "1".into())],
        add: Vec::new(),
        remove: vec![remove.into()],
    };
    let mut changed = plan(&[("a", 1)]);
    changed.request_headers = edits("x-added", "x-secret");
    changed.response_headers = edits("x-answer", "x-backend");
    changed.rewrite = Rewrite { host: Some("inside".into()), path: Some(NewPath::Prefix("/v2".into())) };
    let away = Plan {
        redirect: Some(Redirect { scheme: Some("https".into()), status: 308, ..Redirect::default() }),
        ..Plan::default()
    };
    let rules = vec![rule("c", "f", "/v1", changed), rule("r", "f", "/old", away)];
    let world = World::with(rules, &[("a", &[a.address])]).await;
    let request = Request::get("/v1/x?y").header("host", "f").header("x-secret", "s").body(Full::default()).unwrap();
    let got = world.ask(request).await;
    assert!(got.body.starts_with("a\nGET /v2/x?y\n") && got.body.contains("host: inside\n"), "{}", got.body);
    assert!(got.body.contains("x-added: 1\n") && !got.body.contains("x-secret"), "{}", got.body);
    assert!(got.body.contains("x-forwarded-host: f\n"), "{}", got.body);
    assert!(got.headers.contains_key("x-answer") && !got.headers.contains_key("x-backend"));
    let got = world.get("f", "/old/x").await;
    assert_eq!((got.status.as_u16(), got.headers["location"].to_str().unwrap()), (308, "https://f/old/x"));
}

#[tokio::test]
async fn a_rule_is_not_avoided_by_another_spelling_and_what_is_passed_on_stays_as_it_came() {
    let (a, admin) = (Server::named("a").await, Server::named("admin").await);
    let under = Rewrite { host: None, path: Some(NewPath::Prefix("/inner".into())) };
    let rules = vec![
        rule("a", "h", "/", plan(&[("a", 1)])),
        rule("admin", "h", "/admin", plan(&[("admin", 1)])),
        rule("under", "h", "/under", Plan { rewrite: under, ..plan(&[("a", 1)]) }),
    ];
    let world = World::with(rules, &[("a", &[a.address]), ("admin", &[admin.address])]).await;
    for path in ["/admin/x", "//admin/x", "/%61dmin/x", "/admin//x", "/%61%64min"] {
        let got = world.get("h", path).await;
        assert!(got.from() == "admin" && got.body.contains(&format!("GET {path}\n")), "{path}: {}", got.body);
    }
    let got = world.get("h", "/proxy/http://x//y").await;
    assert!(got.from() == "a" && got.body.contains("GET /proxy/http://x//y\n"), "{}", got.body);
    let got = world.get("h", "//%75nder/z").await;
    assert!(got.body.contains("GET /inner/z\n"), "{}", got.body);
}

#[tokio::test]
async fn copies_go_to_a_mirror_with_their_body_and_nobody_waits_for_it() {
    let (a, m) = (Server::named("a").await, Server::named("m").await);
    let mut mirrored = plan(&[("a", 1)]);
    let backend: Backend = weighted("m", 1).backend;
    mirrored.mirrors = vec![Mirror { backend, share: (1, 4) }];
    let world = World::with(vec![rule("r", "m", "/", mirrored)], &[("a", &[a.address]), ("m", &[m.address])]).await;
    for n in 1..=8 {
        let request = Request::post("/p").header("host", "m").body(Full::from("hello")).unwrap();
        let got = world.ask(request).await;
        assert!(got.from() == "a" && got.body.ends_with("\nhello"), "{}", got.body);
        let copies = n / 4;
        wait::until("the copies came", super::world::BOUND, async || (m.count() >= copies).then_some(())).await;
        assert!(m.count() <= n.div_ceil(4), "one in four is copied");
    }
}

#[tokio::test]
async fn sessions_stay_with_their_endpoint() {
    let servers = [Server::named("0").await, Server::named("1").await, Server::named("2").await];
    let addresses: Vec<_> = servers.iter().map(|s| s.address).collect();
    let cookie = Sticky::Cookie { name: "sid".into(), seconds: Some(60), key: "secret".into() };
    let header = Sticky::Header { name: "x-user".into() };
    let other = Sticky::Cookie { name: "sid".into(), seconds: None, key: "other".into() };
    let rules = vec![
        rule("o", "other", "/", Plan { sticky: Some(other), ..plan(&[("s", 1)]) }),
        rule("c", "cookie", "/", Plan { sticky: Some(cookie), ..plan(&[("s", 1)]) }),
        rule("h", "header", "/", Plan { sticky: Some(header), ..plan(&[("s", 1)]) }),
    ];
    let world = World::with(rules, &[("s", &addresses)]).await;
    let first = world.get("cookie", "/").await;
    let set = first.headers["set-cookie"].to_str().unwrap().to_owned();
    assert!(set.starts_with("sid=") && set.contains("Max-Age=60") && !set.contains("127.0.0.1"), "{set}");
    let pair = set.split(';').next().unwrap();
    for _ in 0..20 {
        let request = Request::get("/").header("host", "cookie").header("cookie", format!("a=b; {pair}"));
        let got = world.ask(request.body(Full::default()).unwrap()).await;
        assert_eq!((got.from(), got.headers.contains_key("set-cookie")), (first.from(), false));
    }
    let request = Request::get("/").header("host", "other").header("cookie", pair).body(Full::default()).unwrap();
    let got = world.ask(request).await;
    assert!(got.headers.contains_key("set-cookie"), "the cookie of another route means nothing");
    let mut places: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for n in 0..60 {
        let user = format!("user-{}", n % 20);
        let request = Request::get("/").header("host", "header").header("x-user", &user).body(Full::default()).unwrap();
        places.entry(user).or_default().insert(world.ask(request).await.from().to_owned());
    }
    assert!(places.values().all(|at| at.len() == 1), "{places:?}");
    assert!(places.values().flatten().collect::<BTreeSet<_>>().len() == 3, "{places:?}");
}

#[tokio::test]
async fn as_many_tries_are_made_as_a_route_asks_for_and_no_limit_is_none() {
    let count = Arc::new(AtomicUsize::new(0));
    let flaky = Server::acting(Arc::new(move |_: &Request<Bytes>| {
        let status = if count.fetch_add(1, Ordering::SeqCst) < 6 { 503 } else { 200 };
        Response::builder().status(status).body(Full::default()).unwrap()
    }))
    .await;
    let slow = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let retry = Retry { codes: vec![503], attempts: 6, backoff: Duration::ZERO };
    let world =
        World::with(vec![rule("r", "r", "/", Plan { retry, ..plan(&[("flaky", 1)]) })], &[("flaky", &[flaky.address])])
            .await;
    assert_eq!((world.get("r", "/").await.status, flaky.count()), (StatusCode::OK, 7));
    let rules = vec![
        rule("n", "n", "/", Plan { try_timeout: Some(Duration::ZERO), ..plan(&[("slow", 1)]) }),
        rule("s", "s", "/", plan(&[("slow", 1)])),
    ];
    let patience = Duration::from_millis(50);
    let world = World::new(GatewayConfig { answer_patience: patience, ..GatewayConfig::default() }).await;
    world.gateway.set_services(services(&[("slow", &[slow.local_addr().unwrap()])]));
    world.rules(rules);
    let patient = world.get("n", "/");
    let answering = async {
        let (mut stream, _) = slow.accept().await.unwrap();
        assert_eq!(world.get("s", "/").await.status, StatusCode::GATEWAY_TIMEOUT);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        stream
    };
    let (got, _stream) = tokio::join!(patient, answering);
    assert_eq!(got.status, StatusCode::OK);
    world.rules(vec![rule("z", "z", "/", plan(&[("flaky", 0)]))]);
    assert_eq!(world.get("z", "/").await.status, StatusCode::INTERNAL_SERVER_ERROR, "nobody has a weight");
}

#[tokio::test]
async fn answers_that_a_route_calls_failures_are_tried_elsewhere_and_late_ones_end() {
    let bad = Server::acting(Arc::new(|_: &Request<Bytes>| {
        Response::builder().status(StatusCode::SERVICE_UNAVAILABLE).body(Full::default()).unwrap()
    }))
    .await;
    let good = Server::named("good").await;
    let deaf = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let retry = Retry { codes: vec![503], attempts: 2, backoff: Duration::from_millis(1) };
    let short = Some(Duration::from_millis(100));
    let rules = vec![
        rule("r", "r", "/", Plan { retry, ..plan(&[("two", 1)]) }),
        rule("t", "t", "/", Plan { timeout: short, ..plan(&[("deaf", 1)]) }),
        rule("u", "u", "/", Plan { try_timeout: short, ..plan(&[("deaf", 1)]) }),
    ];
    let deaf_at = deaf.local_addr().unwrap();
    let world = World::with(rules, &[("two", &[bad.address, good.address]), ("deaf", &[deaf_at])]).await;
    for _ in 0..10 {
        assert_eq!(world.get("r", "/").await.status, StatusCode::OK);
    }
    assert!(bad.count() > 0, "the bad one was never asked");
    assert_eq!(world.get("t", "/").await.status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(world.get("u", "/").await.status, StatusCode::GATEWAY_TIMEOUT);
}
