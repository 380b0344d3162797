//! A cluster of one node for these tests: the real API server on a memory store, a fake runtime, a network without
//! packets, and an agent that can be killed.

use futures::StreamExt;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use minik8s_core::client::{Client, DeleteOptions};
use minik8s_core::network::{NetworkPlugin, NoopNetwork};
use minik8s_core::node::{ContainerRef, LogOptions, NodeAgent, NodeConfig};
use minik8s_core::server::ApiServer;
use minik8s_core::store::MemoryStore;
use minik8s_core::testkit::faults::FaultyTransport;
use minik8s_core::testkit::{FakeRuntime, wait};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) const NODE: &str = "n1";
/// Nothing here takes longer, even on a busy machine.
pub(crate) const BOUND: Duration = Duration::from_secs(60);

pub(crate) struct World {
    pub(crate) client: Client,
    pub(crate) runtime: Arc<FakeRuntime>,
    pub(crate) network: Arc<NoopNetwork>,
    pub(crate) config: NodeConfig,
    _dir: tempfile::TempDir,
    agent: Option<JoinHandle<()>>,
    /// The agent's way to the API, which can be cut.
    pub(crate) line: Arc<FaultyTransport>,
    _server: Arc<ApiServer>,
}

impl World {
    /// A world without an agent.
    pub(crate) async fn idle() -> Self {
        let server = ApiServer::builder(Arc::new(MemoryStore::new())).start().await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let mut config = NodeConfig::new(NODE, dir.path().join("data"));
        config.volume_period = Duration::from_millis(20);
        config.backoff_base = Duration::from_millis(50);
        config.backoff_max = Duration::from_millis(200);
        config.addresses = vec!["192.168.7.1".parse().unwrap()];
        let line = FaultyTransport::new(server.clone(), 1);
        line.heal();
        Self {
            line,
            client: Client::new(server.clone()),
            runtime: FakeRuntime::new(),
            network: Arc::new(NoopNetwork::new("10.200.0.0/24".parse().unwrap())),
            config,
            _dir: dir,
            agent: None,
            _server: server,
        }
    }

    pub(crate) async fn new() -> Self {
        let mut world = Self::idle().await;
        world.start();
        world
    }

    fn agent(&self) -> NodeAgent {
        let client = Client::new(self.line.clone());
        NodeAgent::builder(self.config.clone(), client, self.runtime.clone(), self.network.clone()).build()
    }

    /// Starts an agent over the same machine.
    pub(crate) fn start(&mut self) {
        self.agent = Some(tokio::spawn(self.agent().run(CancellationToken::new())));
    }

    /// Drops the agent wherever it is, as a kill would.
    pub(crate) async fn kill(&mut self) {
        if let Some(agent) = self.agent.take() {
            agent.abort();
            let _ = agent.await;
        }
    }

    pub(crate) async fn create(&self, name: &str, spec: Value) -> Pod {
        self.create_in("default", name, spec).await
    }

    /// A pod bound to the node.
    pub(crate) async fn create_in(&self, namespace: &str, name: &str, mut spec: Value) -> Pod {
        spec["nodeName"] = json!(NODE);
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace}, "spec": spec});
        self.client.api::<Pod>(namespace).create(&serde_json::from_value(pod).unwrap()).await.unwrap()
    }

    pub(crate) async fn get(&self, name: &str) -> Option<Pod> {
        self.client.api::<Pod>("default").get_opt(name).await.unwrap()
    }

    /// Waits until the pod is so.
    pub(crate) async fn until(&self, name: &str, what: &str, check: impl Fn(&Pod) -> bool) -> Pod {
        let what = format!("pod {name} {what}");
        let last = std::cell::RefCell::new(None);
        let found = tokio::time::timeout(
            BOUND,
            wait::until(&what, BOUND * 2, || async {
                let pod = self.get(name).await;
                *last.borrow_mut() = pod.clone();
                pod.filter(|pod| check(pod))
            }),
        )
        .await;
        found.unwrap_or_else(|_| {
            panic!("gave up waiting until {what}: {}", json!(last.borrow().as_ref().map(|p| &p.status)))
        })
    }

    pub(crate) async fn running(&self, name: &str) -> Pod {
        self.until(name, "is ready", |pod| condition(pod, "Ready") == Some(true)).await
    }

    pub(crate) async fn phase(&self, name: &str, phase: &str) -> Pod {
        self.until(name, &format!("is {phase}"), |pod| phase_of(pod) == phase).await
    }

    /// Waits until the first container waits for this reason.
    pub(crate) async fn waiting(&self, name: &str, reason: &str) -> Pod {
        self.until(name, &format!("waits for {reason}"), |pod| waiting_reason(pod).as_deref() == Some(reason)).await
    }

    pub(crate) async fn delete(&self, name: &str, grace: Option<i64>) {
        let options = DeleteOptions { grace_period_seconds: grace, ..DeleteOptions::default() };
        self.client.api::<Pod>("default").delete(name, &options).await.unwrap();
    }

    pub(crate) async fn gone(&self, name: &str) {
        let what = format!("pod {name} is gone");
        wait::until(&what, BOUND, || async { self.get(name).await.is_none().then_some(()) }).await;
    }

    /// Waits until nothing of any pod is left on the machine.
    pub(crate) async fn clean(&self) {
        wait::until("the machine is clean", BOUND, || async {
            let files = self.left_files();
            let networks = self.network.attachments().await.unwrap().len();
            (self.runtime.sandbox_ids().is_empty()
                && self.runtime.snapshot().is_empty()
                && networks == 0
                && files.is_empty())
            .then_some(())
        })
        .await;
    }

    pub(crate) fn left_files(&self) -> Vec<PathBuf> {
        let dirs = [self.config.data_dir.join("pods"), self.config.data_dir.join("logs")];
        let entries = dirs.iter().filter_map(|dir| std::fs::read_dir(dir).ok()).flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    }

    pub(crate) fn at(&self, pod: &Pod, container: &str) -> ContainerRef {
        ContainerRef {
            namespace: pod.metadata.namespace.clone().unwrap(),
            pod: pod.metadata.name.clone().unwrap(),
            uid: uid(pod),
            container: container.to_owned(),
        }
    }

    pub(crate) fn access(&self) -> Arc<dyn minik8s_core::node::NodeAccess> {
        self.agent().access()
    }

    pub(crate) async fn logs(&self, pod: &Pod, container: &str, previous: bool) -> String {
        let options = LogOptions { previous, ..LogOptions::default() };
        let stream = self.access().logs(&self.at(pod, container), options).await.unwrap();
        let chunks: Vec<_> = stream.collect().await;
        chunks.into_iter().map(|chunk| String::from_utf8(chunk.unwrap().to_vec()).unwrap()).collect()
    }

    /// The file a container sees at a path.
    pub(crate) fn file(&self, pod: &Pod, container: &str, path: &str) -> Option<String> {
        let spec = self.runtime.spec(&format!("{}-{container}-0", uid(pod)))?;
        let mounts = spec.mounts.iter().filter(|m| std::path::Path::new(path).starts_with(&m.target));
        let mount = mounts.max_by_key(|m| m.target.components().count())?;
        let rest = std::path::Path::new(path).strip_prefix(&mount.target).ok()?;
        let host = if rest.as_os_str().is_empty() { mount.source.clone() } else { mount.source.join(rest) };
        std::fs::read_to_string(host).ok()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(agent) = &self.agent {
            agent.abort();
        }
    }
}

pub(crate) fn uid(pod: &Pod) -> String {
    pod.metadata.uid.clone().unwrap()
}

pub(crate) fn phase_of(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

pub(crate) fn condition(pod: &Pod, kind: &str) -> Option<bool> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    Some(conditions.iter().find(|c| c.type_ == kind)?.status == "True")
}

/// The status of the first main container.
pub(crate) fn first(pod: &Pod) -> ContainerStatus {
    let status = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref()?.first().cloned());
    status.unwrap_or_default()
}

pub(crate) fn waiting_reason(pod: &Pod) -> Option<String> {
    first(pod).state?.waiting?.reason
}

pub(crate) fn one(image: &str, command: &[&str]) -> Value {
    json!({"containers": [{"name": "c", "image": image, "command": command}]})
}
