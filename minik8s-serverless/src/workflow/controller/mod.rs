//! Carries runs on: what the pure machine decides is committed to the run's status, under the precondition that nobody else
//! wrote it, and then done.
//!
//! Each run is looked at by one worker at a time. What a run is like is remembered between two looks, but never needed:
//! whoever starts finds it in the history, and asks again for the tasks that have no result, under the keys they had.

mod calls;
mod live;
mod load;
mod reconcile;
mod workflows;

pub use calls::CallLimits;
pub use load::{events, program};
pub(super) use workflows::WorkflowController;

use super::config::WorkflowsConfig;
use super::objects::{Workflow, WorkflowRun};
use async_trait::async_trait;
use calls::Calls;
use live::Lives;
use minik8s_core::client::{Change, key_of};
use minik8s_core::controllers::{Controller, ControllerContext, pump, run_workers};
use reconcile::RunReconciler;
use std::sync::Arc;

/// Carries runs on.
pub(super) struct RunController {
    pub(super) config: WorkflowsConfig,
}

/// The index of runs by their workflow.
const BY_WORKFLOW: &str = "workflow";

#[async_trait]
impl Controller for RunController {
    fn name(&self) -> &str {
        "workflow-run-controller"
    }

    async fn run(self: Arc<Self>, ctx: ControllerContext) {
        let (runs, workflows) = (ctx.informers.of::<WorkflowRun>(), ctx.informers.of::<Workflow>());
        index(&runs);
        let queue = ctx.queue::<String>();
        let lives = Lives::default();
        pump(&ctx, &runs, {
            let queue = queue.clone();
            move |change| match change {
                Change::Applied { new, .. } => queue.add(key_of(&**new)),
                Change::Deleted(old) => queue.add(key_of(&**old)),
                Change::Resync => {}
            }
        });
        // Runs may wait for their workflow to come.
        pump(&ctx, &workflows, {
            let (queue, runs) = (queue.clone(), runs.clone());
            move |change| {
                let Change::Applied { new, .. } = change else { return };
                let waiting = runs.list_by(BY_WORKFLOW, &key_of(&**new)).into_iter();
                let begun = |run: &WorkflowRun| run.status.as_ref().is_some_and(|s| !s.revision.is_empty());
                waiting.filter(|run| !begun(run)).for_each(|run| queue.add(key_of(&*run)));
            }
        });
        if !(runs.synced().await && workflows.synced().await) {
            return;
        }
        let invoker = self.config.invoker(&ctx);
        let calls = Calls::new(invoker, self.config.limits, ctx.stop.clone());
        let reconciler = RunReconciler { ctx: ctx.clone(), runs, workflows, queue: queue.clone(), lives, calls };
        run_workers(&ctx, &queue, self.config.workers.max(1), Arc::new(reconciler)).await;
    }
}

/// Runs by the key of their workflow.
fn index(runs: &minik8s_core::client::Informer<WorkflowRun>) {
    runs.add_index(BY_WORKFLOW, |run: &WorkflowRun| {
        vec![format!("{}/{}", run.metadata.namespace.as_deref().unwrap_or_default(), run.spec.workflow)]
    });
}
