//! Pods of jobs whose JobCluster somebody took away with all that was left there: their records are kept for nobody.

use crate::kinds::JobCluster;
use crate::nodes::{cluster_of, let_go};
use async_trait::async_trait;
use k8s_openapi::api::core::v1::Pod;
use minik8s_core::api::ApiResult;
use minik8s_core::client::{Change, Informer, key_of};
use minik8s_core::controllers::{ControllerContext, Outcome, Reconciler, pump, run_workers};
use std::sync::Arc;

/// Lets them go as soon as somebody wants them to: they run on for as long as their job's object is there.
pub(super) async fn run(ctx: &ControllerContext, pods: Informer<Pod>, clusters: Informer<JobCluster>) {
    if !pods.synced().await {
        return;
    }
    let orphans = Orphans { ctx: ctx.clone(), pods: pods.clone(), clusters: clusters.clone() };
    let queue = ctx.queue::<String>();
    let (of_pods, all, of_clusters) = (queue.clone(), pods.clone(), queue.clone());
    pump(ctx, &pods, move |change| match change {
        Change::Applied { new, .. } if is_going(new) => of_pods.add(key_of(new.as_ref())),
        _ => {}
    });
    pump(ctx, &clusters, move |change| {
        if !matches!(change, Change::Applied { .. }) {
            all.list().iter().filter(|pod| is_going(pod)).for_each(|pod| of_clusters.add(key_of(pod.as_ref())));
        }
    });
    run_workers(ctx, &queue, 1, Arc::new(orphans)).await;
}

/// A job's pod, which somebody wants to go.
fn is_going(pod: &Pod) -> bool {
    cluster_of(pod).is_some() && pod.metadata.deletion_timestamp.is_some()
}

struct Orphans {
    ctx: ControllerContext,
    pods: Informer<Pod>,
    clusters: Informer<JobCluster>,
}

#[async_trait]
impl Reconciler for Orphans {
    type Key = String;

    async fn reconcile(&self, key: &String) -> ApiResult<Outcome> {
        let Some(pod) = self.pods.get(key).filter(|pod| is_going(pod)) else { return Ok(Outcome::Done) };
        let lives = |uid: &str| self.clusters.list().iter().any(|c| c.metadata.uid.as_deref() == Some(uid));
        if !cluster_of(&pod).is_some_and(lives) {
            let api = self.ctx.client.api::<Pod>(pod.metadata.namespace.as_deref().unwrap_or_default());
            let_go(&api, (*pod).clone()).await?;
        }
        Ok(Outcome::Done)
    }
}
