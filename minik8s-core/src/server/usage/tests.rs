use super::*;
use crate::node::{ContainerRef, ContainerUsage, LogOptions, MachineUsage, NodeAccess, NodeUsage, PodRef};
use crate::runtime::{Connection, ExecSpec, StreamSession};
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A node that uses half a core, and counts how often it is asked.
#[derive(Default)]
struct Node {
    asked: AtomicUsize,
    hangs: bool,
}

fn refuse<T>() -> ApiResult<T> {
    Err(ApiError::internal("not asked here"))
}

#[async_trait]
impl NodeAccess for Node {
    async fn logs(&self, _: &ContainerRef, _: LogOptions) -> ApiResult<BoxStream<'static, ApiResult<Bytes>>> {
        refuse()
    }
    async fn exec(&self, _: &ContainerRef, _: ExecSpec) -> ApiResult<StreamSession> {
        refuse()
    }
    async fn attach(&self, _: &ContainerRef, _: bool) -> ApiResult<StreamSession> {
        refuse()
    }
    async fn port_forward(&self, _: &PodRef, _: u16) -> ApiResult<Connection> {
        refuse()
    }
    async fn stats(&self) -> ApiResult<NodeUsage> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if self.hangs {
            std::future::pending::<()>().await;
        }
        static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
        let at = START.elapsed().as_millis() as i64;
        let machine = MachineUsage { at, cpu_ns: at as u64 * 500_000, memory_working_set: 1, memory_usage: 2 };
        Ok(NodeUsage { machine: Some(machine), containers: Vec::<ContainerUsage>::new() })
    }
}

fn world(hangs: bool) -> (Usage, Arc<Node>) {
    let (nodes, node) = (NodeDirectory::default(), Arc::new(Node { hangs, ..Node::default() }));
    nodes.register("n", node.clone());
    (Usage::new(nodes, RESOLUTION), node)
}

#[tokio::test(start_paused = true)]
async fn a_node_is_asked_only_when_somebody_asks_and_once_for_all_who_do() {
    let (usage, node) = world(false);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(node.asked.load(Ordering::Relaxed), 0);
    let (a, b) = tokio::join!(usage.of("n"), usage.of("n"));
    assert_eq!((a.clone().unwrap(), node.asked.load(Ordering::Relaxed)), (b.unwrap(), 2), "two readings, shared");
    let machine = a.unwrap().machine.unwrap();
    assert_eq!((machine.cpu_nano, machine.window), (500_000_000, 400));
    usage.of("n").await.unwrap();
    assert_eq!(node.asked.load(Ordering::Relaxed), 2, "fresh enough");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(usage.of("n").await.unwrap().machine.unwrap().window, 1_400);
    assert_eq!(node.asked.load(Ordering::Relaxed), 3, "one reading more");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_hangs_or_is_not_there_is_left_out() {
    let (usage, node) = world(true);
    let error = usage.of("n").await.unwrap_err();
    assert_eq!((error.reason, error.message.as_str()), (Reason::ServiceUnavailable, "node \"n\" did not answer in 5s"));
    usage.of("n").await.unwrap_err();
    assert_eq!(node.asked.load(Ordering::Relaxed), 1, "its silence is remembered for a moment");
    let all = usage.of_all(["n".to_owned(), "gone".to_owned()].into()).await;
    assert!(all.is_empty());
}
