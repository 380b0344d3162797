//! What the server counts. There are no globals: whoever serves `/metrics` renders this handle.

use crate::api::{ApiError, Target};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Readers of a page at the same time, and how long one may say nothing.
const PAGE_READERS: usize = 16;
const PAGE_PATIENCE: Duration = Duration::from_secs(10);

/// What requests are counted by.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    verb: &'static str,
    group: String,
    resource: String,
    subresource: String,
    code: u32,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ResourceLabels {
    group: String,
    resource: String,
}

/// Serves a page at `/metrics`, and whether the process lives at `/healthz`, in plain HTTP, until `stop`: what components
/// of their own process have, for the API server to read.
pub async fn serve_page(listener: TcpListener, fill: impl FnOnce(&mut Registry), stop: CancellationToken) {
    let mut registry = Registry::default();
    fill(&mut registry);
    let registry = Arc::new(registry);
    let room = Arc::new(Semaphore::new(PAGE_READERS));
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Ok(permit) = room.clone().try_acquire_owned() else { continue };
        let registry = registry.clone();
        let answer = service_fn(move |request: Request<Incoming>| {
            let text = match request.uri().path() {
                "/metrics" => {
                    let mut page = String::new();
                    encode(&mut page, &registry).ok().map(|()| page)
                }
                "/healthz" => Some("ok\n".to_owned()),
                _ => None,
            };
            let status = if text.is_some() { StatusCode::OK } else { StatusCode::NOT_FOUND };
            let mut response = Response::new(Full::<Bytes>::from(text.unwrap_or_default()));
            *response.status_mut() = status;
            std::future::ready(Ok::<_, Infallible>(response))
        });
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(PAGE_PATIENCE);
        let serving = builder.serve_connection(TokioIo::new(stream), answer);
        tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
            let _permit = permit;
            let _ = serving.await;
        }));
    }
}

/// Counters of the API server. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    requests: Family<RequestLabels, Counter>,
    watches: Family<ResourceLabels, Gauge>,
    cut: Family<ResourceLabels, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let (requests, watches, cut) = (Family::default(), Family::default(), Family::default());
        registry.register("apiserver_request", "Requests by verb, resource and code", Clone::clone(&requests));
        registry.register("apiserver_longrunning_requests", "Watches that run now", Clone::clone(&watches));
        registry.register("apiserver_watch_cut", "Watches that fell too far behind and were cut", Clone::clone(&cut));
        Self { registry: Arc::new(Mutex::new(registry)), requests, watches, cut }
    }
}

impl Metrics {
    /// Adds further metrics to the same page; `add` must not block.
    pub fn register(&self, add: impl FnOnce(&mut Registry)) {
        add(&mut self.registry.lock());
    }

    /// The page in the OpenMetrics text format.
    ///
    /// # Errors
    /// Where a metric cannot be written as text.
    pub fn render(&self) -> Result<String, std::fmt::Error> {
        let mut page = String::new();
        encode(&mut page, &self.registry.lock())?;
        Ok(page)
    }

    /// Counts a request.
    pub(crate) fn request(&self, verb: &'static str, target: &Target, code: u16) {
        let labels = RequestLabels {
            verb,
            group: target.gvr.group.to_string(),
            resource: target.gvr.resource.to_string(),
            subresource: target.subresource.clone().unwrap_or_default(),
            code: u32::from(code),
        };
        self.requests.get_or_create(&labels).inc();
    }

    /// Counts a running watch until the guard goes.
    pub(crate) fn watch(&self, target: &Target) -> WatchGuard {
        let labels = ResourceLabels { group: target.gvr.group.to_string(), resource: target.gvr.resource.to_string() };
        self.watches.get_or_create(&labels).inc();
        WatchGuard { metrics: self.clone(), labels }
    }
}

/// A running watch.
pub(crate) struct WatchGuard {
    metrics: Metrics,
    labels: ResourceLabels,
}

impl WatchGuard {
    /// Counts the watch's error.
    pub(crate) fn failed(&self, error: &ApiError) {
        if error.is_gone() {
            self.metrics.cut.get_or_create(&self.labels).inc();
        }
    }
}

impl Drop for WatchGuard {
    fn drop(&mut self) {
        self.metrics.watches.get_or_create(&self.labels).dec();
    }
}
