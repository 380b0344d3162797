//! Endpoints that fail, go and come while somebody calls, and the gateway itself going.

use super::world::{BOUND, Got, Server, World, get, plan, rule, services};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use minik8s_core::routing::{Hold, Plan};
use minik8s_core::testkit::wait;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// An address at which nobody listens.
async fn dead() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn what_was_never_delivered_goes_to_another_endpoint_whatever_the_method() {
    let good = Server::named("good").await;
    let ends = [dead().await, dead().await, good.address];
    let world = World::with(vec![rule("r", "r", "/", plan(&[("s", 1)]))], &[("s", &ends)]).await;
    for _ in 0..20 {
        let request = Request::post("/").header("host", "r").body(Full::from("body")).unwrap();
        let got = world.ask(request).await;
        assert!(got.from() == "good" && got.body.ends_with("\nbody"), "{got:?}");
    }
    assert_eq!(good.count(), 20);
    world.gateway.set_services(services(&[("s", &[dead().await])]));
    let got = world.get("r", "/").await;
    assert!(got.status == StatusCode::BAD_GATEWAY && got.body.contains("d/s"), "{got:?}");
}

/// A server that hangs up on what it is asked: the first time, after it read the request.
async fn breaks_off(times: usize) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(AtomicUsize::new(0));
    let count = seen.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut bytes = [0; 2000];
            let _ = stream.read(&mut bytes).await;
            if count.fetch_add(1, Ordering::SeqCst) >= times {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
            }
        }
    });
    (address, seen)
}

/// A server that answers the first requests of each connection, and hangs up once it has read the next one.
async fn answers_then_breaks_off(times: usize) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let (address, seen) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let count = seen.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut bytes = [0; 2000];
            for number in 0..=times {
                if stream.read(&mut bytes).await.unwrap_or(0) == 0 {
                    break;
                }
                count.fetch_add(1, Ordering::SeqCst);
                if number < times {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
                }
            }
        }
    });
    (address, seen)
}

#[tokio::test]
async fn only_what_does_no_harm_twice_is_sent_again_after_it_may_have_arrived() {
    let (address, seen) = breaks_off(1).await;
    let world = World::with(vec![rule("r", "r", "/", plan(&[("s", 1)]))], &[("s", &[address])]).await;
    assert_eq!(world.get("r", "/").await.body, "ok");
    assert_eq!(seen.load(Ordering::SeqCst), 2);
    let (address, seen) = breaks_off(1).await;
    world.gateway.set_services(services(&[("s", &[address])]));
    let request = Request::post("/").header("host", "r").body(Full::from("x")).unwrap();
    assert_eq!(world.ask(request).await.status, StatusCode::BAD_GATEWAY);
    assert_eq!(seen.load(Ordering::SeqCst), 1, "a POST was sent twice");
}

#[tokio::test]
async fn connections_that_an_endpoint_closed_meanwhile_cost_no_request() {
    let first = Server::named("s").await;
    let address = first.address;
    let world = World::with(vec![rule("r", "r", "/", plan(&[("s", 1)]))], &[("s", &[address])]).await;
    // Idle connections of the gateway lead to a server that goes; another stands in its place.
    let calls = (0..10).map(|_| world.get("r", "/"));
    assert!(futures::future::join_all(calls).await.iter().all(|got| got.status == StatusCode::OK));
    drop(first);
    let listener = wait::until("the port is free", BOUND, async || TcpListener::bind(address).await.ok()).await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut bytes = [0; 2000];
                let _ = stream.read(&mut bytes).await;
                // It says that it closes, so that nobody else is sent the same way.
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: close\r\n\r\nnew";
                let _ = stream.write_all(answer).await;
            });
        }
    });
    let posts = (0..10).map(|_| world.ask(Request::post("/").header("host", "r").body(Full::from("x")).unwrap()));
    let got = futures::future::join_all(posts).await;
    assert!(got.iter().all(|got| got.body == "new"), "{got:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_come_and_go_under_load_and_no_call_fails() {
    let world = Arc::new(World::with(vec![rule("r", "r", "/", plan(&[("s", 1)]))], &[]).await);
    let mut servers = vec![Server::named("s0").await, Server::named("s1").await];
    let addresses = |servers: &[Server]| servers.iter().map(|s| s.address).collect::<Vec<_>>();
    world.gateway.set_services(services(&[("s", &addresses(&servers))]));
    let stop = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..16)
        .map(|_| {
            let (world, stop) = (world.clone(), stop.clone());
            tokio::spawn(async move {
                let mut count = 0;
                while !stop.load(Ordering::Relaxed) {
                    let got = world.get("r", "/").await;
                    assert_eq!(got.status, StatusCode::OK, "{got:?}");
                    count += 1;
                }
                count
            })
        })
        .collect();
    for round in 2..40 {
        // As a Deployment rolls: a new one is ready, an old one is taken out, and only then ends, with requests or not.
        servers.push(Server::named(&format!("s{round}")).await);
        let leaving = servers.remove(0);
        world.gateway.set_services(services(&[("s", &addresses(&servers))]));
        let before = servers[1].count();
        wait::until("the new one is asked", BOUND, async || (servers[1].count() > before).then_some(())).await;
        drop(leaving);
    }
    stop.store(true, Ordering::Relaxed);
    let counts = futures::future::join_all(callers).await;
    assert!(counts.into_iter().map(Result::unwrap).sum::<usize>() > 100);
}

#[tokio::test]
async fn a_gateway_that_ends_lets_requests_end_and_says_goodbye() {
    let slow = Server::acting(Arc::new(|_: &Request<Bytes>| Response::new(Full::from("done")))).await;
    let held = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let rules = vec![rule("h", "held", "/", plan(&[("h", 1)])), rule("s", "s", "/", plan(&[("s", 1)]))];
    let world = Arc::new(World::with(rules, &[("h", &[held.local_addr().unwrap()]), ("s", &[slow.address])]).await);
    // One connection waits for its next request, one for an answer.
    let stream = TcpStream::connect(world.http).await.unwrap();
    let (mut idle, driver) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let idle_ends = tokio::spawn(driver);
    Got::of(idle.send_request(get("s", "/")).await.unwrap()).await;
    let asking = tokio::spawn({
        let world = world.clone();
        async move { world.get("held", "/").await }
    });
    let (mut behind, _) = held.accept().await.unwrap();
    let mut bytes = [0; 2000];
    assert!(behind.read(&mut bytes).await.unwrap() > 0);
    let ending = tokio::spawn({
        let world = world.clone();
        async move { world.gateway.shutdown().await }
    });
    tokio::time::timeout(BOUND, idle_ends).await.expect("idle connections are closed").unwrap().unwrap();
    assert!(!ending.is_finished(), "it did not wait");
    behind.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nlate").await.unwrap();
    let got = tokio::time::timeout(BOUND, asking).await.unwrap().unwrap();
    assert_eq!((got.body.as_str(), got.headers["connection"].to_str().unwrap()), ("late", "close"));
    tokio::time::timeout(BOUND, ending).await.expect("it ends").unwrap();
    assert!(TcpStream::connect(world.http).await.is_err(), "it still listens");
}

/// An endpoint that answers each connection's first bytes with these, and keeps it open.
async fn says(answer: &'static str) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let (address, connections) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let count = connections.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let mut bytes = [0; 2000];
                while stream.read(&mut bytes).await.is_ok_and(|count| count > 0) {
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            });
        }
    });
    (address, connections)
}

#[tokio::test]
async fn answers_that_could_be_read_in_two_ways_end_their_connection() {
    for (answer, status, connections) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", 200, 1),
        // What comes behind an answer belongs to nobody's request.
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nbad", 200, 3),
        ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 200, 3),
        ("HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", 200, 1),
        // Nobody asked for it, and a POST is not sent again.
        ("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n", 502, 3),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n", 502, 3),
    ] {
        let (address, count) = says(answer).await;
        let world = World::with(vec![rule("r", "r", "/", plan(&[("s", 1)]))], &[("s", &[address])]).await;
        for _ in 0..3 {
            let got = world.ask(Request::post("/").header("host", "r").body(Full::from("x")).unwrap()).await;
            assert_eq!(got.status.as_u16(), status, "{answer:?}: {got:?}");
            assert!(status != 200 || got.body == "ok", "{answer:?}: {got:?}");
        }
        assert_eq!(count.load(Ordering::SeqCst), connections, "{answer:?}");
    }
}

#[tokio::test]
async fn what_an_endpoint_never_answers_is_sent_a_few_times() {
    let (address, seen) = breaks_off(1000).await;
    let world = World::with(vec![rule("r", "r", "/", plan(&[("s", 1)]))], &[("s", &[address])]).await;
    assert_eq!(world.get("r", "/").await.status, StatusCode::BAD_GATEWAY);
    assert!((2..10).contains(&seen.load(Ordering::SeqCst)));
}

#[tokio::test]
async fn where_requests_wait_nothing_that_was_delivered_is_sent_again_whatever_the_method() {
    let hold = Hold { queue: 5, patience: BOUND, concurrency: None };
    for method in [Method::GET, Method::HEAD, Method::PUT, Method::DELETE, Method::OPTIONS, Method::POST] {
        // An endpoint that would answer the second time.
        let (address, seen) = breaks_off(1).await;
        let held = rule("r", "r", "/", Plan { hold: Some(hold), ..plan(&[("s", 1)]) });
        let world = World::with(vec![held], &[("s", &[address])]).await;
        let request = Request::builder().method(&method).uri("/").header("host", "r");
        let got = world.ask(request.body(Full::default()).unwrap()).await;
        assert_eq!((got.status, seen.load(Ordering::SeqCst)), (StatusCode::BAD_GATEWAY, 1), "{method}: {got:?}");
        // An endpoint that kept the connection of a call before, and closes it on the next one.
        let (address, seen) = answers_then_breaks_off(1).await;
        world.gateway.set_services(services(&[("s", &[address])]));
        let ask = || {
            world.ask(Request::builder().method(&method).uri("/").header("host", "r").body(Full::default()).unwrap())
        };
        assert_eq!(ask().await.status, StatusCode::OK, "{method}");
        assert_eq!(ask().await.status, StatusCode::BAD_GATEWAY, "{method}");
        assert_eq!(seen.load(Ordering::SeqCst), 2, "{method}");
    }
}
