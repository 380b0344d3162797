//! The one door to the API: what a client can ask, whatever carries it. Implemented by the API server itself
//! (in process), by the gRPC client, and by wrappers such as fault injectors. REST and gRPC servers are adapters *onto*
//! it, so that every way in meets the same checks.

use crate::api::{ApiResult, Object, ObjectList, Revision, Target, WatchEvent};
use crate::node::{FilesWish, VolumeFile, no_volumes};
use crate::server::auth::User;
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use std::sync::Arc;
use std::time::Duration;

/// How far to look for fields the kind does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// Drop them silently.
    Ignore,
    /// Drop them and warn.
    #[default]
    Warn,
    /// Refuse the request.
    Strict,
}

/// Options of every write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// Do everything but the commit.
    pub dry_run: bool,
    /// Who writes, for managed fields.
    pub field_manager: String,
    /// What to do about unknown and duplicate fields.
    pub field_validation: FieldValidation,
    /// Who asked, as the front that took the request knows it; it never travels. `None` is the cluster itself.
    pub user: Option<User>,
}

/// How a patch's body is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchType {
    /// RFC 6902.
    Json,
    /// RFC 7396.
    Merge,
    /// Kubernetes' own: lists merge by key.
    StrategicMerge,
    /// Server-side apply.
    Apply {
        /// Take fields over from other managers.
        force: bool,
    },
}

/// An object as a client sent it.
#[derive(Clone, Debug)]
pub enum Payload {
    /// JSON text, not yet looked at.
    Json(Bytes),
    /// YAML text.
    Yaml(Bytes),
    /// `application/vnd.kubernetes.protobuf`.
    Protobuf(Bytes),
}

/// Which objects to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListOptions {
    /// `app=web,tier in (a,b)`
    pub label_selector: String,
    /// `spec.nodeName=n1`
    pub field_selector: String,
    /// Page size, 0 for all.
    pub limit: u64,
    /// Where the last page ended.
    pub continue_token: String,
    /// As fresh as this, or exactly this; see `version_match`. `None` means the newest.
    pub resource_version: Option<Revision>,
    /// What `resource_version` means.
    pub version_match: VersionMatch,
}

/// What a requested `resourceVersion` means for a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VersionMatch {
    /// Not said.
    #[default]
    Unset,
    /// At least as new.
    NotOlderThan,
    /// This very revision.
    Exact,
}

/// Which changes to follow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchOptions {
    /// As in [`ListOptions`].
    pub label_selector: String,
    /// As in [`ListOptions`].
    pub field_selector: String,
    /// Changes after this revision; `None` or 0 starts with the present state as additions.
    pub resource_version: Option<Revision>,
    /// Send bookmarks from time to time and shortly before the end.
    pub bookmarks: bool,
    /// Send the present state first and mark its end by a bookmark (streaming list).
    pub send_initial_events: bool,
    /// End after this long.
    pub timeout: Option<Duration>,
}

/// What must hold of the object for a deletion.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeletePreconditions {
    /// Identity.
    pub uid: Option<String>,
    /// Version.
    pub resource_version: Option<String>,
}

/// What happens to the objects that a deleted object owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// They lose their owner and live on.
    Orphan,
    /// They go after it.
    Background,
    /// They go before it.
    Foreground,
}

/// Options of a deletion.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    /// Do everything but the commit.
    pub dry_run: bool,
    /// Seconds of grace; `None` takes the object's own.
    pub grace_period_seconds: Option<i64>,
    /// What must hold.
    pub preconditions: DeletePreconditions,
    /// What happens to dependents; `None` takes the kind's default.
    pub propagation: Option<Propagation>,
}

/// A write that was done, and what the client should be warned about.
#[derive(Clone, Debug)]
pub struct Written {
    /// The object as it is now.
    pub object: Arc<Object>,
    /// Texts for `Warning` headers.
    pub warnings: Vec<String>,
    /// True where the object did not exist before (HTTP 201).
    pub created: bool,
}

/// What a deletion led to.
#[derive(Clone, Debug)]
pub enum Deleted {
    /// It is gone; this was its last state.
    Gone(Arc<Object>),
    /// It is marked, and goes when finalizers and grace have run out.
    Marked(Arc<Object>),
}

impl Deleted {
    /// The object, gone or marked.
    pub fn object(&self) -> &Arc<Object> {
        match self {
            Deleted::Gone(o) | Deleted::Marked(o) => o,
        }
    }
}

/// A running watch. Ends after an error; dropping it cancels it.
pub type WatchStream = BoxStream<'static, ApiResult<WatchEvent>>;

/// A shared transport.
pub type SharedTransport = Arc<dyn Transport>;

/// The verbs of the API. Errors are those a Kubernetes client knows; see [`Reason`](crate::api::Reason).
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// One object (or its `scale`, …).
    async fn get(&self, target: &Target) -> ApiResult<Arc<Object>>;
    /// A page of a collection.
    async fn list(&self, target: &Target, options: &ListOptions) -> ApiResult<ObjectList>;
    /// The changes of a collection. When this returns, the start is fixed.
    async fn watch(&self, target: &Target, options: &WatchOptions) -> ApiResult<WatchStream>;
    /// Makes an object in the collection `target`. Its name may be left to the server (`generateName`). A target with
    /// name and sub-resource creates *there* (`bindings`, `eviction`, `token`).
    async fn create(&self, target: &Target, body: Payload, options: &WriteOptions) -> ApiResult<Written>;
    /// Replaces an object. A `resourceVersion` in the body is a precondition.
    async fn update(&self, target: &Target, body: Payload, options: &WriteOptions) -> ApiResult<Written>;
    /// Changes parts of an object; conflicts with concurrent writers are retried inside.
    async fn patch(
        &self,
        target: &Target,
        kind: PatchType,
        body: Payload,
        options: &WriteOptions,
    ) -> ApiResult<Written>;
    /// Deletes an object, or begins to.
    async fn delete(&self, target: &Target, options: &DeleteOptions) -> ApiResult<Deleted>;
    /// Deletes everything the selectors pick; returns what was picked.
    async fn delete_collection(
        &self,
        target: &Target,
        list: &ListOptions,
        options: &DeleteOptions,
    ) -> ApiResult<ObjectList>;
    /// Plain files in an `emptyDir` volume of a pod, in order of their paths: while its containers run and after their end, as
    /// long as the pod's record is there; of volumes in memory, only while they run. None where the pod is not on a node (yet);
    /// `NotFound` where its node has no such volume: it was not made yet, or is lost. A transport without a way to nodes refuses.
    async fn volume_files(&self, _pod: &Target, _volume: &str, _wish: &FilesWish) -> ApiResult<Vec<VolumeFile>> {
        Err(no_volumes())
    }
    /// Up to `most` bytes of such a file from an offset; none at its end, and where there is no such file. No answer is longer
    /// than 4 MiB.
    async fn read_volume(&self, _pod: &Target, _volume: &str, _path: &str, _from: u64, _most: u64) -> ApiResult<Bytes> {
        Err(no_volumes())
    }
}
