//! Makes objects be what is planned.

use super::look::Looked;
use super::{BY_REVISION, Meta, World, is_paused};
use crate::functions::api::FunctionRevision;
use crate::functions::writes::{gone, is_owned_by, there, unmade};
use crate::functions::{objects, revision, status};
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{Pod, Service};
use minik8s_core::api::{ApiResult, PathRoute};
use minik8s_core::client::{DeleteOptions, PatchType, key_of, object_key};
use minik8s_core::node::PAUSED;
use serde_json::json;
use std::collections::BTreeSet;
use tokio::time::Instant;

impl World {
    /// Makes a revision have as many instances as planned.
    pub(super) async fn keep(&self, looked: &Looked, revision: &FunctionRevision) -> ApiResult<()> {
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
        let function = key_of(&*looked.function);
        match set {
            None => {
                self.metrics.asked(&function, &key, (0, count), Instant::now());
                let set = objects::set(&looked.function, revision, &image, count).map_err(unmade)?;
                there(sets.create(&set).await.map(drop))
            }
            Some(set) => {
                self.pause(looked, &key).await?;
                let before = set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(0);
                if before == i32::try_from(count).unwrap_or(i32::MAX) {
                    return Ok(());
                }
                self.metrics.asked(&function, &key, (u32::try_from(before).unwrap_or(0), count), Instant::now());
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
                self.metrics.resumed(&key_of(&*looked.function), key, Instant::now());
            }
            let patch =
                json!({"metadata": {"uid": pod.metadata.uid, "annotations": {PAUSED: rests.then_some("true")}}});
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            gone(api.patch(name, PatchType::Merge, &patch).await.map(drop))?;
        }
        Ok(())
    }

    /// Makes gateways do what is planned.
    pub(super) async fn route(&self, looked: &Looked) -> ApiResult<()> {
        let api = self.ctx.client.api::<PathRoute>(&looked.namespace);
        let (name, traffic) = (looked.function.metadata.name.as_deref().unwrap_or_default(), &looked.plan.traffic);
        match self.routes.get(&object_key(&looked.namespace, name)) {
            None => there(api.create(&objects::route(&looked.function, traffic, self.deferred())).await.map(drop)),
            // Somebody else's: the function's status says so.
            Some(route) if !is_owned_by(&route.metadata, &looked.function.metadata) => Ok(()),
            Some(route) => {
                let spec = objects::route_spec(&looked.function, traffic, self.deferred());
                if route.spec != spec {
                    let patch = json!([{"op": "replace", "path": "/spec", "value": spec}]);
                    gone(api.patch(name, PatchType::Json, &patch).await.map(drop))?;
                }
                let (needed, kept) = images(looked);
                let told = |annotation: &str| objects::images_of(&route.metadata, annotation);
                if needed == told(objects::IMAGES) && kept == told(objects::KEPT_IMAGES) {
                    return Ok(());
                }
                let text = |all: &[String]| (!all.is_empty()).then(|| objects::images(all.iter().map(String::as_str)));
                let annotations = json!({objects::IMAGES: text(&needed), objects::KEPT_IMAGES: text(&kept)});
                let patch = json!({"metadata": {"annotations": annotations}});
                gone(api.patch(name, PatchType::Merge, &patch).await.map(drop))
            }
        }
    }

    /// Deletes revisions that nobody will go back to.
    pub(super) async fn forget(&self, looked: &Looked) -> ApiResult<()> {
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

/// The images of revisions of which it is known that they work: of those that get calls, and of the others, as far as they
/// were built here.
fn images(looked: &Looked) -> (Vec<String>, Vec<String>) {
    let gets = |name: Option<&String>| looked.plan.traffic.iter().any(|t| t.percent > 0 && Some(&t.revision) == name);
    // In an order of their own, whatever that of revisions is.
    let (mut needed, mut kept) = (BTreeSet::new(), BTreeSet::new());
    for revision in &looked.revisions {
        let state = status::state(revision);
        let Some(image) = state.image.filter(|_| state.proven) else { continue };
        if gets(revision.metadata.name.as_ref()) {
            needed.insert(image);
        } else if objects::is_built(&image) {
            kept.insert(image);
        }
    }
    kept.retain(|image| !needed.contains(image));
    (needed.into_iter().collect(), kept.into_iter().collect())
}
