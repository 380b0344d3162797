//! The connection that a node opens to the API server, for logs and commands. What passes over it is tested where the
//! API server's streams are; here it comes, goes and is refused.

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use k8s_openapi::api::core::v1::Pod;
use minik8s_core::api::{ApiError, ApiResult, Gvr, Reason, Target};
use minik8s_core::client::{Client, GrpcConfig, GrpcTransport, Transport};
use minik8s_core::grpc::v1::node_link_client::NodeLinkClient;
use minik8s_core::node::{
    ContainerRef, ContainerUsage, FilesWish, LogOptions, MachineUsage, NodeAccess, NodeUsage, PodRef, VolumeFile,
    VolumeRef, serve_link,
};
use minik8s_core::runtime::{Connection, ContainerStats, ExecSpec, RuntimeError, StreamSession};
use minik8s_core::server::auth::User;
use minik8s_core::testkit::served::Served;
use minik8s_core::testkit::wait;
use serde_json::json;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::Code;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

const BOUND: Duration = Duration::from_secs(30);

/// A node that says its name, and counts the processes, followers and connections that it keeps for someone. Ports echo.
#[derive(Default)]
struct Named {
    name: &'static str,
    held: Arc<AtomicUsize>,
}

struct Held(Arc<AtomicUsize>);

impl Named {
    fn hold(&self) -> Held {
        self.held.fetch_add(1, Ordering::SeqCst);
        Held(self.held.clone())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl NodeAccess for Named {
    async fn logs(&self, _: &ContainerRef, options: LogOptions) -> ApiResult<BoxStream<'static, ApiResult<Bytes>>> {
        let held = self.hold();
        let name = futures::stream::iter([Ok(Bytes::from_static(self.name.as_bytes()))]);
        let rest = async move {
            let _held = held;
            if options.follow {
                std::future::pending::<()>().await;
            }
            Err(ApiError::new(Reason::NotFound, "the log is gone"))
        };
        Ok(name.chain(rest.into_stream()).boxed())
    }

    async fn exec(&self, _: &ContainerRef, spec: ExecSpec) -> ApiResult<StreamSession> {
        if spec.command.is_empty() {
            return Err(ApiError::new(Reason::NotFound, "no such container"));
        }
        let held = self.hold();
        let ((_out, output), (end, exit)) = (mpsc::channel(1), oneshot::channel());
        let fails = spec.command == ["fail"];
        tokio::spawn(async move {
            let (_held, mut end) = (held, end);
            if fails {
                drop(_out);
                let _ = end.send(Err(RuntimeError::Unsupported("failing well")));
            } else {
                end.closed().await;
            }
        });
        Ok(StreamSession { stdin: None, output, resize: None, exit })
    }

    async fn attach(&self, _: &ContainerRef, _: bool) -> ApiResult<StreamSession> {
        Err(ApiError::new(Reason::BadRequest, "nothing to attach to"))
    }

    async fn port_forward(&self, of: &PodRef, port: u16) -> ApiResult<Connection> {
        if port != 80 {
            return Err(ApiError::internal(format!("nobody listens to {port} in {}/{}", of.namespace, of.pod)));
        }
        let held = self.hold();
        let (near, far) = tokio::io::duplex(4 << 10);
        tokio::spawn(async move {
            let _held = held;
            let (mut read, mut write) = tokio::io::split(far);
            let _ = tokio::io::copy(&mut read, &mut write).await;
        });
        Ok(Box::new(near))
    }

    async fn stats(&self) -> ApiResult<NodeUsage> {
        Ok(NodeUsage { machine: Some(MACHINE), containers: vec![usage()] })
    }

    async fn volume_files(&self, at: &VolumeRef, wish: &FilesWish) -> ApiResult<Vec<VolumeFile>> {
        let path = format!("{} of {}: {:?} {} {}", at.volume, at.pod.pod, wish.patterns, wish.most, wish.digests);
        Ok(vec![VolumeFile { path, size: u64::MAX, sha256: "d".to_owned() }])
    }

    async fn read_volume(&self, at: &VolumeRef, path: &str, from: u64, most: u64) -> ApiResult<Bytes> {
        Ok(format!("{path} of {} from {from}, {most}", at.volume).into())
    }
}

const MACHINE: MachineUsage = MachineUsage { at: 1, cpu_ns: u64::MAX, memory_working_set: 2, memory_usage: 3 };

fn usage() -> ContainerUsage {
    let stats = ContainerStats { at: 3, cpu_ns: u64::MAX, memory_working_set: 5, memory_usage: 6, pids: 7 };
    ContainerUsage { container: container(), started_at: 2, stats }
}

fn pod() -> PodRef {
    let ContainerRef { namespace, pod, uid, .. } = container();
    PodRef { namespace, pod, uid }
}

fn container() -> ContainerRef {
    let [namespace, pod, uid, container] = ["default", "p", "1", "c"].map(str::to_owned);
    ContainerRef { namespace, pod, uid, container }
}

fn command(words: &[&str]) -> ExecSpec {
    ExecSpec { command: words.iter().map(|w| (*w).to_owned()).collect(), ..ExecSpec::default() }
}

/// What the server hears from the node of this name: the beginning of a log.
async fn heard(served: &Served, node: &str) -> Option<String> {
    let access = served.server.nodes().find(node).ok()?;
    let mut log = access.logs(&container(), LogOptions::default()).await.ok()?;
    String::from_utf8(log.next().await?.ok()?.to_vec()).ok()
}

#[tokio::test]
async fn refusals_and_failures_arrive_as_they_were() {
    let served = Served::start().await;
    let _node = served.link("n1", Arc::new(Named::default())).await;
    let access = served.server.nodes().find("n1").unwrap();
    let refused = access.exec(&container(), command(&[])).await.unwrap_err();
    assert_eq!((refused.reason, refused.message.as_str()), (Reason::NotFound, "no such container"));
    let refused = access.attach(&container(), true).await.unwrap_err();
    assert_eq!((refused.reason, refused.message.as_str()), (Reason::BadRequest, "nothing to attach to"));
    let pieces: Vec<_> = access.logs(&container(), LogOptions::default()).await.unwrap().collect().await;
    assert_eq!(pieces.last().unwrap().as_ref().unwrap_err().reason, Reason::NotFound);
    let failed = access.exec(&container(), command(&["fail"])).await.unwrap().exit.await.unwrap().unwrap_err();
    assert!(failed.to_string().contains("failing well"), "{failed}");
}

#[tokio::test]
async fn files_that_containers_write_are_had_from_afar_and_nothing_else_is() {
    let served = Served::start().await;
    let _node = served.link("n1", Arc::new(Named::default())).await;
    let volumes = json!([{"name": "work", "emptyDir": {}}, {"name": "host", "hostPath": {"path": "/"}}]);
    let pod = |name: &str, node: serde_json::Value| {
        let spec = json!({"containers": [{"name": "c", "image": "i"}], "volumes": volumes, "nodeName": node});
        serde_json::from_value::<Pod>(json!({"metadata": {"name": name}, "spec": spec})).unwrap()
    };
    let pods = Client::new(served.server.clone()).api::<Pod>("default");
    pods.create(&pod("p", json!("n1"))).await.unwrap();
    pods.create(&pod("waits", serde_json::Value::Null)).await.unwrap();
    pods.create(&pod("away", json!("n2"))).await.unwrap();
    let of = |user: &User| GrpcTransport::new(&served.grpc_config(user)).unwrap();
    let admin = of(&User::new("root", &["system:masters"]));
    let target = |name: &str| Target::object(Gvr::new("", "v1", "pods"), "default", name);
    let wish = FilesWish { patterns: vec!["a/*".to_owned()], most: 3, digests: true };
    let found = admin.volume_files(&target("p"), "work", &wish).await.unwrap();
    assert_eq!((found[0].path.as_str(), found[0].size), (r#"work of p: ["a/*"] 3 true"#, u64::MAX));
    let piece = admin.read_volume(&target("p"), "work", "a/b", 5, 7).await.unwrap();
    assert_eq!(piece, "a/b of work from 5, 7");
    assert!(admin.volume_files(&target("waits"), "work", &wish).await.unwrap().is_empty(), "it is nowhere yet");
    for (name, volume, reason) in [
        ("p", "host", Reason::BadRequest),
        ("p", "none", Reason::BadRequest),
        ("nobody", "work", Reason::NotFound),
        ("away", "work", Reason::ServiceUnavailable),
    ] {
        assert_eq!(
            admin.volume_files(&target(name), volume, &wish).await.unwrap_err().reason,
            reason,
            "{name} {volume}"
        );
        assert_eq!(admin.read_volume(&target(name), volume, "x", 0, 1).await.unwrap_err().reason, reason);
    }
    // Neither a node nor the scheduler reads what pods write.
    for user in [User::of_node("n1"), User::new("system:kube-scheduler", &[])] {
        let refused = of(&user).read_volume(&target("p"), "work", "x", 0, 1).await.unwrap_err();
        assert_eq!(refused.reason, Reason::Forbidden, "{user:?}");
    }
}

#[tokio::test]
async fn a_port_is_reached_both_ways_and_each_direction_ends_by_itself() {
    let served = Served::start().await;
    let node = Named::default();
    let held = node.held.clone();
    let _node = served.link("n1", Arc::new(node)).await;
    let access = served.server.nodes().find("n1").unwrap();
    let refused = access.port_forward(&pod(), 81).await.err().unwrap();
    assert_eq!((refused.reason, &*refused.message), (Reason::InternalError, "nobody listens to 81 in default/p"));
    let mut port = access.port_forward(&pod(), 80).await.unwrap();
    port.write_all(b"hello").await.unwrap();
    let mut back = [0; 5];
    port.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"hello");
    port.write_all(b"more").await.unwrap();
    port.shutdown().await.unwrap();
    let mut rest = String::new();
    port.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "more");
    wait::until("the node let go of it", BOUND, || async { (held.load(Ordering::SeqCst) == 0).then_some(()) }).await;
    assert_eq!(access.stats().await.unwrap(), NodeUsage { machine: Some(MACHINE), containers: vec![usage()] });
}

#[tokio::test]
async fn a_sender_is_held_back_by_a_reader_at_the_other_end() {
    let served = Served::start().await;
    let _node = served.link("n1", Arc::new(Named::default())).await;
    let access = served.server.nodes().find("n1").unwrap();
    let mut port = access.port_forward(&pod(), 80).await.unwrap();
    let (piece, mut sent) = (vec![7; 64 << 10], 0);
    while let Ok(wrote) = tokio::time::timeout(Duration::from_millis(300), port.write(&piece)).await {
        sent += wrote.unwrap();
        assert!(sent < 64 << 20, "nothing holds the sender back");
    }
    let (mut read, mut write) = tokio::io::split(port);
    let reading = async {
        let mut back = Vec::new();
        read.read_to_end(&mut back).await.unwrap();
        back.len()
    };
    let (back, shut) = tokio::join!(reading, write.shutdown());
    shut.unwrap();
    assert_eq!(back, sent);
}

#[tokio::test]
async fn a_connection_to_a_port_ends_for_both_sides() {
    let served = Served::start().await;
    let node = Named::default();
    let held = node.held.clone();
    let link = served.link("n1", Arc::new(node)).await;
    let access = served.server.nodes().find("n1").unwrap();
    let none_held = || async { (held.load(Ordering::SeqCst) == 0).then_some(()) };
    let port = access.port_forward(&pod(), 80).await.unwrap();
    drop(port);
    wait::until("what was dropped is gone from the node", BOUND, none_held).await;
    let mut port = access.port_forward(&pod(), 80).await.unwrap();
    port.write_all(b"x").await.unwrap();
    port.read_exact(&mut [0]).await.unwrap();
    drop(link);
    let end = tokio::time::timeout(BOUND, port.read(&mut [0])).await.expect("told in time");
    assert!(end.is_err(), "a cut is no end: {end:?}");
    assert!(port.write_all(&[0; 1 << 20]).await.is_err());
    wait::until("what was cut is gone from the node", BOUND, none_held).await;
    let refused = access.port_forward(&pod(), 80).await.err().unwrap();
    assert_eq!(refused.reason, Reason::ServiceUnavailable, "{refused}");
}

#[tokio::test]
async fn what_nobody_listens_to_any_more_ends_on_the_node() {
    let served = Served::start().await;
    let node = Named::default();
    let held = node.held.clone();
    let _node = served.link("n1", Arc::new(node)).await;
    let access = served.server.nodes().find("n1").unwrap();
    let session = access.exec(&container(), command(&["run"])).await.unwrap();
    let mut log = access.logs(&container(), LogOptions { follow: true, ..LogOptions::default() }).await.unwrap();
    log.next().await.unwrap().unwrap();
    assert_eq!(held.load(Ordering::SeqCst), 2);
    drop((session, log));
    wait::until("both have ended", BOUND, || async { (held.load(Ordering::SeqCst) == 0).then_some(()) }).await;
}

#[tokio::test]
async fn a_process_ends_for_both_sides_when_the_connection_does() {
    let served = Served::start().await;
    let node = Named::default();
    let held = node.held.clone();
    let link = served.link("n1", Arc::new(node)).await;
    let access = served.server.nodes().find("n1").unwrap();
    let session = access.exec(&container(), command(&["run"])).await.unwrap();
    drop(link);
    let exit = tokio::time::timeout(BOUND, session.exit).await.expect("told in time").unwrap();
    assert!(matches!(exit, Err(RuntimeError::Unavailable { .. })), "{exit:?}");
    wait::until("the node let go of it", BOUND, || async { (held.load(Ordering::SeqCst) == 0).then_some(()) }).await;
    let refused = access.exec(&container(), command(&["run"])).await.unwrap_err();
    assert_eq!(refused.reason, Reason::ServiceUnavailable, "{refused}");
}

#[tokio::test]
async fn the_newest_connection_of_a_node_counts_and_outlives_the_older() {
    let served = Served::start().await;
    let older = served.link("n1", Arc::new(Named { name: "older", ..Named::default() })).await;
    assert_eq!(heard(&served, "n1").await.as_deref(), Some("older"));
    let newer = Arc::new(Named { name: "newer", ..Named::default() });
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    let transport = GrpcTransport::new(&served.grpc_config(&User::of_node("n1"))).unwrap();
    tokio::spawn(serve_link(transport, newer, stop));
    let newer = || async { heard(&served, "n1").await.filter(|name| name == "newer").map(drop) };
    wait::until("the newer answers", BOUND, newer).await;
    drop(older);
    // The end of the older one is seen in its own time; whatever that is, the newer one stays.
    for _ in 0..50 {
        tokio::task::yield_now().await;
        assert_eq!(heard(&served, "n1").await.as_deref(), Some("newer"));
    }
}

/// A way to the server that can be cut.
struct Wire {
    address: SocketAddr,
    open: Arc<Mutex<JoinSet<()>>>,
    _accepting: AbortOnDropHandle<()>,
}

impl Wire {
    async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let open = Arc::new(Mutex::new(JoinSet::new()));
        let connections = open.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                connections.lock().unwrap().spawn(async move {
                    let mut far = TcpStream::connect(server).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                });
            }
        });
        Self { address, open, _accepting: AbortOnDropHandle::new(accepting) }
    }

    fn cut(&self) {
        self.open.lock().unwrap().abort_all();
    }
}

#[tokio::test]
async fn a_connection_that_was_cut_comes_back() {
    let served = Served::start().await;
    let wire = Wire::to(served.address).await;
    let config = GrpcConfig { url: format!("https://{}", wire.address), ..served.grpc_config(&User::of_node("n1")) };
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    let node = Arc::new(Named { name: "n1", ..Named::default() });
    tokio::spawn(serve_link(GrpcTransport::new(&config).unwrap(), node, stop));
    let nodes = served.server.nodes();
    let first = wait::until("the node is connected", BOUND, || async { nodes.find("n1").ok() }).await;
    wire.cut();
    let again = || async { nodes.find("n1").ok().filter(|now| !Arc::ptr_eq(now, &first)).map(drop) };
    wait::until("the node is connected anew", BOUND, again).await;
    assert_eq!(heard(&served, "n1").await.as_deref(), Some("n1"));
}

#[tokio::test]
async fn only_nodes_may_connect() {
    let served = Served::start().await;
    for user in [User::system(), User::new("alice", &["system:nodes"]), User::new("system:node:n1", &["dev"])] {
        let config = served.grpc_config(&user);
        let shown = served.pki.issue_client(&user, jiff::Timestamp::now()).unwrap();
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(config.ca));
        let tls = tls.identity(Identity::from_pem(shown.certificate, shown.key));
        let channel = Endpoint::from_shared(config.url).unwrap().tls_config(tls).unwrap().connect().await.unwrap();
        let refused = NodeLinkClient::new(channel).open(futures::stream::pending()).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{user:?}");
        assert!(refused.message().contains(&user.name) && refused.message().contains("system:nodes"), "{refused}");
    }
}
