//! Changing an object that exists: read, propose, prepare, commit where it still stands; again where it does not.
//! Update, patch, status, scale and actions all end here.

use super::body::modified;
use super::commit::{Change, Outcome};
use super::create::{ATTEMPTS, taken_claim, unsaved};
use super::prepare::Part;
use super::{Served, view};
use crate::api::{ApiError, ApiResult, Object, Target};
use crate::client::{WriteOptions, Written};
use crate::server::{ApiServer, Kind, encode};
use crate::store::{Key, Precondition};
use serde_json::Value;
use std::sync::Arc;

/// A change to be made.
pub(crate) struct Modify<'a> {
    pub(crate) served: &'a Served,
    pub(crate) target: &'a Target,
    pub(crate) part: Part,
    pub(crate) options: &'a WriteOptions,
}

/// The object a change begins from.
pub(crate) struct Current {
    pub(crate) key: Key,
    pub(crate) object: Arc<Object>,
    /// In the kind's own form, without `resourceVersion`.
    pub(crate) value: Value,
}

impl ApiServer {
    /// Applies `propose` to the object as it is, until nobody comes between.
    pub(crate) async fn modify<F>(&self, modify: &Modify<'_>, mut propose: F) -> ApiResult<Written>
    where
        F: FnMut(&Current) -> ApiResult<Value> + Send,
    {
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let (key, object) = self.current(modify.served, modify.target).await?;
            let value = view::value(modify.served, &object)?;
            let current = Current { key, object, value };
            let proposed = propose(&current)?;
            match self.settle_change(modify, &current, proposed).await? {
                Ok(object) => return Ok(Written { object, warnings: Vec::new(), created: false }),
                Err(why) => last = Some(why),
            }
        }
        Err(last.unwrap_or_else(|| modified(modify.target)))
    }

    /// Commits a proposal. The inner error says that somebody came between.
    pub(crate) async fn settle_change(
        &self,
        modify: &Modify<'_>,
        current: &Current,
        proposed: Value,
    ) -> ApiResult<Result<Arc<Object>, ApiError>> {
        let (served, target) = (modify.served, modify.target);
        let values = (&current.value, proposed);
        let new = self.prepare_change(served, target, values, modify.part, modify.options).await?;
        let vanishes = may_vanish(served.kind.as_ref(), &new);
        if new == current.value && !vanishes {
            return view::show(served, current.object.clone()).map(Ok);
        }
        if modify.options.dry_run {
            return unsaved(served, &new).map(Ok);
        }
        let change = Change {
            served,
            key: current.key.clone(),
            when: Precondition::At(current.key.clone(), current.object.revision),
            also: None,
            old: Some(&current.value),
            new: (!vanishes).then_some(&new),
            beside: None,
        };
        match self.commit(change).await? {
            Outcome::Done(_, Some(object)) => Ok(Ok(object)),
            Outcome::Done(revision, None) => {
                let stored = encode::stored_form(&new)?;
                let gvr = &served.kind.names().gvr;
                encode::object(gvr, &stored, revision, current.object.fields.clone()).map(|o| Ok(Arc::new(o)))
            }
            Outcome::Conflict(key) if key == current.key => Ok(Err(modified(target))),
            Outcome::Conflict(key) => Ok(Err(taken_claim(served, &new, &key, target))),
        }
    }
}

/// True for an object that was only waiting for its finalizers, its grace, or what its kind holds it for.
pub(crate) fn may_vanish(kind: &dyn Kind, object: &Value) -> bool {
    let Some(meta) = object.get("metadata") else { return false };
    let finalizers = meta.get("finalizers").and_then(Value::as_array).is_some_and(|f| !f.is_empty());
    let grace = meta.get("deletionGracePeriodSeconds").and_then(Value::as_i64).unwrap_or_default();
    meta.get("deletionTimestamp").is_some() && !finalizers && grace == 0 && !kind.holds_deletion(object)
}
