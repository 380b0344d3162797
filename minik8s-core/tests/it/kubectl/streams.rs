//! Logs, commands and ports, against a node that echoes.

use super::start;
use crate::rest::streams::{far_pod, pod};
use minik8s_core::testkit::kubectl::Kubectl;
use minik8s_core::testkit::served::Served;
use minik8s_core::testkit::wait;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

const BOUND: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn logs() {
    let Some((served, kubectl)) = start().await else { return };
    pod(&served, "p", &["c"]).await;
    pod(&served, "two", &["a", "b"]).await;
    assert_eq!(kubectl.ok(&["logs", "p"]).await.lines().count(), 5);
    assert_eq!(kubectl.ok(&["logs", "p", "--tail=1"]).await, "p/c line 5\n");
    assert_eq!(kubectl.ok(&["logs", "two", "-c", "b", "--tail=1"]).await, "two/b line 5\n");
    let mut following = kubectl.start(&["logs", "-f", "p"], false);
    let mut lines = BufReader::new(following.stdout.take().unwrap()).lines();
    for number in 1..=5 {
        assert_eq!(lines.next_line().await.unwrap().unwrap(), format!("p/c line {number}"));
    }
    assert!(following.try_wait().unwrap().is_none(), "it goes on");
    assert_eq!(kubectl.run(&["logs", "nope"]).await.code, 1);
    unreachable_node(&served, &kubectl).await;
}

async fn unreachable_node(served: &Served, kubectl: &Kubectl) {
    served.server.nodes().remove("n1");
    let refused = kubectl.run(&["logs", "p"]).await;
    assert!(refused.code == 1 && refused.stderr.contains("node \"n1\" is not connected"), "{}", refused.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn commands() {
    let Some((served, kubectl)) = start().await else { return };
    pod(&served, "p", &["c"]).await;
    assert_eq!(kubectl.ok(&["exec", "p", "--", "hello", "wide world"]).await, "hello wide world");
    assert_eq!(kubectl.run(&["exec", "p", "--", "exit", "3"]).await.code, 3);
    assert_eq!(kubectl.run(&["exec", "p", "--", "complain"]).await.stderr, "bad");
    let echoed = kubectl.run_with_input(&["exec", "-i", "p", "--", "cat"], "to and fro").await;
    assert_eq!((echoed.code, echoed.stdout.as_str()), (0, "to and fro"));
    let missing = kubectl.run(&["exec", "nope", "--", "x"]).await;
    assert!(missing.stderr.contains("pods \"nope\" not found"), "{}", missing.stderr);
}

/// kubectl that forwards, and where to.
struct Forward {
    kubectl: tokio::process::Child,
    address: String,
    said: Arc<Mutex<String>>,
}

impl Forward {
    async fn start(kubectl: &Kubectl, websockets: bool, port: u16) -> Self {
        let mut command = kubectl.command(&["port-forward", "--address=127.0.0.1", "pod/p", &format!(":{port}")]);
        command.env("KUBECTL_PORT_FORWARD_WEBSOCKETS", websockets.to_string());
        let mut kubectl = command.spawn().unwrap();
        let mut lines = BufReader::new(kubectl.stdout.take().unwrap()).lines();
        let line = tokio::time::timeout(BOUND, lines.next_line()).await.expect("in time").unwrap();
        let said = Arc::new(Mutex::new(String::new()));
        let mut errors = BufReader::new(kubectl.stderr.take().unwrap()).lines();
        let heard = said.clone();
        tokio::spawn(async move {
            while let Ok(Some(line)) = errors.next_line().await {
                heard.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        // What it says of every connection must not fill the pipe.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let line = line.unwrap_or_else(|| panic!("{}", said.lock().unwrap()));
        let address = line.split_whitespace().nth(2).unwrap().to_owned();
        assert_eq!(line, format!("Forwarding from {address} -> {port}"));
        Self { kubectl, address, said }
    }

    async fn dial(&self) -> TcpStream {
        TcpStream::connect(&self.address).await.unwrap()
    }

    async fn until_said(&self, what: &str) {
        let said = || async { self.said.lock().unwrap().contains(what).then_some(()) };
        wait::until(&format!("kubectl says {what:?}"), BOUND, said).await;
    }
}

/// Sends, ends, and reads to the end.
async fn exchange(mut stream: TcpStream, data: &[u8]) -> Vec<u8> {
    let (mut read, mut write) = stream.split();
    let mut back = Vec::new();
    let sending = async {
        write.write_all(data).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let both = async { tokio::join!(sending, read.read_to_end(&mut back)).1.map(drop) };
    tokio::time::timeout(BOUND, both).await.expect("an end in time").unwrap();
    back
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_are_forwarded() {
    let Some((served, kubectl)) = start().await else { return };
    let node = far_pod(&served, "p", &["c"]).await;
    let refused = kubectl.run(&["port-forward", "pod/p", ":80"]).await;
    assert!(refused.code == 1 && refused.stderr.contains("pod is not running"), "{refused:?}");
    kubectl.ok(&["patch", "pod", "p", "--subresource=status", "-p", r#"{"status": {"phase": "Running"}}"#]).await;
    for websockets in [true, false] {
        let forward = Forward::start(&kubectl, websockets, 80).await;
        let mut open = forward.dial().await;
        open.write_all(b"first").await.unwrap();
        open.read_exact(&mut [0; 5]).await.unwrap();
        let large: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let others = [exchange(forward.dial().await, b"second"), exchange(forward.dial().await, &large)];
        let back = futures::future::join_all(others).await;
        assert!(back[0] == b"second" && back[1] == large, "websockets: {websockets}, {} bytes", back[1].len());
        // The first one has not noticed.
        assert_eq!(exchange(open, b"more").await, b"more");
    }
    let greeting = Forward::start(&kubectl, true, 81).await;
    let mut text = String::new();
    greeting.dial().await.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "hello");
    let mut refused = Forward::start(&kubectl, true, 82).await;
    drop(refused.dial().await);
    refused.until_said("error forwarding port 82 to pod p, uid ").await;
    refused.until_said("nobody listens").await;
    refused.kubectl.kill().await.unwrap();
    let cut = Forward::start(&kubectl, true, 80).await;
    let mut open = cut.dial().await;
    open.write_all(b"x").await.unwrap();
    open.read_exact(&mut [0]).await.unwrap();
    drop(node);
    let end = tokio::time::timeout(BOUND, open.read(&mut [0])).await.expect("an end in time");
    assert!(!matches!(end, Ok(1..)), "{end:?}");
}
