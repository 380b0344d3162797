//! Disruption budgets, and the evictions that they allow.

use super::*;
use k8s_openapi::api::policy::v1::PodDisruptionBudget as Budget;
use minik8s_core::api::{ApiError, Reason, Target};
use minik8s_core::client::{Payload, WriteOptions};

impl World {
    async fn evict(&self, pod: &str, options: &WriteOptions) -> Result<(), ApiError> {
        let body = json!({"apiVersion": "policy/v1", "kind": "Eviction",
            "metadata": {"name": pod, "namespace": "default"}, "deleteOptions": {"gracePeriodSeconds": 5}});
        let target = Target::object(Pod::gvr(), "default", pod).sub("eviction");
        let body = Payload::Json(body.to_string().into());
        self.client.transport().create(&target, body, options).await.map(drop)
    }

    async fn budget(&self, spec: Value) {
        let mut spec = spec;
        spec["selector"] = json!({"matchLabels": {"app": "web"}});
        self.create::<Budget>(json!({"metadata": {"name": "web", "namespace": "default"}, "spec": spec})).await;
    }

    async fn allows(&self, expected: i32, desired: i32, allowed: i32) {
        wait::until(&format!("the budget allows {allowed} of {expected}"), BOUND, || async {
            let status = self.client.api::<Budget>("default").get("web").await.unwrap().status?;
            let told = (status.expected_pods, status.desired_healthy, status.disruptions_allowed);
            (told == (expected, desired, allowed)).then_some(())
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn evictions_wait_for_replacements() {
    let world = World::new().await;
    world.create::<Deployment>(deployment("default", "web", 4, "app:1")).await;
    let pods = names(&world.ready_pods("default", "app=web", 4).await);
    let pods: Vec<_> = pods.iter().map(|key| key.strip_prefix("default/").unwrap()).collect();
    world.budget(json!({"maxUnavailable": "25%"})).await;
    world.allows(4, 3, 1).await;

    let dry = WriteOptions { dry_run: true, ..WriteOptions::default() };
    world.evict(pods[0], &dry).await.unwrap();
    world.allows(4, 3, 1).await;
    // Whoever comes second finds nothing left, however close it comes.
    let now = WriteOptions::default();
    let (one, two, three) =
        tokio::join!(world.evict(pods[0], &now), world.evict(pods[1], &now), world.evict(pods[2], &now));
    let refusals: Vec<_> = [one, two, three].into_iter().filter_map(Result::err).collect();
    assert_eq!(refusals.len(), 2, "{refusals:?}");
    for refusal in refusals {
        assert_eq!(refusal.reason, Reason::TooManyRequests);
        assert_eq!(refusal.message, "Cannot evict pod as it would violate the pod's disruption budget.");
        assert_eq!(refusal.details.causes[0].reason, "DisruptionBudget");
    }
    // A replacement is ready by and by, and then another one may go.
    world.allows(4, 3, 1).await;
    let left = names(&world.ready_pods("default", "app=web", 4).await);
    world.evict(left[0].strip_prefix("default/").unwrap(), &now).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_budget_of_pods_that_nobody_scales_says_so_and_allows_nothing() {
    let world = World::new().await;
    world.create::<Set>(replica_set("default", "web", 1, json!({"app": "web"}))).await;
    let pod = world.ready_pods("default", "app=web", 1).await.remove(0);
    let owner = json!({"metadata": {"ownerReferences": [
        {"apiVersion": "example.org/v1", "kind": "Herd", "name": "h", "uid": "u", "controller": true}]}});
    world.patch::<Set>("default", "web", json!({"spec": {"replicas": 0}})).await;
    world.gone::<Pod>("default", pod.metadata.name.as_deref().unwrap()).await;
    let mut lonely = json!({"metadata": {"name": "lonely", "namespace": "default", "labels": {"app": "web", "own": "x"}},
        "spec": {"containers": [{"name": "c", "image": "app:1"}]}});
    lonely["metadata"]["ownerReferences"] = owner["metadata"]["ownerReferences"].clone();
    world.create::<Pod>(lonely).await;
    world.ready_pods("default", "own=x", 1).await;
    world.budget(json!({"maxUnavailable": 1})).await;
    wait::until("it says why", BOUND, || async {
        let status = world.client.api::<Budget>("default").get("web").await.unwrap().status?;
        let condition = status.conditions?.into_iter().find(|c| c.reason == "SyncFailed")?;
        condition.message.contains("Herd \"h\", which owns pod \"lonely\", has no scale").then_some(())
    })
    .await;
    let refused = world.evict("lonely", &WriteOptions::default()).await.unwrap_err();
    assert_eq!(refused.reason, Reason::TooManyRequests);
}
