//! Namespaces: what every one begins with, and taking one down with all it holds.

use super::{Controller, ControllerContext, KindDirectory, KindRef, Outcome, Reconciler, pump, run_workers};
use crate::api::{ApiError, ApiResult, Target};
use crate::client::{
    ApiResource, Change, DeleteOptions, Informer, InformerOptions, ListOptions, Payload, Propagation, WorkQueue,
    WriteOptions,
};
use async_trait::async_trait;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, NamespaceCondition, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use std::sync::Arc;
use std::time::Duration;

const FINALIZER: &str = "kubernetes";
const ROOT_CA: &str = "kube-root-ca.crt";
/// How long to wait for what no informer tells of: a kind that came while the cluster runs.
const LOOK_AGAIN: Duration = Duration::from_secs(15);

/// Takes down namespaces that are being deleted: first what they hold, then themselves.
pub struct NamespaceController {
    /// How many namespaces are taken down at once.
    pub workers: usize,
    /// The kinds that a namespace may hold.
    pub kinds: Arc<dyn KindDirectory>,
}

#[async_trait]
impl Controller for NamespaceController {
    fn name(&self) -> &str {
        "namespace-controller"
    }

    async fn run(self: Arc<Self>, ctx: ControllerContext) {
        let namespaces = ctx.informers.of::<Namespace>();
        namespaces.synced().await;
        let queue = ctx.queue();
        let q = queue.clone();
        pump(&ctx, &namespaces, move |change| {
            if let Change::Applied { new, .. } = change
                && is_going(new)
            {
                q.add(new.metadata.name.clone().unwrap_or_default());
            }
        });
        // The last object that goes lets the namespace go.
        for kind in self.kinds.kinds().into_iter().filter(|k| k.namespaced && !k.is_event()) {
            let (q, ns) = (queue.clone(), namespaces.clone());
            pump(&ctx, &ctx.informers.objects(kind.gvr), move |change| {
                // A deletion that was missed is made up for by looking again.
                if let Change::Deleted(object) = change
                    && ns.get(&object.meta.namespace).is_some_and(|n| is_going(&n))
                {
                    q.add(object.meta.namespace.clone());
                }
            });
        }
        let reconciler = Removal { ctx: ctx.clone(), namespaces, kinds: self.kinds.clone() };
        run_workers(&ctx, &queue, self.workers, Arc::new(reconciler)).await;
    }
}

fn is_going(namespace: &Namespace) -> bool {
    namespace.metadata.deletion_timestamp.is_some()
}

struct Removal {
    ctx: ControllerContext,
    namespaces: Informer<Namespace>,
    kinds: Arc<dyn KindDirectory>,
}

#[async_trait]
impl Reconciler for Removal {
    type Key = String;

    async fn reconcile(&self, name: &String) -> ApiResult<Outcome> {
        let Some(namespace) = self.namespaces.get(name).filter(|n| is_going(n)) else { return Ok(Outcome::Done) };
        let finalizers = namespace.spec.as_ref().and_then(|s| s.finalizers.as_deref()).unwrap_or_default();
        if !finalizers.iter().any(|f| f == FINALIZER) {
            return Ok(Outcome::Done);
        }
        let mut left = Vec::new();
        let mut failed = Vec::new();
        for kind in self.kinds.kinds().into_iter().filter(|k| k.namespaced) {
            match self.empty(name, &kind).await {
                Ok(0) => {}
                Ok(count) => left.push(format!("{} has {count} resource instances", kind.gvr.qualified())),
                Err(e) => failed.push(format!("{}: {e}", kind.gvr.qualified())),
            }
        }
        if left.is_empty() && failed.is_empty() {
            self.finalize(&namespace).await?;
            return Ok(Outcome::Done);
        }
        self.report(&namespace, &left, &failed).await?;
        match failed.is_empty() {
            true => Ok(Outcome::After(LOOK_AGAIN)),
            false => Err(ApiError::internal(format!("namespace {name} cannot be emptied: {}", failed.join("; ")))),
        }
    }
}

impl Removal {
    /// Deletes the objects of one kind; answers how many are still there.
    async fn empty(&self, namespace: &str, kind: &KindRef) -> ApiResult<usize> {
        let transport = self.ctx.client.transport();
        let target = Target::in_namespace(kind.gvr.clone(), namespace);
        if transport.list(&target, &ListOptions::default()).await?.items.is_empty() {
            return Ok(0);
        }
        let options = DeleteOptions { propagation: Some(Propagation::Background), ..DeleteOptions::default() };
        transport.delete_collection(&target, &ListOptions::default(), &options).await?;
        Ok(transport.list(&target, &ListOptions::default()).await?.items.len())
    }

    async fn finalize(&self, namespace: &Namespace) -> ApiResult<()> {
        let mut last = namespace.clone();
        if let Some(finalizers) = last.spec.as_mut().and_then(|s| s.finalizers.as_mut()) {
            finalizers.retain(|f| f != FINALIZER);
        }
        let body = serde_json::to_vec(&last).map_err(|e| ApiError::internal(e.to_string()))?;
        let name = namespace.metadata.name.as_deref().unwrap_or_default();
        let target = Target::object(Namespace::gvr(), "", name).sub("finalize");
        let options = WriteOptions { field_manager: self.ctx.name.to_string(), ..WriteOptions::default() };
        match self.ctx.client.transport().update(&target, Payload::Json(body.into()), &options).await {
            Err(e) if !e.is_not_found() => Err(e),
            _ => Ok(()),
        }
    }

    /// Says in the status what the namespace waits for.
    async fn report(&self, namespace: &Namespace, left: &[String], failed: &[String]) -> ApiResult<()> {
        let told = |kind: &str, texts: &[String], yes: (&str, &str), no: (&str, &str)| {
            let (status, (reason, intro)) = if texts.is_empty() { ("False", no) } else { ("True", yes) };
            NamespaceCondition {
                type_: kind.into(),
                status: status.into(),
                reason: Some(reason.into()),
                message: Some(if texts.is_empty() { intro.into() } else { format!("{intro}{}", texts.join(", ")) }),
                last_transition_time: Some(Time(self.ctx.clock.now())),
            }
        };
        let conditions = vec![
            told(
                "NamespaceDeletionContentFailure",
                failed,
                ("ContentDeletionFailed", "Failed to delete all resource types: "),
                ("ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
            ),
            told(
                "NamespaceContentRemaining",
                left,
                ("SomeResourcesRemain", "Some resources are remaining: "),
                ("ContentRemoved", "All content successfully removed"),
            ),
        ];
        let texts = |c: &[NamespaceCondition]| {
            c.iter().map(|c| (c.type_.clone(), c.status.clone(), c.message.clone())).collect::<Vec<_>>()
        };
        let mut status = namespace.status.clone().unwrap_or_default();
        if texts(status.conditions.as_deref().unwrap_or_default()) == texts(&conditions) {
            return Ok(());
        }
        status.conditions = Some(conditions);
        let new = Namespace { status: Some(status), ..namespace.clone() };
        match self.ctx.client.all::<Namespace>().update_status(&new).await {
            Err(e) if !e.is_not_found() && !e.is_conflict() => Err(e),
            _ => Ok(()),
        }
    }
}

/// Gives each namespace its default service account and the certificate authority its pods trust.
pub struct NamespaceContentController {
    /// PEM; empty for none.
    pub ca: String,
}

#[async_trait]
impl Controller for NamespaceContentController {
    fn name(&self) -> &str {
        "namespace-content-controller"
    }

    async fn run(self: Arc<Self>, ctx: ControllerContext) {
        let named = |name: &str| InformerOptions {
            field_selector: format!("metadata.name={name}"),
            ..InformerOptions::default()
        };
        let namespaces = ctx.informers.of::<Namespace>();
        let accounts = ctx.informers.select::<ServiceAccount>(named("default"));
        let maps = ctx.informers.select::<ConfigMap>(named(ROOT_CA));
        let (_, _, _) = tokio::join!(namespaces.synced(), accounts.synced(), maps.synced());
        let queue = ctx.queue();
        feed(&ctx, &queue, &namespaces, &namespaces, |n| n.metadata.name.clone());
        feed(&ctx, &queue, &namespaces, &accounts, |a| a.metadata.namespace.clone());
        feed(&ctx, &queue, &namespaces, &maps, |m| m.metadata.namespace.clone());
        let content = Content { ctx: ctx.clone(), namespaces, accounts, maps, ca: self.ca.clone() };
        run_workers(&ctx, &queue, 2, Arc::new(content)).await;
    }
}

/// Queues the namespace of whatever changes, and all where that is not known.
fn feed<K: ApiResource>(
    ctx: &ControllerContext,
    queue: &WorkQueue<String>,
    namespaces: &Informer<Namespace>,
    informer: &Informer<K>,
    namespace: fn(&K) -> Option<String>,
) {
    let (q, all) = (queue.clone(), namespaces.clone());
    pump(ctx, informer, move |change| match change {
        Change::Applied { new: object, .. } | Change::Deleted(object) => q.add(namespace(object).unwrap_or_default()),
        Change::Resync => all.list().iter().for_each(|n| q.add(n.metadata.name.clone().unwrap_or_default())),
    });
}

struct Content {
    ctx: ControllerContext,
    namespaces: Informer<Namespace>,
    accounts: Informer<ServiceAccount>,
    maps: Informer<ConfigMap>,
    ca: String,
}

#[async_trait]
impl Reconciler for Content {
    type Key = String;

    async fn reconcile(&self, namespace: &String) -> ApiResult<Outcome> {
        if self.namespaces.get(namespace).is_none_or(|n| is_going(&n)) {
            return Ok(Outcome::Done);
        }
        if self.accounts.get(&format!("{namespace}/default")).is_none() {
            let account = ServiceAccount { metadata: meta(namespace, "default"), ..ServiceAccount::default() };
            made(self.ctx.client.api(namespace).create(&account).await)?;
        }
        if self.ca.is_empty() {
            return Ok(Outcome::Done);
        }
        let data = Some([("ca.crt".to_owned(), self.ca.clone())].into());
        match self.maps.get(&format!("{namespace}/{ROOT_CA}")) {
            None => {
                let map = ConfigMap { metadata: meta(namespace, ROOT_CA), data, ..ConfigMap::default() };
                made(self.ctx.client.api(namespace).create(&map).await)?;
            }
            Some(map) if map.data != data => {
                let map = ConfigMap { data, ..(*map).clone() };
                self.ctx.client.api(namespace).update(&map).await?;
            }
            Some(_) => {}
        }
        Ok(Outcome::Done)
    }
}

fn meta(namespace: &str, name: &str) -> ObjectMeta {
    ObjectMeta { name: Some(name.into()), namespace: Some(namespace.into()), ..ObjectMeta::default() }
}

/// A creation that someone else was faster with, or that its namespace is too far gone for, is none.
fn made<K>(result: ApiResult<K>) -> ApiResult<()> {
    let going = |e: &ApiError| e.details.causes.iter().any(|c| c.reason == "NamespaceTerminating");
    match result {
        Err(e) if !e.is_already_exists() && !e.is_not_found() && !going(&e) => Err(e),
        _ => Ok(()),
    }
}
