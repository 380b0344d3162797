//! Says of each workflow whether its functions are there and how its runs are doing, and lets old runs go.

use super::load::{REVISION_OF, revision_name};
use super::{BY_WORKFLOW, index};
use crate::workflow::compile;
use crate::workflow::objects::{Workflow, WorkflowRecord, WorkflowRun, WorkflowStatus};
use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use minik8s_core::api::{ApiResult, Gvr, Object};
use minik8s_core::client::{Change, DeleteOptions, DeletePreconditions, Informer, ListOptions, WorkQueue, key_of};
use minik8s_core::controllers::{Controller, ControllerContext, Outcome, Reconciler, pump, run_workers};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

/// Runs that ended and are kept where the workflow does not say how many.
const KEEP: i64 = 1000;
/// The index of records by the workflow they hold a revision of.
const REVISIONS: &str = "revisions";
/// Younger revisions stay: a run that begins may be about to speak of one.
const YOUNG: Duration = Duration::from_secs(60);
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
        let outcome = self.drop_revisions(key, workflow.as_deref(), &runs).await?;
        let Some(workflow) = workflow else { return Ok(outcome) };
        let status = self.status(&workflow, &runs);
        if workflow.status.as_ref() != Some(&status) {
            let namespace = workflow.metadata.namespace.as_deref().unwrap_or_default();
            let changed = Workflow { status: Some(status), ..(*workflow).clone() };
            self.ctx.client.api::<Workflow>(namespace).update_status(&changed).await?;
        }
        Ok(outcome)
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

    /// Deletes revisions that no run speaks of, but the one of now. Informers may be behind each other: what goes is read
    /// first, and what speaks of it anew after that.
    async fn drop_revisions(
        &self,
        key: &str,
        workflow: Option<&Workflow>,
        runs: &[Arc<WorkflowRun>],
    ) -> ApiResult<Outcome> {
        let mut records = self.records.list_by(REVISIONS, key);
        let now = self.ctx.clock.now();
        let Some(used) = used(workflow, runs) else { return Ok(Outcome::Done) };
        let (spare, young) = unused(&used, &records, now);
        let outcome = if young { Outcome::After(YOUNG) } else { Outcome::Done };
        if spare.is_empty() {
            return Ok(outcome);
        }
        let Some(used) = self.used_now(key, &mut records).await? else { return Ok(outcome) };
        let api = self.ctx.client.api::<WorkflowRecord>(key.split_once('/').unwrap_or_default().0);
        for record in unused(&used, &records, now).0 {
            let preconditions = DeletePreconditions {
                uid: record.metadata.uid.clone(),
                resource_version: record.metadata.resource_version.clone(),
            };
            let options = DeleteOptions { preconditions, ..DeleteOptions::default() };
            match api.delete(name_of(record), &options).await {
                Err(e) if !e.is_not_found() && !e.is_conflict() => return Err(e),
                _ => {}
            }
        }
        Ok(outcome)
    }

    /// The revisions that are in use, as the API says; those that are not among the records yet are added to them.
    async fn used_now(&self, key: &str, records: &mut Vec<Arc<WorkflowRecord>>) -> ApiResult<Option<HashSet<String>>> {
        let (namespace, name) = key.split_once('/').unwrap_or_default();
        let client = &self.ctx.client;
        let runs = client.api::<WorkflowRun>(namespace).list(&ListOptions::default()).await?.items;
        let runs: Vec<_> = runs.into_iter().filter(|run| run.spec.workflow == name).map(Arc::new).collect();
        let workflow = client.api::<Workflow>(namespace).get_opt(name).await?;
        let Some(used) = used(workflow.as_ref(), &runs) else { return Ok(None) };
        for name in &used {
            if !records.iter().any(|record| name_of(record) == name)
                && let Some(record) = client.api::<WorkflowRecord>(namespace).get_opt(name).await?
            {
                records.push(Arc::new(record));
            }
        }
        Ok(Some(used))
    }
}

fn name_of(record: &WorkflowRecord) -> &str {
    record.metadata.name.as_deref().unwrap_or_default()
}

/// The revisions that runs speak of, and the one of now; nothing where a run is about to begin with nobody knows which. Pure.
fn used(workflow: Option<&Workflow>, runs: &[Arc<WorkflowRun>]) -> Option<HashSet<String>> {
    let revision = |run: &WorkflowRun| run.status.as_ref().map(|status| status.revision.clone()).unwrap_or_default();
    if runs.iter().any(|run| !is_over(run) && revision(run).is_empty()) {
        return None;
    }
    let spoken = runs.iter().map(|run| revision(run)).filter(|revision| !revision.is_empty());
    Some(spoken.chain(workflow.map(revision_name)).collect())
}

/// The records of a workflow that can go, and whether others can when they are older. Pure.
fn unused<'a>(
    used: &HashSet<String>,
    records: &'a [Arc<WorkflowRecord>],
    now: Timestamp,
) -> (Vec<&'a WorkflowRecord>, bool) {
    let pieces: HashSet<&str> = records
        .iter()
        .filter(|record| used.contains(name_of(record)))
        .flat_map(|record| record.data["pieces"].as_array().into_iter().flatten())
        .filter_map(|piece| piece.as_str())
        .collect();
    let is_young = |record: &&WorkflowRecord| {
        let made = record.metadata.creation_timestamp.as_ref();
        made.is_some_and(|made| now.duration_since(made.0).unsigned_abs() < YOUNG && made.0 <= now)
    };
    let spare = records.iter().map(AsRef::as_ref);
    let spare = spare.filter(|record| !used.contains(name_of(record)) && !pieces.contains(name_of(record)));
    let (young, old): (Vec<_>, Vec<_>) = spare.partition(is_young);
    (old, !young.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn run(phase: &str, revision: &str) -> Arc<WorkflowRun> {
        let run = json!({"metadata": {"name": "r"}, "spec": {"workflow": "w"}, "status": {"phase": phase, "revision": revision}});
        Arc::new(serde_json::from_value(run).unwrap())
    }

    #[test]
    fn only_runs_that_may_still_begin_keep_what_nobody_speaks_of() {
        let names = |used: Option<HashSet<String>>| {
            let mut names: Vec<_> = used?.into_iter().collect();
            names.sort();
            Some(names)
        };
        let over = [run("Cancelled", ""), run("Succeeded", "w.1"), run("Running", "w.2")];
        assert_eq!(names(used(None, &over)), Some(vec!["w.1".to_owned(), "w.2".to_owned()]));
        for phase in ["", "Pending"] {
            assert_eq!(used(None, &[run("Succeeded", "w.1"), run(phase, "")]), None);
        }
        let workflow = Workflow::default();
        assert_eq!(names(used(Some(&workflow), &[])), Some(vec![revision_name(&workflow)]));
    }

    #[test]
    fn records_go_that_are_old_and_neither_used_nor_pieces_of_one_that_is() {
        let now = Timestamp::from_second(10_000).unwrap();
        let record = |name: &str, age: i64, data: serde_json::Value| -> Arc<WorkflowRecord> {
            let made = (now - jiff::SignedDuration::from_secs(age)).to_string();
            let record = json!({"metadata": {"name": name, "creationTimestamp": made}, "data": data});
            Arc::new(serde_json::from_value(record).unwrap())
        };
        let records = [
            record("used", 900, json!({"pieces": ["shared"]})),
            record("shared", 900, json!({"piece": "x"})),
            record("old", 60, json!({"pieces": ["shared", "alone"]})),
            record("alone", 900, json!({"piece": "y"})),
            record("young", 59, json!({"value": 1})),
        ];
        let of = |used: &[&str], records: &[Arc<WorkflowRecord>]| {
            let used = used.iter().map(|name| (*name).to_owned()).collect();
            let (old, young) = unused(&used, records, now);
            (old.into_iter().map(|record| name_of(record).to_owned()).collect::<Vec<_>>(), young)
        };
        assert_eq!(of(&["used"], &records), (vec!["old".to_owned(), "alone".to_owned()], true));
        assert_eq!(of(&["used", "young"], &records[..2]), (vec![], false));
    }
}
