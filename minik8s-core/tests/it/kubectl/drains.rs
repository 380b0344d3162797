//! Emptying nodes.

use super::start;
use minik8s_core::client::Client;
use minik8s_core::clock::{SharedClock, SystemClock};
use minik8s_core::controllers::{self, ControllerManager, ControllersConfig};
use minik8s_core::scheduler::{SchedulerConfig, SchedulerLoop};
use minik8s_core::testkit::kubectl::Kubectl;
use minik8s_core::testkit::served::Served;
use minik8s_core::testkit::sim_node::{SimNode, SimNodeConfig};
use minik8s_core::testkit::wait;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::{CancellationToken, DropGuard};

const BOUND: Duration = Duration::from_secs(60);

struct World {
    kubectl: Kubectl,
    _nodes: Vec<SimNode>,
    _served: Served,
    _stop: DropGuard,
}

impl World {
    /// A server with all its loops and two simulated nodes; `None` where there is no kubectl.
    async fn new() -> Option<Self> {
        let (served, kubectl) = start().await?;
        let (client, clock): (_, SharedClock) = (Client::new(served.server.clone()), Arc::new(SystemClock));
        let stop = CancellationToken::new();
        let mut loops = controllers::all(&ControllersConfig::new(Arc::new(served.server.registry().clone())));
        loops.push(Arc::new(SchedulerLoop::new(SchedulerConfig::default())));
        tokio::spawn(ControllerManager::new(client.clone(), clock.clone(), loops).run(stop.clone()));
        let mut nodes = Vec::new();
        for i in 1..=2 {
            let config = SimNodeConfig {
                name: format!("node-{i}"),
                pod_prefix: format!("10.1.{i}"),
                binds: false,
                heartbeat: Duration::from_secs(10),
                clock: clock.clone(),
            };
            nodes.push(SimNode::start(client.clone(), config).await.unwrap());
        }
        Some(Self { kubectl, _nodes: nodes, _served: served, _stop: stop.drop_guard() })
    }

    async fn column(&self, what: &[&str], path: &str) -> Vec<String> {
        let output = format!("jsonpath={{range .items[*]}}{{{path}}} {{end}}");
        let said = self.kubectl.ok(&[&["get"], what, &["-o", &output]].concat()).await;
        said.split_whitespace().map(str::to_owned).collect()
    }

    async fn until_nodes_of_pods(&self, want: &[&str]) {
        wait::until(&format!("the pods are on {want:?}"), BOUND, || async {
            let ready = ["pods", "-l", "app=web", "--field-selector", "status.phase=Running"];
            let mut nodes = self.column(&ready, ".spec.nodeName").await;
            nodes.sort();
            (nodes == want).then_some(())
        })
        .await;
    }
}

const WEB: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: main, image: 'nginx:1.25', volumeMounts: [{name: v, mountPath: /v}]}]
      volumes: [{name: v, emptyDir: {}}]
";

#[tokio::test(flavor = "multi_thread")]
async fn an_unmodified_kubectl_drains_a_node() {
    let Some(world) = World::new().await else { return };
    let kubectl = &world.kubectl;
    kubectl.ok(&["cordon", "node-2"]).await;
    kubectl.ok_with_input(&["apply", "-f", "-"], WEB).await;
    world.until_nodes_of_pods(&["node-1", "node-1"]).await;
    kubectl.ok(&["uncordon", "node-2"]).await;
    let refused = kubectl.run(&["drain", "node-1"]).await;
    assert!(refused.code != 0 && refused.stderr.contains("delete-emptydir-data"), "{refused:?}");

    kubectl.ok(&["create", "poddisruptionbudget", "web", "--selector=app=web", "--min-available=2"]).await;
    wait::until("the budget is looked at", BOUND, || async {
        let table = kubectl.ok(&["get", "pdb", "web", "--no-headers"]).await;
        (table.split_whitespace().take(4).collect::<Vec<_>>() == ["web", "2", "N/A", "0"]).then_some(())
    })
    .await;
    let stuck = kubectl.run(&["drain", "node-1", "--delete-emptydir-data", "--timeout=3s"]).await;
    assert!(stuck.code != 0 && stuck.stderr.contains("it would violate the pod's disruption budget"), "{stuck:?}");

    kubectl.ok(&["patch", "pdb", "web", "--type=merge", "-p", r#"{"spec":{"minAvailable":1}}"#]).await;
    let drained = kubectl.ok(&["drain", "node-1", "--delete-emptydir-data", "--timeout=60s"]).await;
    assert!(drained.contains("evicting pod default/web-") && drained.contains("node/node-1 drained"), "{drained}");
    world.until_nodes_of_pods(&["node-2", "node-2"]).await;
    let node = kubectl.ok(&["get", "node", "node-1"]).await;
    assert!(node.contains("Ready,SchedulingDisabled"), "{node}");
    kubectl.ok(&["uncordon", "node-1"]).await;
}
