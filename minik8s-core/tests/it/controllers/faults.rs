//! Controllers while requests and answers are lost and watches are cut; afterwards everything must be as it should.

use super::*;
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use minik8s_core::client::DeleteOptions;

/// Does it all while one request in five fails, then without faults waits for the one right end.
async fn play(seed: u64) {
    let (world, faults) = World::faulty(seed).await;
    for name in ["one", "two"] {
        let value = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        world.create::<Namespace>(value).await;
        world.create::<Deployment>(deployment(name, "web", 3, "app:1")).await;
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": name},
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}});
        world.create::<Service>(service).await;
    }
    for step in 2..6 {
        let image = json!({"spec": {"replicas": step,
            "template": {"spec": {"containers": [{"name": "c", "image": format!("app:{step}")}]}}}});
        world.patch::<Deployment>("one", "web", image).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    world.client.all::<Namespace>().delete("two", &DeleteOptions::default()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    faults.heal();
    assert!(faults.faults() > 20, "seed {seed}: only {} faults", faults.faults());

    world.rolled_out("one", "web").await;
    let pods = world.ready_pods("one", "", 5).await;
    assert!(pods.iter().all(|p| p.spec.as_ref().unwrap().containers[0].image.as_deref() == Some("app:5")));
    world.gone::<Namespace>("", "two").await;
    assert!(world.list::<Pod>("two", "").await.is_empty());
    wait::until("the service leads to all five", BOUND, || async {
        let slices = world.list::<EndpointSlice>("one", "kubernetes.io/service-name=web").await;
        let endpoints: Vec<_> = slices.into_iter().flat_map(|s| s.endpoints).collect();
        let ready = |e: &k8s_openapi::api::discovery::v1::Endpoint| e.conditions.as_ref().unwrap().ready == Some(true);
        (endpoints.len() == 5 && endpoints.iter().all(ready)).then_some(())
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn everything_heals_after_faults() {
    for seed in [1, 2, 3] {
        println!("seed {seed}");
        play(seed).await;
    }
}
