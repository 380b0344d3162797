//! The frame: panics stay with their key, controllers that end come back, everything ends when told.

use super::*;
use crate::api::{ApiError, ApiResult};
use crate::client::{Client, WorkQueue};
use crate::clock::SystemClock;
use crate::server::ApiServer;
use crate::store::MemoryStore;
use crate::testkit::wait;
use async_trait::async_trait;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio_util::sync::CancellationToken;

const BOUND: Duration = Duration::from_secs(60);

/// Panics twice at `bad`, fails twice at `sad`, and notes what it got done.
#[derive(Default)]
struct Clumsy {
    tries: AtomicUsize,
    done: Mutex<Vec<String>>,
}

#[async_trait]
impl Reconciler for Clumsy {
    type Key = String;

    async fn reconcile(&self, key: &String) -> ApiResult<Outcome> {
        let tries = self.tries.fetch_add(usize::from(key != "good"), Ordering::SeqCst);
        match key.as_str() {
            "bad" => assert!(tries >= 2, "as the test wants it"),
            "sad" if tries < 5 => return Err(ApiError::internal("as the test wants it")),
            _ => {}
        }
        self.done.lock().push(key.clone());
        Ok(Outcome::Done)
    }
}

struct Worker {
    clumsy: Arc<Clumsy>,
    queue: WorkQueue<String>,
    runs: AtomicUsize,
}

#[async_trait]
impl Controller for Worker {
    fn name(&self) -> &str {
        "test-controller"
    }

    async fn run(self: Arc<Self>, ctx: ControllerContext) {
        match self.runs.fetch_add(1, Ordering::SeqCst) {
            0 => panic!("as the test wants it"),
            1 => {}
            _ => run_workers(&ctx, &self.queue, 1, self.clumsy.clone()).await,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn panics_errors_and_ends_are_survived_and_counted() {
    let server = ApiServer::builder(Arc::new(MemoryStore::new())).start().await.unwrap();
    let queue = WorkQueue::new();
    let worker = Arc::new(Worker { clumsy: Arc::default(), queue: queue.clone(), runs: AtomicUsize::new(0) });
    let manager = ControllerManager::new(Client::new(server), Arc::new(SystemClock), vec![worker.clone()]);
    let (metrics, stop) = (manager.metrics().clone(), CancellationToken::new());
    let running = tokio::spawn(manager.run(stop.clone()));
    ["bad", "good"].iter().for_each(|key| queue.add((*key).to_owned()));
    let done = |count: usize| {
        let worker = worker.clone();
        move || {
            let done = worker.clumsy.done.lock().clone();
            async move { (done.len() == count).then_some(done) }
        }
    };
    let first = wait::until("bad and good are done", BOUND, done(2)).await;
    assert_eq!(first, ["good", "bad"], "the panic kept nobody waiting");
    queue.add("sad".to_owned());
    wait::until("sad is done", BOUND, done(3)).await;
    assert_eq!(worker.runs.load(Ordering::SeqCst), 3, "it panicked, then ended, then ran");
    let count = |result| metrics.count("test-controller", result);
    wait::until("all is counted", BOUND, || async { (count("ok") == 3).then_some(()) }).await;
    assert_eq!((count("panic"), count("error")), (2, 2));
    stop.cancel();
    tokio::time::timeout(BOUND, running).await.unwrap().unwrap();
}
