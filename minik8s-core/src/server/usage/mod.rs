//! What nodes and pods use now. Nodes are asked while somebody asks here, and never otherwise: an answer is at most
//! [`FRESH`] old when it is given out, and whoever asks meanwhile shares the question that is on its way.

mod history;
mod rate;

pub(crate) use history::RESOLUTION;
pub(crate) use rate::{NodeRates, PodRates, Rate};

use super::asked::Asked;
use crate::api::{ApiError, ApiResult, Reason};
use crate::node::{NodeDirectory, NodeUsage};
use futures::{FutureExt, StreamExt, stream};
use history::History;
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// What was read this long ago is given out again.
pub(crate) const FRESH: Duration = Duration::from_millis(750);
/// A node that has not answered by then is left out.
const ANSWER: Duration = Duration::from_secs(5);
/// Between the two readings that the first answer needs.
const FIRST_WINDOW: Duration = Duration::from_millis(400);
/// How many nodes are asked at a time.
const AT_ONCE: usize = 64;

type Answer = ApiResult<Arc<NodeRates>>;

/// Usage of nodes. Cheap to clone; clones share what is known.
#[derive(Clone)]
pub(crate) struct Usage {
    nodes: NodeDirectory,
    answers: Asked<Answer>,
    /// Readings by node.
    histories: Arc<Mutex<HashMap<String, History>>>,
    resolution: Duration,
}

impl Usage {
    /// Cpu is averaged over `resolution`, see [`ApiServerBuilder::metric_resolution`](super::ApiServerBuilder).
    pub(crate) fn new(nodes: NodeDirectory, resolution: Duration) -> Self {
        Self { nodes, answers: Asked::new(FRESH), histories: Arc::default(), resolution }
    }

    /// What a node uses.
    ///
    /// # Errors
    /// `ServiceUnavailable` where it is not connected, or does not answer in time.
    pub(crate) async fn of(&self, node: &str) -> Answer {
        let ask = || {
            let (this, node) = (self.clone(), node.to_owned());
            async move { this.ask(&node).await }.boxed()
        };
        self.answers.get(node, ask, || Err(ApiError::internal("the question panicked"))).await
    }

    /// What these nodes use; those that do not answer are left out, and said so in the log.
    pub(crate) async fn of_all(&self, nodes: BTreeSet<String>) -> HashMap<String, Arc<NodeRates>> {
        let ask = |node: String| async move {
            let answer = self.of(&node).await;
            (node, answer)
        };
        let answers = stream::iter(nodes).map(ask).buffer_unordered(AT_ONCE);
        let known = answers.filter_map(|(node, answer)| async move {
            match answer {
                Ok(rates) => Some((node, rates)),
                Err(error) => {
                    tracing::warn!(node, %error, "left out of the metrics");
                    None
                }
            }
        });
        known.collect().await
    }

    async fn ask(&self, node: &str) -> Answer {
        let late = || ApiError::new(Reason::ServiceUnavailable, format!("node {node:?} did not answer in {ANSWER:?}"));
        tokio::time::timeout(ANSWER, self.read(node)).await.unwrap_or_else(|_| Err(late()))
    }

    async fn read(&self, node: &str) -> Answer {
        let access = self.nodes.find(node)?;
        let reading = access.stats().await?;
        if let Some(rates) = self.add(node, reading) {
            return Ok(rates);
        }
        tokio::time::sleep(FIRST_WINDOW).await;
        let reading = access.stats().await?;
        let none = || ApiError::internal(format!("the readings of node {node:?} are not apart in time"));
        self.add(node, reading).ok_or_else(none)
    }

    /// Takes a reading in; answers what follows from it and one before it, where there is a good one.
    fn add(&self, node: &str, reading: NodeUsage) -> Option<Arc<NodeRates>> {
        let now = Instant::now();
        let mut histories = self.histories.lock();
        histories.retain(|name, history| name == node || !history.is_stale(now));
        let history = histories.entry(node.to_owned()).or_insert_with(|| History::over(self.resolution));
        history.add(now, reading).map(Arc::new)
    }
}

#[cfg(test)]
mod tests;
