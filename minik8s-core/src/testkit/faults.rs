//! A transport that fails: for tests of what must heal. Seeded, so that a run can be repeated.

use crate::api::{ApiError, ApiResult, Object, ObjectList, Reason, Target};
use crate::client::{
    DeleteOptions, Deleted, ListOptions, PatchType, Payload, SharedTransport, Transport, WatchOptions, WatchStream,
    WriteOptions, Written,
};
use crate::node::{FilesWish, VolumeFile};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::sync::watch;

/// Passes requests on, and fails one in five: before they arrive, after they were carried out (the answer is lost), or,
/// for a watch, in the middle, at times so that it must list again.
pub struct FaultyTransport {
    inner: SharedTransport,
    dice: Arc<Mutex<StdRng>>,
    healthy: Arc<AtomicBool>,
    severed: watch::Sender<bool>,
    /// True while watches keep their events back.
    held: watch::Sender<bool>,
    faults: Arc<AtomicU64>,
    /// How many writes are carried out before whoever speaks through this is dead.
    life: watch::Sender<Option<usize>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    Before,
    After,
}

impl FaultyTransport {
    /// Faults over a transport, from now on.
    pub fn new(inner: SharedTransport, seed: u64) -> Arc<Self> {
        let dice = Arc::new(Mutex::new(StdRng::seed_from_u64(seed)));
        Arc::new(Self {
            inner,
            dice,
            healthy: Arc::default(),
            severed: watch::Sender::new(false),
            held: watch::Sender::new(false),
            faults: Arc::default(),
            life: watch::Sender::new(None),
        })
    }

    /// Ends the faults. Watches that are open may still be cut once.
    pub fn heal(&self) {
        self.healthy.store(true, Ordering::SeqCst);
    }

    /// From now on requests get no answer at all, and never arrive: the other side of a network that is cut. Those that
    /// wait go on once it is mended.
    pub fn sever(&self, cut: bool) {
        self.severed.send_replace(cut);
    }

    /// While held, watches keep what they are told; afterwards they tell it all at once, more than who listens to an
    /// informer may lag behind.
    pub fn hold(&self, held: bool) {
        self.held.send_replace(held);
    }

    /// Whoever speaks through this dies at the instant when so many more of its writes were carried out: it hears of
    /// neither the last one nor of anything after it.
    pub fn die_after(&self, writes: usize) {
        self.life.send_replace(Some(writes));
    }

    /// Waits for the death that [`die_after`](Self::die_after) has set.
    pub async fn dead(&self) {
        // The sender is ours: it does not go while this waits.
        let _ = self.life.subscribe().wait_for(|left| *left == Some(0)).await;
    }

    /// How many faults there were.
    pub fn faults(&self) -> u64 {
        self.faults.load(Ordering::SeqCst)
    }

    fn roll(&self) -> Fault {
        if self.healthy.load(Ordering::SeqCst) {
            return Fault::None;
        }
        let fault = match self.dice.lock().random_range(0..10) {
            0 => Fault::Before,
            1 => Fault::After,
            _ => return Fault::None,
        };
        self.faults.fetch_add(1, Ordering::SeqCst);
        fault
    }

    async fn pass<T>(&self, request: impl Future<Output = ApiResult<T>>) -> ApiResult<T> {
        // The sender is ours: it does not go while this waits.
        let _ = self.severed.subscribe().wait_for(|severed| !severed).await;
        let fault = self.roll();
        if fault == Fault::Before {
            return Err(ApiError::new(Reason::ServiceUnavailable, "the request was lost, as the test wants it"));
        }
        let answer = request.await;
        if fault == Fault::After {
            return Err(ApiError::new(Reason::ServerTimeout, "the answer was lost, as the test wants it"));
        }
        answer
    }

    async fn write<T>(&self, request: impl Future<Output = ApiResult<T>>) -> ApiResult<T> {
        let answer = self.pass(request).await;
        if answer.is_ok() {
            self.life.send_if_modified(|left| match left {
                Some(left) if *left > 0 => {
                    *left -= 1;
                    *left == 0
                }
                _ => false,
            });
        }
        if *self.life.borrow() == Some(0) {
            self.sever(true);
            return std::future::pending().await;
        }
        answer
    }
}

/// The events, kept back while `held`. What was kept is told without a pause.
fn dammed(events: WatchStream, held: watch::Receiver<bool>) -> WatchStream {
    let kept = VecDeque::new();
    futures::stream::unfold((events, held, kept), |(mut events, mut held, mut kept)| async move {
        loop {
            if !*held.borrow_and_update()
                && let Some(event) = kept.pop_front()
            {
                return Some((event, (events, held, kept)));
            }
            tokio::select! {
                biased;
                event = events.next() => kept.push_back(event?),
                Ok(()) = held.changed() => {}
            }
        }
    })
    .boxed()
}

#[async_trait]
impl Transport for FaultyTransport {
    async fn get(&self, target: &Target) -> ApiResult<Arc<Object>> {
        self.pass(self.inner.get(target)).await
    }

    async fn list(&self, target: &Target, options: &ListOptions) -> ApiResult<ObjectList> {
        self.pass(self.inner.list(target, options)).await
    }

    async fn watch(&self, target: &Target, options: &WatchOptions) -> ApiResult<WatchStream> {
        let events = self.pass(self.inner.watch(target, options)).await?;
        let events = dammed(events, self.held.subscribe());
        if self.healthy.load(Ordering::SeqCst) {
            return Ok(events);
        }
        let (length, gone) = {
            let mut dice = self.dice.lock();
            (dice.random_range(0..12), dice.random_range(0..3) == 0)
        };
        let error = match gone {
            true => ApiError::expired("history was lost, as the test wants it"),
            false => ApiError::new(Reason::ServiceUnavailable, "the watch was cut, as the test wants it"),
        };
        self.faults.fetch_add(1, Ordering::SeqCst);
        Ok(events.take(length).chain(futures::stream::iter([Err(error)])).boxed())
    }

    async fn create(&self, target: &Target, body: Payload, options: &WriteOptions) -> ApiResult<Written> {
        self.write(self.inner.create(target, body, options)).await
    }

    async fn update(&self, target: &Target, body: Payload, options: &WriteOptions) -> ApiResult<Written> {
        self.write(self.inner.update(target, body, options)).await
    }

    async fn patch(
        &self,
        target: &Target,
        kind: PatchType,
        body: Payload,
        options: &WriteOptions,
    ) -> ApiResult<Written> {
        self.write(self.inner.patch(target, kind, body, options)).await
    }

    async fn delete(&self, target: &Target, options: &DeleteOptions) -> ApiResult<Deleted> {
        self.write(self.inner.delete(target, options)).await
    }

    async fn delete_collection(
        &self,
        target: &Target,
        list: &ListOptions,
        options: &DeleteOptions,
    ) -> ApiResult<ObjectList> {
        self.write(self.inner.delete_collection(target, list, options)).await
    }

    async fn volume_files(&self, pod: &Target, volume: &str, wish: &FilesWish) -> ApiResult<Vec<VolumeFile>> {
        self.pass(self.inner.volume_files(pod, volume, wish)).await
    }

    async fn read_volume(&self, pod: &Target, volume: &str, path: &str, from: u64, most: u64) -> ApiResult<Bytes> {
        self.pass(self.inner.read_volume(pod, volume, path, from, most)).await
    }
}
