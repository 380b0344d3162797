//! From a request's target to the kind and the cache that serve it, and to the object it names.

use super::store_error;
use crate::api::{ApiError, ApiResult, Object, Reason, Revision, Target};
use crate::server::cache::ResourceCache;
use crate::server::{ApiServer, FieldErrors, Kind, keys};
use crate::store::Key;
use std::sync::Arc;

/// The kind and the cache of a resource.
#[derive(Clone)]
pub(crate) struct Served {
    pub(crate) kind: Arc<dyn Kind>,
    pub(crate) cache: Arc<ResourceCache>,
}

impl Served {
    /// Where an object stands.
    pub(crate) fn key(&self, namespace: &str, name: &str) -> Key {
        keys::object(&self.cache.resource.prefix, namespace, name)
    }

    /// True where objects are stored in another kind's form.
    pub(crate) fn is_view(&self) -> bool {
        self.kind.stored_as().is_some()
    }
}

impl ApiServer {
    /// What serves a target's resource.
    pub(crate) fn resolve(&self, target: &Target) -> ApiResult<Served> {
        let kind = self.registry.get(&target.gvr).ok_or_else(unknown_resource)?;
        if kind.computed().is_some() {
            return Err(method_not_allowed());
        }
        let names = kind.names();
        if !names.namespaced && target.namespace.is_some() {
            return Err(unknown_resource());
        }
        if names.namespaced && target.namespace.is_none() && target.name.is_some() {
            return Err(ApiError::bad_request("an empty namespace may not be set when a resource name is provided"));
        }
        let stored = kind.stored_as().unwrap_or_else(|| names.gvr.clone());
        let cache = self.caches.get(&keys::prefix(&stored)).ok_or_else(unknown_resource)?;
        Ok(Served { kind, cache })
    }

    /// Waits until the caches show everything that was acknowledged before this call.
    pub(crate) async fn fresh(&self) -> ApiResult<Revision> {
        let newest = self.store.revision().await.map_err(|e| store_error("asking for the revision", &e))?;
        self.reach(newest).await?;
        Ok(newest)
    }

    /// Waits until the caches show `revision`.
    pub(crate) async fn reach(&self, revision: Revision) -> ApiResult<()> {
        if self.caches.reached() >= revision {
            return Ok(());
        }
        let wait = self.caches.settings.read_wait;
        tokio::time::timeout(wait, self.caches.progress.wait(revision)).await.map_err(|_| {
            let reached = self.caches.reached();
            let why = format!("the watch cache stands at revision {reached} and did not reach {revision} in {wait:?}");
            ApiError::new(Reason::ServiceUnavailable, why)
        })
    }

    /// The object a target names, as stored, as new as everything acknowledged.
    pub(crate) async fn current(&self, served: &Served, target: &Target) -> ApiResult<(Key, Arc<Object>)> {
        self.fresh().await?;
        let name = target.name.as_deref().ok_or_else(method_not_allowed)?;
        let key = served.key(target.namespace.as_deref().unwrap_or_default(), name);
        let object = served.cache.get(&key).ok_or_else(|| ApiError::not_found(&target.gvr, name))?;
        Ok((key, object))
    }
}

/// No such resource in a group and version that exists.
pub(crate) fn unknown_resource() -> ApiError {
    ApiError::new(Reason::NotFound, "the server could not find the requested resource")
}

/// The verb does not apply here.
pub(crate) fn method_not_allowed() -> ApiError {
    ApiError::new(Reason::MethodNotAllowed, "the server does not allow this method on the requested resource")
}

/// `Kind "name" is invalid: …`, with the causes.
pub(crate) fn invalid(kind: &dyn Kind, name: &str, causes: Vec<crate::api::Cause>) -> ApiError {
    let names = kind.names();
    FieldErrors(causes).into_error(&names.gvr.group, &names.kind, name)
}
