//! Garbage collection: what is owned goes with its owners. In the background after them, in the foreground before them,
//! or not at all where they orphan it. Owners are known by uid: an object of the same name is another one.

pub mod decide;

use super::{Controller, ControllerContext, KindDirectory, KindRef, Outcome, Reconciler, pump, run_workers};
use crate::api::{ApiError, ApiResult, Gvr, Object, OwnerReference, Target};
use crate::client::{
    Change, DeleteOptions, DeletePreconditions, Informer, PatchType, Payload, WorkQueue, WriteOptions, object_key,
};
use async_trait::async_trait;
use decide::{FOREGROUND, ORPHAN, Owner, Phase, Verdict, blocks, phase, verdict};
use futures::future::join_all;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// Index of objects by the uids of their owners.
const BY_OWNER: &str = "owner-uid";

/// Collects what its owners have left behind.
pub struct GarbageCollector {
    /// How many objects are looked at at once.
    pub workers: usize,
    /// The kinds it is about: all there are. Read when the controller starts.
    pub kinds: Arc<dyn KindDirectory>,
}

#[async_trait]
impl Controller for GarbageCollector {
    fn name(&self) -> &str {
        "garbage-collector"
    }

    async fn run(self: Arc<Self>, ctx: ControllerContext) {
        let kinds: Vec<KindRef> = self.kinds.kinds().into_iter().filter(|k| !k.is_event()).collect();
        let views: HashMap<Gvr, Informer<Object>> =
            kinds.iter().map(|k| (k.gvr.clone(), ctx.informers.objects(k.gvr.clone()))).collect();
        for view in views.values() {
            let owners = |o: &Object| o.meta.owner_references.iter().map(|r| r.uid.clone()).collect();
            view.add_index(BY_OWNER, owners);
        }
        join_all(views.values().map(Informer::synced)).await;
        let graph = Arc::new(Graph { ctx: ctx.clone(), kinds, views });
        let queue = ctx.queue();
        for view in graph.views.values() {
            let (q, g) = (queue.clone(), graph.clone());
            pump(&ctx, view, move |change| g.note(&q, change));
        }
        run_workers(&ctx, &queue, self.workers, graph).await;
    }
}

/// One object to look at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Item {
    gvr: Gvr,
    key: String,
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.gvr.qualified(), self.key)
    }
}

impl Item {
    fn of(object: &Object) -> Self {
        Self { gvr: object.gvr.clone(), key: object.key() }
    }
}

/// Who owns whom, as the informers tell.
struct Graph {
    ctx: ControllerContext,
    kinds: Vec<KindRef>,
    views: HashMap<Gvr, Informer<Object>>,
}

#[async_trait]
impl Reconciler for Graph {
    type Key = Item;

    async fn reconcile(&self, item: &Item) -> ApiResult<Outcome> {
        let Some(object) = self.views.get(&item.gvr).and_then(|v| v.get(&item.key)) else { return Ok(Outcome::Done) };
        match phase(&object.meta) {
            Phase::Orphaning => self.orphan(&object).await?,
            Phase::Emptying => self.empty(&object).await?,
            Phase::None => {}
        }
        self.collect(&object).await?;
        Ok(Outcome::Done)
    }
}

impl Graph {
    /// Queues what a change may concern.
    fn note(&self, queue: &WorkQueue<Item>, change: &Change<Object>) {
        let concerned = |object: &Object| {
            for dependent in self.dependents(&object.meta.uid) {
                queue.add(Item::of(&dependent));
            }
        };
        match change {
            Change::Applied { old, new } => {
                let same_owners = old.as_ref().is_some_and(|o| o.meta.owner_references == new.meta.owner_references);
                if phase(&new.meta) != Phase::None || (!new.meta.owner_references.is_empty() && !same_owners) {
                    queue.add(Item::of(new));
                }
                let began = old.as_ref().is_none_or(|o| phase(&o.meta) != phase(&new.meta));
                if phase(&new.meta) != Phase::None && began {
                    concerned(new);
                }
            }
            Change::Deleted(old) => {
                concerned(old);
                // An owner may have waited for just this one.
                for owner in &old.meta.owner_references {
                    if let Some((view, key)) = self.place(owner, &old.meta.namespace)
                        && let Some(owner) = view.get(&key)
                        && phase(&owner.meta) != Phase::None
                    {
                        queue.add(Item::of(&owner));
                    }
                }
            }
            Change::Resync => self.note_all(queue),
        }
    }

    /// Queues whatever a deletion may concern, for it is not known what was deleted: all that is owned, and all owners
    /// that wait.
    fn note_all(&self, queue: &WorkQueue<Item>) {
        let objects = self.views.values().flat_map(Informer::list);
        for object in objects.filter(|o| !o.meta.owner_references.is_empty() || phase(&o.meta) != Phase::None) {
            queue.add(Item::of(&object));
        }
    }

    fn dependents(&self, uid: &str) -> Vec<Arc<Object>> {
        self.views.values().flat_map(|view| view.list_by(BY_OWNER, uid)).collect()
    }

    /// The kind an owner is of: by group and name, for the version may be another.
    fn kind_of(&self, owner: &OwnerReference) -> Option<&KindRef> {
        let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        self.kinds.iter().find(|k| k.gvr.group == group && k.kind == owner.kind)
    }

    /// Where an owner would be found.
    fn place(&self, owner: &OwnerReference, namespace: &str) -> Option<(&Informer<Object>, String)> {
        let kind = self.kind_of(owner)?;
        let namespace = if kind.namespaced { namespace } else { "" };
        Some((self.views.get(&kind.gvr)?, object_key(namespace, &owner.name)))
    }

    /// What is known of an owner. The informer may lag behind, so its "no" is confirmed by the API.
    async fn owner(&self, owner: &OwnerReference, namespace: &str) -> ApiResult<Owner> {
        let Some(kind) = self.kind_of(owner) else { return Ok(Owner::Solid) };
        if kind.namespaced && namespace.is_empty() {
            // A cluster-scoped object cannot be owned by one in a namespace: which one would it be?
            return Ok(Owner::Solid);
        }
        let known = self.place(owner, namespace).and_then(|(view, key)| view.get(&key));
        if let Some(known) = known.filter(|o| o.meta.uid == owner.uid) {
            return Ok(if phase(&known.meta) == Phase::Emptying { Owner::Waiting } else { Owner::Solid });
        }
        let target = Target::object(kind.gvr.clone(), if kind.namespaced { namespace } else { "" }, &owner.name);
        match self.ctx.client.transport().get(&target).await {
            Ok(found) if found.meta.uid != owner.uid => Ok(Owner::Gone),
            Ok(found) if phase(&found.meta) == Phase::Emptying => Ok(Owner::Waiting),
            Ok(_) => Ok(Owner::Solid),
            Err(e) if e.is_not_found() => Ok(Owner::Gone),
            Err(e) => Err(e),
        }
    }

    async fn collect(&self, object: &Object) -> ApiResult<()> {
        let meta = &object.meta;
        let mut owners = Vec::new();
        for owner in &meta.owner_references {
            owners.push(self.owner(owner, &meta.namespace).await?);
        }
        let has_dependents = || !self.dependents(&meta.uid).is_empty();
        match verdict(meta, &owners, owners.contains(&Owner::Waiting) && has_dependents()) {
            Verdict::Keep => Ok(()),
            Verdict::Strip(uids) => self.strip(object, &uids).await,
            Verdict::Delete(propagation) => {
                let preconditions = DeletePreconditions {
                    uid: Some(meta.uid.clone()),
                    // Whoever gives it a new owner at this moment wins.
                    resource_version: Some(meta.resource_version.clone()),
                };
                let options =
                    DeleteOptions { preconditions, propagation: Some(propagation), ..DeleteOptions::default() };
                gone_is_fine(self.ctx.client.transport().delete(&target(object), &options).await)
            }
        }
    }

    /// Takes the references to these owners from an object.
    async fn strip(&self, object: &Object, uids: &[String]) -> ApiResult<()> {
        let kept: Vec<_> = object.meta.owner_references.iter().filter(|r| !uids.contains(&r.uid)).collect();
        self.patch(object, json!({"ownerReferences": kept})).await
    }

    async fn orphan(&self, owner: &Object) -> ApiResult<()> {
        let uid = std::slice::from_ref(&owner.meta.uid);
        for dependent in self.dependents(&owner.meta.uid) {
            gone_is_fine(self.strip(&dependent, uid).await)?;
        }
        self.unpin(owner, ORPHAN).await
    }

    /// Lets an owner go once nothing blocks it. What it owns is collected by its own key, for the owner is waiting.
    async fn empty(&self, owner: &Object) -> ApiResult<()> {
        if self.dependents(&owner.meta.uid).iter().any(|d| blocks(&d.meta, &owner.meta.uid)) {
            return Ok(());
        }
        self.unpin(owner, FOREGROUND).await
    }

    async fn unpin(&self, object: &Object, finalizer: &str) -> ApiResult<()> {
        let kept: Vec<_> = object.meta.finalizers.iter().filter(|f| *f != finalizer).collect();
        gone_is_fine(self.patch(object, json!({"finalizers": kept})).await)
    }

    async fn patch(&self, object: &Object, mut meta: Value) -> ApiResult<()> {
        meta["uid"] = json!(object.meta.uid);
        meta["resourceVersion"] = json!(object.meta.resource_version);
        let body = json!({"metadata": meta}).to_string();
        let options = WriteOptions { field_manager: self.ctx.name.to_string(), ..WriteOptions::default() };
        let payload = Payload::Json(body.into());
        self.ctx.client.transport().patch(&target(object), PatchType::Merge, payload, &options).await.map(|_| ())
    }
}

fn target(object: &Object) -> Target {
    Target::object(object.gvr.clone(), &object.meta.namespace, &object.meta.name)
}

fn gone_is_fine<T>(result: Result<T, ApiError>) -> ApiResult<()> {
    match result {
        Err(e) if !e.is_not_found() => Err(e),
        _ => Ok(()),
    }
}
