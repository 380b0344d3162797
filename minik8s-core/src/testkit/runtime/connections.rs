//! Connections to ports of a sandbox.

use super::scope::{SOON, Scope};
use crate::runtime::{Connection, RuntimeError, SandboxSpec};
use crate::testkit::wait::until;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const PORT: u16 = 7001;

/// A connection, as soon as somebody listens.
async fn connected(s: &Scope, sandbox: &str) -> Connection {
    until("somebody listens", SOON, || async { s.runtime.connect(sandbox, PORT).await.ok() }).await
}

async fn rest(connection: &mut Connection) -> Vec<u8> {
    let mut read = Vec::new();
    let end = tokio::time::timeout(SOON, connection.read_to_end(&mut read)).await;
    end.expect("an end in time").expect("a clean end");
    read
}

pub(super) async fn a_port_is_reached_and_its_directions_end_one_by_one(s: &mut Scope) {
    let sandbox = s.sandbox("a").await;
    s.start(&sandbox, &s.script("c", "exec nc -ll -p 7001 -e cat")).await;
    for word in ["one", "two"] {
        let mut connection = connected(s, &sandbox.spec.id).await;
        connection.write_all(word.as_bytes()).await.expect("write");
        let mut back = [0; 3];
        connection.read_exact(&mut back).await.expect("read");
        assert_eq!(back, word.as_bytes());
        connection.write_all(b"more").await.expect("write");
        connection.shutdown().await.expect("shutdown");
        assert_eq!(rest(&mut connection).await, b"more");
    }
}

pub(super) async fn every_sandbox_has_ports_of_its_own(s: &mut Scope) {
    for name in ["a", "b"] {
        let sandbox = s.sandbox(name).await;
        s.start(&sandbox, &s.script(name, "exec nc -ll -p 7001 -e hostname")).await;
        assert_eq!(rest(&mut connected(s, &sandbox.spec.id).await).await, format!("{name}\n").as_bytes());
    }
}

pub(super) async fn a_port_without_a_listener_is_named(s: &mut Scope) {
    let missing = s.runtime.connect(&s.id("a"), PORT).await.err().expect("no sandbox");
    assert!(matches!(missing, RuntimeError::NotFound { .. }), "{missing}");
    let sandbox = s.sandbox("a").await;
    s.start(&sandbox, &s.sleeper("c")).await;
    let refused = s.runtime.connect(&sandbox.spec.id, PORT).await.err().expect("nobody listens");
    assert!(matches!(refused, RuntimeError::Refused { port: PORT, .. }), "{refused}");
    assert!(refused.to_string().contains("localhost:7001") && refused.to_string().contains("refused"), "{refused}");
}

pub(super) async fn one_who_does_not_read_is_held_back_and_loses_nothing(s: &mut Scope) {
    let sandbox = s.sandbox("a").await;
    s.start(&sandbox, &s.script("c", "exec nc -ll -p 7001 -e cat")).await;
    let mut connection = connected(s, &sandbox.spec.id).await;
    let (piece, mut sent) = (vec![7; 64 << 10], 0_usize);
    // More than any buffer on the way takes.
    while let Ok(wrote) = tokio::time::timeout(Duration::from_millis(300), connection.write(&piece)).await {
        sent += wrote.expect("write");
        assert!(sent < 256 << 20, "nothing holds the sender back");
    }
    let (mut read, mut write) = tokio::io::split(connection);
    let sending = async {
        write.write_all(b"end").await.expect("write");
        write.shutdown().await.expect("shutdown");
    };
    let reading = async {
        let mut back = Vec::new();
        read.read_to_end(&mut back).await.expect("read");
        back
    };
    let (back, ()) = tokio::join!(reading, sending);
    assert_eq!(back.len(), sent + 3);
    assert!(back.ends_with(b"end"));
}

pub(super) async fn a_connection_ends_with_its_container(s: &mut Scope) {
    let sandbox = s.sandbox("a").await;
    s.start(&sandbox, &s.script("c", "exec nc -ll -p 7001 -e cat")).await;
    let mut connection = connected(s, &sandbox.spec.id).await;
    connection.write_all(b"up").await.expect("write");
    connection.read_exact(&mut [0; 2]).await.expect("read");
    s.runtime.stop_container(&s.id("c"), Duration::ZERO).await.expect("stop");
    // A reset is as good an end as any.
    let end = tokio::time::timeout(SOON, connection.read(&mut [0; 8])).await.expect("an end in time");
    assert!(!matches!(end, Ok(1..)), "{end:?}");
    let refused = s.runtime.connect(&sandbox.spec.id, PORT).await.err().expect("nobody listens any more");
    assert!(matches!(refused, RuntimeError::Refused { .. }), "{refused}");
}

pub(super) async fn a_host_network_sandbox_has_the_ports_of_the_host(s: &mut Scope) {
    let spec = SandboxSpec { host_network: true, ..s.sandbox_spec("host") };
    s.runtime.run_sandbox(&spec).await.expect("sandbox");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("listen");
    let port = listener.local_addr().expect("address").port();
    let connection = s.runtime.connect(&spec.id, port).await.expect("connect");
    listener.accept().await.expect("accept").0.write_all(b"hello").await.expect("write");
    let mut connection = connection;
    assert_eq!(rest(&mut connection).await, b"hello");
}
