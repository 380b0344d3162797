//! One version of one object, kept once with its encoded bytes and shared by everyone who reads it.

use super::{ApiError, ApiResult, Gvr};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The store's revision, which the API shows as `resourceVersion`.
pub type Revision = u64;

/// The part of an object's metadata that generic code needs, decoded once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Meta {
    /// Name, unique within namespace and resource.
    pub name: String,
    /// Namespace; empty for cluster-scoped objects.
    pub namespace: String,
    /// Identity over time.
    pub uid: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// Owners.
    pub owner_references: Vec<OwnerReference>,
    /// What must happen before the object may vanish.
    pub finalizers: Vec<String>,
    /// Set while the object is being deleted (RFC 3339).
    pub deletion_timestamp: Option<String>,
    /// Grace granted to the deletion, in seconds.
    pub deletion_grace_period_seconds: Option<i64>,
    /// Creation time (RFC 3339).
    pub creation_timestamp: Option<String>,
    /// Bumped with each change of the desired state.
    pub generation: i64,
    /// The revision, as text.
    pub resource_version: String,
}

/// An owner: when it goes, what it owns goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OwnerReference {
    /// `group/version` of the owner.
    pub api_version: String,
    /// Kind of the owner.
    pub kind: String,
    /// Name of the owner.
    pub name: String,
    /// Identity of the owner.
    pub uid: String,
    /// True for the one owner that manages the object.
    pub controller: Option<bool>,
    /// True where foreground deletion of the owner waits for this object.
    pub block_owner_deletion: Option<bool>,
}

/// One version of one object. Cheap to share ([`Arc`]); the bytes are what every reader gets.
#[derive(Clone, Debug)]
pub struct Object {
    /// The resource it belongs to.
    pub gvr: Gvr,
    /// Metadata, decoded once.
    pub meta: Meta,
    /// The store's revision of this version.
    pub revision: Revision,
    /// Compact JSON, `kind` first, then `apiVersion`, then `metadata` with `resourceVersion`.
    pub json: Bytes,
    /// The values field selectors may ask for, filled by the server; empty on the client's side.
    pub fields: Arc<[(&'static str, String)]>,
}

#[derive(Deserialize)]
struct Head {
    #[serde(default)]
    metadata: Meta,
}

impl Object {
    /// Reads the metadata of `json`, which must already carry its `resourceVersion`.
    ///
    /// # Errors
    /// `InternalError` where the bytes are not an object's JSON.
    pub fn from_json(gvr: Gvr, json: Bytes) -> ApiResult<Self> {
        let head: Head = serde_json::from_slice(&json)
            .map_err(|e| ApiError::internal(format!("undecodable object of {gvr}: {e}")))?;
        let revision = head.metadata.resource_version.parse().unwrap_or_default();
        Ok(Self { gvr, meta: head.metadata, revision, json, fields: Arc::new([]) })
    }

    /// The object as generic JSON. Decodes at each call.
    ///
    /// # Errors
    /// `InternalError` where the bytes are not JSON.
    pub fn value(&self) -> ApiResult<serde_json::Value> {
        self.decode()
    }

    /// The object as a typed struct. Decodes at each call.
    ///
    /// # Errors
    /// `InternalError` where the bytes do not fit the type.
    pub fn decode<T: DeserializeOwned>(&self) -> ApiResult<T> {
        serde_json::from_slice(&self.json)
            .map_err(|e| ApiError::internal(format!("{} {} does not decode: {e}", self.gvr, self.meta.name)))
    }

    /// `namespace/name`, or the bare name of a cluster-scoped object.
    pub fn key(&self) -> String {
        if self.meta.namespace.is_empty() {
            self.meta.name.clone()
        } else {
            format!("{}/{}", self.meta.namespace, self.meta.name)
        }
    }
}

/// A page of a list, taken at one revision.
#[derive(Clone, Debug, Default)]
pub struct ObjectList {
    /// The objects, in key order.
    pub items: Vec<Arc<Object>>,
    /// The revision all of them were read at; watch from here.
    pub revision: Revision,
    /// Opaque token of the next page; empty on the last.
    pub continue_token: String,
    /// How many follow, where that is known.
    pub remaining: Option<u64>,
}

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchEventType {
    /// It came to be, or came to match the selector.
    Added,
    /// It changed.
    Modified,
    /// It went, or ceased to match; the object is its last state with the new revision.
    Deleted,
    /// Nothing happened up to this revision.
    Bookmark,
}

/// One event of a watch.
#[derive(Clone, Debug)]
pub enum WatchEvent {
    /// A change of an object.
    Object(WatchEventType, Arc<Object>),
    /// Nothing is missing up to `revision`. `initial_done` marks the end of the initial state of a streaming list.
    Bookmark {
        /// The revision reached.
        revision: Revision,
        /// True once, after the initial state.
        initial_done: bool,
    },
}
