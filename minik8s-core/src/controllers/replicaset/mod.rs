//! ReplicaSets: as many pods as wanted, made from one template.

pub mod decide;
#[cfg(test)]
mod tests;

use super::owner::{self, Claim};
use super::pods::{BY_OWNER, index_by_owner, on_lost_node, orphans};
use super::{
    Controller, ControllerContext, Expectations, Outcome, Reconciler, UNSEEN, controller_of, controller_reference,
    is_active, pump, run_workers,
};
use crate::api::{ApiError, ApiResult, Selector};
use crate::client::{
    Change, DeleteOptions, DeletePreconditions, Deleted, EventType, Informer, WorkQueue, key_of, object_key,
    reference_of,
};
use async_trait::async_trait;
use decide::Replica;
use futures::future::join_all;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Keeps the number of pods of each ReplicaSet.
pub struct ReplicaSetController {
    /// How many sets are looked at at once.
    pub workers: usize,
}

#[async_trait]
impl Controller for ReplicaSetController {
    fn name(&self) -> &str {
        "replicaset-controller"
    }

    async fn run(self: Arc<Self>, ctx: ControllerContext) {
        let (sets, pods, nodes) = (ctx.informers.of(), ctx.informers.of(), ctx.informers.of());
        index_by_owner(&pods);
        let (_, _, _) = tokio::join!(sets.synced(), pods.synced(), nodes.synced());
        let queue = ctx.queue();
        watch(&ctx, &queue, &sets, &pods, &nodes);
        let reconciler = Sets { ctx: ctx.clone(), sets, pods, nodes, expect: Expectations::default() };
        run_workers(&ctx, &queue, self.workers, Arc::new(reconciler)).await;
    }
}

/// Which change concerns which set.
fn watch(
    ctx: &ControllerContext,
    queue: &WorkQueue<String>,
    sets: &Informer<ReplicaSet>,
    pods: &Informer<Pod>,
    nodes: &Informer<Node>,
) {
    let q = queue.clone();
    pump(ctx, sets, move |change| match change {
        Change::Applied { new, .. } => q.add(key_of(&**new)),
        Change::Deleted(old) => q.add(key_of(&**old)),
        // Every set was fed just before; of those that are gone nothing is left to do.
        Change::Resync => {}
    });
    let (q, s) = (queue.clone(), sets.clone());
    pump(ctx, pods, move |change| match change {
        Change::Applied { old, new } => {
            old.iter().for_each(|old| concerned(&q, &s, old));
            concerned(&q, &s, new);
        }
        Change::Deleted(old) => concerned(&q, &s, old),
        Change::Resync => every(&q, &s),
    });
    // A node that is lost or found changes how many of its pods are ready.
    let (q, p, s) = (queue.clone(), pods.clone(), sets.clone());
    let lost = |node: &Node| super::pods::is_lost(node);
    pump(ctx, nodes, move |change| {
        let (Change::Applied { new: node, .. } | Change::Deleted(node)) = change else { return every(&q, &s) };
        if let Change::Applied { old: Some(old), new } = change
            && lost(old) == lost(new)
        {
            return;
        }
        if !lost(node) && matches!(change, Change::Applied { old: None, .. }) {
            return;
        }
        let here =
            |pod: &&Arc<Pod>| pod.spec.as_ref().and_then(|s| s.node_name.as_ref()) == node.metadata.name.as_ref();
        for pod in p.list().iter().filter(here) {
            if let Some(owner) = controller_of(&pod.metadata).filter(|r| r.kind == "ReplicaSet") {
                q.add(object_key(pod.metadata.namespace.as_deref().unwrap_or_default(), &owner.name));
            }
        }
    });
}

fn every(queue: &WorkQueue<String>, sets: &Informer<ReplicaSet>) {
    sets.list().iter().for_each(|set| queue.add(key_of(&**set)));
}

/// Queues the set that manages a pod, or those that might take it.
fn concerned(queue: &WorkQueue<String>, sets: &Informer<ReplicaSet>, pod: &Pod) {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    if let Some(owner) = controller_of(&pod.metadata) {
        if owner.kind == "ReplicaSet" {
            queue.add(object_key(namespace, &owner.name));
        }
        return;
    }
    for set in sets.list_in(namespace) {
        if selector(&set).is_ok_and(|s| owner::matches(&s, &pod.metadata)) {
            queue.add(key_of(&*set));
        }
    }
}

fn selector(set: &ReplicaSet) -> ApiResult<Selector> {
    Selector::from_typed(set.spec.as_ref().map(|s| &s.selector))
}

struct Sets {
    ctx: ControllerContext,
    sets: Informer<ReplicaSet>,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    expect: Expectations,
}

#[async_trait]
impl Reconciler for Sets {
    type Key = String;

    async fn reconcile(&self, key: &String) -> ApiResult<Outcome> {
        let Some(set) = self.sets.get(key) else {
            self.expect.forget(key);
            return Ok(Outcome::Done);
        };
        let live = |pod: &Pod| pod.metadata.deletion_timestamp.is_none().then(|| pod.metadata.uid.clone()).flatten();
        if !self.expect.seen(key, &self.pods, live) {
            return Ok(UNSEEN);
        }
        let pods = self.claimed(key, &set).await?;
        let (active, others): (Vec<_>, Vec<_>) = pods.into_iter().partition(|p| is_active(p));
        let terminating = others.iter().filter(|p| p.metadata.deletion_timestamp.is_some()).count();
        let replica = |pod: Arc<Pod>| Replica { lost: on_lost_node(&pod, &self.nodes), pod };
        let active: Vec<_> = active.into_iter().map(replica).collect();
        let managed = match set.metadata.deletion_timestamp {
            None => self.manage(key, &set, &active).await,
            Some(_) => Ok(()),
        };
        self.report(&set, &active, terminating, managed).await
    }
}

impl Sets {
    /// The set's pods, after orphans that match were adopted and those that no longer match let go.
    async fn claimed(&self, key: &str, set: &ReplicaSet) -> ApiResult<Vec<Arc<Pod>>> {
        let (selector, namespace) = (selector(set)?, set.metadata.namespace.as_deref().unwrap_or_default());
        let uid = set.metadata.uid.as_deref().unwrap_or_default();
        let alive = set.metadata.deletion_timestamp.is_none();
        let api = self.ctx.client.api::<Pod>(namespace);
        let mut mine = Vec::new();
        let mut confirmed = false;
        let candidates = [self.pods.list_by(BY_OWNER, uid), self.pods.list_by(BY_OWNER, &orphans(namespace))];
        for pod in candidates.concat() {
            match owner::claim(&pod.metadata, uid, owner::matches(&selector, &pod.metadata), alive) {
                Claim::Keep => mine.push(pod),
                Claim::Ignore => {}
                Claim::Release => {
                    let released = owner::release(&api, &pod, uid).await?;
                    self.expect.wrote_version(key, released.metadata.resource_version.as_deref());
                }
                Claim::Adopt if super::is_active(&pod) => {
                    if !confirmed {
                        self.confirm_alive(set, namespace).await?;
                        confirmed = true;
                    }
                    let adopted = owner::adopt(&api, &pod, &controller_reference(set)).await?;
                    self.expect.wrote_version(key, adopted.metadata.resource_version.as_deref());
                    mine.push(Arc::new(adopted));
                }
                Claim::Adopt => {}
            }
        }
        Ok(mine)
    }

    /// Asks the API itself, for the informer may not know yet that the set is being deleted: then nothing must be
    /// adopted, or it would be collected.
    async fn confirm_alive(&self, set: &ReplicaSet, namespace: &str) -> ApiResult<()> {
        let name = set.metadata.name.as_deref().unwrap_or_default();
        let now = self.ctx.client.api::<ReplicaSet>(namespace).get(name).await?;
        if now.metadata.uid != set.metadata.uid || now.metadata.deletion_timestamp.is_some() {
            return Err(ApiError::internal(format!(
                "ReplicaSet {namespace}/{name} is being deleted, it adopts nothing"
            )));
        }
        Ok(())
    }

    async fn manage(&self, key: &str, set: &ReplicaSet, active: &[Replica]) -> ApiResult<()> {
        let plan = decide::plan(set, active);
        if plan.create > 0 {
            return self.create(key, set, plan.create).await;
        }
        let chosen = plan.delete.iter().map(|&i| self.delete(key, set, &active[i].pod));
        join_all(chosen).await.into_iter().collect()
    }

    /// Makes pods in batches that double in size, so that a template that cannot work fails once, not a hundred times.
    async fn create(&self, key: &str, set: &ReplicaSet, count: usize) -> ApiResult<()> {
        let pod = pod_of(set);
        let mut left = count;
        let mut batch = 1;
        while left > 0 {
            let now = batch.min(left);
            let made = join_all((0..now).map(|_| self.create_one(key, set, &pod))).await;
            made.into_iter().collect::<ApiResult<()>>()?;
            left -= now;
            batch *= 2;
        }
        Ok(())
    }

    async fn create_one(&self, key: &str, set: &ReplicaSet, pod: &Pod) -> ApiResult<()> {
        let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
        let about = reference_of(set);
        match self.ctx.client.api::<Pod>(namespace).create(pod).await {
            Ok(made) => {
                self.expect.wrote_version(key, made.metadata.resource_version.as_deref());
                let note = format!("Created pod: {}", made.metadata.name.unwrap_or_default());
                self.ctx.events.event(&about, EventType::Normal, "SuccessfulCreate", note);
                Ok(())
            }
            Err(e) if e.details.causes.iter().any(|c| c.reason == "NamespaceTerminating") => Ok(()),
            Err(e) => {
                self.ctx.events.event(&about, EventType::Warning, "FailedCreate", format!("Error creating: {e}"));
                Err(e)
            }
        }
    }

    async fn delete(&self, key: &str, set: &ReplicaSet, pod: &Pod) -> ApiResult<()> {
        let (name, namespace) = (pod.metadata.name.as_deref().unwrap_or_default(), pod.metadata.namespace.as_deref());
        let uid = pod.metadata.uid.clone();
        let preconditions = DeletePreconditions { uid: uid.clone(), resource_version: None };
        let options = DeleteOptions { preconditions, ..DeleteOptions::default() };
        match self.ctx.client.api::<Pod>(namespace.unwrap_or_default()).delete(name, &options).await {
            Ok(deleted) => {
                self.expect.deleted(key, &key_of(pod), &uid.unwrap_or_default());
                if let Deleted::Marked(object) = deleted {
                    self.expect.wrote(key, object.revision);
                }
                let note = format!("Deleted pod: {name}");
                self.ctx.events.event(&reference_of(set), EventType::Normal, "SuccessfulDelete", note);
                Ok(())
            }
            Err(e) if e.is_not_found() || e.is_conflict() => Ok(()),
            Err(e) => {
                let note = format!("Error deleting: {e}");
                self.ctx.events.event(&reference_of(set), EventType::Warning, "FailedDelete", note);
                Err(e)
            }
        }
    }

    /// Writes the status where it says something new; then passes on what went wrong before.
    async fn report(
        &self,
        set: &ReplicaSet,
        active: &[Replica],
        terminating: usize,
        managed: ApiResult<()>,
    ) -> ApiResult<Outcome> {
        let failure = managed.as_ref().err().map(|e| e.to_string());
        let (status, next) = decide::status(set, active, terminating, failure.as_deref(), self.ctx.clock.now());
        if !decide::says_the_same(set.status.as_ref(), &status) {
            let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
            let new = ReplicaSet { status: Some(status), ..set.clone() };
            self.ctx.client.api::<ReplicaSet>(namespace).update_status(&new).await?;
        }
        managed?;
        Ok(next.map_or(Outcome::Done, Outcome::After))
    }
}

/// A pod from the set's template.
fn pod_of(set: &ReplicaSet) -> Pod {
    let template = set.spec.as_ref().and_then(|s| s.template.clone()).unwrap_or_default();
    let meta = template.metadata.unwrap_or_default();
    let finalizers = meta.finalizers.map(|f| f.into_iter().collect::<BTreeSet<_>>().into_iter().collect());
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", set.metadata.name.as_deref().unwrap_or_default())),
            namespace: set.metadata.namespace.clone(),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers,
            owner_references: Some(vec![controller_reference(set)]),
            ..ObjectMeta::default()
        },
        spec: template.spec,
        status: None,
    }
}
