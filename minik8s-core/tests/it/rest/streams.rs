//! Logs and commands: from the pod to its node, over HTTP and WebSocket.

use super::sockets::connect;
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{SinkExt, StreamExt};
use http::header::SEC_WEBSOCKET_PROTOCOL;
use minik8s_core::api::{ApiError, ApiResult, Target};
use minik8s_core::client::{Payload, Transport, WriteOptions};
use minik8s_core::node::{ContainerRef, ContainerUsage, LogOptions, MachineUsage, NodeAccess, NodeUsage, PodRef};
use minik8s_core::runtime::{Connection, ContainerStats, ExecSpec, Output, StreamSession, TerminalSize};
use minik8s_core::testkit::served::Served;
use minik8s_core::testkit::wait;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_util::sync::DropGuard;

/// A node whose ports echo (80), greet and close (81) or refuse, and whose commands are words: `cat` echoes its input, `size` tells the terminal's size, `exit N` ends with N.
pub(crate) struct EchoNode;

#[async_trait]
impl NodeAccess for EchoNode {
    async fn logs(&self, of: &ContainerRef, options: LogOptions) -> ApiResult<BoxStream<'static, ApiResult<Bytes>>> {
        let mut lines: Vec<String> = (1..=5).map(|n| format!("{}/{} line {n}\n", of.pod, of.container)).collect();
        if let Some(tail) = options.tail_lines {
            lines.drain(..lines.len().saturating_sub(tail as usize));
        }
        let lines = futures::stream::iter(lines.into_iter().map(|line| Ok(Bytes::from(line))));
        Ok(if options.follow { lines.chain(futures::stream::pending()).boxed() } else { lines.boxed() })
    }

    async fn exec(&self, _: &ContainerRef, spec: ExecSpec) -> ApiResult<StreamSession> {
        Ok(session(spec.command, spec.stdin))
    }

    async fn attach(&self, _: &ContainerRef, stdin: bool) -> ApiResult<StreamSession> {
        Ok(session(vec!["cat".into()], stdin))
    }

    async fn port_forward(&self, _: &PodRef, port: u16) -> ApiResult<Connection> {
        let (near, far) = tokio::io::duplex(1 << 10);
        let (mut read, mut write) = tokio::io::split(far);
        match port {
            80 => drop(tokio::spawn(async move {
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.shutdown().await;
            })),
            81 => drop(tokio::spawn(async move { write.write_all(b"hello").await })),
            _ => return Err(ApiError::internal("nobody listens")),
        }
        Ok(Box::new(near))
    }

    async fn stats(&self) -> ApiResult<NodeUsage> {
        let of = |pod: &str, container: &str| {
            let [namespace, pod, uid, container] = ["default", pod, pod, container].map(str::to_owned);
            ContainerRef { namespace, pod, uid, container }
        };
        let stats = ContainerStats { at: 2000, cpu_ns: 30, memory_working_set: 40, memory_usage: 50, pids: 1 };
        let usage = |container| ContainerUsage { container, started_at: 1000, stats: stats.clone() };
        let containers = [of("p", "a"), of("p", "b"), of("q", "c")].map(usage).into();
        let machine = MachineUsage { at: 2000, cpu_ns: 60, memory_working_set: 70, memory_usage: 80 };
        Ok(NodeUsage { machine: Some(machine), containers })
    }
}

fn session(command: Vec<String>, wants_stdin: bool) -> StreamSession {
    let (stdin, input) = mpsc::channel(4);
    let (out, output) = mpsc::channel(4);
    let (resize, sizes) = mpsc::channel(4);
    let (end, exit) = oneshot::channel();
    tokio::spawn(async move {
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        let code = run(&words, input, sizes, &out).await;
        drop(out);
        let _ = end.send(Ok(code));
    });
    StreamSession { stdin: wants_stdin.then_some(stdin), output, resize: Some(resize), exit }
}

async fn run(
    command: &[&str],
    mut input: mpsc::Receiver<Bytes>,
    mut sizes: mpsc::Receiver<TerminalSize>,
    out: &mpsc::Sender<Output>,
) -> i32 {
    let say = async |text: String| drop(out.send(Output::Stdout(text.into())).await);
    match command {
        ["cat"] => {
            while let Some(data) = input.recv().await {
                let _ = out.send(Output::Stdout(data)).await;
            }
            0
        }
        ["size"] => {
            if let Some(size) = sizes.recv().await {
                say(format!("{}x{}", size.width, size.height)).await;
            }
            0
        }
        ["complain"] => {
            let _ = out.send(Output::Stderr(Bytes::from_static(b"bad"))).await;
            0
        }
        ["exit", code] => code.parse().unwrap_or(-1),
        words => {
            say(words.join(" ")).await;
            0
        }
    }
}

/// A pod on the node that [`EchoNode`] is, in this process.
pub(crate) async fn pod(served: &Served, name: &str, containers: &[&str]) {
    served.server.nodes().register("n1", Arc::new(EchoNode));
    create(served, name, containers).await;
}

/// A pod on the node that [`EchoNode`] is, at the other end of a connection that lives as long as the answer.
pub(crate) async fn far_pod(served: &Served, name: &str, containers: &[&str]) -> DropGuard {
    create(served, name, containers).await;
    served.link("n1", Arc::new(EchoNode)).await
}

async fn create(served: &Served, name: &str, containers: &[&str]) {
    let containers: Vec<Value> = containers.iter().map(|c| json!({"name": c, "image": "busybox"})).collect();
    let pod = json!({
        "kind": "Pod", "apiVersion": "v1", "metadata": {"name": name},
        "spec": {"nodeName": "n1", "containers": containers},
    });
    let target = Target::in_namespace(minik8s_core::api::Gvr::new("", "v1", "pods"), "default");
    let body = Payload::Json(pod.to_string().into());
    served.server.create(&target, body, &WriteOptions::default()).await.unwrap();
}

pub(super) type Socket = WebSocketStream<TlsStream<TcpStream>>;

pub(super) async fn open(served: &Served, path: &str, protocols: &'static str) -> Result<Socket, Error> {
    let url = format!("wss://localhost/api/v1/namespaces/default/pods/{path}");
    let mut request = url.into_client_request().unwrap();
    request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, protocols.parse().unwrap());
    let stream = connect(served, true, b"http/1.1").await;
    tokio_tungstenite::client_async(request, stream).await.map(|(socket, _)| socket)
}

const V5: &str = "v5.channel.k8s.io";

/// Everything on one channel, and the status at the end.
async fn finish(mut socket: Socket, channel: u8) -> (String, Value) {
    let (mut text, mut status) = (Vec::new(), Value::Null);
    while let Some(Ok(message)) = socket.next().await {
        let Message::Binary(data) = message else { continue };
        match data.first() {
            Some(3) => status = serde_json::from_slice(&data[1..]).unwrap(),
            Some(c) if *c == channel => text.extend_from_slice(&data[1..]),
            other => panic!("unexpected channel {other:?}"),
        }
    }
    (String::from_utf8(text).unwrap(), status)
}

#[tokio::test]
async fn a_command_prints_and_ends() {
    let served = Served::start().await;
    let _node = far_pod(&served, "p", &["c"]).await;
    let socket = open(&served, "p/exec?command=hello&command=wide%20world&stdout=true&stderr=true", V5).await.unwrap();
    let (text, status) = finish(socket, 1).await;
    assert_eq!((text.as_str(), status), ("hello wide world", json!({"metadata": {}, "status": "Success"})));
    let socket = open(&served, "p/exec?command=complain&stdout=true&stderr=true", V5).await.unwrap();
    assert_eq!(finish(socket, 2).await.0, "bad");
}

#[tokio::test]
async fn the_exit_code_is_told() {
    let served = Served::start().await;
    let _node = far_pod(&served, "p", &["c"]).await;
    let socket = open(&served, "p/exec?command=exit&command=3&stdout=true", V5).await.unwrap();
    let (_, status) = finish(socket, 1).await;
    assert_eq!((&status["status"], &status["reason"]), (&json!("Failure"), &json!("NonZeroExitCode")));
    assert_eq!(status["details"]["causes"], json!([{"reason": "ExitCode", "message": "3"}]));
}

#[tokio::test]
async fn input_arrives_and_ends() {
    let served = Served::start().await;
    let _node = far_pod(&served, "p", &["c"]).await;
    let mut socket = open(&served, "p/exec?command=cat&stdin=true&stdout=true", V5).await.unwrap();
    socket.send(Message::Ping(Bytes::from_static(b"x"))).await.unwrap();
    socket.send(Message::Binary(Bytes::from_static(b"\0one "))).await.unwrap();
    // Some clients send text.
    socket.send(Message::Text("\0two".into())).await.unwrap();
    socket.send(Message::Binary(Bytes::from_static(&[255, 0]))).await.unwrap();
    let (text, status) = finish(socket, 1).await;
    assert_eq!((text.as_str(), &status["status"]), ("one two", &json!("Success")));
}

#[tokio::test]
async fn much_input_and_output_do_not_block_each_other() {
    let served = Served::start().await;
    let _node = far_pod(&served, "p", &["c"]).await;
    let socket = open(&served, "p/exec?command=cat&stdin=true&stdout=true", V5).await.unwrap();
    let (mut sink, mut stream) = socket.split();
    let sending = tokio::spawn(async move {
        let mut piece = vec![b'x'; 32 * 1024 + 1];
        piece[0] = 0;
        for _ in 0..200 {
            sink.send(Message::Binary(piece.clone().into())).await.unwrap();
        }
        sink.send(Message::Binary(Bytes::from_static(&[255, 0]))).await.unwrap();
        sink
    });
    let mut received = 0;
    while let Some(Ok(message)) = stream.next().await {
        if let Message::Binary(data) = message
            && data.first() == Some(&1)
        {
            received += data.len() - 1;
        }
    }
    drop(sending.await.unwrap());
    assert_eq!(received, 200 * 32 * 1024);
}

#[tokio::test]
async fn a_terminal_is_resized() {
    let served = Served::start().await;
    let _node = far_pod(&served, "p", &["c"]).await;
    let mut socket = open(&served, "p/exec?command=size&stdin=true&stdout=true&tty=true", V5).await.unwrap();
    socket.send(Message::Binary(Bytes::from_static(b"\x04{\"Width\":120,\"Height\":40}"))).await.unwrap();
    assert_eq!(finish(socket, 1).await.0, "120x40");
}

#[tokio::test]
async fn attaching_in_the_older_protocol() {
    let served = Served::start().await;
    let _node = far_pod(&served, "p", &["c"]).await;
    let mut socket = open(&served, "p/attach?stdin=true&stdout=true", "v4.channel.k8s.io").await.unwrap();
    socket.send(Message::Binary(Bytes::from_static(b"\0hi"))).await.unwrap();
    let Some(Ok(Message::Binary(echo))) = socket.next().await else { panic!("no echo") };
    assert_eq!(&echo[..], b"\x01hi");
    socket.close(None).await.unwrap();
}

#[tokio::test]
async fn streams_that_cannot_be() {
    let served = Served::start().await;
    create(&served, "two", &["a", "b"]).await;
    let node = far_pod(&served, "p", &["c"]).await;
    let refusal = async |path: &str, protocol| match open(&served, path, protocol).await {
        Err(Error::Http(response)) => {
            let status: Value =
                serde_json::from_slice(response.body().as_deref().unwrap_or_default()).unwrap_or_default();
            (response.status().as_u16(), status["message"].as_str().unwrap_or_default().to_owned())
        }
        other => panic!("{path}: {other:?}"),
    };
    assert_eq!(refusal("nope/exec?command=x&stdout=true", V5).await.0, 404);
    assert_eq!(refusal("p/exec?command=x&stdout=true", "channel.k8s.io").await.0, 400);
    assert_eq!(refusal("p/exec?stdout=true", V5).await.0, 400);
    assert_eq!(refusal("p/exec?command=x", V5).await.0, 400);
    assert_eq!(refusal("two/exec?command=x&stdout=true", V5).await.0, 400);
    drop(node);
    let gone = || async { served.server.nodes().find("n1").is_err().then_some(()) };
    wait::until("the node is gone", Duration::from_secs(30), gone).await;
    assert_eq!(refusal("p/exec?command=x&stdout=true", V5).await.0, 503);
}

#[tokio::test]
async fn logs_are_text() {
    let served = Served::start().await;
    pod(&served, "two", &["a", "b"]).await;
    let _node = far_pod(&served, "p", &["c"]).await;
    let client = super::client_of(&served);
    let read = async |path: &str| super::read_text(&client, path).await;
    let all = read("p/log").await;
    assert_eq!((all.0, all.1.lines().count()), (200, 5));
    assert_eq!(read("p/log?tailLines=1").await.1, "p/c line 5\n");
    assert_eq!(read("two/log?container=b&tailLines=1").await.1, "two/b line 5\n");
    let unnamed = read("two/log").await;
    assert!(unnamed.0 == 400 && unnamed.1.contains("a container name must be specified for pod two"), "{unnamed:?}");
    assert_eq!(read("p/exec").await.0, 400);
}

pub(super) async fn kube_over_tls(served: &Served) -> kube::Client {
    let kubeconfig = kube::config::Kubeconfig::from_yaml(&served.kubeconfig().to_yaml()).unwrap();
    let options = kube::config::KubeConfigOptions::default();
    kube::Client::try_from(kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap()).unwrap()
}

#[tokio::test]
async fn kube_rs_runs_commands_and_reads_logs() {
    let served = Served::start().await;
    let _node = far_pod(&served, "p", &["c"]).await;
    let pods: kube::Api<k8s_openapi::api::core::v1::Pod> = kube::Api::default_namespaced(kube_over_tls(&served).await);
    let params = kube::api::LogParams { tail_lines: Some(1), ..Default::default() };
    assert_eq!(pods.logs("p", &params).await.unwrap(), "p/c line 5\n");
    let params = kube::api::AttachParams::default().stdin(true).stderr(false);
    let mut process = pods.exec("p", ["cat"], &params).await.unwrap();
    let mut stdin = process.stdin().unwrap();
    let mut stdout = process.stdout().unwrap();
    stdin.write_all(b"to and fro").await.unwrap();
    stdin.shutdown().await.unwrap();
    drop(stdin);
    let mut text = String::new();
    stdout.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "to and fro");
    let status = process.take_status().unwrap().await.unwrap();
    assert_eq!(status.status.as_deref(), Some("Success"));
    let mut failing = pods.exec("p", ["exit", "3"], &kube::api::AttachParams::default()).await.unwrap();
    let status = failing.take_status().unwrap().await.unwrap();
    assert_eq!(status.reason.as_deref(), Some("NonZeroExitCode"));
}
