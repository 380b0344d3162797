//! Services and what stands behind them.

use super::*;
use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use minik8s_core::client::DeleteOptions;
use minik8s_core::testkit::sim_node::NOT_READY;
use std::collections::BTreeSet;

fn service(name: &str, selector: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": selector, "ports": [{"name": "http", "port": 80, "targetPort": "web"}]}})
}

impl World {
    /// Addresses that get traffic, by slices; the older form must agree.
    async fn backends(&self, service: &str) -> BTreeSet<String> {
        let slices = self.list::<EndpointSlice>("default", &format!("kubernetes.io/service-name={service}")).await;
        let ready =
            |e: &k8s_openapi::api::discovery::v1::Endpoint| e.conditions.as_ref().and_then(|c| c.ready) == Some(true);
        slices.iter().flat_map(|s| s.endpoints.iter()).filter(|e| ready(e)).flat_map(|e| e.addresses.clone()).collect()
    }

    async fn older(&self, service: &str) -> BTreeSet<String> {
        let endpoints = self.client.api::<Endpoints>("default").get_opt(service).await.unwrap();
        let subsets = endpoints.and_then(|e| e.subsets).unwrap_or_default();
        subsets.into_iter().flat_map(|s| s.addresses.unwrap_or_default()).map(|a| a.ip).collect()
    }

    async fn leads_to(&self, service: &str, pods: &[Pod]) {
        let want: BTreeSet<_> = pods.iter().filter_map(|p| p.status.as_ref()?.pod_ip.clone()).collect();
        wait::until(&format!("{service} leads to {want:?}"), BOUND, || async {
            (self.backends(service).await == want && self.older(service).await == want).then_some(())
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_leads_to_ready_pods_only_and_at_once() {
    let world = World::new().await;
    world.create::<Service>(service("web", json!({"app": "web"}))).await;
    world.leads_to("web", &[]).await;
    world.create::<Deployment>(deployment("default", "web", 3, "app:1")).await;
    let pods = world.ready_pods("default", "app=web", 3).await;
    world.leads_to("web", &pods).await;
    let sick = pods[0].metadata.name.clone().unwrap();
    world.patch::<Pod>("default", &sick, json!({"metadata": {"annotations": {NOT_READY: "1"}}})).await;
    world.leads_to("web", &pods[1..]).await;
    world.patch::<Pod>("default", &sick, json!({"metadata": {"annotations": {NOT_READY: null}}})).await;
    world.leads_to("web", &pods).await;
    world.client.api::<Pod>("default").delete(&sick, &DeleteOptions::default()).await.unwrap();
    let after = wait::until("it is replaced", BOUND, || async {
        let pods = world.ready_pods("default", "app=web", 3).await;
        pods.iter().all(|p| p.metadata.name.as_ref() != Some(&sick)).then_some(pods)
    })
    .await;
    world.leads_to("web", &after).await;
}

#[tokio::test(start_paused = true)]
async fn services_with_a_common_prefix_and_two_labels_stay_apart() {
    let world = World::new().await;
    world.create::<Service>(service("svc", json!({"app": "web", "tier": "front"}))).await;
    world.create::<Service>(service("svc2", json!({"app": "web2"}))).await;
    world.create::<Set>(replica_set("default", "a", 2, json!({"app": "web", "tier": "front"}))).await;
    world.create::<Set>(replica_set("default", "b", 2, json!({"app": "web", "tier": "back"}))).await;
    world.create::<Set>(replica_set("default", "c", 1, json!({"app": "web2"}))).await;
    let front = world.ready_pods("default", "app=web,tier=front", 2).await;
    let other = world.ready_pods("default", "app=web2", 1).await;
    world.leads_to("svc", &front).await;
    world.leads_to("svc2", &other).await;
    world.client.api::<Service>("default").delete("svc", &DeleteOptions::default()).await.unwrap();
    wait::until("what svc had is gone", BOUND, || async {
        let slices = world.list::<EndpointSlice>("default", "kubernetes.io/service-name=svc").await;
        let endpoints = world.client.api::<Endpoints>("default").get_opt("svc").await.unwrap();
        (slices.is_empty() && endpoints.is_none()).then_some(())
    })
    .await;
    world.leads_to("svc2", &other).await;
}

#[tokio::test(start_paused = true)]
async fn a_service_without_selector_keeps_what_its_user_wrote() {
    let world = World::new().await;
    world.create::<Service>(service("own", json!(null))).await;
    let own = json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "own", "namespace": "default"},
        "subsets": [{"addresses": [{"ip": "192.0.2.7"}], "ports": [{"port": 80}]}]});
    world.create::<Endpoints>(own).await;
    world.create::<Service>(service("web", json!({"app": "web"}))).await;
    world.create::<Set>(replica_set("default", "web", 1, json!({"app": "web"}))).await;
    let pods = world.ready_pods("default", "app=web", 1).await;
    world.leads_to("web", &pods).await;
    assert_eq!(world.older("own").await, ["192.0.2.7".to_owned()].into());
}
