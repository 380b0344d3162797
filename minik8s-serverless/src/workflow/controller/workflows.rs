//! Says of each workflow whether its functions are there and how its runs are doing, and lets old runs go.

use super::load::{REVISION_OF, revision_name};
use super::{BY_WORKFLOW, index};
use crate::workflow::compile;
use crate::workflow::objects::{Workflow, WorkflowRecord, WorkflowRun, WorkflowStatus};
use async_trait::async_trait;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use minik8s_core::api::{ApiResult, Gvr, Object};
use minik8s_core::client::{Change, DeleteOptions, DeletePreconditions, Informer, WorkQueue, key_of};
use minik8s_core::controllers::{Controller, ControllerContext, Outcome, Reconciler, pump, run_workers};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

/// Runs that ended and are kept where the workflow does not say how many.
const KEEP: i64 = 1000;
/// The index of records by the workflow they hold a revision of.
const REVISIONS: &str = "revisions";
/// Runs come and go faster than anybody reads of them.
const PAUSE: Duration = Duration::from_millis(500);

pub(in crate::workflow) struct WorkflowController;

#[async_trait]
impl Controller for WorkflowController {
    fn name(&self) -> &str {
        "workflow-controller"
    }

    async fn run(self: Arc<Self>, ctx: ControllerContext) {
        let (runs, workflows) = (ctx.informers.of::<WorkflowRun>(), ctx.informers.of::<Workflow>());
        let functions = ctx.informers.objects(Gvr::new("minik8s.io", "v1alpha1", "functions"));
        let records = ctx.informers.of::<WorkflowRecord>();
        index(&runs);
        records.add_index(REVISIONS, |record: &WorkflowRecord| revision_of(record).into_iter().collect());
        let queue: WorkQueue<String> = ctx.queue();
        let add = {
            let queue = queue.clone();
            move |key: String| queue.add_after(key, PAUSE)
        };
        pump(&ctx, &workflows, {
            let queue = queue.clone();
            move |change| match change {
                Change::Applied { new: workflow, .. } | Change::Deleted(workflow) => queue.add(key_of(&**workflow)),
                Change::Resync => {}
            }
        });
        pump(&ctx, &runs, {
            let add = add.clone();
            move |change| match change {
                Change::Applied { new: run, .. } | Change::Deleted(run) => add(owner(run)),
                Change::Resync => {}
            }
        });
        pump(&ctx, &functions, {
            let workflows = workflows.clone();
            move |change| {
                if !matches!(change, Change::Applied { old: Some(_), .. }) {
                    workflows.list().iter().for_each(|workflow| add(key_of(&**workflow)));
                }
            }
        });
        if !(runs.synced().await && workflows.synced().await && functions.synced().await && records.synced().await) {
            return;
        }
        // Of workflows that went while nobody looked, revisions may be left.
        records.list().iter().filter_map(|record| revision_of(record)).for_each(|key| queue.add(key));
        let reconciler = WorkflowReconciler { ctx: ctx.clone(), runs, workflows, functions, records };
        run_workers(&ctx, &queue, 2, Arc::new(reconciler)).await;
    }
}

/// The key of the workflow that a record holds a revision of.
fn revision_of(record: &WorkflowRecord) -> Option<String> {
    let of = record.metadata.annotations.as_ref()?.get(REVISION_OF)?;
    Some(format!("{}/{of}", record.metadata.namespace.as_deref().unwrap_or_default()))
}

fn owner(run: &WorkflowRun) -> String {
    format!("{}/{}", run.metadata.namespace.as_deref().unwrap_or_default(), run.spec.workflow)
}

struct WorkflowReconciler {
    ctx: ControllerContext,
    runs: Informer<WorkflowRun>,
    workflows: Informer<Workflow>,
    functions: Informer<Object>,
    records: Informer<WorkflowRecord>,
}

#[async_trait]
impl Reconciler for WorkflowReconciler {
    type Key = String;

    async fn reconcile(&self, key: &String) -> ApiResult<Outcome> {
        let workflow = self.workflows.get(key);
        let runs = self.runs.list_by(BY_WORKFLOW, key);
        self.forget(workflow.as_deref(), &runs).await?;
        self.drop_revisions(key, workflow.as_deref(), &runs).await?;
        let Some(workflow) = workflow else { return Ok(Outcome::Done) };
        let status = self.status(&workflow, &runs);
        if workflow.status.as_ref() != Some(&status) {
            let namespace = workflow.metadata.namespace.as_deref().unwrap_or_default();
            let changed = Workflow { status: Some(status), ..(*workflow).clone() };
            self.ctx.client.api::<Workflow>(namespace).update_status(&changed).await?;
        }
        Ok(Outcome::Done)
    }
}

fn phase(run: &WorkflowRun) -> &str {
    run.status.as_ref().map(|status| status.phase.as_str()).unwrap_or_default()
}

fn is_over(run: &WorkflowRun) -> bool {
    matches!(phase(run), "Succeeded" | "Failed" | "Cancelled")
}

impl WorkflowReconciler {
    fn status(&self, workflow: &Workflow, runs: &[Arc<WorkflowRun>]) -> WorkflowStatus {
        let count = |of: &dyn Fn(&WorkflowRun) -> bool| runs.iter().filter(|run| of(run)).count() as i64;
        let before = workflow.status.clone().unwrap_or_default();
        WorkflowStatus {
            observed_generation: workflow.metadata.generation.unwrap_or_default(),
            conditions: vec![self.functions_found(workflow, before.conditions.first())],
            active: count(&|run| !is_over(run)),
            succeeded: count(&|run| phase(run) == "Succeeded"),
            failed: count(&|run| phase(run) == "Failed"),
        }
    }

    fn functions_found(&self, workflow: &Workflow, before: Option<&Condition>) -> Condition {
        let namespace = workflow.metadata.namespace.as_deref().unwrap_or_default();
        let compiled = compile(&workflow.spec).ok();
        let called: Vec<String> = compiled
            .iter()
            .flat_map(|w| w.body.functions())
            .map(|function| {
                let of = if function.namespace.is_empty() { namespace } else { &function.namespace };
                format!("{of}/{}", function.name)
            })
            .collect();
        let missing: Vec<&str> =
            called.iter().filter(|key| self.functions.get(key).is_none()).map(String::as_str).collect();
        let (status, reason, message) = match missing.as_slice() {
            [] => ("True", "AllFound", String::new()),
            missing => ("False", "FunctionNotFound", format!("there is no Function {}", missing.join(", "))),
        };
        let same = before.filter(|b| b.status == status);
        Condition {
            type_: "FunctionsFound".to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message,
            observed_generation: workflow.metadata.generation,
            last_transition_time: same.map_or_else(|| Time(self.ctx.clock.now()), |b| b.last_transition_time.clone()),
        }
    }

    /// Deletes the oldest of the runs that ended, beyond those that are kept.
    async fn forget(&self, workflow: Option<&Workflow>, runs: &[Arc<WorkflowRun>]) -> ApiResult<()> {
        let keep = workflow.and_then(|workflow| workflow.spec.keep_finished).unwrap_or(KEEP);
        let keep = usize::try_from(keep).unwrap_or_default();
        let mut over: Vec<_> =
            runs.iter().filter(|run| is_over(run) && run.metadata.deletion_timestamp.is_none()).collect();
        over.sort_by_key(|run| run.status.as_ref().and_then(|status| status.finished_at.clone()));
        let excess = over.len().saturating_sub(keep);
        for run in over.into_iter().take(excess) {
            let (Some(namespace), Some(name)) = (&run.metadata.namespace, &run.metadata.name) else { continue };
            let preconditions = DeletePreconditions { uid: run.metadata.uid.clone(), resource_version: None };
            let options = DeleteOptions { preconditions, ..DeleteOptions::default() };
            match self.ctx.client.api::<WorkflowRun>(namespace).delete(name, &options).await {
                Err(e) if !e.is_not_found() => return Err(e),
                _ => {}
            }
        }
        Ok(())
    }

    /// Deletes revisions that no run speaks of, but the one of now. A run that just begins may be about to speak of one.
    async fn drop_revisions(&self, key: &str, workflow: Option<&Workflow>, runs: &[Arc<WorkflowRun>]) -> ApiResult<()> {
        if runs.iter().any(|run| run.status.as_ref().is_none_or(|status| status.revision.is_empty())) {
            return Ok(());
        }
        let mut used: HashSet<String> =
            runs.iter().filter_map(|run| run.status.as_ref()).map(|status| status.revision.clone()).collect();
        used.extend(workflow.map(revision_name));
        let kept = self.records.list_by(REVISIONS, key);
        let name = |record: &WorkflowRecord| record.metadata.name.clone().unwrap_or_default();
        let pieces: HashSet<String> = kept
            .iter()
            .filter(|record| used.contains(&name(record)))
            .flat_map(|record| record.data["pieces"].as_array().into_iter().flatten())
            .filter_map(|piece| Some(piece.as_str()?.to_owned()))
            .collect();
        let namespace = key.split_once('/').unwrap_or_default().0;
        for record in kept.iter().map(|record| name(record)).filter(|n| !used.contains(n) && !pieces.contains(n)) {
            match self.ctx.client.api::<WorkflowRecord>(namespace).delete(&record, &DeleteOptions::default()).await {
                Err(e) if !e.is_not_found() => return Err(e),
                _ => {}
            }
        }
        Ok(())
    }
}
