//! What stands behind each Service: EndpointSlices, and the older Endpoints, from pods that match and are ready.
//!
//! A pod of a node that is lost gets no traffic: the node is what is asked, for it takes a while until each of its pods
//! is marked as not ready.

pub mod decide;
pub mod legacy;
pub mod slices;
#[cfg(test)]
mod tests;

use super::pods::{
    BY_LABEL, BY_NODE, index_by_label, index_by_node, is_lost, is_ready, label_pair, label_pairs, on_lost_node,
};
use super::{Controller, ControllerContext, Expectations, Outcome, Reconciler, UNSEEN, pump, run_workers};
use crate::api::ApiResult;
use crate::client::{
    Change, DeleteOptions, DeletePreconditions, Informer, InformerOptions, WorkQueue, key_of, object_key,
};
use async_trait::async_trait;
use decide::Backend;
use k8s_openapi::api::core::v1::{Endpoints, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use std::collections::BTreeSet;
use std::sync::Arc;

const ZONE: &str = "topology.kubernetes.io/zone";
/// Index of Services by one pair of their selector, with the namespace.
const BY_PAIR: &str = "selector-pair";
/// Index of slices by their Service.
const BY_SERVICE: &str = "service";

/// Keeps EndpointSlices and Endpoints of Services.
pub struct EndpointsController {
    /// How many Services are looked at at once.
    pub workers: usize,
}

/// The pair of a Service's selector under which it is found.
fn first_pair(service: &Service) -> Option<String> {
    let selector = service.spec.as_ref().and_then(|s| s.selector.as_ref())?;
    let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
    selector.iter().next().map(|(key, value)| label_pair(namespace, key, value))
}

fn service_of(slice: &EndpointSlice) -> Option<String> {
    let labels = slice.metadata.labels.as_ref()?;
    if labels.get(slices::MANAGED_BY).map(String::as_str) != Some(slices::MANAGER) {
        return None;
    }
    let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
    labels.get(slices::SERVICE).map(|name| object_key(namespace, name))
}

#[async_trait]
impl Controller for EndpointsController {
    fn name(&self) -> &str {
        "endpointslice-controller"
    }

    async fn run(self: Arc<Self>, ctx: ControllerContext) {
        let world = Arc::new(World::new(&ctx));
        world.synced().await;
        let queue = ctx.queue();
        world.watch(&queue);
        run_workers(&ctx, &queue, self.workers, world).await;
    }
}

struct World {
    ctx: ControllerContext,
    services: Informer<Service>,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    slices: Informer<EndpointSlice>,
    endpoints: Informer<Endpoints>,
    expect: Expectations,
    expect_endpoints: Expectations,
}

impl World {
    fn new(ctx: &ControllerContext) -> Self {
        let slices = ctx.informers.select(InformerOptions::default());
        let world = Self {
            ctx: ctx.clone(),
            services: ctx.informers.of(),
            pods: ctx.informers.of(),
            nodes: ctx.informers.of(),
            slices,
            endpoints: ctx.informers.of(),
            expect: Expectations::default(),
            expect_endpoints: Expectations::default(),
        };
        world.services.add_index(BY_PAIR, |s: &Service| first_pair(s).into_iter().collect());
        world.slices.add_index(BY_SERVICE, |s: &EndpointSlice| service_of(s).into_iter().collect());
        index_by_label(&world.pods);
        index_by_node(&world.pods);
        world
    }

    async fn synced(&self) {
        let (_, _, _, _, _) = tokio::join!(
            self.services.synced(),
            self.pods.synced(),
            self.nodes.synced(),
            self.slices.synced(),
            self.endpoints.synced()
        );
    }

    /// Which change concerns which Service.
    fn watch(self: &Arc<Self>, queue: &WorkQueue<String>) {
        let (q, me) = (queue.clone(), self.clone());
        pump(&self.ctx, &self.services, move |change| match change {
            Change::Applied { new: s, .. } | Change::Deleted(s) => q.add(key_of(&**s)),
            Change::Resync => me.every(&q),
        });
        let (q, me) = (queue.clone(), self.clone());
        pump(&self.ctx, &self.slices, move |change| match change {
            Change::Applied { new: s, .. } | Change::Deleted(s) => service_of(s).into_iter().for_each(|key| q.add(key)),
            Change::Resync => me.every(&q),
        });
        let (q, me) = (queue.clone(), self.clone());
        pump(&self.ctx, &self.endpoints, move |change| match change {
            Change::Applied { new: e, .. } | Change::Deleted(e) => q.add(key_of(&**e)),
            Change::Resync => me.every(&q),
        });
        let (q, me) = (queue.clone(), self.clone());
        pump(&self.ctx, &self.pods, move |change| match change {
            Change::Applied { old: Some(old), new } => {
                if differs(old, new) {
                    select(&q, &me.services, old);
                    select(&q, &me.services, new);
                }
            }
            Change::Applied { old: None, new: pod } | Change::Deleted(pod) => select(&q, &me.services, pod),
            Change::Resync => me.every(&q),
        });
        let (q, me) = (queue.clone(), self.clone());
        pump(&self.ctx, &self.nodes, move |change| {
            let (Change::Applied { new: node, .. } | Change::Deleted(node)) = change else { return me.every(&q) };
            if let Change::Applied { old: Some(old), new } = change
                && is_lost(old) == is_lost(new)
                && zone(old) == zone(new)
            {
                return;
            }
            let here = me.pods.list_by(BY_NODE, node.metadata.name.as_deref().unwrap_or_default());
            here.iter().for_each(|pod| select(&q, &me.services, pod));
        });
    }

    /// Queues all Services, those as well of which only slices or Endpoints are left.
    fn every(&self, queue: &WorkQueue<String>) {
        self.services.list().iter().for_each(|s| queue.add(key_of(&**s)));
        self.slices.list().iter().filter_map(|s| service_of(s)).for_each(|key| queue.add(key));
        self.endpoints.list().iter().for_each(|e| queue.add(key_of(&**e)));
    }
}

fn zone(node: &Node) -> Option<String> {
    node.metadata.labels.as_ref().and_then(|l| l.get(ZONE)).cloned()
}

/// True where a change of a pod can change endpoints.
fn differs(old: &Pod, new: &Pod) -> bool {
    let seen = |p: &Pod| {
        let (status, spec) = (p.status.as_ref(), p.spec.as_ref());
        (
            (p.metadata.labels.clone(), p.metadata.uid.clone(), p.metadata.deletion_timestamp.is_some()),
            (is_ready(p), super::pods::phase(p).to_owned()),
            status.map(|s| (s.pod_ip.clone(), s.pod_ips.clone())),
            spec.map(|s| (s.node_name.clone(), s.hostname.clone(), s.subdomain.clone())),
        )
    };
    seen(old) != seen(new)
}

/// Queues the Services that select a pod.
fn select(queue: &WorkQueue<String>, services: &Informer<Service>, pod: &Pod) {
    let labels = pod.metadata.labels.clone().unwrap_or_default();
    for pair in label_pairs(pod) {
        for service in services.list_by(BY_PAIR, &pair) {
            if decide::selector(&service).is_some_and(|s| s.matches(&labels)) {
                queue.add(key_of(&*service));
            }
        }
    }
}

#[async_trait]
impl Reconciler for World {
    type Key = String;

    async fn reconcile(&self, key: &String) -> ApiResult<Outcome> {
        let live = |s: &EndpointSlice| s.metadata.uid.clone();
        let uid = |e: &Endpoints| e.metadata.uid.clone();
        if !self.expect.seen(key, &self.slices, live) || !self.expect_endpoints.seen(key, &self.endpoints, uid) {
            return Ok(UNSEEN);
        }
        let Some(service) = self.services.get(key) else {
            self.clear(key).await?;
            self.expect.forget(key);
            self.expect_endpoints.forget(key);
            return Ok(Outcome::Done);
        };
        let Some(selector) = decide::selector(&service) else { return Ok(Outcome::Done) };
        if service.metadata.deletion_timestamp.is_some() {
            return Ok(Outcome::Done);
        }
        let candidates = first_pair(&service).map(|pair| self.pods.list_by(BY_LABEL, &pair)).unwrap_or_default();
        let matching =
            candidates.into_iter().filter(|p| p.metadata.labels.as_ref().is_some_and(|l| selector.matches(l)));
        let groups = decide::groups(&service, &matching.map(|pod| self.backend(pod)).collect::<Vec<_>>());
        self.write_slices(key, slices::diff(&service, &groups, &self.slices.list_by(BY_SERVICE, key))).await?;
        self.write_endpoints(key, legacy::endpoints(&service, &groups)).await?;
        Ok(Outcome::Done)
    }
}

impl World {
    fn backend(&self, pod: Arc<Pod>) -> Backend {
        let node = pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).and_then(|n| self.nodes.get(n));
        Backend { lost: on_lost_node(&pod, &self.nodes), zone: node.and_then(|n| zone(&n)), pod }
    }

    async fn write_slices(&self, key: &str, diff: slices::Diff) -> ApiResult<()> {
        let namespace = key.split_once('/').map_or("", |(namespace, _)| namespace);
        let api = self.ctx.client.api::<EndpointSlice>(namespace);
        for slice in &diff.update {
            let written = api.update(slice).await?;
            self.expect.wrote_version(key, written.metadata.resource_version.as_deref());
        }
        for slice in &diff.create {
            match api.create(slice).await {
                Ok(written) => self.expect.wrote_version(key, written.metadata.resource_version.as_deref()),
                Err(e) if e.details.causes.iter().any(|c| c.reason == "NamespaceTerminating") => return Ok(()),
                Err(e) => return Err(e),
            }
        }
        for slice in &diff.delete {
            self.delete_slice(key, slice).await?;
        }
        Ok(())
    }

    async fn delete_slice(&self, key: &str, slice: &EndpointSlice) -> ApiResult<()> {
        let meta = &slice.metadata;
        let (name, namespace) = (meta.name.as_deref().unwrap_or_default(), meta.namespace.as_deref());
        let preconditions = DeletePreconditions { uid: meta.uid.clone(), resource_version: None };
        let options = DeleteOptions { preconditions, ..DeleteOptions::default() };
        match self.ctx.client.api::<EndpointSlice>(namespace.unwrap_or_default()).delete(name, &options).await {
            Ok(_) => self.expect.deleted(key, &key_of(slice), meta.uid.as_deref().unwrap_or_default()),
            Err(e) if e.is_not_found() || e.is_conflict() => {}
            Err(e) => return Err(e),
        }
        Ok(())
    }

    async fn write_endpoints(&self, key: &str, want: Endpoints) -> ApiResult<()> {
        let api = self.ctx.client.api::<Endpoints>(want.metadata.namespace.as_deref().unwrap_or_default());
        let written = match self.endpoints.get(key) {
            Some(have) if legacy::same(&have, &want) => return Ok(()),
            Some(have) => {
                let mut new = (*have).clone();
                new.metadata.labels = want.metadata.labels;
                new.metadata.annotations = want.metadata.annotations;
                new.subsets = want.subsets;
                api.update(&new).await?
            }
            None => match api.create(&want).await {
                Err(e) if e.details.causes.iter().any(|c| c.reason == "NamespaceTerminating") => return Ok(()),
                other => other?,
            },
        };
        self.expect_endpoints.wrote_version(key, written.metadata.resource_version.as_deref());
        Ok(())
    }

    /// Removes what a Service that is gone has left.
    async fn clear(&self, key: &str) -> ApiResult<()> {
        for slice in self.slices.list_by(BY_SERVICE, key) {
            self.delete_slice(key, &slice).await?;
        }
        let ours = |e: &Arc<Endpoints>| {
            let labels: BTreeSet<_> = e.metadata.labels.iter().flatten().collect();
            labels.contains(&(&legacy::MANAGED_BY.to_owned(), &legacy::MANAGER.to_owned()))
        };
        if let Some(endpoints) = self.endpoints.get(key).filter(ours) {
            let namespace = endpoints.metadata.namespace.as_deref().unwrap_or_default();
            let preconditions = DeletePreconditions { uid: endpoints.metadata.uid.clone(), resource_version: None };
            let options = DeleteOptions { preconditions, ..DeleteOptions::default() };
            let name = endpoints.metadata.name.as_deref().unwrap_or_default();
            match self.ctx.client.api::<Endpoints>(namespace).delete(name, &options).await {
                Err(e) if !e.is_not_found() && !e.is_conflict() => return Err(e),
                _ => {}
            }
        }
        Ok(())
    }
}
