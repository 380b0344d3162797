//! Machines that join a cluster over its port, each with a token: what they may, and what keeps them out.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Secret};
use minik8s_core::api::{ApiError, Reason};
use minik8s_core::client::{Client, DeleteOptions, GrpcConfig, GrpcTransport, ListOptions, PatchType};
use minik8s_core::clock::SystemClock;
use minik8s_core::cluster::Cluster;
use minik8s_core::controllers::certificates::AGENT_KEY;
use minik8s_core::join::{JoinConfig, JoinError, JoinToken, Membership};
use minik8s_core::network::NoopNetwork;
use minik8s_core::node::{NodeAgent, NodeConfig};
use minik8s_core::store::MemoryStore;
use minik8s_core::testkit::{FakeRuntime, wait};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

const BOUND: Duration = Duration::from_secs(60);
const HOUR: SignedDuration = SignedDuration::from_hours(1);

async fn cluster() -> Cluster {
    listening(Cluster::builder()).await
}

async fn listening(builder: minik8s_core::cluster::ClusterBuilder) -> Cluster {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    builder.listen(listener).start().await.unwrap()
}

fn config(cluster: &Cluster, node: &str, token: Option<JoinToken>, directory: &Path) -> JoinConfig {
    let server = format!("https://{}", cluster.address().unwrap());
    JoinConfig { token, ..JoinConfig::new(server, node, directory.join("pki")) }
}

async fn open(config: &JoinConfig) -> Result<Membership, JoinError> {
    Membership::open(config, Arc::new(SystemClock)).await
}

async fn refused(config: &JoinConfig) -> JoinError {
    open(config).await.err().expect("the machine is not admitted")
}

/// An agent at the other end of a connection, until it is dropped.
struct Remote {
    membership: Membership,
    _directory: TempDir,
    _stop: DropGuard,
}

async fn remote(cluster: &Cluster, node: &str) -> Remote {
    let directory = tempfile::tempdir().unwrap();
    let token = cluster.join_token(HOUR).await.unwrap();
    let membership = open(&config(cluster, node, Some(token), directory.path())).await.unwrap();
    let stop = run(&membership, node, directory.path());
    Remote { membership, _directory: directory, _stop: stop }
}

fn run(membership: &Membership, node: &str, directory: &Path) -> DropGuard {
    let mut config = NodeConfig::new(node, directory.join("node"));
    config.annotations.insert(AGENT_KEY.into(), membership.key_digest().into());
    let network = Arc::new(NoopNetwork::new("10.244.9.0/24".parse().unwrap()));
    config.pod_cidr = Some("10.244.9.0/24".parse().unwrap());
    let client = Client::new(Arc::new(membership.transport())).with_manager("kubelet");
    let agent = NodeAgent::builder(config, client, Arc::new(FakeRuntime::default()), network).build();
    let stop = CancellationToken::new();
    tokio::spawn(membership.clone().run(agent, stop.clone()));
    stop.drop_guard()
}

async fn ready(cluster: &Cluster, node: &str) {
    let nodes = cluster.client().all::<Node>();
    wait::until("the node is ready", BOUND, || async {
        let node = nodes.get(node).await.ok()?;
        let conditions = node.status?.conditions?;
        conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True").then_some(())
    })
    .await;
}

fn pod(name: &str, node: &str) -> Pod {
    serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"nodeName": node, "containers": [
        {"name": "c", "image": "i", "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "own", "key": "k"}}}]}]}}))
    .unwrap()
}

async fn secret(cluster: &Cluster, name: &str) {
    let secret: Secret = serde_json::from_value(json!({"metadata": {"name": name}, "stringData": {"k": "v"}})).unwrap();
    cluster.client().api::<Secret>("default").create(&secret).await.unwrap();
}

#[tokio::test]
async fn a_machine_joins_and_runs_pods_and_its_logs_are_reached() {
    let cluster = cluster().await;
    let _remote = remote(&cluster, "far").await;
    ready(&cluster, "far").await;
    secret(&cluster, "own").await;
    let pods = cluster.client().api::<Pod>("default");
    let plain: Pod = serde_json::from_value(json!({"metadata": {"name": "web"},
        "spec": {"containers": [{"name": "c", "image": "i"}]}}))
    .unwrap();
    pods.create(&plain).await.unwrap();
    pods.create(&pod("refers", "far")).await.unwrap();
    wait::until("both pods run", BOUND, || async {
        let all = pods.list(&ListOptions::default()).await.ok()?.items;
        all.iter().all(|p| p.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Running")).then_some(())
    })
    .await;
    let request = http::Request::get("/api/v1/namespaces/default/pods/web/log");
    let request = request.body(http_body_util::Full::<bytes::Bytes>::default()).unwrap();
    use tower::ServiceExt;
    assert_eq!(cluster.http_service().oneshot(request).await.unwrap().status(), 200);
    cluster.stop().await;
}

/// The status that a control plane answers a question about a node's use with.
async fn usage_of(cluster: &Cluster, node: &str) -> u16 {
    use tower::ServiceExt;
    let request = http::Request::get(format!("/api/v1/nodes/{node}/proxy/stats/summary"));
    let request = request.body(http_body_util::Full::<bytes::Bytes>::default()).unwrap();
    cluster.http_service().oneshot(request).await.unwrap().status().as_u16()
}

async fn runs(cluster: &Cluster, name: &str) {
    let plain =
        json!({"metadata": {"name": name}, "spec": {"nodeName": "far", "containers": [{"name": "c", "image": "i"}]}});
    let pods = cluster.client().api::<Pod>("default");
    pods.create(&serde_json::from_value(plain).unwrap()).await.unwrap();
    wait::until("the pod runs", BOUND, || async {
        (pods.get(name).await.ok()?.status?.phase.as_deref() == Some("Running")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_machine_goes_on_with_the_other_control_plane_when_its_own_dies() {
    let store = MemoryStore::new().shared();
    let control_plane = || async {
        let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let builder = Cluster::builder().store(Arc::new(store.clone())).advertise([127, 0, 0, 1].into());
        builder.listen(listener).start().await.unwrap()
    };
    let (first, second) = (control_plane().await, control_plane().await);
    let (directory, token) = (tempfile::tempdir().unwrap(), first.join_token(HOUR).await.unwrap());
    let server = format!("https://127.0.0.1:{}", first.address().unwrap().port());
    let config = JoinConfig { token: Some(token), ..JoinConfig::new(server, "far", directory.path().join("pki")) };
    let membership = open(&config).await.unwrap();
    let agent = run(&membership, "far", directory.path());
    ready(&first, "far").await;
    wait::until("both reach the node", BOUND, || async {
        let answers = [usage_of(&first, "far").await, usage_of(&second, "far").await];
        (answers == [200, 200]).then_some(())
    })
    .await;
    first.stop().await;
    runs(&second, "after").await;
    assert_eq!(usage_of(&second, "far").await, 200);
    // The next agent of the machine knows the other one as well, though nobody told it.
    drop(agent);
    let again = open(&JoinConfig { token: None, ..config }).await.unwrap();
    let _agent = run(&again, "far", directory.path());
    runs(&second, "later").await;
    second.stop().await;
}

#[tokio::test]
async fn ports_and_usage_of_a_machine_that_joined_are_reached() {
    let cluster = cluster().await;
    let _remote = remote(&cluster, "far").await;
    ready(&cluster, "far").await;
    let echo: Pod =
        serde_json::from_value(json!({"metadata": {"name": "echo"}, "spec": {"nodeName": "far", "containers":
        [{"name": "c", "image": "i", "command": ["nc", "-ll", "-p", "7001", "-e", "cat"]}]}}))
        .unwrap();
    let pods = cluster.client().api::<Pod>("default");
    pods.create(&echo).await.unwrap();
    wait::until("the pod runs", BOUND, || async {
        (pods.get("echo").await.ok()?.status?.phase.as_deref() == Some("Running")).then_some(())
    })
    .await;
    let kubeconfig = kube::config::Kubeconfig::from_yaml(&cluster.kubeconfig().unwrap().to_yaml()).unwrap();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await.unwrap();
    let client = kube::Client::try_from(config).unwrap();
    let api: kube::Api<Pod> = kube::Api::namespaced(client.clone(), "default");
    let mut forwarder = api.portforward("echo", &[7001, 7002]).await.unwrap();
    let refused = forwarder.take_error(7002).unwrap();
    let error = tokio::time::timeout(BOUND, refused).await.expect("told in time").expect("an error");
    assert!(error.contains("failed to connect to localhost:7002 inside namespace"), "{error}");
    let mut port = forwarder.take_stream(7001).unwrap();
    port.write_all(b"to and fro").await.unwrap();
    let mut back = [0; 10];
    tokio::time::timeout(BOUND, port.read_exact(&mut back)).await.expect("in time").unwrap();
    assert_eq!(&back, b"to and fro");
    let summary = http::Request::get("/api/v1/nodes/far/proxy/stats/summary").body(Vec::new()).unwrap();
    let summary: serde_json::Value = client.request(summary).await.unwrap();
    let used = summary["pods"].as_array().unwrap().iter().find(|p| p["podRef"]["name"] == "echo").unwrap();
    assert!(used["containers"][0]["memory"]["workingSetBytes"].as_u64() > Some(0), "{summary}");
    cluster.stop().await;
}

#[tokio::test]
async fn a_node_sees_and_writes_only_what_concerns_it() {
    let cluster = cluster().await;
    let far = remote(&cluster, "far").await;
    ready(&cluster, "far").await;
    let admin = cluster.client();
    secret(&cluster, "own").await;
    secret(&cluster, "foreign").await;
    admin.api::<Pod>("default").create(&pod("mine", "far")).await.unwrap();
    admin.api::<Pod>("default").create(&pod("theirs", "near")).await.unwrap();
    let other: Node = serde_json::from_value(json!({"metadata": {"name": "near"}})).unwrap();
    admin.all::<Node>().create(&other).await.unwrap();

    let node = Client::new(Arc::new(far.membership.transport()));
    let (pods, secrets, nodes) = (node.api::<Pod>("default"), node.api::<Secret>("default"), node.all::<Node>());
    let forbidden = |what: &str, result: Result<(), ApiError>| {
        assert_eq!(result.expect_err(what).reason, Reason::Forbidden, "{what}");
    };
    assert!(pods.get("mine").await.is_ok() && secrets.get("own").await.is_ok());
    forbidden("another node's pod", pods.get("theirs").await.map(drop));
    forbidden("a secret that no pod of its own names", secrets.get("foreign").await.map(drop));
    forbidden("all secrets", secrets.list(&ListOptions::default()).await.map(drop));
    forbidden("all pods", pods.list(&ListOptions::default()).await.map(drop));
    let theirs = ListOptions { field_selector: "spec.nodeName=near".into(), ..ListOptions::default() };
    forbidden("another node's pods", pods.list(&theirs).await.map(drop));
    forbidden("deletion of another node's pod", pods.delete("theirs", &DeleteOptions::default()).await.map(drop));
    forbidden("a pod of its own making", pods.create(&pod("made", "far")).await.map(drop));
    let label = json!({"metadata": {"labels": {"a": "b"}}});
    forbidden("another node", nodes.patch("near", PatchType::Merge, &label).await.map(drop));
    assert!(nodes.patch("far", PatchType::Merge, &label).await.is_ok());
    let taint = json!({"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}});
    forbidden("its own taints", nodes.patch("far", PatchType::Merge, &taint).await.map(drop));
    let third: Node = serde_json::from_value(json!({"metadata": {"name": "third"}})).unwrap();
    forbidden("a node of another name", nodes.create(&third).await.map(drop));
    forbidden("configuration", node.api::<ConfigMap>("kube-system").list(&ListOptions::default()).await.map(drop));
    let requests = node.all::<CertificateSigningRequest>();
    forbidden("all requests for certificates", requests.list(&ListOptions::default()).await.map(drop));
    cluster.stop().await;
}

#[tokio::test]
async fn a_range_that_overlaps_with_another_nodes_is_refused_and_another_is_taken() {
    let cluster = cluster().await;
    let _far = remote(&cluster, "far").await;
    ready(&cluster, "far").await;
    let directory = tempfile::tempdir().unwrap();
    let token = cluster.join_token(HOUR).await.unwrap();
    let near = open(&config(&cluster, "near", Some(token), directory.path())).await.unwrap();
    let nodes = Client::new(Arc::new(near.transport())).all::<Node>();
    let with = |range: &str| -> Node {
        let spec = json!({"podCIDR": range, "podCIDRs": [range]});
        serde_json::from_value(json!({"metadata": {"name": "near"}, "spec": spec})).unwrap()
    };
    let refused = nodes.create(&with("10.244.8.0/22")).await.unwrap_err();
    assert_eq!(refused.reason, Reason::Forbidden, "{refused}");
    assert!(refused.message.contains("10.244.9.0/24") && refused.message.contains("\"far\""), "{refused}");
    assert!(nodes.create(&with("10.244.12.0/22")).await.is_ok());
    cluster.stop().await;
}

#[tokio::test]
async fn a_token_opens_nothing_but_the_door() {
    let cluster = cluster().await;
    let token = cluster.join_token(HOUR).await.unwrap();
    let bearer = token.reveal().split('@').next().unwrap().to_owned();
    let ca = cluster.kubeconfig().unwrap().ca_certificate.clone().into_bytes();
    let url = format!("https://{}", cluster.address().unwrap());
    let transport = GrpcTransport::new(&GrpcConfig { url, ca, token: bearer, ..GrpcConfig::default() }).unwrap();
    let client = Client::new(Arc::new(transport));
    let refused = client.all::<Node>().list(&ListOptions::default()).await.unwrap_err();
    assert_eq!(refused.reason, Reason::Forbidden, "{refused}");
    let refused = client.api::<Secret>("kube-system").list(&ListOptions::default()).await.unwrap_err();
    assert_eq!(refused.reason, Reason::Forbidden, "{refused}");
    // Asked for as a user of the API, it stays for a person to decide.
    let request = minik8s_core::server::tls::CertificateRequest::make(
        &minik8s_core::server::auth::User::new("mallory", &["system:masters"]),
        &minik8s_core::server::tls::new_key().unwrap(),
    )
    .unwrap();
    let csr = |signer: &str| -> CertificateSigningRequest {
        serde_json::from_value(json!({"metadata": {"generateName": "x-"}, "spec": {
            "request": k8s_openapi::ByteString(request.clone().into_bytes()), "signerName": signer,
            "username": "system:admin", "usages": ["client auth"]}}))
        .unwrap()
    };
    let requests = client.all::<CertificateSigningRequest>();
    let made = requests.create(&csr("kubernetes.io/kube-apiserver-client-kubelet")).await.unwrap();
    let (name, maker) = (made.metadata.name.unwrap(), made.spec.username.unwrap());
    assert_eq!(maker, format!("system:bootstrap:{}", token.id()), "the maker is never taken from the request");
    wait::until("it is denied", BOUND, || async {
        let status = requests.get(&name).await.ok()?.status?;
        assert!(status.certificate.is_none());
        status.conditions?.iter().any(|c| c.type_ == "Denied").then_some(())
    })
    .await;
    cluster.stop().await;
}

#[tokio::test]
async fn what_keeps_a_machine_out_is_told_apart() {
    let cluster = cluster().await;
    let directory = tempfile::tempdir().unwrap();
    let token = cluster.join_token(HOUR).await.unwrap();
    let text = token.reveal();
    let (_, pin) = text.split_once('@').unwrap();
    let with = |token: &JoinToken| config(&cluster, "n1", Some(token.clone()), directory.path());

    let wrong: JoinToken = format!("{}.0000000000000000@{pin}", token.id()).parse().unwrap();
    let error = refused(&with(&wrong)).await;
    assert!(matches!(&error, JoinError::Token(why) if why.contains("wrong")), "{error}");

    let unknown: JoinToken = format!("zzzzzz.0000000000000000@{pin}").parse().unwrap();
    let error = refused(&with(&unknown)).await;
    assert!(matches!(&error, JoinError::Token(why) if why.contains("no bootstrap token")), "{error}");

    let expired = cluster.join_token(SignedDuration::from_secs(-1)).await.unwrap();
    let error = refused(&with(&expired)).await;
    assert!(matches!(&error, JoinError::Token(why) if why.contains("expired")), "{error}");

    let other: JoinToken = text.replace(pin, &format!("sha256:{}", "00".repeat(32))).parse().unwrap();
    let error = refused(&with(&other)).await;
    assert!(matches!(&error, JoinError::WrongPin { found, .. } if found == pin), "{error}");

    let newer = JoinConfig { version: "v1.99.0+minik8s-9.9.9".into(), ..with(&token) };
    let error = refused(&newer).await;
    assert!(matches!(error, JoinError::NewerThanServer { .. }), "{error}");

    let nowhere = JoinConfig { server: "https://127.0.0.1:1".into(), ..with(&token) };
    let error = refused(&nowhere).await;
    assert!(matches!(error, JoinError::Unreachable { .. }), "{error}");

    let error = refused(&JoinConfig { token: None, ..with(&token) }).await;
    assert!(matches!(error, JoinError::NoToken), "{error}");

    cluster
        .client()
        .api::<Secret>("kube-system")
        .delete(&format!("bootstrap-token-{}", token.id()), &DeleteOptions::default())
        .await
        .unwrap();
    let error = refused(&with(&token)).await;
    assert!(matches!(&error, JoinError::Token(why) if why.contains("revoked")), "{error}");

    // After all of that, the same directory joins.
    let token = cluster.join_token(HOUR).await.unwrap();
    assert!(open(&with(&token)).await.is_ok());
    let renamed = config(&cluster, "n2", Some(token), directory.path());
    assert!(matches!(refused(&renamed).await, JoinError::OtherName { .. }));
    cluster.stop().await;
}

#[tokio::test]
async fn a_name_belongs_to_the_machine_that_took_it() {
    let cluster = cluster().await;
    let first = tempfile::tempdir().unwrap();
    let token = cluster.join_token(HOUR).await.unwrap();
    let at = |directory: &TempDir| config(&cluster, "n1", Some(token.clone()), directory.path());
    let membership = open(&at(&first)).await.unwrap();
    let second = tempfile::tempdir().unwrap();
    // Even before the first has registered its Node.
    let error = refused(&at(&second)).await;
    assert!(matches!(&error, JoinError::Denied { reason, .. } if reason == "NameTaken"), "{error}");
    assert!(error.to_string().contains("--node-name") && error.to_string().contains("delete node n1"), "{error}");
    let stop = run(&membership, "n1", first.path());
    ready(&cluster, "n1").await;
    let error = refused(&at(&second)).await;
    assert!(matches!(&error, JoinError::Denied { reason, .. } if reason == "NameTaken"), "{error}");
    // The machine itself, which lost its certificate but not its key, is known again.
    std::fs::remove_file(first.path().join("pki/node.crt")).unwrap();
    assert!(open(&at(&first)).await.is_ok());
    drop(stop);
    cluster.stop().await;
}

#[tokio::test]
async fn a_certificate_is_renewed_while_the_node_works() {
    let cluster = listening(Cluster::builder().certificate_life(SignedDuration::from_secs(15))).await;
    let far = remote(&cluster, "far").await;
    ready(&cluster, "far").await;
    let path = far._directory.path().join("pki/node.crt");
    let first = std::fs::read_to_string(&path).unwrap();
    wait::until("the certificate is another", BOUND, || async {
        std::fs::read_to_string(&path).ok().filter(|now| *now != first)
    })
    .await;
    wait::until("the first certificate has ended", BOUND, || async {
        let identity = minik8s_core::server::tls::Identity { certificate: first.clone(), key: String::new() };
        (identity.validity()?.1 < Timestamp::now()).then_some(())
    })
    .await;
    let node = Client::new(Arc::new(far.membership.transport()));
    assert!(node.all::<Node>().get("far").await.is_ok());
    cluster.stop().await;
}

#[tokio::test]
async fn an_expired_certificate_is_said_to_be_one_and_a_token_mends_it() {
    let cluster = listening(Cluster::builder().certificate_life(SignedDuration::from_secs(1))).await;
    let directory = tempfile::tempdir().unwrap();
    let token = cluster.join_token(HOUR).await.unwrap();
    let with_token = config(&cluster, "n1", Some(token), directory.path());
    let membership = open(&with_token).await.unwrap();
    let without = JoinConfig { token: None, ..with_token.clone() };
    let error = wait::until("the certificate expires", BOUND, || async { open(&without).await.err() }).await;
    assert!(matches!(error, JoinError::Expired { .. }), "{error}");
    assert!(error.to_string().contains("--token"), "{error}");
    let node = Client::new(Arc::new(membership.transport()));
    let told = node.all::<Node>().get("n1").await.unwrap_err();
    assert!(told.message.to_lowercase().contains("expired"), "{told}");
    assert!(open(&with_token).await.is_ok());
    cluster.stop().await;
}
