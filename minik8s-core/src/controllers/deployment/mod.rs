//! Deployments: from one template to the next, through ReplicaSets.

pub mod conditions;
pub mod numbers;
pub mod plan;
pub mod template;
#[cfg(test)]
mod tests;

use super::owner::{self, Claim};
use super::pods::{BY_OWNER, index_by_owner, is_finished, orphans};
use super::{
    Controller, ControllerContext, Expectations, Outcome, Reconciler, UNSEEN, controller_of, controller_reference,
    pump, run_workers,
};
use crate::api::{ApiError, ApiResult, Selector};
use crate::client::{
    Api, Change as Seen, DeleteOptions, DeletePreconditions, EventType, Informer, PatchType, WorkQueue, key_of,
    object_key, reference_of,
};
use async_trait::async_trait;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use plan::{Change, Plan};
use serde_json::json;
use std::sync::Arc;

/// Rolls Deployments from template to template.
pub struct DeploymentController {
    /// How many deployments are looked at at once.
    pub workers: usize,
}

#[async_trait]
impl Controller for DeploymentController {
    fn name(&self) -> &str {
        "deployment-controller"
    }

    async fn run(self: Arc<Self>, ctx: ControllerContext) {
        let (deployments, sets, pods) = (ctx.informers.of(), ctx.informers.of(), ctx.informers.of());
        index_by_owner(&pods);
        sets.add_index(BY_OWNER, |set: &ReplicaSet| {
            let owner = controller_of(&set.metadata).map(|r| r.uid.clone());
            vec![owner.unwrap_or_else(|| orphans(set.metadata.namespace.as_deref().unwrap_or_default()))]
        });
        let (_, _, _) = tokio::join!(deployments.synced(), sets.synced(), pods.synced());
        let queue = ctx.queue();
        watch(&ctx, &queue, &deployments, &sets, &pods);
        let reconciler = Deployments { ctx: ctx.clone(), deployments, sets, pods, expect: Expectations::default() };
        run_workers(&ctx, &queue, self.workers, Arc::new(reconciler)).await;
    }
}

/// Which change concerns which deployment.
fn watch(
    ctx: &ControllerContext,
    queue: &WorkQueue<String>,
    deployments: &Informer<Deployment>,
    sets: &Informer<ReplicaSet>,
    pods: &Informer<Pod>,
) {
    let q = queue.clone();
    pump(ctx, deployments, move |change| match change {
        Seen::Applied { new: d, .. } | Seen::Deleted(d) => q.add(key_of(&**d)),
        // Every deployment was fed just before; of those that are gone nothing is left to do.
        Seen::Resync => {}
    });
    let (q, d) = (queue.clone(), deployments.clone());
    pump(ctx, sets, move |change| match change {
        Seen::Applied { old, new } => {
            old.iter().for_each(|old| concerned(&q, &d, old));
            concerned(&q, &d, new);
        }
        Seen::Deleted(old) => concerned(&q, &d, old),
        Seen::Resync => every(&q, &d),
    });
    // Only `Recreate` waits for pods to go; all else is told by the sets.
    let (q, d, s) = (queue.clone(), deployments.clone(), sets.clone());
    pump(ctx, pods, move |change| {
        let (Seen::Applied { new: pod, .. } | Seen::Deleted(pod)) = change else { return every(&q, &d) };
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let owner = |meta: &ObjectMeta| controller_of(meta).map(|r| object_key(namespace, &r.name));
        let set = owner(&pod.metadata).and_then(|key| s.get(&key));
        let Some(key) = set.and_then(|set| owner(&set.metadata)) else { return };
        if d.get(&key).is_some_and(|d| numbers::is_recreate(&d)) {
            q.add(key);
        }
    });
}

fn every(queue: &WorkQueue<String>, deployments: &Informer<Deployment>) {
    deployments.list().iter().for_each(|deployment| queue.add(key_of(&**deployment)));
}

/// Queues the deployment that manages a set, or those that might take it.
fn concerned(queue: &WorkQueue<String>, deployments: &Informer<Deployment>, set: &ReplicaSet) {
    let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
    if let Some(owner) = controller_of(&set.metadata) {
        if owner.kind == "Deployment" {
            queue.add(object_key(namespace, &owner.name));
        }
        return;
    }
    for deployment in deployments.list_in(namespace) {
        if selector(&deployment).is_ok_and(|s| owner::matches(&s, &set.metadata)) {
            queue.add(key_of(&*deployment));
        }
    }
}

fn selector(deployment: &Deployment) -> ApiResult<Selector> {
    Selector::from_typed(deployment.spec.as_ref().map(|s| &s.selector))
}

struct Deployments {
    ctx: ControllerContext,
    deployments: Informer<Deployment>,
    sets: Informer<ReplicaSet>,
    pods: Informer<Pod>,
    expect: Expectations,
}

#[async_trait]
impl Reconciler for Deployments {
    type Key = String;

    async fn reconcile(&self, key: &String) -> ApiResult<Outcome> {
        let Some(deployment) = self.deployments.get(key) else {
            self.expect.forget(key);
            return Ok(Outcome::Done);
        };
        let live = |set: &ReplicaSet| set.metadata.deletion_timestamp.is_none().then(|| set.metadata.uid.clone())?;
        if !self.expect.seen(key, &self.sets, live) {
            return Ok(UNSEEN);
        }
        let sets = self.claimed(key, &deployment).await?;
        let old_pods = self.old_pods(&deployment, &sets);
        let plan = plan::plan(&deployment, &sets, old_pods, self.ctx.clock.now());
        let again = plan.again;
        self.act(key, &deployment, &sets, plan).await?;
        Ok(again.map_or(Outcome::Done, Outcome::After))
    }
}

impl Deployments {
    /// The deployment's sets, after orphans that match were adopted and those that no longer match let go.
    async fn claimed(&self, key: &str, deployment: &Deployment) -> ApiResult<Vec<Arc<ReplicaSet>>> {
        let selector = selector(deployment)?;
        let namespace = deployment.metadata.namespace.as_deref().unwrap_or_default();
        let uid = deployment.metadata.uid.as_deref().unwrap_or_default();
        let alive = deployment.metadata.deletion_timestamp.is_none();
        let api = self.ctx.client.api::<ReplicaSet>(namespace);
        let mut mine = Vec::new();
        for set in [self.sets.list_by(BY_OWNER, uid), self.sets.list_by(BY_OWNER, &orphans(namespace))].concat() {
            match owner::claim(&set.metadata, uid, owner::matches(&selector, &set.metadata), alive) {
                Claim::Keep => mine.push(set),
                Claim::Ignore => {}
                Claim::Release => {
                    let released = owner::release(&api, &set, uid).await?;
                    self.expect.wrote_version(key, released.metadata.resource_version.as_deref());
                }
                Claim::Adopt => {
                    self.confirm_alive(deployment, namespace).await?;
                    let adopted = owner::adopt(&api, &set, &controller_reference(deployment)).await?;
                    self.expect.wrote_version(key, adopted.metadata.resource_version.as_deref());
                    mine.push(Arc::new(adopted));
                }
            }
        }
        Ok(mine)
    }

    /// Asks the API itself: the informer may not know yet that the deployment is being deleted.
    async fn confirm_alive(&self, deployment: &Deployment, namespace: &str) -> ApiResult<()> {
        let name = deployment.metadata.name.as_deref().unwrap_or_default();
        let now = self.ctx.client.api::<Deployment>(namespace).get(name).await?;
        if now.metadata.uid != deployment.metadata.uid || now.metadata.deletion_timestamp.is_some() {
            return Err(ApiError::internal(format!(
                "Deployment {namespace}/{name} is being deleted, it adopts nothing"
            )));
        }
        Ok(())
    }

    /// True where pods of other templates still run.
    fn old_pods(&self, deployment: &Deployment, sets: &[Arc<ReplicaSet>]) -> bool {
        let new = template::find_new(deployment, sets);
        let old = sets.iter().enumerate().filter(|(i, _)| Some(*i) != new);
        let pods = |uid: &str| self.pods.list_by(BY_OWNER, uid).iter().any(|p| !is_finished(p));
        old.into_iter().any(|(_, set)| set.metadata.uid.as_deref().is_some_and(pods))
    }

    async fn act(&self, key: &str, deployment: &Deployment, sets: &[Arc<ReplicaSet>], plan: Plan) -> ApiResult<()> {
        let namespace = deployment.metadata.namespace.as_deref().unwrap_or_default();
        let api = self.ctx.client.api::<ReplicaSet>(namespace);
        if let Some(set) = &plan.create
            && let Some(status) = self.create(key, deployment, set, &api, &plan.status).await?
        {
            return self.report(deployment.clone(), status).await;
        }
        for change in &plan.changes {
            self.change(key, deployment, &sets[change.set], change, &api).await?;
        }
        for &i in &plan.delete {
            self.delete(key, &sets[i], &api).await?;
        }
        let mut current = deployment.clone();
        if let Some(revision) = plan.revision {
            let patch = json!({"metadata": {"annotations": {template::REVISION: revision}}});
            let name = deployment.metadata.name.as_deref().unwrap_or_default();
            current = self.ctx.client.api(namespace).patch(name, PatchType::Merge, &patch).await?;
        }
        self.report(current, plan.status).await
    }

    async fn report(&self, mut deployment: Deployment, status: DeploymentStatus) -> ApiResult<()> {
        if conditions::says_the_same(deployment.status.as_ref(), &status) {
            return Ok(());
        }
        let namespace = deployment.metadata.namespace.clone().unwrap_or_default();
        deployment.status = Some(status);
        self.ctx.client.api::<Deployment>(&namespace).update_status(&deployment).await.map(|_| ())
    }

    /// Makes a set. Answers a status to report instead of going on, where it could not be made.
    async fn create(
        &self,
        key: &str,
        deployment: &Deployment,
        set: &ReplicaSet,
        api: &Api<ReplicaSet>,
        status: &DeploymentStatus,
    ) -> ApiResult<Option<DeploymentStatus>> {
        let name = set.metadata.name.as_deref().unwrap_or_default();
        match api.create(set).await {
            Ok(made) => {
                self.expect.wrote_version(key, made.metadata.resource_version.as_deref());
                self.tell_scaled(deployment, name, 0, numbers::size(&made));
                Ok(None)
            }
            Err(e) if e.is_already_exists() => {
                let existing = Arc::new(api.get(name).await?);
                let ours = controller_of(&existing.metadata).map(|r| &r.uid) == deployment.metadata.uid.as_ref();
                if ours && template::find_new(deployment, &[existing]).is_some() {
                    return Err(ApiError::conflict(&self.sets_gvr(), name, "it was made a moment ago"));
                }
                // Another template, or another owner, has the name: the next one is made with another salt.
                let collisions = status.collision_count.unwrap_or(0) + 1;
                let old = deployment.status.clone().unwrap_or_default();
                Ok(Some(DeploymentStatus { collision_count: Some(collisions), ..old }))
            }
            Err(e) if e.details.causes.iter().any(|c| c.reason == "NamespaceTerminating") => Ok(None),
            Err(e) => {
                let about = reference_of(deployment);
                self.ctx.events.event(&about, EventType::Warning, "ReplicaSetCreateError", e.to_string());
                let why = format!("Failed to create new replica set \"{name}\": {e}");
                let status = conditions::create_failed(deployment, status.clone(), &why, self.ctx.clock.now());
                self.report(deployment.clone(), status).await?;
                Err(e)
            }
        }
    }

    fn sets_gvr(&self) -> crate::api::Gvr {
        <ReplicaSet as crate::client::ApiResource>::gvr()
    }

    async fn change(
        &self,
        key: &str,
        deployment: &Deployment,
        set: &ReplicaSet,
        change: &Change,
        api: &Api<ReplicaSet>,
    ) -> ApiResult<()> {
        let before = numbers::size(set);
        let mut new = set.clone();
        new.metadata.annotations = Some(change.annotations.clone());
        let spec = new.spec.get_or_insert_default();
        spec.replicas = Some(change.size);
        if let Some(min_ready) = change.min_ready {
            spec.min_ready_seconds = (min_ready > 0).then_some(min_ready);
        }
        let written = api.update(&new).await?;
        self.expect.wrote_version(key, written.metadata.resource_version.as_deref());
        self.tell_scaled(deployment, set.metadata.name.as_deref().unwrap_or_default(), before, change.size);
        Ok(())
    }

    async fn delete(&self, key: &str, set: &ReplicaSet, api: &Api<ReplicaSet>) -> ApiResult<()> {
        let (name, uid) = (set.metadata.name.as_deref().unwrap_or_default(), set.metadata.uid.clone());
        let preconditions = DeletePreconditions { uid: uid.clone(), resource_version: None };
        match api.delete(name, &DeleteOptions { preconditions, ..DeleteOptions::default() }).await {
            Ok(_) => self.expect.deleted(key, &key_of(set), &uid.unwrap_or_default()),
            Err(e) if e.is_not_found() || e.is_conflict() => {}
            Err(e) => return Err(e),
        }
        Ok(())
    }

    fn tell_scaled(&self, deployment: &Deployment, set: &str, from: i32, to: i32) {
        let direction = match to.cmp(&from) {
            std::cmp::Ordering::Equal => return,
            std::cmp::Ordering::Greater => "up",
            std::cmp::Ordering::Less => "down",
        };
        let note = format!("Scaled {direction} replica set {set} from {from} to {to}");
        self.ctx.events.event(&reference_of(deployment), EventType::Normal, "ScalingReplicaSet", note);
    }
}
