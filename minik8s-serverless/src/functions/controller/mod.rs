//! Keeps functions: revisions, their instances, and who gets calls. What to do is decided by [`plan`](super::plan) and
//! [`scale`](super::scale); here it is seen and done.

mod keep;
mod look;
mod tell;

use super::FunctionsConfig;
use super::api::{Function, FunctionRevision};
use super::demands::Demands;
use super::metrics::FunctionMetrics;
use super::revision::{self, REVISION_LABEL};
use super::scale::History;
use crate::front;
use async_trait::async_trait;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{Pod, Service};
use minik8s_core::api::{ApiResult, Demand, PathRoute};
use minik8s_core::client::{ApiResource, Change, Informer, PatchType, WorkQueue, key_of, object_key};
use minik8s_core::controllers::{Controller, ControllerContext, Outcome, Reconciler, pump, run_workers};
use minik8s_core::node::PAUSED;
use parking_lot::Mutex;
use serde_json::json;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How many functions are looked at at once.
const WORKERS: usize = 4;
/// Between two looks at a function that is called.
const LOOK: Duration = Duration::from_secs(1);
/// After this long every gateway knows that a revision gets no calls any more.
const HEARD: Duration = Duration::from_secs(2);
/// Index of revisions by their function.
const BY_FUNCTION: &str = "function";
/// Index of pods by their revision.
const BY_REVISION: &str = "function-revision";

/// Keeps functions.
pub(super) struct FunctionController {
    pub(super) config: FunctionsConfig,
}

#[async_trait]
impl Controller for FunctionController {
    fn name(&self) -> &str {
        "function-controller"
    }

    async fn run(self: Arc<Self>, ctx: ControllerContext) {
        let world = World {
            functions: ctx.informers.of(),
            revisions: ctx.informers.of(),
            sets: ctx.informers.of(),
            services: ctx.informers.of(),
            pods: ctx.informers.of(),
            routes: ctx.informers.of(),
            demands: Demands::default(),
            memory: Mutex::default(),
            metrics: self.config.metrics.clone(),
            builds: self.config.registry.is_some(),
            ctx: ctx.clone(),
        };
        world.revisions.add_index(BY_FUNCTION, |r| vec![function_key(r)]);
        world.pods.add_index(BY_REVISION, |pod| revision_key(&pod.metadata).into_iter().collect());
        let demands = ctx.informers.of::<Demand>();
        let (_, _, _, _, _) = tokio::join!(
            world.functions.synced(),
            world.revisions.synced(),
            world.sets.synced(),
            world.pods.synced(),
            async { world.services.synced().await && world.routes.synced().await && demands.synced().await }
        );
        // Another led meanwhile.
        world.metrics.keep(|key| world.functions.get(key).is_some());
        let (queue, world) = (ctx.queue(), Arc::new(world));
        watch(&ctx, &queue, &world, &demands);
        run_workers(&ctx, &queue, WORKERS, world).await;
    }
}

fn function_key(revision: &FunctionRevision) -> String {
    object_key(revision.metadata.namespace.as_deref().unwrap_or_default(), &revision.spec.function)
}

type Meta = k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// The revision that something belongs to by its label.
fn revision_key(meta: &Meta) -> Option<String> {
    let name = meta.labels.as_ref()?.get(REVISION_LABEL)?;
    Some(object_key(meta.namespace.as_deref().unwrap_or_default(), name))
}

/// Which change concerns which function.
fn watch(ctx: &ControllerContext, queue: &WorkQueue<String>, world: &Arc<World>, demands: &Informer<Demand>) {
    let q = queue.clone();
    pump(ctx, &world.functions, move |change| match change {
        Change::Applied { new, .. } => q.add(key_of(&**new)),
        Change::Deleted(old) => q.add(key_of(&**old)),
        Change::Resync => {}
    });
    let q = queue.clone();
    pump(ctx, &world.revisions, move |change| match change {
        Change::Applied { new: revision, .. } | Change::Deleted(revision) => q.add(function_key(revision)),
        Change::Resync => {}
    });
    let (q, w) = (queue.clone(), world.clone());
    pump(ctx, &world.pods, move |change| match change {
        Change::Applied { new: pod, .. } | Change::Deleted(pod) => {
            w.metrics.saw(pod, Instant::now());
            if matches!(change, Change::Deleted(_)) {
                w.metrics.gone(pod);
            }
            revision_key(&pod.metadata).into_iter().for_each(|key| w.concerned(&q, &key));
        }
        Change::Resync => w.functions.list().iter().for_each(|function| q.add(key_of(&**function))),
    });
    owned(ctx, queue, world, &world.sets);
    owned(ctx, queue, world, &world.services);
    let (q, w) = (queue.clone(), world.clone());
    pump(ctx, &world.services, move |change| {
        let (before, now) = match change {
            Change::Applied { old, new } => (old.as_deref().is_some_and(front::leads_here), front::leads_here(new)),
            Change::Deleted(old) => (front::leads_here(old), false),
            Change::Resync => return,
        };
        // All routes say whether there is a front.
        if before != now {
            w.functions.list().iter().for_each(|function| q.add(key_of(&**function)));
        }
    });
    let q = queue.clone();
    pump(ctx, &world.routes, move |change| {
        // Also one that is not a function's: it may stand in the way of one.
        if let Change::Applied { new: route, .. } | Change::Deleted(route) = change {
            q.add(key_of(&**route));
        }
    });
    let (q, w) = (queue.clone(), world.clone());
    pump(ctx, demands, move |change| {
        let keys = match change {
            Change::Applied { new, .. } => w.demands.heard(new, Instant::now()),
            Change::Deleted(old) => w.demands.gone(old),
            Change::Resync => Vec::new(),
        };
        keys.iter().for_each(|key| w.concerned(&q, key));
    });
}

/// What belongs to revisions by label, or stands where something of theirs should.
fn owned<K: ApiResource>(
    ctx: &ControllerContext,
    queue: &WorkQueue<String>,
    world: &Arc<World>,
    informer: &Informer<K>,
) {
    let (q, w) = (queue.clone(), world.clone());
    pump(ctx, informer, move |change| {
        if let Change::Applied { new: object, .. } | Change::Deleted(object) = change {
            let keys = revision_key(object.metadata()).into_iter().chain([key_of(&**object)]);
            keys.for_each(|key| w.concerned(&q, &key));
        }
    });
}

/// What is remembered of a function. A restart forgets it, and only lengthens what is under way.
#[derive(Default)]
struct Memory {
    /// What was asked, by revision.
    histories: HashMap<String, History>,
    /// Since when revisions get no calls.
    left: HashMap<String, Instant>,
}

struct World {
    ctx: ControllerContext,
    functions: Informer<Function>,
    revisions: Informer<FunctionRevision>,
    sets: Informer<ReplicaSet>,
    services: Informer<Service>,
    pods: Informer<Pod>,
    routes: Informer<PathRoute>,
    demands: Demands,
    memory: Mutex<HashMap<String, Memory>>,
    metrics: FunctionMetrics,
    /// Images are built in this process.
    builds: bool,
}

#[async_trait]
impl Reconciler for World {
    type Key = String;

    async fn reconcile(&self, key: &String) -> ApiResult<Outcome> {
        let function = self.functions.get(key).filter(|f| f.metadata.deletion_timestamp.is_none());
        let Some(function) = function else {
            self.memory.lock().remove(key);
            self.metrics.forget(key);
            return Ok(Outcome::Done);
        };
        let revisions = self.revisions.list_by(BY_FUNCTION, key);
        if !self.current(&function, &revisions).await? {
            return Ok(Outcome::Done);
        }
        let looked = self.look(key, function, revisions);
        for revision in &looked.revisions {
            self.keep(&looked, revision).await?;
        }
        self.route(&looked).await?;
        self.tell(&looked).await?;
        self.forget(&looked).await?;
        Ok(looked.again.map_or(Outcome::Done, Outcome::After))
    }
}

impl World {
    /// True where calls that nobody waits for are taken.
    fn deferred(&self) -> bool {
        self.services.get(&object_key(front::NAMESPACE, front::SERVICE)).is_some_and(|s| front::leads_here(&s))
    }

    /// Queues the function of a revision.
    fn concerned(&self, queue: &WorkQueue<String>, revision: &str) {
        if let Some(revision) = self.revisions.get(revision) {
            queue.add(function_key(&revision));
        }
    }

    /// True where the revision that the function asks for is there and the newest; else it is made so.
    async fn current(&self, function: &Function, revisions: &[Arc<FunctionRevision>]) -> ApiResult<bool> {
        let wanted = revision::name(function);
        let next = revision::next_number(revisions);
        let api = self.ctx.client.api::<FunctionRevision>(function.metadata.namespace.as_deref().unwrap_or_default());
        match revisions.iter().find(|r| r.metadata.name.as_deref() == Some(&wanted)) {
            Some(found) if found.spec.number == next - 1 => Ok(true),
            Some(_) => {
                let patch = json!({"spec": {"number": next}});
                api.patch(&wanted, PatchType::Merge, &patch).await.map(|_| false)
            }
            None => match api.create(&revision::made(function, next)).await {
                Err(error) if !error.is_already_exists() => Err(error),
                _ => Ok(false),
            },
        }
    }
}

fn is_paused(pod: &Pod) -> bool {
    pod.metadata.annotations.as_ref().and_then(|all| all.get(PAUSED)).is_some_and(|value| value == "true")
}
