//! The agent itself: starts the loops, finds what an earlier agent left, and keeps one worker per pod.

use super::access::NodeAccess;
use super::companion::{self, Companion};
use super::config::NodeConfig;
use super::context::Context;
use super::images::PullLocks;
use super::lease::keep_lease;
use super::pods::{PodHandle, Pods};
use super::range::await_range;
use super::recover::{Remains, Roster};
use super::refs::Refs;
use super::status::{Health, NodeHealth, keep_status};
use super::streams::Access;
use super::worker::{Found, Worker};
use super::{eviction, pod, proxy};
use crate::client::{Backoff, Change, Changes, Client, EventRecorder, Informer, InformerOptions, Informers};
use crate::clock::{SharedClock, SystemClock};
use crate::network::SharedNetwork;
use crate::runtime::{RuntimeCapabilities, RuntimeEvent, SharedRuntime};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use parking_lot::RwLock;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Waits between tries at what must work in the end.
const RETRY: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));

/// Makes the pods bound to one node real. See [`NodeAgent::builder`].
pub struct NodeAgent {
    config: NodeConfig,
    client: Client,
    runtime: SharedRuntime,
    network: SharedNetwork,
    clock: SharedClock,
    companions: Vec<Arc<dyn Companion>>,
}

/// Puts a [`NodeAgent`] together.
pub struct NodeAgentBuilder(NodeAgent);

impl NodeAgentBuilder {
    /// Where the time of day comes from; the machine's clock unless said.
    #[must_use]
    pub fn clock(mut self, clock: SharedClock) -> Self {
        self.0.clock = clock;
        self
    }

    /// Runs these beside the node's pods.
    #[must_use]
    pub fn companions(mut self, companions: impl IntoIterator<Item = Arc<dyn Companion>>) -> Self {
        self.0.companions.extend(companions);
        self
    }

    /// The agent.
    pub fn build(self) -> NodeAgent {
        self.0
    }
}

impl NodeAgent {
    /// An agent for the node that `config` describes, over a client of the API, a runtime and a network.
    pub fn builder(
        config: NodeConfig,
        client: Client,
        runtime: SharedRuntime,
        network: SharedNetwork,
    ) -> NodeAgentBuilder {
        NodeAgentBuilder(Self {
            config,
            client,
            runtime,
            network,
            clock: Arc::new(SystemClock),
            companions: Vec::new(),
        })
    }

    /// The door to the node's logs and processes, for the API server's directory of nodes.
    pub fn access(&self) -> Arc<dyn NodeAccess> {
        let access = Access::new(self.config.clone(), self.runtime.clone(), self.clock.clone());
        Arc::new(access.counting(&self.companions))
    }

    /// Runs until `shutdown`. Pods go on running: the next agent finds them. Dropping the future is as good as killing
    /// the agent.
    pub async fn run(self, shutdown: CancellationToken) {
        let stop = shutdown.child_token();
        let _stop = stop.clone().drop_guard();
        let informers = Informers::new(self.client.clone(), stop.clone());
        let context = Arc::new(self.context(&informers));
        let (health, seen) = watch::channel(NodeHealth::default());
        let health = Arc::new(health);
        let (mut loops, mut companions) = (JoinSet::new(), JoinSet::new());
        let own = InformerOptions {
            field_selector: format!("metadata.name={}", context.config.name),
            ..InformerOptions::default()
        };
        let record = informers.select(own);
        loops.spawn(keep_status(context.clone(), seen, record.clone()));
        loops.spawn(keep_lease(context.clone()));
        let work = async {
            ready(&context, &record, &health).await;
            loops.spawn(eviction::keep_limits(context.clone()));
            loops.spawn(watch_runtime(context.clone(), health.clone()));
            loops.spawn(proxy::services(context.clone(), informers.of(), informers.of()));
            loops.spawn(proxy::peers(context.clone(), informers.of()));
            companions = companion::start(&self.companions, &context, &informers, &stop);
            let field_selector = format!("spec.nodeName={}", context.config.name);
            let pods = informers.select(InformerOptions { field_selector, ..InformerOptions::default() });
            Workers::new(context.clone()).run(pods).await;
        };
        stop.run_until_cancelled(work).await;
        stop.cancel();
        while companions.join_next().await.is_some() {}
    }

    fn context(&self, informers: &Informers) -> Context {
        let pods = Arc::new(Pods::default());
        let name = &self.config.name;
        Context {
            events: EventRecorder::with_clock(self.client.clone(), "kubelet", name, self.clock.clone()),
            refs: Refs::new(self.client.clone(), pods.clone()),
            services: informers.of::<Service>(),
            config: self.config.clone(),
            client: self.client.clone(),
            runtime: self.runtime.clone(),
            network: self.network.clone(),
            clock: self.clock.clone(),
            pods,
            pulls: PullLocks::default(),
            capabilities: RwLock::new(RuntimeCapabilities::default()),
            range: OnceLock::new(),
            registered: watch::channel(false).0,
            table: watch::channel(None).0,
            retry: RETRY,
        }
    }
}

/// Waits until runtime and network work; what keeps them from it shows in the node's status.
async fn ready(context: &Context, record: &Informer<Node>, health: &watch::Sender<NodeHealth>) {
    let mut failures = 0;
    loop {
        match context.runtime.capabilities().await {
            Ok(capabilities) => break *context.capabilities.write() = capabilities,
            Err(error) => {
                failures += 1;
                tracing::warn!(%error, "the container runtime is not ready");
                tell(health, |health| health.runtime = Health::Ill(error.to_string()));
                tokio::time::sleep(context.retry.delay(failures)).await;
            }
        }
    }
    // The version is part of the status.
    health.send_modify(|health| health.runtime = Health::Well);
    await_range(context, record, |why| tell(health, |health| health.network = Health::Ill(why))).await;
    failures = 0;
    while let Err(error) = context.network.setup().await {
        failures += 1;
        tracing::warn!(%error, "the network is not ready");
        tell(health, |health| health.network = Health::Ill(error.to_string()));
        tokio::time::sleep(context.retry.delay(failures)).await;
    }
    tell(health, |health| health.network = Health::Well);
}

fn tell(health: &watch::Sender<NodeHealth>, edit: impl FnOnce(&mut NodeHealth)) {
    health.send_if_modified(|current| {
        let before = current.clone();
        edit(current);
        *current != before
    });
}

/// Asks now and then whether the runtime answers: nothing tells when it does not.
async fn watch_runtime(context: Arc<Context>, health: Arc<watch::Sender<NodeHealth>>) {
    loop {
        tokio::time::sleep(context.config.lease_period).await;
        let now = match context.runtime.capabilities().await {
            Ok(_) => Health::Well,
            Err(error) => Health::Ill(error.to_string()),
        };
        tell(&health, |health| health.runtime = now);
    }
}

/// The workers of all pods.
struct Workers {
    context: Arc<Context>,
    tasks: JoinSet<()>,
    /// The uid a task works for.
    uids: HashMap<tokio::task::Id, String>,
    /// The uid behind a pod's name at present.
    names: HashMap<String, String>,
    remains: Remains,
}

impl Workers {
    fn new(context: Arc<Context>) -> Self {
        let (uids, names) = (HashMap::new(), HashMap::new());
        Self { context, tasks: JoinSet::new(), uids, names, remains: Remains::default() }
    }

    async fn run(mut self, informer: Informer<Pod>) {
        let mut changes = informer.subscribe();
        // Without the records nobody knows what is an orphan.
        if !informer.synced().await || !self.context.services.synced().await {
            return;
        }
        // Before the list, so that nothing happens unseen between the two.
        let mut events = self.events().await;
        self.recover(&informer).await;
        loop {
            tokio::select! {
                biased;
                Some(ended) = self.tasks.join_next_with_id(), if !self.tasks.is_empty() => match ended {
                    Ok((task, ())) => self.ended(task, false),
                    Err(error) => {
                        tracing::error!(%error, "a pod's worker broke off; it is started again");
                        self.ended(error.id(), true);
                    }
                },
                change = changes.next() => match change {
                    Some(change) => self.change(change, &changes),
                    None => return,
                },
                event = events.next() => match event {
                    Some(RuntimeEvent::Container { sandbox, .. }) => self.context.pods.wake(&sandbox),
                    Some(RuntimeEvent::Resync) => self.doubt(),
                    None => events = self.events().await,
                },
            }
        }
    }

    async fn events(&self) -> futures::stream::BoxStream<'static, RuntimeEvent> {
        let mut failures = 0;
        loop {
            match self.context.runtime.events().await {
                Ok(events) => return events,
                Err(error) => {
                    failures += 1;
                    tracing::warn!(%error, "cannot follow the runtime's events");
                    tokio::time::sleep(self.context.retry.delay(failures)).await;
                }
            }
        }
    }

    /// Everyone looks for themselves.
    fn doubt(&self) {
        for handle in self.context.pods.all() {
            handle.edit(|slot| slot.doubt = true);
        }
    }

    /// Takes over what is there, and ends what nobody wants any more.
    async fn recover(&mut self, informer: &Informer<Pod>) {
        self.remains = Remains::find(&self.context).await;
        for pod in informer.list() {
            self.apply(&pod);
        }
        let roster = Roster::new(informer.list().iter().map(|pod| pod::uid(pod)));
        for pod in self.remains.orphans(&roster) {
            tracing::info!(pod = pod::key(&pod), uid = pod::uid(&pod), "ending a pod without a record");
            let handle = PodHandle::new(Arc::new(pod));
            handle.edit(|slot| slot.gone = true);
            self.spawn(handle);
        }
        self.remains.sweep(&self.context, &roster).await;
    }

    fn change(&mut self, change: Change<Pod>, changes: &Changes<Pod>) {
        match change {
            Change::Applied { new, .. } => self.apply(&new),
            Change::Deleted(pod) => self.gone(&pod),
            Change::Resync => {
                let list = changes.informer().list();
                let roster = Roster::new(list.iter().map(|pod| pod::uid(pod)));
                for handle in self.context.pods.all() {
                    if !roster.has(pod::uid(&handle.pod())) {
                        handle.edit(|slot| slot.gone = true);
                    }
                }
                list.iter().for_each(|pod| self.apply(pod));
            }
        }
    }

    fn apply(&mut self, pod: &Arc<Pod>) {
        let uid = pod::uid(pod);
        let before = self.names.insert(pod::key(pod), uid.to_owned());
        // Another pod of that name was deleted while nobody looked.
        if let Some(handle) = before.filter(|before| before != uid).and_then(|old| self.context.pods.get(&old)) {
            handle.edit(|slot| slot.gone = true);
        }
        match self.context.pods.get(uid) {
            Some(handle) => handle.edit(|slot| {
                slot.changed |= asks_otherwise(&slot.pod, pod);
                slot.pod = pod.clone();
            }),
            None => self.spawn(PodHandle::new(pod.clone())),
        }
    }

    fn gone(&mut self, pod: &Pod) {
        let uid = pod::uid(pod);
        if self.names.get(&pod::key(pod)).is_some_and(|current| current == uid) {
            self.names.remove(&pod::key(pod));
        }
        if let Some(handle) = self.context.pods.get(uid) {
            handle.edit(|slot| slot.gone = true);
        }
    }

    fn spawn(&mut self, handle: Arc<PodHandle>) {
        let uid = pod::uid(&handle.pod()).to_owned();
        self.context.pods.insert(&uid, handle.clone());
        let found: Found = self.remains.take(&uid);
        let worker = Worker::new(self.context.clone(), handle, found);
        let task = self.tasks.spawn(worker.run());
        self.uids.insert(task.id(), uid);
    }

    fn ended(&mut self, task: tokio::task::Id, broken: bool) {
        let Some(uid) = self.uids.remove(&task) else { return };
        let handle = self.context.pods.get(&uid);
        self.context.pods.remove(&uid);
        if let Some(handle) = handle.filter(|_| broken) {
            handle.edit(|slot| slot.doubt = true);
            self.spawn(handle);
        }
    }
}

/// What is asked for has changed, not only what is reported.
fn asks_otherwise(old: &Pod, new: &Pod) -> bool {
    let (a, b) = (&old.metadata, &new.metadata);
    old.spec != new.spec || a.labels != b.labels || a.annotations != b.annotations
}
