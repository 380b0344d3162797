//! What Ingresses, Gateways, HTTPRoutes and Dns are told about themselves.

use super::World;
use k8s_openapi::api::core::v1::{Event, Node, Service};
use k8s_openapi::api::networking::v1::Ingress;
use minik8s_core::api::gateway::{Dns, Gateway, GatewayClass, HttpRoute};
use minik8s_core::client::{ListOptions, PatchType};
use minik8s_core::routing::GATEWAY_ANNOTATION;
use minik8s_core::testkit::wait;
use serde_json::{Value, json};

async fn web(world: &World, name: &str) {
    let spec = json!({"selector": {"app": name}, "ports": [{"port": 80}]});
    world.create::<Service>(json!({"metadata": {"name": name, "namespace": "default"}, "spec": spec})).await;
}

/// The node says that its gateway listens.
async fn listens(world: &World, ports: &[u16]) {
    let place = json!({"http": 80, "ports": ports}).to_string();
    world.patch::<Node>("", "node-1", json!({"metadata": {"annotations": {GATEWAY_ANNOTATION: place}}})).await;
    let addresses = json!({"status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]}});
    world.client.all::<Node>().patch_status("node-1", PatchType::StrategicMerge, &addresses).await.unwrap();
}

/// Waits until a condition of an object, found at a pointer, has this status and reason.
async fn until_says<K: minik8s_core::client::ApiResource>(
    world: &World,
    name: &str,
    list: &str,
    kind: &str,
    want: &str,
) {
    wait::until(&format!("{kind} of {name} is {want}"), super::BOUND, async || {
        let object = world.client.api::<K>("default").get(name).await.unwrap();
        let object = serde_json::to_value(object).unwrap();
        let mut all = object.pointer(list).and_then(Value::as_array).into_iter().flatten();
        let found = all.find(|c| c["type"] == kind)?;
        (format!("{} {}", found["status"].as_str()?, found["reason"].as_str()?) == want).then_some(())
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn gateways_and_routes_say_what_became_of_them() {
    let world = World::new().await;
    web(&world, "web").await;
    let gateway = json!({"metadata": {"name": "gw", "namespace": "default"}, "spec": {"gatewayClassName": "minik8s",
        "listeners": [{"name": "http", "port": 8080, "protocol": "HTTP"}]}});
    world.create::<Gateway>(gateway).await;
    let route = json!({"metadata": {"name": "r", "namespace": "default"}, "spec": {"parentRefs": [{"name": "gw"}],
        "rules": [{"backendRefs": [{"name": "web", "port": 80}, {"name": "gone", "port": 80}]}]}});
    world.create::<HttpRoute>(route).await;
    let class = wait::until("the class is accepted", super::BOUND, async || {
        let class = world.client.all::<GatewayClass>().get("minik8s").await.unwrap();
        class.status.filter(|s| s.conditions.iter().any(|c| c.status == "True"))
    });
    class.await;
    let (whole, parent) = ("/status/conditions", "/status/parents/0/conditions");
    until_says::<Gateway>(&world, "gw", whole, "Accepted", "True Accepted").await;
    until_says::<Gateway>(&world, "gw", whole, "Programmed", "False AddressNotAssigned").await;
    until_says::<HttpRoute>(&world, "r", parent, "Accepted", "True Accepted").await;
    until_says::<HttpRoute>(&world, "r", parent, "ResolvedRefs", "False BackendNotFound").await;
    web(&world, "gone").await;
    until_says::<HttpRoute>(&world, "r", parent, "ResolvedRefs", "True ResolvedRefs").await;
    listens(&world, &[80, 8080]).await;
    until_says::<Gateway>(&world, "gw", whole, "Programmed", "True Programmed").await;
    let gateway = world.client.api::<Gateway>("default").get("gw").await.unwrap();
    let status = gateway.status.unwrap();
    assert_eq!((status.listeners[0].attached_routes, status.addresses.len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn ingresses_get_a_class_addresses_and_events_and_a_dns_its_conditions() {
    let world = World::new().await;
    web(&world, "web").await;
    listens(&world, &[80]).await;
    let backend = |name: &str| json!({"service": {"name": name, "port": {"number": 80}}});
    let ingress =
        json!({"metadata": {"name": "i", "namespace": "default"}, "spec": {"defaultBackend": backend("gone")}});
    let made = world.create::<Ingress>(ingress).await;
    assert_eq!(made.spec.unwrap().ingress_class_name.as_deref(), Some("minik8s"));
    wait::until("the address is told", super::BOUND, async || {
        let ingress = world.client.api::<Ingress>("default").get("i").await.unwrap();
        ingress.status?.load_balancer?.ingress?.first()?.ip.clone()
    })
    .await;
    wait::until("the missing Service is told", super::BOUND, async || {
        let events = world.client.api::<Event>("default").list(&ListOptions::default()).await.unwrap().items;
        let says = |e: &Event| e.message.as_deref() == Some("there is no Service default/gone");
        events.iter().any(says).then_some(())
    })
    .await;
    let dns = |name: &str, service: &str| {
        json!({"metadata": {"name": name, "namespace": "default"}, "spec": {"host": format!("{name}.example"),
            "paths": [{"path": "/", "serviceName": service, "servicePort": 80}]}})
    };
    world.create::<Dns>(dns("good", "web")).await;
    world.create::<Dns>(dns("bad", "gone")).await;
    until_says::<Dns>(&world, "good", "/status/conditions", "Ready", "True Ready").await;
    until_says::<Dns>(&world, "bad", "/status/conditions", "Ready", "False BackendNotFound").await;
}
