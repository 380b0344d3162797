//! ConfigMaps, Secrets and volumes as containers see them.

use super::world::{BOUND, World, first, one, uid};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use minik8s_core::client::PatchType;
use minik8s_core::testkit::wait;
use serde_json::{Value, json};

impl World {
    async fn config_map(&self, name: &str, data: Value) {
        let map: ConfigMap =
            serde_json::from_value(json!({"metadata": {"name": name, "namespace": "default"}, "data": data})).unwrap();
        self.client.api::<ConfigMap>("default").create(&map).await.unwrap();
    }

    async fn change(&self, name: &str, data: Value) {
        let patch = json!({ "data": data });
        self.client.api::<ConfigMap>("default").patch(name, PatchType::Merge, &patch).await.unwrap();
    }
}

#[tokio::test]
async fn a_container_waits_for_its_config_map_and_starts_when_it_comes() {
    let world = World::new().await;
    let mut spec = one("web:1", &["sh", "-c", "echo $GREETING; sleep infinity"]);
    spec["containers"][0]["env"] =
        json!([{"name": "GREETING", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "k"}}}]);
    world.create("p", spec).await;
    let pod = world.waiting("p", "CreateContainerConfigError").await;
    let message = first(&pod).state.unwrap().waiting.unwrap().message.unwrap();
    assert_eq!(message, "configmap \"cm\" not found");
    world.config_map("cm", json!({"k": "hi"})).await;
    let pod = world.running("p").await;
    wait::until("it has spoken", BOUND, || async { (world.logs(&pod, "c", false).await == "hi\n").then_some(()) })
        .await;
}

#[tokio::test]
async fn a_pod_waits_for_its_volumes_and_sees_their_changes() {
    let world = World::new().await;
    let mut spec = one("web:1", &[]);
    spec["volumes"] = json!([{"name": "v", "configMap": {"name": "cm"}}, {"name": "s", "secret": {"secretName": "s"}}]);
    spec["containers"][0]["volumeMounts"] = json!([{"name": "v", "mountPath": "/v"}, {"name": "s", "mountPath": "/s"}]);
    world.create("p", spec).await;
    world.waiting("p", "ContainerCreating").await;
    world.config_map("cm", json!({"k": "1"})).await;
    let secret: Secret =
        serde_json::from_value(json!({"metadata": {"name": "s", "namespace": "default"}, "data": {"p": "cHc="}}))
            .unwrap();
    world.client.api::<Secret>("default").create(&secret).await.unwrap();
    let pod = world.running("p").await;
    assert_eq!(world.file(&pod, "c", "/s/p").as_deref(), Some("pw"));
    assert_eq!(world.file(&pod, "c", "/v/k").as_deref(), Some("1"));
    world.change("cm", json!({"k": "2", "l": "3"})).await;
    wait::until("the change is seen", BOUND, || async {
        let both = (world.file(&pod, "c", "/v/k"), world.file(&pod, "c", "/v/l"));
        (both == (Some("2".into()), Some("3".into()))).then_some(())
    })
    .await;
}

#[tokio::test]
async fn two_pods_may_call_their_containers_alike_and_share_nothing() {
    let world = World::new().await;
    let spec = json!({"volumes": [{"name": "v", "emptyDir": {}}, {"name": "w", "emptyDir": {"medium": "Memory"}}],
        "containers": [
            {"name": "c", "image": "web:1", "command": ["sh", "-c", "echo $HOSTNAME > /v/f; sleep infinity"],
             "volumeMounts": [{"name": "v", "mountPath": "/v"}]},
            {"name": "d", "image": "web:1", "volumeMounts": [{"name": "v", "mountPath": "/x"}, {"name": "w", "mountPath": "/w"}]}]});
    world.create("web", spec.clone()).await;
    world.create("web2", spec).await;
    let (a, b) = (world.running("web").await, world.running("web2").await);
    for (pod, want) in [(&a, "web\n"), (&b, "web2\n")] {
        wait::until("the file is written", BOUND, || async {
            (world.file(pod, "d", "/x/f").as_deref() == Some(want)).then_some(())
        })
        .await;
    }
    world.delete("web", Some(1)).await;
    world.gone("web").await;
    assert_eq!(world.runtime.sandbox_ids(), [uid(&b)]);
    assert_eq!(world.runtime.snapshot().len(), 2);
    assert!(world.file(&b, "d", "/x/f").is_some());
}
