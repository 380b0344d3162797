//! Who manages an object: reading, taking and giving up the controller reference.

use crate::api::{ApiError, ApiResult};
use crate::client::{Api, ApiResource, PatchType};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde_json::{Value, json};

/// The reference to the one owner that manages the object.
pub fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|r| r.controller == Some(true))
}

/// A reference by which `owner` manages what carries it.
pub fn controller_reference<K: ApiResource>(owner: &K) -> OwnerReference {
    let meta = owner.metadata();
    OwnerReference {
        api_version: K::API_VERSION.to_owned(),
        kind: K::KIND.to_owned(),
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// True where the object has labels that fulfil a selector. An empty selector matches nothing here: no controller may
/// manage everything by an oversight.
pub(super) fn matches(selector: &crate::api::Selector, meta: &ObjectMeta) -> bool {
    static NONE: std::collections::BTreeMap<String, String> = std::collections::BTreeMap::new();
    !selector.is_everything() && selector.matches(meta.labels.as_ref().unwrap_or(&NONE))
}

/// What to do about an object that a controller might manage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// Managed, and rightly so.
    Keep,
    /// Has no manager and matches: take it.
    Adopt,
    /// Managed, but no longer matches: let it go.
    Release,
    /// Someone else's, or none of ours.
    Ignore,
}

/// Decides about one object; `uid` is the owner's, `alive` says that neither owner nor object is being deleted.
pub(super) fn claim(meta: &ObjectMeta, uid: &str, matches: bool, owner_alive: bool) -> Claim {
    let alive = owner_alive && meta.deletion_timestamp.is_none();
    match controller_of(meta) {
        Some(r) if r.uid != uid => Claim::Ignore,
        Some(_) if matches => Claim::Keep,
        Some(_) if alive => Claim::Release,
        Some(_) => Claim::Ignore,
        None if matches && alive => Claim::Adopt,
        None => Claim::Ignore,
    }
}

/// Takes an object under `owner`'s management.
pub(super) async fn adopt<K: ApiResource>(api: &Api<K>, object: &K, owner: &OwnerReference) -> ApiResult<K> {
    let mut references = object.metadata().owner_references.clone().unwrap_or_default();
    references.retain(|r| r.uid != owner.uid);
    references.push(owner.clone());
    write(api, object, json!(references)).await
}

/// Lets an object go from the management of the owner of that uid.
pub(super) async fn release<K: ApiResource>(api: &Api<K>, object: &K, uid: &str) -> ApiResult<K> {
    let mut references = object.metadata().owner_references.clone().unwrap_or_default();
    references.retain(|r| r.uid != uid);
    write(api, object, json!(references)).await
}

async fn write<K: ApiResource>(api: &Api<K>, object: &K, references: Value) -> ApiResult<K> {
    let meta = object.metadata();
    let name = meta.name.as_deref().ok_or_else(|| ApiError::internal("an object without a name"))?;
    // The version is a precondition: the list of owners is replaced as a whole.
    let precondition = json!({"uid": meta.uid, "resourceVersion": meta.resource_version});
    let mut patch = json!({"metadata": precondition});
    patch["metadata"]["ownerReferences"] = references;
    api.patch(name, PatchType::Merge, &patch).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(owner: Option<&str>, deleted: bool) -> ObjectMeta {
        let reference =
            |uid: &str| OwnerReference { uid: uid.into(), controller: Some(true), ..OwnerReference::default() };
        let at = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH);
        ObjectMeta {
            owner_references: owner.map(|uid| vec![reference(uid)]),
            deletion_timestamp: deleted.then_some(at),
            ..ObjectMeta::default()
        }
    }

    #[test]
    fn claims() {
        use Claim::{Adopt, Ignore, Keep, Release};
        // owner of the object, object deleted, labels match, owner alive
        let table = [
            (Some("me"), false, true, true, Keep),
            (Some("me"), true, true, false, Keep),
            (Some("me"), false, false, true, Release),
            (Some("me"), true, false, true, Ignore),
            (Some("me"), false, false, false, Ignore),
            (Some("other"), false, true, true, Ignore),
            (None, false, true, true, Adopt),
            (None, true, true, true, Ignore),
            (None, false, true, false, Ignore),
            (None, false, false, true, Ignore),
        ];
        for (owner, deleted, matches, alive, want) in table {
            assert_eq!(
                claim(&meta(owner, deleted), "me", matches, alive),
                want,
                "{owner:?} {deleted} {matches} {alive}"
            );
        }
    }
}
