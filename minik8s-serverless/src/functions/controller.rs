//! Keeps functions: revisions, their instances, and who gets calls. What to do is decided by [`plan`](super::plan) and
//! [`scale`](super::scale); here it is seen and done.

use super::FunctionsConfig;
use super::api::{Function, FunctionRevision, FunctionTraffic};
use super::demands::Demands;
use super::metrics::FunctionMetrics;
use super::plan::{self, Plan, Seen};
use super::revision::{self, REVISION_LABEL};
use super::scale::{Bounds, History};
use super::{objects, status};
use async_trait::async_trait;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{Pod, Service};
use minik8s_core::api::{ApiError, ApiResult, Demand, PathRoute};
use minik8s_core::client::{ApiResource, Change, DeleteOptions, Informer, PatchType, WorkQueue, key_of, object_key};
use minik8s_core::controllers::{
    Controller, ControllerContext, Outcome, Reconciler, controller_of, is_ready, pump, run_workers,
};
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
/// Share of what an instance takes that it should have.
const USUAL: f64 = 0.7;
/// Calls at once that an instance should have where it takes any number.
const UNLIMITED: f64 = 100.0;

/// Keeps functions.
pub(super) struct FunctionController {
    pub(super) config: FunctionsConfig,
    /// Calls that nobody waits for are taken.
    pub(super) deferred: bool,
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
            deferred: self.deferred,
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
    /// Calls that nobody waits for are taken.
    deferred: bool,
}

/// A function and all that is known of it.
struct Looked {
    function: Arc<Function>,
    namespace: String,
    revisions: Vec<Arc<FunctionRevision>>,
    seen: Vec<Seen>,
    plan: Plan,
    /// What stands where something of the function's should, and is not its own.
    stranger: Option<String>,
    /// When to look again at what no watch tells the end of.
    again: Option<Duration>,
}

#[async_trait]
impl Reconciler for World {
    type Key = String;

    async fn reconcile(&self, key: &String) -> ApiResult<Outcome> {
        let function = self.functions.get(key).filter(|f| f.metadata.deletion_timestamp.is_none());
        let Some(function) = function else {
            self.memory.lock().remove(key);
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

    fn look(&self, key: &str, function: Arc<Function>, revisions: Vec<Arc<FunctionRevision>>) -> Looked {
        let now = Instant::now();
        let namespace = function.metadata.namespace.clone().unwrap_or_default();
        let route = self.routes.get(key).filter(|route| is_owned_by(&route.metadata, &function.metadata));
        let serving: Vec<FunctionTraffic> = route.map(|route| objects::serving(&route)).unwrap_or_default();
        let mut all = self.memory.lock();
        let memory = all.entry(key.to_owned()).or_default();
        let seen: Vec<Seen> = revisions.iter().map(|r| self.seen(&function, r, &serving, memory, now)).collect();
        memory.histories.retain(|name, _| seen.iter().any(|s| s.name == *name));
        let plan = plan::plan(&seen, &revision::name(&function), function.spec.canary_percent, &serving);
        let min = bounds(&function).min;
        let waits = |s: &Seen| {
            let quiet = memory.histories.get(&s.name).is_none_or(|history| history.is_quiet(now));
            (s.has_set && (!quiet || s.asked > min)) || (s.has_set && !s.left && memory.left.contains_key(&s.name))
        };
        let rests = || {
            let resting = plan.paused.iter().filter_map(|name| memory.histories.get(name));
            resting.filter_map(|history| history.rest(now, &bounds(&function))).min()
        };
        let again = if seen.iter().any(waits) { Some(LOOK) } else { rests() };
        let stranger = self.stranger(key, &function, &revisions);
        Looked { function, namespace, revisions, seen, plan, stranger, again }
    }

    /// What has the name of something of the function's and is somebody else's.
    fn stranger(&self, key: &str, function: &Function, revisions: &[Arc<FunctionRevision>]) -> Option<String> {
        let route = self.routes.get(key).filter(|route| !is_owned_by(&route.metadata, &function.metadata));
        let mut found = route.map(|_| format!("PathRoute {key}"));
        for revision in revisions {
            let key = key_of(&**revision);
            let set = self.sets.get(&key).filter(|set| !is_owned_by(&set.metadata, &revision.metadata));
            let service = self.services.get(&key).filter(|service| !is_owned_by(&service.metadata, &revision.metadata));
            found = found.or(set.map(|_| format!("ReplicaSet {key}"))).or(service.map(|_| format!("Service {key}")));
        }
        found
    }

    fn seen(
        &self,
        function: &Function,
        revision: &FunctionRevision,
        serving: &[FunctionTraffic],
        memory: &mut Memory,
        now: Instant,
    ) -> Seen {
        let (namespace, key) = (revision.metadata.namespace.as_deref().unwrap_or_default(), key_of(revision));
        let name = revision.metadata.name.clone().unwrap_or_default();
        let load = self.demands.load(namespace, &name, now);
        let set = self.sets.get(&key).filter(|set| is_owned_by(&set.metadata, &revision.metadata));
        let current = set.as_ref().and_then(|s| s.spec.as_ref()?.replicas).unwrap_or(0);
        // The newest one is treated as if it had calls already, lest it ends just when they move to it.
        let gets = name == revision::name(function) || serving.iter().any(|t| t.revision == name && t.percent > 0);
        let mut bounds = bounds(function);
        if !gets {
            (bounds.min, bounds.idle, bounds.paused) = (0, HEARD, Duration::ZERO);
        }
        let pods = self.pods.list_by(BY_REVISION, &key);
        // What somebody before us had paused was idle, and no call is a reason to wake it.
        let slept = if pods.iter().any(|pod| is_paused(pod)) { bounds.idle } else { Duration::ZERO };
        let history = memory.histories.entry(name.clone()).or_insert_with(|| History::idle(now, slept));
        history.note(now, load);
        let asked = history.decide(now, &bounds, u32::try_from(current).unwrap_or(0));
        let rests = history.rest(now, &bounds).is_some();
        if gets {
            memory.left.remove(&name);
        } else {
            memory.left.entry(name.clone()).or_insert(now);
        }
        let left = memory.left.get(&name).is_some_and(|since| now.duration_since(*since) >= HEARD);
        let state = status::state(revision);
        Seen {
            number: revision.spec.number,
            built: state.image.is_some(),
            failed: state.failed,
            proven: state.proven,
            has_set: set.is_some(),
            instances: u32::try_from(pods.len()).unwrap_or(u32::MAX),
            asked,
            rests,
            busy: load.waiting + load.active > 0.0,
            left,
            name,
        }
    }

    /// Makes a revision have as many instances as planned.
    async fn keep(&self, looked: &Looked, revision: &FunctionRevision) -> ApiResult<()> {
        let name = revision.metadata.name.clone().unwrap_or_default();
        let key = object_key(&looked.namespace, &name);
        let own = |meta: &Meta| is_owned_by(meta, &revision.metadata);
        let set = self.sets.get(&key).filter(|set| own(&set.metadata));
        let service = self.services.get(&key).filter(|service| own(&service.metadata));
        let sets = self.ctx.client.api::<ReplicaSet>(&looked.namespace);
        let services = self.ctx.client.api::<Service>(&looked.namespace);
        let Some(count) = looked.plan.instances.iter().find(|(n, _)| *n == name).map(|(_, count)| *count) else {
            if set.is_some_and(|set| set.metadata.deletion_timestamp.is_none()) {
                gone(sets.delete(&name, &DeleteOptions::default()).await.map(drop))?;
            }
            if service.is_some() {
                gone(services.delete(&name, &DeleteOptions::default()).await.map(drop))?;
            }
            return Ok(());
        };
        if service.is_none() {
            there(services.create(&objects::service(revision).map_err(unmade)?).await.map(drop))?;
        }
        let state = status::state(revision);
        let Some(image) = state.image else { return Ok(()) };
        match set {
            None => {
                self.metrics.asked(&key, 0, count, Instant::now());
                let set = objects::set(&looked.function, revision, &image, count).map_err(unmade)?;
                there(sets.create(&set).await.map(drop))
            }
            Some(set) => {
                self.pause(looked, &key).await?;
                let before = set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(0);
                if before == i32::try_from(count).unwrap_or(i32::MAX) {
                    return Ok(());
                }
                self.metrics.asked(&key, u32::try_from(before).unwrap_or(0), count, Instant::now());
                let patch = json!({"spec": {"replicas": count}});
                gone(sets.patch(&name, PatchType::Merge, &patch).await.map(drop))
            }
        }
    }

    /// Has a revision's instances paused, or going on.
    async fn pause(&self, looked: &Looked, key: &str) -> ApiResult<()> {
        let rests = looked.plan.paused.iter().any(|name| object_key(&looked.namespace, name) == key);
        let api = self.ctx.client.api::<Pod>(&looked.namespace);
        for pod in self.pods.list_by(BY_REVISION, key) {
            if is_paused(&pod) == rests || pod.metadata.deletion_timestamp.is_some() {
                continue;
            }
            if !rests {
                self.metrics.resumed(key, Instant::now());
            }
            let patch =
                json!({"metadata": {"uid": pod.metadata.uid, "annotations": {PAUSED: rests.then_some("true")}}});
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            gone(api.patch(name, PatchType::Merge, &patch).await.map(drop))?;
        }
        Ok(())
    }

    /// Makes gateways do what is planned.
    async fn route(&self, looked: &Looked) -> ApiResult<()> {
        let api = self.ctx.client.api::<PathRoute>(&looked.namespace);
        let (name, traffic) = (looked.function.metadata.name.as_deref().unwrap_or_default(), &looked.plan.traffic);
        match self.routes.get(&object_key(&looked.namespace, name)) {
            None => there(api.create(&objects::route(&looked.function, traffic, self.deferred)).await.map(drop)),
            // Somebody else's: the function's status says so.
            Some(route) if !is_owned_by(&route.metadata, &looked.function.metadata) => Ok(()),
            Some(route) => {
                let spec = objects::route_spec(&looked.function, traffic, self.deferred);
                if route.spec == spec {
                    return Ok(());
                }
                let patch = json!([{"op": "replace", "path": "/spec", "value": spec}]);
                gone(api.patch(name, PatchType::Json, &patch).await.map(drop))
            }
        }
    }

    /// Says in the objects what became of them.
    async fn tell(&self, looked: &Looked) -> ApiResult<()> {
        let now = self.ctx.clock.now();
        let mut pods_of = HashMap::new();
        for revision in &looked.revisions {
            let name = revision.metadata.name.clone().unwrap_or_default();
            let pods = self.pods.list_by(BY_REVISION, &object_key(&looked.namespace, &name));
            let ready = pods.iter().filter(|pod| is_ready(pod)).count();
            if let Some(told) = status::of_revision(revision, &pods, self.builds, now) {
                let api = self.ctx.client.api::<FunctionRevision>(&looked.namespace);
                // With the version it was read at: who builds writes this status too.
                let new = FunctionRevision { status: Some(told), ..(**revision).clone() };
                gone(api.update_status(&new).await.map(drop))?;
            }
            pods_of.insert(name, (pods.len(), ready));
        }
        let function = &looked.function;
        let (current, total) = (revision::name(function), |pick: fn(&(usize, usize)) -> usize| {
            i32::try_from(pods_of.values().map(pick).sum::<usize>()).unwrap_or(i32::MAX)
        });
        let newest = looked.revisions.iter().find(|r| r.metadata.name.as_deref() == Some(&current));
        let seen = status::Seen { plan: &looked.plan, stranger: looked.stranger.as_deref() };
        let told = status::of_function(function, newest.map(|r| &**r), &seen, (total(|p| p.0), total(|p| p.1)), now);
        if let Some(told) = told {
            let api = self.ctx.client.api::<Function>(&looked.namespace);
            let new = Function { status: Some(told), ..(**function).clone() };
            gone(api.update_status(&new).await.map(drop))?;
        }
        Ok(())
    }

    /// Deletes revisions that nobody will go back to.
    async fn forget(&self, looked: &Looked) -> ApiResult<()> {
        let in_use = |name: &str| {
            looked.plan.traffic.iter().any(|t| t.revision == name)
                || looked.seen.iter().any(|s| s.name == name && (s.has_set || s.instances > 0))
        };
        let api = self.ctx.client.api::<FunctionRevision>(&looked.namespace);
        for name in revision::superfluous(&looked.revisions, in_use) {
            gone(api.delete(&name, &DeleteOptions::default()).await.map(drop))?;
        }
        Ok(())
    }
}

/// True where the one is controlled by the very other.
fn is_owned_by(meta: &Meta, owner: &Meta) -> bool {
    controller_of(meta).is_some_and(|controller| Some(&controller.uid) == owner.uid.as_ref())
}

fn is_paused(pod: &Pod) -> bool {
    pod.metadata.annotations.as_ref().and_then(|all| all.get(PAUSED)).is_some_and(|value| value == "true")
}

/// What the autoscaler keeps to.
fn bounds(function: &Function) -> Bounds {
    let scale = function.spec.scale.clone().unwrap_or_default();
    let number = |n: Option<i32>, usual: u32| n.and_then(|n| u32::try_from(n).ok()).unwrap_or(usual);
    let usual = match function.spec.concurrency {
        concurrency if concurrency > 0 => (f64::from(concurrency) * USUAL).max(1.0),
        _ => UNLIMITED,
    };
    Bounds {
        min: number(scale.min, 0),
        max: number(scale.max, 10),
        idle: Duration::from_secs(number(scale.idle_seconds, 60).into()),
        paused: Duration::from_secs(number(scale.paused_seconds, 0).into()),
        target: scale.target.filter(|t| *t > 0.0).unwrap_or(usual),
        rate: scale.rate.filter(|r| *r > 0.0),
    }
}

fn unmade(error: serde_json::Error) -> ApiError {
    ApiError::internal(format!("an object of a function cannot be made: {error}"))
}

/// That it is gone already is as good.
fn gone(result: ApiResult<()>) -> ApiResult<()> {
    result.or_else(|error| if error.is_not_found() { Ok(()) } else { Err(error) })
}

/// That it is there already is as good: the informer will show it.
fn there(result: ApiResult<()>) -> ApiResult<()> {
    result.or_else(|error| if error.is_already_exists() { Ok(()) } else { Err(error) })
}
