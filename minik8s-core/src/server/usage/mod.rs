//! What nodes and pods use now. Nodes are asked while somebody asks here, and never otherwise: an answer is at most
//! [`FRESH`] old when it is given out, and whoever asks meanwhile shares the question that is on its way.

mod history;
mod rate;

pub(crate) use rate::{NodeRates, PodRates, Rate};

use crate::api::{ApiError, ApiResult, Reason};
use crate::node::NodeDirectory;
use futures::future::{BoxFuture, Shared};
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
/// What nobody has asked about for this long is forgotten.
const FORGET: Duration = Duration::from_secs(120);

type Answer = ApiResult<Arc<NodeRates>>;
type Question = Shared<BoxFuture<'static, Answer>>;

/// What is known of one node.
struct Known {
    history: History,
    /// The last answer and when it came; also a refusal, so that a node that hangs is not asked by everybody in turn.
    last: Option<(Instant, Answer)>,
    /// The question that is on its way.
    asking: Option<Question>,
    asked: Instant,
}

/// Usage of nodes. Cheap to clone; clones share what is known.
#[derive(Clone)]
pub(crate) struct Usage {
    nodes: NodeDirectory,
    /// The canonical copy; never held across an await.
    known: Arc<Mutex<HashMap<String, Known>>>,
}

impl Usage {
    pub(crate) fn new(nodes: NodeDirectory) -> Self {
        Self { nodes, known: Arc::default() }
    }

    /// What a node uses.
    ///
    /// # Errors
    /// `ServiceUnavailable` where it is not connected, or does not answer in time.
    pub(crate) async fn of(&self, node: &str) -> Answer {
        let question = match self.begin(node) {
            Ok(answer) => return answer,
            Err(question) => question,
        };
        question.await
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

    /// A fresh answer, or the question to wait for.
    fn begin(&self, node: &str) -> Result<Answer, Question> {
        let now = Instant::now();
        let mut known = self.known.lock();
        known.retain(|_, k| now.duration_since(k.asked) < FORGET);
        let one = known.entry(node.to_owned()).or_insert_with(|| Known {
            history: History::default(),
            last: None,
            asking: None,
            asked: now,
        });
        one.asked = now;
        if let Some((_, answer)) = one.last.as_ref().filter(|(at, _)| now.duration_since(*at) < FRESH) {
            return Ok(answer.clone());
        }
        let question = one.asking.get_or_insert_with(|| {
            let (this, node) = (self.clone(), node.to_owned());
            // On a task of its own: it ends in time also where everybody who asked has gone.
            let task = tokio::spawn(async move { this.ask(&node).await });
            let answer = async move { task.await.unwrap_or_else(|e| Err(ApiError::internal(e.to_string()))) };
            answer.boxed().shared()
        });
        Err(question.clone())
    }

    async fn ask(&self, node: &str) -> Answer {
        let late = || ApiError::new(Reason::ServiceUnavailable, format!("node {node:?} did not answer in {ANSWER:?}"));
        let answer = tokio::time::timeout(ANSWER, self.read(node)).await.unwrap_or_else(|_| Err(late()));
        if let Some(known) = self.known.lock().get_mut(node) {
            known.last = Some((Instant::now(), answer.clone()));
            known.asking = None;
        }
        answer
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
    fn add(&self, node: &str, reading: crate::node::NodeUsage) -> Option<Arc<NodeRates>> {
        let mut known = self.known.lock();
        let history = &mut known.get_mut(node)?.history;
        history.add(Instant::now(), reading).map(Arc::new)
    }
}

#[cfg(test)]
mod tests;
