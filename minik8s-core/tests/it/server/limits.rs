//! Places that are few: cluster addresses and node ports run out, and come back.

use super::{body, builder};
use futures::future::join_all;
use minik8s_core::api::{ApiResult, Gvr, Target};
use minik8s_core::client::{DeleteOptions, Transport, WriteOptions};
use minik8s_core::server::{ApiServer, Settings};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;

fn services() -> Target {
    Target::in_namespace(Gvr::new("", "v1", "services"), "default")
}

async fn service(server: &Arc<ApiServer>, name: &str, kind: &str) -> ApiResult<Value> {
    let object = json!({"metadata": {"name": name}, "spec": {"type": kind, "ports": [{"port": 80}]}});
    server.create(&services(), body(&object), &WriteOptions::default()).await?.object.value()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_are_given_once_until_there_are_none() {
    let settings = Settings { service_cidr: "10.96.0.0/29".parse().unwrap(), ..Settings::default() };
    let server = builder().settings(settings).start().await.unwrap();
    let names: Vec<String> = (0..5).map(|n| format!("s{n}")).collect();
    let made = join_all(names.iter().map(|name| service(&server, name, "ClusterIP"))).await;
    let addresses: BTreeSet<String> =
        made.into_iter().map(|s| s.unwrap()["spec"]["clusterIP"].as_str().unwrap().to_owned()).collect();
    let want = ["10.96.0.2", "10.96.0.3", "10.96.0.4", "10.96.0.5", "10.96.0.6"];
    assert_eq!(addresses.iter().map(String::as_str).collect::<Vec<_>>(), want);
    let error = service(&server, "more", "ClusterIP").await.unwrap_err();
    assert_eq!(error.message, "failed to allocate a cluster IP: range 10.96.0.0/29 is full");
    let one = Target { name: Some("s3".into()), ..services() };
    server.delete(&one, &DeleteOptions::default()).await.unwrap();
    assert!(service(&server, "more", "ClusterIP").await.is_ok(), "a deleted service gives its address back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_ports_are_given_once_until_there_are_none() {
    let server =
        builder().settings(Settings { node_ports: (30000, 30002), ..Settings::default() }).start().await.unwrap();
    let names = ["a", "b", "c"];
    let made = join_all(names.iter().map(|name| service(&server, name, "NodePort"))).await;
    let ports: BTreeSet<i64> =
        made.into_iter().map(|s| s.unwrap()["spec"]["ports"][0]["nodePort"].as_i64().unwrap()).collect();
    assert_eq!(ports, BTreeSet::from([30000, 30001, 30002]));
    let error = service(&server, "d", "NodePort").await.unwrap_err();
    assert_eq!(error.message, "failed to allocate a node port: range 30000-30002 is full");
}
