//! The loop around a scheduler: keeps the snapshot, asks for each pending pod, binds, and says why not. All state is
//! owned by one task; calls on the API run beside it, bounded, and report back.

mod errands;
mod looks;
mod refusal;
mod writes;

use super::{
    Budget, ClusterChange, ClusterEvent, NodeInfo, Outcome, PodInfo, Scheduler, SchedulingQueue, Snapshot, Wake,
};
use crate::api::ApiResult;
use crate::client::{Change, Client, EventRecorder, EventType, Informer, reference_of};
use crate::clock::SharedClock;
use crate::controllers::{Controller, ControllerContext};
use async_trait::async_trait;
use errands::Errands;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use looks::{is_known, phase, same_for_scheduling, wants_node};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use writes::bind;

/// What a driver works with.
#[derive(Clone)]
pub struct SchedulerConfig {
    /// The schedulers, found by their names.
    pub schedulers: Vec<Arc<dyn Scheduler>>,
    /// How many bindings may be on their way at once, and how many reports of why a pod has no node.
    pub parallel_bindings: usize,
}

impl Default for SchedulerConfig {
    fn default() -> Self {
        let default = super::FrameworkScheduler::new(super::Policy::Default.profile());
        Self { schedulers: vec![Arc::new(default)], parallel_bindings: 64 }
    }
}

/// What a driver follows. Each informer must cover everything.
pub struct Followed {
    /// Pods, to be placed and placed.
    pub pods: Informer<Pod>,
    /// Nodes.
    pub nodes: Informer<Node>,
    /// Namespaces, whose labels affinities may ask for.
    pub namespaces: Informer<Namespace>,
    /// Budgets that preemption keeps where it can.
    pub budgets: Informer<PodDisruptionBudget>,
}

/// Runs schedulers against a cluster.
pub struct SchedulerDriver {
    client: Client,
    clock: SharedClock,
    follows: Followed,
    events: EventRecorder,
    config: SchedulerConfig,
    snapshot: Snapshot,
    queue: SchedulingQueue,
    /// Pods placed in the snapshot whose binding is on its way, by uid.
    assumed: HashMap<String, Arc<PodInfo>>,
    permits: Arc<Semaphore>,
    errands: Errands,
}

impl Followed {
    async fn synced(&self) -> bool {
        self.pods.synced().await
            && self.nodes.synced().await
            && self.namespaces.synced().await
            && self.budgets.synced().await
    }
}

/// A binding that came back.
struct Bound {
    pod: Arc<PodInfo>,
    node: String,
    result: ApiResult<()>,
}

impl SchedulerDriver {
    /// A driver over these informers.
    pub fn new(
        client: Client,
        clock: SharedClock,
        follows: Followed,
        events: EventRecorder,
        config: SchedulerConfig,
    ) -> Self {
        let permits = Arc::new(Semaphore::new(config.parallel_bindings.max(1)));
        let (snapshot, queue, assumed, errands) = Default::default();
        Self { client, clock, follows, events, config, snapshot, queue, assumed, permits, errands }
    }

    /// Works until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        // Subscribed before the first look, so that nothing falls between.
        let mut pod_changes = self.follows.pods.subscribe();
        let mut node_changes = self.follows.nodes.subscribe();
        let mut namespace_changes = self.follows.namespaces.subscribe();
        let mut budget_changes = self.follows.budgets.subscribe();
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            synced = self.follows.synced() => if !synced { return },
        }
        self.resync();
        let errands = self.errands.clone();
        let _running = errands.run(&self.client, &self.follows.pods, self.config.parallel_bindings.max(1));
        let (done, mut results) = mpsc::channel(self.config.parallel_bindings.max(1));
        loop {
            self.schedule_ready(&done);
            // Without a permit there is nothing to wake for: a binding that comes back brings one.
            let wake = self.queue.next_wake().filter(|_| self.permits.available_permits() > 0);
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                // The rarest first, so that a flood of pods keeps nothing else waiting.
                Some(bound) = results.recv() => self.bound(bound),
                victims = errands.stayed() => self.stayed(&victims),
                Some(change) = budget_changes.next() => self.budget_changed(change),
                Some(change) = namespace_changes.next() => self.namespace_changed(change),
                Some(change) = node_changes.next() => self.node_changed(change),
                Some(change) = pod_changes.next() => self.pod_changed(change),
                () = sleep_until(wake) => {}
            }
        }
    }

    /// Rebuilds everything from the informers: at the start, and after changes were missed.
    fn resync(&mut self) {
        self.snapshot = Snapshot::default();
        self.queue = SchedulingQueue::default();
        let pods = &self.follows.pods;
        self.assumed.retain(|_, pod| is_known(pods, pod));
        for node in self.follows.nodes.list() {
            self.snapshot.put_node(NodeInfo::from_node(&node));
        }
        for namespace in self.follows.namespaces.list() {
            self.put_namespace(&namespace);
        }
        for budget in self.follows.budgets.list() {
            self.snapshot.put_budget(Budget::from_object(&budget));
        }
        for pod in self.follows.pods.list() {
            self.observe(&pod);
        }
        for pod in self.assumed.values() {
            self.snapshot.put_pod(pod.clone());
        }
    }

    fn pod_changed(&mut self, change: Change<Pod>) {
        match change {
            Change::Applied { new, .. } => self.observe(&new),
            Change::Deleted(pod) => self.left(pod.metadata.uid.as_deref().unwrap_or_default()),
            Change::Resync => self.resync(),
        }
    }

    fn node_changed(&mut self, change: Change<Node>) {
        match change {
            Change::Applied { old, new } => {
                let event = if old.is_some() { ClusterEvent::NodeChanged } else { ClusterEvent::NodeAdded };
                if old.is_some_and(|old| same_for_scheduling(&old, &new)) {
                    return;
                }
                self.snapshot.put_node(NodeInfo::from_node(&new));
                self.wake(event, new.metadata.name.as_deref(), None);
            }
            Change::Deleted(node) => {
                let name = node.metadata.name.as_deref().unwrap_or_default();
                self.snapshot.remove_node(name);
                self.look_again(name);
            }
            Change::Resync => self.resync(),
        }
    }

    fn namespace_changed(&mut self, change: Change<Namespace>) {
        match change {
            Change::Applied { new, .. } => self.put_namespace(&new),
            Change::Deleted(old) => self.snapshot.remove_namespace(old.metadata.name.as_deref().unwrap_or_default()),
            Change::Resync => self.resync(),
        }
    }

    fn budget_changed(&mut self, change: Change<PodDisruptionBudget>) {
        match change {
            Change::Applied { new, .. } => self.snapshot.put_budget(Budget::from_object(&new)),
            Change::Deleted(old) => {
                let Budget { namespace, name, .. } = Budget::from_object(&old);
                self.snapshot.remove_budget(&namespace, &name);
            }
            Change::Resync => self.resync(),
        }
    }

    fn put_namespace(&mut self, namespace: &Namespace) {
        let meta = &namespace.metadata;
        let name = meta.name.as_deref().unwrap_or_default();
        let labels = meta.labels.clone().unwrap_or_default();
        if self.snapshot.namespace(name) != Some(&labels) {
            self.snapshot.put_namespace(name, labels);
            self.wake(ClusterEvent::NamespaceChanged, None, None);
        }
    }

    fn observe(&mut self, pod: &Pod) {
        let info = Arc::new(PodInfo::from_pod(pod));
        let finished = matches!(phase(pod), "Succeeded" | "Failed");
        if finished {
            self.left(&info.uid);
        } else if !info.node_name.is_empty() {
            self.queue.remove(&info.uid);
            // Most changes of a running pod are of its status, and make no difference to others.
            let known = self.snapshot.pod(&info.uid);
            let (same, moved) = known.map_or((false, false), |known| {
                (known.asks_the_same(&info), known.labels != info.labels || known.node_name != info.node_name)
            });
            let news = self.assumed.remove(&info.uid).is_some() || !same;
            let kept = self.room_kept_elsewhere(&info.uid, &info.node_name);
            self.snapshot.put_pod(info.clone());
            if news {
                // One that changes counts for some no longer, and for others from now on.
                let pod = Some(&*info).filter(|_| !moved);
                self.wake(ClusterEvent::PodPlaced, Some(&info.node_name), pod);
            }
            self.give_back(kept);
        } else if wants_node(pod) && self.scheduler(&info).is_some() {
            if !self.assumed.contains_key(&info.uid) {
                // Of one that waits here already, this is known better: what it says may be older.
                if !info.nominated.is_empty() && !self.queue.contains(&info.uid) {
                    self.snapshot.nominate(info.clone());
                }
                self.queue.put(info);
            }
        } else {
            self.queue.remove(&info.uid);
            let kept = self.room_kept_elsewhere(&info.uid, "");
            self.snapshot.withdraw(&info.uid);
            self.give_back(kept);
        }
    }

    fn left(&mut self, uid: &str) {
        self.queue.remove(uid);
        self.assumed.remove(uid);
        let gone = self.snapshot.pod(uid).cloned();
        let kept = self.room_kept_elsewhere(uid, "");
        self.snapshot.remove_pod(uid);
        if let Some(pod) = gone {
            self.wake(ClusterEvent::PodLeft, Some(&pod.node_name), Some(&pod));
        }
        self.give_back(kept);
    }

    /// The node on which room is kept for a pod, where that is not the one it is on.
    fn room_kept_elsewhere(&self, uid: &str, node: &str) -> Option<String> {
        self.snapshot.nomination(uid).filter(|kept| *kept != node).map(str::to_owned)
    }

    /// Room that is kept no longer is there for others.
    fn give_back(&mut self, node: Option<String>) {
        if let Some(node) = node {
            self.wake(ClusterEvent::PodLeft, Some(&node), None);
        }
    }

    /// Pods for which room was being made on a node look for another one, each after its back-off.
    fn look_again(&mut self, node: &str) {
        let Self { snapshot, queue, .. } = self;
        let nominees = snapshot.nominated(node).into_iter().flat_map(|pods| pods.keys());
        nominees.for_each(|uid| queue.retry(uid));
    }

    /// These pods were to make room, and could not be deleted.
    fn stayed(&mut self, victims: &[Arc<PodInfo>]) {
        for victim in victims {
            self.snapshot.stays(&victim.uid);
            self.look_again(&victim.node_name);
        }
    }

    /// Tries pods again for which the change may make room; first those for which it was made.
    fn wake(&mut self, event: ClusterEvent, node: Option<&str>, pod: Option<&PodInfo>) {
        let Self { snapshot, queue, config, .. } = self;
        let change = ClusterChange { event, node: node.and_then(|name| snapshot.node(name)), pod };
        queue.wake(event, |waiting, refused_by| {
            let mut schedulers = config.schedulers.iter();
            let scheduler = schedulers.find(|s| s.name() == waiting.scheduler_name);
            let made = || event == ClusterEvent::PodLeft && node.is_some() && snapshot.nomination(&waiting.uid) == node;
            match scheduler.is_none_or(|s| s.helps(snapshot, waiting, refused_by, &change)) {
                false => Wake::Stay,
                true if made() => Wake::AtOnce,
                true => Wake::Again,
            }
        });
    }

    fn scheduler(&self, pod: &PodInfo) -> Option<&Arc<dyn Scheduler>> {
        self.config.schedulers.iter().find(|s| s.name() == pod.scheduler_name)
    }

    fn schedule_ready(&mut self, done: &mpsc::Sender<Bound>) {
        while self.permits.available_permits() > 0 {
            let Some(pod) = self.queue.pop(Instant::now()) else { return };
            if self.assumed.contains_key(&pod.uid) {
                self.queue.retry(&pod.uid);
                continue;
            }
            let Some(scheduler) = self.scheduler(&pod).cloned() else {
                self.queue.remove(&pod.uid);
                continue;
            };
            match scheduler.schedule(&self.snapshot, &pod) {
                Outcome::Node(choice) => self.bind(pod, choice.node, done.clone()),
                Outcome::Unschedulable(why) => self.refuse(&pod, &why, scheduler.as_ref()),
            }
        }
    }

    /// Counts the pod on its node at once, and tells the API beside the loop.
    fn bind(&mut self, pod: Arc<PodInfo>, node: String, done: mpsc::Sender<Bound>) {
        let placed = Arc::new(PodInfo { node_name: node.clone(), ..(*pod).clone() });
        let kept = self.room_kept_elsewhere(&pod.uid, &node);
        self.snapshot.put_pod(placed.clone());
        self.assumed.insert(pod.uid.clone(), placed);
        self.give_back(kept);
        // A permit is free: `schedule_ready` looked, and this task alone takes them.
        let permit = self.permits.clone().try_acquire_owned();
        let client = self.client.clone();
        tokio::spawn(async move {
            let result = bind(&client, &pod, &node).await;
            drop(permit);
            // The loop may be gone: then nobody needs to know.
            let _ = done.send(Bound { pod, node, result }).await;
        });
    }

    fn bound(&mut self, Bound { pod, node, result }: Bound) {
        let object = self.follows.pods.get(&pod.key());
        match result {
            Ok(()) => {
                self.queue.remove(&pod.uid);
                if !is_known(&self.follows.pods, &pod) {
                    self.left(&pod.uid);
                } else if let Some(object) = object {
                    let note = format!("Successfully assigned {} to {node}", pod.key());
                    self.events.event(&reference_of(&*object), EventType::Normal, "Scheduled", note);
                }
            }
            Err(error) => {
                tracing::warn!(pod = pod.key(), node, %error, "binding failed");
                // Still assumed means that no newer truth has come in by the watch.
                if self.assumed.remove(&pod.uid).is_some() {
                    self.snapshot.remove_pod(&pod.uid);
                    // Room that was made for it stays its own.
                    if pod.nominated == node {
                        self.snapshot.nominate(pod.clone());
                    }
                    self.wake(ClusterEvent::PodLeft, Some(&node), Some(&pod));
                }
                // The queue may have been made anew while the pod was assumed, and so without it.
                if let Some(object) = object {
                    self.observe(&object);
                }
                if error.is_not_found() { self.queue.remove(&pod.uid) } else { self.queue.retry(&pod.uid) }
            }
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Runs a [`SchedulerDriver`] the way every other loop of the cluster is run: with shared informers, and started again
/// should it end.
pub struct SchedulerLoop {
    config: SchedulerConfig,
}

impl SchedulerLoop {
    /// A loop with these schedulers.
    pub fn new(config: SchedulerConfig) -> Self {
        Self { config }
    }
}

#[async_trait]
impl Controller for SchedulerLoop {
    fn name(&self) -> &str {
        "default-scheduler"
    }

    async fn run(self: Arc<Self>, ctx: ControllerContext) {
        let informers = &ctx.informers;
        let follows = Followed {
            pods: informers.of(),
            nodes: informers.of(),
            namespaces: informers.of(),
            budgets: informers.of(),
        };
        SchedulerDriver::new(ctx.client, ctx.clock, follows, ctx.events, self.config.clone()).run(ctx.stop).await;
    }
}
