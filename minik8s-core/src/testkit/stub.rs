//! A transport of which a test answers the reads and the watches itself.

use crate::api::{ApiError, ApiResult, Object, ObjectList, Reason, Target};
use crate::client::{
    DeleteOptions, Deleted, ListOptions, PatchType, Payload, Transport, WatchOptions, WatchStream, WriteOptions,
    Written,
};
use async_trait::async_trait;
use futures::FutureExt;
use futures::future::BoxFuture;
use std::sync::Arc;

type OnList = Box<dyn Fn(&ListOptions) -> ApiResult<ObjectList> + Send + Sync>;
type OnWrite = Box<dyn Fn(&Target, Payload) -> BoxFuture<'static, ApiResult<Written>> + Send + Sync>;
type OnWatch = Box<dyn Fn(&WatchOptions) -> ApiResult<WatchStream> + Send + Sync>;

/// Nothing is there, nothing can be listed, watched or written, but for what it is told to answer.
pub struct StubTransport {
    list: OnList,
    watch: OnWatch,
    write: OnWrite,
}

impl Default for StubTransport {
    fn default() -> Self {
        Self {
            list: Box::new(|_| Err(refused())),
            watch: Box::new(|_| Err(refused())),
            write: Box::new(|_, _| async { Err(refused()) }.boxed()),
        }
    }
}

impl StubTransport {
    /// Answers lists so.
    #[must_use]
    pub fn on_list(self, answer: impl Fn(&ListOptions) -> ApiResult<ObjectList> + Send + Sync + 'static) -> Self {
        Self { list: Box::new(answer), ..self }
    }

    /// Answers watches so.
    #[must_use]
    pub fn on_watch(self, answer: impl Fn(&WatchOptions) -> ApiResult<WatchStream> + Send + Sync + 'static) -> Self {
        Self { watch: Box::new(answer), ..self }
    }

    /// Answers creations, updates and patches so.
    #[must_use]
    pub fn on_write(
        self,
        answer: impl Fn(&Target, Payload) -> BoxFuture<'static, ApiResult<Written>> + Send + Sync + 'static,
    ) -> Self {
        Self { write: Box::new(answer), ..self }
    }
}

fn refused() -> ApiError {
    ApiError::new(Reason::ServiceUnavailable, "the stub has no answer to this")
}

#[async_trait]
impl Transport for StubTransport {
    async fn get(&self, target: &Target) -> ApiResult<Arc<Object>> {
        Err(ApiError::not_found(&target.gvr, target.name.as_deref().unwrap_or_default()))
    }

    async fn list(&self, _: &Target, options: &ListOptions) -> ApiResult<ObjectList> {
        (self.list)(options)
    }

    async fn watch(&self, _: &Target, options: &WatchOptions) -> ApiResult<WatchStream> {
        (self.watch)(options)
    }

    async fn create(&self, target: &Target, body: Payload, _: &WriteOptions) -> ApiResult<Written> {
        (self.write)(target, body).await
    }

    async fn update(&self, target: &Target, body: Payload, _: &WriteOptions) -> ApiResult<Written> {
        (self.write)(target, body).await
    }

    async fn patch(&self, target: &Target, _: PatchType, body: Payload, _: &WriteOptions) -> ApiResult<Written> {
        (self.write)(target, body).await
    }

    async fn delete(&self, _: &Target, _: &DeleteOptions) -> ApiResult<Deleted> {
        Err(refused())
    }

    /// There is nothing to be picked.
    async fn delete_collection(&self, _: &Target, _: &ListOptions, _: &DeleteOptions) -> ApiResult<ObjectList> {
        Ok(ObjectList::default())
    }
}
