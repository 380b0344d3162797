//! Namespaces: their first content, and their end.

use super::*;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, ServiceAccount};
use minik8s_core::client::DeleteOptions;

async fn namespace(world: &World, name: &str) {
    let value = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    world.create::<Namespace>(value).await;
}

impl World {
    async fn furnished(&self, namespace: &str) {
        wait::until(&format!("{namespace} has its account and its authority"), BOUND, || async {
            let account = self.client.api::<ServiceAccount>(namespace).get_opt("default").await.unwrap();
            let map = self.client.api::<ConfigMap>(namespace).get_opt("kube-root-ca.crt").await.unwrap();
            (account.is_some() && map?.data?["ca.crt"].starts_with("-----BEGIN")).then_some(())
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn every_namespace_has_an_account_and_the_authority_and_gets_them_back() {
    let world = World::new().await;
    namespace(&world, "team").await;
    for name in ["default", "kube-system", "team"] {
        world.furnished(name).await;
    }
    world.client.api::<ServiceAccount>("team").delete("default", &DeleteOptions::default()).await.unwrap();
    world.patch::<ConfigMap>("team", "kube-root-ca.crt", json!({"data": {"ca.crt": "forged"}})).await;
    world.furnished("team").await;
}

#[tokio::test(start_paused = true)]
async fn a_namespace_goes_with_all_it_holds_and_leaves_its_neighbour_alone() {
    let world = World::new().await;
    for name in ["team", "team2"] {
        namespace(&world, name).await;
        world.create::<Deployment>(deployment(name, "web", 2, "app:1")).await;
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": name}});
        world.create::<Secret>(secret).await;
        world.ready_pods(name, "app=web", 2).await;
    }
    world.client.all::<Namespace>().delete("team", &DeleteOptions::default()).await.unwrap();
    world.gone::<Namespace>("", "team").await;
    assert!(world.list::<Pod>("team", "").await.is_empty());
    assert!(world.client.api::<Secret>("team").get_opt("s").await.unwrap().is_none());
    world.ready_pods("team2", "app=web", 2).await;
    assert!(world.client.api::<Secret>("team2").get_opt("s").await.unwrap().is_some());
    namespace(&world, "team").await;
    world.furnished("team").await;
    assert!(world.list::<Deployment>("team", "").await.is_empty(), "made again, it is empty");
}

#[tokio::test(start_paused = true)]
async fn a_namespace_waits_for_what_cannot_go_and_says_so() {
    let world = World::new().await;
    namespace(&world, "team").await;
    let held = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "held", "namespace": "team", "finalizers": ["test/hold"]}});
    world.create::<ConfigMap>(held).await;
    world.client.all::<Namespace>().delete("team", &DeleteOptions::default()).await.unwrap();
    wait::until("it says what remains", BOUND, || async {
        let team = world.client.all::<Namespace>().get("team").await.unwrap();
        let conditions = team.status.and_then(|s| s.conditions).unwrap_or_default();
        let remaining = conditions.into_iter().find(|c| c.type_ == "NamespaceContentRemaining")?;
        (remaining.status == "True" && remaining.message?.contains("configmaps has 1")).then_some(())
    })
    .await;
    world.patch::<ConfigMap>("team", "held", json!({"metadata": {"finalizers": null}})).await;
    world.gone::<Namespace>("", "team").await;
}
