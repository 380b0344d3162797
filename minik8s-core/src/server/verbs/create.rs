//! `create`: one new object, with its claims, in a namespace that exists and is not going away.

use super::body::{check_namespace, meta};
use super::commit::{Change, Outcome, claim_at};
use super::resolve::{invalid, method_not_allowed};
use super::{Served, view};
use crate::api::{ApiError, ApiResult, Cause, Gvr, Object, Reason, Target};
use crate::client::{Payload, WriteOptions, Written};
use crate::server::{ApiServer, FieldErrors, encode, keys};
use crate::store::{Key, Precondition};
use serde_json::Value;
use std::sync::Arc;

/// How often a write is tried against others that take its name, its claims or change its namespace.
pub(crate) const ATTEMPTS: usize = 64;

const NAMESPACES: Gvr = Gvr::new("", "v1", "namespaces");

enum Tried {
    Done(Written),
    Again(ApiError),
}

impl ApiServer {
    pub(crate) async fn create_object(
        &self,
        target: &Target,
        body: Payload,
        options: &WriteOptions,
    ) -> ApiResult<Written> {
        if let Some(binding) = super::action::legacy_binding(&self.schemas, target, &body)? {
            return self.act(&binding, &body, options).await;
        }
        let served = self.resolve(target)?;
        if target.subresource.is_some() {
            return self.act(target, &body, options).await;
        }
        if target.name.is_some() || (served.kind.names().namespaced && target.namespace.is_none()) {
            return Err(method_not_allowed());
        }
        let mut last = None;
        for _ in 0..ATTEMPTS {
            // Read anew where it is tried again, which is rare: what is made of it keeps nothing of what was sent.
            let sent = self.read_body(&served, &body, options)?;
            if !meta(&sent.object, "resourceVersion").is_empty() {
                return Err(ApiError::internal("resourceVersion should not be set on objects to be created"));
            }
            check_namespace(target, &sent.object)?;
            match self.try_create(&served, target, sent.object, options).await? {
                Tried::Done(written) => return Ok(Written { warnings: sent.warnings, ..written }),
                Tried::Again(why) => last = Some(why),
            }
        }
        Err(last.unwrap_or_else(|| ApiError::internal("creation was never tried")))
    }

    async fn try_create(
        &self,
        served: &Served,
        target: &Target,
        mut new: Value,
        options: &WriteOptions,
    ) -> ApiResult<Tried> {
        let also = self.living_namespace(served, target, meta(&new, "name")).await?;
        let generated = meta(&new, "name").is_empty();
        self.identify(served.kind.as_ref(), target, &mut new);
        let named = Target { name: Some(meta(&new, "name").to_owned()), ..target.clone() };
        self.prepare_new(served, &named, &mut new, options).await?;
        let key = served.key(target.namespace.as_deref().unwrap_or_default(), meta(&new, "name"));
        if options.dry_run {
            return self.dry_create(served, target, &key, &new).map(Tried::Done);
        }
        let when = Precondition::Absent(key.clone());
        let change = Change { served, key: key.clone(), when, also, old: None, new: Some(&new), beside: None };
        Ok(match self.commit(change).await? {
            Outcome::Done(_, Some(object)) => Tried::Done(Written { object, warnings: Vec::new(), created: true }),
            Outcome::Done(_, None) => return Err(ApiError::internal("the store took an object and shows none")),
            Outcome::Conflict(taken) if taken == key => {
                let exists = ApiError::already_exists(&target.gvr, meta(&new, "name"));
                if generated { Tried::Again(exists) } else { return Err(exists) }
            }
            Outcome::Conflict(taken) => Tried::Again(taken_claim(served, &new, &taken, target)),
        })
    }

    fn dry_create(&self, served: &Served, target: &Target, key: &Key, new: &Value) -> ApiResult<Written> {
        if served.cache.get(key).is_some() {
            return Err(ApiError::already_exists(&target.gvr, meta(new, "name")));
        }
        Ok(Written { object: unsaved(served, new)?, warnings: Vec::new(), created: true })
    }

    /// The namespace of a new object must exist, and stay as it is until the object is there.
    async fn living_namespace(&self, served: &Served, target: &Target, name: &str) -> ApiResult<Option<Precondition>> {
        let Some(namespace) = target.namespace.as_deref().filter(|_| served.kind.names().namespaced) else {
            return Ok(None);
        };
        self.fresh().await?;
        let prefix = keys::prefix(&NAMESPACES);
        let key = keys::object(&prefix, "", namespace);
        let found = self.caches.get(&prefix).and_then(|cache| cache.get(&key));
        let found = found.ok_or_else(|| ApiError::not_found(&NAMESPACES, namespace))?;
        if found.meta.deletion_timestamp.is_some() {
            return Err(terminating(target, namespace, name));
        }
        Ok(Some(Precondition::At(key, found.revision)))
    }
}

/// An object that was not written: it has no `resourceVersion`.
pub(crate) fn unsaved(served: &Served, value: &Value) -> ApiResult<Arc<Object>> {
    let stored = encode::stored_form(value)?;
    let fields = served.cache.resource.fields_of(&view::to_stored(served, value));
    let mut object = Object::from_json(served.kind.names().gvr.clone(), stored)?;
    object.fields = fields;
    Ok(Arc::new(object))
}

/// Somebody else holds what the object claims.
pub(crate) fn taken_claim(served: &Served, object: &Value, key: &Key, target: &Target) -> ApiError {
    let Some(claim) = claim_at(served, object, key) else { return super::body::modified(target) };
    let mut errors = FieldErrors::default();
    errors.invalid(claim.field, &claim.value.into(), "provided value is already allocated");
    invalid(served.kind.as_ref(), meta(object, "name"), errors.0)
}

fn terminating(target: &Target, namespace: &str, name: &str) -> ApiError {
    let mut error = ApiError::conflict(&target.gvr, name, "");
    error.reason = Reason::Forbidden;
    error.message = format!(
        "{} {name:?} is forbidden: unable to create new content in namespace {namespace} because it is being terminated",
        target.gvr.qualified()
    );
    error.details.causes.push(Cause {
        reason: "NamespaceTerminating".into(),
        message: format!("namespace {namespace} is being terminated"),
        field: "metadata.namespace".into(),
    });
    error
}
