//! Clients that mean no good, or are broken. The router stays up, and the others are served.

use super::world::{BOUND, Server, World, plan, rule};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use minik8s_core::routing::Plan;
use minik8s_core::testkit::wait;
use minik8s_net::gateway::GatewayConfig;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn world(config: GatewayConfig) -> (World, Server) {
    let server = Server::named("a").await;
    let world = World::new(config).await;
    world.gateway.set_services(super::world::services(&[("a", &[server.address])]));
    let small = Plan { max_body: Some(10), ..plan(&[("a", 1)]) };
    world.rules(vec![rule("a", "h", "/", plan(&[("a", 1)])), rule("s", "small", "/", small)]);
    (world, server)
}

#[tokio::test]
async fn requests_that_could_be_read_in_two_ways_are_refused_and_reach_nobody() {
    let (world, server) = world(GatewayConfig::default()).await;
    let cases = [
        ("CL.TE", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG"),
        (
            "TE.CL",
            "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n1\r\nG\r\n0\r\n\r\n",
        ),
        ("two lengths", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
        ("sign", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: +1\r\n\r\na"),
        ("last is not chunked", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
        ("1.0 with encoding", "POST / HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("space before colon", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
        ("folded", "GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n"),
        ("two hosts", "GET / HTTP/1.1\r\nHost: h\r\nHost: i\r\n\r\n"),
        ("no host", "GET / HTTP/1.1\r\n\r\n"),
        ("no path", "GET other.example HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("a user's name", "GET http://u@h/ HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("zero byte", "GET / HTTP/1.1\r\nHost: h\r\nX: a\0b\r\n\r\n"),
    ];
    for (what, bytes) in cases {
        let answer = world
            .raw(&bytes.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n").replacen(
                "0\r\nConnection: close\r\n\r\n",
                "0\r\n\r\n",
                1,
            ))
            .await;
        assert!(answer.starts_with("HTTP/1.1 400") || answer.starts_with("HTTP/1.0 400"), "{what}: {answer:?}");
    }
    assert_eq!(server.count(), 0);
    let answer = world.raw("CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
    assert_eq!(world.get("h", "/").await.status, StatusCode::OK);
}

#[tokio::test]
async fn heads_and_bodies_have_their_limits() {
    let (world, server) = world(GatewayConfig { max_head: 16 * 1024, ..GatewayConfig::default() }).await;
    let many = "X-A: b\r\n".repeat(500);
    let answer = world.raw(&format!("GET / HTTP/1.1\r\nHost: h\r\n{many}\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer:?}");
    let long = "x".repeat(100_000);
    let answer = world.raw(&format!("GET / HTTP/1.1\r\nHost: h\r\nX: {long}\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 431") || answer.is_empty(), "{answer:?}");
    let told = Request::post("/").header("host", "small").body(Full::from("12345678901")).unwrap();
    assert_eq!(world.ask(told).await.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(server.count(), 0);
    let untold = "POST / HTTP/1.1\r\nHost: small\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n12345678\r\n8\r\n12345678\r\n0\r\n\r\n";
    let answer = world.raw(untold).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer:?}");
    let fine = Request::post("/").header("host", "small").body(Full::from("1234567890")).unwrap();
    assert_eq!(world.ask(fine).await.status, StatusCode::OK);
}

#[tokio::test]
async fn slow_clients_are_cut_and_do_not_keep_others_out() {
    let patience = Duration::from_millis(300);
    let config = GatewayConfig {
        head_patience: patience,
        body_patience: patience,
        max_connections: 4,
        ..GatewayConfig::default()
    };
    let (world, _server) = world(config).await;
    // All places are taken by who says nothing, a part of HTTP/2's beginning, a part of a head, a part of a body.
    let mut slow = Vec::new();
    for bytes in ["", "PRI * HT", "GET / HTTP/1.1\r\nHo", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nab"] {
        let mut stream = TcpStream::connect(world.http).await.unwrap();
        stream.write_all(bytes.as_bytes()).await.unwrap();
        slow.push(stream);
    }
    let served = tokio::time::timeout(BOUND, world.get("h", "/")).await.expect("the others are served");
    assert_eq!(served.status, StatusCode::OK);
    for mut stream in slow {
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(BOUND, stream.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "a slow connection is still open");
    }
}

#[tokio::test]
async fn clients_that_leave_in_the_middle_leave_nothing_behind() {
    let (world, server) = world(GatewayConfig { max_connections: 8, ..GatewayConfig::default() }).await;
    for _ in 0..50 {
        let mut stream = TcpStream::connect(world.http).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\nPOST / HTTP/1.1\r\nHost: h\r\nContent-Le").await.unwrap();
        drop(stream);
    }
    assert_eq!(world.get("h", "/").await.status, StatusCode::OK);
    assert!(server.count() > 0);
}

#[tokio::test]
async fn what_says_whom_is_asked_is_no_header_of_one_connection() {
    let (world, _server) = world(GatewayConfig::default()).await;
    let answer = world.raw("GET / HTTP/1.1\r\nHost: h\r\nConnection: host, close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\nhost: h\n"), "{answer}");
    world.rules(vec![rule("a", "", "/", plan(&[("a", 1)]))]);
    let answer = world.raw("GET / HTTP/1.0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("connection: close"), "{answer}");
}

#[tokio::test]
async fn a_client_is_told_that_its_connection_ends_where_its_body_is_left_unread() {
    let (world, server) = world(GatewayConfig::default()).await;
    let answer = world.raw("POST / HTTP/1.1\r\nHost: unknown\r\nContent-Length: 100\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 404") && answer.contains("connection: close"), "{answer}");
    let waits = "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\nConnection: close\r\n\r\n";
    let mut stream = TcpStream::connect(world.http).await.unwrap();
    stream.write_all(waits.as_bytes()).await.unwrap();
    let mut leave = [0; 25];
    tokio::time::timeout(BOUND, stream.read_exact(&mut leave)).await.expect("leave to go on").unwrap();
    assert_eq!(&leave, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"hello").await.unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    assert!(rest.starts_with("HTTP/1.1 200") && rest.ends_with("\nhello"), "{rest}");
    assert_eq!(server.count(), 1);
}

/// A client of HTTP/2 with a window of that many bytes for each answer.
async fn http2(world: &World, window: u32) -> hyper::client::conn::http2::SendRequest<Full<Bytes>> {
    let stream = TokioIo::new(TcpStream::connect(world.http).await.unwrap());
    let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (sender, driver) = builder.initial_stream_window_size(window).handshake(stream).await.unwrap();
    tokio::spawn(driver);
    sender
}

#[tokio::test]
async fn connections_of_http2_end_when_nothing_is_asked_on_them() {
    let patience = Duration::from_secs(5);
    let config = GatewayConfig { head_patience: patience, body_patience: patience, ..GatewayConfig::default() };
    let (world, _server) = world(config).await;
    let large = Server::acting(Arc::new(|_: &Request<Bytes>| Response::new(Full::from(vec![b'x'; 4 << 20])))).await;
    world.gateway.set_services(super::world::services(&[("a", &[large.address])]));
    let get = || Request::get("http://h/").body(Full::default()).unwrap();
    let mut idle = http2(&world, 1 << 16).await;
    let got = idle.send_request(get()).await.unwrap().into_body().collect().await.unwrap();
    assert_eq!(got.to_bytes().len(), 4 << 20);
    let closed = async |sender: &hyper::client::conn::http2::SendRequest<_>| sender.is_closed().then_some(());
    wait::until("who asks nothing more is let go", BOUND, async || closed(&idle).await).await;
}

#[tokio::test]
async fn a_stream_that_is_not_read_ends_and_its_neighbours_go_on() {
    let config = GatewayConfig { body_patience: Duration::from_secs(2), ..GatewayConfig::default() };
    let (world, server) = world(config).await;
    let large = Server::acting(Arc::new(|_: &Request<Bytes>| Response::new(Full::from(vec![b'x'; 4 << 20])))).await;
    world.gateway.set_services(super::world::services(&[("a", &[server.address]), ("b", &[large.address])]));
    world.rules(vec![rule("a", "h", "/", plan(&[("a", 1)])), rule("b", "large", "/", plan(&[("b", 1)]))]);
    let stream = TcpStream::connect(world.http).await.unwrap();
    // Its streams share a window that the unread one does not fill.
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(1000).initial_connection_window_size(1 << 20);
    let (mut client, driver) = builder.handshake::<_, Bytes>(stream).await.unwrap();
    let driver = tokio::spawn(driver);
    let get = |host: &str| Request::get(format!("http://{host}/")).body(()).unwrap();
    let (answer, _) = client.send_request(get("large"), true).unwrap();
    let mut unread = answer.await.unwrap().into_body();
    // What comes is looked at and never given back to the window.
    let cut = async {
        loop {
            match unread.data().await {
                Some(Ok(_)) => {}
                Some(Err(error)) => return error,
                None => panic!("all of it came through a window that is shut"),
            }
        }
    };
    let mut neighbour = client.clone();
    let good = async {
        loop {
            let (answer, _) = neighbour.send_request(get("h"), true).unwrap();
            let answer = answer.await.expect("the connection goes on");
            assert_eq!(answer.status(), StatusCode::OK);
            let mut body = answer.into_body();
            while let Some(data) = body.data().await {
                body.flow_control().release_capacity(data.unwrap().len()).unwrap();
            }
        }
    };
    let error = tokio::select! {
        error = cut => error,
        () = good => unreachable!("it never ends"),
        () = tokio::time::sleep(BOUND) => panic!("nobody ended the stream that is not read"),
    };
    assert!(error.is_remote() && error.reason() == Some(h2::Reason::CANCEL), "{error}");
    let (answer, _) = client.send_request(get("h"), true).unwrap();
    assert_eq!(answer.await.expect("the connection outlives its stream").status(), StatusCode::OK);
    assert!(!driver.is_finished());
}
