//! Keeps the number of replicas at what metrics ask for: `HorizontalPodAutoscaler`.
//!
//! What a look at one autoscaler leads to is decided by pure functions ([`replicas`], [`behavior`], [`stabilize`],
//! [`decide`]); here it is put together. Metrics cannot be watched, so each autoscaler is looked at once in a period.
//! One that fails says so in its conditions and keeps no other waiting.

pub mod behavior;
pub mod decide;
mod measure;
mod memory;
pub mod replicas;
mod requests;
mod rivals;
mod sources;
pub mod spec;
pub mod stabilize;
mod status;
mod sync;
pub mod tally;
#[cfg(test)]
mod tests;

use super::pods::index_by_label;
use super::{Controller, ControllerContext, KindDirectory, pump, run_workers};
use crate::api::{Gvr, Object};
use crate::client::{Change, Informer, WorkQueue, object_key};
use async_trait::async_trait;
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Pod;
use std::sync::Arc;
use std::time::Duration;
use sync::Autoscalers;

/// Where autoscalers are found.
pub(crate) const AUTOSCALERS: Gvr = Gvr::new("autoscaling", "v2", "horizontalpodautoscalers");

/// What the controller is told. The defaults are those of Kubernetes.
#[derive(Clone, Debug)]
pub struct HorizontalConfig {
    /// Between two looks at an autoscaler.
    pub sync_period: Duration,
    /// How far back recommendations hold back shrinking, where the autoscaler does not say.
    pub downscale_stabilization: SignedDuration,
    /// How far a metric may be off, where the autoscaler does not say.
    pub tolerance: f64,
    /// For so long after its start, cpu of a pod counts only once it is ready and was measured since.
    pub cpu_initialization_period: SignedDuration,
    /// A pod that became unready so soon after its start has never been ready.
    pub initial_readiness_delay: SignedDuration,
    /// How many autoscalers are looked at at once.
    pub workers: usize,
}

impl Default for HorizontalConfig {
    fn default() -> Self {
        Self {
            sync_period: Duration::from_secs(15),
            downscale_stabilization: SignedDuration::from_secs(300),
            tolerance: 0.1,
            cpu_initialization_period: SignedDuration::from_secs(300),
            initial_readiness_delay: SignedDuration::from_secs(30),
            // Each waits for others most of the time.
            workers: 16,
        }
    }
}

/// Follows HorizontalPodAutoscalers.
pub struct HorizontalController {
    /// What it is told.
    pub config: HorizontalConfig,
    /// The kinds that may be scaled.
    pub kinds: Arc<dyn KindDirectory>,
}

#[async_trait]
impl Controller for HorizontalController {
    fn name(&self) -> &str {
        "horizontal-pod-autoscaler"
    }

    async fn run(self: Arc<Self>, ctx: ControllerContext) {
        let (autoscalers, pods) = (ctx.informers.objects(AUTOSCALERS), ctx.informers.of::<Pod>());
        index_by_label(&pods);
        let (_, _) = tokio::join!(autoscalers.synced(), pods.synced());
        let queue = ctx.queue();
        watch(&ctx, &queue, &autoscalers);
        let workers = self.config.workers.max(1);
        let world = Autoscalers::new(&ctx, self.config.clone(), self.kinds.clone(), autoscalers, pods);
        run_workers(&ctx, &queue, workers, Arc::new(world)).await;
    }
}

/// A new autoscaler, and one that is told something else, is looked at at once; its own status is no news.
fn watch(ctx: &ControllerContext, queue: &WorkQueue<String>, autoscalers: &Informer<Object>) {
    let queue = queue.clone();
    pump(ctx, autoscalers, move |change| match change {
        Change::Applied { old, new } => {
            let told = |o: &Arc<Object>| (o.meta.uid.clone(), o.meta.generation);
            if old.as_ref().is_none_or(|old| told(old) != told(new)) {
                queue.add(key(new));
            }
        }
        Change::Deleted(gone) => queue.add(key(gone)),
        Change::Resync => {}
    });
}

fn key(autoscaler: &Object) -> String {
    object_key(&autoscaler.meta.namespace, &autoscaler.meta.name)
}
