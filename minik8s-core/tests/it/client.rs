//! The client against the real API server: the API's suite over gRPC, informers, events.

use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Event};
use minik8s_core::api::{ApiResult, Gvr, Reason, Target};
use minik8s_core::client::{
    Change, Client, ClientIdentity, EventRecorder, EventType, Informer, InformerOptions, reference_of,
};
use minik8s_core::client::{DeleteOptions, PatchType, Payload, Transport, WatchOptions, WriteOptions};
use minik8s_core::client::{GrpcConfig, GrpcTransport, ListOptions, SharedTransport};
use minik8s_core::cluster::Cluster;
use minik8s_core::node::FilesWish;
use minik8s_core::server::ApiServer;
use minik8s_core::server::auth::{Attributes, Authorizer, User, forbidden};
use minik8s_core::store::MemoryStore;
use minik8s_core::testkit::served::Served;
use minik8s_core::testkit::{api::run_all, grpc, wait};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const BOUND: Duration = Duration::from_secs(30);

async fn server() -> SharedTransport {
    ApiServer::builder(Arc::new(MemoryStore::new())).seed(1).start().await.unwrap()
}

fn map(name: &str, value: &str) -> ConfigMap {
    serde_json::from_value(
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"v": value}}),
    )
    .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_passes_the_suite_over_sockets() {
    let (transport, _server) = grpc::on_loopback(server().await).await.unwrap();
    run_all(Arc::new(transport)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_passes_the_suite_in_memory() {
    run_all(Arc::new(grpc::in_memory(server().await))).await;
}

/// Both ways in, one test each: what an informer shows is what the API has, in order and without gaps.
async fn informer_follows(transport: SharedTransport) {
    let client = Client::new(transport);
    let api = client.api::<ConfigMap>("default");
    api.create(&map("before", "1")).await.unwrap();
    let informer = Informer::start(api.clone(), InformerOptions::default(), CancellationToken::new());
    assert!(informer.synced().await);
    let mut changes = informer.subscribe();
    for i in 0..100 {
        api.create(&map(&format!("m{i:03}"), "1")).await.unwrap();
    }
    for i in 0..100 {
        let Some(Change::Applied { old: None, new }) = changes.next().await else { panic!("a change is missing") };
        assert_eq!(new.metadata.name, Some(format!("m{i:03}")));
    }
    let now = api.create(&map("last", "1")).await.unwrap();
    let revision = now.metadata.resource_version.unwrap().parse().unwrap();
    wait::until("the copy has caught up", BOUND, || async { (informer.revision() >= revision).then_some(()) }).await;
    assert_eq!(informer.list_in("default").len(), 102);
    api.delete("before", &Default::default()).await.unwrap();
    wait::until("it is gone", BOUND, || async { informer.get("default/before").is_none().then_some(()) }).await;
}

#[tokio::test]
async fn an_informer_follows_in_process() {
    informer_follows(server().await).await;
}

#[tokio::test]
async fn an_informer_follows_over_grpc() {
    let (transport, _server) = grpc::on_loopback(server().await).await.unwrap();
    informer_follows(Arc::new(transport)).await;
}

#[tokio::test]
async fn an_informer_survives_the_loss_of_its_server() {
    let api_server = server().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let front = grpc::serve(listener, api_server.clone());
    let config = minik8s_core::client::GrpcConfig { url: format!("http://{address}"), ..Default::default() };
    let remote = Client::new(Arc::new(GrpcTransport::new(&config).unwrap()));
    let local = Client::new(api_server.clone()).api::<ConfigMap>("default");
    let informer = Informer::start(remote.all::<ConfigMap>(), InformerOptions::default(), CancellationToken::new());
    assert!(informer.synced().await);
    drop(front);
    local.create(&map("missed", "1")).await.unwrap();
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    let _front = grpc::serve(listener, api_server);
    wait::until("what was missed is there", BOUND, || async { informer.get("default/missed") }).await;
}

#[tokio::test]
async fn grpc_and_rest_share_a_port_with_tls() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let cluster = Cluster::builder().listen(listener).without_controllers().start().await.unwrap();
    let access = cluster.kubeconfig().unwrap().clone();
    let config = GrpcConfig {
        url: access.server.clone(),
        ca: access.ca_certificate.clone().into_bytes(),
        identity: Some(ClientIdentity::new(&access.user.certificate, &access.user.key).unwrap()),
        ..GrpcConfig::default()
    };
    let client = Client::new(Arc::new(GrpcTransport::new(&config).unwrap()));
    let made = client.api::<ConfigMap>("default").create(&map("over-tls", "1")).await.unwrap();
    assert_eq!(made.data, map("over-tls", "1").data);
    let stranger = GrpcConfig { identity: None, ..config };
    let stranger = Client::new(Arc::new(GrpcTransport::new(&stranger).unwrap()));
    let refused = stranger.api::<ConfigMap>("default").get("over-tls").await.unwrap_err();
    assert!(matches!(refused.reason, Reason::Unauthorized | Reason::Forbidden), "{refused:?}");
    cluster.stop().await;
}

/// Says no to everything that is about secrets.
struct NoSecrets;

#[async_trait::async_trait]
impl Authorizer for NoSecrets {
    async fn authorize(&self, attributes: &Attributes<'_>) -> ApiResult<()> {
        match attributes.target {
            Some(target) if target.gvr.resource == "secrets" => Err(forbidden(attributes)),
            Some(target) if target.subresource.as_deref() == Some("files") => Err(forbidden(attributes)),
            _ => Ok(()),
        }
    }
}

#[tokio::test]
async fn the_authorizer_is_asked_about_every_call_over_grpc() {
    let served = Served::start_authorized(Arc::new(NoSecrets)).await;
    let transport = GrpcTransport::new(&served.grpc_config(&User::new("alice", &["dev"]))).unwrap();
    let maps = Target::in_namespace(Gvr::new("", "v1", "configmaps"), "default");
    transport.list(&maps, &ListOptions::default()).await.unwrap();
    let secrets = Target::in_namespace(Gvr::new("", "v1", "secrets"), "default");
    let one = Target::object(secrets.gvr.clone(), "default", "s");
    let body = || Payload::Json(r#"{"metadata": {"name": "s"}}"#.into());
    let (write, delete) = (WriteOptions::default(), DeleteOptions::default());
    let refusals = [
        transport.get(&one).await.map(drop),
        transport.list(&secrets, &ListOptions::default()).await.map(drop),
        transport.watch(&secrets, &WatchOptions::default()).await.map(drop),
        transport.create(&secrets, body(), &write).await.map(drop),
        transport.update(&one, body(), &write).await.map(drop),
        transport.patch(&one, PatchType::Merge, body(), &write).await.map(drop),
        transport.delete(&one, &delete).await.map(drop),
        transport.delete_collection(&secrets, &ListOptions::default(), &delete).await.map(drop),
    ];
    for refused in refusals {
        let refused = refused.unwrap_err();
        assert_eq!(refused.reason, Reason::Forbidden);
        assert!(refused.message.contains("alice") && refused.message.contains("secrets"), "{refused}");
    }
    // What is done counts, whatever it is called.
    let wish = FilesWish { patterns: vec!["*".into()], most: 1, digests: false };
    for called in [None, Some("binding")] {
        let pod = Target::object(Gvr::new("", "v1", "pods"), "default", "p");
        let pod = Target { subresource: called.map(str::to_owned), ..pod };
        let refused = transport.volume_files(&pod, "work", &wish).await.unwrap_err();
        assert_eq!(refused.reason, Reason::Forbidden, "{called:?}");
    }
}

/// A watch that nobody ends would hold the server up until it is cut.
#[tokio::test]
async fn watches_over_grpc_end_in_peace_with_the_server() {
    let served = Served::start().await;
    let transport = GrpcTransport::new(&served.grpc_config(&User::system())).unwrap();
    let maps = Target::in_namespace(Gvr::new("", "v1", "configmaps"), "default");
    let watch = transport.watch(&maps, &WatchOptions::default()).await.unwrap();
    served.stop().await;
    let rest: Vec<_> = watch.collect().await;
    assert!(rest.iter().all(Result::is_ok), "{:?}", rest.last());
}

#[tokio::test]
async fn repeated_events_become_one_with_a_count() {
    let client = Client::new(server().await);
    let about = client.api::<ConfigMap>("default").create(&map("a", "1")).await.unwrap();
    let recorder = EventRecorder::new(client.clone(), "tester", "n1");
    for _ in 0..5 {
        recorder.event(&reference_of(&about), EventType::Warning, "Odd", "something is odd");
    }
    recorder.event(&reference_of(&about), EventType::Normal, "Fine", "all is well");
    let selector = format!("involvedObject.uid={}", about.metadata.uid.unwrap());
    let options = ListOptions { field_selector: selector, ..ListOptions::default() };
    let events = wait::until("both are written", BOUND, || async {
        let list = client.all::<Event>().list(&options).await.unwrap().items;
        (list.len() == 2 && list.iter().any(|e| e.count == Some(5))).then_some(list)
    })
    .await;
    let odd = events.iter().find(|e| e.reason.as_deref() == Some("Odd")).unwrap();
    assert_eq!((odd.type_.as_deref(), odd.message.as_deref()), (Some("Warning"), Some("something is odd")));
    assert_eq!(odd.source.as_ref().unwrap().host.as_deref(), Some("n1"));
    assert!(odd.last_timestamp >= odd.first_timestamp);
}
