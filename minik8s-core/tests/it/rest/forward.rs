//! Ports of pods in the older protocol, and the usage of nodes. kubectl's protocol is tested with kubectl.

use super::streams::{Socket, far_pod, kube_over_tls, open, pod};
use futures::{SinkExt, StreamExt};
use k8s_openapi::api::core::v1::Pod;
use minik8s_core::testkit::served::Served;
use minik8s_core::testkit::wait;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::{Error, Message};

const V4: &str = "v4.channel.k8s.io";
const BOUND: Duration = Duration::from_secs(30);

/// What comes on each channel until the server says goodbye.
async fn heard(mut socket: Socket, channels: usize) -> Vec<Vec<u8>> {
    let mut heard = vec![Vec::new(); channels];
    let all = async {
        while let Some(Ok(message)) = socket.next().await {
            if let Message::Binary(data) = message {
                heard[usize::from(data[0])].extend_from_slice(&data[1..]);
            }
        }
    };
    tokio::time::timeout(BOUND, all).await.expect("an end in time");
    heard
}

#[tokio::test]
async fn kube_rs_forwards_several_ports() {
    let served = Served::start().await;
    let _node = far_pod(&served, "p", &["c"]).await;
    let pods: kube::Api<Pod> = kube::Api::default_namespaced(kube_over_tls(&served).await);
    let mut forwarder = pods.portforward("p", &[80, 81]).await.unwrap();
    let (mut echo, mut greeting) = (forwarder.take_stream(80).unwrap(), forwarder.take_stream(81).unwrap());
    let mut text = [0; 5];
    greeting.read_exact(&mut text).await.unwrap();
    assert_eq!(&text, b"hello");
    let piece = vec![7; 100_000];
    let mut back = vec![0; piece.len()];
    let (mut read, mut write) = tokio::io::split(&mut echo);
    let (wrote, got) = tokio::join!(write.write_all(&piece), read.read_exact(&mut back));
    wrote.unwrap();
    got.unwrap();
    assert_eq!(back, piece);
    drop((echo, greeting));
    tokio::time::timeout(BOUND, forwarder.join()).await.expect("an end in time").unwrap();
}

#[tokio::test]
async fn a_refused_port_is_told_and_leaves_the_others_alone() {
    let served = Served::start().await;
    let _node = far_pod(&served, "p", &["c"]).await;
    let socket = open(&served, "p/portforward?ports=81&ports=82", V4).await.unwrap();
    let heard = heard(socket, 4).await;
    assert_eq!(heard[0], b"\x51\0hello", "the port's number comes first");
    assert_eq!(heard[1], b"\x51\0");
    assert_eq!(heard[2], b"\x52\0");
    let error = String::from_utf8_lossy(&heard[3]).into_owned();
    assert!(
        error.starts_with("R\0error forwarding port 82 to pod p, uid ") && error.ends_with(": nobody listens"),
        "{error}"
    );
}

#[tokio::test]
async fn what_was_sent_before_a_farewell_is_answered() {
    let served = Served::start().await;
    let _node = far_pod(&served, "p", &["c"]).await;
    let mut socket = open(&served, "p/portforward?ports=80", V4).await.unwrap();
    socket.send(Message::Binary(b"\0to and fro".as_slice().into())).await.unwrap();
    // Channels that are not there, and such that only the server speaks on.
    for stray in [b"\x01x".as_slice(), b"\x09x", b"\0", b""] {
        socket.send(Message::Binary(stray.into())).await.unwrap();
    }
    let mut text = Vec::new();
    while text != b"\x50\0to and fro" {
        let Some(Ok(Message::Binary(data))) = socket.next().await else { panic!("an end after {text:?}") };
        if data[0] == 0 {
            text.extend_from_slice(&data[1..]);
        }
    }
    socket.close(None).await.unwrap();
}

#[tokio::test]
async fn a_cut_link_ends_what_is_forwarded() {
    let served = Served::start().await;
    let node = far_pod(&served, "p", &["c"]).await;
    let pods: kube::Api<Pod> = kube::Api::default_namespaced(kube_over_tls(&served).await);
    let mut forwarder = pods.portforward("p", &[80]).await.unwrap();
    let mut echo = forwarder.take_stream(80).unwrap();
    echo.write_all(b"x").await.unwrap();
    echo.read_exact(&mut [0]).await.unwrap();
    drop(node);
    let end = tokio::time::timeout(BOUND, echo.read(&mut [0])).await.expect("told in time");
    assert_eq!(end.unwrap(), 0);
}

#[tokio::test]
async fn what_cannot_be_forwarded() {
    let served = Served::start().await;
    pod(&served, "p", &["c"]).await;
    let refusal = async |path: &str, protocol| match open(&served, path, protocol).await {
        Err(Error::Http(response)) => {
            let body = response.body().as_deref().unwrap_or_default();
            let status: Value = serde_json::from_slice(body).unwrap_or_default();
            (response.status().as_u16(), status["message"].as_str().unwrap_or_default().to_owned())
        }
        other => panic!("{path}: {other:?}"),
    };
    assert_eq!(refusal("p/portforward", V4).await, (400, "query parameter \"ports\" is required".into()));
    for ports in ["0", "65536", "http", "80,-1"] {
        let (code, message) = refusal(&format!("p/portforward?ports={ports}"), V4).await;
        assert!(code == 400 && message.contains("is no port"), "{ports}: {message}");
    }
    let many = (1..=129).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
    assert_eq!(refusal(&format!("p/portforward?ports={many}"), V4).await.0, 400);
    assert_eq!(refusal("p/portforward?ports=80", "v5.channel.k8s.io").await.0, 400);
    assert_eq!(refusal("nope/portforward?ports=80", V4).await.0, 404);
    served.server.nodes().remove("n1");
    assert_eq!(refusal("p/portforward?ports=80", V4).await.0, 503);
}

#[tokio::test]
async fn a_node_tells_what_its_containers_have_used() {
    let served = Served::start().await;
    let _node = far_pod(&served, "p", &["c"]).await;
    let client = kube_over_tls(&served).await;
    let read = async |path: &str| {
        let request = http::Request::get(path).body(Vec::new()).unwrap();
        client.request::<Value>(request).await
    };
    let path = "/api/v1/nodes/n1/proxy/stats/summary";
    assert!(read(path).await.is_err(), "a node without a record is not found");
    let nodes: kube::Api<k8s_openapi::api::core::v1::Node> = kube::Api::all(client.clone());
    let node = serde_json::from_value(json!({"metadata": {"name": "n1"}})).unwrap();
    nodes.create(&kube::api::PostParams::default(), &node).await.unwrap();
    let summary = wait::until("the node answers", BOUND, || async { read(path).await.ok() }).await;
    let container = |name: &str| {
        json!({"name": name, "startTime": "1970-01-01T00:00:01Z",
            "cpu": {"time": "1970-01-01T00:00:02Z", "usageCoreNanoSeconds": 30},
            "memory": {"time": "1970-01-01T00:00:02Z", "usageBytes": 50, "workingSetBytes": 40}})
    };
    let pod = |name: &str, containers: &[Value]| {
        json!({"podRef": {"namespace": "default", "name": name, "uid": name},
            "startTime": "1970-01-01T00:00:01Z", "containers": containers})
    };
    let pods = [pod("p", &[container("a"), container("b")]), pod("q", &[container("c")])];
    let node = json!({"nodeName": "n1",
        "cpu": {"time": "1970-01-01T00:00:02Z", "usageCoreNanoSeconds": 60},
        "memory": {"time": "1970-01-01T00:00:02Z", "usageBytes": 80, "workingSetBytes": 70}});
    assert_eq!(summary, json!({"node": node, "pods": pods}));
    assert!(read("/api/v1/nodes/n1/proxy/metrics").await.unwrap_err().to_string().contains("stats/summary"));
}
