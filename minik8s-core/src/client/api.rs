//! The typed client: Kubernetes types in and out, over any [`Transport`](super::Transport).

use super::{
    DeleteOptions, Deleted, FieldValidation, ListOptions, PatchType, Payload, SharedTransport, WatchOptions,
    WriteOptions, Written,
};
use crate::api::{ApiError, ApiResult, Gvr, Object, ObjectList, Revision, Target, WatchEvent, WatchEventType};
use futures::StreamExt;
use futures::stream::BoxStream;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

/// A Rust type of an API kind: every type of `k8s-openapi` with metadata, and own kinds that implement its traits.
pub trait ApiResource:
    k8s_openapi::Resource
    + k8s_openapi::Metadata<Ty = ObjectMeta>
    + Serialize
    + DeserializeOwned
    + fmt::Debug
    + Send
    + Sync
    + 'static
{
    /// Its place in the API.
    fn gvr() -> Gvr {
        Gvr::new(Self::GROUP, Self::VERSION, Self::URL_PATH_SEGMENT)
    }
}

impl<K> ApiResource for K where
    K: k8s_openapi::Resource
        + k8s_openapi::Metadata<Ty = ObjectMeta>
        + Serialize
        + DeserializeOwned
        + fmt::Debug
        + Send
        + Sync
        + 'static
{
}

/// `namespace/name`, or the bare name where the namespace is empty: the keys of informers.
pub fn object_key(namespace: &str, name: &str) -> String {
    if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") }
}

/// The informer key of an object.
pub fn key_of<K: ApiResource>(object: &K) -> String {
    let meta = object.metadata();
    object_key(meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

/// A reference to an object, as events carry it.
pub fn reference_of<K: ApiResource>(object: &K) -> ObjectReference {
    let meta = object.metadata();
    ObjectReference {
        api_version: Some(K::API_VERSION.to_owned()),
        kind: Some(K::KIND.to_owned()),
        name: meta.name.clone(),
        namespace: meta.namespace.clone(),
        resource_version: meta.resource_version.clone(),
        uid: meta.uid.clone(),
        field_path: None,
    }
}

/// A client of the API. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    transport: SharedTransport,
    manager: Arc<str>,
}

impl Client {
    /// A client over a transport.
    pub fn new(transport: SharedTransport) -> Self {
        Self { transport, manager: Arc::from("minik8s") }
    }

    /// The same client, writing under another name in managed fields.
    pub fn with_manager(&self, manager: &str) -> Self {
        Self { transport: self.transport.clone(), manager: Arc::from(manager) }
    }

    /// What carries the requests.
    pub fn transport(&self) -> &SharedTransport {
        &self.transport
    }

    /// Objects of a kind in one namespace.
    pub fn api<K: ApiResource>(&self, namespace: &str) -> Api<K> {
        let namespace = (!namespace.is_empty()).then(|| namespace.to_owned());
        Api { client: self.clone(), namespace, kind: PhantomData }
    }

    /// Objects of a kind in all namespaces, or of a cluster-scoped kind.
    pub fn all<K: ApiResource>(&self) -> Api<K> {
        Api { client: self.clone(), namespace: None, kind: PhantomData }
    }
}

/// The objects of one kind.
pub struct Api<K> {
    client: Client,
    namespace: Option<String>,
    kind: PhantomData<fn() -> K>,
}

impl<K> Clone for Api<K> {
    fn clone(&self) -> Self {
        Self { client: self.client.clone(), namespace: self.namespace.clone(), kind: PhantomData }
    }
}

/// A list of typed objects, read at one revision.
#[derive(Clone, Debug)]
pub struct List<K> {
    /// The objects, in key order.
    pub items: Vec<K>,
    /// Watch from here.
    pub revision: Revision,
    /// Token of the next page; empty on the last.
    pub continue_token: String,
}

/// What a typed watch tells.
#[derive(Clone, Debug)]
pub enum TypedEvent<K> {
    /// The object came to be, or came to match.
    Added(K),
    /// The object changed.
    Modified(K),
    /// The object went, or ceased to match.
    Deleted(K),
    /// Nothing is missing up to this revision.
    Bookmark {
        /// The revision reached.
        revision: Revision,
        /// True once, after the initial state.
        initial_done: bool,
    },
}

/// A running typed watch. Ends after an error.
pub type TypedWatch<K> = BoxStream<'static, ApiResult<TypedEvent<K>>>;

impl<K: ApiResource> Api<K> {
    /// The client behind it.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The collection this is about.
    pub fn target(&self) -> Target {
        Target { gvr: K::gvr(), namespace: self.namespace.clone(), name: None, subresource: None }
    }

    fn named(&self, name: &str) -> Target {
        Target { name: Some(name.to_owned()), ..self.target() }
    }

    /// The place of an object: in this namespace, or in its own where this is about all of them.
    fn place(&self, object: &K) -> Target {
        let mut target = self.target();
        target.namespace = target.namespace.or_else(|| object.metadata().namespace.clone());
        target
    }

    fn named_place(&self, object: &K) -> ApiResult<Target> {
        let name = object.metadata().name.clone().filter(|n| !n.is_empty());
        let name = name.ok_or_else(|| ApiError::bad_request(format!("a {} to update has no name", K::KIND)))?;
        Ok(Target { name: Some(name), ..self.place(object) })
    }

    fn write(&self) -> WriteOptions {
        let field_manager = self.client.manager.to_string();
        WriteOptions { field_manager, field_validation: FieldValidation::Ignore, ..WriteOptions::default() }
    }

    /// One object.
    ///
    /// # Errors
    /// `NotFound`, and whatever the transport meets.
    pub async fn get(&self, name: &str) -> ApiResult<K> {
        self.client.transport.get(&self.named(name)).await?.decode()
    }

    /// One object, and `None` where there is none.
    ///
    /// # Errors
    /// Whatever the transport meets.
    pub async fn get_opt(&self, name: &str) -> ApiResult<Option<K>> {
        match self.get(name).await {
            Ok(object) => Ok(Some(object)),
            Err(e) if e.is_not_found() => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// A page of the collection.
    ///
    /// # Errors
    /// `BadRequest` for selectors that do not parse, `Expired` for an old token.
    pub async fn list(&self, options: &ListOptions) -> ApiResult<List<K>> {
        let page = self.client.transport.list(&self.target(), options).await?;
        let items = page.items.iter().map(|o| o.decode()).collect::<ApiResult<Vec<K>>>()?;
        Ok(List { items, revision: page.revision, continue_token: page.continue_token })
    }

    /// Creates an object; answers it as it is now.
    ///
    /// # Errors
    /// `AlreadyExists`, `Invalid`, …
    pub async fn create(&self, object: &K) -> ApiResult<K> {
        let written = self.client.transport.create(&self.place(object), payload(object)?, &self.write()).await?;
        decode(&written)
    }

    /// Replaces an object. Its `resourceVersion`, where set, must be the present one.
    ///
    /// # Errors
    /// `Conflict`, `NotFound`, `Invalid`, …
    pub async fn update(&self, object: &K) -> ApiResult<K> {
        let target = self.named_place(object)?;
        decode(&self.client.transport.update(&target, payload(object)?, &self.write()).await?)
    }

    /// Replaces an object's status only.
    ///
    /// # Errors
    /// As [`update`](Self::update).
    pub async fn update_status(&self, object: &K) -> ApiResult<K> {
        let target = self.named_place(object)?.sub("status");
        decode(&self.client.transport.update(&target, payload(object)?, &self.write()).await?)
    }

    /// Changes parts of an object.
    ///
    /// # Errors
    /// `NotFound`, `Invalid`, `Conflict` where the patch carries an old `resourceVersion`.
    pub async fn patch(&self, name: &str, kind: PatchType, patch: &Value) -> ApiResult<K> {
        self.patch_at(self.named(name), kind, patch).await
    }

    /// Changes parts of an object's status only.
    ///
    /// # Errors
    /// As [`patch`](Self::patch).
    pub async fn patch_status(&self, name: &str, kind: PatchType, patch: &Value) -> ApiResult<K> {
        self.patch_at(self.named(name).sub("status"), kind, patch).await
    }

    async fn patch_at(&self, target: Target, kind: PatchType, patch: &Value) -> ApiResult<K> {
        decode(&self.client.transport.patch(&target, kind, payload(patch)?, &self.write()).await?)
    }

    /// Deletes an object, or begins to.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` where a precondition fails.
    pub async fn delete(&self, name: &str, options: &DeleteOptions) -> ApiResult<Deleted> {
        self.client.transport.delete(&self.named(name), options).await
    }

    /// Deletes everything the selectors pick.
    ///
    /// # Errors
    /// Whatever the transport meets.
    pub async fn delete_collection(&self, list: &ListOptions, options: &DeleteOptions) -> ApiResult<ObjectList> {
        self.client.transport.delete_collection(&self.target(), list, options).await
    }

    /// Follows the changes of the collection. When this returns, the start is fixed.
    ///
    /// # Errors
    /// `Expired` where the revision is no longer kept, here or as the stream's last item.
    pub async fn watch(&self, options: &WatchOptions) -> ApiResult<TypedWatch<K>> {
        let raw = self.client.transport.watch(&self.target(), options).await?;
        Ok(raw.map(|event| typed_event(event?)).boxed())
    }
}

fn typed_event<K: ApiResource>(event: WatchEvent) -> ApiResult<TypedEvent<K>> {
    Ok(match event {
        WatchEvent::Bookmark { revision, initial_done } => TypedEvent::Bookmark { revision, initial_done },
        WatchEvent::Object(WatchEventType::Added, o) => TypedEvent::Added(o.decode()?),
        WatchEvent::Object(WatchEventType::Modified, o) => TypedEvent::Modified(o.decode()?),
        WatchEvent::Object(WatchEventType::Deleted, o) => TypedEvent::Deleted(o.decode()?),
        WatchEvent::Object(WatchEventType::Bookmark, o) => {
            TypedEvent::Bookmark { revision: o.revision, initial_done: false }
        }
    })
}

fn decode<K: DeserializeOwned>(written: &Written) -> ApiResult<K> {
    Object::decode(&written.object)
}

fn payload(body: &impl Serialize) -> ApiResult<Payload> {
    let bytes = serde_json::to_vec(body).map_err(|e| ApiError::bad_request(format!("body does not encode: {e}")))?;
    Ok(Payload::Json(bytes.into()))
}
