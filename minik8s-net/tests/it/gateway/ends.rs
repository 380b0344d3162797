//! Ends of connections that say something: answers that end with their connection, or break off, and clients that send
//! nothing more and still read.

use super::world::{BOUND, Server, World, plan, rule};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// An endpoint that answers with these bytes and ends the connection; with a reset where it breaks off.
async fn ends(answer: &'static str, breaks: bool) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut bytes = [0; 2000];
                let _ = stream.read(&mut bytes).await;
                let _ = stream.write_all(answer.as_bytes()).await;
                if breaks {
                    // What came before a reset is still read.
                    stream.set_zero_linger().unwrap();
                }
            });
        }
    });
    address
}

async fn world(address: SocketAddr) -> World {
    World::with(vec![rule("r", "r", "/", plan(&[("s", 1)]))], &[("s", &[address])]).await
}

const CLOSED: &str = "HTTP/1.0 200 OK\r\nx: y\r\n\r\nas far as the end";

#[tokio::test]
async fn an_answer_that_ends_with_its_connection_is_whole_for_every_client() {
    let world = world(ends(CLOSED, false).await).await;
    let got = world.ask(Request::get("/").header("host", "r").body(Full::default()).unwrap()).await;
    assert_eq!((got.status.as_u16(), got.body.as_str()), (200, "as far as the end"));
    let modern = world.raw("GET / HTTP/1.1\r\nHost: r\r\nConnection: close\r\n\r\n").await;
    assert!(modern.contains("transfer-encoding: chunked") && modern.ends_with("\r\n0\r\n\r\n"), "{modern:?}");
    let old = world.raw("GET / HTTP/1.0\r\nHost: r\r\n\r\n").await;
    assert!(old.ends_with("\r\n\r\nas far as the end") && old.contains("connection: close"), "{old:?}");
    // Of HTTP/1.0, a connection that ends without a head is no answer.
    let silent = self::world(ends("", false).await).await;
    let answer = silent.raw("POST / HTTP/1.0\r\nHost: r\r\nContent-Length: 0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer:?}");
}

#[tokio::test]
async fn an_answer_that_breaks_off_never_looks_whole() {
    for answer in [
        CLOSED,
        "HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\nas far as the end",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n11\r\nas far as the end\r\n",
    ] {
        let world = world(ends(answer, true).await).await;
        let raw = world.raw("GET / HTTP/1.1\r\nHost: r\r\n\r\n").await;
        let told = raw.is_empty() || raw.starts_with("HTTP/1.1 200");
        assert!(told && !raw.ends_with("0\r\n\r\n"), "{answer:?}: {raw:?}");
        // What hyper's client makes of it.
        let stream = TokioIo::new(TcpStream::connect(world.http).await.unwrap());
        let (mut sender, driver) = hyper::client::conn::http1::handshake(stream).await.unwrap();
        tokio::spawn(driver);
        let request = Request::get("/").header("host", "r").body(Full::<Bytes>::default()).unwrap();
        let Ok(response) = sender.send_request(request).await else { continue };
        let got = response.into_body().collect().await;
        assert!(got.is_err(), "{answer:?}: {got:?}");
    }
}

#[tokio::test]
async fn who_sends_nothing_more_is_answered_all_the_same() {
    let server = Server::named("s").await;
    let world = world(server.address).await;
    for request in [
        "GET / HTTP/1.1\r\nHost: r\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: r\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: r\r\nContent-Length: 5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: r\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect(world.http).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut all = String::new();
        tokio::time::timeout(BOUND, stream.read_to_string(&mut all)).await.expect("the end").unwrap();
        assert!(all.starts_with("HTTP/1.1 200 OK"), "{request:?}: {all:?}");
        assert!(!request.contains("hello") || all.contains("hello"), "{request:?}: {all:?}");
    }
    assert_eq!(server.count(), 4, "each was asked once");
    // Two requests, one behind the other, and then no more.
    let mut stream = TcpStream::connect(world.http).await.unwrap();
    stream.write_all("GET / HTTP/1.1\r\nHost: r\r\n\r\n".repeat(2).as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut all = String::new();
    tokio::time::timeout(BOUND, stream.read_to_string(&mut all)).await.expect("the end").unwrap();
    assert_eq!(all.matches("HTTP/1.1 200 OK").count(), 2, "{all:?}");
}

#[tokio::test]
async fn who_sends_half_a_body_and_no_more_is_not_taken_for_one_that_sent_all() {
    let server = Server::named("s").await;
    let world = world(server.address).await;
    let mut stream = TcpStream::connect(world.http).await.unwrap();
    stream.write_all(b"POST / HTTP/1.1\r\nHost: r\r\nContent-Length: 50\r\n\r\nhello").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut all = String::new();
    let ended = tokio::time::timeout(BOUND, stream.read_to_string(&mut all)).await;
    ended.expect("the end").unwrap_or_default();
    assert!(!all.starts_with("HTTP/1.1 200"), "{all:?}");
}

/// One that has gone for good cannot be told from one that reads; it is waited for a while only.
#[tokio::test]
async fn who_left_while_an_endpoint_thinks_is_let_go() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let world = world(listener.local_addr().unwrap()).await;
    let mut client = TcpStream::connect(world.http).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: r\r\n\r\n").await.unwrap();
    let (mut endpoint, _) = tokio::time::timeout(BOUND, listener.accept()).await.expect("it is asked").unwrap();
    drop(client);
    let mut bytes = Vec::new();
    let limit = Duration::from_secs(60);
    tokio::time::timeout(limit, endpoint.read_to_end(&mut bytes)).await.expect("nobody is left to answer").unwrap();
    assert!(bytes.starts_with(b"GET / HTTP/1.1\r\n"), "{bytes:?}");
}
