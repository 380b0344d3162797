//! The one way to the store: an object's change together with the claims it takes and frees, all or nothing; then the
//! wait until the cache shows it.

use super::body::meta;
use super::{Served, view};
use crate::api::{ApiError, ApiResult, Object, Reason, Revision, Target};
use crate::server::cache::{Prepared, PreparedGuard};
use crate::server::{ApiServer, Beside, Claim, encode, keys};
use crate::store::{Commit, Key, Op, Precondition, StoreError};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;

/// A change of one object.
pub(crate) struct Change<'a> {
    pub(crate) served: &'a Served,
    pub(crate) key: Key,
    /// What must hold of the object itself.
    pub(crate) when: Precondition,
    /// What must hold besides, such as the state of its namespace.
    pub(crate) also: Option<Precondition>,
    /// The object as it was, in the kind's own form.
    pub(crate) old: Option<&'a Value>,
    /// The object as it shall be; `None` deletes it.
    pub(crate) new: Option<&'a Value>,
    /// What changes with it.
    pub(crate) beside: Option<&'a Beside>,
}

/// How a commit went.
pub(crate) enum Outcome {
    /// Done, and visible to every reader.
    Done(Revision, Option<Arc<Object>>),
    /// This key was not as expected; the cache shows what stands there now.
    Conflict(Key),
}

impl ApiServer {
    /// Commits a change and waits until it is visible.
    pub(crate) async fn commit(&self, change: Change<'_>) -> ApiResult<Outcome> {
        let mut ops = Vec::new();
        let mut when = vec![change.when.clone()];
        when.extend(change.also.clone());
        claims(&change, &mut when, &mut ops);
        let mut stored = None;
        match change.new {
            None => ops.push(Op::Delete { key: change.key.clone() }),
            Some(new) => {
                let prepared = prepare(change.served, new)?;
                let (key, value) = (change.key.clone(), prepared.stored.clone());
                ops.push(Op::Put { key, value, ttl: change.served.kind.ttl(new) });
                stored = Some((prepared.stored.clone(), self.caches.prepare(change.key.clone(), prepared)));
            }
        }
        let _beside = match change.beside {
            Some(beside) => Some(self.add_beside(beside, &mut when, &mut ops)?),
            None => None,
        };
        let since = self.caches.reached();
        match self.store.commit(Commit { when, ops }).await {
            Ok(revision) => {
                self.settle(revision).await;
                let object = stored.map(|(bytes, _)| self.written(&change, &bytes, revision)).transpose()?;
                Ok(Outcome::Done(revision, object))
            }
            Err(StoreError::Conflict { key, current }) => {
                let seen = current.map(|c| c.revision);
                match seen {
                    Some(revision) => self.reach(revision).await?,
                    None => drop(self.fresh().await?),
                }
                Ok(Outcome::Conflict(key))
            }
            Err(StoreError::Unknown(why)) => {
                let bytes = stored.map(|(bytes, _)| bytes);
                self.look_whether_it_happened(&change, since, bytes.as_ref(), &StoreError::Unknown(why)).await
            }
            Err(error) => Err(store_error("writing", &error)),
        }
    }

    fn add_beside(
        &self,
        beside: &Beside,
        when: &mut Vec<Precondition>,
        ops: &mut Vec<Op>,
    ) -> ApiResult<PreparedGuard<'_>> {
        let served = self.resolve(&Target::all(beside.gvr.clone()))?;
        let mut object = beside.object.clone();
        let metadata = object.get_mut("metadata").and_then(Value::as_object_mut);
        let read_at = metadata.and_then(|m| m.remove("resourceVersion"));
        let read_at = read_at.as_ref().and_then(Value::as_str).and_then(|v| v.parse().ok());
        let read_at = read_at.ok_or_else(|| ApiError::internal("an object beside the one written has no version"))?;
        let key = served.key(meta(&object, "namespace"), meta(&object, "name"));
        let prepared = prepare(&served, &object)?;
        when.push(Precondition::At(key.clone(), read_at));
        ops.push(Op::Put { key: key.clone(), value: prepared.stored.clone(), ttl: served.kind.ttl(&object) });
        Ok(self.caches.prepare(key, prepared))
    }

    /// The answer of a commit got lost. At most one commit follows on the version it was based on: the history shows
    /// whether that one is ours, is somebody else's, or has not happened.
    async fn look_whether_it_happened(
        &self,
        change: &Change<'_>,
        since: Revision,
        stored: Option<&bytes::Bytes>,
        error: &StoreError,
    ) -> ApiResult<Outcome> {
        // Whoever cannot look does not know: a refusal would say that nothing happened.
        if self.fresh().await.is_err() {
            return Err(store_error("writing", error));
        }
        let base = match &change.when {
            Precondition::Absent(_) => None,
            Precondition::At(_, revision) => Some(*revision),
        };
        let Some((revision, found)) = change.served.cache.successor(&change.key, base, since) else {
            return Err(store_error("writing", error));
        };
        let ours = match (stored, &found) {
            (Some(bytes), Some(object)) => encode::with_revision(bytes, revision) == object.json,
            (None, None) => true,
            _ => false,
        };
        if !ours {
            return Ok(Outcome::Conflict(change.key.clone()));
        }
        let object = stored.map(|bytes| self.written(change, bytes, revision)).transpose()?;
        Ok(Outcome::Done(revision, object))
    }

    /// Waits for the cache. A cache that does not come must not turn a write that happened into an error.
    async fn settle(&self, revision: Revision) {
        if let Err(error) = self.reach(revision).await {
            tracing::warn!(%error, revision, "a write is done, but not visible yet");
        }
    }

    fn written(&self, change: &Change<'_>, stored: &[u8], revision: Revision) -> ApiResult<Arc<Object>> {
        let cache = &change.served.cache;
        let object = match cache.get(&change.key).filter(|o| o.revision == revision) {
            Some(object) => object,
            None => Arc::new(encode::object(&cache.resource.gvr, stored, revision, encode::Fields::default())?),
        };
        view::show(change.served, object)
    }
}

fn prepare(served: &Served, new: &Value) -> ApiResult<Prepared> {
    let value = view::to_stored(served, new);
    let meta = value.get("metadata").map(crate::api::Meta::deserialize).transpose();
    let meta = meta.map_err(|e| ApiError::bad_request(format!("metadata does not decode: {e}")))?.unwrap_or_default();
    Ok(Prepared { stored: encode::stored_form(&value)?, meta, fields: served.cache.resource.fields_of(&value) })
}

/// Takes the claims that are new and frees those that are gone.
fn claims(change: &Change<'_>, when: &mut Vec<Precondition>, ops: &mut Vec<Op>) {
    let of = |object: Option<&Value>| -> BTreeSet<Key> {
        object.map(|o| change.served.kind.claims(o)).unwrap_or_default().iter().map(keys::claim).collect()
    };
    let (old, new) = (of(change.old), of(change.new));
    for key in new.difference(&old) {
        when.push(Precondition::Absent(key.clone()));
        let value = change.key.as_bytes().to_vec().into();
        ops.push(Op::Put { key: key.clone(), value, ttl: None });
    }
    ops.extend(old.difference(&new).map(|key| Op::Delete { key: key.clone() }));
}

/// The claim whose key this is, if the object makes it.
pub(crate) fn claim_at(served: &Served, object: &Value, key: &Key) -> Option<Claim> {
    served.kind.claims(object).into_iter().find(|c| keys::claim(c) == *key)
}

/// A store's refusal in the API's words.
pub(crate) fn store_error(operation: &str, error: &StoreError) -> ApiError {
    let reason = match error {
        StoreError::Conflict { .. } => Reason::Conflict,
        StoreError::Compacted { .. } => Reason::Expired,
        StoreError::Future { .. } | StoreError::Unknown(_) => Reason::Timeout,
        StoreError::TooLarge { .. } => Reason::RequestEntityTooLarge,
        StoreError::Unavailable { .. } => Reason::ServiceUnavailable,
        _ => Reason::InternalError,
    };
    ApiError::new(reason, format!("{operation}: {error}"))
}
