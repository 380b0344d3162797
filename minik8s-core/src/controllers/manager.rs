//! Runs controllers, and starts again those that end.

use super::ControllerMetrics;
use crate::client::{Backoff, Client, Election, ElectionConfig, EventRecorder, Informers, WorkQueue};
use crate::clock::SharedClock;
use crate::random;
use async_trait::async_trait;
use futures::FutureExt;
use std::hash::Hash;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error};

const RESTART: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(30));

/// The Lease under which the controllers of a cluster run in one process only.
pub const CONTROLLERS_LEASE: &str = "kube-controller-manager";
/// The Lease under which its scheduler runs in one process only.
pub const SCHEDULER_LEASE: &str = "kube-scheduler";

/// A loop that makes part of the cluster what its objects say.
#[async_trait]
pub trait Controller: Send + Sync + 'static {
    /// Its name, in logs, metrics and events: `replicaset-controller`.
    fn name(&self) -> &str;

    /// Runs until `ctx.stop` is cancelled. Whatever it knows it must be able to find again: where it ends sooner or
    /// panics, it is started anew.
    async fn run(self: Arc<Self>, ctx: ControllerContext);
}

/// What a controller works with.
#[derive(Clone)]
pub struct ControllerContext {
    /// The API, under the controller's name.
    pub client: Client,
    /// Informers, shared by all controllers.
    pub informers: Informers,
    /// The time of day.
    pub clock: SharedClock,
    /// Events, under the controller's name.
    pub events: EventRecorder,
    /// What is counted.
    pub metrics: ControllerMetrics,
    /// Cancelled when the controller must end.
    pub stop: CancellationToken,
    /// The controller's name.
    pub name: Arc<str>,
}

impl ControllerContext {
    /// The controller's work queue, counted under its name.
    pub fn queue<K: Hash + Eq + Clone>(&self) -> WorkQueue<K> {
        WorkQueue::new().counted(self.metrics.queue(&self.name))
    }
}

/// Runs a list of controllers.
#[derive(Clone)]
pub struct ControllerManager {
    client: Client,
    clock: SharedClock,
    metrics: ControllerMetrics,
    controllers: Vec<Arc<dyn Controller>>,
}

impl ControllerManager {
    /// A manager of these controllers; see [`all`](super::all).
    pub fn new(client: Client, clock: SharedClock, controllers: Vec<Arc<dyn Controller>>) -> Self {
        Self { client, clock, metrics: ControllerMetrics::default(), controllers }
    }

    /// Counts here, where several managers show what they do in one place.
    #[must_use]
    pub fn counted(self, metrics: ControllerMetrics) -> Self {
        Self { metrics, ..self }
    }

    /// Runs them until `stop` is cancelled; with an election, only while it is won.
    pub async fn lead(self, election: Option<ElectionConfig>, stop: CancellationToken) {
        let Some(config) = election else { return self.run(stop).await };
        let lease = config.name.clone();
        let election = Election::new(&self.client.with_manager("election"), self.clock.clone(), config);
        self.metrics.stands_for(&lease);
        let work = |stop| {
            let (this, leading) = (self.clone(), self.metrics.leads(&lease));
            async move {
                let _leading = leading;
                this.run(stop).await;
            }
        };
        election.run(stop, work).await;
    }

    /// What is counted.
    pub fn metrics(&self) -> &ControllerMetrics {
        &self.metrics
    }

    /// Runs them until `stop` is cancelled; returns when all have ended.
    pub async fn run(self, stop: CancellationToken) {
        let informers = Informers::new(self.client.clone(), stop.clone());
        let mut running = JoinSet::new();
        for controller in self.controllers {
            let client = self.client.with_manager(controller.name());
            let events = EventRecorder::with_clock(client.clone(), controller.name(), "", self.clock.clone());
            let ctx = ControllerContext {
                client,
                informers: informers.clone(),
                clock: self.clock.clone(),
                events,
                metrics: self.metrics.clone(),
                stop: stop.clone(),
                name: Arc::from(controller.name()),
            };
            running.spawn(keep(controller, ctx));
        }
        while running.join_next().await.is_some() {}
    }
}

/// Runs one controller, again and again until it is told to stop.
async fn keep(controller: Arc<dyn Controller>, ctx: ControllerContext) {
    let mut ends = 0;
    while !ctx.stop.is_cancelled() {
        // What one run spawned must not outlive it.
        let mut one = ctx.clone();
        one.stop = ctx.stop.child_token();
        let _ended = one.stop.clone().drop_guard();
        debug!(controller = controller.name(), "controller starts");
        let end = AssertUnwindSafe(controller.clone().run(one)).catch_unwind().await;
        if ctx.stop.is_cancelled() {
            return;
        }
        ends += 1;
        ctx.metrics.restarted(controller.name());
        let how = if end.is_err() { "panicked" } else { "ended" };
        error!(controller = controller.name(), "controller {how}, starting it again");
        tokio::select! {
            biased;
            () = ctx.stop.cancelled() => {}
            () = tokio::time::sleep(RESTART.jittered(ends, random::fraction())) => {}
        }
    }
}
