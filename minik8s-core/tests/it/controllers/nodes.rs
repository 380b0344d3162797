//! Nodes that fall silent, and pods whose node is gone.

use super::*;
use k8s_openapi::api::core::v1::{Node, PodCondition, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use minik8s_core::api::Target;
use minik8s_core::client::{DeleteOptions, Payload, WriteOptions};

impl World {
    async fn node_is(&self, name: &str, ready: &str) -> Node {
        wait::until(&format!("{name} is Ready={ready}"), BOUND, || async {
            let node = self.client.all::<Node>().get(name).await.unwrap();
            let conditions = node.status.as_ref()?.conditions.as_ref()?;
            (conditions.iter().find(|c| c.type_ == "Ready")?.status == ready).then_some(node)
        })
        .await
    }

    async fn tainted(&self, name: &str, yes: bool) {
        wait::until(&format!("{name} is tainted: {yes}"), BOUND, || async {
            let node = self.client.all::<Node>().get(name).await.unwrap();
            let taints = node.spec.and_then(|s| s.taints).unwrap_or_default();
            let ours = taints.iter().filter(|t| t.key == "node.kubernetes.io/unreachable").count();
            (ours == if yes { 2 } else { 0 }).then_some(())
        })
        .await;
    }

    /// Waits for as long as pods bear anything by default, and more.
    async fn a_long_time(&self) {
        tokio::time::sleep(Duration::from_secs(900)).await;
    }

    async fn ready_endpoints(&self) -> usize {
        let slices = self.list::<EndpointSlice>("default", "kubernetes.io/service-name=web").await;
        let ready =
            |e: &k8s_openapi::api::discovery::v1::Endpoint| e.conditions.as_ref().and_then(|c| c.ready) == Some(true);
        slices.iter().flat_map(|s| s.endpoints.iter()).filter(|e| ready(e)).count()
    }
}

fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == kind)
}

fn ready_reason(pod: &Pod) -> Option<String> {
    condition(pod, "Ready")?.reason.clone()
}

#[tokio::test(start_paused = true)]
async fn a_lost_node_gets_no_traffic_loses_its_pods_and_recovers() {
    let mut world = World::new().await;
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "default"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}});
    world.create::<Service>(service).await;
    world.create::<Set>(replica_set("default", "web", 2, json!({"app": "web"}))).await;
    let before = world.ready_pods("default", "app=web", 2).await;
    wait::until("both get traffic", BOUND, || async { (world.ready_endpoints().await == 2).then_some(()) }).await;
    let _other = world.node("node-12", "10.1.2", false).await;

    world.node = None;
    world.node_is("node-1", "Unknown").await;
    world.tainted("node-1", true).await;
    world.tainted("node-12", false).await;
    wait::until("no traffic goes there", BOUND, || async { (world.ready_endpoints().await == 0).then_some(()) }).await;
    wait::until("they say so", BOUND, || async {
        let pods = world.list::<Pod>("default", "app=web").await;
        pods.iter().all(|p| ready_reason(p).as_deref() == Some("NodeNotReady")).then_some(())
    })
    .await;
    wait::until("the set counts them as not ready", BOUND, || async {
        let set = world.client.api::<Set>("default").get("web").await.unwrap();
        (set.status?.ready_replicas.unwrap_or(0) == 0).then_some(())
    })
    .await;

    let _third = world.node("node-3", "10.1.3", true).await;
    let long = Duration::from_secs(900);
    wait::until("the pods were evicted and live elsewhere", long, || async {
        let pods = world.list::<Pod>("default", "app=web").await;
        let on = |node: &str| {
            let here = |p: &&Pod| p.spec.as_ref().unwrap().node_name.as_deref() == Some(node);
            pods.iter().filter(here).filter(|p| p.metadata.deletion_timestamp.is_none()).count()
        };
        (on("node-1") == 0 && on("node-3") == 2).then_some(())
    })
    .await;

    let still = world.list::<Pod>("default", "app=web").await;
    let disrupted = |p: &Pod| condition(p, "DisruptionTarget").is_some_and(|c| c.status == "True");
    assert_eq!(still.iter().filter(|p| disrupted(p)).count(), 2, "nobody confirms that they have ended");
    world.node = Some(world.node("node-1", "10.1.1", false).await);
    world.node_is("node-1", "True").await;
    world.tainted("node-1", false).await;
    wait::until("what it had left is gone", BOUND, || async {
        let pods = world.list::<Pod>("default", "app=web").await;
        let old: Vec<_> = before.iter().map(|p| p.metadata.uid.clone()).collect();
        pods.iter().all(|p| !old.contains(&p.metadata.uid)).then_some(())
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn pods_of_a_node_that_does_not_exist_are_removed() {
    let world = World::new().await;
    let stray = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "stray", "namespace": "default"},
        "spec": {"nodeName": "node-99", "containers": [{"name": "c", "image": "app:1"}]}});
    world.create::<Pod>(stray).await;
    world.gone::<Pod>("default", "stray").await;
    world.create::<Set>(replica_set("default", "web", 1, json!({"app": "web"}))).await;
    let pods = world.ready_pods("default", "app=web", 1).await;
    let mut world = world;
    world.node = None;
    world.client.all::<Node>().delete("node-1", &DeleteOptions::default()).await.unwrap();
    world.gone::<Pod>("default", pods[0].metadata.name.as_deref().unwrap()).await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_bound_to_a_node_that_is_lost_already_leaves_when_its_toleration_ends() {
    let mut world = World::new().await;
    let _other = world.node("node-2", "10.1.2", false).await;
    world.node = None;
    world.tainted("node-1", true).await;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "late", "namespace": "default"},
        "spec": {"containers": [{"name": "c", "image": "app:1"}], "tolerations": [{"operator": "Exists",
            "key": "node.kubernetes.io/unreachable", "effect": "NoExecute", "tolerationSeconds": 7}]}});
    world.create::<Pod>(pod).await;
    let body = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "late", "namespace": "default"},
        "target": {"kind": "Node", "name": "node-1"}});
    let target = Target::object(Pod::gvr(), "default", "late").sub("binding");
    let body = Payload::Json(body.to_string().into());
    world.client.transport().create(&target, body, &WriteOptions::default()).await.unwrap();
    wait::until("it is told to leave", BOUND, || async {
        let pod = world.client.api::<Pod>("default").get_opt("late").await.unwrap();
        pod.is_none_or(|p| p.metadata.deletion_timestamp.is_some()).then_some(())
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn nobody_is_evicted_while_nobody_answers_and_who_is_dead_then_loses_its_pods() {
    let mut world = World::new().await;
    world.create::<Set>(replica_set("default", "web", 2, json!({"app": "web"}))).await;
    world.ready_pods("default", "app=web", 2).await;
    let other = world.node("node-2", "10.1.2", false).await;

    drop(other);
    world.node_is("node-2", "Unknown").await;
    world.tainted("node-2", true).await;
    world.node = None;
    world.node_is("node-1", "Unknown").await;
    let verdicts = async || {
        let nodes = world.client.all::<Node>().list(&ListOptions::default()).await.unwrap().items;
        let taints = nodes.iter().flat_map(|n| n.spec.iter().flat_map(|s| s.taints.iter().flatten()));
        taints.filter(|t| t.effect == "NoExecute").count()
    };
    wait::until("what was decided is taken back", BOUND, || async { (verdicts().await == 0).then_some(()) }).await;
    world.a_long_time().await;
    let pods = world.list::<Pod>("default", "app=web").await;
    assert!(pods.len() == 2 && pods.iter().all(|p| p.metadata.deletion_timestamp.is_none()), "they stay");
    assert_eq!(verdicts().await, 0);

    let _back = world.node("node-2", "10.1.2", true).await;
    world.tainted("node-1", true).await;
    world.tainted("node-2", false).await;
    wait::until("they live elsewhere", Duration::from_secs(900), || async {
        let pods = world.list::<Pod>("default", "app=web").await;
        let there = |p: &&Pod| p.spec.as_ref().unwrap().node_name.as_deref() == Some("node-2") && is_ready(p);
        (pods.iter().filter(there).count() == 2).then_some(())
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn pods_of_a_node_declared_dead_go_without_its_word() {
    let mut world = World::new().await;
    let _other = world.node("node-2", "10.1.2", false).await;
    world.create::<Set>(replica_set("default", "web", 1, json!({"app": "web"}))).await;
    let pod = world.ready_pods("default", "app=web", 1).await.remove(0);
    let name = pod.metadata.name.unwrap();
    world.node = None;
    world.node_is("node-1", "Unknown").await;
    world.client.api::<Pod>("default").delete(&name, &DeleteOptions::default()).await.unwrap();
    world.a_long_time().await;
    let there = world.client.api::<Pod>("default").get(&name).await.unwrap();
    assert!(there.metadata.deletion_timestamp.is_some(), "its containers may still run");
    let mut node = world.client.all::<Node>().get("node-1").await.unwrap();
    let taint = json!({"key": "node.kubernetes.io/out-of-service", "value": "dead", "effect": "NoExecute"});
    node.spec.get_or_insert_default().taints.get_or_insert_default().push(serde_json::from_value(taint).unwrap());
    world.client.all::<Node>().update(&node).await.unwrap();
    world.gone::<Pod>("default", &name).await;
}
