//! The door for rules that look at writes of every kind: limits, quotas, policies, webhooks.

use super::{Kind, WriteContext};
use crate::api::{ApiResult, Target};
use async_trait::async_trait;
use serde_json::Value;

/// A write on its way, after defaulting and before validation.
pub struct AdmissionRequest<'a> {
    /// What the request is about; the name is set, even where the server made it.
    pub target: &'a Target,
    /// The kind of the object.
    pub kind: &'a dyn Kind,
    /// The object as it was, on updates and deletions.
    pub old: Option<&'a Value>,
    /// True where nothing will be written.
    pub dry_run: bool,
}

/// A rule over writes. Rules run in the order in which they were added; each sees what the ones before it changed.
#[async_trait]
pub trait Admission: Send + Sync + 'static {
    /// Looks at a creation or an update of the main resource, and may change the object.
    ///
    /// # Errors
    /// Whatever should refuse the write, usually `Forbidden`.
    async fn admit(&self, request: &AdmissionRequest<'_>, object: &mut Value, ctx: &dyn WriteContext) -> ApiResult<()>;

    /// Looks at a deletion; `request.old` is the object.
    ///
    /// # Errors
    /// Whatever should refuse the deletion.
    async fn admit_delete(&self, _request: &AdmissionRequest<'_>, _ctx: &dyn WriteContext) -> ApiResult<()> {
        Ok(())
    }
}
