//! ReplicaSets and Deployments.

use super::*;
use minik8s_core::client::{DeleteOptions, Propagation};
use minik8s_core::testkit::sim_node::NOT_READY;

#[tokio::test(start_paused = true)]
async fn a_set_keeps_its_number_up_and_down_and_replaces_what_goes() {
    let world = World::new().await;
    world.create::<Set>(replica_set("default", "web", 3, json!({"app": "web"}))).await;
    let first = world.ready_pods("default", "app=web", 3).await;
    let victim = first[0].metadata.name.clone().unwrap();
    world.client.api::<Pod>("default").delete(&victim, &DeleteOptions::default()).await.unwrap();
    wait::until("the victim is replaced", BOUND, || async {
        let pods = world.ready_pods("default", "app=web", 3).await;
        pods.iter().all(|p| p.metadata.name.as_ref() != Some(&victim)).then_some(())
    })
    .await;
    for replicas in [5, 1, 0, 2] {
        world.patch::<Set>("default", "web", json!({"spec": {"replicas": replicas}})).await;
        world.ready_pods("default", "app=web", replicas).await;
    }
    wait::until("the status says so", BOUND, || async {
        let set = world.client.api::<Set>("default").get("web").await.unwrap();
        let status = set.status.unwrap();
        let told = (status.replicas, status.ready_replicas, status.available_replicas, status.fully_labeled_replicas);
        (told == (2, Some(2), Some(2), Some(2)) && status.observed_generation == set.metadata.generation).then_some(())
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn deleting_the_last_set_removes_its_pods() {
    let world = World::new().await;
    world.create::<Set>(replica_set("default", "web", 2, json!({"app": "web"}))).await;
    world.ready_pods("default", "app=web", 2).await;
    let background = DeleteOptions { propagation: Some(Propagation::Background), ..DeleteOptions::default() };
    world.client.api::<Set>("default").delete("web", &background).await.unwrap();
    world.gone::<Set>("default", "web").await;
    world.ready_pods("default", "", 0).await;
}

#[tokio::test(start_paused = true)]
async fn names_and_labels_with_a_common_prefix_stay_apart() {
    let world = World::new().await;
    world.create::<Set>(replica_set("default", "web", 2, json!({"app": "web"}))).await;
    world.create::<Set>(replica_set("default", "web2", 3, json!({"app": "web2"}))).await;
    world.create::<Set>(replica_set("default", "both", 1, json!({"app": "db", "tier": "back"}))).await;
    world.create::<Set>(replica_set("default", "other", 2, json!({"app": "db", "tier": "front"}))).await;
    world.ready_pods("default", "app=web", 2).await;
    world.ready_pods("default", "app=web2", 3).await;
    world.ready_pods("default", "app=db,tier=back", 1).await;
    world.ready_pods("default", "app=db,tier=front", 2).await;
    world.patch::<Set>("default", "web", json!({"spec": {"replicas": 0}})).await;
    world.patch::<Set>("default", "both", json!({"spec": {"replicas": 3}})).await;
    world.ready_pods("default", "app=web", 0).await;
    world.ready_pods("default", "app=db,tier=back", 3).await;
    world.ready_pods("default", "app=web2", 3).await;
    world.ready_pods("default", "app=db,tier=front", 2).await;
}

#[tokio::test(start_paused = true)]
async fn the_same_names_live_in_two_namespaces() {
    let world = World::new().await;
    for (namespace, replicas) in [("one", 1), ("two", 3)] {
        let value = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        world.create::<k8s_openapi::api::core::v1::Namespace>(value).await;
        world.create::<Deployment>(deployment(namespace, "web", replicas, "app:1")).await;
    }
    world.ready_pods("one", "app=web", 1).await;
    let two = world.ready_pods("two", "app=web", 3).await;
    world.client.api::<Deployment>("one").delete("web", &DeleteOptions::default()).await.unwrap();
    world.ready_pods("one", "", 0).await;
    assert_eq!(names(&world.ready_pods("two", "app=web", 3).await), names(&two));
}

#[tokio::test(start_paused = true)]
async fn orphans_are_adopted_and_what_no_longer_matches_is_let_go() {
    let world = World::new().await;
    let stray = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "stray", "namespace": "default", "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": "app:1"}]}});
    world.create::<Pod>(stray).await;
    let set = world.create::<Set>(replica_set("default", "web", 2, json!({"app": "web"}))).await;
    let pods = world.ready_pods("default", "app=web", 2).await;
    let stray = pods.iter().find(|p| p.metadata.name.as_deref() == Some("stray")).unwrap();
    assert_eq!(owner(stray), set.metadata.uid);
    world.patch::<Pod>("default", "stray", json!({"metadata": {"labels": {"app": "mine"}}})).await;
    world.ready_pods("default", "app=web", 2).await;
    let free = wait::until("the stray is free", BOUND, || async {
        let pod = world.client.api::<Pod>("default").get("stray").await.unwrap();
        owner(&pod).is_none().then_some(pod)
    })
    .await;
    assert!(free.metadata.deletion_timestamp.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_rollout_goes_through_and_can_be_undone() {
    let world = World::new().await;
    world.create::<Deployment>(deployment("default", "web", 4, "app:1")).await;
    let first = world.rolled_out("default", "web").await;
    assert_eq!(reason(&first, "Available"), "MinimumReplicasAvailable");
    let image = |image: &str| {
        json!({"spec": {"template": {"spec": {"containers": [
            {"name": "c", "image": image, "ports": [{"name": "web", "containerPort": 8080}]}]}}}})
    };
    world.patch::<Deployment>("default", "web", image("app:2")).await;
    world.rolled_out("default", "web").await;
    world.patch::<Deployment>("default", "web", image("app:1")).await;
    let undone = world.rolled_out("default", "web").await;
    assert_eq!(undone.metadata.annotations.unwrap()["deployment.kubernetes.io/revision"], "3");
    let mut sets = world.list::<Set>("default", "app=web").await;
    sets.sort_by_key(|s| s.metadata.creation_timestamp.as_ref().map(|t| t.0));
    assert_eq!(sets.len(), 2);
    let images: Vec<_> = world.ready_pods("default", "app=web", 4).await;
    assert!(images.iter().all(|p| p.spec.as_ref().unwrap().containers[0].image.as_deref() == Some("app:1")));
    let told = world.list::<k8s_openapi::api::core::v1::Event>("default", "").await;
    assert!(told.iter().any(|e| e.reason.as_deref() == Some("ScalingReplicaSet")));
}

#[tokio::test(start_paused = true)]
async fn an_image_that_never_starts_does_not_take_the_old_pods_down() {
    let world = World::new().await;
    world.create::<Deployment>(deployment("default", "web", 4, "app:1")).await;
    world.rolled_out("default", "web").await;
    let broken = json!({"spec": {"progressDeadlineSeconds": 30,
        "template": {"spec": {"containers": [{"name": "c", "image": "broken:1"}]}}}});
    world.patch::<Deployment>("default", "web", broken).await;
    wait::until("the deadline is missed", BOUND, || async {
        let d = world.client.api::<Deployment>("default").get("web").await.unwrap();
        (reason(&d, "Progressing") == "ProgressDeadlineExceeded").then_some(())
    })
    .await;
    let ready = world.list::<Pod>("default", "app=web").await.iter().filter(|p| is_ready(p)).count();
    assert_eq!(ready, 3, "one of four may be missing");
}

#[tokio::test(start_paused = true)]
async fn recreate_never_runs_two_templates_at_once() {
    let world = World::new().await;
    let mut value = deployment("default", "web", 2, "app:1");
    value["spec"]["strategy"] = json!({"type": "Recreate"});
    world.create::<Deployment>(value).await;
    world.rolled_out("default", "web").await;
    let image = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "app:2"}]}}}});
    world.patch::<Deployment>("default", "web", image).await;
    wait::until("it is rolled out, one template at a time", BOUND, || async {
        let pods = world.list::<Pod>("default", "app=web").await;
        let images: std::collections::BTreeSet<_> =
            pods.iter().map(|p| p.spec.as_ref().unwrap().containers[0].image.clone()).collect();
        assert!(images.len() <= 1, "{images:?} at once");
        (pods.len() == 2 && images.contains(&Some("app:2".to_owned()))).then_some(())
    })
    .await;
    world.rolled_out("default", "web").await;
}

#[tokio::test(start_paused = true)]
async fn scale_pause_and_deletion_of_a_deployment() {
    let world = World::new().await;
    world.create::<Deployment>(deployment("default", "web", 1, "app:1")).await;
    world.rolled_out("default", "web").await;
    let pause = json!({"spec": {"paused": true, "replicas": 3,
        "template": {"spec": {"containers": [{"name": "c", "image": "app:2"}]}}}});
    world.patch::<Deployment>("default", "web", pause).await;
    let pods = world.ready_pods("default", "app=web", 3).await;
    assert!(pods.iter().all(|p| p.spec.as_ref().unwrap().containers[0].image.as_deref() == Some("app:1")));
    world.patch::<Deployment>("default", "web", json!({"spec": {"paused": null}})).await;
    world.rolled_out("default", "web").await;
    world.client.api::<Deployment>("default").delete("web", &DeleteOptions::default()).await.unwrap();
    world.gone::<Deployment>("default", "web").await;
    wait::until("nothing is left", BOUND, || async {
        let left = world.list::<Set>("default", "").await.len() + world.list::<Pod>("default", "").await.len();
        (left == 0).then_some(())
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn pods_count_as_available_only_after_their_time() {
    let world = World::new().await;
    let mut value = replica_set("default", "web", 1, json!({"app": "web"}));
    value["spec"]["minReadySeconds"] = json!(30);
    world.create::<Set>(value).await;
    let pods = world.ready_pods("default", "app=web", 1).await;
    let available = || async {
        let set = world.client.api::<Set>("default").get("web").await.unwrap();
        set.status.and_then(|s| s.available_replicas).unwrap_or(0)
    };
    assert_eq!(available().await, 0);
    wait::until("it is available", BOUND, || async { (available().await == 1).then_some(()) }).await;
    let name = pods[0].metadata.name.clone().unwrap();
    world.patch::<Pod>("default", &name, json!({"metadata": {"annotations": {NOT_READY: "1"}}})).await;
    wait::until("it is not any more", BOUND, || async { (available().await == 0).then_some(()) }).await;
}
