//! Requests that wait until somebody is there to take them.

use super::world::{BOUND, Got, Server, World, get, plan, rule, services};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use minik8s_core::api::BackendDemand;
use minik8s_core::routing::{Hold, Plan, Rule};
use minik8s_core::testkit::wait;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;

fn held(name: &str, hold: Hold) -> Rule {
    rule(name, name, "/", Plan { hold: Some(hold), ..plan(&[(name, 1)]) })
}

fn patient(queue: usize, concurrency: usize) -> Hold {
    Hold { queue, patience: BOUND, concurrency: Some(concurrency) }
}

fn post(host: &str) -> Request<Full<Bytes>> {
    Request::post("/").header("host", host).body(Full::from("x")).unwrap()
}

/// Asks in the background.
fn ask(world: &Arc<World>, host: &'static str) -> tokio::task::JoinHandle<Got> {
    let world = world.clone();
    tokio::spawn(async move { world.ask(post(host)).await })
}

/// Waits for what is told of a backend.
async fn told(world: &World, service: &str, wanted: impl Fn(&BackendDemand) -> bool) {
    wait::until("demand is told", BOUND, async || {
        let all = world.gateway.demand().unwrap_or_default();
        all.iter().any(|d| d.service == service && wanted(d)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_waits_for_an_endpoint_and_is_delivered_once() {
    let server = Server::named("s").await;
    let world = Arc::new(World::with(vec![held("s", patient(10, 1))], &[("s", &[])]).await);
    let calls: Vec<_> = (0..5).map(|_| ask(&world, "s")).collect();
    tokio::time::timeout(BOUND, world.gateway.wanted()).await.expect("nobody is told");
    told(&world, "s", |d| d.waiting == 5 && d.active == 0).await;
    world.gateway.set_services(services(&[("s", &[server.address])]));
    for got in futures::future::join_all(calls).await {
        assert_eq!(got.unwrap().status, StatusCode::OK);
    }
    assert_eq!(server.count(), 5);
    // What has been told once more is told no more.
    wait::until("silence", BOUND, async || world.gateway.demand().is_none().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_may_wait_are_told_so_and_one_backend_keeps_no_place_of_another() {
    let rules = vec![held("s", patient(3, 1)), held("t", patient(3, 1))];
    let world = Arc::new(World::with(rules, &[("s", &[]), ("t", &[])]).await);
    let waiting: Vec<_> = (0..3).map(|_| ask(&world, "s")).collect();
    told(&world, "s", |d| d.waiting == 3).await;
    let got = world.ask(post("s")).await;
    assert!(got.status == StatusCode::TOO_MANY_REQUESTS && got.body.contains("d/s"), "{got:?}");
    let (s, t) = (Server::named("s").await, Server::named("t").await);
    let other = ask(&world, "t");
    told(&world, "t", |d| d.waiting == 1).await;
    world.gateway.set_services(services(&[("s", &[s.address]), ("t", &[t.address])]));
    assert_eq!(other.await.unwrap().from(), "t");
    for got in futures::future::join_all(waiting).await {
        assert_eq!(got.unwrap().from(), "s");
    }
}

#[tokio::test]
async fn patience_ends_and_who_left_does_not_wait_any_more() {
    let hold = Hold { patience: Duration::from_millis(50), ..patient(1, 1) };
    let world = Arc::new(World::with(vec![held("s", hold)], &[("s", &[])]).await);
    let got = world.ask(post("s")).await;
    assert!(got.status == StatusCode::GATEWAY_TIMEOUT && got.body.contains("d/s"), "{got:?}");
    world.rules(vec![held("s", patient(1, 1))]);
    let call = ask(&world, "s");
    told(&world, "s", |d| d.waiting == 1).await;
    call.abort();
    // It may have closed its half only, and is waited for for a while.
    let waits = |d: &BackendDemand| d.service == "s" && d.waiting > 0;
    let nobody = async || (!world.gateway.demand().unwrap_or_default().iter().any(waits)).then_some(());
    wait::until("nobody waits any more", 3 * BOUND, nobody).await;
    let next = ask(&world, "s");
    told(&world, "s", |d| d.waiting == 1).await;
    assert!(!next.is_finished(), "there is a place for another");
    next.abort();
}

/// A server that keeps requests until it is let go, and counts how many it has at once.
struct Slow {
    server: Server,
    most: Arc<AtomicUsize>,
    gate: Arc<(Mutex<bool>, Condvar)>,
}

impl Slow {
    async fn new() -> Self {
        let (most, now) = (Arc::new(AtomicUsize::new(0)), AtomicUsize::new(0));
        let gate: Arc<(Mutex<bool>, Condvar)> = Arc::default();
        let (m, g) = (most.clone(), gate.clone());
        let server = Server::acting(Arc::new(move |_| {
            m.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::task::block_in_place(|| {
                let open = g.0.lock().unwrap();
                drop(g.1.wait_timeout_while(open, BOUND, |open| !*open).unwrap());
            });
            now.fetch_sub(1, Ordering::SeqCst);
            Response::new(Full::default())
        }))
        .await;
        Self { server, most, gate }
    }

    fn let_go(&self) {
        *self.gate.0.lock().unwrap() = true;
        self.gate.1.notify_all();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn an_endpoint_gets_no_more_at_once_than_it_takes() {
    let slow = [Slow::new().await, Slow::new().await];
    let addresses: Vec<SocketAddr> = slow.iter().map(|s| s.server.address).collect();
    let world = Arc::new(World::with(vec![held("s", patient(100, 2))], &[("s", &addresses)]).await);
    let calls: Vec<_> = (0..12).map(|_| ask(&world, "s")).collect();
    told(&world, "s", |d| d.active == 4 && d.waiting == 8).await;
    slow.iter().for_each(Slow::let_go);
    for got in futures::future::join_all(calls).await {
        assert_eq!(got.unwrap().status, StatusCode::OK);
    }
    assert!(slow.iter().all(|s| s.most.load(Ordering::SeqCst) <= 2));
    assert_eq!(slow.iter().map(|s| s.server.count()).sum::<usize>(), 12);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_not_delivered_waits_for_an_endpoint_that_takes_it() {
    let dead = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap();
    let server = Server::named("s").await;
    let world = Arc::new(World::with(vec![held("s", patient(10, 1))], &[("s", &[dead])]).await);
    let call = ask(&world, "s");
    told(&world, "s", |d| d.waiting + d.active == 1).await;
    world.gateway.set_services(services(&[("s", &[dead, server.address])]));
    assert_eq!(call.await.unwrap().from(), "s");
    assert_eq!(server.count(), 1);
}

#[tokio::test]
async fn routes_that_hold_nothing_refuse_as_ever() {
    let world = World::with(vec![rule("s", "s", "/", plan(&[("s", 1)]))], &[("s", &[])]).await;
    assert_eq!(world.ask(get("s", "/")).await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(world.gateway.demand(), None);
}
