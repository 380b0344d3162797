//! Metrics that pods tell themselves: those with the annotation `prometheus.io/scrape: "true"` are asked, at
//! `prometheus.io/port` (else their first port) and `prometheus.io/path` (else `/metrics`), through the connection of
//! their node. As with usage, nobody is asked while nobody asks here.

mod adapter;
pub(crate) mod fetch;
mod page;

pub(crate) use adapter::Adapter;
pub(crate) use page::{Sample, append, samples};

use super::asked::Asked;
use crate::api::{ApiError, ApiResult, Object, Reason};
use crate::node::{NodeDirectory, PodRef};
use futures::{FutureExt, StreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

const SCRAPE: &str = "prometheus.io/scrape";
const PORT: &str = "prometheus.io/port";
const PATH: &str = "prometheus.io/path";
const FRESH: Duration = Duration::from_millis(750);
/// A pod that has not answered by then is left out.
const ANSWER: Duration = Duration::from_secs(4);
/// How many pods are asked at a time.
const AT_ONCE: usize = 32;

/// Where a pod tells its metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Door {
    pub(crate) pod: PodRef,
    pub(crate) node: String,
    pub(crate) port: u16,
    pub(crate) path: String,
}

impl Door {
    /// That of a pod which runs and says that it has one.
    pub(crate) fn of(object: &Object) -> Option<Self> {
        let said = |key: &str| object.meta.annotations.get(key).map(String::as_str).filter(|v| !v.is_empty());
        if said(SCRAPE) != Some("true") {
            return None;
        }
        let pod: Pod = object.decode().ok()?;
        let spec = pod.spec?;
        let running = pod.status.and_then(|s| s.phase).as_deref() == Some("Running");
        let mut ports = spec.containers.iter().flat_map(|c| c.ports.iter().flatten());
        let port = said(PORT).and_then(|p| p.parse().ok()).or_else(|| u16::try_from(ports.next()?.container_port).ok());
        let path = said(PATH).unwrap_or("/metrics");
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let node = spec.node_name.filter(|_| running)?;
        let meta = &object.meta;
        let pod = PodRef { namespace: meta.namespace.clone(), pod: meta.name.clone(), uid: meta.uid.clone() };
        Some(Self { pod, node, port: port?, path })
    }
}

/// A page, and when it was read.
type Page = (Instant, Arc<str>);

/// The last page, and the one before, for rates.
#[derive(Clone, Debug)]
pub(crate) struct Pages {
    pub(crate) now: Page,
    pub(crate) before: Option<Page>,
}

/// Asks pods. Cheap to clone; clones share what is known.
#[derive(Clone)]
pub(crate) struct Scraper {
    nodes: NodeDirectory,
    pages: Asked<ApiResult<Pages>>,
    /// The last page of each pod.
    last: Arc<Mutex<HashMap<String, Page>>>,
}

impl Scraper {
    pub(crate) fn new(nodes: NodeDirectory) -> Self {
        Self { nodes, pages: Asked::new(FRESH), last: Arc::default() }
    }

    /// What a pod tells.
    ///
    /// # Errors
    /// `ServiceUnavailable` where it tells nothing.
    pub(crate) async fn of(&self, door: &Door) -> ApiResult<Pages> {
        let ask = || {
            let (this, door) = (self.clone(), door.clone());
            async move { this.ask(&door).await }.boxed()
        };
        self.pages.get(&door.pod.uid, ask, || Err(ApiError::internal("the question panicked"))).await
    }

    /// What these pods tell; those that do not are left out.
    pub(crate) async fn of_all(&self, doors: Vec<Door>) -> Vec<(Door, Pages)> {
        let ask = |door: Door| async move {
            let pages = self.of(&door).await;
            pages.inspect_err(|error| tracing::debug!(pod = door.pod.pod, %error, "no metrics")).ok().map(|p| (door, p))
        };
        stream::iter(doors).map(ask).buffered(AT_ONCE).filter_map(std::future::ready).collect().await
    }

    async fn ask(&self, door: &Door) -> ApiResult<Pages> {
        let (namespace, pod) = (&door.pod.namespace, &door.pod.pod);
        let failed = |why: String| {
            let why = format!("pod {namespace}/{pod} tells no metrics at :{}{}: {why}", door.port, door.path);
            ApiError::new(Reason::ServiceUnavailable, why)
        };
        let asked = async {
            let io = self.nodes.find(&door.node)?.port_forward(&door.pod, door.port).await?;
            fetch::get(io, &format!("{pod}:{}", door.port), &door.path).await.map_err(failed)
        };
        let late = || failed(format!("no answer in {ANSWER:?}"));
        let text = tokio::time::timeout(ANSWER, asked).await.unwrap_or_else(|_| Err(late()))?;
        let now = (Instant::now(), Arc::from(text));
        let mut last = self.last.lock();
        last.retain(|_, (at, _)| at.elapsed() < Duration::from_secs(120));
        let before = last.insert(door.pod.uid.clone(), now.clone());
        Ok(Pages { now, before })
    }
}
