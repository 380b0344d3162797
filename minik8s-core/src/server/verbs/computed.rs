//! Reading objects that are not stored but worked out.

use super::resolve::unknown_resource;
use crate::api::{ApiError, ApiResult, Object, ObjectList, Target};
use crate::client::ListOptions;
use crate::server::{ApiServer, Kind, encode};
use serde_json::Value;
use std::sync::Arc;

impl ApiServer {
    /// The kind of a target whose objects are worked out; `None` for one whose objects are stored.
    pub(crate) fn computed(&self, target: &Target) -> ApiResult<Option<Arc<dyn Kind>>> {
        let kind = self.registry.get(&target.gvr).filter(|kind| kind.computed().is_some());
        let Some(kind) = kind else { return Ok(None) };
        if !kind.names().namespaced && target.namespace.is_some() {
            return Err(unknown_resource());
        }
        if kind.names().namespaced && target.namespace.is_none() && target.name.is_some() {
            return Err(ApiError::bad_request("an empty namespace may not be set when a resource name is provided"));
        }
        Ok(Some(kind))
    }

    pub(crate) async fn compute_one(&self, kind: &dyn Kind, target: &Target) -> ApiResult<Arc<Object>> {
        let found = self.compute(kind, target, &ListOptions::default()).await?;
        let name = target.name.as_deref().unwrap_or_default();
        found.into_iter().next().ok_or_else(|| ApiError::not_found(&target.gvr, name))
    }

    pub(crate) async fn compute_all(
        &self,
        kind: &dyn Kind,
        target: &Target,
        options: &ListOptions,
    ) -> ApiResult<ObjectList> {
        let items = self.compute(kind, target, options).await?;
        Ok(ObjectList { items, revision: self.caches.reached(), ..ObjectList::default() })
    }

    async fn compute(&self, kind: &dyn Kind, target: &Target, options: &ListOptions) -> ApiResult<Vec<Arc<Object>>> {
        let computed = kind.computed().ok_or_else(unknown_resource)?;
        let made = computed.objects(self, target, options).await?;
        // They are no revision of anything, and carry none.
        let object =
            |value: &Value| Object::from_json(kind.names().gvr.clone(), encode::stored_form(value)?).map(Arc::new);
        made.iter().map(object).collect()
    }
}
