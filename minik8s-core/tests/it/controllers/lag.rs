//! Controllers whose informers tell more at once than they can follow: what was missed is made up for.

use super::*;
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use minik8s_core::client::DeleteOptions;

/// More changes than anyone may lag behind.
const MANY: usize = 700;

fn at_once() -> DeleteOptions {
    DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() }
}

fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default", "labels": {"app": name}},
        "spec": {"containers": [{"name": "c", "image": "app:1"}]}})
}

fn map(name: &str, owners: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default", "ownerReferences": owners}})
}

impl World {
    async fn touch<K: ApiResource>(&self, name: &str) {
        for i in 0..MANY {
            let note = json!({"metadata": {"annotations": {"test/count": i.to_string()}}});
            self.patch::<K>("default", name, note).await;
        }
    }

    async fn endpoints(&self, service: &str, count: usize) {
        wait::until(&format!("{service} leads to {count}"), BOUND, || async {
            let slices = self.list::<EndpointSlice>("default", &format!("kubernetes.io/service-name={service}")).await;
            (slices.iter().map(|s| s.endpoints.len()).sum::<usize>() == count).then_some(())
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn deletions_that_were_missed_are_made_up_for() {
    let (world, faults) = World::faulty(1).await;
    faults.heal();
    world.create::<Pod>(pod("lone")).await;
    world.create::<Pod>(pod("busy")).await;
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "lone", "namespace": "default"},
        "spec": {"selector": {"app": "lone"}, "ports": [{"port": 80}]}});
    world.create::<Service>(service).await;
    world.create::<Set>(replica_set("default", "web", 2, json!({"app": "web"}))).await;
    let parent: ConfigMap = world.create(map("parent", json!(null))).await;
    let owner = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "parent", "uid": parent.metadata.uid}]);
    world.create::<ConfigMap>(map("child", owner)).await;
    world.create::<ConfigMap>(map("busy", json!(null))).await;
    let before = world.ready_pods("default", "app=web", 2).await;
    world.endpoints("lone", 1).await;
    // Whoever looks at the child for the first time must not find its parent gone already.
    tokio::time::sleep(Duration::from_secs(1)).await;

    faults.hold(true);
    for name in before.iter().filter_map(|p| p.metadata.name.as_deref()).chain(["lone"]) {
        world.client.api::<Pod>("default").delete(name, &at_once()).await.unwrap();
    }
    world.client.api::<ConfigMap>("default").delete("parent", &DeleteOptions::default()).await.unwrap();
    world.touch::<Pod>("busy").await;
    world.touch::<ConfigMap>("busy").await;
    // What is held comes to the end of what there is.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(world.client.api::<ConfigMap>("default").get_opt("child").await.unwrap().is_some());
    assert!(world.list::<Pod>("default", "app=web").await.is_empty());
    faults.hold(false);

    world.gone::<ConfigMap>("default", "child").await;
    world.endpoints("lone", 0).await;
    world.ready_pods("default", "app=web", 2).await;
}
