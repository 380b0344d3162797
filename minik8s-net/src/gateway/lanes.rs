//! Threads that serve connections. Each has a runtime of its own and sees to its own sockets, so that all of a request,
//! from the client's bytes to those of the endpoint's connection, stays on one processor: threads that take work from each
//! other cost more than a gateway's work itself.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

thread_local! {
    static LANE: Cell<usize> = const { Cell::new(0) };
}

/// The lane that the caller runs in: 0 outside of all.
pub(super) fn current() -> usize {
    LANE.get()
}

/// Where connections are served. They end with the value.
pub(super) struct Lanes(Vec<Lane>);

struct Lane {
    handle: Handle,
    /// Connections at this moment.
    busy: Arc<AtomicUsize>,
    _end: DropGuard,
}

/// One connection's place.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Lanes {
    /// So many, or as many as this process may have.
    pub(super) fn start(count: usize) -> Self {
        let mut lanes = Vec::new();
        for number in 1..=count {
            match Lane::start(number) {
                Ok(lane) => lanes.push(lane),
                Err(error) => {
                    tracing::warn!(%error, wanted = count, "the gateway has only {} threads of its own", lanes.len());
                    break;
                }
            }
        }
        Self(lanes)
    }

    /// Runs a connection in the lane that has the fewest; in the caller's runtime where there are no lanes.
    pub(super) fn spawn(&self, tasks: &TaskTracker, connection: impl Future<Output = ()> + Send + 'static) {
        let Some(lane) = self.0.iter().min_by_key(|lane| lane.busy.load(Ordering::Relaxed)) else {
            return drop(tasks.spawn(connection));
        };
        lane.busy.fetch_add(1, Ordering::Relaxed);
        let place = Place(lane.busy.clone());
        let running = async move {
            let _place = place;
            connection.await;
        };
        tasks.spawn_on(running, &lane.handle);
    }
}

impl Lane {
    fn start(number: usize) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (handle, end) = (runtime.handle().clone(), CancellationToken::new());
        let ended = end.clone();
        std::thread::Builder::new().name(format!("gateway-{number}")).spawn(move || run(number, &runtime, &ended))?;
        Ok(Self { handle, busy: Arc::default(), _end: end.drop_guard() })
    }
}

fn run(number: usize, runtime: &Runtime, ended: &CancellationToken) {
    LANE.set(number);
    runtime.block_on(ended.cancelled());
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use tokio::sync::{Barrier, mpsc};

    #[tokio::test]
    async fn connections_are_spread_and_end_with_their_lanes() {
        let (lanes, tasks) = (Lanes::start(2), TaskTracker::new());
        let (tell, mut told) = mpsc::channel(10);
        let together = Arc::new(Barrier::new(5));
        for _ in 0..4 {
            let (tell, together) = (tell.clone(), together.clone());
            lanes.spawn(&tasks, async move {
                together.wait().await;
                let _ = tell.send(current()).await;
                std::future::pending::<()>().await;
            });
        }
        together.wait().await;
        let mut seen = BTreeMap::new();
        for _ in 0..4 {
            *seen.entry(told.recv().await.unwrap()).or_insert(0) += 1;
        }
        assert_eq!((seen, current()), ([(1, 2), (2, 2)].into(), 0));
        drop((lanes, tell));
        assert_eq!(told.recv().await, None, "what they ran is gone");
        tasks.close();
        tasks.wait().await;
    }

    #[tokio::test]
    async fn without_lanes_the_callers_runtime_serves() {
        let tasks = TaskTracker::new();
        let here = std::thread::current().id();
        Lanes::start(0).spawn(&tasks, async move { assert_eq!(std::thread::current().id(), here) });
        tasks.close();
        tasks.wait().await;
    }
}
