//! The way from one component to the API servers: requests and answers get lost, come late or twice, and watches break.

use super::components::Servers;
use super::world::World;
use crate::api::{ApiError, ApiResult, Object, ObjectList, Reason, Target};
use crate::client::{
    DeleteOptions, Deleted, ListOptions, PatchType, Payload, SharedTransport, Transport, WatchOptions, WatchStream,
    WriteOptions, Written,
};
use async_trait::async_trait;
use futures::StreamExt;
use futures::stream;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// What happens to one request.
#[derive(Clone, Copy, Debug, Default)]
struct Fate {
    delay: Duration,
    request_lost: bool,
    answer_lost: bool,
    twice: Option<Duration>,
}

/// One component's way.
pub(super) struct Wire {
    pub(super) world: Arc<World>,
    pub(super) servers: Arc<Servers>,
    pub(super) name: String,
    /// The server it asks first.
    pub(super) first: usize,
    /// True while its machine is cut off.
    pub(super) cut: watch::Receiver<bool>,
    /// Cancelled when the component is killed: nothing it still wants to say arrives.
    pub(super) dead: CancellationToken,
}

fn lost() -> ApiError {
    ApiError::new(Reason::Timeout, "no answer, as the simulation wants it")
}

impl Wire {
    fn fate(&self) -> Fate {
        let world = &self.world;
        let delay = Duration::from_micros(200 + world.below(2_000));
        if world.is_healthy() {
            return Fate { delay, ..Fate::default() };
        }
        let delay = match world.below(100) {
            0 => Duration::from_millis(world.below(4_000)),
            1..10 => Duration::from_millis(world.below(200)),
            _ => delay,
        };
        let fate = Fate {
            delay,
            request_lost: world.below(100) < 3,
            answer_lost: world.below(100) < 3,
            twice: (world.below(100) == 0).then(|| Duration::from_millis(world.below(500))),
        };
        if fate.request_lost || fate.answer_lost || fate.twice.is_some() {
            world.fault(&format!(
                "{}: request lost {}, answer lost {}, twice {:?}",
                self.name, fate.request_lost, fate.answer_lost, fate.twice
            ));
        }
        fate
    }

    async fn until_dead<T>(&self, work: impl Future<Output = T>) -> T {
        tokio::select! {
            biased;
            () = self.dead.cancelled() => pending().await,
            done = work => done,
        }
    }

    async fn ask<T, F>(&self, call: impl Fn(SharedTransport) -> F) -> ApiResult<T>
    where
        F: Future<Output = ApiResult<T>>,
    {
        self.until_dead(async {
            let fate = self.fate();
            sleep(fate.delay).await;
            if fate.request_lost || *self.cut.borrow() {
                sleep(Duration::from_millis(500 + self.world.below(4_500))).await;
                return Err(lost());
            }
            let Some((server, crashed)) = self.servers.pick(self.first) else {
                return Err(ApiError::new(Reason::ServiceUnavailable, "no API server runs"));
            };
            let server = self.world.recorder.wrap(&self.name, (self.world.plan.transport)(server));
            let carried_out = async {
                let answer = call(server.clone()).await;
                if let Some(later) = fate.twice {
                    sleep(later).await;
                    let _ = call(server.clone()).await;
                }
                answer
            };
            let answer = tokio::select! {
                biased;
                () = crashed.cancelled() => Err(lost()),
                answer = carried_out => answer,
            };
            if fate.answer_lost || *self.cut.borrow() {
                sleep(Duration::from_millis(500 + self.world.below(4_500))).await;
                return Err(lost());
            }
            answer
        })
        .await
    }

    /// The events until something breaks: the server, the network, or chance.
    fn fragile(&self, events: WatchStream, crashed: CancellationToken) -> WatchStream {
        let chance = !self.world.is_healthy() && self.world.below(2) == 0;
        let life = Duration::from_millis(self.world.below(40_000));
        let (mut cut, dead) = (self.cut.clone(), self.dead.clone());
        let error = match self.world.below(3) {
            0 => ApiError::expired("history was lost, as the simulation wants it"),
            _ => ApiError::new(Reason::ServiceUnavailable, "the watch broke, as the simulation wants it"),
        };
        let end = async move {
            tokio::select! {
                biased;
                () = crashed.cancelled() => {}
                () = dead.cancelled() => {}
                _ = cut.wait_for(|cut| *cut) => {}
                () = sleep(life), if chance => {}
            }
        };
        events.take_until(Box::pin(end)).chain(stream::iter([Err(error)])).boxed()
    }
}

#[async_trait]
impl Transport for Wire {
    async fn get(&self, target: &Target) -> ApiResult<Arc<Object>> {
        self.ask(|api| async move { api.get(target).await }).await
    }

    async fn list(&self, target: &Target, options: &ListOptions) -> ApiResult<ObjectList> {
        self.ask(|api| async move { api.list(target, options).await }).await
    }

    async fn watch(&self, target: &Target, options: &WatchOptions) -> ApiResult<WatchStream> {
        let crashed = self.servers.pick(self.first).map(|(_, crashed)| crashed).unwrap_or_default();
        let events = self.ask(|api| async move { api.watch(target, options).await }).await?;
        Ok(self.fragile(events, crashed))
    }

    async fn create(&self, target: &Target, body: Payload, options: &WriteOptions) -> ApiResult<Written> {
        let body = &body;
        self.ask(|api| async move { api.create(target, body.clone(), options).await }).await
    }

    async fn update(&self, target: &Target, body: Payload, options: &WriteOptions) -> ApiResult<Written> {
        let body = &body;
        self.ask(|api| async move { api.update(target, body.clone(), options).await }).await
    }

    async fn patch(
        &self,
        target: &Target,
        kind: PatchType,
        body: Payload,
        options: &WriteOptions,
    ) -> ApiResult<Written> {
        let body = &body;
        self.ask(|api| async move { api.patch(target, kind, body.clone(), options).await }).await
    }

    async fn delete(&self, target: &Target, options: &DeleteOptions) -> ApiResult<Deleted> {
        self.ask(|api| async move { api.delete(target, options).await }).await
    }

    async fn delete_collection(
        &self,
        target: &Target,
        list: &ListOptions,
        options: &DeleteOptions,
    ) -> ApiResult<ObjectList> {
        self.ask(|api| async move { api.delete_collection(target, list, options).await }).await
    }
}
