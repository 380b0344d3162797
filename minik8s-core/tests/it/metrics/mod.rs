//! What pods and nodes use, as clients of `metrics.k8s.io` see it. On fake nodes, over TLS where kubectl asks.

mod autoscaling;
mod named;
mod top;

use k8s_openapi::api::core::v1::Pod;
use minik8s_core::api::{ApiResult, Gvr, Target};
use minik8s_core::client::ListOptions;
use minik8s_core::cluster::{Cluster, ClusterBuilder};
use minik8s_core::testkit::kubectl::Kubectl;
use minik8s_core::testkit::{FakeRuntime, Load, wait};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

/// Nothing here takes longer, even on a busy machine.
pub(crate) const BOUND: Duration = Duration::from_secs(60);

/// A cluster of two fake nodes that listens on loopback.
pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) runtimes: [Arc<FakeRuntime>; 2],
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(|builder| builder).await
    }

    pub(crate) async fn with(configure: impl FnOnce(ClusterBuilder) -> ClusterBuilder) -> Self {
        let runtimes = [FakeRuntime::new(), FakeRuntime::new()];
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let builder = Cluster::builder().listen(listener);
        let nodes = builder.fake_node_with("n1", runtimes[0].clone()).fake_node_with("n2", runtimes[1].clone());
        Self { cluster: configure(nodes).start().await.unwrap(), runtimes }
    }

    pub(crate) fn kubectl(&self) -> Kubectl {
        Kubectl::new(self.cluster.kubeconfig().unwrap()).unwrap().unwrap()
    }

    /// What all containers of both nodes use.
    pub(crate) fn load(&self, of: impl Fn(&str, &str) -> Load + Clone + Send + 'static) {
        self.runtimes.iter().for_each(|runtime| runtime.load(of.clone()));
    }

    /// A pod on a node, which runs when this returns.
    pub(crate) async fn pod(&self, node: &str, name: &str, containers: &[&str], labels: Value) {
        let containers: Vec<Value> = containers.iter().map(|c| json!({"name": c, "image": "i"})).collect();
        let pod = json!({"metadata": {"name": name, "namespace": "default", "labels": labels},
            "spec": {"nodeName": node, "containers": containers}});
        let pods = self.cluster.client().api::<Pod>("default");
        pods.create(&serde_json::from_value(pod).unwrap()).await.unwrap();
        wait::until(&format!("pod {name} runs"), BOUND, || async {
            let phase = pods.get(name).await.unwrap().status?.phase?;
            (phase == "Running").then_some(())
        })
        .await;
    }

    pub(crate) async fn list(&self, target: &Target, selector: &str) -> ApiResult<Vec<Value>> {
        let options = ListOptions { label_selector: selector.to_owned(), ..ListOptions::default() };
        let list = self.cluster.transport().list(target, &options).await?;
        list.items.iter().map(|object| object.value()).collect()
    }
}

pub(crate) fn pods() -> Target {
    Target::in_namespace(Gvr::new("metrics.k8s.io", "v1beta1", "pods"), "default")
}

pub(crate) fn nodes() -> Target {
    Target::all(Gvr::new("metrics.k8s.io", "v1beta1", "nodes"))
}

/// Load by the name of the container: `c250` uses 250m and 250Mi.
pub(crate) fn by_name(_: &str, container: &str) -> Load {
    let amount = container.trim_start_matches('c').parse().unwrap_or(0);
    Load { milli_cpu: amount, memory_bytes: amount << 20 }
}
